"""TransformerConv: scaled dot-product attention over edges."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from gnnlab.layers._attention import HeadedLayer
from gnnlab.layers._message_passing import Edges, Nodes, edges_as_sources, prepare
from gnnlab.ops import EdgePlan, attention_aggregate, edge_softmax, gather, scatter, sddmm, spmm

__all__ = ["TransformerConv"]


class TransformerConv(HeadedLayer):
    r"""Averages neighbours' values by scaled dot products of queries and keys.

    $$ h_i = W_1 x_i + \sum_{j \in \mathcal{N}(i)} \alpha_{ji} (W_2 x_j + W_5 e_{ji}), \qquad
       \alpha_{ji} = \operatorname*{softmax}_{j}\,
       \frac{(W_3 x_i)^\top (W_4 x_j + W_5 e_{ji})}{\sqrt{D}} $$

    per head of D numbers; every map but W_5 has a bias. With `beta` the two terms are mixed by a
    learned gate, h = g W_1 x + (1 - g) m with g = sigmoid(w^T [m, W_1 x, m - W_1 x]). Without edge
    features and dropout scores, softmax and sum are one kernel.

    Args:
        in_dim: size of `x`; a pair for sources and targets.
        out_dim: size of a head, D.
        heads: number of heads.
        concat: whether heads are laid side by side; else they are averaged.
        beta: whether the terms are mixed by the gate; needs `root`.
        edge_dim: size of the edge features; None: there are none.
        dropout: with which probability an attention weight is dropped while training.
        root: whether the term with W_1 is there.
        bias: whether the maps have a bias.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, edge_dim) or None.
        returns: (N, heads * out_dim), (N, out_dim) without concat; dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import TransformerConv
        >>> conv = TransformerConv(16, 8, heads=4, beta=True)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Shi et al., IJCAI 2021, arXiv:2009.03509, eq. (3) to (5).
    """

    citation: ClassVar[str] = """@inproceedings{shi2021masked,
  title     = {Masked Label Prediction: Unified Message Passing Model for Semi-Supervised
               Classification},
  author    = {Shi, Yunsheng and Huang, Zhengjie and Feng, Shikun and Zhong, Hui and Wang, Wenjing
               and Sun, Yu},
  booktitle = {Proceedings of the International Joint Conference on Artificial Intelligence},
  year      = {2021},
  note      = {arXiv:2009.03509}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "root", "attention")
    _pyg_weights: ClassVar[dict[str, str]] = {
        f"lin_{name}.": f"lin_{theirs}."
        for name, theirs in (
            ("query", "query"),
            ("key", "key"),
            ("value", "value"),
            ("edge", "edge"),
            ("root", "skip"),
            ("beta", "beta"),
        )
    }
    _pyg_options: ClassVar[dict[str, str]] = {"heads": "heads", "concat": "concat"}

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        *,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        edge_dim: int | None = None,
        dropout: float = 0.0,
        root: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__(in_dim, out_dim, heads, concat, edge_dim, 0.0, dropout, False)
        if beta and not root:
            raise ValueError("TransformerConv: beta mixes two terms, and root=False leaves one")
        width, total = heads * out_dim, heads * out_dim if concat else out_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        self.lin_query = nn.Linear(dst, width, bias=bias)
        self.lin_key = nn.Linear(src, width, bias=bias)
        self.lin_value = nn.Linear(src, width, bias=bias)
        self.lin_edge = None if edge_dim is None else nn.Linear(edge_dim, width, bias=False)
        self.lin_root = nn.Linear(dst, total, bias=bias) if root else None
        self.lin_beta = nn.Linear(3 * total, 1, bias=False) if beta else None
        self.has_bias = bias
        self.bias = None
        self.reset_parameters()

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        q = self._split(self.lin_query(given.x_dst))
        k = self._split(self.lin_key(given.x_src))
        v = self._split(self.lin_value(given.x_src))
        if self.lin_edge is None and not (self.training and self.dropout):
            h = attention_aggregate(given.plan, q, k, v)
        else:
            h = self._composed(given.plan, q, k, v, edge_attr)
        h = self._joined(h)
        if self.lin_root is None:
            return h
        root: Tensor = self.lin_root(given.x_dst)
        if self.lin_beta is None:
            return h + root
        gate = self.lin_beta(torch.cat([h, root, h - root], -1)).sigmoid()
        out: Tensor = gate * root + (1 - gate) * h
        return out

    def _composed(
        self, plan: EdgePlan, q: Tensor, k: Tensor, v: Tensor, e: Tensor | None
    ) -> Tensor:
        """Attention with edge features or dropout: shares of the edges are made."""
        q = q * self.out_dim**-0.5
        score = sddmm(plan, q, k, op="dot")
        if e is None or self.lin_edge is None:
            share = self._shares(plan, score)
            return spmm(plan, v, share)
        weight = self.lin_edge.weight.view(self.heads, self.out_dim, -1)
        if e.shape[1] > self.out_dim:
            e = self._split(self.lin_edge(e))
            share = self._shares(plan, score + (gather(q, plan.dst, plan=plan) * e).sum(-1))
            mapped = scatter(e * share[..., None], plan.dst, plan.num_dst, plan=plan)
            return spmm(plan, v, share) + mapped
        # Few edge features: <q, W e> = <W^T q, e>, and sum_e a W e = W sum_e a e. W acts on nodes.
        from_edges = edges_as_sources(plan)
        towards = torch.einsum("nhd,hdc->nhc", q, weight).unbind(1)
        dots = [sddmm(from_edges, t.contiguous(), e.to(t.dtype)) for t in towards]
        share = self._shares(plan, score + torch.stack(dots, 1))
        sums = [spmm(from_edges, e.to(a.dtype), a) for a in share.unbind(1)]
        mapped = torch.einsum("nhc,hdc->nhd", torch.stack(sums, 1), weight.to(share.dtype))
        return spmm(plan, v, share) + mapped

    def _shares(self, plan: EdgePlan, score: Tensor) -> Tensor:
        share = edge_softmax(plan, score)
        return dropout(share, self.dropout) if self.training and self.dropout else share

    def _pyg_ignored(self) -> tuple[str, ...]:
        return () if self.lin_root is not None else ("lin_skip.",)

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.TransformerConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            heads=self.heads,
            concat=self.concat,
            beta=self.lin_beta is not None,
            dropout=self.dropout,
            edge_dim=self.edge_dim,
            bias=self.has_bias,
            root_weight=self.lin_root is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", heads={self.heads}" * (self.heads != 1) + ", concat=False" * (not self.concat)
        options += ", beta=True" * (self.lin_beta is not None)
        options += f", edge_dim={self.edge_dim}" * (self.edge_dim is not None)
        options += f", dropout={self.dropout:g}" * (self.dropout > 0)
        options += ", root=False" * (self.lin_root is None)
        return f"{self.in_dim}, {self.out_dim}{options}" + ", bias=False" * (not self.has_bias)
