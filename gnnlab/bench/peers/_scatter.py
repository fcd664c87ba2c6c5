"""torch_scatter: scatter, segments, softmax."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from gnnlab.bench._backward import gradient
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting

__all__ = ["Scatter"]


class Scatter:
    """Works on indices; keeps nothing."""

    name = "scatter"

    def __init__(self, setting: Setting) -> None:
        self.s = setting
        self.library: Any = importlib.import_module("torch_scatter")

    def _scatter(self, src: Tensor, how: str) -> Tensor:
        s = self.s
        return self.library.scatter(src, s.dst, 0, dim_size=s.m, reduce=how)  # type: ignore[no-any-return]

    def scatter_sum(self, case: Case) -> dict[str, Any]:
        return {"torch_scatter": lambda: self._scatter(case.inputs["messages"], "sum")}

    def scatter_mean(self, case: Case) -> dict[str, Any]:
        return {"torch_scatter": lambda: self._scatter(case.inputs["messages"], "mean")}

    def scatter_max(self, case: Case) -> dict[str, Any]:
        return {"torch_scatter": lambda: self._scatter(case.inputs["messages"], "max")}

    def _segment(self, case: Case, how: str) -> dict[str, Any]:
        src, indptr = case.inputs["messages"], self.s.indptr
        return {"torch_scatter": lambda: self.library.segment_csr(src, indptr, reduce=how)}

    def segment_sum(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "sum")

    def segment_max(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "max")

    def edge_softmax(self, case: Case) -> dict[str, Any]:
        logits, s = case.inputs["logits"], self.s
        return {
            "torch_scatter": lambda: self.library.scatter_softmax(logits, s.dst, 0, dim_size=s.m)
        }

    def edge_softmax_backward(self, case: Case) -> dict[str, Any]:
        logits, grad, s = case.inputs["logits"], case.inputs["grad"], self.s

        def forward() -> Tensor:
            return self.library.scatter_softmax(logits, s.dst, 0, dim_size=s.m)  # type: ignore[no-any-return]

        return {"torch_scatter": gradient(forward, [logits], grad)}

    def backward_scatter_sum(self, case: Case) -> dict[str, Any]:
        src, grad = case.inputs["messages"], case.inputs["grad"]
        call: Call = gradient(lambda: self._scatter(src, "sum"), [src], grad)
        return {"torch_scatter": call}
