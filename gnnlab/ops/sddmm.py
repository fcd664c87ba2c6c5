"""SDDMM: the two ends of each edge, combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from torch import Tensor

from gnnlab.ops import _segment, reference
from gnnlab.ops._arguments import check_floating
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._library import kernels_for
from gnnlab.ops._operator import Operator, Saved
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan

__all__ = ["sddmm"]

_OPS = ("dot", "add", "sub", "mul", "div")


def sddmm(
    plan: EdgePlan,
    a: Tensor,
    b: Tensor,
    *,
    op: Literal["dot", "add", "sub", "mul", "div"] = "dot",
) -> Tensor:
    """Combines the rows of the two ends of each edge: ``a[dst] op b[src]``.

    Args:
        plan: the edges.
        a: one row per destination.
        b: one row per source, of the dtype of `a`.
        op: "dot" (summed over the last dimension), "add", "sub", "mul" or "div".

    Shapes:
        a: (M, H, D); b: (N, H, D). (M, D) and (N, D) stand for one head.
        returns: (E, H) for "dot", else (E, H, D); without the H of inputs that have none. Edges are
        in the caller's order.

    Raises:
        ValueError: if shapes or dtypes do not fit the plan, or the operation is unknown.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, sddmm
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> sddmm(plan, torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]]))
        tensor([11., 17.])

    The gradient of "dot" is `spmm` with the gradient as weights; all can be differentiated again.
    """
    if op not in _OPS:
        raise ValueError(f'sddmm: unknown op "{op}". Known: {", ".join(_OPS)}.')
    check_floating(a, "a")
    check_floating(b, "b")
    if a.dtype != b.dtype:
        raise ValueError(f"sddmm: a and b must have one dtype, got {a.dtype} and {b.dtype}")
    if (
        a.dim() not in (2, 3)
        or a.shape[1:] != b.shape[1:]
        or (a.shape[0], b.shape[0]) != (plan.num_dst, plan.num_src)
    ):
        raise ValueError(
            f"sddmm: a must be ({plan.num_dst}, H, D) and b ({plan.num_src}, H, D), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.dim() == 2:
        return sddmm(plan, a[:, None], b[:, None], op=op).squeeze(1)
    return cast(Tensor, _SDDMM(plan, a, b, op))


def _run(plan: EdgePlan, a: Tensor, b: Tensor, op: str) -> Tensor:
    kernels = kernels_for(b) if b.dtype in DTYPES else None
    if kernels is not None:
        return kernels.sddmm(plan.order, a.contiguous(), b.contiguous(), op)
    return reference.sddmm(*plan._ends()[:2], a, b, op)


def _fake(sizes: Any, a: Tensor, b: Tensor, op: str) -> Tensor:
    return b.new_empty((sizes[2], *b.shape[1 : 2 if op == "dot" else 3]))


def _keep(inputs: tuple[Any, ...]) -> tuple[int, ...]:
    return () if inputs[2] in ("add", "sub") else (0, 1)


def _grads(saved: Saved, plan: EdgePlan, grad: Tensor) -> Sequence[Tensor | None]:
    from gnnlab.ops.spmm import spmm  # each is part of the other's gradient

    a, b = saved.tensors[:2]
    op, (needs_a, needs_b) = saved.options[0], saved.needs[:2]
    if op == "dot":
        ga = spmm(plan, b, grad) if needs_a else None
        gb = spmm(plan.T, a, grad) if needs_b else None
        return ga, gb, None
    to_a = to_b = grad
    if op == "sub":
        to_b = -grad
    elif op == "mul":
        to_a = grad * gather(b, plan.src, plan=plan.T) if needs_a else grad
        to_b = grad * gather(a, plan.dst, plan=plan) if needs_b else grad
    elif op == "div":
        right = gather(b, plan.src, plan=plan.T)
        to_a = grad / right
        to_b = -to_a / right * gather(a, plan.dst, plan=plan)
    ga = _segment.reduce_rows(plan.order, to_a, "sum") if needs_a else None
    gb = _segment.reduce_rows(plan.T.order, to_b, "sum") if needs_b else None
    return ga, gb, None


_SDDMM = Operator(
    "sddmm",
    "(plan, Tensor a, Tensor b, str op) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=_keep,
)
