"""SpMM: weighted sums of neighbours without an array of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd import Function

from gnnlab.ops import reference
from gnnlab.ops._arguments import check_reduce, check_sum_dtype, flat_width, rows_in_place
from gnnlab.ops._library import DTYPES, Library, kernels_for
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.scatter import divide_rows

__all__ = ["spmm"]


def spmm(
    plan: EdgePlan,
    x: Tensor,
    weight: Tensor | None = None,
    *,
    reduce: Literal["sum", "mean"] = "sum",
) -> Tensor:
    """Sums (or averages) the weighted rows of each destination's sources.

    $$ y_i = \\sum_{e = (j \\to i)} w_e\\, x_j $$

    Args:
        plan: the edges.
        x: one row per source.
        weight: one number per edge, or one per edge and head, in the caller's edge order; it is
            used in the dtype of `x`.
        reduce: "sum", or "mean" (the sum divided by the number of edges, not by their weights).

    Shapes:
        x: (N, *F), or (N, H, D) with a weight per head; weight: (E,) or (E, H) or None.
        returns: (M, *F), dtype of `x`; destinations without edges are 0.

    Raises:
        ValueError: if shapes or dtypes do not fit the plan.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, spmm
        >>> plan = EdgePlan(torch.tensor([[0, 1, 2], [1, 1, 0]]), 3, 3)
        >>> spmm(plan, torch.tensor([1.0, 10.0, 100.0]))
        tensor([100.,  11.,   0.])

    Results are the same bits for every number of threads. The gradient of `x` is spmm on
    ``plan.T``, that of `weight` the dot product of the two end points' rows; both can
    be differentiated again.
    """
    check_reduce(reduce)
    check_sum_dtype(x, reduce, "x")
    weight = _checked(plan, x, weight)
    library = None
    if x.dtype in DTYPES and plan.device.type == "cpu":
        library = kernels_for(x) if weight is None else kernels_for(x, weight)
    if library is None:
        return reference.spmm(plan.src, plan.dst, plan.num_dst, x, weight, reduce)
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad)
    ):
        return _spmm_with_grad(x, weight, plan, reduce, library)
    return _forward(plan, x, weight, reduce, library)


def _checked(plan: EdgePlan, x: Tensor, weight: Tensor | None) -> Tensor | None:
    """Checks shapes, and returns the weight in the dtype of `x`."""
    if x.dim() == 0 or x.shape[0] != plan.num_src:
        raise ValueError(
            f"spmm: x must have one row for each of the plan's {plan.num_src} sources, "
            f"got shape {tuple(x.shape)}"
        )
    if weight is None:
        return None
    if weight.dim() not in (1, 2) or weight.shape[0] != plan.num_edges:
        raise ValueError(
            f"spmm: weight must be (E,) or (E, H) with E = {plan.num_edges} edges, "
            f"got shape {tuple(weight.shape)}"
        )
    if weight.dim() == 2 and (x.dim() != 3 or x.shape[1] != weight.shape[1]):
        raise ValueError(
            f"spmm: a weight of shape {tuple(weight.shape)} needs x of shape "
            f"({plan.num_src}, {weight.shape[1]}, D), got {tuple(x.shape)}"
        )
    if weight.dtype == torch.bool or weight.is_complex():
        raise ValueError(f"spmm: weight must hold real numbers, got {weight.dtype}")
    if weight.device != x.device:
        raise ValueError(f"spmm: weight is on {weight.device}, but x is on {x.device}")
    return weight.to(x.dtype)


def _forward(
    plan: EdgePlan, x: Tensor, weight: Tensor | None, reduce: str, library: Library
) -> Tensor:
    rows, step = rows_in_place(x)
    out = x.new_empty((plan.num_dst, *x.shape[1:]))
    heads, width, weight_heads, perm = 1, flat_width(x), 0, None
    if weight is not None:
        weight = weight.contiguous()
        perm = None if plan.is_sorted else plan.perm.data_ptr()
        weight_heads = 1
        if weight.dim() == 2:
            heads = weight_heads = weight.shape[1]
            width = x.shape[2]
    col = plan.col
    library.check(
        library.spmm(
            plan.indptr.data_ptr(),
            col.data_ptr(),
            perm,
            col.element_size(),
            plan.num_dst,
            plan.num_edges,
            rows.data_ptr(),
            step,
            heads,
            width,
            None if weight is None else weight.data_ptr(),
            weight_heads,
            reduce == "mean",
            DTYPES[x.dtype],
            out.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return out


class _Spmm(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, plan: EdgePlan, reduce: str, library: Library
    ) -> Tensor:
        needs_x = weight is not None and weight.requires_grad
        ctx.save_for_backward(x if needs_x else None, weight)
        ctx.plan, ctx.reduce = plan, reduce
        return _forward(plan, x, weight, reduce, library)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        plan: EdgePlan = ctx.plan
        if ctx.reduce == "mean":
            grad = divide_rows(grad, plan.counts)
        grad_x = spmm(plan.T, grad, weight) if ctx.needs_input_grad[0] else None
        grad_weight = None
        if weight is not None and ctx.needs_input_grad[1]:
            product = gather(grad, plan.dst, plan=plan) * gather(x, plan.src, plan=plan.T)
            grad_weight = product.reshape(*weight.shape, flat_width(grad) // _heads(weight)).sum(-1)
        return grad_x, grad_weight, None, None, None


def _heads(weight: Tensor) -> int:
    return max(weight.shape[1], 1) if weight.dim() == 2 else 1


_spmm_with_grad = cast("Callable[..., Tensor]", _Spmm.apply)
