"""What is measured forward: operators with inputs, bytes and float64 formulas.

Bytes are `bytes_gather`: every input and output byte once, but gathered rows once per edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting, some
from gnnlab.ops._into import gather_into

__all__ = ["HEADS", "LARGEST", "columns_of", "forward", "gat_case", "leaky"]

HEADS = ((1, 64), (4, 16), (8, 32))
LARGEST = 640 << 20  # bytes of an (E, F) array that we still measure: the machine must hold several


def forward(setting: Setting, widths: Sequence[int]) -> Iterator[Case]:
    """Yields the forward cases of one graph, cheap ones first."""
    yield _plan_build(setting)
    for width in widths:
        yield from _spmm(setting, width)
        yield _sddmm(setting, width)
        if setting.e * width * 4 <= LARGEST:
            yield from _per_edge(setting, width)
    for heads in (1, 8):
        yield _softmax(setting, heads)
    for heads, depth in HEADS:
        yield gat_case(setting, heads, depth)


def columns_of(columns: np.ndarray) -> Any:
    """Returns a function that selects columns of a result, its rows flattened, in float64."""

    def pick(result: Tensor) -> np.ndarray:
        flat = result.detach().reshape(result.shape[0], -1)
        return np.asarray(flat[:, torch.from_numpy(columns)].double())

    return pick


def _edges_of(places: np.ndarray) -> Any:
    def pick(result: Tensor) -> np.ndarray:
        flat = result.detach().reshape(result.shape[0], -1)
        return np.asarray(flat[torch.from_numpy(places)].double())

    return pick


def _plan_build(s: Setting) -> Case:
    size = 16 * s.e + 8 * (s.m + 1) + 8 * s.e

    def build() -> Tensor:
        return ops.EdgePlan(s.graph.edge_index, s.n, s.m).indptr

    return Case(
        "plan build",
        "",
        s,
        size,
        Call(build),
        lambda: s.indptr.numpy().astype(float),
        pick=lambda result: np.asarray(result, dtype=float),
    )


def _spmm(s: Setting, width: int) -> Iterator[Case]:
    columns = some(width)
    pick = columns_of(columns)
    x, w, plan = s.randn("x", s.n, width), s.weight, s.plan

    def size(itemsize: int = 4, weights: int = 0, arg: int = 0) -> int:
        rows = width * (s.e * itemsize + s.m * (itemsize + arg))
        return 8 * (s.m + 1) + 4 * s.e + weights * s.e + rows

    def case(op: str, nbytes: int, run: Any, how: str, weight: Tensor | None, **more: Any) -> Case:
        given = more.pop("x", x)
        return Case(
            op,
            str(width),
            s,
            nbytes,
            run if isinstance(run, Call) else Call(run),
            lambda: s.reduce(s.terms(given, columns, weight), how),
            {"x": given, "weight": w},
            pick,
            **more,
        )

    half, tracked = x.bfloat16(), x.clone().requires_grad_()
    yield case("spmm sum", size(), lambda: ops.spmm(plan, x), "sum", None)
    yield case("spmm mean", size(), lambda: ops.spmm(plan, x, reduce="mean"), "mean", None)
    yield case("spmm max", size(), lambda: ops.spmm(plan, x, reduce="max"), "max", None)
    yield case(
        "spmm max with arg",
        size(arg=4),
        lambda: ops.spmm(plan, tracked, reduce="max"),
        "max",
        None,
        x=tracked.detach(),
    )
    yield case("spmm weighted sum", size(weights=4), lambda: ops.spmm(plan, x, w), "sum", w)
    if width == 64:
        yield case(
            "spmm weighted sum, new weights",
            size(weights=4),
            # The call before has other weights, so that none can be kept from it.
            Call(lambda _: ops.spmm(plan, x, w), before=lambda: ops.spmm(plan, x, -w)),
            "sum",
            w,
            kind="spmm_weighted_sum",
        )
    yield case(
        "spmm weighted max",
        size(weights=4),
        lambda: ops.spmm(plan, x, w, reduce="max"),
        "max",
        w,
    )
    yield case(
        "spmm sum bf16",
        size(itemsize=2),
        lambda: ops.spmm(plan, half),
        "sum",
        None,
        x=half,
        tolerance=2e-2,
    )


def _sddmm(s: Setting, width: int) -> Case:
    a, b = s.randn("a", s.m, 1, width), s.randn("b", s.n, 1, width)
    places = some(s.e, 50_000)
    src, dst = s.src.numpy()[places], s.dst.numpy()[places]

    def want() -> np.ndarray:
        left, right = a.double().numpy()[dst, 0], b.double().numpy()[src, 0]
        return np.asarray((left * right).sum(1, keepdims=True))

    return Case(
        "sddmm dot",
        str(width),
        s,
        8 * (s.m + 1) + 8 * s.e + 4 * width * (s.e + s.m),
        Call(lambda: ops.sddmm(s.plan, a, b, op="dot")),
        want,
        {"a": a[:, 0], "b": b[:, 0]},
        _edges_of(places),
    )


def _per_edge(s: Setting, width: int) -> Iterator[Case]:
    """Operators with one row per edge: gather, scatter, segment."""
    columns, places = some(width), some(s.e, 50_000)
    x, messages = s.randn("x", s.n, width), s.randn("messages", s.e, width)
    out = torch.empty(s.e, width)
    rows = 4 * width * (s.e + s.m)

    def gathered() -> np.ndarray:
        return np.asarray(x.double().numpy()[s.src.numpy()[places]])

    size = s.e * (8 + 8 * width)
    pick = _edges_of(places)
    fresh = Call(lambda: ops.gather(x, s.src))
    given = {"x": x, "out": out}
    yield Case("gather", str(width), s, size, fresh, gathered, given, pick)
    reused = _gather_into(x, s.src, out)
    yield Case("gather, output reused", str(width), s, size, reused, gathered, given, pick)
    for how in ("sum", "mean", "max"):
        yield Case(
            f"scatter {how}",
            str(width),
            s,
            8 * s.e + rows,
            Call(lambda how=how: ops.scatter(messages, s.dst, s.m, reduce=how)),
            lambda how=how: s.reduce(messages.double().numpy()[:, columns][s.perm.numpy()], how),
            {"messages": messages},
            columns_of(columns),
        )
    for how in ("sum", "max"):
        yield Case(
            f"segment {how}",
            str(width),
            s,
            8 * (s.m + 1) + rows,
            Call(lambda how=how: ops.segment(messages, s.indptr, reduce=how)),
            lambda how=how: s.reduce(messages.double().numpy()[:, columns], how),
            {"messages": messages},
            columns_of(columns),
        )


def _gather_into(x: Tensor, index: Tensor, out: Tensor) -> Call | str:
    """Returns a call of the C function that writes into `out`; operators always make a new one."""
    if ops.status().path is None:
        return "needs the compiled kernels"

    def run() -> Tensor:
        gather_into(x, index, out)
        return out

    return Call(run)


def _softmax(s: Setting, heads: int) -> Case:
    logits = s.randn("logits", s.e, heads)
    return Case(
        f"edge softmax H={heads}",
        str(heads),
        s,
        8 * s.e * heads,
        Call(lambda: ops.edge_softmax(s.plan, logits)),
        lambda: s.softmax(logits),
        {"logits": logits},
        columns_of(some(heads)),
        1e-4,
        "edge_softmax",
    )


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU with the slope of GAT."""
    return torch.nn.functional.leaky_relu(x, 0.2)


def gat_case(s: Setting, heads: int, depth: int) -> Case:
    """Returns graph attention's aggregation: scores, softmax and weighted sum in one."""
    x = s.randn("x", s.n, heads, depth)
    a_src, a_dst = s.randn("a_src", s.n, heads), s.randn("a_dst", s.m, heads)
    width = heads * depth
    columns = some(width)

    def want() -> np.ndarray:
        scores = a_src.double()[s.src] + a_dst.double()[s.dst]
        share = s.softmax(leaky(scores))[:, columns // depth]
        return s.reduce(s.terms(x.reshape(s.n, width), columns, torch.from_numpy(share)))

    return Case(
        f"GAT ({heads},{depth})",
        f"{heads}x{depth}",
        s,
        8 * (s.m + 1) + 4 * s.e + 4 * width * (s.e + s.m) + 4 * s.e * heads,
        Call(lambda: ops.gat_aggregate(s.plan, x, a_src, a_dst)),
        want,
        {"x": x, "a_src": a_src, "a_dst": a_dst, "heads": heads, "depth": depth},
        columns_of(columns),
        kind="gat",
    )
