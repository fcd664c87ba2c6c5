"""Softmax over the edges of a destination, and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gnnlab.ops import _segment, reference
from gnnlab.ops._arguments import check_floating, index_vector
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._edges import Order, group_edges
from gnnlab.ops._library import kernels_for
from gnnlab.ops._operator import Operator, Saved
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.scatter import segments

__all__ = [
    "edge_softmax",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax",
    "segment_std",
]


def edge_softmax(plan: EdgePlan, logits: Tensor) -> Tensor:
    """Normalises the exponentials of logits over the in-edges of each destination.

    $$ p_e = \\exp(s_e) \\Big/ \\sum_{f \\to i} \\exp(s_f), \\qquad e \\to i $$

    Args:
        plan: the edges.
        logits: one number per edge, or one per edge and head.

    Shapes:
        logits: (E,) or (E, H).
        returns: the same, in the caller's edge order.

    Raises:
        ValueError: if `logits` does not have one row per edge, or is not floating-point.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, edge_softmax
        >>> plan = EdgePlan(torch.tensor([[0, 1, 2], [0, 0, 1]]), 3, 2)
        >>> edge_softmax(plan, torch.tensor([0.0, 0.0, 5.0]))
        tensor([0.5000, 0.5000, 1.0000])

    Large logits do not overflow. Statistics are float32 at least. Can be differentiated twice.
    """
    _check(logits, plan.num_edges)
    return _normalise(plan.order, logits, "softmax")


def segment_softmax(
    src: Tensor,
    index: Tensor | None = None,
    *,
    indptr: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Normalises exponentials over entries that share an index, or lie in one segment.

    Args:
        src: the logits.
        index: the group of each entry, in any order; or None and
        indptr: where each group begins in `src`, and at last the number of entries.
        dim_size: number of groups, with `index`; by default the largest index + 1.

    Shapes:
        src: (E, *F); index: (E,); indptr: (M + 1,).
        returns: (E, *F).

    Raises:
        IndexError: if an index is out of range.
        ValueError: if shapes or dtypes do not fit, or not exactly one of the two is given.

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment_softmax
        >>> segment_softmax(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([1, 1, 0]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    return _normalise(_order(src, index, indptr, dim_size), src, "softmax")


def segment_log_softmax(
    src: Tensor,
    index: Tensor | None = None,
    *,
    indptr: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Returns the logarithm of `segment_softmax`, without computing the softmax.

    Args, shapes and errors are those of `segment_softmax`.

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment_log_softmax
        >>> segment_log_softmax(torch.tensor([0.0, 0.0]), torch.tensor([0, 0]))
        tensor([-0.6931, -0.6931])
    """
    return _normalise(_order(src, index, indptr, dim_size), src, "log_softmax")


def segment_logsumexp(
    src: Tensor,
    index: Tensor | None = None,
    *,
    indptr: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Returns the logarithm of the sum of exponentials of each group; -inf for an empty one.

    Args and errors are those of `segment_softmax`.

    Shapes:
        src: (E, *F).
        returns: (M, *F).

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment_logsumexp
        >>> segment_logsumexp(torch.tensor([0.0, 0.0]), indptr=torch.tensor([0, 2, 2]))
        tensor([0.6931,   -inf])
    """
    order = _order(src, index, indptr, dim_size)
    out = cast(Tensor, _LOGSUMEXP(order, _flat(src)))
    return out.reshape(order.num_rows, *src.shape[1:])


def segment_std(
    src: Tensor,
    index: Tensor | None = None,
    *,
    indptr: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Returns the standard deviation of each group.

    Args:
        src: one row per entry.
        index, indptr, dim_size: the groups, as for `segment_softmax`.
        unbiased: whether to divide by the number of entries minus 1 (at least 1).

    Shapes:
        src: (E, *F).
        returns: (M, *F); 0 for groups of one entry or none.

    Raises:
        IndexError: if an index is out of range.
        ValueError: if shapes or dtypes do not fit, or not exactly one of the two is given.

    Example:
        >>> import torch
        >>> from gnnlab.ops import segment_std
        >>> segment_std(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([0, 0, 1]), unbiased=False)
        tensor([1., 0.])
    """
    order = _order(src, index, indptr, dim_size)
    mean = _segment.reduce_rows(order, src, "mean")
    away = src - _segment.spread_rows(order, mean)
    total = _segment.reduce_rows(order, away.square(), "sum")
    counts = order.indptr.diff() - (1 if unbiased else 0)
    variance = _segment.divide_rows(total, counts)
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)


def _order(src: Tensor, index: Tensor | None, indptr: Tensor | None, dim_size: int | None) -> Order:
    check_floating(src, "src")
    if src.dim() == 0 or (index is None) == (indptr is None):
        raise ValueError("give src with at least one dimension and either index or indptr")
    if indptr is not None:
        return segments(indptr, src)
    index = index_vector(cast(Tensor, index))
    if index.shape[0] != src.shape[0]:
        raise ValueError(
            f"index has {index.shape[0]} entries, but src of shape {tuple(src.shape)} has "
            f"{src.shape[0]} rows"
        )
    if dim_size is None:
        dim_size = int(index.max()) + 1 if index.numel() else 0
    starts, _, perm = group_edges(index, index, dim_size, dim_size)
    return Order(starts, None, perm, index.shape[0])


def _check(logits: Tensor, num_edges: int) -> None:
    check_floating(logits, "logits")
    if logits.dim() == 0 or logits.shape[0] != num_edges:
        raise ValueError(
            f"logits must have one row for each of the {num_edges} edges, "
            f"got shape {tuple(logits.shape)}"
        )


def _flat(src: Tensor) -> Tensor:
    """Returns `src` as (E, H): everything behind the first dimension counts as heads."""
    return src.reshape(src.shape[0], src.shape[1:].numel())


def _normalise(order: Order, src: Tensor, kind: str) -> Tensor:
    if src.dim() == 2:
        return cast(Tensor, _SOFTMAX(order, src, kind))
    return cast(Tensor, _SOFTMAX(order, _flat(src), kind)).reshape(src.shape)


# ---- the operators -----------------------------------------------------------------------------


def _run(order: Order, src: Tensor, kind: str) -> Tensor:
    kernels = kernels_for(src) if src.dtype in DTYPES else None
    if kernels is not None:
        return kernels.softmax(order, src.contiguous(), kind)
    return reference.edge_softmax(src, order.rows(), order.num_rows, kind == "log_softmax")


def _fake(sizes: Any, src: Tensor, kind: str) -> Tensor:
    return src.new_empty(src.shape)


def _grads(saved: Saved, order: Order, grad: Tensor) -> Sequence[Tensor | None]:
    return cast(Tensor, _SOFTMAX_BACKWARD(order, saved.outputs[0], grad, saved.options[0])), None


def _run_backward(order: Order, out: Tensor, grad: Tensor, kind: str) -> Tensor:
    kernels = kernels_for(out) if out.dtype in DTYPES else None
    if kernels is not None:
        return kernels.softmax_backward(order, out.contiguous(), grad.contiguous(), kind)
    wide_out, wide_grad = (t.float() if t.element_size() < 4 else t for t in (out, grad))
    rows = order.rows()
    share = wide_out if kind == "softmax" else wide_out.exp()
    terms = share * wide_grad if kind == "softmax" else wide_grad
    total = reference.gather(reference.scatter(terms, rows, order.num_rows), rows)
    first = terms if kind == "softmax" else wide_grad
    return (first - share * total).to(out.dtype)


def _fake_backward(sizes: Any, out: Tensor, grad: Tensor, kind: str) -> Tensor:
    return out.new_empty(out.shape)


def _grads_backward(saved: Saved, order: Order, again: Tensor) -> Sequence[Tensor | None]:
    """Gradients of the gradient with respect to the result (`out`) and to what came in (`grad`)."""
    out, grad = saved.tensors[:2]

    def total(x: Tensor) -> Tensor:
        return _segment.spread_rows(order, _segment.reduce_rows(order, x, "sum"))

    if saved.options[0] == "softmax":  # r = p (g - sum p g)
        to_out = again * (grad - total(out * grad)) - grad * total(out * again)
        return to_out, out * (again - total(out * again)), None
    share = out.exp()  # r = g - exp(o) sum g
    sums = total(grad)
    return -again * share * sums, again - total(again * share), None


def _run_logsumexp(order: Order, src: Tensor) -> Tensor:
    kernels = kernels_for(src) if src.dtype in DTYPES else None
    if kernels is not None:
        return kernels.softmax(order, src.contiguous(), "logsumexp")
    return reference.segment_logsumexp(src, order.rows(), order.num_rows)


def _fake_logsumexp(sizes: Any, src: Tensor) -> Tensor:
    return src.new_empty((sizes[0], src.shape[1]))


def _grads_logsumexp(saved: Saved, order: Order, grad: Tensor) -> Sequence[Tensor | None]:
    src, out = saved.tensors[0], saved.outputs[0]
    out = out.masked_fill(out.isinf(), 0.0)  # a group that is empty, or -inf throughout
    share = (src - _segment.spread_rows(order, out)).exp()
    return (_segment.spread_rows(order, grad) * share,)


_SOFTMAX = Operator(
    "edge_softmax",
    "(order, Tensor src, str kind) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=("out0",),
)
_SOFTMAX_BACKWARD = Operator(
    "edge_softmax_backward",
    "(order, Tensor out, Tensor grad, str kind) -> Tensor",
    run=_run_backward,
    fake=_fake_backward,
    grads=_grads_backward,
    keep=(0, 1),
)
_LOGSUMEXP = Operator(
    "segment_logsumexp",
    "(order, Tensor src) -> Tensor",
    run=_run_logsumexp,
    fake=_fake_logsumexp,
    grads=_grads_logsumexp,
    keep=(0, "out0"),
)
