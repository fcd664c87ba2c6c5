"""What layers on several node types share: dictionaries turned into plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.graph import Graph
from gnnlab.hetero import EdgeType, HeteroGraph
from gnnlab.ops import EdgePlan

__all__ = ["HeteroEdges", "Joined", "joined", "pairs_of"]

HeteroEdges = HeteroGraph | Mapping[EdgeType, Tensor | Graph | EdgePlan]


class Joined(NamedTuple):
    """All edge types as one plan."""

    plan: EdgePlan
    """Sources: those of the first edge type, then of the second, and so on. Targets: all nodes,
    type after type."""
    kinds: tuple[EdgeType, ...]
    """The edge types that are there, in the order of the sources."""


def pairs_of(edges: HeteroEdges) -> list[tuple[EdgeType, Tensor | Graph | EdgePlan]]:
    """Returns edge types with their edges."""
    if isinstance(edges, HeteroGraph):
        return [(kind, edges[kind]) for kind in edges.edge_types]
    return list(edges.items())


def joined(
    layer: str, edges: HeteroEdges, sizes: Mapping[str, int], known: tuple[EdgeType, ...]
) -> Joined:
    """Returns one plan of all edges; made once per `HeteroGraph`.

    Args:
        layer: name, for error messages.
        edges: the edges of each type.
        sizes: number of nodes of each type that has features, in the order of the targets.
        known: edge types that the layer was made for.

    Raises:
        ValueError: for an edge type that the layer does not know or that has no features, and for
            edges that refer to missing nodes.
    """
    for kind, _ in pairs_of(edges):
        if kind not in known:
            raise ValueError(f"{layer} was not made for edge type {kind}; it knows {list(known)}")
        for name in (kind[0], kind[2]):
            if name not in sizes:
                raise ValueError(f"{layer} got edges of {kind}, but no x[{name!r}]")
    if isinstance(edges, HeteroGraph):
        key = ("joined", tuple(sizes.items()))
        return edges.derived(key, lambda: _join(layer, edges, sizes))
    return _join(layer, edges, sizes)


def _join(layer: str, edges: HeteroEdges, sizes: Mapping[str, int]) -> Joined:
    first, total = {}, 0
    for name, size in sizes.items():
        first[name] = total
        total += size
    num_src, parts = 0, []
    for kind, given in pairs_of(edges):
        ends = _ends(layer, kind, given, (sizes[kind[0]], sizes[kind[2]]))
        parts.append(torch.stack([ends[0] + num_src, ends[1] + first[kind[2]]]))
        num_src += sizes[kind[0]]
    whole = torch.cat(parts, 1) if parts else torch.empty(2, 0, dtype=torch.int64)
    plan = EdgePlan(whole, num_src, total, validate=False)
    return Joined(plan, tuple(kind for kind, _ in pairs_of(edges)))


def _ends(
    layer: str, kind: EdgeType, given: Tensor | Graph | EdgePlan, sizes: tuple[int, int]
) -> Tensor:
    """Returns the edge_index of one type, checked against the number of nodes."""
    if isinstance(given, Graph | EdgePlan):
        if (given.num_src, given.num_dst) != sizes:
            raise ValueError(f"{layer} got x with {sizes} rows for {kind}, but {given}")
        return given.edge_index.long()
    if torch.compiler.is_compiling():
        return given.long()
    try:
        return Graph(given, sizes).edge_index.long()
    except ValueError as error:
        raise ValueError(f"{layer}, edge type {kind}: {error}") from None
