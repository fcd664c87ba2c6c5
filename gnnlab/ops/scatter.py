"""Scatter and segment: sums and means of rows that share a destination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.autograd import Function

from gnnlab.ops import reference
from gnnlab.ops._arguments import (
    check_index,
    check_reduce,
    check_sum_dtype,
    flat_width,
    index_vector,
    rows_in_place,
)
from gnnlab.ops._library import DTYPES, SCATTER_STRATEGIES, Library, is_traced, kernels_for
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan

__all__ = ["scatter", "segment"]


def scatter(
    src: Tensor,
    index: Tensor,
    dim_size: int | None = None,
    *,
    reduce: Literal["sum", "mean"] = "sum",
    plan: EdgePlan | None = None,
    dim: int = 0,
) -> Tensor:
    """Adds (or averages) the rows of `src` that share a destination: ``out[index[e]] += src[e]``.

    Args:
        src: one row per edge.
        index: the destination of each edge; int64 or int32. With the shape of `src` (two or more
            dimensions) it moves single items instead of rows, by plain torch.
        dim_size: M, the number of destinations; by default the plan's, or the largest index + 1.
        reduce: "sum", or "mean" (the sum divided by the number of edges that came).
        plan: a plan whose destinations are `index`, which saves sorting; only sizes are compared.
        dim: the dimension of `src` that holds edges.

    Shapes:
        src: (E, *F); index: (E,); with `dim` the edges lie along that dimension.
        returns: (M, *F), dtype of `src`; destinations that no edge reaches are 0.

    Raises:
        IndexError: if an index is outside 0..M-1 (CPU).
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import scatter
        >>> scatter(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
        tensor([2., 0., 5., 0.])

    Results are the same bits for every number of threads. The gradient is `gather`.
    """
    check_reduce(reduce)
    check_sum_dtype(src, reduce, "src")
    if src.dim() == 0 or not -src.dim() <= dim < src.dim():
        raise ValueError(f"scatter: dim {dim} does not exist in src of shape {tuple(src.shape)}")
    dim %= src.dim()
    if isinstance(index, Tensor) and index.dim() > 1:
        return _scatter_items(src, index, dim_size, reduce, dim)
    index = index_vector(index)
    if index.shape[0] != src.shape[dim]:
        raise ValueError(
            f"scatter: index has {index.shape[0]} entries, but src of shape {tuple(src.shape)} "
            f"has {src.shape[dim]} rows along dim {dim}"
        )
    size = _size(index, dim_size, plan)
    if dim != 0:
        moved = scatter(src.movedim(dim, 0), index, size, reduce=reduce, plan=plan)
        return moved.movedim(0, dim)
    library = kernels_for(src, index) if src.dtype in DTYPES else None
    if library is None:
        if plan is None:
            check_index(index, size)
        return reference.scatter(src, index, size, reduce)
    if src.requires_grad and torch.is_grad_enabled():
        return _scatter_with_grad(src, index, size, reduce, plan, library)
    return _scatter_forward(src, index, size, reduce, plan, library)


def segment(src: Tensor, indptr: Tensor, *, reduce: Literal["sum", "mean"] = "sum") -> Tensor:
    """Adds (or averages) consecutive rows: ``out[i]`` comes from ``src[indptr[i]:indptr[i + 1]]``.

    Args:
        src: rows in segment order.
        indptr: where each segment begins, and at last the number of rows; starts at 0 and never
            decreases.
        reduce: "sum" or "mean".

    Shapes:
        src: (E, *F); indptr: (M + 1,) int64 or int32.
        returns: (M, *F), dtype of `src`; empty segments are 0.

    Raises:
        ValueError: if `indptr` is not of that form, or shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment
        >>> segment(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2, 3]))
        tensor([3., 0., 4.])
    """
    check_reduce(reduce)
    check_sum_dtype(src, reduce, "src")
    if src.dim() == 0:
        raise ValueError("segment needs src with at least one dimension, got a scalar")
    indptr = index_vector(indptr, "indptr").long()
    if indptr.shape[0] == 0:
        raise ValueError("indptr must have at least one entry: the 0 it starts at")
    library = kernels_for(src, indptr) if src.dtype in DTYPES else None
    if library is None:
        _check_indptr(indptr, src.shape[0])
        return reference.segment(src, indptr, reduce)
    if src.requires_grad and torch.is_grad_enabled():
        return _segment_with_grad(src, indptr, reduce, library)
    return _segment_forward(src, indptr, reduce, library)


def _scatter_items(
    src: Tensor, index: Tensor, dim_size: int | None, reduce: str, dim: int
) -> Tensor:
    if index.shape != src.shape or index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"scatter: index must be a vector or an integer tensor of src's shape "
            f"{tuple(src.shape)}, got {index.dtype} of shape {tuple(index.shape)}"
        )
    size = _size(index.reshape(-1), dim_size, None)
    check_index(index.reshape(-1), size)
    return reference.scatter_items(src, index, size, reduce, dim)


def _size(index: Tensor, dim_size: int | None, plan: EdgePlan | None) -> int:
    """Returns the number of destinations, after comparing what is said about it."""
    if plan is not None:
        if plan.num_edges != index.shape[0] or dim_size not in (None, plan.num_dst):
            raise ValueError(
                f"scatter: the plan has {plan.num_edges} edges and {plan.num_dst} destinations, "
                f"but index has {index.shape[0]} entries and dim_size is {dim_size}"
            )
        return plan.num_dst
    if dim_size is None:
        return int(index.max()) + 1 if index.numel() else 0
    if dim_size < 0:
        raise ValueError(f"scatter: dim_size must not be negative, got {dim_size}")
    return dim_size


def _check_indptr(indptr: Tensor, num_rows: int) -> None:
    if is_traced():
        return
    drops = int((indptr.diff() < 0).sum())
    if int(indptr[0]) != 0 or int(indptr[-1]) != num_rows or drops:
        raise ValueError(
            f"indptr must start at 0, never decrease and end at the number of rows ({num_rows}); "
            f"it starts at {int(indptr[0])}, decreases {drops} times and ends at {int(indptr[-1])}"
        )


def _scatter_forward(
    src: Tensor,
    index: Tensor,
    size: int,
    reduce: str,
    plan: EdgePlan | None,
    library: Library,
    strategy: str = "auto",
) -> Tensor:
    if plan is not None:
        if plan.is_sorted:
            return _segment_forward(src, plan.indptr, reduce, library)
        return _planned_forward(src, plan, reduce, library)
    rows, step = rows_in_place(src)
    out = src.new_empty((size, *src.shape[1:]))
    library.check(
        library.scatter(
            rows.data_ptr(),
            step,
            index.data_ptr(),
            index.element_size(),
            index.shape[0],
            size,
            flat_width(src),
            reduce == "mean",
            DTYPES[src.dtype],
            out.data_ptr(),
            SCATTER_STRATEGIES[strategy],
            torch.get_num_threads(),
        )
    )
    return out


def _planned_forward(src: Tensor, plan: EdgePlan, reduce: str, library: Library) -> Tensor:
    """Sums rows through the plan's order: an spmm whose columns are the edges themselves."""
    rows, step = rows_in_place(src)
    out = src.new_empty((plan.num_dst, *src.shape[1:]))
    perm = plan.perm
    library.check(
        library.spmm(
            plan.indptr.data_ptr(),
            perm.data_ptr(),
            None,
            perm.element_size(),
            plan.num_dst,
            plan.num_edges,
            rows.data_ptr(),
            step,
            1,
            flat_width(src),
            None,
            0,
            reduce == "mean",
            DTYPES[src.dtype],
            out.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return out


def _segment_forward(src: Tensor, indptr: Tensor, reduce: str, library: Library) -> Tensor:
    rows, step = rows_in_place(src)
    out = src.new_empty((indptr.shape[0] - 1, *src.shape[1:]))
    library.check(
        library.segment(
            rows.data_ptr(),
            step,
            indptr.data_ptr(),
            indptr.shape[0] - 1,
            src.shape[0],
            flat_width(src),
            reduce == "mean",
            DTYPES[src.dtype],
            out.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return out


def divide_rows(x: Tensor, counts: Tensor) -> Tensor:
    """Divides row i of `x` by counts[i], or by 1 where that is 0."""
    return x / counts.clamp(min=1).to(x.dtype).view(-1, *[1] * (x.dim() - 1))


class _Scatter(Function):
    @staticmethod
    def forward(
        ctx: Any,
        src: Tensor,
        index: Tensor,
        size: int,
        reduce: str,
        plan: EdgePlan | None,
        library: Library,
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.reduce, ctx.plan, ctx.size = reduce, plan, size
        return _scatter_forward(src, index, size, reduce, plan, library)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (index,) = ctx.saved_tensors
        if ctx.reduce == "mean":
            plan = ctx.plan
            counts = reference.count(index, ctx.size) if plan is None else plan.counts
            grad = divide_rows(grad, counts)
        return gather(grad, index, plan=ctx.plan), None, None, None, None, None


class _Segment(Function):
    @staticmethod
    def forward(ctx: Any, src: Tensor, indptr: Tensor, reduce: str, library: Library) -> Tensor:
        ctx.save_for_backward(indptr)
        ctx.reduce, ctx.num_rows, ctx.library = reduce, src.shape[0], library
        return _segment_forward(src, indptr, reduce, library)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (indptr,) = ctx.saved_tensors
        if ctx.reduce == "mean":
            grad = divide_rows(grad, indptr.diff())
        return _repeat_with_grad(grad, indptr, ctx.num_rows), None, None, None


class _Repeat(Function):
    """Row i of `x` once for each row of segment i: the gradient of `segment`, and the reverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(indptr)
        return gather(x, reference.rows_of(indptr, num_rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (indptr,) = ctx.saved_tensors
        return segment(grad, indptr), None, None


_scatter_with_grad = cast("Callable[..., Tensor]", _Scatter.apply)
_segment_with_grad = cast("Callable[..., Tensor]", _Segment.apply)
_repeat_with_grad = cast("Callable[..., Tensor]", _Repeat.apply)
