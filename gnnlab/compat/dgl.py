"""DGL's layers with the weights of ours: to compare the two, or to move a model.

DGL's layers take a graph that has the loops a layer wants already, and give heads apart;
`to_dgl` returns a module that is called as ours is, but with a DGL graph of `dgl_graph`.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gnnlab.errors import needs
from gnnlab.graph import Graph
from gnnlab.layers import (
    APPNP,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    NNConv,
    SAGEConv,
    SGConv,
)
from gnnlab.layers._layer import Layer

__all__ = ["DglLayer", "dgl_graph", "to_dgl"]


class DglLayer(nn.Module):
    """A layer of DGL that gives its result in the form of ours: ``layer(graph, x, *more)``."""

    def __init__(self, layer: nn.Module, call: Callable[..., Tensor], loops: bool) -> None:
        super().__init__()
        self.layer = layer
        self.loops = loops
        """Whether the graph needs one loop per node."""
        self._call = call

    def forward(self, graph: Any, x: Any, *more: Tensor) -> Tensor:
        """Returns h, one row per target.

        Args:
            graph: of `dgl_graph`, with loops if `loops` says so.
            x: features of the nodes, or a pair.
            more: features of the edges, for layers that take them.
        """
        return self._call(self.layer, graph, x, *more)


def dgl_graph(edges: Tensor | Graph, num_nodes: int | None = None, *, loops: bool = False) -> Any:
    """Returns the edges as a DGL graph with all formats made.

    Args:
        edges: edge_index, or a graph, which may be bipartite.
        num_nodes: number of nodes; for an edge_index.
        loops: whether every node gets exactly one loop, after the other edges.

    Shapes:
        edges: (2, E) int64.

    Raises:
        MissingExtraError: if dgl is not installed.
        ValueError: for an edge_index without `num_nodes`.
    """
    if isinstance(edges, Tensor):
        if num_nodes is None:
            raise ValueError("dgl_graph needs num_nodes beside an edge_index")
        edges = Graph(edges, num_nodes)
    graph = edges.to_dgl()
    if loops:
        dgl = importlib.import_module("dgl")
        graph = dgl.add_self_loop(dgl.remove_self_loop(graph))
    graph.create_formats_()
    return graph


def to_dgl(layer: Layer) -> DglLayer:
    """Returns DGL's layer of the same equation with copied weights.

    GCN, SAGE (mean, max with `project`), GIN, GINE, GAT, GATv2, EdgeConv of one linear map,
    Chebyshev, APPNP, SGC and NNConv have a counterpart. DGL's PNA and GatedGCN are other equations.
    DGL divides by out-degrees of the sources where we take in-degrees: GCN, SGC, APPNP and
    Chebyshev agree on undirected graphs only.

    Raises:
        MissingExtraError: if dgl is not installed.
        NotImplementedError: if DGL 1.1 has no such layer, or not with these options.

    Example:
        >>> import torch
        >>> from gnnlab.compat.dgl import dgl_graph, to_dgl  # doctest: +SKIP
        >>> theirs = to_dgl(GATConv(5, 3, heads=2))  # doctest: +SKIP
    """
    conv = needs("dgl.nn.pytorch", "to_dgl", "dgl")
    make = _MAKERS.get(type(layer))
    if make is None:
        raise NotImplementedError(f"DGL has no layer with the equation of {type(layer).__name__}")
    return make(conv, layer)


def _refuse(layer: nn.Module, wrong: bool, why: str) -> None:
    if wrong:
        raise NotImplementedError(f"DGL's {type(layer).__name__} knows no {why}")


def _copy(*pairs: tuple[Tensor | None, Tensor | None]) -> None:
    """Copies from ours to theirs, which takes our dtype."""
    with torch.no_grad():
        for theirs, ours in pairs:
            if theirs is not None and ours is not None:
                theirs.data = ours.detach().reshape(theirs.shape).clone()


def _plain(layer: nn.Module, graph: Any, x: Any, *more: Tensor) -> Tensor:
    found: Tensor = layer(graph, x, *more)
    return found


def _flat(layer: nn.Module, graph: Any, x: Any, *more: Tensor) -> Tensor:
    found: Tensor = layer(graph, x, *more)
    return found.flatten(1)


def _mean(layer: nn.Module, graph: Any, x: Any, *more: Tensor) -> Tensor:
    found: Tensor = layer(graph, x, *more)
    return found.mean(1)


def _gcn(conv: Any, layer: GCNConv) -> DglLayer:
    _refuse(layer, not layer.normalize or layer.improved, "improved=True or normalize=False")
    made = conv.GraphConv(
        layer.in_dim,
        layer.out_dim,
        norm="both",
        bias=layer.bias is not None,
        allow_zero_in_degree=True,
    )
    _copy((made.weight, layer.weight.t()), (made.bias, layer.bias))
    return DglLayer(made, _plain, layer.self_loops)


def _sage(conv: Any, layer: SAGEConv) -> DglLayer:
    kinds = {("mean", False): "mean", ("max", True): "pool"}
    kind = kinds.get((layer.reduce, layer.lin_project is not None))
    _refuse(
        layer,
        kind is None or layer.normalize or layer.weight_root is None,
        "options but mean, or max with project=True",
    )
    made = conv.SAGEConv(layer.in_dim, layer.out_dim, kind, bias=layer.bias is not None)
    _copy(
        (made.fc_neigh.weight, layer.weight),
        (made.fc_self.weight, layer.weight_root),
        (made.fc_self.bias, layer.bias),
    )
    if layer.lin_project is not None:
        made.fc_pool = copy.deepcopy(layer.lin_project)
    return DglLayer(made, _plain, False)


def _gin(conv: Any, layer: GINConv) -> DglLayer:
    made = conv.GINConv(copy.deepcopy(layer.net), "sum", learn_eps=layer.train_eps)
    _copy((made.eps, layer.eps))
    return DglLayer(made, _plain, False)


def _gine(conv: Any, layer: GINEConv) -> DglLayer:
    _refuse(layer, layer.lin_edge is not None, "map of edge features")
    made = conv.GINEConv(copy.deepcopy(layer.net), learn_eps=layer.train_eps)
    _copy((made.eps, layer.eps))
    return DglLayer(made, _plain, False)


def _gat(conv: Any, layer: GATConv) -> DglLayer:
    _refuse(layer, layer.edge_dim is not None, "edge features")
    made = conv.GATConv(
        layer.in_dim,
        layer.out_dim,
        layer.heads,
        negative_slope=layer.negative_slope,
        attn_drop=layer.dropout,
        bias=layer.bias is not None and layer.concat,
        allow_zero_in_degree=True,
    )
    _refuse(layer, layer.bias is not None and not layer.concat, "bias after the mean of heads")
    if layer.weight is None:
        _copy(
            (made.fc_src.weight, layer.weight_src),
            (made.fc_dst.weight, layer.weight_dst),
        )
    else:
        _copy((made.fc.weight, layer.weight))
    _copy((made.attn_l, layer.att_src), (made.attn_r, layer.att_dst), (made.bias, layer.bias))
    return DglLayer(made, _flat if layer.concat else _mean, layer.self_loops)


def _gatv2(conv: Any, layer: GATv2Conv) -> DglLayer:
    _refuse(layer, layer.edge_dim is not None, "edge features")
    _refuse(layer, layer.bias is not None, "bias behind the sum; it has one in the maps only")
    made = conv.GATv2Conv(
        layer.in_dim,
        layer.out_dim,
        layer.heads,
        negative_slope=layer.negative_slope,
        attn_drop=layer.dropout,
        bias=False,
        share_weights=layer.share_weights,
        allow_zero_in_degree=True,
    )
    _copy(
        (made.fc_src.weight, layer.lin_src.weight),
        (made.fc_dst.weight, layer.lin_dst.weight),
        (made.attn, layer.att),
    )
    return DglLayer(made, _flat if layer.concat else _mean, layer.self_loops)


def _edge_conv(conv: Any, layer: EdgeConv) -> DglLayer:
    net = layer.net
    if not isinstance(net, nn.Linear) or layer.reduce != "max":
        raise NotImplementedError(
            "DGL's EdgeConv knows no network but one linear map, and no reduction but max"
        )
    width = net.in_features // 2
    made = conv.EdgeConv(width, net.out_features, allow_zero_in_degree=True)
    zero = net.weight.new_zeros(net.out_features)
    _copy(
        (made.phi.weight, net.weight[:, :width]),
        (made.theta.weight, -net.weight[:, width:]),  # DGL subtracts the source from the target
        (made.phi.bias, zero if net.bias is None else net.bias),
        (made.theta.bias, zero),
    )
    return DglLayer(made, _plain, False)


def _cheb(conv: Any, layer: ChebConv) -> DglLayer:
    made = conv.ChebConv(
        layer.in_dim,
        layer.out_dim,
        len(layer.lins),
        activation=None,
        bias=layer.bias is not None,
    )
    _copy(
        (made.linear.weight, torch.cat(list(layer.lins.parameters()), 1)),
        (made.linear.bias, layer.bias),
    )

    def call(inner: nn.Module, graph: Any, x: Tensor) -> Tensor:
        return _plain(inner, graph, x, x.new_full((graph.batch_size,), 2.0))

    return DglLayer(made, call, False)


def _appnp(conv: Any, layer: APPNP) -> DglLayer:
    _refuse(layer, not layer.normalize, "normalize=False")
    return DglLayer(
        conv.APPNPConv(layer.steps, layer.alpha, layer.dropout), _plain, layer.self_loops
    )


def _sgc(conv: Any, layer: SGConv) -> DglLayer:
    made = conv.SGConv(
        layer.in_dim,
        layer.out_dim,
        layer.steps,
        bias=layer.lin.bias is not None,
        allow_zero_in_degree=True,
    )
    made.fc = copy.deepcopy(layer.lin)
    return DglLayer(made, _plain, layer.self_loops)


def _nnconv(conv: Any, layer: NNConv) -> DglLayer:
    made = conv.NNConv(
        layer.in_dim,
        layer.out_dim,
        copy.deepcopy(layer.net),
        layer.reduce,
        residual=layer.weight is not None,
        bias=layer.bias is not None,
    )
    if layer.weight is not None:
        made.res_fc = nn.Linear(layer.weight.shape[1], layer.out_dim, bias=False)
        _copy((made.res_fc.weight, layer.weight))
    _copy((made.bias, layer.bias))
    return DglLayer(made, _plain, False)


_MAKERS: dict[type[nn.Module], Callable[[Any, Any], DglLayer]] = {
    APPNP: _appnp,
    ChebConv: _cheb,
    EdgeConv: _edge_conv,
    GATConv: _gat,
    GATv2Conv: _gatv2,
    GCNConv: _gcn,
    GINConv: _gin,
    GINEConv: _gine,
    NNConv: _nnconv,
    SAGEConv: _sage,
    SGConv: _sgc,
}
