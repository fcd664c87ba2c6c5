"""Fused attention and its gradients in plain torch: definition, fallback and oracle.

The three kinds differ in how an edge is scored (`scores`) and in what is summed. Everything else,
softmax over the edges of a destination and weighted sum, is common. Arguments are those of the
public functions in `gnnlab.ops.attention`, as one tuple `given`: three tensors, the edge term or
None, and options.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from gnnlab.ops._philox import philox_block
from gnnlab.ops.reference import edge_softmax, gather, scatter

__all__ = ["VALUES", "attend", "backward", "keep_mask", "scores", "statistics"]

VALUES = {"gat": 0, "gatv2": 0, "attention": 2}
"""Which of `given` is summed."""


def _wide(given: tuple[Any, ...]) -> list[Any]:
    half = (torch.bfloat16, torch.float16)
    return [t.float() if isinstance(t, Tensor) and t.dtype in half else t for t in given]


def scores(name: str, src: Tensor, dst: Tensor, given: tuple[Any, ...]) -> Tensor:
    """Returns the score of each edge and head, (E, H)."""
    first, second, third, edge, option = given[:5]
    if name == "attention":
        found: Tensor = option * (gather(first, dst) * gather(second, src)).sum(-1)
        return found if edge is None else found + edge
    if name == "gat":
        found = gather(second, src) + gather(third, dst)
        return leaky_relu(found if edge is None else found + edge, option)
    found = gather(first, src) + gather(second, dst)
    active: Tensor = leaky_relu(found if edge is None else found + edge, option) * third
    return active.sum(-1)


def _kept(name: str, share: Tensor, given: tuple[Any, ...]) -> Tensor | None:
    """Returns what dropout multiplies the shares by, None without it."""
    if name != "gat" or given[5] == 0:
        return None
    mask = keep_mask(share.shape[0], share.shape[1], given[5], given[6], share.device)
    return mask.to(share.dtype) / (1 - float(given[5]))


def attend(name: str, src: Tensor, dst: Tensor, num_dst: int, given: tuple[Any, ...]) -> Tensor:
    """Returns the sum of values weighted by the softmax of scores, (M, H, D)."""
    wide = _wide(given)
    share = edge_softmax(scores(name, src, dst, tuple(wide)), dst, num_dst)
    kept = _kept(name, share, given)
    share = share if kept is None else share * kept
    values = wide[VALUES[name]]
    return scatter(share[..., None] * gather(values, src), dst, num_dst).to(given[0].dtype)


def statistics(
    name: str, src: Tensor, dst: Tensor, num_dst: int, given: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    """Returns the largest score and the sum of exponentials of each destination, both (M, H)."""
    found = scores(name, src, dst, tuple(_wide(given)))
    largest = scatter(found, dst, num_dst, "max")
    return largest, scatter((found - gather(largest, dst)).exp(), dst, num_dst)


def backward(
    name: str, src: Tensor, dst: Tensor, num_dst: int, grad: Tensor, given: tuple[Any, ...]
) -> list[Tensor]:
    """Returns the gradients of the first four of `given`; of the edge term also when it is None."""
    wide = tuple(_wide(given))
    first, second, third, edge, option = wide[:5]
    values, dtype = wide[VALUES[name]], given[0].dtype
    gy = gather(_wide((grad,))[0], dst)
    share = edge_softmax(scores(name, src, dst, wide), dst, num_dst)
    kept = _kept(name, share, given)
    used = share if kept is None else share * kept
    to_share = (gy * gather(values, src)).sum(-1)
    to_share = to_share if kept is None else to_share * kept
    to_score = share * (to_share - gather(scatter(share * to_share, dst, num_dst), dst))
    to_values = used[..., None] * gy
    num_src = values.shape[0]
    if name == "attention":
        to_score, unscaled = to_score * option, to_score
        found = [
            scatter(to_score[..., None] * gather(second, src), dst, num_dst),
            scatter(to_score[..., None] * gather(first, dst), src, num_src),
            scatter(to_values, src, num_src),
            unscaled,
        ]
    elif name == "gat":
        both = gather(second, src) + gather(third, dst)
        both = both if edge is None else both + edge
        to_score = torch.where(both > 0, to_score, to_score * option)
        found = [
            scatter(to_values, src, num_src),
            scatter(to_score, src, num_src),
            scatter(to_score, dst, num_dst),
            to_score,
        ]
    else:
        both = gather(first, src) + gather(second, dst)
        both = both if edge is None else both + edge
        active = to_score[..., None] * third
        active = torch.where(both > 0, active, active * option)
        found = [
            scatter(active + to_values, src, num_src),
            scatter(active, dst, num_dst),
            (to_score[..., None] * leaky_relu(both, option)).sum(0),
            active,
        ]
    return [g.to(dtype) for g in found]


def keep_mask(
    num_edges: int,
    heads: int,
    dropout: float,
    seed: int | Tensor,
    device: torch.device | None = None,
) -> Tensor:
    """Returns which of (E, H) survive dropout: Philox4x32-10 of edge and head, keyed by the seed.

    A seed that is a tensor has int64 and no dimension; it may lie on the CPU for any `device`.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    edge = torch.arange(num_edges, dtype=torch.int64, device=device)[:, None].expand(-1, heads)
    head = torch.arange(heads, dtype=torch.int64, device=device)[None].expand(num_edges, -1)
    word = philox_block(edge, head, torch.zeros_like(head), seed)[0]
    return word >= int(dropout * 2**32)
