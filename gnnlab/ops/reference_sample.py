"""Neighbour sampling in plain torch: the definition of the operators, number for number.

The compiled kernels draw the same random words for the same purpose, so that both give the same
samples. What belongs to which word is written in `cuda/include/gnnlab.h`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gnnlab.ops._philox import philox_block

__all__ = ["ONE_WORD", "count", "draw", "number", "stream"]

ONE_WORD = 65536
"""The largest degree whose draws take one 32-bit word; above it they take two."""


def count(degree: Tensor, k: int, replace: bool) -> Tensor:
    """Returns how many neighbours each node gives: (n,) of its degree (n,)."""
    if k < 0:
        return degree
    return (degree > 0) * k if replace else degree.clamp(max=k)


def draw(
    start: Tensor, degree: Tensor, nodes: Tensor, k: int, replace: bool, seed: int, hop: int
) -> Tensor:
    """Returns the places that the nodes give, one node after the other: (S,) int64.

    Args:
        start: (n,) the first place of each node's row.
        degree: (n,) the length of the row.
        nodes: (n,) their ids, which the random words belong to.
        k: how many to draw; -1 for all.
        replace: whether a place can be drawn twice.
        seed: key of the random words.
        hop: part of their counter.
    """
    counts = count(degree, k, replace)
    row = torch.repeat_interleave(counts)
    at = torch.arange(row.shape[0], device=row.device) - (counts.cumsum(0) - counts)[row]
    if k >= 0:
        drawn = degree > 0 if replace else degree > k
        picks = _picks(degree[drawn], nodes[drawn], k, replace, seed, hop)
        which = drawn.cumsum(0) - 1
        is_drawn = drawn[row]
        at[is_drawn] = picks[which[row[is_drawn]], at[is_drawn]]
    return start[row] + at


def _picks(degree: Tensor, nodes: Tensor, k: int, replace: bool, seed: int, hop: int) -> Tensor:
    """Returns k numbers below each degree: (R, k)."""
    block = torch.arange((2 * k + 3) // 4, device=nodes.device)
    item, number = nodes[:, None].expand(-1, len(block)), block.expand(len(nodes), -1)
    words = torch.stack(philox_block(item, torch.full_like(item, hop), number, seed), 2).flatten(1)
    picks = torch.empty(len(nodes), k, dtype=torch.int64, device=nodes.device)
    for t in range(k):
        bound = degree if replace else degree - k + t + 1
        high, low = words[:, 2 * t], words[:, 2 * t + 1]
        pick = torch.where(
            degree <= ONE_WORD,
            (words[:, t] * bound) >> 32,
            (high * bound + ((low * bound) >> 32)) >> 32,
        )
        if not replace:  # Floyd's algorithm: the last of the numbers stands for a repeated one
            again = (picks[:, :t] == pick[:, None]).any(1)
            pick = torch.where(again, bound - 1, pick)
        picks[:, t] = pick
    return picks


def number(nodes: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers nodes in the order of their first appearance in `nodes`, then `ids`.

    Returns:
        all nodes, and the number of each of the ids.
    """
    both = torch.cat([nodes, ids])
    values, inverse = torch.unique(both, return_inverse=True)
    position = torch.arange(len(both), device=both.device)
    first = torch.full_like(values, len(both)).scatter_reduce(0, inverse, position, "amin")
    order = first.argsort()
    rank = torch.empty_like(order).scatter_(0, order, position[: len(order)])
    return values[order], rank[inverse[len(nodes) :]]


def stream(
    src: Tensor, dst: Tensor, num_nodes: int, parts: int, capacity: int, passes: int
) -> Tensor:
    """Returns the part of each node, grown and streamed as `partition` says: (N,) int64."""
    beside: list[list[int]] = [[] for _ in range(num_nodes)]
    for ends in ((dst, src), (src, dst)):
        for v, u in zip(ends[0].tolist(), ends[1].tolist(), strict=True):
            beside[v].append(u)
    share = max(-(-num_nodes // parts), 1)
    order = _grow(beside, share)
    part = [0] * num_nodes
    for i, v in enumerate(order):
        part[v] = i // share
    size = [part.count(p) for p in range(parts)]
    for _ in range(passes):
        for v in order:
            size[part[v]] -= 1
            votes: dict[int, int] = {}
            for u in beside[v]:
                if u != v:
                    votes[part[u]] = votes.get(part[u], 0) + 1
            scores = [(count * (capacity - size[p]), -p) for p, count in votes.items()]
            score, best = max(scores, default=(0, 0))
            if score > 0:
                part[v] = -best
            size[part[v]] += 1
    return torch.tensor(part, dtype=torch.int64, device=src.device)


def _grow(beside: list[list[int]], share: int) -> list[int]:
    """Returns all nodes in the order of growing."""
    order: list[int] = []
    met = [False] * len(beside)

    def meet(nodes: Sequence[int], limit: int) -> None:
        for u in nodes:
            if not met[u] and len(order) < limit:
                met[u] = True
                order.append(u)

    while len(order) < len(beside):
        head = len(order)
        limit = min(head + share, len(beside))
        while len(order) < limit:
            if head < len(order):
                meet(beside[order[head]], limit)
                head += 1
                continue
            wanted = head + 1
            for v in order:
                meet(beside[v], wanted)
            meet(range(len(beside)), wanted)
    return order
