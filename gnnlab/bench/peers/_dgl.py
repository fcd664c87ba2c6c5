"""DGL 1.1.3: products, edge products and softmax on its graph; scatter as a sum over edges."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from gnnlab.bench._backward import gradient
from gnnlab.bench._cases import leaky
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting
from gnnlab.bench.peers import refuse_large
from gnnlab.bench.peers._torch import zero_where_empty

__all__ = ["Dgl"]


class Dgl:
    """Keeps a bipartite graph with all its formats made."""

    name = "dgl"

    def __init__(self, setting: Setting) -> None:
        self.s = s = setting
        dgl: Any = importlib.import_module("dgl")
        self.ops: Any = importlib.import_module("dgl.ops")
        ends = (s.src, s.dst)
        self.graph: Any = dgl.create_block(ends, s.n, s.m)
        self.graph.create_formats_()

    def _product(self, x: Tensor, how: str, weight: Tensor | None = None) -> Tensor:
        if weight is None:
            return self.ops.gspmm(self.graph, "copy_lhs", how, x, None)  # type: ignore[no-any-return]
        return self.ops.gspmm(self.graph, "mul", how, x, weight[:, None])  # type: ignore[no-any-return]

    def _sum_edges(self, src: Tensor, how: str) -> Tensor:
        return self.ops.gspmm(self.graph, "copy_rhs", how, None, src)  # type: ignore[no-any-return]

    # ---- scatter: DGL has sorted the edges before ------------------------------------------------

    def scatter_sum(self, case: Case) -> dict[str, Any]:
        return {"DGL copy_e (sorted)": lambda: self._sum_edges(case.inputs["messages"], "sum")}

    def scatter_mean(self, case: Case) -> dict[str, Any]:
        return {"DGL copy_e (sorted)": lambda: self._sum_edges(case.inputs["messages"], "mean")}

    def scatter_max(self, case: Case) -> dict[str, Any]:
        src = case.inputs["messages"]
        call = Call(lambda: self._sum_edges(src, "max"), finish=zero_where_empty)
        return {"DGL copy_e (sorted)": call}

    def _segment(self, case: Case, how: str) -> dict[str, Any]:
        src, lengths = case.inputs["messages"], self.s.degree
        call = Call(
            lambda: self.ops.segment_reduce(lengths, src, reducer=how), finish=zero_where_empty
        )
        return {"DGL segment": call}

    def segment_sum(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "sum")

    def segment_max(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "max")

    # ---- products --------------------------------------------------------------------------------

    def spmm_sum(self, case: Case) -> dict[str, Any]:
        return {"DGL copy_u": lambda: self._product(case.inputs["x"], "sum")}

    spmm_sum_bf16 = spmm_sum

    def spmm_mean(self, case: Case) -> dict[str, Any]:
        return {"DGL copy_u": lambda: self._product(case.inputs["x"], "mean")}

    def spmm_max(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"]
        return {"DGL copy_u": Call(lambda: self._product(x, "max"), finish=zero_where_empty)}

    def spmm_max_with_arg(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"].clone().requires_grad_()
        return {"DGL copy_u": Call(lambda: self._product(x, "max"), finish=zero_where_empty)}

    def spmm_weighted_sum(self, case: Case) -> dict[str, Any]:
        x, w = case.inputs["x"], case.inputs["weight"]
        return {"DGL u_mul_e": lambda: self._product(x, "sum", w)}

    def spmm_weighted_max(self, case: Case) -> dict[str, Any]:
        x, w = case.inputs["x"], case.inputs["weight"]
        return {"DGL u_mul_e": Call(lambda: self._product(x, "max", w), finish=zero_where_empty)}

    def sddmm_dot(self, case: Case) -> dict[str, Any]:
        a, b = case.inputs["a"], case.inputs["b"]
        return {"DGL u_dot_v": lambda: self.ops.gsddmm(self.graph, "dot", b, a)}

    # ---- attention -------------------------------------------------------------------------------

    def edge_softmax(self, case: Case) -> dict[str, Any]:
        logits = case.inputs["logits"]
        return {"DGL edge_softmax": lambda: self.ops.edge_softmax(self.graph, logits)}

    def edge_softmax_backward(self, case: Case) -> dict[str, Any]:
        logits, grad = case.inputs["logits"], case.inputs["grad"]
        call = gradient(lambda: self.ops.edge_softmax(self.graph, logits), [logits], grad)
        return {"DGL edge_softmax": call}

    def _attention(self, x: Tensor, a_src: Tensor, a_dst: Tensor) -> Tensor:
        """The aggregation of DGL's GATConv, without its linear maps."""
        score = self.ops.gsddmm(self.graph, "add", a_src.unsqueeze(-1), a_dst.unsqueeze(-1))
        share = self.ops.edge_softmax(self.graph, leaky(score))
        return self.ops.gspmm(self.graph, "mul", "sum", x, share)  # type: ignore[no-any-return]

    def gat(self, case: Case) -> dict[str, Any]:
        along = [case.inputs[k] for k in ("x", "a_src", "a_dst")]
        return {"DGL GATConv's code": lambda: self._attention(*along)}

    def gat_backward(self, case: Case) -> dict[str, Any]:
        given = case.inputs
        refuse_large(self.s, given["heads"] * given["depth"], 1200)
        along = [given[k] for k in ("x", "a_src", "a_dst")]

        def run() -> Any:
            return torch.autograd.grad(self._attention(*along), along, given["grad"])

        return {"DGL GATConv's code": run}

    # ---- backward --------------------------------------------------------------------------------

    def backward_spmm_sum(self, case: Case) -> dict[str, Any]:
        x, grad = case.inputs["x"], case.inputs["grad"]
        return {"DGL copy_u": gradient(lambda: self._product(x, "sum"), [x], grad)}

    def backward_spmm_weighted(self, case: Case) -> dict[str, Any]:
        x, w, grad = (case.inputs[k] for k in ("x", "weight", "grad"))
        return {"DGL u_mul_e": gradient(lambda: self._product(x, "sum", w), [x, w], grad)}

    def backward_spmm_max(self, case: Case) -> dict[str, Any]:
        x, grad = case.inputs["x"], case.inputs["grad"]
        return {"DGL copy_u": gradient(lambda: self._product(x, "max"), [x], grad)}

    def backward_scatter_sum(self, case: Case) -> dict[str, Any]:
        src, grad = case.inputs["messages"], case.inputs["grad"]
        call = gradient(lambda: self._sum_edges(src, "sum"), [src], grad)
        return {"DGL copy_e (sorted)": call}
