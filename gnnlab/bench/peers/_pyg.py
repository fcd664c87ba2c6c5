"""PyG: its scatter, segment and softmax, `EdgeIndex`, and what users write with them today."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from gnnlab.bench._backward import gradient
from gnnlab.bench._cases import leaky
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting
from gnnlab.bench.peers import PLAIN, refuse_large
from gnnlab.bench.peers._torch import is_moderate, starts

__all__ = ["Pyg"]


class Pyg:
    """Keeps an `EdgeIndex` sorted by destination, its cached formats filled."""

    name = "pyg"

    def __init__(self, setting: Setting) -> None:
        self.s = s = setting
        self.utils: Any = importlib.import_module("torch_geometric.utils")
        edge_index: Any = importlib.import_module("torch_geometric").EdgeIndex
        ends = torch.stack([s.col, s.rows])
        self.edges = edge_index(ends, sort_order="col", sparse_size=(s.n, s.m)).fill_cache_()
        self.weight = s.weight[s.perm]

    def plan_build(self, case: Case) -> dict[str, Any]:
        s = self.s
        run = self.utils.index_sort
        call = Call(lambda: run(s.dst, max_value=s.m), finish=lambda r: starts(r[0], s.m))
        return {"PyG index_sort": call}

    # ---- scatter and segment ---------------------------------------------------------------------

    def _scatter(self, src: Tensor, how: str) -> Tensor:
        return self.utils.scatter(src, self.s.dst, 0, self.s.m, how)  # type: ignore[no-any-return]

    def scatter_sum(self, case: Case) -> dict[str, Any]:
        return {"PyG scatter": lambda: self._scatter(case.inputs["messages"], "sum")}

    def scatter_mean(self, case: Case) -> dict[str, Any]:
        return {"PyG scatter": lambda: self._scatter(case.inputs["messages"], "mean")}

    def scatter_max(self, case: Case) -> dict[str, Any]:
        return {"PyG scatter": lambda: self._scatter(case.inputs["messages"], "max")}

    def _segment(self, case: Case, how: str) -> dict[str, Any]:
        src, indptr = case.inputs["messages"], self.s.indptr
        return {"PyG segment": lambda: self.utils.segment(src, indptr, how)}

    def segment_sum(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "sum")

    def segment_max(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "max")

    # ---- products --------------------------------------------------------------------------------

    def _product(
        self, case: Case, how: str, weight: Tensor | None = None, plain: bool = True
    ) -> dict[str, Any]:
        s, x = self.s, case.inputs["x"]
        found: dict[str, Any] = {
            "PyG EdgeIndex": lambda: self.edges.matmul(x, weight, reduce=how, transpose=True)
        }
        if plain and is_moderate(s, x.shape[1]):
            given = case.inputs["weight"] if weight is not None else None
            found[f"{PLAIN}: gather+scatter"] = lambda: self._messages(x, given, how)
        return found

    def _messages(self, x: Tensor, weight: Tensor | None, how: str) -> Tensor:
        messages = x.index_select(0, self.s.src)
        if weight is not None:
            messages = messages * weight[:, None]
        return self._scatter(messages, how)

    def spmm_sum(self, case: Case) -> dict[str, Any]:
        return self._product(case, "sum")

    def spmm_sum_bf16(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"]
        refuse_large(self.s, x.shape[1] // 2)
        return {f"{PLAIN}: gather+scatter": lambda: self._messages(x, None, "sum")}

    def spmm_mean(self, case: Case) -> dict[str, Any]:
        return self._product(case, "mean")

    def spmm_max(self, case: Case) -> dict[str, Any]:
        return self._product(case, "max", plain=False)

    def spmm_weighted_sum(self, case: Case) -> dict[str, Any]:
        return self._product(case, "sum", self.weight)

    def spmm_weighted_max(self, case: Case) -> dict[str, Any]:
        return self._product(case, "max", self.weight, plain=False)

    # ---- attention -------------------------------------------------------------------------------

    def edge_softmax(self, case: Case) -> dict[str, Any]:
        s, logits = self.s, case.inputs["logits"]
        return {"PyG softmax": lambda: self.utils.softmax(logits, s.dst, num_nodes=s.m)}

    def edge_softmax_backward(self, case: Case) -> dict[str, Any]:
        s, logits, grad = self.s, case.inputs["logits"], case.inputs["grad"]
        run = self.utils.softmax
        return {"PyG softmax": gradient(lambda: run(logits, s.dst, num_nodes=s.m), [logits], grad)}

    def _attention(self, x: Tensor, a_src: Tensor, a_dst: Tensor) -> Tensor:
        """The aggregation of PyG's GATConv, without its linear maps."""
        s = self.s
        score = leaky(a_src.index_select(0, s.src) + a_dst.index_select(0, s.dst))
        share = self.utils.softmax(score, s.dst, num_nodes=s.m)
        return self._scatter(x.index_select(0, s.src) * share.unsqueeze(-1), "sum")

    def gat(self, case: Case) -> dict[str, Any]:
        given = case.inputs
        refuse_large(self.s, given["heads"] * given["depth"], 1200)
        along = [given[k] for k in ("x", "a_src", "a_dst")]
        return {f"{PLAIN}: GATConv's code": lambda: self._attention(*along)}

    def gat_backward(self, case: Case) -> dict[str, Any]:
        given = case.inputs
        refuse_large(self.s, given["heads"] * given["depth"], 1200)
        along = [given[k] for k in ("x", "a_src", "a_dst")]

        def run() -> Any:
            return torch.autograd.grad(self._attention(*along), along, given["grad"])

        return {f"{PLAIN}: GATConv's code": run}

    # ---- backward --------------------------------------------------------------------------------

    def backward_spmm_sum(self, case: Case) -> dict[str, Any]:
        x, grad = case.inputs["x"], case.inputs["grad"]
        return {"PyG EdgeIndex": gradient(lambda: self.edges.matmul(x, transpose=True), [x], grad)}

    def backward_spmm_weighted(self, case: Case) -> dict[str, Any]:
        x, w, grad = (case.inputs[k] for k in ("x", "weight", "grad"))
        refuse_large(self.s, x.shape[1])
        label = f"{PLAIN}: gather+scatter"
        return {label: gradient(lambda: self._messages(x, w, "sum"), [x, w], grad)}

    def backward_spmm_max(self, case: Case) -> dict[str, Any]:
        x, grad = case.inputs["x"], case.inputs["grad"]
        refuse_large(self.s, x.shape[1])
        label = f"{PLAIN}: gather+scatter"
        return {label: gradient(lambda: self._messages(x, None, "max"), [x], grad)}

    def backward_scatter_sum(self, case: Case) -> dict[str, Any]:
        src, grad = case.inputs["messages"], case.inputs["grad"]
        return {"PyG scatter": gradient(lambda: self._scatter(src, "sum"), [src], grad)}
