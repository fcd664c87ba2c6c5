"""The seeded graphs that operators are measured on: a mesh, ratings, a batch of small graphs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["BenchGraph", "bipartite", "mesh", "small_graphs"]


@dataclass(frozen=True)
class BenchGraph:
    """Edges with a name and sizes."""

    name: str
    """Letter and words, as printed."""
    edge_index: Tensor
    """(2, E) int64."""
    num_src: int
    """Number of sources."""
    num_dst: int
    """Number of destinations."""


def mesh(width: int = 250, height: int = 200) -> BenchGraph:
    """Returns a triangulated grid, both directions of each edge, in random order: degree 6.

    Example:
        >>> from gnnlab.bench.graphs import mesh
        >>> mesh(3, 2).num_dst
        6
    """
    node = np.arange(width * height).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
            np.stack([node[:-1].ravel(), node[1:].ravel()]),
            np.stack([node[:-1, :-1].ravel(), node[1:, 1:].ravel()]),
        ],
        axis=1,
    )
    edges = np.concatenate([pairs, pairs[::-1]], axis=1)
    order = np.random.default_rng(0).permutation(edges.shape[1])
    return BenchGraph("b mesh", torch.from_numpy(edges[:, order]), node.size, node.size)


def bipartite(
    num_items: int = 25_000, num_users: int = 30_000, num_edges: int = 1_070_000
) -> BenchGraph:
    """Returns ratings: items and users drawn by Zipf's law (exponents 0.7 and 0.5).

    Example:
        >>> from gnnlab.bench.graphs import bipartite
        >>> bipartite(5, 4, 10).edge_index.shape
        torch.Size([2, 10])
    """
    rng = np.random.default_rng(1)

    def draw(count: int, exponent: float) -> np.ndarray:
        share = 1.0 / np.arange(1, count + 1) ** exponent
        ends = np.searchsorted(np.cumsum(share / share.sum()), rng.random(num_edges))
        return rng.permutation(count)[np.minimum(ends, count - 1)]

    edges = np.stack([draw(num_items, 0.7), draw(num_users, 0.5)])
    return BenchGraph("c bipartite", torch.from_numpy(edges), num_items, num_users)


def small_graphs(num_graphs: int = 256, nodes: int = 100, edges: int = 300) -> BenchGraph:
    """Returns a batch of random small graphs as one block-diagonal graph.

    Example:
        >>> from gnnlab.bench.graphs import small_graphs
        >>> small_graphs(2, 5, 4).num_dst
        10
    """
    rng = np.random.default_rng(2)
    ends = rng.integers(nodes, size=(2, num_graphs, edges))
    edge_index = (ends + nodes * np.arange(num_graphs)[None, :, None]).reshape(2, -1)
    total = num_graphs * nodes
    return BenchGraph("d small graphs", torch.from_numpy(edge_index), total, total)
