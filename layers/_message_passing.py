"""What all layers share: any way of giving nodes and edges, turned into one, with good errors.

A layer writes `given = prepare(self, x, edges, edge_weight)` and then its equations with
`given.plan`, `given.x_src`, `given.x_dst` and `given.edge_weight`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gnnlab.graph import Graph
from gnnlab.ops import EdgePlan

__all__ = ["Edges", "Given", "Nodes", "edges_as_sources", "prepare"]

Nodes = Tensor | tuple[Tensor, Tensor]
Edges = Tensor | Graph | EdgePlan


class Given(NamedTuple):
    """Nodes and edges in the one form that layers work on."""

    plan: EdgePlan
    """The edges; made for this call when the layer got an edge_index."""
    x_src: Tensor
    """Features of the sources, (N, F)."""
    x_dst: Tensor
    """Features of the targets, (M, F); the same tensor as x_src unless bipartite."""
    edge_weight: Tensor | None
    """One number per edge, (E,): the argument, else the graph's own."""
    is_bipartite: bool
    """Whether sources and targets are different things."""


def prepare(
    layer: nn.Module | str,
    x: Nodes,
    edges: Edges,
    edge_weight: Tensor | None = None,
    *,
    in_dim: int | tuple[int, int] | None = None,
    num_dst: int | None = None,
    edge_attr: Tensor | None = None,
    edge_dim: int | None = None,
) -> Given:
    """Checks what a layer got, and returns it in one form.

    Args:
        layer: the layer, or its name; for error messages.
        x: features of all nodes, or a pair (sources, targets).
        edges: edge_index, `Graph` or `EdgePlan`; the last two are sorted once and reused.
        edge_weight: one number per edge.
        in_dim: number of features that the layer was made for; a pair for sources and targets;
            None allows any.
        num_dst: number of targets, for layers that read no target features and get sources alone.
        edge_attr: features of the edges; checked only, the layer has them already.
        edge_dim: number of edge features that the layer was made for; None allows any.

    Shapes:
        x: (N, F) float or ((N, F), (M, F)); edges: (2, E) int64; edge_weight: (E,);
        edge_attr: (E, edge_dim).

    Raises:
        TypeError: if an argument is of a type that says nothing about nodes or edges.
        ValueError: if shapes do not fit one another, or edges refer to missing nodes.
    """
    name = layer if isinstance(layer, str) else type(layer).__name__
    is_pair = not isinstance(x, Tensor)
    if isinstance(x, Tensor):
        x_src, x_dst = x, x
    elif isinstance(x, tuple | list) and len(x) == 2:
        x_src, x_dst = x
    else:
        raise TypeError(f"{name} expected x as a tensor or a pair of them, got {type(x).__name__}")
    dims = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
    for tensor, word, dim in ((x_src, "x_src", dims[0]), (x_dst, "x_dst", dims[1])):
        _check_nodes(name, tensor, word if is_pair else "x", dim)
    sizes = (x_src.shape[0], x_dst.shape[0] if num_dst is None else num_dst)
    is_bipartite = is_pair or (isinstance(edges, Graph) and edges.is_bipartite)
    if isinstance(edges, Graph):
        edge_weight = edges.edge_weight if edge_weight is None else edge_weight
        plan = _fitting(name, edges.plan, sizes, is_pair, edges)
    elif isinstance(edges, EdgePlan):
        plan = _fitting(name, edges, sizes, is_pair, edges)
    elif isinstance(edges, Tensor):
        plan = _planned(name, edges, sizes, is_pair)
    else:
        raise TypeError(
            f"{name} expected edges as edge_index (2, E), Graph or EdgePlan, "
            f"got {type(edges).__name__}"
        )
    if plan.device != x_src.device:
        raise ValueError(f"{name} got edges on {plan.device}, but x on {x_src.device}")
    if edge_weight is not None and edge_weight.shape != (plan.num_edges,):
        raise ValueError(
            f"{name} expected edge_weight of shape ({plan.num_edges},), one number per edge, "
            f"got {tuple(edge_weight.shape)}"
        )
    if edge_attr is not None or edge_dim is not None:
        _check_edges(name, edge_attr, plan.num_edges, edge_dim)
    return Given(plan, x_src, x_dst, edge_weight, is_bipartite)


def edges_as_sources(plan: EdgePlan) -> EdgePlan:
    """Returns a plan in which edge e leads from e itself: operators then gather rows of edges."""

    def build() -> EdgePlan:
        own = torch.arange(plan.num_edges, device=plan.device, dtype=plan.dst.dtype)
        ends = torch.stack([own, plan.dst])
        return EdgePlan(ends, plan.num_edges, plan.num_dst, validate=False)

    if torch.compiler.is_compiling():  # a plan made there cannot outlive the call
        return build()
    return plan.derived("edges as sources", build)


def _check_edges(name: str, edge_attr: object, num_edges: int, dim: int | None) -> None:
    wanted = f"({num_edges}, {'F' if dim is None else dim})"
    if edge_attr is None:
        raise ValueError(f"{name} was made with edge_dim={dim} and needs edge_attr {wanted}")
    if not isinstance(edge_attr, Tensor):
        raise TypeError(f"{name} expected edge_attr as a tensor, got {type(edge_attr).__name__}")
    shape = tuple(edge_attr.shape)
    if len(shape) != 2 or shape[0] != num_edges or (dim is not None and shape[1] != dim):
        raise ValueError(
            f"{name} expected edge_attr of shape {wanted}, one row per edge, got {shape}"
        )


def _check_nodes(name: str, x: Tensor, word: str, dim: int | None) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} expected {word} as a tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{name} expected {word} of floating-point numbers, got {x.dtype}")
    if x.dim() != 2 or (dim is not None and x.shape[1] != dim):
        wanted = "F" if dim is None else str(dim)
        hint = ""
        if dim is not None and x.dim() == 2:
            hint = f" because in_dim={dim}"
        raise ValueError(
            f"{name} expected {word} of shape (N, {wanted}){hint}, got {tuple(x.shape)}."
            + (f" Did you mean {name}({x.shape[1]}, ...)?" if hint else "")
        )


def _fitting(
    name: str, plan: EdgePlan, sizes: tuple[int, int], is_pair: bool, edges: object
) -> EdgePlan:
    """Checks that ready edges and nodes agree in number."""
    if (plan.num_src, plan.num_dst) == sizes:
        return plan
    if is_pair:
        raise ValueError(f"{name} got {sizes[0]} source and {sizes[1]} target rows, but {edges!r}")
    hint = "; give x as a pair (x_src, x_dst)" if plan.num_src != plan.num_dst else ""
    raise ValueError(f"{name} got x with {sizes[0]} rows, but {edges!r}{hint}")


def _planned(name: str, edge_index: Tensor, sizes: tuple[int, int], is_pair: bool) -> EdgePlan:
    """Makes a plan of an edge_index for one call."""
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(
            f"{name} expected edge_index of shape (2, E), got {tuple(edge_index.shape)}"
        )
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} expected edge_index of int64 or int32, got {edge_index.dtype}")
    plan = EdgePlan(edge_index, *sizes, validate=False)
    if edge_index.is_cpu and not torch.compiler.is_compiling() and plan.num_edges:
        for ids, size, word in (
            (plan.src, sizes[0], "x_src" if is_pair else "x"),
            (plan.dst, sizes[1], "x_dst" if is_pair else "x"),
        ):
            low, high = (int(value) for value in ids.aminmax())
            if low < 0 or high >= size:
                valid = f"valid ids are 0..{size - 1}" if size else "no id is valid"
                raise ValueError(
                    f"edge_index holds node {low if low < 0 else high}, but {word} has {size} rows "
                    f"({valid}). Ids must start at 0; see gnnlab.graph.relabel()."
                )
    return plan
