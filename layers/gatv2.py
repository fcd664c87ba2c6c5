"""GATv2Conv: attention that ranks neighbours differently for each node."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from gnnlab.layers._attention import HeadedLayer, matrix
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import edge_softmax, gatv2_aggregate, sddmm, spmm

__all__ = ["GATv2Conv"]


class GATv2Conv(HeadedLayer):
    r"""Averages neighbours by attention computed from the activated sum of both ends.

    $$ h_i = \sum_{j \in \mathcal{N}(i) \cup \{i\}} \alpha_{ji} W_1 x_j + b, \qquad
       \alpha_{ji} = \operatorname*{softmax}_{j}\; a^\top \mathrm{LeakyReLU}(W_1 x_j + c_1
       + W_2 x_i + c_2 + W_3 e_{ji}) $$

    per head. Without dropout scores, softmax and sum are one kernel.

    Args:
        in_dim: size of `x`; a pair for sources and targets.
        out_dim: size of a head.
        heads: number of heads.
        concat: whether heads are laid side by side; else they are averaged.
        edge_dim: size of the edge features; None: there are none.
        negative_slope: of LeakyReLU.
        dropout: with which probability an attention weight is dropped while training.
        self_loops: whether every node attends to itself; a loop's edge features are the mean of the
            node's in-edges. Loops among the edges are replaced.
        share_weights: whether W_2 is W_1.
        bias: whether to add b, c_1 (to messages as well) and c_2.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, edge_dim) or None.
        returns: (N, heads * out_dim), (N, out_dim) without concat; dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import GATv2Conv
        >>> conv = GATv2Conv(16, 8, heads=4, edge_dim=2)
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> conv(torch.randn(4, 16), edges, torch.randn(3, 2)).shape
        torch.Size([4, 32])

    Reference: Brody et al., ICLR 2022, arXiv:2105.14491, eq. (7).
    """

    citation: ClassVar[str] = """@inproceedings{brody2022how,
  title     = {How Attentive are Graph Attention Networks?},
  author    = {Brody, Shaked and Alon, Uri and Yahav, Eran},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
  note      = {arXiv:2105.14491}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "loop", "attention")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "lin_src.": "lin_l.",
        "lin_dst.": "lin_r.",
        "weight_edge": "lin_edge.weight",
        "att": "att",
        "bias": "bias",
    }

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        *,
        heads: int = 1,
        concat: bool = True,
        edge_dim: int | None = None,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        self_loops: bool = True,
        share_weights: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_dim, out_dim, heads, concat, edge_dim, negative_slope, dropout, self_loops
        )
        width = heads * out_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        if share_weights and src != dst:
            raise ValueError(f"GATv2Conv: share_weights needs equal sizes, got in_dim={in_dim}")
        self.share_weights = share_weights
        self.lin_src = nn.Linear(src, width, bias=bias)
        self.lin_dst = self.lin_src if share_weights else nn.Linear(dst, width, bias=bias)
        self.weight_edge = matrix(width, edge_dim)
        self.att = nn.Parameter(torch.empty(heads, out_dim))
        self.bias = nn.Parameter(torch.empty(width if concat else out_dim)) if bias else None
        self.reset_parameters()

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        plan, edge_attr, counts = self._looped(given, edge_attr)
        x_src = self._split(self.lin_src(given.x_src))
        same = self.share_weights and not given.is_bipartite
        x_dst = x_src if same else self._split(self.lin_dst(given.x_dst))
        e = None
        if self.weight_edge is not None and edge_attr is not None:
            e = self._heads(edge_attr, self.weight_edge)
        drops = self.training and self.dropout > 0
        if not drops and counts is None:
            att = self.att.to(x_src.dtype)
            out = gatv2_aggregate(plan, x_src, x_dst, att, e, negative_slope=self.negative_slope)
            return self._joined(out)
        total = sddmm(plan, x_dst, x_src, op="add")
        total = total if e is None else total + e
        score = (leaky_relu(total, self.negative_slope) * self.att).sum(-1)
        if counts is not None:
            score = score.masked_fill(~counts[:, None], -torch.inf)
        share = edge_softmax(plan, score)
        return self._joined(spmm(plan, x_src, dropout(share, self.dropout, drops)))

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.GATv2Conv(  # type: ignore[no-any-return]
            share_weights=self.share_weights, **self._library_arguments()
        )
