"""HeteroConv: a layer for each edge type, results put together per node type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce as fold
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.errors import needs
from gnnlab.hetero import EdgeType
from gnnlab.layers._hetero import HeteroEdges, pairs_of
from gnnlab.layers._layer import Layer

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

__all__ = ["HeteroConv"]


class HeteroConv(nn.Module):
    r"""Runs a layer of its own on each edge type, and puts together what a node type gets.

    $$ h_i = \bigoplus_{\phi:\ \text{edge types into } \tau(i)} \mathrm{conv}_\phi(x, E_\phi)_i $$

    Args:
        convs: edge type -> layer. Between two node types the layer is called with a pair
            (sources, targets), so it must take one (`takes` has "bipartite").
        reduce: "sum", "mean", "max" or "min" over the edge types into a node type.

    Shapes:
        x: node type -> (N_t, F_t) float; edges: `HeteroGraph`, or edge type -> edge_index, `Graph`
        or `EdgePlan`; more: edge type -> third argument of its layer, weights or features of edges.
        returns: node type -> (N_t, out_dim), for node types with an incoming edge type that has
        edges given and a layer.

    Raises:
        ValueError: if an edge type's node types have no features, or no edge type has a layer.

    Example:
        >>> import torch
        >>> from gnnlab import HeteroGraph
        >>> from gnnlab.layers import HeteroConv, SAGEConv
        >>> buys = torch.tensor([[0, 1, 2], [0, 0, 1]])
        >>> graph = HeteroGraph(
        ...     {"user": 3, "item": 2},
        ...     {("user", "buys", "item"): buys, ("item", "sold to", "user"): buys.flip(0)},
        ... )
        >>> conv = HeteroConv({kind: SAGEConv((4, 4), 8) for kind in graph.edge_types})
        >>> out = conv({"user": torch.randn(3, 4), "item": torch.randn(2, 4)}, graph)
        >>> {name: h.shape for name, h in out.items()}
        {'item': torch.Size([2, 8]), 'user': torch.Size([3, 8])}
    """

    takes: ClassVar[frozenset[str]] = frozenset({"heterogeneous"})

    def __init__(
        self,
        convs: Mapping[EdgeType, nn.Module],
        *,
        reduce: Literal["sum", "mean", "max", "min"] = "sum",
    ) -> None:
        super().__init__()
        if reduce not in ("sum", "mean", "max", "min"):
            raise ValueError(
                f'HeteroConv: reduce must be "sum", "mean", "max" or "min", got "{reduce}"'
            )
        for kind, conv in convs.items():
            if kind[0] != kind[2] and getattr(conv, "self_loops", False):
                raise ValueError(
                    f"HeteroConv: {conv} adds loops, but {kind} joins two node types; "
                    "make it with self_loops=False"
                )
        self.edge_types = tuple(convs)
        self.convs = nn.ModuleList(convs.values())
        self.reduce = reduce

    def forward(
        self,
        x: Mapping[str, Tensor],
        edges: HeteroEdges,
        more: Mapping[EdgeType, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Returns h for each node type that gets something."""
        given, more = dict(pairs_of(edges)), more or {}
        found: dict[str, list[Tensor]] = {}
        for kind, conv in zip(self.edge_types, self.convs, strict=True):
            if kind not in given:
                continue
            source, _, target = kind
            for name in (source, target):
                if name not in x:
                    raise ValueError(f"HeteroConv got edges of {kind}, but no x[{name!r}]")
            rows = x[source] if source == target else (x[source], x[target])
            extra = (more[kind],) if kind in more else ()
            found.setdefault(target, []).append(conv(rows, given[kind], *extra))
        if not found:
            raise ValueError(
                f"HeteroConv has layers for {list(self.edge_types)}, got edges of {list(given)}"
            )
        return {name: self._together(parts) for name, parts in found.items()}

    def _together(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        if self.reduce in ("sum", "mean"):
            total = fold(torch.add, parts)
            return total / len(parts) if self.reduce == "mean" else total
        stacked = torch.stack(parts)
        return (stacked.max(0) if self.reduce == "max" else stacked.min(0)).values

    def load_pyg(self, layer: nn.Module) -> Self:
        """Copies the weights of PyG's `HeteroConv` with the same edge types; returns this layer.

        Raises:
            ValueError: if edge types or the reduction differ.
            TypeError: if a layer has no counterpart.
        """
        theirs: Any = layer
        found = list(theirs.convs.keys())
        if set(found) != set(self.edge_types) or theirs.aggr != self.reduce:
            raise ValueError(
                f"HeteroConv: edge types are {list(self.edge_types)} and reduce is "
                f"{self.reduce!r} here, but {found} and {theirs.aggr!r} in PyG's"
            )
        for kind, conv in zip(self.edge_types, self.convs, strict=True):
            self._layer(conv, kind).load_pyg(theirs.convs[kind])
        return self

    def to_pyg(self) -> nn.Module:
        """Returns PyG's `HeteroConv` with the same layers and copied weights.

        Raises:
            MissingExtraError: if torch_geometric is not installed.
        """
        library = needs("torch_geometric.nn", "HeteroConv.to_pyg", "pyg")
        made = {
            kind: self._layer(conv, kind).to_pyg()
            for kind, conv in zip(self.edge_types, self.convs, strict=True)
        }
        return library.HeteroConv(made, aggr=self.reduce)  # type: ignore[no-any-return]

    def _layer(self, conv: nn.Module, kind: EdgeType) -> Layer:
        if not isinstance(conv, Layer):
            raise TypeError(f"HeteroConv: the layer of {kind} is no layer of gnnlab: {conv}")
        return conv

    def extra_repr(self) -> str:
        """Returns the edge types in the order of the layers."""
        kinds = ", ".join("-".join(kind) for kind in self.edge_types)
        return f"edge_types=[{kinds}], reduce={self.reduce!r}"
