"""The seeded graphs that operators are measured on: four of use, three that break naive kernels.

The same arguments always give the same edges. Edges come in random order, as users' edges do,
except where the order is the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BenchGraph",
    "all_graphs",
    "bipartite",
    "chain",
    "mesh",
    "mostly_empty",
    "power_law",
    "small_graphs",
    "star",
]


@dataclass(frozen=True)
class BenchGraph:
    """Edges with a name and sizes."""

    name: str
    """Letter and words, as printed; the letter is missing where no target is set."""
    edge_index: Tensor
    """(2, E) int64."""
    num_src: int
    """Number of sources."""
    num_dst: int
    """Number of destinations."""

    @property
    def has_target(self) -> bool:
        """Whether the graph is one of the four that targets are set on."""
        return self.name[1:2] == " "


def all_graphs(quick: bool = False) -> dict[str, Callable[[], BenchGraph]]:
    """Returns the generators by short name, in the order of measuring.

    Args:
        quick: small versions: seconds rather than minutes.

    Example:
        >>> from gnnlab.bench.graphs import all_graphs
        >>> list(all_graphs())
        ['a', 'b', 'c', 'd', 'star', 'empty', 'chain']
    """
    if quick:
        return {
            "a": lambda: power_law(5_000, 100_000),
            "b": lambda: mesh(60, 50),
            "c": lambda: bipartite(2_000, 2_500, 60_000),
            "d": lambda: small_graphs(64),
            "star": lambda: star(50_000),
            "empty": lambda: mostly_empty(5_000, 20_000),
            "chain": lambda: chain(5_000),
        }
    return {
        "a": power_law,
        "b": mesh,
        "c": bipartite,
        "d": small_graphs,
        "star": star,
        "empty": mostly_empty,
        "chain": chain,
    }


def power_law(num_nodes: int = 100_000, num_edges: int = 2_000_000) -> BenchGraph:
    """Returns a graph whose two end points follow Zipf's law (exponent 0.6), nodes renumbered.

    Example:
        >>> from gnnlab.bench.graphs import power_law
        >>> power_law(10, 40).edge_index.shape
        torch.Size([2, 40])
    """
    rng = np.random.default_rng(3)
    edges = np.stack([_zipf(rng, num_nodes, 0.6, num_edges) for _ in range(2)])
    return BenchGraph("a power-law", torch.from_numpy(edges), num_nodes, num_nodes)


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
    edges = np.ascontiguousarray(edges[:, order])
    return BenchGraph("b mesh", torch.from_numpy(edges), node.size, node.size)


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
    ends = [_zipf(rng, num_items, 0.7, num_edges), _zipf(rng, num_users, 0.5, num_edges)]
    return BenchGraph("c bipartite", torch.from_numpy(np.stack(ends)), num_items, num_users)


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


def star(num_leaves: int = 1_000_000) -> BenchGraph:
    """Returns one row with all the edges, whose sources are 10,000 nodes in random order.

    Example:
        >>> from gnnlab.bench.graphs import star
        >>> star(5).num_dst
        1
    """
    num_src = min(num_leaves, 10_000)
    src = np.random.default_rng(4).integers(num_src, size=num_leaves)
    edges = np.stack([src, np.zeros_like(src)])
    return BenchGraph("star", torch.from_numpy(edges), num_src, 1)


def mostly_empty(num_nodes: int = 200_000, num_edges: int = 400_000) -> BenchGraph:
    """Returns a graph in which nine of ten destinations have no edge.

    Example:
        >>> from gnnlab.bench.graphs import mostly_empty
        >>> len(mostly_empty(100, 1000).edge_index[1].unique())
        10
    """
    rng = np.random.default_rng(5)
    kept = rng.permutation(num_nodes)[: max(num_nodes // 10, 1)]
    edges = np.stack([rng.integers(num_nodes, size=num_edges), rng.choice(kept, num_edges)])
    return BenchGraph("90 % empty", torch.from_numpy(edges), num_nodes, num_nodes)


def chain(num_nodes: int = 200_000) -> BenchGraph:
    """Returns a path, edges in order: rows of one edge, which cost more than the edge itself.

    Example:
        >>> from gnnlab.bench.graphs import chain
        >>> chain(4).edge_index
        tensor([[0, 1, 2],
                [1, 2, 3]])
    """
    node = torch.arange(num_nodes)
    return BenchGraph("chain", torch.stack([node[:-1], node[1:]]), num_nodes, num_nodes)


def _zipf(rng: np.random.Generator, count: int, exponent: float, draws: int) -> np.ndarray:
    """Draws from 0..count-1 with probabilities by Zipf's law, ranks dealt out at random."""
    share = 1.0 / np.arange(1, count + 1) ** exponent
    ends = np.searchsorted(np.cumsum(share / share.sum()), rng.random(draws))
    return rng.permutation(count)[np.minimum(ends, count - 1)]
