"""Gather: copies of rows, one per edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from gnnlab.ops import reference
from gnnlab.ops._arguments import check_index, index_vector
from gnnlab.ops._library import is_watched, kernels_for
from gnnlab.ops._operator import Operator, Saved
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
    wants = x.requires_grad
    if not wants and type(x) is Tensor and type(index) is Tensor and not is_watched():
        return _run(x, index)  # the usual case, at once
    if plan is not None and wants:
        return cast(Tensor, _PLANNED(plan, x, index))
    return cast(Tensor, _GATHER(x, index))


def _run(x: Tensor, index: Tensor) -> Tensor:
    kernels = kernels_for(x)
    if kernels is not None and index.device == x.device:
        return kernels.gather(x, index)
    check_index(index, x.shape[0])
    return reference.gather(x, index)


def _fake(x: Tensor, index: Tensor) -> Tensor:
    return x.new_empty((index.shape[0], *x.shape[1:]))


def _grads(saved: Saved, grad: Tensor) -> Sequence[Tensor | None]:
    from gnnlab.ops.scatter import scatter  # each is the other's gradient

    return scatter(grad, saved.tensors[1], saved.shape[0]), None


def _planned_grads(saved: Saved, plan: EdgePlan, grad: Tensor) -> Sequence[Tensor | None]:
    from gnnlab.ops.scatter import scatter

    return scatter(grad, saved.tensors[1], plan.num_dst, plan=plan), None


def _planned_fake(sizes: Any, x: Tensor, index: Tensor) -> Tensor:
    return _fake(x, index)


_GATHER = Operator(
    "gather",
    "(Tensor x, Tensor index) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=(1,),
    fold=0,
)
_PLANNED = Operator(
    "gather_planned",
    "(plan, Tensor x, Tensor index) -> Tensor",
    run=lambda plan, x, index: _run(x, index),
    fake=_planned_fake,
    grads=_planned_grads,
    keep=(1,),
    fold=0,
)
