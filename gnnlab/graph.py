"""Graph: edges, sizes and the order that kernels want; and the way to and from other libraries."""

from __future__ import annotations

from typing import Any, NoReturn, final

import torch
from torch import Tensor

from gnnlab.errors import needs
from gnnlab.ops import EdgePlan

__all__ = ["Graph", "relabel"]


@final
class Graph:
    """Edges between nodes, sorted once and reused by every layer that gets the graph.

    Args:
        edge_index: row 0 holds sources, row 1 targets.
        num_nodes: number of nodes; a pair (number of sources, number of targets) makes the graph
            bipartite: sources and targets are then different things, each numbered from 0.
        edge_weight: one number per edge, or None.
        validate: whether to check that all nodes exist.

    Shapes:
        edge_index: (2, E) int64 or int32; edge_weight: (E,) float.

    Raises:
        ValueError: if shapes do not fit, or `edge_index` refers to a node that does not exist.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
        Graph(num_nodes=3, num_edges=3)
        >>> Graph(torch.tensor([[0, 1, 2], [1, 1, 0]]), (3, 2))
        Graph(num_src=3, num_dst=2, num_edges=3)
    """

    __slots__ = ("__weakref__", "_edge_weight", "_is_bipartite", "_plan")

    _edge_weight: Tensor | None
    _is_bipartite: bool
    _plan: EdgePlan

    def __init__(
        self,
        edge_index: Tensor,
        num_nodes: int | tuple[int, int],
        *,
        edge_weight: Tensor | None = None,
        validate: bool = True,
    ) -> None:
        pair = isinstance(num_nodes, tuple)
        num_src, num_dst = num_nodes if isinstance(num_nodes, tuple) else (num_nodes, num_nodes)
        plan = EdgePlan(edge_index, num_src, num_dst, validate=False)
        if validate:
            if pair:
                _check_nodes(plan.src, plan.num_src, "source", "source nodes")
                _check_nodes(plan.dst, plan.num_dst, "target", "target nodes")
            else:
                _check_nodes(plan.edge_index.view(-1), plan.num_src, "node", "nodes")
        _check_weight(edge_weight, plan)
        self._set(plan, edge_weight, pair)

    def _set(self, plan: EdgePlan, edge_weight: Tensor | None, is_bipartite: bool) -> None:
        object.__setattr__(self, "_plan", plan)
        object.__setattr__(self, "_edge_weight", edge_weight)
        object.__setattr__(self, "_is_bipartite", is_bipartite)

    @classmethod
    def from_plan(
        cls,
        plan: EdgePlan,
        *,
        edge_weight: Tensor | None = None,
        bipartite: bool | None = None,
    ) -> Graph:
        """Makes a graph of edges that are planned already; nothing is sorted or copied.

        Args:
            plan: the edges.
            edge_weight: one number per edge, or None.
            bipartite: whether sources and targets are different things; by default whether they
                differ in number.

        Raises:
            ValueError: if `edge_weight` does not fit, or a graph that is not bipartite has sources
                and targets that differ in number.

        Example:
            >>> import torch
            >>> from gnnlab.graph import Graph
            >>> from gnnlab.ops import EdgePlan
            >>> Graph.from_plan(EdgePlan(torch.tensor([[0, 2], [1, 1]]), 3, 2))
            Graph(num_src=3, num_dst=2, num_edges=2)
        """
        differ = plan.num_src != plan.num_dst
        if bipartite is False and differ:
            raise ValueError(f"Graph.from_plan: bipartite=False, but {plan!r}")
        _check_weight(edge_weight, plan)
        graph = object.__new__(Graph)
        graph._set(plan, edge_weight, differ if bipartite is None else bipartite)
        return graph

    @property
    def plan(self) -> EdgePlan:
        """The edges as operators take them; sorted at first use, then kept."""
        return self._plan

    @property
    def edge_index(self) -> Tensor:
        """Sources (row 0) and targets (row 1) in the caller's order: (2, E)."""
        return self._plan.edge_index

    @property
    def edge_weight(self) -> Tensor | None:
        """One number per edge in the caller's order, (E,), or None."""
        return self._edge_weight

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and targets are different things."""
        return self._is_bipartite

    @property
    def num_nodes(self) -> int:
        """Number of nodes; ValueError for bipartite graphs, which have two numbers."""
        if self._is_bipartite:
            raise ValueError(
                f"a bipartite graph has no single num_nodes: it has num_src={self.num_src} and "
                f"num_dst={self.num_dst}"
            )
        return self._plan.num_dst

    @property
    def num_src(self) -> int:
        """Number of sources."""
        return self._plan.num_src

    @property
    def num_dst(self) -> int:
        """Number of targets."""
        return self._plan.num_dst

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self._plan.num_edges

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self._plan.device

    @property
    def T(self) -> Graph:
        """The same edges pointing the other way; shares what is sorted already."""
        graph = object.__new__(Graph)
        graph._set(self._plan.T, self._edge_weight, self._is_bipartite)
        return graph

    def to(self, device: torch.device | str) -> Graph:
        """Returns the graph on `device`; itself if it lies there."""
        plan = self._plan.to(device)
        if plan is self._plan:
            return self
        weight = self._edge_weight
        graph = object.__new__(Graph)
        graph._set(plan, None if weight is None else weight.to(plan.device), self._is_bipartite)
        return graph

    def to_pyg(self) -> Any:
        """Returns a PyG `Data` with `edge_index`, `num_nodes` and, if there is one, `edge_weight`.

        Raises:
            MissingExtraError: if torch_geometric is not installed.
            ValueError: if the graph is bipartite.
        """
        data = needs("torch_geometric.data", "Graph.to_pyg", "pyg")
        self._needs_one_kind("Graph.to_pyg")
        extra = {} if self._edge_weight is None else {"edge_weight": self._edge_weight}
        return data.Data(edge_index=self.edge_index, num_nodes=self.num_nodes, **extra)

    @classmethod
    def from_pyg(cls, data: Any) -> Graph:
        """Makes a graph of a PyG `Data`: its `edge_index`, `num_nodes` and `edge_weight`."""
        if data.edge_index is None:
            raise ValueError("Graph.from_pyg: the data has no edge_index")
        return cls(
            data.edge_index,
            int(data.num_nodes),
            edge_weight=data.edge_weight if "edge_weight" in data else None,
        )

    def to_dgl(self) -> Any:
        """Returns a DGL graph with the same edge order; weights lie in ``edata["edge_weight"]``.

        A bipartite graph gets the node types "src" and "dst".

        Raises:
            MissingExtraError: if dgl is not installed.
        """
        dgl = needs("dgl", "Graph.to_dgl", "dgl")
        src, dst = self.edge_index.unbind(0)
        if self._is_bipartite:
            sizes = {"src": self.num_src, "dst": self.num_dst}
            graph = dgl.heterograph({("src", "edge", "dst"): (src, dst)}, num_nodes_dict=sizes)
        else:
            graph = dgl.graph((src, dst), num_nodes=self.num_nodes)
        if self._edge_weight is not None:
            graph.edata["edge_weight"] = self._edge_weight
        return graph

    @classmethod
    def from_dgl(cls, graph: Any) -> Graph:
        """Makes a graph of a DGL graph with one edge type, in DGL's edge order."""
        if len(graph.canonical_etypes) != 1:
            raise ValueError(
                f"Graph.from_dgl needs one edge type, got {graph.canonical_etypes}; "
                "take one with graph[etype]"
            )
        source, _, target = graph.canonical_etypes[0]
        sizes = (int(graph.num_nodes(source)), int(graph.num_nodes(target)))
        weight = dict(graph.edata).get("edge_weight")
        return cls(
            torch.stack(graph.edges(order="eid")),
            sizes[0] if source == target else sizes,
            edge_weight=weight,
        )

    def to_networkx(self) -> Any:
        """Returns a networkx `MultiDiGraph`: edge e has key e, weights lie in "weight".

        Targets of a bipartite graph follow its sources (target i is node num_src + i), and all
        nodes carry the attribute "bipartite" (0 for sources, 1 for targets), as networkx has it.

        Raises:
            MissingExtraError: if networkx is not installed.
        """
        networkx = needs("networkx", "Graph.to_networkx", "test")
        graph = networkx.MultiDiGraph()
        shift = 0
        if self._is_bipartite:
            shift = self.num_src
            graph.add_nodes_from(range(shift), bipartite=0)
            graph.add_nodes_from(range(shift, shift + self.num_dst), bipartite=1)
        else:
            graph.add_nodes_from(range(self.num_nodes))
        weights = None if self._edge_weight is None else self._edge_weight.tolist()
        for e, (u, v) in enumerate(self.edge_index.t().tolist()):
            extra = {} if weights is None else {"weight": weights[e]}
            graph.add_edge(u, v + shift, key=e, **extra)
        return graph

    @classmethod
    def from_networkx(cls, graph: Any) -> Graph:
        """Makes a graph of a networkx graph whose nodes are 0, 1, 2, ... (see `relabel`).

        Undirected edges become one edge in each direction. Edges of `to_networkx` return in their
        order; others come in networkx's order. Weights are read from "weight" if all edges have it.

        Raises:
            ValueError: if the nodes are not 0, 1, 2, ...
        """
        size = graph.number_of_nodes()
        if set(graph.nodes) != set(range(size)):
            raise ValueError(
                f"Graph.from_networkx needs nodes 0..{size - 1}; "
                "use networkx.convert_node_labels_to_integers first"
            )
        kinds = [graph.nodes[node].get("bipartite") for node in range(size)]
        shift = kinds.count(0)
        bipartite = (
            graph.is_directed() and shift > 0 and kinds == [0] * shift + [1] * (size - shift)
        )
        if graph.is_multigraph():
            edges = [(u, v, key, data) for u, v, key, data in graph.edges(keys=True, data=True)]
            keys = [key for _, _, key, _ in edges]
            if all(isinstance(k, int) for k in keys) and len(set(keys)) == len(keys):
                edges.sort(key=lambda edge: edge[2])
        else:
            edges = [(u, v, 0, data) for u, v, data in graph.edges(data=True)]
        if not graph.is_directed():
            edges += [(v, u, key, data) for u, v, key, data in edges if u != v]
        ends = torch.tensor([edge[:2] for edge in edges], dtype=torch.int64).view(-1, 2).t()
        weight = None
        if edges and all("weight" in data for *_, data in edges):
            weight = torch.tensor([float(data["weight"]) for *_, data in edges])
        if bipartite:
            ends = ends - torch.tensor([[0], [shift]])
            return cls(ends, (shift, size - shift), edge_weight=weight)
        return cls(ends, size, edge_weight=weight)

    def to_scipy(self) -> Any:
        """Returns a scipy `coo_array` of shape (num_src, num_dst): A[j, i] belongs to edge j -> i.

        Edges stay in order, repeated ones stay apart; without weights all entries are 1.

        Raises:
            MissingExtraError: if scipy is not installed.
        """
        sparse = needs("scipy.sparse", "Graph.to_scipy", "test")
        weight = torch.ones(self.num_edges) if self._edge_weight is None else self._edge_weight
        src, dst = self.edge_index.cpu().numpy()
        shape = (self.num_src, self.num_dst)
        return sparse.coo_array((weight.detach().cpu().numpy(), (src, dst)), shape=shape)

    @classmethod
    def from_scipy(cls, matrix: Any, *, bipartite: bool = False) -> Graph:
        """Makes a graph of a scipy sparse matrix: entry A[j, i] is an edge j -> i with that weight.

        Args:
            matrix: any scipy sparse matrix or array; `coo` keeps its order of entries.
            bipartite: whether rows and columns are different things; always so unless it is square.
        """
        coo = matrix.tocoo()
        num_src, num_dst = (int(size) for size in coo.shape)
        ends = torch.stack([torch.as_tensor(coo.row).long(), torch.as_tensor(coo.col).long()])
        size = (num_src, num_dst) if bipartite or num_src != num_dst else num_src
        return cls(ends, size, edge_weight=torch.as_tensor(coo.data))

    def _needs_one_kind(self, who: str) -> None:
        if self._is_bipartite:
            raise ValueError(f"{who} cannot express a bipartite graph; use to_dgl or to_scipy")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Graph cannot be changed; make a new one (tried to set {name})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._plan, self._edge_weight, self._is_bipartite)

    def __repr__(self) -> str:
        sizes = (
            f"num_src={self.num_src}, num_dst={self.num_dst}"
            if self._is_bipartite
            else f"num_nodes={self.num_nodes}"
        )
        weighted = "" if self._edge_weight is None else ", weighted"
        place = "" if self.device.type == "cpu" else f", device={self.device}"
        return f"Graph({sizes}, num_edges={self.num_edges}{weighted}{place})"


def relabel(edge_index: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers nodes anew from 0 without gaps, in the order of their old ids.

    Args:
        edge_index: edges between any integer ids.

    Shapes:
        edge_index: (2, E) integer.
        returns: (2, E) int64 with ids 0..N-1, and the map (N,): old id of each new one.

    Example:
        >>> import torch
        >>> from gnnlab.graph import relabel
        >>> relabel(torch.tensor([[10, 70], [70, -3]]))
        (tensor([[1, 2],
                [2, 0]]), tensor([-3, 10, 70]))
    """
    ids, places = torch.unique(edge_index, return_inverse=True)
    return places.view(edge_index.shape), ids


def _rebuild(plan: EdgePlan, edge_weight: Tensor | None, is_bipartite: bool) -> Graph:
    graph = object.__new__(Graph)
    graph._set(plan, edge_weight, is_bipartite)
    return graph


def _check_weight(edge_weight: Tensor | None, plan: EdgePlan) -> None:
    """Raises ValueError unless there is one number per edge, or none at all."""
    if edge_weight is None:
        return
    if edge_weight.shape != (plan.num_edges,):
        raise ValueError(
            f"edge_weight must have shape ({plan.num_edges},), one number per edge, "
            f"got {tuple(edge_weight.shape)}"
        )
    if edge_weight.device != plan.device:
        raise ValueError(
            f"edge_weight is on {edge_weight.device}, but edge_index is on {plan.device}"
        )


def _check_nodes(ids: Tensor, count: int, word: str, words: str) -> None:
    """Raises ValueError naming the id that does not exist."""
    if ids.numel() == 0:
        return
    low, high = (int(value) for value in ids.aminmax())
    if low >= 0 and high < count:
        return
    valid = f"valid ids are 0..{count - 1}" if count else "no id is valid"
    raise ValueError(
        f"edge_index holds {word} {low if low < 0 else high}, but the graph has {count} {words} "
        f"({valid}). Ids must start at 0; see gnnlab.graph.relabel()."
    )
