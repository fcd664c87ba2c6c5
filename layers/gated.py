"""ResGatedGraphConv: neighbours through learned gates, as in GatedGCN."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import gated_aggregate, gather, scatter, sddmm

__all__ = ["ResGatedGraphConv"]


class ResGatedGraphConv(Layer):
    r"""Adds neighbours' values, each feature through a gate of both ends, to a map of the node.

    $$ h_i = W_1 x_i + \sum_{j \in \mathcal{N}(i)} \eta_{ji} \odot W_2 [x_j, e_{ji}] + b, \qquad
       \eta_{ji} = \sigma(W_3 [x_i, e_{ji}] + W_4 [x_j, e_{ji}]) $$

    W_2, W_3 and W_4 have biases. They are applied to nodes and edges apart, never to [x, e].

    Args:
        in_dim: size of `x`; a pair for sources and targets.
        out_dim: size of the output.
        edge_dim: size of the edge features; None: there are none.
        root: whether the term with W_1 is there.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, edge_dim) or None.
        returns: (N, out_dim), or (M, out_dim) for a pair.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import ResGatedGraphConv
        >>> conv = ResGatedGraphConv(16, 32)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Bresson and Laurent, arXiv:1711.07553, eq. (11). Differs from it in: edge
    features are allowed, and the activation is left to the caller.
    """

    citation: ClassVar[str] = """@article{bresson2017residual,
  title   = {Residual Gated Graph {ConvNets}},
  author  = {Bresson, Xavier and Laurent, Thomas},
  journal = {arXiv:1711.07553},
  year    = {2017}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "root", "gate")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "lin_key.": "lin_key.",
        "lin_query.": "lin_query.",
        "lin_value.": "lin_value.",
        "weight": "lin_skip.weight",
        "bias": "bias",
    }

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        *,
        edge_dim: int | None = None,
        root: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.edge_dim = in_dim, out_dim, edge_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        more = edge_dim or 0
        self.lin_key = nn.Linear(dst + more, out_dim)
        self.lin_query = nn.Linear(src + more, out_dim)
        self.lin_value = nn.Linear(src + more, out_dim)
        self.weight = nn.Parameter(torch.empty(out_dim, dst)) if root else None
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all maps anew, as `nn.Linear` does, and sets b to 0."""
        for lin in (self.lin_key, self.lin_query, self.lin_value):
            lin.reset_parameters()
        if self.weight is not None:
            nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        plan, x_src, x_dst = given.plan, given.x_src, given.x_dst
        key, query = _part(self.lin_key, x_dst), _part(self.lin_query, x_src)
        value = _part(self.lin_value, x_src)
        if edge_attr is None:
            h = gated_aggregate(plan, key, query, value)
        else:
            n_key, n_src = x_dst.shape[1], x_src.shape[1]
            both = self.lin_key.weight[:, n_key:] + self.lin_query.weight[:, n_src:]
            gate = sddmm(plan, key, query, op="add") + linear(edge_attr, both)
            value = gather(value, plan.src, plan=plan.T)
            value = value + linear(edge_attr, self.lin_value.weight[:, n_src:])
            h = scatter(gate.sigmoid() * value, plan.dst, plan.num_dst, plan=plan)
        if self.weight is not None:
            h = h + linear(x_dst, self.weight)
        return h if self.bias is None else h + self.bias

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.ResGatedGraphConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            edge_dim=self.edge_dim,
            root_weight=self.weight is not None,
            bias=self.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", edge_dim={self.edge_dim}" * (self.edge_dim is not None)
        return f"{self.in_dim}, {self.out_dim}{options}" + ", root=False" * (self.weight is None)


def _part(lin: nn.Linear, x: Tensor) -> Tensor:
    """Returns what the features of nodes contribute to ``lin([x, e])``, with its bias."""
    return linear(x, lin.weight[:, : x.shape[1]], lin.bias)
