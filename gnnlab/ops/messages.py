"""Sums of messages that a formula makes of the ends of an edge, without an (E, F) array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gnnlab.ops._arguments import check_floating
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._library import kernels_for
from gnnlab.ops._operator import Operator, Saved, through
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.scatter import scatter
from gnnlab.ops.sddmm import sddmm

__all__ = ["gated_aggregate", "relu_aggregate"]


def relu_aggregate(plan: EdgePlan, x: Tensor, edge: Tensor) -> Tensor:
    r"""Sums over in-edges what is positive of the source's row plus the edge's row.

    $$ h_i = \sum_{e = (j \to i)} \max(x_j + y_e, 0) $$

    Args:
        plan: the edges.
        x: one row per source.
        edge: one row per edge, y.

    Shapes:
        x: (N, F); edge: (E, F).
        returns: (M, F); 0 for destinations without edges.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, relu_aggregate
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> relu_aggregate(plan, torch.tensor([[1.0], [2.0]]), torch.tensor([[-3.0], [4.0]]))
        tensor([[6.]])

    Source: Hu et al., "Strategies for Pre-training Graph Neural Networks", ICLR 2020, equation in
    appendix; GIN with edge features.
    """
    _check(plan, {"x": (x, plan.num_src), "edge": (edge, plan.num_edges)})
    return cast(Tensor, _RELU(plan, x, edge))


def gated_aggregate(plan: EdgePlan, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
    r"""Sums sources' values over in-edges, each number through a gate of both ends.

    $$ h_i = \sum_{j \to i} \sigma(k_i + q_j) \odot v_j $$

    Args:
        plan: the edges.
        key: one row per destination.
        query, value: one row per source.

    Shapes:
        key: (M, F); query, value: (N, F).
        returns: (M, F); 0 for destinations without edges.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, gated_aggregate
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> value = torch.tensor([[1.0], [3.0]])
        >>> gated_aggregate(plan, torch.zeros(1, 1), torch.zeros(2, 1), value)
        tensor([[2.]])

    Source: Bresson and Laurent, "Residual Gated Graph ConvNets", arXiv:1711.07553, equation (11).
    """
    sources = {"query": (query, plan.num_src), "value": (value, plan.num_src)}
    _check(plan, {"key": (key, plan.num_dst), **sources})
    return cast(Tensor, _GATED(plan, key, query, value))


def _check(plan: EdgePlan, given: dict[str, tuple[Tensor, int]]) -> None:
    """Checks that all are matrices of one width, dtype and device."""
    first = next(iter(given.values()))[0]
    for name, (tensor, rows) in given.items():
        check_floating(tensor, name)
        if tensor.dim() != 2 or tensor.shape[0] != rows or tensor.shape[1:] != first.shape[1:]:
            width = first.shape[1] if first.dim() == 2 else "F"
            raise ValueError(f"{name} must have shape ({rows}, {width}), got {tuple(tensor.shape)}")
        if (tensor.dtype, tensor.device) != (first.dtype, first.device):
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, but {next(iter(given))} is "
                f"{first.dtype} on {first.device}"
            )


def composed_relu(plan: EdgePlan, x: Tensor, edge: Tensor) -> Tensor:
    """The formula in differentiable operators: without kernels, and for second derivatives."""
    messages = (gather(x, plan.src, plan=plan.T) + edge).relu()
    return scatter(messages, plan.dst, plan.num_dst, plan=plan)


def composed_gated(plan: EdgePlan, key: Tensor, query: Tensor, value: Tensor) -> Tensor:
    """The formula in differentiable operators: without kernels, and for second derivatives."""
    gate = sddmm(plan, key, query, op="add").sigmoid()
    messages = gate * gather(value, plan.src, plan=plan.T)
    return scatter(messages, plan.dst, plan.num_dst, plan=plan)


def _kernels(tensor: Tensor) -> Any:
    """The compiled operators, where they have these: on the CPU, not yet on GPUs."""
    kernels = kernels_for(tensor) if tensor.dtype in DTYPES else None
    return kernels if hasattr(kernels, "sum_messages") else None


def _make(name: str, names: Sequence[str], composed: Callable[..., Tensor]) -> Operator:
    """Registers a sum of messages and its gradient; `names` are those of the inputs."""
    count = len(names)
    schema = ", ".join(f"Tensor {n}" for n in names)

    def run(plan: EdgePlan, *given: Tensor) -> Tensor:
        kernels = _kernels(given[0])
        if kernels is None:
            return composed(plan, *given)
        return cast(Tensor, kernels.sum_messages(name, plan.order, [t.contiguous() for t in given]))

    def fake(sizes: Any, *given: Tensor) -> Tensor:
        return given[0].new_empty((sizes[1], *given[0].shape[1:]))

    def grads(saved: Saved, plan: EdgePlan, grad: Tensor) -> Sequence[Tensor | None]:
        given = cast("list[Tensor]", saved.tensors[:count])
        wanted = [k for k in range(count) if saved.needs[k]]
        result: list[Tensor | None] = [None] * count
        if torch.is_grad_enabled():
            found = through(composed, plan, given, wanted, grad)
        else:
            every = backward(plan, grad, *given, "".join("01"[k in wanted] for k in range(count)))
            found = [every[k] for k in wanted]
        for k, tensor in zip(wanted, found, strict=True):
            result[k] = tensor
        return result

    def run_backward(plan: EdgePlan, grad: Tensor, *given: Any) -> tuple[Tensor, ...]:
        needs, tensors = given[-1], [t.contiguous() for t in given[:-1]]
        kernels = _kernels(grad)
        if kernels is not None:
            orders = (plan.order, plan.T.order)
            found = kernels.sum_messages_backward(
                name, *orders, grad.contiguous(), tensors, [n == "1" for n in needs]
            )
        else:
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in tensors]
                found = torch.autograd.grad(composed(plan, *leaves), leaves, grad)
        empty = grad.new_empty(0)
        return tuple(
            empty if n == "0" or g is None else g for n, g in zip(needs, found, strict=True)
        )

    def fake_backward(sizes: Any, grad: Tensor, *given: Any) -> tuple[Tensor, ...]:
        empty = grad.new_empty(0)
        return tuple(
            t.new_empty(t.shape) if n == "1" else empty
            for n, t in zip(given[-1], given[:-1], strict=True)
        )

    backward = Operator(
        f"{name}_backward",
        f"(plan, Tensor grad, {schema}, str needs) -> ({', '.join(['Tensor'] * count)})",
        run=run_backward,
        fake=fake_backward,
    )
    return Operator(
        name,
        f"(plan, {schema}) -> Tensor",
        run=run,
        fake=fake,
        grads=grads,
        keep=tuple(range(count)),
    )


_RELU = _make("relu_sum", ("x", "edge"), composed_relu)
_GATED = _make("gated_sum", ("key", "query", "value"), composed_gated)
