"""HeteroGraph: nodes and edges of several types, each edge type a Graph with its own plan."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar, final

import torch
from torch import Tensor

from gnnlab import _exchange
from gnnlab.graph import Graph
from gnnlab.ops._library import may_keep

__all__ = ["EdgeType", "HeteroGraph", "Homogeneous"]

EdgeType = tuple[str, str, str]
"""Type of the sources, name of the relation, type of the targets."""

Fact = TypeVar("Fact")


class Homogeneous(NamedTuple):
    """All nodes and edges of a `HeteroGraph` as one graph: node types one after the other."""

    graph: Graph
    """All edges, one edge type after the other."""
    edge_type: Tensor
    """Position of each edge's type in `edge_types`, (E,) int64."""
    node_type: Tensor
    """Position of each node's type in `node_types`, (N,) int64."""
    offsets: Mapping[str, int]
    """Node type -> id of its first node."""


@final
class HeteroGraph:
    """Nodes and edges of several types; each edge type is a `Graph`, sorted once and reused.

    Args:
        num_nodes: number of nodes of each node type; its order is that of `node_types`.
        edges: edge type -> edge_index, or a ready `Graph`. An edge type is (type of the sources,
            name of the relation, type of the targets); if the two node types differ its graph is
            bipartite, and either end is numbered from 0.
        edge_weight: edge type -> one number per edge, for those that have weights.
        validate: whether to check that all nodes exist.

    Shapes:
        edges: (2, E_t) int64 or int32 each; edge_weight: (E_t,) float each.

    Raises:
        ValueError: if an edge type names an unknown node type, shapes do not fit, or an edge refers
            to a node that does not exist.

    Example:
        >>> import torch
        >>> from gnnlab.hetero import HeteroGraph
        >>> graph = HeteroGraph(
        ...     {"user": 3, "item": 2},
        ...     {
        ...         ("user", "buys", "item"): torch.tensor([[0, 1, 2], [0, 0, 1]]),
        ...         ("user", "knows", "user"): torch.tensor([[0], [2]]),
        ...     },
        ... )
        >>> graph
        HeteroGraph(num_nodes={user: 3, item: 2}, edges={user-buys-item: 3, user-knows-user: 1})
        >>> graph["buys"]
        Graph(num_src=3, num_dst=2, num_edges=3)
        >>> graph["user", "knows", "user"]
        Graph(num_nodes=3, num_edges=1)
        >>> graph.homogeneous().graph
        Graph(num_nodes=5, num_edges=4)
    """

    __slots__ = ("__weakref__", "_derived", "_edges", "_num_nodes")

    _derived: dict[Hashable, Any]
    _edges: dict[EdgeType, Graph]
    _num_nodes: dict[str, int]

    def __init__(
        self,
        num_nodes: Mapping[str, int],
        edges: Mapping[EdgeType, Tensor | Graph],
        *,
        edge_weight: Mapping[EdgeType, Tensor] | None = None,
        validate: bool = True,
    ) -> None:
        weights = dict(edge_weight or {})
        for name, size in num_nodes.items():
            if size < 0:
                raise ValueError(f"node type {name!r} has {size} nodes; it needs 0 or more")
        made = {
            kind: _graph(kind, given, num_nodes, weights.pop(kind, None), validate)
            for kind, given in edges.items()
        }
        if weights:
            raise ValueError(f"edge_weight is given for {[*weights]}, which are not edge types")
        devices = {graph.device for graph in made.values()}
        if len(devices) > 1:
            raise ValueError(f"edge types lie on several devices: {sorted(map(str, devices))}")
        self._set({name: int(size) for name, size in num_nodes.items()}, made)

    def _set(self, num_nodes: dict[str, int], edges: dict[EdgeType, Graph]) -> None:
        object.__setattr__(self, "_num_nodes", num_nodes)
        object.__setattr__(self, "_edges", edges)
        object.__setattr__(self, "_derived", {})

    @classmethod
    def from_typed(
        cls,
        edge_index: Tensor,
        edge_type: Tensor,
        num_nodes: int,
        *,
        node_type: Tensor | None = None,
        node_names: Sequence[str] | None = None,
        relation_names: Sequence[str] | None = None,
        validate: bool = True,
    ) -> HeteroGraph:
        """Takes edges of many relations apart: the form that `RGCNConv` takes.

        Nodes of a type, and edges of an edge type, keep their order. A relation that joins several
        pairs of node types becomes several edge types.

        Args:
            edge_index: all edges, between ids 0..N-1.
            edge_type: the relation of each edge.
            num_nodes: number of nodes N.
            node_type: the type of each node; by default all are of one.
            node_names: what node types are called; by default "0", "1", ..., or "node" for one.
            relation_names: what relations are called; by default "0", "1", ...
            validate: whether to check that all nodes exist.

        Shapes:
            edge_index: (2, E) int64; edge_type: (E,) int64; node_type: (N,) int64.

        Raises:
            ValueError: if shapes do not fit, or a node, type or name does not exist.

        Example:
            >>> import torch
            >>> from gnnlab.hetero import HeteroGraph
            >>> edge_index, relation = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([1, 0, 1])
            >>> HeteroGraph.from_typed(edge_index, relation, 3)
            HeteroGraph(num_nodes={node: 3}, edges={node-0-node: 1, node-1-node: 2})
        """
        whole = Graph(edge_index, num_nodes, validate=validate)
        if edge_type.shape != (whole.num_edges,) or edge_type.is_floating_point():
            raise ValueError(
                f"edge_type must hold one integer for each of the {whole.num_edges} edges, got "
                f"{tuple(edge_type.shape)} of {edge_type.dtype}"
            )
        kinds = edge_type.new_zeros(num_nodes).long() if node_type is None else node_type.long()
        if kinds.shape != (num_nodes,):
            raise ValueError(f"node_type must be ({num_nodes},), got {tuple(kinds.shape)}")
        names = ("node",) if node_type is None and node_names is None else node_names
        nodes = _names("node_type", kinds, names)
        relations = _names("edge_type", edge_type, relation_names)
        counts = torch.bincount(kinds, minlength=len(nodes))
        first = counts.cumsum(0) - counts
        place = torch.empty_like(kinds)
        order = kinds.argsort(stable=True)
        place[order] = torch.arange(num_nodes, device=kinds.device)
        place = place - first[kinds]  # of a node among those of its type
        src, dst = whole.edge_index.long()
        key = (kinds[src] * len(relations) + edge_type.long()) * len(nodes) + kinds[dst]
        local = torch.stack([place[src], place[dst]])
        found, sizes = torch.unique(key, return_counts=True)
        parts = torch.split(local[:, key.argsort(stable=True)], sizes.tolist(), 1)
        edges = {}
        for code, part in zip(found.tolist(), parts, strict=True):
            rest, target = divmod(code, len(nodes))
            source, relation = divmod(rest, len(relations))
            edges[nodes[source], relations[relation], nodes[target]] = part
        sizes_by_name = dict(zip(nodes, counts.tolist(), strict=True))
        return cls(sizes_by_name, edges, validate=False)

    @property
    def node_types(self) -> tuple[str, ...]:
        """Names of the node types."""
        return tuple(self._num_nodes)

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """The edge types, each (type of the sources, relation, type of the targets)."""
        return tuple(self._edges)

    @property
    def metadata(self) -> tuple[tuple[str, ...], tuple[EdgeType, ...]]:
        """Node types and edge types, as layers like `HGTConv` take them."""
        return self.node_types, self.edge_types

    @property
    def num_nodes(self) -> Mapping[str, int]:
        """Number of nodes of each node type."""
        return MappingProxyType(self._num_nodes)

    @property
    def num_edges(self) -> int:
        """Number of edges of all types together."""
        return sum(graph.num_edges for graph in self._edges.values())

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return next((g.device for g in self._edges.values()), torch.device("cpu"))

    def __getitem__(self, edge_type: EdgeType | str) -> Graph:
        """Returns the graph of an edge type; a relation's name does where only one has it."""
        if edge_type in self._edges:
            return self._edges[edge_type]
        matching = [kind for kind in self._edges if kind[1] == edge_type]
        if len(matching) == 1:
            return self._edges[matching[0]]
        if matching:
            raise KeyError(f"relation {edge_type!r} belongs to several edge types: {matching}")
        raise KeyError(f"no edge type {edge_type!r}; there are {[*self._edges]}")

    def __contains__(self, edge_type: object) -> bool:
        return edge_type in self._edges

    def to(self, device: torch.device | str) -> HeteroGraph:
        """Returns the graph on `device`; itself if it lies there."""
        moved = {kind: graph.to(device) for kind, graph in self._edges.items()}
        if all(moved[kind] is graph for kind, graph in self._edges.items()):
            return self
        return _rebuild(self._num_nodes, moved)

    def derived(self, key: Hashable, build: Callable[[], Fact]) -> Fact:
        """Returns ``build()``, computed once per key; for facts of the graph alone.

        Args:
            key: names the result.
            build: computes it. Do not change the result afterwards.

        Code under torch.compile uses what is there, and keeps nothing: call it once before.
        """
        if key in self._derived:
            kept: Fact = self._derived[key]
            return kept
        found = build()
        if may_keep() and not torch.compiler.is_compiling():  # traced code may not change the graph
            self._derived[key] = found
        return found

    def homogeneous(self) -> Homogeneous:
        """Returns one graph of all nodes with the types of edges and nodes; made once.

        Nodes of the first type come first, then those of the second; edges likewise, so that
        features of all nodes are ``torch.cat([x[t] for t in graph.node_types])``. If only some edge
        types have weights, edges of the others get 1.
        """
        return self.derived("homogeneous", self._joined)

    def _joined(self) -> Homogeneous:
        graphs, device = [*self._edges.values()], self.device
        offsets, total = {}, 0
        for name, size in self._num_nodes.items():
            offsets[name] = total
            total += size
        ends = [torch.empty(2, 0, dtype=torch.int64, device=device)]
        for (source, _, target), graph in self._edges.items():
            shift = torch.tensor([[offsets[source]], [offsets[target]]], device=device)
            ends.append(graph.edge_index.long() + shift)
        weights = [g.edge_weight for g in graphs]
        weight = None
        if any(w is not None for w in weights):
            ones = [torch.ones(g.num_edges, device=device) for g in graphs]
            weight = torch.cat([o if w is None else w for w, o in zip(weights, ones, strict=True)])
        if len(graphs) == 1 and len(offsets) == 1:
            whole = graphs[0]  # as it is, with its plan
        else:
            whole = Graph(torch.cat(ends, 1), total, edge_weight=weight, validate=False)
        return Homogeneous(
            whole,
            _repeated([g.num_edges for g in graphs], device),
            _repeated([*self._num_nodes.values()], device),
            MappingProxyType(offsets),
        )

    def to_pyg(self) -> Any:
        """Returns a PyG `HeteroData` with the same tensors: sizes, `edge_index`, `edge_weight`.

        Raises:
            MissingExtraError: if torch_geometric is not installed.
        """
        return _exchange.to_pyg(self._num_nodes, self._edges)

    @classmethod
    def from_pyg(cls, data: Any) -> HeteroGraph:
        """Makes a graph of a PyG `HeteroData`: sizes, `edge_index` and `edge_weight`, shared."""
        sizes, edges, weights = _exchange.from_pyg(data)
        return cls(sizes, edges, edge_weight=weights)

    def to_dgl(self) -> Any:
        """Returns a DGL heterograph with the same edge order; weights lie in "edge_weight".

        Raises:
            MissingExtraError: if dgl is not installed.
        """
        return _exchange.to_dgl(self._num_nodes, self._edges)

    @classmethod
    def from_dgl(cls, graph: Any) -> HeteroGraph:
        """Makes a graph of a DGL heterograph, in DGL's edge order."""
        sizes, edges, weights = _exchange.from_dgl(graph)
        return cls(sizes, edges, edge_weight=weights)

    def to_networkx(self) -> Any:
        """Returns a networkx `MultiDiGraph`: nodes are (type, id), edges say their "edge_type".

        Nodes carry "node_type"; edge e of the joined order (`homogeneous`) has key e, weights lie
        in "weight".

        Raises:
            MissingExtraError: if networkx is not installed.
        """
        return _exchange.to_networkx(self._num_nodes, self._edges)

    @classmethod
    def from_networkx(cls, graph: Any) -> HeteroGraph:
        """Makes a graph of a directed networkx graph with "node_type" and "edge_type" attributes.

        Nodes of a type are numbered in the order of the graph. "edge_type" is the name of a
        relation, or an edge type as `to_networkx` writes it. "weight" counts where all edges of a
        type have it.

        Raises:
            ValueError: if the graph is undirected, or a node or an edge says no type.
        """
        sizes, edges, weights = _exchange.from_networkx(graph)
        return cls(sizes, edges, edge_weight=weights)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"a HeteroGraph cannot be changed; make a new one (tried to set {name})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._num_nodes, self._edges)

    def __repr__(self) -> str:
        nodes = ", ".join(f"{name}: {size}" for name, size in self._num_nodes.items())
        edges = ", ".join(f"{'-'.join(k)}: {g.num_edges}" for k, g in self._edges.items())
        place = "" if self.device.type == "cpu" else f", device={self.device}"
        return f"HeteroGraph(num_nodes={{{nodes}}}, edges={{{edges}}}{place})"


def _rebuild(num_nodes: dict[str, int], edges: dict[EdgeType, Graph]) -> HeteroGraph:
    graph = object.__new__(HeteroGraph)
    graph._set(num_nodes, edges)
    return graph


def _graph(
    kind: EdgeType,
    given: Tensor | Graph,
    num_nodes: Mapping[str, int],
    weight: Tensor | None,
    validate: bool,
) -> Graph:
    """Returns the graph of one edge type, or raises an error that names it."""
    if not (isinstance(kind, tuple) and len(kind) == 3):
        raise ValueError(f"an edge type is (source type, relation, target type), got {kind!r}")
    source, _, target = kind
    for name in (source, target):
        if name not in num_nodes:
            raise ValueError(f"edge type {kind} joins {name!r}, but nodes are {[*num_nodes]}")
    sizes = num_nodes[source], num_nodes[target]
    if not isinstance(given, Graph):
        try:
            size = sizes[0] if source == target else sizes
            return Graph(given, size, edge_weight=weight, validate=validate)
        except ValueError as error:
            raise ValueError(f"edge type {kind}: {error}") from None
    if weight is not None:
        raise ValueError(f"edge type {kind} is a Graph, and carries its own edge_weight")
    if (given.num_src, given.num_dst) != sizes or given.is_bipartite != (source != target):
        raise ValueError(
            f"edge type {kind} joins {sizes[0]} {source} and {sizes[1]} {target} nodes, but its "
            f"graph is {given}"
        )
    return given


def _names(argument: str, values: Tensor, names: Sequence[str] | None) -> list[str]:
    """Returns a name for each value; raises ValueError for values that have none."""
    low, high = (int(v) for v in values.aminmax()) if values.numel() else (0, -1)
    found = [str(k) for k in range(high + 1)] if names is None else list(names)
    if low < 0 or high >= len(found):
        raise ValueError(
            f"{argument} holds {low if low < 0 else high}, but there are {len(found)} names"
            if low >= 0
            else f"{argument} holds {low}; types are 0 or more"
        )
    return found


def _repeated(sizes: list[int], device: torch.device) -> Tensor:
    """Returns 0 sizes[0] times, then 1 sizes[1] times, and so on."""
    counts = torch.tensor(sizes, dtype=torch.int64, device=device)
    return torch.arange(len(sizes), device=device).repeat_interleave(counts)
