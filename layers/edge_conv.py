"""EdgeConv: a network on each edge, of a node and the way to its neighbour. On given edges, or on
those to the nearest nodes."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Given, Nodes, prepare
from gnnlab.ops import EdgePlan, gather, knn, knn_graph, scatter, sddmm, spmm

__all__ = ["DynamicEdgeConv", "EdgeConv"]

Reduce = Literal["max", "mean", "sum"]


class EdgeConv(Layer):
    r"""Reduces a network's view of each neighbour: of the node, and of the difference to it.

    $$ h_i = \operatorname*{reduce}_{j \in \mathcal{N}(i)} \mathrm{net}([x_i,\; x_j - x_i]) $$

    A first linear map of the network is split, A x_i + B (x_j - x_i) = (A - B) x_i + B x_j, and
    done once per node. A network that is nothing else needs no array of messages at all: what x_i
    adds is the same for all neighbours. Differences are then taken between maps of x, so centre
    positions that are large against the way to their neighbours.

    Args:
        net: from (E, 2 F) to (E, F').
        reduce: "max", "mean" or "sum".

    Shapes:
        x: (N, F) float, or a pair (N, F), (M, F); edges: (2, E) int64, `Graph` or `EdgePlan`.
        returns: (N, F'), or (M, F') for a pair. Without neighbours h is 0.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import EdgeConv
        >>> conv = EdgeConv(torch.nn.Linear(2 * 16, 32))
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Wang et al., ACM TOG 2019, arXiv:1801.07829, eq. (7) and (8).
    """

    citation: ClassVar[str] = """@article{wang2019dynamic,
  title   = {Dynamic Graph {CNN} for Learning on Point Clouds},
  author  = {Wang, Yue and Sun, Yongbin and Liu, Ziwei and Sarma, Sanjay E. and Bronstein, Michael
             M. and Solomon, Justin M.},
  journal = {ACM Transactions on Graphics},
  year    = {2019},
  note    = {arXiv:1801.07829}
}"""
    takes = frozenset({"bipartite"})
    picture = ("max", "network")
    _pyg_weights: ClassVar[dict[str, str]] = {"net.": "nn."}
    _pyg_options: ClassVar[dict[str, str]] = {"reduce": "aggr"}

    def __init__(self, net: nn.Module, *, reduce: Reduce = "max") -> None:
        super().__init__()
        self.net = net
        self.reduce = _known("EdgeConv", reduce)

    def forward(self, x: Nodes, edges: Edges) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges)
        return _convolve(self.net, given, self.reduce)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.EdgeConv(  # type: ignore[no-any-return]
            copy.deepcopy(self.net), aggr=self.reduce
        )

    def extra_repr(self) -> str:
        """Returns the reduction."""
        return f"reduce={self.reduce!r}"


class DynamicEdgeConv(Layer):
    r"""Joins each node with those nearest to it in feature space, and applies `EdgeConv`.

    $$ h_i = \operatorname*{reduce}_{j \in \mathrm{kNN}(x_i)} \mathrm{net}([x_i,\; x_j - x_i]) $$

    The k nearest are those of `gnnlab.ops.knn_graph` with ``loop=True``: a node is one of its own,
    as in the paper's code and in PyG. They are found anew at every call, and are not
    differentiated. A graph with fewer than k nodes has them all as neighbours, so that the number
    of edges depends on the data: ``torch.compile`` splits at the search.

    Args:
        net: from (E, 2 F) to (E, F').
        k: number of neighbours.
        reduce: "max", "mean" or "sum".

    Shapes:
        x: (N, F) float, or a pair (N, F), (M, F): then sources and targets differ.
        batch: the graph of each node, (N,) int64; a pair (N,), (M,) if x is one. None: one graph.
        returns: (N, F'), or (M, F') for a pair. Without neighbours h is 0.

    Raises:
        ValueError: if `k` is below 1, shapes do not fit, or a feature is NaN or infinite.

    Example:
        >>> import torch
        >>> from gnnlab.layers import DynamicEdgeConv
        >>> conv = DynamicEdgeConv(torch.nn.Linear(2 * 3, 32), 8)
        >>> conv(torch.randn(20, 3), torch.arange(20) // 10).shape
        torch.Size([20, 32])

    Reference: Wang et al., ACM TOG 2019, arXiv:1801.07829, section 3.2 and eq. (7), (8).
    """

    citation: ClassVar[str] = EdgeConv.citation
    takes = frozenset({"bipartite"})
    compiles: ClassVar[bool] = False
    picture = ("max", "network", "nearest")
    _pyg_weights: ClassVar[dict[str, str]] = {"net.": "nn."}
    _pyg_options: ClassVar[dict[str, str]] = {"reduce": "aggr", "k": "k"}

    def __init__(self, net: nn.Module, k: int, *, reduce: Reduce = "max") -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"DynamicEdgeConv: k must be at least 1, got {k}")
        self.net = net
        self.k = k
        self.reduce = _known("DynamicEdgeConv", reduce)

    def forward(self, x: Nodes, batch: Tensor | tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Returns h, one row per target."""
        if isinstance(x, Tensor):
            if isinstance(batch, tuple):
                raise ValueError("DynamicEdgeConv: batch is a pair, but x is not")
            edges = knn_graph(x, self.k, batch, loop=True)
        else:
            if isinstance(batch, Tensor):
                raise ValueError("DynamicEdgeConv: x is a pair, so batch must be one too")
            edges = knn(*x, self.k, *(batch or (None, None)))
        return _convolve(self.net, prepare(self, x, edges), self.reduce)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.DynamicEdgeConv(  # type: ignore[no-any-return]
            copy.deepcopy(self.net), self.k, aggr=self.reduce
        )

    def extra_repr(self) -> str:
        """Returns the number of neighbours and the reduction."""
        return f"k={self.k}, reduce={self.reduce!r}"


def _known(name: str, reduce: Reduce) -> Reduce:
    if reduce not in ("max", "mean", "sum"):
        raise ValueError(f'{name}: unknown reduce "{reduce}". Known: max, mean, sum.')
    return reduce


def _convolve(net: nn.Module, given: Given, reduce: Reduce) -> Tensor:
    """Returns the reduction of net([x_i, x_j - x_i]) over the edges."""
    plan, size = given.plan, given.x_src.shape[1]
    first, rest = split_first(net)
    if first is None or first.in_features != 2 * size:
        own = gather(given.x_dst, plan.dst, plan=plan)
        other = gather(given.x_src, plan.src, plan=plan.T)
        messages = net(torch.cat([own, other - own], -1))
        return scatter(messages, plan.dst, plan.num_dst, reduce=reduce, plan=plan)
    to_own, to_other = first.weight[:, :size], first.weight[:, size:]
    own = linear(given.x_dst, to_own - to_other, first.bias)
    other = linear(given.x_src, to_other)
    if not rest:
        return _shifted(plan, spmm(plan, other, reduce=reduce), own, reduce)
    messages = sddmm(plan, own, other, op="add")
    for module in rest:
        messages = module(messages)
    return scatter(messages, plan.dst, plan.num_dst, reduce=reduce, plan=plan)


def split_first(net: nn.Module) -> tuple[nn.Linear | None, list[nn.Module]]:
    """Returns the linear map that a network begins with, and what follows; None without one."""
    parts = list(net) if type(net) is nn.Sequential else [net]
    first = parts[0] if parts else None
    return (first, parts[1:]) if type(first) is nn.Linear else (None, parts)


def _shifted(plan: EdgePlan, reduced: Tensor, own: Tensor, reduce: str) -> Tensor:
    """Returns the reduction of own_i + q_j from that of q_j."""
    if reduce == "sum":
        return reduced + own * plan.counts.unsqueeze(1)
    return reduced + torch.where((plan.counts > 0).unsqueeze(1), own, 0.0)
