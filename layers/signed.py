"""SignedConv: friends and enemies, taken together by balance theory."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import EdgePlan, spmm

__all__ = ["SignedConv"]


class SignedConv(Layer):
    r"""Keeps two rows per node, one for its friends and one for its enemies.

    The first layer reads plain features x, through positive and through negative edges:

    $$ h^+_i = W^+ \operatorname*{mean}_{j \in \mathcal{N}^+(i)} x_j + R^+ x_i + b^+, \qquad
       h^-_i = W^- \operatorname*{mean}_{j \in \mathcal{N}^-(i)} x_j + R^- x_i + b^- $$

    Later layers read [x^+, x^-]. A friend's friend and an enemy's enemy are friends:

    $$ h^\pm_i = W^\pm \Bigl[ \operatorname*{mean}_{j \in \mathcal{N}^+(i)} x^\pm_j,\;
       \operatorname*{mean}_{j \in \mathcal{N}^-(i)} x^\mp_j \Bigr] + R^\pm x^\pm_i + b^\pm $$

    Rows go along each set of edges once, before or after the linear maps, whichever is narrower.

    Args:
        in_dim: size of x, or, in later layers, of x^+ and of x^-.
        out_dim: size of h^+ and of h^-.
        first: whether this is the first layer.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, (N, 2 * in_dim) for later layers; or a pair for sources and targets;
        pos_edges: (2, P) int64, `Graph` or `EdgePlan`; neg_edges: (2, Q) likewise.
        returns: (N, 2 * out_dim): [h^+, h^-]. A mean over no edges is 0.

    Raises:
        ValueError: if shapes do not fit, or edges refer to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import SignedConv
        >>> pos_edges, neg_edges = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2], [0]])
        >>> h = SignedConv(16, 8, first=True)(torch.randn(3, 16), pos_edges, neg_edges)
        >>> SignedConv(8, 4)(h, pos_edges, neg_edges).shape
        torch.Size([3, 8])

    Reference: Derr et al., ICDM 2018, arXiv:1808.06354, eq. (3) to (6).
    """

    citation: ClassVar[str] = """@inproceedings{derr2018signed,
  title     = {Signed Graph Convolutional Network},
  author    = {Derr, Tyler and Ma, Yao and Tang, Jiliang},
  booktitle = {IEEE International Conference on Data Mining},
  year      = {2018},
  note      = {arXiv:1808.06354}
}"""
    takes = frozenset({"bipartite", "edge_sets"})
    picture = ("mean", "root", "signs")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "lin_pos.": "lin_pos_l.",
        "lin_neg.": "lin_neg_l.",
        "lin_pos_root.": "lin_pos_r.",
        "lin_neg_root.": "lin_neg_r.",
    }
    _pyg_options: ClassVar[dict[str, str]] = {"first": "first_aggr"}

    def __init__(
        self, in_dim: int, out_dim: int, *, first: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.first = in_dim, out_dim, first
        around = in_dim if first else 2 * in_dim
        self.lin_pos = nn.Linear(around, out_dim, bias=False)
        self.lin_neg = nn.Linear(around, out_dim, bias=False)
        self.lin_pos_root = nn.Linear(in_dim, out_dim, bias=bias)
        self.lin_neg_root = nn.Linear(in_dim, out_dim, bias=bias)

    def reset_parameters(self) -> None:
        """Draws all maps anew, as `nn.Linear` does."""
        for lin in (self.lin_pos, self.lin_neg, self.lin_pos_root, self.lin_neg_root):
            lin.reset_parameters()

    def forward(self, x: Nodes, pos_edges: Edges, neg_edges: Edges) -> Tensor:
        """Returns [h^+, h^-], one row per target."""
        width = self.in_dim if self.first else 2 * self.in_dim
        given = prepare(self, x, pos_edges, in_dim=width)
        pos, neg = given.plan, prepare(self, x, neg_edges, in_dim=width).plan
        x_src, x_dst = given.x_src, given.x_dst
        if self.first:
            h_pos = _mean_map(pos, x_src, self.lin_pos.weight)
            h_neg = _mean_map(neg, x_src, self.lin_neg.weight)
            h = torch.cat([h_pos, h_neg], -1)
            own_pos = own_neg = x_dst
        else:
            # [friends, enemies] of each map; together a block matrix on [x^+, x^-].
            friends, enemies = self.lin_pos.weight.chunk(2, 1)
            friends_neg, enemies_neg = self.lin_neg.weight.chunk(2, 1)
            h = _mean_map(pos, x_src, _diagonal(friends, friends_neg))
            across = _mean_map(neg, x_src, _diagonal(enemies_neg, enemies))
            h = h + across.roll(self.out_dim, -1)  # what came from x^- belongs to h^+
            own_pos, own_neg = x_dst.chunk(2, 1)
        return h + torch.cat([self.lin_pos_root(own_pos), self.lin_neg_root(own_neg)], -1)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.SignedConv(  # type: ignore[no-any-return]
            self.in_dim, self.out_dim, self.first, bias=self.lin_pos_root.bias is not None
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = ", first=True" * self.first + ", bias=False" * (self.lin_pos_root.bias is None)
        return f"{self.in_dim}, {self.out_dim}{options}"


def _mean_map(plan: EdgePlan, x: Tensor, weight: Tensor) -> Tensor:
    """Returns ``mean(x) @ weight.T``; the narrower rows go along edges."""
    if weight.shape[0] < x.shape[1]:
        return spmm(plan, linear(x, weight), reduce="mean")
    return linear(spmm(plan, x, reduce="mean"), weight)


def _diagonal(upper: Tensor, lower: Tensor) -> Tensor:
    """Returns the block matrix with these two on its diagonal."""
    zeros = torch.zeros_like(upper)
    return torch.cat([torch.cat([upper, zeros], 1), torch.cat([zeros, lower], 1)])
