"""NeighborSampler: the part of a graph that a network needs for a few nodes, thinned by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gnnlab.graph import Graph
from gnnlab.ops import EdgePlan, Hops, sample_hops
from gnnlab.ops._sample import edges_at
from gnnlab.ops.sample import check_fanouts

__all__ = ["NeighborSampler", "Sample"]


@final
class Sample:
    """What a network of as many layers as there were hops needs to compute the seeds.

    Nodes are numbered as they were reached, so that the targets of each block are its first
    sources, and the sources of a block are the targets of the one before::

        x = features[sample.nodes]
        for conv, block in zip(convs, sample.blocks):
            x = conv((x, x[: block.num_dst]), block).relu()
        x[sample.seeds]

    The same edges, as one graph for networks that do not use blocks, are `subgraph`, or
    `edge_index` with `num_nodes` and `num_edges` of each hop.
    """

    nodes: Tensor
    """The node that each row stands for: (n,) int64, the seeds first."""
    seeds: Tensor
    """The row of each seed: (B,) int64; 0, 1, 2, ... unless seeds were repeated."""
    blocks: tuple[Graph, ...]
    """One bipartite graph per layer, the outermost hop first."""
    num_nodes: tuple[int, ...]
    """How many nodes there are before the first hop, after it, after the second, ..."""
    num_edges: tuple[int, ...]
    """How many edges there are after the first hop, after the second, ..."""

    def __init__(self, hops: Hops, graph: Graph) -> None:
        self.nodes, self.seeds = hops.nodes, hops.seeds
        self.num_nodes, self.num_edges = hops.num_nodes, hops.num_edges
        self._graph, self._place = graph, hops.place
        self._edge_ids: Tensor | None = None
        weight = graph.edge_weight
        if weight is not None:
            weight = weight.index_select(0, self.edge_ids)
        blocks = []
        for hop in range(len(self.num_edges), 0, -1):
            num_src, num_dst, size = (
                *self.num_nodes[hop - 1 : hop + 1][::-1],
                self.num_edges[hop - 1],
            )
            plan = EdgePlan.from_csr(
                hops.indptr[: num_dst + 1], hops.src[:size], num_src, validate=False
            )
            part = None if weight is None else weight[:size]
            blocks.append(Graph.from_plan(plan, edge_weight=part, bipartite=True))
        self.blocks = tuple(blocks)

    @property
    def num_seeds(self) -> int:
        """How many different seeds there are: rows of the last block's result."""
        return self.num_nodes[0]

    @property
    def edge_ids(self) -> Tensor:
        """Which of the graph's edges each edge is: (S,) int64; looked up when first asked for."""
        if self._edge_ids is None:
            found = edges_at(self._graph.plan.order, self._place)
            self._edge_ids = found.to(self.nodes.device)
        return self._edge_ids

    @property
    def edge_index(self) -> Tensor:
        """Rows of sources and targets of all edges, first hop first: (2, S) int64."""
        return self.blocks[0].edge_index.long()

    @property
    def subgraph(self) -> Graph:
        """All nodes and edges as one graph; nodes of the last hop have no in-edges in it."""
        plan, size = self.blocks[0].plan, self.num_nodes[-1]
        end = plan.indptr.new_full((size - plan.num_dst,), plan.num_edges)
        whole = EdgePlan.from_csr(torch.cat([plan.indptr, end]), plan.col, size, validate=False)
        weight = self.blocks[0].edge_weight
        return Graph.from_plan(whole, edge_weight=weight, bipartite=False)

    def to(self, device: torch.device | str) -> Sample:
        """Returns the sample on `device`; itself if it lies there."""
        target = torch.empty(0, device=device).device
        if target == self.nodes.device:
            return self
        moved = object.__new__(Sample)
        moved.nodes, moved.seeds = self.nodes.to(target), self.seeds.to(target)
        moved.num_nodes, moved.num_edges = self.num_nodes, self.num_edges
        moved.blocks = tuple(block.to(target) for block in self.blocks)
        moved._graph, moved._place, moved._edge_ids = self._graph, self._place, None
        return moved

    def __repr__(self) -> str:
        return f"Sample(num_nodes={self.num_nodes}, num_edges={self.num_edges})"


@final
class NeighborSampler:
    """Walks from seeds along in-edges and keeps a few of them, as GraphSAGE does.

    Each node is asked once, in the hop after the one that reached it, and then has the same
    in-edges in all layers. They depend on the graph, `seed`, the hop and the node: neither on
    threads, nor on what else is asked for.

    Layers add no edges from a node to itself in blocks. Where they should count, as for `GATConv`,
    put them into the graph.

    Args:
        graph: the edges; given as a plan, they have no weights.
        fanouts: per hop how many in-edges of a node to keep, nearest hop first; -1 for all.
        replace: whether an edge can be drawn twice.

    Raises:
        ValueError: if a fanout is 0 or below -1, or the graph is bipartite.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.sampling import NeighborSampler
        >>> graph = Graph(torch.tensor([[1, 2, 3, 3], [0, 0, 1, 2]]), 4)
        >>> sample = NeighborSampler(graph, (2, 2))(torch.tensor([0]), seed=7)
        >>> sample
        Sample(num_nodes=(1, 3, 4), num_edges=(2, 4))
        >>> sample.blocks
        (Graph(num_src=4, num_dst=3, num_edges=4), Graph(num_src=3, num_dst=1, num_edges=2))

    Reference: Hamilton et al., NeurIPS 2017, arXiv:1706.02216, algorithm 2. Differs from it in: a
    node's neighbours are not drawn anew for each layer.
    """

    def __init__(
        self,
        graph: Graph | EdgePlan,
        fanouts: Sequence[int] = (15, 10),
        *,
        replace: bool = False,
    ) -> None:
        if isinstance(graph, EdgePlan):
            graph = Graph.from_plan(graph)
        if not isinstance(graph, Graph):
            raise TypeError(
                f"NeighborSampler expected a Graph or EdgePlan, got {type(graph).__name__}"
            )
        if graph.is_bipartite:
            raise ValueError(
                f"NeighborSampler needs a graph whose sources can be targets, got {graph!r}"
            )
        self.graph, self.fanouts, self.replace = graph, check_fanouts(fanouts), replace

    def __call__(self, seeds: Tensor, *, seed: int) -> Sample:
        """Returns the sample of seeds (B,), int64 or int32; repeated ones share a row.

        Another `seed` gives another sample. Raises IndexError for a node that does not exist.
        """
        plan = self.graph.plan
        return Sample(
            sample_hops(plan, seeds, self.fanouts, replace=self.replace, seed=seed), self.graph
        )

    def __repr__(self) -> str:
        replace = ", replace=True" * self.replace
        return f"NeighborSampler({self.graph!r}, {self.fanouts}{replace})"
