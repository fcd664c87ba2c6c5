"""What is measured backward: gradients through autograd, ours and the peers' alike.

The forward pass runs once, outside the clock; `torch.autograd.grad` runs inside it. A peer's
backward is what its own operators do in autograd, so that the work of saving the right things in
the forward pass is rewarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.bench._cases import HEADS, LARGEST, columns_of, gat_case
from gnnlab.bench._machine import Call
from gnnlab.bench._setting import Case, Setting, some

__all__ = ["backward", "gradient"]


def gradient(forward: Callable[[], Tensor], inputs: Sequence[Tensor], grad: Tensor) -> Call:
    """Returns a call that differentiates the result of `forward` again and again."""
    kept: list[Tensor] = []

    def before() -> Tensor:
        if not kept:
            kept.append(forward())
        return kept[0]

    def run(result: Tensor) -> Any:
        found = torch.autograd.grad(result, inputs, grad, retain_graph=True)
        return found[0] if len(found) == 1 else found

    return Call(run, before)


def backward(setting: Setting, widths: Sequence[int]) -> Iterator[Case]:
    """Yields the backward cases of one graph."""
    for width in widths:
        if setting.e * width * 4 <= 2 * LARGEST:
            yield from _spmm(setting, width)
        if setting.e * width * 4 <= LARGEST:
            yield _scatter(setting, width)
            yield _gather(setting, width)
    for heads in (1, 8):
        yield _softmax(setting, heads)
    for heads, depth in HEADS:
        if 2 * setting.e * heads * depth * 4 <= LARGEST:
            yield _gat(setting, heads, depth)


def _spmm(s: Setting, width: int) -> Iterator[Case]:
    columns = some(width)
    x = s.randn("x", s.n, width).requires_grad_()
    w = s.weight.clone().requires_grad_()
    # No gradient into rows without edges: DGL 1.1.3 sends that of a maximum to source 0.
    grad = s.randn("grad", s.m, width) * (s.degree > 0)[:, None]
    given = {"x": x, "weight": w, "grad": grad}
    wide = grad.double().numpy()
    rows = 4 * width * (s.e + s.n)

    yield Case(
        "backward spmm sum",
        str(width),
        s,
        8 * (s.n + 1) + 4 * s.e + rows,
        gradient(lambda: ops.spmm(s.plan, x), [x], grad),
        lambda: s.to_sources(wide[:, columns][s.dst.numpy()]),
        given,
        columns_of(columns),
    )
    yield Case(
        "backward spmm max",
        str(width),
        s,
        8 * width * s.m + 4 * width * s.n,
        gradient(lambda: ops.spmm(s.plan, x, reduce="max"), [x], grad),
        lambda: s.max_gradient(x.detach(), grad, columns),
        given,
        columns_of(columns),
    )
    places = some(s.e, 50_000)

    def want() -> np.ndarray:
        share = s.weight.double().numpy()[:, None]
        of_x = s.to_sources(wide[:, columns][s.dst.numpy()] * share)
        left = wide[s.dst.numpy()[places]]
        right = x.detach().double().numpy()[s.src.numpy()[places]]
        return np.concatenate([of_x.ravel(), (left * right).sum(1)])

    def pick(result: tuple[Tensor, Tensor]) -> np.ndarray:
        of_weight = result[1].reshape(-1)[torch.from_numpy(places)].double().numpy()
        return np.concatenate([columns_of(columns)(result[0]).ravel(), of_weight])

    yield Case(
        "backward spmm weighted",
        str(width),
        s,
        8 * (s.n + 1) + 12 * s.e + rows + 4 * width * s.n,
        gradient(lambda: ops.spmm(s.plan, x, w), [x, w], grad),
        want,
        given,
        pick,
    )


def _scatter(s: Setting, width: int) -> Case:
    columns = some(width)
    messages = s.randn("messages", s.e, width).requires_grad_()
    grad = s.randn("grad", s.m, width)
    return Case(
        "backward scatter sum",
        str(width),
        s,
        s.e * (8 + 8 * width),
        gradient(lambda: ops.scatter(messages, s.dst, s.m), [messages], grad),
        lambda: grad.double().numpy()[:, columns][s.dst.numpy()],
        {"messages": messages, "grad": grad},
        columns_of(columns),
    )


def _gather(s: Setting, width: int) -> Case:
    columns = some(width)
    x = s.randn("x", s.n, width).requires_grad_()
    grad = s.randn("messages", s.e, width)
    return Case(
        "backward gather",
        str(width),
        s,
        8 * s.e + 4 * width * (s.e + s.n),
        gradient(lambda: ops.gather(x, s.src), [x], grad),
        lambda: s.to_sources(grad.double().numpy()[:, columns]),
        {"x": x, "grad": grad},
        columns_of(columns),
    )


def _softmax(s: Setting, heads: int) -> Case:
    logits = s.randn("logits", s.e, heads).requires_grad_()
    grad = s.randn("grad of softmax", s.e, heads)

    def want() -> np.ndarray:
        share, given, perm = s.softmax(logits.detach()), grad.double().numpy(), s.perm.numpy()
        total = s.reduce((share * given)[perm])[s.dst.numpy()]
        return np.asarray(share * (given - total))

    return Case(
        f"edge softmax backward H={heads}",
        str(heads),
        s,
        12 * s.e * heads,
        gradient(lambda: ops.edge_softmax(s.plan, logits), [logits], grad),
        want,
        {"logits": logits, "grad": grad},
        columns_of(some(heads)),
        kind="edge_softmax_backward",
    )


def _gat(s: Setting, heads: int, depth: int) -> Case:
    """Forward and backward together: only so do fused and composed formulas do the same work."""
    given = gat_case(s, heads, depth).inputs
    inputs = {k: given[k].clone().requires_grad_() for k in ("x", "a_src", "a_dst")}
    grad = s.randn("grad", s.m, heads, depth)
    width = heads * depth
    columns, along = some(width), [*inputs.values()]

    def ours() -> Any:
        return torch.autograd.grad(ops.gat_aggregate(s.plan, *along), along, grad)

    def want() -> np.ndarray:
        x, a_src, a_dst = (t.detach().double().numpy() for t in along)
        return _gat_gradients(s, x, a_src, a_dst, grad, columns)

    def pick(result: Sequence[Tensor]) -> np.ndarray:
        parts = [columns_of(columns)(result[0]), *(r.double().numpy() for r in result[1:])]
        return np.concatenate([part.ravel() for part in parts])

    return Case(
        f"GAT ({heads},{depth}) forward and backward",
        f"{heads}x{depth}",
        s,
        None,
        Call(ours),
        want,
        {**inputs, "grad": grad, "heads": heads, "depth": depth},
        pick,
        kind="gat_backward",
    )


def _gat_gradients(
    s: Setting, x: np.ndarray, a_src: np.ndarray, a_dst: np.ndarray, g: Tensor, columns: np.ndarray
) -> np.ndarray:
    """Gradients of x (some columns), a_src and a_dst, written out in float64, edges in blocks."""
    src, dst, perm = s.src.numpy(), s.dst.numpy(), s.perm.numpy()
    grad = g.double().numpy()
    scores = a_src[src] + a_dst[dst]
    share = s.softmax(torch.from_numpy(np.where(scores > 0, scores, 0.2 * scores)))
    dots = np.empty_like(share)
    for start in range(0, s.e, 100_000):
        part = slice(start, start + 100_000)
        dots[part] = np.einsum("ehd,ehd->eh", grad[dst[part]], x[src[part]])
    of_score = share * (dots - s.reduce((share * dots)[perm])[dst])
    of_score = of_score * np.where(scores > 0, 1.0, 0.2)
    flat, heads = grad.reshape(s.m, -1), columns // x.shape[2]
    of_x = s.to_sources(share[:, heads] * flat[:, columns][dst])
    return np.concatenate(
        [of_x.ravel(), s.to_sources(of_score).ravel(), s.reduce(of_score[perm]).ravel()]
    )
