"""Neighbour searches in plain torch, all pairs in pieces: definition, and way on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["knn", "radius", "squared_distance"]

_PIECE = 1 << 22  # pairs at a time


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the sum of squared differences over the last axis, added in order of dimension.

    Shapes:
        a: (..., D) float64; b: (..., D) float64, broadcast against a.
        returns: (...).

    Example:
        >>> import torch
        >>> from gnnlab.ops.reference_neighbors import squared_distance
        >>> squared_distance(torch.zeros(2).double(), torch.tensor([[3.0, 4.0]]).double())
        tensor([25.], dtype=torch.float64)
    """
    total = a.new_zeros((a[..., :0] + b[..., :0]).shape[:-1])
    for axis in range(a.shape[-1]):
        total = total + (a[..., axis] - b[..., axis]).square()
    return total


def radius(
    x: Tensor,
    y: Tensor,
    r: float,
    graph_x: Tensor | None = None,
    graph_y: Tensor | None = None,
    *,
    skip_same: bool = False,
) -> Tensor:
    """Returns all pairs closer than `r`, source in x, target in y, sorted by (target, source).

    Shapes:
        x: (N, D) float64; y: (M, D) float64; graph_x: (N,), graph_y: (M,) int64 or None.
        returns: (2, E) int64.
    """
    found = [torch.empty(2, 0, dtype=torch.int64, device=x.device)]
    for start, d2, hidden in _pieces(x, y, graph_x, graph_y, skip_same):
        target, source = ((d2.sqrt() < r) & ~hidden).nonzero().unbind(1)
        found.append(torch.stack([source, target + start]))
    return torch.cat(found, 1)


def knn(
    x: Tensor,
    y: Tensor,
    k: int,
    graph_x: Tensor | None = None,
    graph_y: Tensor | None = None,
    *,
    skip_same: bool = False,
) -> Tensor:
    """Returns the `k` nearest points of x for each of y, by (distance, number), then -1.

    Shapes:
        x: (N, D) float64; y: (M, D) float64; graph_x: (N,), graph_y: (M,) int64 or None.
        returns: (M, k) int64.
    """
    found = x.new_full((y.shape[0], k), -1, dtype=torch.int64)
    have = min(k, x.shape[0])
    for start, d2, hidden in _pieces(x, y, graph_x, graph_y, skip_same):
        # NaN sorts behind every number, infinity included.
        sorted_d2, order = d2.masked_fill(hidden, torch.nan).sort(stable=True, dim=1)
        gone = sorted_d2[:, :have].isnan()
        found[start : start + len(d2), :have] = order[:, :have].masked_fill(gone, -1)
    return found


def _pieces(
    x: Tensor, y: Tensor, graph_x: Tensor | None, graph_y: Tensor | None, skip_same: bool
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields (first target, squared distances, which pairs do not count) for runs of targets."""
    size = max(_PIECE // max(x.shape[0], 1), 1)
    for start in range(0, y.shape[0], size):
        part = slice(start, start + size)
        d2 = squared_distance(y[part, None], x[None])
        hidden = torch.zeros_like(d2, dtype=torch.bool)
        if graph_x is not None and graph_y is not None:
            hidden |= graph_y[part, None] != graph_x
        if skip_same:
            hidden.diagonal(start).fill_(True)
        yield start, d2, hidden
