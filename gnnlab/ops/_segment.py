"""Reductions of a tensor per edge over the rows of an order; behind segment and planned scatter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gnnlab.ops import reference
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._edges import Order
from gnnlab.ops._library import is_traced, kernels_for
from gnnlab.ops._operator import Operator, Saved

__all__ = [
    "divide_rows",
    "extreme",
    "extreme_rows",
    "fill_empty",
    "product_gradient",
    "reduce_rows",
    "spread_rows",
    "to_edges",
]


def reduce_rows(order: Order, src: Tensor, reduce: str) -> Tensor:
    """Sum, mean or product of the rows of `src` (caller's order) over each row of `order`."""
    return cast(Tensor, _SEGMENT(order, src, reduce))


def extreme_rows(order: Order, src: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    """Max or min over each row of `order`, and the caller's edge it came from."""
    return cast("tuple[Tensor, Tensor]", _SEGMENT_ARG(order, src, reduce))


def extreme(order: Order, src: Tensor, reduce: str) -> Tensor:
    """Max or min over each row of `order`; looks for the edges only if a gradient needs them."""
    if is_traced(src) or (src.requires_grad and torch.is_grad_enabled()):
        return extreme_rows(order, src, reduce)[0]
    return _run(order, src, reduce)


def spread_rows(order: Order, x: Tensor) -> Tensor:
    """Returns row i of `x` for each edge of row i, in the caller's order: (E, *F)."""
    return cast(Tensor, _SPREAD(order, x))


def divide_rows(x: Tensor, counts: Tensor) -> Tensor:
    """Divides row i of `x` by counts[i], or by 1 where that is 0."""
    return x / counts.clamp(min=1).to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def fill_empty(out: Tensor, counts: Tensor, value: float) -> Tensor:
    """Puts `value` into the rows that no edge reached."""
    return out.masked_fill((counts == 0).view(-1, *[1] * (out.dim() - 1)), value)


def to_edges(grad: Tensor, arg: Tensor, num_edges: int) -> Tensor:
    """Gradient of max and min: item (i, f) of `grad` goes to row arg[i, f]; E is dropped."""
    out = grad.new_zeros((num_edges + 1, *grad.shape[1:]))
    return out.scatter(0, arg, grad)[:num_edges]


def product_gradient(
    src: Tensor,
    grad: Tensor,
    total: Callable[[Tensor], Tensor],
    product: Callable[[Tensor], Tensor],
    spread: Callable[[Tensor], Tensor],
) -> Tensor:
    """Gradient of a product of rows: the product of the others, right also where some are 0."""
    zero = src == 0
    zeros = spread(total(zero.to(src.dtype)))
    rest = spread(product(src.masked_fill(zero, 1.0)) * grad)
    others = torch.where(zero, rest, rest / src.masked_fill(zero, 1.0))
    alone = torch.where(zero, zeros == 1, zeros == 0)
    return others * alone


# ---- the operators -----------------------------------------------------------------------------


def _run(order: Order, src: Tensor, reduce: str) -> Tensor:
    kernels = kernels_for(src)
    if kernels is not None and src.dtype in DTYPES:
        return kernels.reduce(order.reading(), src, None, reduce, False)[0]
    return reference.scatter(src, order.rows(), order.num_rows, reduce)


def _run_arg(order: Order, src: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    kernels = kernels_for(src)
    if kernels is not None and src.dtype in DTYPES:
        out, places = kernels.reduce(order.reading(), src, None, reduce, True)
        return out, order.edges_at(cast(Tensor, places))
    return reference.scatter_arg(src, order.rows(), order.num_rows, reduce)


def _fake(sizes: Any, src: Tensor, reduce: str) -> Tensor:
    return src.new_empty((sizes[0], *src.shape[1:]))


def _fake_arg(sizes: Any, src: Tensor, reduce: str) -> tuple[Tensor, Tensor]:
    out = _fake(sizes, src, reduce)
    return out, torch.empty_like(out, dtype=torch.int64)


def _grads(saved: Saved, order: Order, grad: Tensor) -> Sequence[Any]:
    reduce = saved.options[0]
    if reduce == "mul":
        out = product_gradient(
            saved.tensors[0],
            grad,
            lambda x: reduce_rows(order, x, "sum"),
            lambda x: reduce_rows(order, x, "mul"),
            lambda x: spread_rows(order, x),
        )
        return out, None
    if reduce == "mean":
        grad = divide_rows(grad, order.indptr.diff())
    return spread_rows(order, grad), None


def _grads_arg(saved: Saved, order: Order, grad: Tensor, _: Any) -> Sequence[Any]:
    return to_edges(grad, saved.outputs[1], order.num_edges), None


def _run_spread(order: Order, x: Tensor) -> Tensor:
    kernels = kernels_for(x)
    if kernels is not None:
        return kernels.gather(x, order.rows())
    return reference.gather(x, order.rows())


def _fake_spread(sizes: Any, x: Tensor) -> Tensor:
    return x.new_empty((sizes[1], *x.shape[1:]))


def _grads_spread(saved: Saved, order: Order, grad: Tensor) -> Sequence[Any]:
    return (reduce_rows(order, grad, "sum"),)


_SEGMENT = Operator(
    "segment",
    "(order, Tensor src, str reduce) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=lambda inputs: (0,) if inputs[1] == "mul" else (),
    fold=0,
)
_SEGMENT_ARG = Operator(
    "segment_arg",
    "(order, Tensor src, str reduce) -> (Tensor, Tensor)",
    run=_run_arg,
    fake=_fake_arg,
    grads=_grads_arg,
    keep=("out1",),
)
_SPREAD = Operator(
    "spread",
    "(order, Tensor x) -> Tensor",
    run=_run_spread,
    fake=_fake_spread,
    grads=_grads_spread,
    fold=0,
)
