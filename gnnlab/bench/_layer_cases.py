"""The layers that are measured: how each is made, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gnnlab.bench.graphs import BenchGraph
from gnnlab.graph import Graph
from gnnlab.hetero import HeteroGraph
from gnnlab.layers import (
    APPNP,
    CGConv,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    HGTConv,
    LGConv,
    NNConv,
    PNAConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    SignedConv,
    TransformerConv,
)
from gnnlab.layers._layer import Layer

__all__ = ["ATTENTION", "Inputs", "LayerCase", "Setting", "cases"]

WIDTH = 64
"""Features of the nodes, and of the results."""

ATTENTION = ("GAT", "GATv2", "transformer")
"""Names of layers whose memory on the power-law graph has a target."""


class Setting:
    """A graph with random features, and our plan of it with all that layers derive from it."""

    def __init__(self, graph: BenchGraph, width: int = WIDTH) -> None:
        self.graph, self.width = graph, width
        self.is_bipartite = graph.num_src != graph.num_dst
        sizes = (graph.num_src, graph.num_dst) if self.is_bipartite else graph.num_src
        self.edges = Graph(graph.edge_index, sizes)
        self.random = torch.Generator().manual_seed(0)
        degree = torch.bincount(graph.edge_index[1], minlength=graph.num_dst)
        self.histogram = torch.bincount(degree)
        self.num_edges = graph.edge_index.shape[1]
        flipped = _sorted_keys(graph.edge_index.flip(0), graph)
        self.is_undirected = not self.is_bipartite and torch.equal(
            _sorted_keys(graph.edge_index, graph), flipped
        )

    def nodes(self, width: int) -> Any:
        """Returns features of the nodes, a pair for bipartite graphs, that want gradients."""
        sizes = (self.graph.num_src, self.graph.num_dst)
        found = [
            torch.randn(n, width, generator=self.random).requires_grad_()
            for n in sizes[: 1 + self.is_bipartite]
        ]
        return tuple(found) if self.is_bipartite else found[0]

    def edge_features(self, width: int) -> Tensor:
        """Returns features of the edges."""
        return torch.randn(self.num_edges, width, generator=self.random)

    def kinds(self, count: int) -> Tensor:
        """Returns a type for each edge, (E,)."""
        return torch.randint(count, (self.num_edges,), generator=self.random)


def _sorted_keys(edge_index: Tensor, graph: BenchGraph) -> Tensor:
    return (edge_index[0] * max(graph.num_src, graph.num_dst) + edge_index[1]).sort().values


@dataclass(frozen=True)
class Inputs:
    """What a layer is called with behind x, in the four ways of giving it."""

    ours: tuple[Any, ...]
    """Sorted once."""
    unsorted: tuple[Any, ...]
    """Sorted in every call."""
    pyg: tuple[Any, ...]
    more: tuple[Tensor, ...] = ()
    """What follows DGL's graph and x."""
    as_given: Callable[[Tensor], Any] = lambda x: x
    """What becomes of x first."""
    as_rows: Callable[[Any], Tensor] = lambda h: h
    """What becomes of the result."""


def _plain(setting: Setting, more: tuple[Tensor, ...] = ()) -> Inputs:
    edge_index = setting.graph.edge_index
    return Inputs((setting.edges, *more), (edge_index, *more), (edge_index, *more), more)


def _typed(setting: Setting) -> Inputs:
    return _plain(setting, (setting.kinds(_RELATIONS),))


def _signed(setting: Setting) -> Inputs:
    """Every third edge is negative."""
    negative = setting.kinds(3) == 0
    size = setting.graph.num_src
    both = [setting.graph.edge_index[:, kept].contiguous() for kept in (~negative, negative)]
    return Inputs(tuple(Graph(ends, size) for ends in both), tuple(both), tuple(both))


def _two_kinds(setting: Setting) -> Inputs:
    """The first half of the nodes is of one type, the second of another."""
    cut, size = setting.graph.num_src // 2, setting.graph.num_src
    src, dst = setting.graph.edge_index
    edges = {}
    for kind in _HALVES[1]:
        starts = [cut * (name == "v") for name in (kind[0], kind[2])]
        kept = ((src >= cut) == (kind[0] == "v")) & ((dst >= cut) == (kind[2] == "v"))
        edges[kind] = torch.stack([src[kept] - starts[0], dst[kept] - starts[1]])
    graph = HeteroGraph({"u": cut, "v": size - cut}, edges)

    def split(x: Tensor) -> dict[str, Tensor]:
        return {"u": x[:cut], "v": x[cut:]}

    def joined(h: dict[str, Tensor]) -> Tensor:
        return torch.cat([h["u"], h["v"]])

    return Inputs((graph,), (edges,), (edges,), (), split, joined)


_RELATIONS = 4
_HALVES = (["u", "v"], [(a, "to", b) for a in "uv" for b in "uv"])


@dataclass(frozen=True)
class LayerCase:
    """A layer to measure."""

    name: str
    make: Callable[[Setting], Layer]
    edge_dim: int | None = None
    """Features of the edges."""
    width: int = WIDTH
    """Features of the nodes."""
    message: int = WIDTH
    """Numbers in the largest array of one message that any layer of this name must make."""
    pairs: bool = True
    """Whether it is measured on bipartite graphs too."""
    by_degree: bool = False
    """Whether DGL takes other degrees on directed graphs: same work, other numbers."""
    cached: bool = False
    """Whether PyG can keep the normalised weights of the graph, as we do."""
    feed: Callable[[Setting], Inputs] | None = None
    """How it is called, if not with the edges and perhaps their features."""

    def inputs(self, setting: Setting) -> Inputs:
        """Returns what the layer is called with behind x."""
        if self.feed is not None:
            return self.feed(setting)
        more = () if self.edge_dim is None else (setting.edge_features(self.edge_dim),)
        return _plain(setting, more)


def _mlp(*widths: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in pairwise(widths):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


_W = WIDTH
_CASES = (
    LayerCase("GCN", lambda s: GCNConv(_W, _W), pairs=False, by_degree=True, cached=True),
    LayerCase("SAGE mean", lambda s: SAGEConv(_W, _W)),
    LayerCase("SAGE max", lambda s: SAGEConv(_W, _W, reduce="max", project=True)),
    LayerCase("GIN", lambda s: GINConv(_mlp(_W, _W, _W))),
    LayerCase("GINE", lambda s: GINEConv(_mlp(_W, _W, _W)), edge_dim=_W),
    LayerCase("GAT", lambda s: GATConv(_W, 16, heads=4, self_loops=not s.is_bipartite)),
    LayerCase(
        "GATv2",
        lambda s: GATv2Conv(_W, 16, heads=4, self_loops=not s.is_bipartite, bias=False),
    ),
    LayerCase("transformer", lambda s: TransformerConv(_W, 16, heads=4)),
    LayerCase(
        "transformer, edges", lambda s: TransformerConv(_W, 16, heads=4, edge_dim=8), edge_dim=8
    ),
    LayerCase("EdgeConv, linear", lambda s: EdgeConv(nn.Linear(2 * _W, _W)), message=2 * _W),
    LayerCase("EdgeConv, MLP", lambda s: EdgeConv(_mlp(2 * _W, _W, _W)), message=2 * _W),
    LayerCase("PNA", lambda s: PNAConv(_W, _W, s.histogram), pairs=False, message=2 * _W),
    LayerCase("Chebyshev", lambda s: ChebConv(_W, _W, terms=3), pairs=False, by_degree=True),
    LayerCase("APPNP", lambda s: APPNP(10, 0.1), pairs=False, by_degree=True, cached=True),
    LayerCase("SGC", lambda s: SGConv(_W, _W, steps=2), pairs=False, by_degree=True),
    LayerCase("LightGCN", lambda s: LGConv(), pairs=False),
    LayerCase("gated", lambda s: ResGatedGraphConv(_W, _W)),
    LayerCase("CGCNN", lambda s: CGConv(_W, edge_dim=8), edge_dim=8, message=2 * _W + 8),
    LayerCase("RGCN", lambda s: RGCNConv(_W, _W, _RELATIONS), feed=_typed),
    LayerCase(
        "HGT",
        lambda s: HGTConv(_W, _W, _HALVES, heads=4),
        pairs=False,
        feed=_two_kinds,
    ),
    LayerCase("SignedConv", lambda s: SignedConv(_W, 32, first=True), pairs=False, feed=_signed),
    LayerCase(
        "NNConv", lambda s: NNConv(16, 16, nn.Linear(4, 256)), edge_dim=4, width=16, message=256
    ),
)


def cases(setting: Setting, only: str = "") -> Iterator[LayerCase]:
    """Yields the layers that are measured on a graph.

    Args:
        setting: the graph.
        only: part of the name.
    """
    for case in _CASES:
        if only in case.name and (case.pairs or not setting.is_bipartite):
            yield case
