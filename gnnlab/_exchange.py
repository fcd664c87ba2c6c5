"""HeteroGraph to and from other libraries: sizes, edges and weights by type, nothing copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gnnlab.errors import needs
from gnnlab.graph import Graph

__all__ = ["from_dgl", "from_networkx", "from_pyg", "to_dgl", "to_networkx", "to_pyg"]

Kind = tuple[str, str, str]
Parts = tuple[dict[str, int], dict[Kind, Tensor], dict[Kind, Tensor]]
"""Number of nodes by node type; edge_index and weights by edge type."""


def to_pyg(sizes: Mapping[str, int], edges: Mapping[Kind, Graph]) -> Any:
    """Returns a PyG `HeteroData`."""
    data = needs("torch_geometric.data", "HeteroGraph.to_pyg", "pyg").HeteroData()
    for name, size in sizes.items():
        data[name].num_nodes = size
    for kind, graph in edges.items():
        data[kind].edge_index = graph.edge_index
        if graph.edge_weight is not None:
            data[kind].edge_weight = graph.edge_weight
    return data


def from_pyg(data: Any) -> Parts:
    """Reads a PyG `HeteroData`."""
    sizes = {}
    for name in data.node_types:
        if data[name].num_nodes is None:
            raise ValueError(f"HeteroGraph.from_pyg: node type {name!r} says no num_nodes")
        sizes[name] = int(data[name].num_nodes)
    kinds = [kind for kind in data.edge_types if "edge_index" in data[kind]]
    edges = {kind: data[kind].edge_index for kind in kinds}
    weights = {kind: data[kind].edge_weight for kind in kinds if "edge_weight" in data[kind]}
    return sizes, edges, weights


def to_dgl(sizes: Mapping[str, int], edges: Mapping[Kind, Graph]) -> Any:
    """Returns a DGL heterograph."""
    dgl = needs("dgl", "HeteroGraph.to_dgl", "dgl")
    ends = {kind: tuple(graph.edge_index.unbind(0)) for kind, graph in edges.items()}
    made = dgl.heterograph(ends, num_nodes_dict=dict(sizes))
    for kind, graph in edges.items():
        if graph.edge_weight is not None:
            made.edges[kind].data["edge_weight"] = graph.edge_weight
    return made


def from_dgl(graph: Any) -> Parts:
    """Reads a DGL heterograph."""
    edges, weights = {}, {}
    for kind in graph.canonical_etypes:
        edges[kind] = torch.stack(graph.edges(etype=kind, order="eid"))
        if "edge_weight" in graph.edges[kind].data:
            weights[kind] = graph.edges[kind].data["edge_weight"]
    return {name: int(graph.num_nodes(name)) for name in graph.ntypes}, edges, weights


def to_networkx(sizes: Mapping[str, int], edges: Mapping[Kind, Graph]) -> Any:
    """Returns a networkx `MultiDiGraph`."""
    networkx = needs("networkx", "HeteroGraph.to_networkx", "test")
    made = networkx.MultiDiGraph()
    for name, size in sizes.items():
        made.add_nodes_from(((name, i) for i in range(size)), node_type=name)
    key = 0
    for kind, graph in edges.items():
        weights = None if graph.edge_weight is None else graph.edge_weight.tolist()
        for e, (u, v) in enumerate(graph.edge_index.t().tolist()):
            more = {} if weights is None else {"weight": weights[e]}
            made.add_edge((kind[0], u), (kind[2], v), key=key, edge_type=kind, **more)
            key += 1
    return made


def from_networkx(graph: Any) -> Parts:
    """Reads a directed networkx graph."""
    if not graph.is_directed():
        raise ValueError("HeteroGraph.from_networkx needs a directed graph")
    sizes: dict[str, int] = {}
    place: dict[Any, tuple[str, int]] = {}
    for node, data in graph.nodes(data=True):
        if "node_type" not in data:
            raise ValueError(f"HeteroGraph.from_networkx: node {node!r} has no node_type")
        place[node] = data["node_type"], sizes.get(data["node_type"], 0)
        sizes[data["node_type"]] = place[node][1] + 1
    found: dict[Kind, list[tuple[int, int, float | None]]] = {}
    for u, v, data in _in_order(graph):
        if "edge_type" not in data:
            raise ValueError(f"HeteroGraph.from_networkx: edge {u!r} -> {v!r} has no edge_type")
        given = data["edge_type"]
        relation = given if isinstance(given, str) else given[1]
        (source, j), (target, i) = place[u], place[v]
        found.setdefault((source, relation, target), []).append((j, i, data.get("weight")))
    edges = {kind: torch.tensor([row[:2] for row in rows]).t() for kind, rows in found.items()}
    weights = {
        kind: torch.tensor([float(w) for *_, w in rows if w is not None])
        for kind, rows in found.items()
        if all(w is not None for *_, w in rows)
    }
    return sizes, edges, weights


def _in_order(graph: Any) -> list[tuple[Any, Any, dict[str, Any]]]:
    """Returns the edges of a networkx graph, sorted by key where keys are all different numbers."""
    if not graph.is_multigraph():
        return list(graph.edges(data=True))
    edges = list(graph.edges(keys=True, data=True))
    keys = [key for _, _, key, _ in edges]
    if all(isinstance(key, int) for key in keys) and len(set(keys)) == len(keys):
        edges.sort(key=lambda edge: edge[2])
    return [(u, v, data) for u, v, _, data in edges]
