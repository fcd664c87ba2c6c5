"""EdgeConv: a network on each edge, of a node and the way to its neighbour."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import EdgePlan, gather, scatter, sddmm, spmm

__all__ = ["EdgeConv"]


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

    def __init__(self, net: nn.Module, *, reduce: Literal["max", "mean", "sum"] = "max") -> None:
        super().__init__()
        if reduce not in ("max", "mean", "sum"):
            raise ValueError(f'EdgeConv: unknown reduce "{reduce}". Known: max, mean, sum.')
        self.net = net
        self.reduce: Literal["max", "mean", "sum"] = reduce

    def forward(self, x: Nodes, edges: Edges) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges)
        plan, size = given.plan, given.x_src.shape[1]
        first, rest = split_first(self.net)
        if first is None or first.in_features != 2 * size:
            own = gather(given.x_dst, plan.dst, plan=plan)
            other = gather(given.x_src, plan.src, plan=plan.T)
            messages = self.net(torch.cat([own, other - own], -1))
            return scatter(messages, plan.dst, plan.num_dst, reduce=self.reduce, plan=plan)
        to_own, to_other = first.weight[:, :size], first.weight[:, size:]
        own = linear(given.x_dst, to_own - to_other, first.bias)
        other = linear(given.x_src, to_other)
        if not rest:
            return _shifted(plan, spmm(plan, other, reduce=self.reduce), own, self.reduce)
        messages = sddmm(plan, own, other, op="add")
        for module in rest:
            messages = module(messages)
        return scatter(messages, plan.dst, plan.num_dst, reduce=self.reduce, plan=plan)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.EdgeConv(  # type: ignore[no-any-return]
            copy.deepcopy(self.net), aggr=self.reduce
        )

    def extra_repr(self) -> str:
        """Returns the reduction."""
        return f"reduce={self.reduce!r}"


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
