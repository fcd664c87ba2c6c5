"""SpMM: neighbours reduced without an array of messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, is_grad_enabled

from gnnlab.ops import _segment, reference
from gnnlab.ops._arguments import as_float64, check_reduce, check_reducible
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._library import is_traced, is_watched, kernels_for
from gnnlab.ops._operator import Operator, Saved
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.sddmm import sddmm

__all__ = ["spmm", "spmm_multi"]

_REDUCES = ("sum", "mean", "max", "min")
_STATISTICS = ("sum", "mean", "max", "min", "std")


def spmm(
    plan: EdgePlan,
    x: Tensor,
    weight: Tensor | None = None,
    *,
    reduce: Literal["sum", "mean", "max", "min"] = "sum",
    empty_value: float = 0.0,
    accumulate: Literal["float64"] | None = None,
) -> Tensor:
    """Reduces the weighted rows of each destination's sources; by default adds them.

    $$ y_i = \\sum_{e = (j \\to i)} w_e\\, x_j $$

    Args:
        plan: the edges.
        x: one row per source.
        weight: one number per edge, or one per edge and head, in the caller's edge order; it is
            used in the dtype of `x`.
        reduce: "sum", "mean" (the sum divided by the number of edges, not by their weights), "max"
            or "min".
        empty_value: what "max" and "min" give for a destination without edges.
        accumulate: "float64" computes in that dtype and rounds at the end, to validate results.

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
    be differentiated again. The gradient of "max" and "min" flows along one edge only, the first
    of those that reach the value.
    """
    if reduce not in _REDUCES:
        check_reduce(reduce, _REDUCES)
    if type(x) is not Tensor or x.dtype is not torch.float32:
        check_reducible(x, reduce, "x")
    if accumulate is not None:
        out = spmm(plan, as_float64(x, accumulate), weight, reduce=reduce, empty_value=empty_value)
        return out.to(x.dtype)
    if weight is not None or x.dim() == 0 or x.shape[0] != plan._num_src:
        weight = _checked(plan, x, weight)
    if reduce == "sum" or reduce == "mean":
        if type(x) is Tensor and weight is None and not is_watched():  # the usual case, at once
            if x.requires_grad and is_grad_enabled():
                return cast(Tensor, _SPMM.apply(plan, x, weight, reduce))
            return _run(plan, x, weight, reduce)
        return cast(Tensor, _SPMM(plan, x, weight, reduce))
    wants = x.requires_grad or (weight is not None and weight.requires_grad)
    if is_traced(x, weight) or (wants and is_grad_enabled()):
        out = cast(Tensor, _SPMM_ARG(plan, x, weight, reduce)[0])
    else:
        out = _run(plan, x, weight, reduce)
    return _segment.fill_empty(out, plan.counts, empty_value) if empty_value != 0 else out


def spmm_multi(
    plan: EdgePlan,
    x: Tensor,
    weight: Tensor | None = None,
    *,
    reduce: Sequence[str] = _STATISTICS,
) -> list[Tensor]:
    """Returns several reductions of each destination's sources from one pass over the edges.

    Args:
        plan: the edges.
        x: one row per source.
        weight: one number per edge, or one per edge and head; as for `spmm`.
        reduce: which of "sum", "mean", "max", "min" and "std", in the order wanted. "std" is the
            root of the population variance (divided by the number of edges), as principal
            neighbourhood aggregation uses it; its gradient where it is 0 is 0.

    Shapes:
        x: (N, *F); weight: (E,) or (E, H) or None.
        returns: one (M, *F) per entry of `reduce`; destinations without edges are 0.

    Raises:
        ValueError: if shapes or dtypes do not fit, or a reduction is unknown or asked for twice.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, spmm_multi
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> spmm_multi(plan, torch.tensor([1.0, 5.0]), reduce=("mean", "max", "std"))
        [tensor([3.]), tensor([5.]), tensor([2.])]

    Source: Corso et al., "Principal Neighbourhood Aggregation for Graph Nets", NeurIPS 2020.
    """
    names = tuple(reduce)
    for name in names:
        check_reduce(name, _STATISTICS)
        check_reducible(x, name, "x")
    if len(set(names)) < len(names):
        raise ValueError(f"spmm_multi: reduce names a reduction twice: {', '.join(names)}")
    weight = _checked(plan, x, weight)
    if weight is not None and weight.requires_grad and is_grad_enabled():
        return [_one(plan, x, weight, name) for name in names]
    return list(_SPMM_MULTI(plan, x, weight, ",".join(names)))


def _one(plan: EdgePlan, x: Tensor, weight: Tensor | None, name: str) -> Tensor:
    """One statistic from differentiable operators."""
    if name != "std":
        return spmm(plan, x, weight, reduce=cast(Any, name))
    away = gather(x, plan.src, plan=plan.T)
    if weight is not None:
        away = away * weight.view(*weight.shape, *[1] * (x.dim() - weight.dim()))
    away = away - gather(_segment.reduce_rows(plan.order, away, "mean"), plan.dst, plan=plan)
    return _root(_segment.reduce_rows(plan.order, away.square(), "mean"))


def _root(x: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


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
    return weight.to(x.dtype).contiguous()


# ---- the operators -----------------------------------------------------------------------------


def _kernels(x: Tensor, weight: Tensor | None) -> Any:
    if x.dtype in DTYPES and (weight is None or x.dtype.is_floating_point):
        return kernels_for(x)
    return None


def _run(plan: EdgePlan, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    kernels = _kernels(x, weight)
    if kernels is not None:
        return cast(Tensor, kernels.reduce(plan.order, x, weight, reduce, False)[0])
    return reference.spmm(*plan._ends(), x, weight, reduce)


def _fake(sizes: Any, x: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    return x.new_empty((sizes[1], *x.shape[1:]))


def _keep(inputs: tuple[Any, ...]) -> tuple[int, ...]:
    weight = inputs[1]
    if weight is None:
        return ()
    return (0, 1) if weight.requires_grad else (1,)


def _grads(saved: Saved, plan: EdgePlan, grad: Tensor) -> Sequence[Tensor | None]:
    x, weight = saved.tensors[:2]
    if saved.options[0] == "mean":
        grad = _segment.divide_rows(grad, plan.counts)
    if saved.needs[0] and saved.needs[1] and not is_grad_enabled():
        gx, gweight = _SPMM_BACKWARD(plan.T, grad, x, weight)
        return gx, gweight, None
    gx = spmm(plan.T, grad, weight) if saved.needs[0] else None
    gweight = weight_gradient(plan, grad, x, weight) if saved.needs[1] else None
    return gx, gweight, None


def weight_gradient(plan: EdgePlan, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Dot product of the two ends' rows of each edge, per head if the weight is."""
    heads = weight.shape[1] if weight.dim() == 2 else 1
    width = (
        x[0].numel() // heads if x.shape[0] and heads else grad.shape[1:].numel() // max(heads, 1)
    )
    shaped = [t.reshape(t.shape[0], heads, width) for t in (grad, x)]
    return sddmm(plan, *shaped).reshape(weight.shape)


def _run_arg(
    plan: EdgePlan, x: Tensor, weight: Tensor | None, reduce: str
) -> tuple[Tensor, Tensor]:
    kernels = _kernels(x, weight)
    if kernels is not None:
        return cast("tuple[Tensor, Tensor]", kernels.reduce(plan.order, x, weight, reduce, True))
    order = plan.order
    out, edges = reference.spmm_arg(*plan._ends(), x, weight, reduce)
    return out, order.places_of(edges).to(order.place_dtype)


def _fake_arg(sizes: Any, x: Tensor, weight: Tensor | None, reduce: str) -> tuple[Tensor, Tensor]:
    out = _fake(sizes, x, weight, reduce)
    small = sizes[2] < 2**31 - 1
    return out, torch.empty_like(out, dtype=torch.int32 if small else torch.int64)


def _keep_arg(inputs: tuple[Any, ...]) -> tuple[int | str, ...]:
    return (*_keep(inputs), "out1")


def _grads_arg(saved: Saved, plan: EdgePlan, grad: Tensor, _: Any) -> Sequence[Tensor | None]:
    x, weight = saved.tensors[:2]
    places, num_src = saved.outputs[1], plan.num_src
    kernels = None if is_grad_enabled() or is_traced(grad) else _kernels(grad, weight)
    if kernels is not None:
        wanted = x if saved.needs[1] else None
        gx, gweight = kernels.reduce_arg_backward(
            plan.order, grad.contiguous(), places, num_src, wanted, weight
        )
        return gx, gweight if saved.needs[1] else None, None
    return (*_arg_gradient(plan, grad, places, x if saved.needs[1] else None, weight), None)


def _arg_gradient(
    plan: EdgePlan, grad: Tensor, places: Tensor, x: Tensor | None, weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The gradient of max and min in torch's own operators, which can be differentiated again."""
    num_src, num_edges, shape = plan.num_src, plan.num_edges, grad.shape
    edges = plan.order.edges_at(places)
    ends = torch.cat([plan.src.long(), plan.src.new_tensor([num_src], dtype=torch.int64)])
    at = ends[edges]  # num_src where there is no edge: a row that is thrown away
    scaled, gweight = grad, None
    if weight is not None:
        heads = weight.shape[1] if weight.dim() == 2 else 1
        flat = torch.cat([weight.reshape(num_edges, heads), weight.new_zeros(1, heads)]).reshape(-1)
        head = torch.zeros_like(edges)
        if heads > 1:
            head = head + torch.arange(heads, device=grad.device)[:, None]
        spot = edges * heads + head
        scaled = grad * flat[spot.reshape(-1)].reshape(shape)
        if x is not None:
            padded = torch.cat([x, x.new_zeros(1, *x.shape[1:])])
            product = (grad * padded.gather(0, at)).reshape(-1)
            total = torch.zeros_like(flat).index_add(0, spot.reshape(-1), product)
            gweight = total[: num_edges * heads].reshape(weight.shape)
    gx = grad.new_zeros((num_src + 1, *shape[1:])).scatter_add(0, at, scaled)[:num_src]
    return gx, gweight


def _run_multi(plan: EdgePlan, x: Tensor, weight: Tensor | None, reduce: str) -> tuple[Tensor, ...]:
    names = tuple(reduce.split(",")) if reduce else ()
    kernels = _kernels(x, weight) if x.dtype.is_floating_point else None
    if kernels is not None:
        return tuple(kernels.reduce_multi(plan.order, x, weight, names))
    found = reference.spmm_multi(*plan._ends(), x, weight, names)
    return tuple(found)


def _fake_multi(sizes: Any, x: Tensor, weight: Tensor | None, reduce: str) -> list[Tensor]:
    return [_fake(sizes, x, weight, name) for name in reduce.split(",") if name]


def _grads_multi(saved: Saved, plan: EdgePlan, grads: Any) -> Sequence[Tensor | None]:
    """The gradient of x; max and min look for their edges again.

    d std_i / d x_j = w (w x_j - mean_i) / (count_i std_i), for each edge, and 0 where std is 0:
    what does not depend on j joins the gradients of sum and mean, and goes along the edges with
    them.
    """
    x, weight = saved.tensors[:2]
    names = saved.options[0].split(",")
    given = {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}
    rows, gx = given.get("sum"), torch.zeros_like(x)
    if "mean" in given:
        rows = _plus(rows, _segment.divide_rows(given["mean"], plan.counts))
    if "std" in given:
        if is_grad_enabled():  # to be differentiated again
            mean, std = _one(plan, x, weight, "mean"), _one(plan, x, weight, "std")
        else:
            mean, std = _SPMM_MULTI(plan, x, weight, "mean,std")
        share = torch.where(std > 0, given["std"] / torch.where(std > 0, std, 1.0), 0.0)
        share = _segment.divide_rows(share, plan.counts)
        rows = _plus(rows, -share * mean)
        gx = x * spmm(plan.T, share, None if weight is None else weight.square())
    if rows is not None:
        gx = gx + spmm(plan.T, rows, weight)
    for name in ("max", "min"):
        if name in given:
            gx = gx + _extreme_gradient(plan, given[name], x, weight, name)
    return gx, None, None


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


def _extreme_gradient(
    plan: EdgePlan, grad: Tensor, x: Tensor, weight: Tensor | None, name: str
) -> Tensor:
    """The gradient of x of a maximum or minimum whose places were not kept."""
    places = _SPMM_ARG(plan, x.detach(), weight, name)[1]
    kernels = None if is_grad_enabled() or is_traced(grad) else _kernels(grad, weight)
    if kernels is not None:
        found: Tensor = kernels.reduce_arg_backward(
            plan.order, grad.contiguous(), places, plan.num_src, None, weight
        )[0]
        return found
    return _arg_gradient(plan, grad, places, None, weight)[0]


def _run_backward(plan: EdgePlan, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    kernels = _kernels(x, weight)
    if kernels is not None:
        return cast("tuple[Tensor, Tensor]", kernels.spmm_backward(plan.order, grad, x, weight))
    gx = reference.spmm(*plan._ends(), grad, weight)
    return gx, weight_gradient(plan.T, grad, x, weight)


def _fake_backward(sizes: Any, grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(weight)


_SPMM = Operator(
    "spmm",
    "(plan, Tensor x, Tensor? weight, str reduce) -> Tensor",
    run=_run,
    fake=_fake,
    grads=_grads,
    keep=_keep,
    fold=0,
)
_SPMM_ARG = Operator(
    "spmm_arg",
    "(plan, Tensor x, Tensor? weight, str reduce) -> (Tensor, Tensor)",
    run=_run_arg,
    fake=_fake_arg,
    grads=_grads_arg,
    keep=_keep_arg,
)
_SPMM_MULTI = Operator(
    "spmm_multi",
    "(plan, Tensor x, Tensor? weight, str reduce) -> Tensor[]",
    run=_run_multi,
    fake=_fake_multi,
    grads=_grads_multi,
    keep=(0, 1),
)
_SPMM_BACKWARD = Operator(
    "spmm_backward",
    "(plan, Tensor grad, Tensor x, Tensor weight) -> (Tensor, Tensor)",
    run=_run_backward,
    fake=_fake_backward,
)
