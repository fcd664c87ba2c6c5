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
            (h_pos,) = _mean_maps(pos, x_src, [self.lin_pos.weight])
            (h_neg,) = _mean_maps(neg, x_src, [self.lin_neg.weight])
            own_pos = own_neg = x_dst
        else:
            friends, enemies = self.lin_pos.weight.chunk(2, 1)
            friends_neg, enemies_neg = self.lin_neg.weight.chunk(2, 1)
            h_pos, h_neg = _mean_maps(pos, x_src, [friends, friends_neg])
            to_neg, to_pos = _mean_maps(neg, x_src, [enemies_neg, enemies])
            h_pos, h_neg = h_pos + to_pos, h_neg + to_neg
            own_pos, own_neg = x_dst.chunk(2, 1)
        h = [h_pos + self.lin_pos_root(own_pos), h_neg + self.lin_neg_root(own_neg)]
        return torch.cat(h, -1)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.SignedConv(  # type: ignore[no-any-return]
            self.in_dim, self.out_dim, self.first, bias=self.lin_pos_root.bias is not None
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = ", first=True" * self.first + ", bias=False" * (self.lin_pos_root.bias is None)
        return f"{self.in_dim}, {self.out_dim}{options}"


def _mean_maps(plan: EdgePlan, x: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Returns ``mean(part) @ weight.T`` for each part of x, of as many columns as its weight.

    All parts go along the edges together, before or after the maps, whichever is narrower.
    """
    out_dim, in_dim = weights[0].shape
    if out_dim < in_dim:
        parts = x.chunk(len(weights), 1)
        mapped = [linear(part, weight) for part, weight in zip(parts, weights, strict=True)]
        return list(spmm(plan, torch.cat(mapped, 1), reduce="mean").chunk(len(weights), 1))
    means = spmm(plan, x, reduce="mean").chunk(len(weights), 1)
    return [linear(part, weight) for part, weight in zip(means, weights, strict=True)]
