"""PyTorch itself: indexing, scattering, and sparse matrices (MKL for the plain sum)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from gnnlab.bench._backward import gradient
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting
from gnnlab.bench.peers import Refused, refuse_large

__all__ = ["Torch", "starts", "zero_where_empty"]


class Torch:
    """Keeps the graph as CSR, once with 32-bit indices (MKL wants them), once with 64-bit ones."""

    name = "torch"

    def __init__(self, setting: Setting) -> None:
        self.s = s = setting
        ones, weight = torch.ones(s.e), s.weight[s.perm]
        self.matrix = _csr(s.indptr, s.col, ones, (s.m, s.n))
        self.weighted = _csr(s.indptr, s.col, weight, (s.m, s.n))
        self.wide = _csr(s.indptr, s.col, ones, (s.m, s.n), torch.int64)
        order = s.src.sort(stable=True).indices
        starts = torch.cat([s.indptr[:1], s.src.bincount(minlength=s.n).cumsum(0)])
        self.transposed = _csr(starts, s.dst[order], ones, (s.n, s.m))

    def plan_build(self, case: Case) -> dict[str, Any]:
        dst, m = self.s.dst, self.s.m
        call = Call(lambda: dst.sort(stable=True), finish=lambda r: starts(r.values, m))
        return {"torch.sort": call}

    def gather(self, case: Case) -> dict[str, Any]:
        x, src = case.inputs["x"], self.s.src
        return {"index_select": lambda: x.index_select(0, src), "x[i]": lambda: x[src]}

    def gather_output_reused(self, case: Case) -> dict[str, Any]:
        x, out, src = case.inputs["x"], case.inputs["out"], self.s.src
        return {"index_select(out=)": lambda: torch.index_select(x, 0, src, out=out)}

    # ---- scatter and segment ---------------------------------------------------------------------

    def scatter_sum(self, case: Case) -> dict[str, Any]:
        src, dst, new = case.inputs["messages"], self.s.dst, self._zeros(case)
        wide = dst[:, None].expand_as(src)
        return {
            "index_add_": lambda: new().index_add_(0, dst, src),
            "scatter_reduce_": lambda: new().scatter_reduce_(0, wide, src, "sum"),
        }

    def scatter_mean(self, case: Case) -> dict[str, Any]:
        return self._scatter_reduce(case, "mean")

    def scatter_max(self, case: Case) -> dict[str, Any]:
        return self._scatter_reduce(case, "amax")

    def _scatter_reduce(self, case: Case, how: str) -> dict[str, Any]:
        src, dst, new = case.inputs["messages"], self.s.dst, self._zeros(case)
        wide = dst[:, None].expand_as(src)
        return {
            "scatter_reduce_": lambda: new().scatter_reduce_(0, wide, src, how, include_self=False),
            "index_reduce_": lambda: new().index_reduce_(0, dst, src, how, include_self=False),
        }

    def segment_sum(self, case: Case) -> dict[str, Any]:
        src, rows, new = case.inputs["messages"], self.s.rows, self._zeros(case)
        return {
            **self._segment(case, "sum"),
            "index_add_": lambda: new().index_add_(0, rows, src),
        }

    def segment_max(self, case: Case) -> dict[str, Any]:
        return self._segment(case, "max")

    def _segment(self, case: Case, how: str) -> dict[str, Any]:
        src, indptr = case.inputs["messages"], self.s.indptr
        call = Call(
            lambda: torch.segment_reduce(src, how, offsets=indptr, axis=0), finish=zero_where_empty
        )
        return {"segment_reduce": call}

    def _zeros(self, case: Case) -> Any:
        shape = (self.s.m, case.inputs["messages"].shape[1])
        return lambda: torch.zeros(shape)

    # ---- sparse matrices -------------------------------------------------------------------------

    def spmm_sum(self, case: Case) -> dict[str, Any]:
        s, x = self.s, case.inputs["x"]
        found: dict[str, Any] = {"torch CSR (MKL)": lambda: torch.sparse.mm(self.matrix, x)}
        if is_moderate(s, x.shape[1]):
            found["gather+index_add_"] = lambda: _gather_add(s, x)
        return found

    def spmm_sum_bf16(self, case: Case) -> dict[str, Any]:
        s, x = self.s, case.inputs["x"]
        matrix = self.matrix.to(torch.bfloat16)
        try:
            torch.sparse.mm(matrix, x)
        except RuntimeError:
            return {"gather+index_add_": lambda: _gather_add(s, x)}
        return {"torch CSR (MKL)": lambda: torch.sparse.mm(matrix, x)}

    def spmm_mean(self, case: Case) -> dict[str, Any]:
        x, share = case.inputs["x"], 1.0 / self.s.degree.clamp(min=1)
        matrix = self._with_values(share.float()[self.s.rows])
        return {
            "torch CSR mean": lambda: torch.sparse.mm(self.wide, x, "mean"),
            "torch CSR (MKL), divided": lambda: torch.sparse.mm(matrix, x),
        }

    def spmm_max(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"]
        return {"torch CSR amax": lambda: torch.sparse.mm(self.wide, x, "amax")}

    def spmm_max_with_arg(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"].clone().requires_grad_()
        return {"torch CSR amax": lambda: torch.sparse.mm(self.wide, x, "amax")}

    def spmm_weighted_sum(self, case: Case) -> dict[str, Any]:
        x = case.inputs["x"]
        return {"torch CSR (MKL)": lambda: torch.sparse.mm(self.weighted, x)}

    def spmm_weighted_max(self, case: Case) -> dict[str, Any]:
        s, x = self.s, case.inputs["x"]
        matrix = _csr(s.indptr, s.col, s.weight[s.perm], (s.m, s.n), torch.int64)
        return {"torch CSR amax": lambda: torch.sparse.mm(matrix, x, "amax")}

    def _with_values(self, values: Tensor) -> Tensor:
        s = self.s
        return _csr(s.indptr, s.col, values, (s.m, s.n))

    def sddmm_dot(self, case: Case) -> dict[str, Any]:
        s, a, b = self.s, case.inputs["a"], case.inputs["b"]
        other, zero = b.t(), self._with_values(torch.zeros(s.e))
        found: dict[str, Any] = {
            "sampled_addmm": Call(
                lambda: torch.sparse.sampled_addmm(zero, a, other, beta=0.0), finish=self._edges
            )
        }
        if is_moderate(s, a.shape[1]):
            found["gather"] = lambda: (a[s.dst] * b[s.src]).sum(-1)
        return found

    def _edges(self, matrix: Tensor) -> Tensor:
        values = torch.empty(self.s.e)
        values[self.s.perm] = matrix.values()
        return values

    # ---- backward --------------------------------------------------------------------------------

    def backward_spmm_sum(self, case: Case) -> dict[str, Any]:
        s, x, grad = self.s, case.inputs["x"], case.inputs["grad"]
        found: dict[str, Any] = {
            "torch CSR transposed (MKL)": lambda: torch.sparse.mm(self.transposed, grad)
        }
        if is_moderate(s, x.shape[1]):
            found["gather+index_add_"] = gradient(lambda: _gather_add(s, x), [x], grad)
        return found

    def backward_spmm_weighted(self, case: Case) -> dict[str, Any]:
        s, x, w, grad = self.s, *(case.inputs[k] for k in ("x", "weight", "grad"))
        refuse_large(s, x.shape[1])
        return {"gather+index_add_": gradient(lambda: _gather_add(s, x, w), [x, w], grad)}

    def backward_spmm_max(self, case: Case) -> dict[str, Any]:
        x, grad = case.inputs["x"], case.inputs["grad"]
        return {
            "torch CSR amax": gradient(lambda: torch.sparse.mm(self.wide, x, "amax"), [x], grad)
        }

    def backward_scatter_sum(self, case: Case) -> dict[str, Any]:
        src, grad, dst = case.inputs["messages"], case.inputs["grad"], self.s.dst
        zeros = torch.zeros_like(grad)
        return {"index_add": gradient(lambda: zeros.index_add(0, dst, src), [src], grad)}

    def backward_gather(self, case: Case) -> dict[str, Any]:
        x, grad, src = case.inputs["x"], case.inputs["grad"], self.s.src
        return {
            "index_select": gradient(lambda: x.index_select(0, src), [x], grad),
            "x[i]": gradient(lambda: x[src], [x], grad),
        }


def zero_where_empty(result: Tensor) -> Tensor:
    """Replaces the -inf that some libraries give for rows without edges by our 0."""
    return result.masked_fill(result == -torch.inf, 0.0)


def starts(rows: Tensor, count: int) -> Tensor:
    """Returns where each row begins in sorted `rows`; wrong where they are not sorted."""
    return torch.searchsorted(rows, torch.arange(count + 1))


def is_moderate(setting: Setting, width: int) -> bool:
    """Whether an array of messages may be made."""
    try:
        refuse_large(setting, width)
    except Refused:
        return False
    return True


def _gather_add(s: Setting, x: Tensor, weight: Tensor | None = None) -> Tensor:
    messages = x.index_select(0, s.src)
    if weight is not None:
        messages = messages * weight[:, None]
    return x.new_zeros(s.m, x.shape[1]).index_add_(0, s.dst, messages)


def _csr(
    indptr: Tensor,
    col: Tensor,
    values: Tensor,
    size: tuple[int, int],
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR is in beta
        return torch.sparse_csr_tensor(indptr.to(dtype), col.to(dtype), values, size)
