"""GATConv: attention from one learned number per end point."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._attention import HeadedLayer, matrix
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import gat_aggregate

__all__ = ["GATConv"]


class GATConv(HeadedLayer):
    r"""Averages neighbours by attention whose scores add one number from each end.

    $$ h_i = \sum_{j \in \mathcal{N}(i) \cup \{i\}} \alpha_{ji} W_1 x_j + b, \qquad
       \alpha_{ji} = \operatorname*{softmax}_{j}\,
       \mathrm{LeakyReLU}\bigl(a_1^\top W_1 x_j + a_2^\top W_2 x_i + a_3^\top W_3 e_{ji}\bigr) $$

    per head; W_2 is W_1 unless the layer is bipartite. Scores, softmax and sum are one kernel: no
    array of messages is made.

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
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, edge_dim) or None.
        returns: (N, heads * out_dim), (N, out_dim) without concat; dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import GATConv
        >>> conv = GATConv(16, 8, heads=4)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Velickovic et al., ICLR 2018, arXiv:1710.10903, eq. (3) and (4). Differs from it in:
    edge features are allowed.
    """

    citation: ClassVar[str] = """@inproceedings{velickovic2018graph,
  title     = {Graph Attention Networks},
  author    = {Veli{\\v{c}}kovi{\\'c}, Petar and Cucurull, Guillem and Casanova, Arantxa and
               Romero, Adriana and Li{\\`o}, Pietro and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations},
  year      = {2018},
  note      = {arXiv:1710.10903}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "loop", "attention")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "weight": "lin.weight",
        "weight_src": "lin_src.weight",
        "weight_dst": "lin_dst.weight",
        "weight_edge": "lin_edge.weight",
        "att_src": "att_src",
        "att_dst": "att_dst",
        "att_edge": "att_edge",
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
        bias: bool = True,
    ) -> None:
        super().__init__(
            in_dim, out_dim, heads, concat, edge_dim, negative_slope, dropout, self_loops
        )
        width = heads * out_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (None, None)
        self.weight = matrix(width, None if isinstance(in_dim, tuple) else in_dim)
        self.weight_src, self.weight_dst = matrix(width, src), matrix(width, dst)
        self.weight_edge = matrix(width, edge_dim)
        self.att_src = nn.Parameter(torch.empty(heads, out_dim))
        self.att_dst = nn.Parameter(torch.empty(heads, out_dim))
        has_edges = edge_dim is not None
        self.att_edge = nn.Parameter(torch.empty(heads, out_dim)) if has_edges else None
        self.bias = nn.Parameter(torch.empty(width if concat else out_dim)) if bias else None
        self.reset_parameters()

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        plan, edge_attr, counts = self._looped(given, edge_attr)
        to_src = self.weight if self.weight_src is None else self.weight_src
        assert to_src is not None  # one of the two is always there
        x_src = self._heads(given.x_src, to_src)
        x_dst = x_src
        if self.weight_dst is not None or given.x_dst is not given.x_src:
            to_dst = to_src if self.weight_dst is None else self.weight_dst
            x_dst = self._heads(given.x_dst, to_dst)
        logit = None
        if self.weight_edge is not None and self.att_edge is not None and edge_attr is not None:
            # <a, W e> = <W^T a, e>: no (E, H, D) array.
            towards = (
                self.weight_edge.view(*self.att_edge.shape, -1) * self.att_edge[..., None]
            ).sum(1)
            logit = nn.functional.linear(edge_attr, towards).to(x_src.dtype)
        if counts is not None:
            logit = x_src.new_zeros(plan.num_edges, self.heads) if logit is None else logit
            logit = logit.masked_fill(~counts[:, None], -torch.inf)
        out = gat_aggregate(
            plan,
            x_src,
            (x_src * self.att_src).sum(-1).to(x_src.dtype),
            (x_dst * self.att_dst).sum(-1).to(x_src.dtype),
            logit,
            negative_slope=self.negative_slope,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self._joined(out)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.GATConv(**self._library_arguments())  # type: ignore[no-any-return]
