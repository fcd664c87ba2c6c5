"""Clusters of a graph, and batches of clusters with the edges inside."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from gnnlab.data import HostFeatures
from gnnlab.errors import MissingExtraError
from gnnlab.graph import Graph
from gnnlab.ops import EdgePlan, partition, sample_neighbors
from gnnlab.sampling._batches import Rows, ahead, fetch, order_of, with_rows

__all__ = ["ClusterBatch", "ClusterLoader", "clusters", "cut_edges"]


def clusters(
    graph: Graph,
    parts: int,
    *,
    method: Literal["auto", "metis", "stream"] = "auto",
) -> Tensor:
    """Shares nodes out over parts of about one size, so that few edges join different parts.

    Args:
        graph: the edges; their directions and weights do not count.
        parts: how many parts.
        method: "metis" cuts fewest edges and needs pymetis (``pip install 'gnnlab[cluster]'``);
            "stream" is `gnnlab.ops.partition`, which needs nothing and is faster; "auto" takes
            METIS where it is installed.

    Shapes:
        returns: (N,) int64, from 0 to parts - 1. A part may be empty.

    Raises:
        MissingExtraError: for "metis" without pymetis.
        ValueError: if the method is unknown, there is no part, or the graph is bipartite.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.sampling import clusters, cut_edges
        >>> graph = Graph(torch.tensor([[0, 1, 2, 3, 1], [1, 0, 3, 2, 2]]), 4)
        >>> cut_edges(graph, clusters(graph, 2))
        1

    Reference: Chiang et al., KDD 2019, arXiv:1905.07953; Karypis and Kumar, SIAM J. Sci. Comput.
    20(1), 1998, doi:10.1137/S1064827595287997.
    """
    if method not in ("auto", "metis", "stream"):
        raise ValueError(f'clusters: unknown method "{method}". Known: auto, metis, stream.')
    if graph.is_bipartite:
        raise ValueError(f"clusters needs a graph whose sources can be targets, got {graph!r}")
    if operator.index(parts) < 1:
        raise ValueError(f"clusters needs at least 1 part, got {parts}")
    metis = None if method == "stream" else _metis()
    if method == "metis" and metis is None:
        raise MissingExtraError("clusters needs pymetis: pip install 'gnnlab[cluster]'")
    if metis is None:
        return partition(graph.plan, parts)
    if parts == 1 or graph.num_nodes == 0:
        return torch.zeros(graph.num_nodes, dtype=torch.int64)
    indptr, neighbor = _undirected(graph)
    adjacency = metis.CSRAdjacency(adj_starts=indptr.numpy(), adjacent=neighbor.numpy())
    return torch.tensor(metis.part_graph(parts, adjacency).vertex_part, dtype=torch.int64)


def cut_edges(graph: Graph, part: Tensor) -> int:
    """Returns how many edges join nodes of different parts.

    Args:
        graph: the edges.
        part: the part of each node.

    Shapes:
        part: (N,) integer.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.sampling import cut_edges
        >>> cut_edges(Graph(torch.tensor([[0, 1], [1, 2]]), 3), torch.tensor([0, 0, 1]))
        1
    """
    src, dst = graph.edge_index
    return int((part.index_select(0, src) != part.index_select(0, dst)).sum())


def _metis() -> Any:
    try:
        import pymetis
    except ImportError:
        return None
    return pymetis


def _undirected(graph: Graph) -> tuple[Tensor, Tensor]:
    """Returns neighbours along either direction, as METIS wants them: each once, no loops."""
    src, dst = graph.edge_index.long()
    size = graph.num_nodes
    low, high = torch.minimum(src, dst), torch.maximum(src, dst)
    pairs = torch.unique((low * size + high)[low != high])
    low, high = pairs // size, pairs % size
    plan = EdgePlan(torch.stack([torch.cat([low, high]), torch.cat([high, low])]), size, size)
    return plan.indptr, plan.col.long()


@final
@dataclass(frozen=True, eq=False)
class ClusterBatch:
    """Some clusters as a graph of its own, and its rows of the tables."""

    nodes: Tensor
    """The node that each row stands for: (n,) int64, cluster by cluster."""
    graph: Graph
    """The edges between these nodes."""
    edge_ids: Tensor
    """Which of the whole graph's edges they are: (S,) int64."""
    x: Tensor | None
    """Features: (n, *F); None without features."""
    y: Tensor | None
    """Labels: (n, ...); None without labels."""


@final
class ClusterLoader:
    """Goes through a graph by joining a few clusters per batch, with the edges inside them.

    A thread makes up to `prefetch` batches ahead. Batches depend on the arguments and the epoch,
    not on `prefetch` or the number of threads. Each pass is another epoch.

    Args:
        graph: the whole graph.
        part: the cluster of each node, as `clusters` gives it.
        features: one row per node; None if the network looks rows up itself.
        labels: one entry per node, on the CPU; None for none.
        batch_size: clusters per batch.
        shuffle: whether clusters are joined anew each epoch.
        seed: of the order.
        prefetch: how many batches to be ahead; 0 works without a thread.

    Shapes:
        part: (N,) integer, not negative.

    Raises:
        ValueError: if a table or `part` does not have one row per node, or a number is out of
            range.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.sampling import ClusterLoader
        >>> graph = Graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), 4)
        >>> loader = ClusterLoader(graph, torch.tensor([0, 0, 1, 1]), batch_size=1)
        >>> [(batch.nodes.tolist(), batch.edge_ids.tolist()) for batch in loader]
        [([0, 1], [0]), ([2, 3], [2])]

    Reference: Chiang et al., KDD 2019, arXiv:1905.07953, algorithm 1.
    """

    def __init__(
        self,
        graph: Graph,
        part: Tensor,
        features: Tensor | HostFeatures | None = None,
        labels: Tensor | None = None,
        *,
        batch_size: int = 8,
        shuffle: bool = False,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        size = graph.num_nodes
        if part.shape != (size,) or (size and int(part.min()) < 0):
            raise ValueError(
                f"part must have shape ({size},), one cluster per node from 0 on, "
                f"got {tuple(part.shape)}" + (" with negative ones" if part.numel() else "")
            )
        for name, value, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0)):
            if operator.index(value) < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if labels is not None and labels.shape[:1] != (size,):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}, but the graph has {size} nodes"
            )
        self.graph, self.labels = graph, labels
        self.features = with_rows(features, "features", size)
        self.batch_size, self.prefetch = batch_size, prefetch
        self.shuffle, self.seed = shuffle, seed
        self._epoch = 0
        members = part.long().sort(stable=True).indices
        ends = part.long().bincount().cumsum(0)[:-1]
        filled = [c for c in torch.tensor_split(members, ends) if c.numel()]
        self.clusters: tuple[Tensor, ...] = tuple(filled)
        """The nodes of each cluster that is not empty."""

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass is; later ones count on from there."""
        self._epoch = operator.index(epoch)

    def __len__(self) -> int:
        """Returns the number of batches."""
        return -(-len(self.clusters) // self.batch_size)

    def __iter__(self) -> Iterator[ClusterBatch]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        order = order_of(len(self.clusters), self.shuffle, self.seed, epoch).tolist()
        size = self.batch_size
        row_of = torch.full((self.graph.num_nodes,), -1, dtype=torch.int64)  # of this pass alone

        def make(i: int) -> tuple[ClusterBatch, Rows]:
            nodes = torch.cat([self.clusters[c] for c in order[i * size : (i + 1) * size]])
            row_of[nodes] = torch.arange(len(nodes))
            graph, edge_ids = self._inside(nodes, row_of)
            row_of[nodes] = -1
            y = None if self.labels is None else self.labels[nodes]
            rows = fetch(self.features, nodes)
            return ClusterBatch(nodes, graph, edge_ids, None, y), rows

        return self._batches(ahead(make, len(self), self.prefetch))

    def _inside(self, nodes: Tensor, row_of: Tensor) -> tuple[Graph, Tensor]:
        """Returns the edges between nodes, and which of the whole graph's edges they are."""
        found = sample_neighbors(self.graph.plan, nodes, -1, seed=0)
        src = row_of[found.src]
        kept = src >= 0
        ends = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])
        edge_ids = found.edge[kept]
        plan = EdgePlan.from_csr(ends[found.indptr], src[kept], len(nodes), validate=False)
        weight = self.graph.edge_weight
        part = None if weight is None else weight.index_select(0, edge_ids)
        return Graph.from_plan(plan, edge_weight=part, bipartite=False), edge_ids

    def _batches(self, parts: Generator[tuple[ClusterBatch, Rows]]) -> Iterator[ClusterBatch]:
        with closing(parts):
            for batch, rows in parts:
                x, y = rows(), batch.y
                nodes, graph, edge_ids = batch.nodes, batch.graph, batch.edge_ids
                if x is not None and x.device != nodes.device:
                    nodes, edge_ids = nodes.to(x.device), edge_ids.to(x.device)
                    graph, y = graph.to(x.device), None if y is None else y.to(x.device)
                yield ClusterBatch(nodes, graph, edge_ids, x, y)

    def __repr__(self) -> str:
        return (
            f"ClusterLoader({self.graph!r}, {len(self.clusters)} clusters, "
            f"{len(self)} batches of {self.batch_size})"
        )
