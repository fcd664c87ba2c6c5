"""Scatter and segment: rows that share a destination, reduced to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from gnnlab.ops import _segment, reference
from gnnlab.ops._arguments import (
    Reduce,
    as_float64,
    check_index,
    check_reduce,
    check_reducible,
    index_vector,
)
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._edges import Order
from gnnlab.ops._library import cpu_library, is_traced, kernels_for
from gnnlab.ops._operator import Operator, Saved
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan

__all__ = ["scatter", "scatter_arg", "segment"]


def scatter(
    src: Tensor,
    index: Tensor,
    dim_size: int | None = None,
    *,
    reduce: Reduce = "sum",
    plan: EdgePlan | None = None,
    dim: int = 0,
    empty_value: float = 0.0,
    accumulate: Literal["float64"] | None = None,
) -> Tensor:
    """Reduces the rows of `src` that share a destination: ``out[index[e]]`` from ``src[e]``.

    Args:
        src: one row per edge.
        index: the destination of each edge; int64 or int32. With the shape of `src` (two or more
            dimensions) it moves single items instead of rows, by plain torch.
        dim_size: M, the number of destinations; by default the plan's, or the largest index + 1.
        reduce: "sum", "mean" (the sum divided by the number of edges that came), "max", "min" or
            "mul".
        plan: a plan whose destinations are `index`, which saves sorting; only sizes are compared.
        dim: the dimension of `src` that holds edges.
        empty_value: what "max" and "min" give where no edge came.
        accumulate: "float64" computes in that dtype and rounds at the end, to validate results.

    Shapes:
        src: (E, *F); index: (E,); with `dim` the edges lie along that dimension.
        returns: (M, *F), dtype of `src`; where no edge came 0, for "mul" 1.

    Raises:
        IndexError: if an index is outside 0..M-1 (CPU).
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import scatter
        >>> scatter(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 4)
        tensor([2., 0., 5., 0.])
        >>> scatter(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 3, reduce="max")
        tensor([2., 0., 4.])

    Results are the same bits for every number of threads. "max" and "min" propagate NaN, and
    their gradient flows to one edge only: the first of those that reach the value (torch's
    `scatter_reduce` divides it among them). bfloat16 and float16 are summed in float32.
    """
    check_reduce(reduce)
    check_reducible(src, reduce, "src")
    if dim != 0 and not -src.dim() <= dim < src.dim():
        raise ValueError(f"scatter: dim {dim} does not exist in src of shape {tuple(src.shape)}")
    if accumulate is not None:
        wide = as_float64(src, accumulate)
        out = scatter(
            wide, index, dim_size, reduce=reduce, plan=plan, dim=dim, empty_value=empty_value
        )
        return out.to(src.dtype)
    dim = dim % src.dim() if dim else 0
    if isinstance(index, Tensor) and index.dim() > 1:
        return _scatter_items(src, index, dim_size, reduce, dim)
    if dim != 0:
        moved = scatter(
            src.movedim(dim, 0), index, dim_size, reduce=reduce, plan=plan, empty_value=empty_value
        )
        return moved.movedim(0, dim)
    index, size = _checked(src, index, dim_size, plan)
    if reduce in ("max", "min"):
        out = _extreme(src, index, size, reduce, plan)
        if empty_value != 0:
            counts = reference.count(index, size) if plan is None else plan.counts
            out = _segment.fill_empty(out, counts, empty_value)
        return out
    if plan is not None:
        return _segment.reduce_rows(plan.order, src, reduce)
    return cast(Tensor, _SCATTER(src, index, size, reduce))


def scatter_arg(
    src: Tensor,
    index: Tensor,
    dim_size: int | None = None,
    *,
    reduce: Literal["max", "min"] = "max",
    plan: EdgePlan | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the max or min as `scatter` does, and which edge each item came from.

    Args:
        src: one row per edge.
        index: the destination of each edge; int64 or int32.
        dim_size: M, the number of destinations; by default the plan's, or the largest index + 1.
        reduce: "max" or "min".
        plan: a plan whose destinations are `index`, which saves sorting.

    Shapes:
        src: (E, *F); index: (E,).
        returns: values (M, *F) and edges (M, *F) int64; E (one past the end) where none came.

    Raises:
        IndexError: if an index is outside 0..M-1 (CPU).
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import scatter_arg
        >>> scatter_arg(torch.tensor([1.0, 4.0, 4.0]), torch.tensor([0, 0, 0]), 2)
        (tensor([4., 0.]), tensor([1, 3]))

    Among equal values the lowest edge wins, on every device; the first NaN wins over numbers.
    """
    check_reduce(reduce, ("max", "min"))
    check_reducible(src, reduce, "src")
    index, size = _checked(src, index, dim_size, plan)
    if plan is not None:
        return _segment.extreme_rows(plan.order, src, reduce)
    return cast("tuple[Tensor, Tensor]", _SCATTER_ARG(src, index, size, reduce))


def segment(
    src: Tensor,
    indptr: Tensor,
    *,
    reduce: Reduce = "sum",
    empty_value: float = 0.0,
    accumulate: Literal["float64"] | None = None,
) -> Tensor:
    """Reduces consecutive rows: ``out[i]`` comes from ``src[indptr[i]:indptr[i + 1]]``.

    Args:
        src: rows in segment order.
        indptr: where each segment begins, and at last the number of rows; starts at 0 and never
            decreases.
        reduce: "sum", "mean", "max", "min" or "mul".
        empty_value: what "max" and "min" give for an empty segment.
        accumulate: "float64" computes in that dtype and rounds at the end, to validate results.

    Shapes:
        src: (E, *F); indptr: (M + 1,) int64 or int32.
        returns: (M, *F), dtype of `src`; an empty segment gives 0, for "mul" 1.

    Raises:
        ValueError: if `indptr` is not of that form, or shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment
        >>> segment(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2, 3]))
        tensor([3., 0., 4.])
    """
    check_reduce(reduce)
    check_reducible(src, reduce, "src")
    if accumulate is not None:
        wide = as_float64(src, accumulate)
        out = segment(wide, indptr, reduce=reduce, empty_value=empty_value)
        return out.to(src.dtype)
    order = segments(indptr, src)
    if reduce not in ("max", "min"):
        return _segment.reduce_rows(order, src, reduce)
    out = _segment.extreme(order, src, reduce)
    if empty_value != 0:
        out = _segment.fill_empty(out, order.indptr.diff(), empty_value)
    return out


def segments(indptr: Tensor, src: Tensor) -> Order:
    """Checks `indptr` against the rows of `src` and returns the order it describes."""
    indptr = index_vector(indptr, "indptr").long()
    num_rows = src.shape[0]
    if indptr.shape[0] == 0:
        raise ValueError("indptr must have at least one entry: the 0 it starts at")
    library = cpu_library(indptr)
    if library is not None:
        library.check(library.check_indptr(indptr.data_ptr(), indptr.shape[0] - 1, num_rows))
    elif not is_traced(indptr):
        drops = int((indptr.diff() < 0).sum())
        if int(indptr[0]) != 0 or int(indptr[-1]) != num_rows or drops:
            raise ValueError(
                f"indptr must start at 0, never decrease and end at the number of rows "
                f"({num_rows}); it starts at {int(indptr[0])}, decreases {drops} times and ends "
                f"at {int(indptr[-1])}"
            )
    return Order(indptr, None, None, num_rows)


def _checked(
    src: Tensor, index: Tensor, dim_size: int | None, plan: EdgePlan | None
) -> tuple[Tensor, int]:
    """Returns the index as a vector and the number of destinations."""
    index = index_vector(index)
    if src.dim() == 0 or index.shape[0] != src.shape[0]:
        raise ValueError(
            f"scatter: index has {index.shape[0]} entries, but src of shape {tuple(src.shape)} "
            f"has {src.shape[0] if src.dim() else 0} rows along dim 0"
        )
    return index, _size(index, dim_size, plan)


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


def _extreme(src: Tensor, index: Tensor, size: int, reduce: str, plan: EdgePlan | None) -> Tensor:
    if plan is not None:
        return _segment.extreme(plan.order, src, reduce)
    if is_traced(src) or (src.requires_grad and torch.is_grad_enabled()):
        return cast(Tensor, _SCATTER_ARG(src, index, size, reduce)[0])
    return _run(src, index, size, reduce)


# ---- the operators -----------------------------------------------------------------------------


def _run(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    kernels = kernels_for(src)
    if kernels is not None and src.dtype in DTYPES and index.device == src.device:
        return kernels.scatter(src, index, size, reduce, False)[0]
    check_index(index, size)
    return reference.scatter(src, index, size, reduce)


def _run_arg(src: Tensor, index: Tensor, size: int, reduce: str) -> tuple[Tensor, Tensor]:
    kernels = kernels_for(src)
    if kernels is not None and src.dtype in DTYPES and index.device == src.device:
        return cast("tuple[Tensor, Tensor]", kernels.scatter(src, index, size, reduce, True))
    check_index(index, size)
    return reference.scatter_arg(src, index, size, reduce)


def _fake(src: Tensor, index: Tensor, size: int, reduce: str) -> Tensor:
    return src.new_empty((size, *src.shape[1:]))


def _fake_arg(src: Tensor, index: Tensor, size: int, reduce: str) -> tuple[Tensor, Tensor]:
    out = _fake(src, index, size, reduce)
    return out, torch.empty_like(out, dtype=torch.int64)


def _grads(saved: Saved, grad: Tensor) -> Sequence[Any]:
    src, index = saved.tensors[:2]
    size, reduce = saved.options
    if reduce == "mul":

        def total(x: Tensor) -> Tensor:
            return cast(Tensor, _SCATTER(x, index, size, "sum"))

        def product(x: Tensor) -> Tensor:
            return cast(Tensor, _SCATTER(x, index, size, "mul"))

        out = _segment.product_gradient(src, grad, total, product, lambda x: gather(x, index))
        return out, None, None, None
    if reduce == "mean":
        grad = _segment.divide_rows(grad, reference.count(index, size))
    return gather(grad, index), None, None, None


def _grads_arg(saved: Saved, grad: Tensor, _: Any) -> Sequence[Any]:
    num_edges = saved.shape[0]
    return _segment.to_edges(grad, saved.outputs[1], num_edges), None, None, None


_SCATTER = Operator(
    "scatter",
    "(Tensor src, Tensor index, SymInt size, str reduce) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=lambda inputs: (0, 1) if inputs[3] == "mul" else (1,),
    fold=0,
)
_SCATTER_ARG = Operator(
    "scatter_arg",
    "(Tensor src, Tensor index, SymInt size, str reduce) -> (Tensor, Tensor)",
    run=_run_arg,
    fake=_fake_arg,
    grads=_grads_arg,
    keep=("out1",),
)
