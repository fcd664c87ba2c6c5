"""Gather: copies of rows, one per edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

from gnnlab.ops import reference
from gnnlab.ops._arguments import check_index, flat_width, index_vector, rows_in_place
from gnnlab.ops._library import Library, kernels_for
from gnnlab.ops.plan import EdgePlan

__all__ = ["gather"]


def gather(x: Tensor, index: Tensor, *, plan: EdgePlan | None = None) -> Tensor:
    """Copies the row of `x` that each entry of `index` names: ``out[e] = x[index[e]]``.

    Args:
        x: rows to copy from, of any dtype.
        index: which row, for each edge; int64 or int32, in any order, repeats allowed.
        plan: a plan whose destinations are `index` (for sources: ``plan.T``). Not needed; with it
            the gradient is summed without sorting `index` again.

    Shapes:
        x: (N, *F); index: (E,).
        returns: (E, *F), dtype of `x`.

    Raises:
        IndexError: if an index is outside 0..N-1 (CPU).
        ValueError: if `index` is not a vector of integers, or `x` has no rows to speak of (0-d).

    Example:
        >>> import torch
        >>> from gnnlab.ops import gather
        >>> gather(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0, 2])).flatten()
        tensor([3., 1., 3.])

    The gradient is `scatter` with "sum"; both can be differentiated any number of times.
    """
    if x.dim() == 0:
        raise ValueError("gather needs x with at least one dimension, got a scalar")
    index = index_vector(index)
    library = kernels_for(x, index)
    if library is None:
        check_index(index, x.shape[0])
        return reference.gather(x, index)
    if x.requires_grad and torch.is_grad_enabled():
        return _gather_with_grad(x, index, plan, library)
    return _forward(x, index, library)


def _forward(x: Tensor, index: Tensor, library: Library) -> Tensor:
    rows, step = rows_in_place(x)
    out = x.new_empty((index.shape[0], *x.shape[1:]))
    size = x.element_size()
    library.check(
        library.gather(
            rows.data_ptr(),
            step * size,
            index.data_ptr(),
            index.element_size(),
            index.shape[0],
            x.shape[0],
            flat_width(x) * size,
            out.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return out


class _Gather(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, plan: EdgePlan | None, library: Library
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.plan, ctx.num_rows = plan, x.shape[0]
        return _forward(x, index, library)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        from gnnlab.ops.scatter import scatter  # each is the other's gradient

        (index,) = ctx.saved_tensors
        return scatter(grad, index, ctx.num_rows, plan=ctx.plan), None, None, None


_gather_with_grad = cast("Callable[..., Tensor]", _Gather.apply)
