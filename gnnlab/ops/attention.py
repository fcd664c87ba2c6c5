"""Fused attention: scores, softmax and weighted sum in one pass, nothing stored per edge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from gnnlab.ops import reference_attention
from gnnlab.ops._arguments import check_floating
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._kernels import Operands, Statistics
from gnnlab.ops._library import kernels_for
from gnnlab.ops._operator import Operator, Saved, through
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.sddmm import sddmm
from gnnlab.ops.softmax import edge_softmax
from gnnlab.ops.spmm import spmm

__all__ = ["attention_aggregate", "gat_aggregate", "gatv2_aggregate"]


def gat_aggregate(
    plan: EdgePlan,
    x: Tensor,
    a_src: Tensor,
    a_dst: Tensor,
    edge_logit: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    dropout_p: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Aggregates by the attention of GAT: scores are sums of one number from each end.

    $$ y_i = \\sum_{e = (j \\to i)} \\operatorname{softmax}_i\\big(\\mathrm{LeakyReLU}(
       a^{src}_j + a^{dst}_i + l_e)\\big)\\, x_j $$

    Args:
        plan: the edges.
        x: what is aggregated.
        a_src, a_dst: the score of each source and destination.
        edge_logit: a further term of each edge's score, for example from its features.
        negative_slope: slope of LeakyReLU below 0.
        dropout_p: share of attention weights to drop, the others scaled up by 1 / (1 - dropout_p).
        generator: draws the seed of dropout; by default torch's own.
            torch.compile(fullgraph=True) takes no generator.

    Shapes:
        x: (N, H, D); a_src: (N, H); a_dst: (M, H); edge_logit: (E, H) or None.
        returns: (M, H, D); 0 for destinations without edges.

    Raises:
        ValueError: if shapes or dtypes do not fit, or `dropout_p` is not in [0, 1).

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, gat_aggregate
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> x, score = torch.tensor([[[1.0]], [[3.0]]]), torch.zeros(2, 1)
        >>> gat_aggregate(plan, x, score, score[:1])
        tensor([[[2.]]])

    No array per edge is made or kept, with dropout neither: it is drawn again in the backward pass
    (Philox, keyed by seed and edge). Each call draws a new seed, compiled or not; a CUDA graph
    repeats the seed of its capture. A second derivative is computed from the composed formula:
    right, and slower.

    Source: Velickovic et al., "Graph Attention Networks", ICLR 2018, equations (3) and (4).
    """
    heads = _check(plan, {"a_src": a_src, "a_dst": a_dst, "edge_logit": edge_logit}, x)
    _shape("a_src", a_src, (plan.num_src, heads))
    _shape("a_dst", a_dst, (plan.num_dst, heads))
    if edge_logit is not None:
        _shape("edge_logit", edge_logit, (plan.num_edges, heads))
    if not 0 <= dropout_p < 1:
        raise ValueError(f"gat_aggregate: dropout_p must be in [0, 1), got {dropout_p}")
    # A tensor, not a number: compiled code then draws it at each call.
    seed = torch.randint(2**62, (), generator=generator) if dropout_p > 0 else None
    given = (x, a_src, a_dst, edge_logit, seed, float(negative_slope), float(dropout_p))
    return cast(Tensor, _GAT(plan, *given)[0])


def gatv2_aggregate(
    plan: EdgePlan,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
) -> Tensor:
    """Aggregates by the attention of GATv2: a vector times the activated sum of both ends.

    $$ y_i = \\sum_{e = (j \\to i)} \\operatorname{softmax}_i\\big(\\langle a, \\mathrm{LeakyReLU}(
       x^{src}_j + x^{dst}_i + f_e)\\rangle\\big)\\, x^{src}_j $$

    Args:
        plan: the edges.
        x_src: rows of the sources, which are also what is aggregated.
        x_dst: rows of the destinations.
        att: the vector a of each head.
        edge: a further term f_e of each edge.
        negative_slope: slope of LeakyReLU below 0.

    Shapes:
        x_src: (N, H, D); x_dst: (M, H, D); att: (H, D); edge: (E, H, D) or None.
        returns: (M, H, D); 0 for destinations without edges.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, gatv2_aggregate
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> x = torch.tensor([[[1.0]], [[3.0]]])
        >>> gatv2_aggregate(plan, x, x[:1], torch.zeros(1, 1))
        tensor([[[2.]]])

    Source: Brody, Alon and Yahav, "How Attentive are Graph Attention Networks?", ICLR 2022.
    """
    heads = _check(plan, {"x_dst": x_dst, "att": att, "edge": edge}, x_src)
    width = x_src.shape[2]
    _shape("x_dst", x_dst, (plan.num_dst, heads, width))
    _shape("att", att, (heads, width))
    if edge is not None:
        _shape("edge", edge, (plan.num_edges, heads, width))
    return cast(Tensor, _GATV2(plan, x_src, x_dst, att, edge, float(negative_slope))[0])


def attention_aggregate(
    plan: EdgePlan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """Aggregates by scaled dot products of queries and keys, over the edges of a graph.

    $$ y_i = \\sum_{e = (j \\to i)} \\operatorname{softmax}_i\\big(s \\langle q_i, k_j \\rangle
       + b_e\\big)\\, v_j $$

    Args:
        plan: the edges.
        q: queries of the destinations.
        k, v: keys and values of the sources.
        bias: a further term of each edge's score.
        scale: s; by default 1 / sqrt(D).

    Shapes:
        q: (M, H, D); k, v: (N, H, D); bias: (E, H) or None.
        returns: (M, H, D); 0 for destinations without edges.

    Raises:
        ValueError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, attention_aggregate
        >>> plan = EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
        >>> v = torch.tensor([[[1.0]], [[3.0]]])
        >>> attention_aggregate(plan, torch.zeros(1, 1, 1), v, v)
        tensor([[[2.]]])

    Source: Shi et al., "Masked Label Prediction", IJCAI 2021, equations (3) and (4).
    """
    heads = _check(plan, {"q": q, "k": k, "bias": bias}, v)
    width = v.shape[2]
    _shape("q", q, (plan.num_dst, heads, width))
    _shape("k", k, (plan.num_src, heads, width))
    if bias is not None:
        _shape("bias", bias, (plan.num_edges, heads))
    scale = width**-0.5 if scale is None and width else float(scale or 0.0)
    return cast(Tensor, _ATTENTION(plan, q, k, v, bias, scale)[0])


def _check(plan: EdgePlan, given: dict[str, Tensor | None], values: Tensor) -> int:
    """Checks dtypes and the shape of what is aggregated; returns the number of heads."""
    check_floating(values, "what is aggregated")
    for name, tensor in given.items():
        if tensor is None:
            continue
        check_floating(tensor, name)
        if tensor.dtype != values.dtype or tensor.device != values.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, but the values are "
                f"{values.dtype} on {values.device}"
            )
    if values.dim() != 3 or values.shape[0] != plan.num_src:
        raise ValueError(
            f"attention needs values of shape ({plan.num_src}, H, D), got {tuple(values.shape)}"
        )
    return values.shape[1]


def _shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")


# ---- the operators: one scheme for the three ----------------------------------------------------


def _composed_gat(plan: EdgePlan, *given: Any) -> Tensor:
    """The formula in differentiable operators; for second derivatives."""
    x, a_src, a_dst, edge, seed, slope, dropout = given
    scores = sddmm(plan, a_dst[..., None], a_src[..., None], op="add").squeeze(-1)
    if edge is not None:
        scores = scores + edge
    share = edge_softmax(plan, torch.nn.functional.leaky_relu(scores, slope))
    if dropout > 0:
        share = share * reference_attention.keep_mask(
            share.shape[0], share.shape[1], dropout, seed, share.device
        )
        share = share / (1 - dropout)
    return spmm(plan, x, share)


def _composed_gatv2(plan: EdgePlan, *given: Any) -> Tensor:
    x_src, x_dst, att, edge, slope = given
    both = sddmm(plan, x_dst, x_src, op="add")
    if edge is not None:
        both = both + edge
    scores = (torch.nn.functional.leaky_relu(both, slope) * att).sum(-1)
    return spmm(plan, x_src, edge_softmax(plan, scores))


def _composed_attention(plan: EdgePlan, *given: Any) -> Tensor:
    q, k, v, bias, scale = given
    scores = sddmm(plan, q, k) * scale
    if bias is not None:
        scores = scores + bias
    return spmm(plan, v, edge_softmax(plan, scores))


def _make(name: str, names: str, options: str, composed: Callable[..., Tensor]) -> Operator:
    """Registers a fused attention and its gradient.

    The operator takes four tensors, in gat a fifth that holds the seed, and options. Kernels and
    the reference take the seed as a number, last of the options (`settle`).
    """
    num_tensors = names.count("Tensor")

    def settle(given: tuple[Any, ...]) -> tuple[Operands, tuple[Any, ...]]:
        edge, options = given[3], given[4:]
        edge = None if edge is None else edge.contiguous()
        if num_tensors == 5:
            seed, slope, dropout = options
            options = slope, dropout, 0 if seed is None else int(seed)
        return (given[0].contiguous(), given[1].contiguous(), given[2].contiguous(), edge), options

    def run(plan: EdgePlan, *given: Any) -> Statistics:
        tensors, options = settle(given)
        kernels = kernels_for(given[0]) if given[0].dtype in DTYPES else None
        if kernels is not None:
            return kernels.attend(name, plan.order, tensors, options)
        ends, given = plan._ends(), (*tensors, *options)
        out = reference_attention.attend(name, *ends, given)
        return (out, *reference_attention.statistics(name, *ends, given))

    def fake(sizes: Any, *given: Any) -> Statistics:
        x = given[reference_attention.VALUES[name]]
        kind = torch.float64 if x.dtype == torch.float64 else torch.float32
        out = x.new_empty((sizes[1], *x.shape[1:]))
        largest = x.new_empty((sizes[1], x.shape[1]), dtype=kind)
        return out, largest, torch.empty_like(largest)

    def grads(saved: Saved, plan: EdgePlan, grad: Tensor | None, *_: Any) -> Sequence[Any]:
        given = (*saved.tensors, *saved.options)
        if grad is None:
            return [None] * len(given)
        skipped = [None] * (len(given) - 4)
        if torch.is_grad_enabled():
            wanted = [k for k in range(4) if saved.needs[k]]
            return (*_at(wanted, through(composed, plan, given, wanted, grad)), *skipped)
        outputs = (saved.outputs[0], saved.outputs[1], saved.outputs[2])
        found = list(backward(plan, grad, *outputs, *given))
        if given[3] is None:
            found[3] = None
        return (*found, *skipped)

    def run_backward(
        plan: EdgePlan, grad: Tensor, out: Tensor, largest: Tensor, total: Tensor, *given: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tensors, options = settle(given)
        kernels = kernels_for(grad) if grad.dtype in DTYPES else None
        if kernels is None:
            found: Sequence[Tensor | None]
            found = reference_attention.backward(name, *plan._ends(), grad, (*tensors, *options))
        else:
            orders, result = (plan.order, plan.T.order), (out, largest, total)
            found = kernels.attend_backward(
                name, *orders, grad.contiguous(), result, tensors, options
            )
        last = None if given[3] is None else found[3]
        return found[0], found[1], found[2], grad.new_empty(0) if last is None else last

    def fake_backward(
        sizes: Any, grad: Tensor, out: Tensor, largest: Tensor, total: Tensor, *given: Any
    ) -> tuple[Tensor, ...]:
        empty = grad.new_empty(0)
        return tuple(empty if t is None else t.new_empty(t.shape) for t in given[:4])

    backward = Operator(
        f"{name}_backward",
        f"(plan, Tensor grad, Tensor out, Tensor largest, Tensor total, {names}, {options})"
        " -> (Tensor, Tensor, Tensor, Tensor)",
        run=run_backward,
        fake=fake_backward,
    )
    return Operator(
        f"{name}_aggregate",
        f"(plan, {names}, {options}) -> (Tensor, Tensor, Tensor)",
        run=run,
        fake=fake,
        grads=grads,
        keep=(*range(num_tensors), "out0", "out1", "out2"),
    )


def _at(places: list[int], tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    result: list[Tensor | None] = [None] * 4
    for place, tensor in zip(places, tensors, strict=True):
        result[place] = tensor
    return result


_GAT = _make(
    "gat",
    "Tensor x, Tensor a_src, Tensor a_dst, Tensor? edge, Tensor? seed",
    "float slope, float dropout",
    _composed_gat,
)
_GATV2 = _make(
    "gatv2",
    "Tensor x_src, Tensor x_dst, Tensor att, Tensor? edge",
    "float slope",
    _composed_gatv2,
)
_ATTENTION = _make(
    "attention",
    "Tensor q, Tensor k, Tensor v, Tensor? bias",
    "float scale",
    _composed_attention,
)
