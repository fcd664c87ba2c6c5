"""SimpleHGNConv: attention of GAT that also looks at the type of the edge."""

from __future__ import annotations

from typing import ClassVar, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu, normalize

from gnnlab.layers._attention import HeadedLayer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.layers._relations import relations
from gnnlab.ops import edge_softmax, gat_aggregate, gather, sddmm, spmm

__all__ = ["SimpleHGNConv"]


class SimpleHGNConv(HeadedLayer):
    r"""Averages neighbours by attention that adds a learned number for the type of the edge.

    $$ \hat\alpha_{ji} = \operatorname*{softmax}_{j}\, \mathrm{LeakyReLU}\bigl(
       a_1^\top W x_j + a_2^\top W x_i + a_3^\top W_r r_{\psi(ji)} \bigr), \qquad
       \alpha_{ji} = (1 - \beta)\, \hat\alpha_{ji} + \beta\, \alpha'_{ji}, \qquad
       h_i = \sum_{j \in \mathcal{N}(i)} \alpha_{ji} W x_j + W_0 x_i + b $$

    per head; $r_\psi$ is the embedding of a type, and $\alpha'$ are the shares of the layer before,
    given as `shares`; without them $\alpha = \hat\alpha$. $W_0$ is the identity where sizes agree.
    Without shares given or asked for, scores, softmax and sum are one kernel. The published model
    gives every node a loop of a type of its own: append such edges, or rely on the term with W_0.

    Args:
        in_dim: size of `x`.
        out_dim: size of a head.
        num_relations: number of types of edges, T.
        edge_dim: size of the embedding of a type; by default `out_dim`.
        heads: number of heads.
        concat: whether heads are laid side by side; else they are averaged.
        beta: share of the layer before in the attention.
        residual: whether the term with W_0 is there.
        normalize: whether rows of the result are divided by their length, as in the last layer.
        negative_slope: of LeakyReLU.
        dropout: with which probability an attention weight is dropped while training.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim), (M, in_dim);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_type: (E,) int64, values 0..T-1;
        shares: (E, heads) float in the order of the edges, or None.
        returns: (N, heads * out_dim), (N, out_dim) without concat; with `return_shares` a pair of
        it and the shares, (E, heads).

    Raises:
        ValueError: if shapes do not fit, or a node or type does not exist.

    Example:
        >>> import torch
        >>> from gnnlab.layers import SimpleHGNConv
        >>> first, second = (SimpleHGNConv(16, 4, 2, heads=4, beta=0.05) for _ in range(2))
        >>> edge_index, edge_type = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0, 1, 1])
        >>> h, shares = first(torch.randn(4, 16), edge_index, edge_type, return_shares=True)
        >>> second(h, edge_index, edge_type, shares).shape, shares.shape
        (torch.Size([4, 16]), torch.Size([3, 4]))

    Reference: Lv et al., KDD 2021, arXiv:2112.14936, eq. (3) to (8) in section 5.
    """

    citation: ClassVar[str] = """@inproceedings{lv2021are,
  title     = {Are We Really Making Much Progress? Revisiting, Benchmarking, and Refining
               Heterogeneous Graph Neural Networks},
  author    = {Lv, Qingsong and Ding, Ming and Liu, Qiang and Chen, Yuxiang and Feng, Wenzheng and
               He, Siming and Zhou, Chang and Jiang, Jianguo and Dong, Yuxiao and Tang, Jie},
  booktitle = {Proceedings of the ACM SIGKDD Conference on Knowledge Discovery and Data Mining},
  year      = {2021},
  note      = {arXiv:2112.14936}
}"""
    takes = frozenset({"edge_type", "bipartite"})
    picture = ("sum", "root", "attention")

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_relations: int,
        *,
        edge_dim: int | None = None,
        heads: int = 1,
        concat: bool = True,
        beta: float = 0.0,
        residual: bool = True,
        normalize: bool = False,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        edge_dim = out_dim if edge_dim is None else edge_dim
        super().__init__(in_dim, out_dim, heads, concat, edge_dim, negative_slope, dropout, False)
        if not 0 <= beta <= 1:
            raise ValueError(f"SimpleHGNConv: beta must lie in [0, 1], got {beta}")
        self.num_relations, self.beta = num_relations, beta
        self.residual, self.normalize = residual, normalize
        total = heads * out_dim if concat else out_dim
        self.weight = nn.Parameter(torch.empty(heads * out_dim, in_dim))
        self.weight_edge = nn.Parameter(torch.empty(heads * edge_dim, edge_dim))
        self.embedding = nn.Parameter(torch.empty(num_relations, edge_dim))
        self.att_src = nn.Parameter(torch.empty(heads, out_dim))
        self.att_dst = nn.Parameter(torch.empty(heads, out_dim))
        self.att_edge = nn.Parameter(torch.empty(heads, edge_dim))
        needs_map = residual and in_dim != total
        self.weight_root = nn.Parameter(torch.empty(total, in_dim)) if needs_map else None
        self.bias = nn.Parameter(torch.empty(total)) if bias else None
        self.reset_parameters()

    @overload
    def forward(
        self,
        x: Nodes,
        edges: Edges,
        edge_type: Tensor,
        shares: Tensor | None = None,
        *,
        return_shares: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Nodes,
        edges: Edges,
        edge_type: Tensor,
        shares: Tensor | None = None,
        *,
        return_shares: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        x: Nodes,
        edges: Edges,
        edge_type: Tensor,
        shares: Tensor | None = None,
        *,
        return_shares: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Returns h, one row per target; with `return_shares` also the attention of each edge."""
        given = prepare(self, x, edges, in_dim=self.in_dim)
        plan = given.plan
        relations(self, plan, edge_type, self.num_relations)  # checks the types
        if shares is not None and shares.shape != (plan.num_edges, self.heads):
            raise ValueError(
                f"SimpleHGNConv expected shares of shape ({plan.num_edges}, {self.heads}), "
                f"got {tuple(shares.shape)}"
            )
        x_src = self._heads(given.x_src, self.weight)
        x_dst = self._heads(given.x_dst, self.weight) if given.is_bipartite else x_src
        a_src = (x_src * self.att_src).sum(-1).to(x_src.dtype)
        a_dst = (x_dst * self.att_dst).sum(-1).to(x_src.dtype)
        # The term of a type is one number per head: T rows are made, and gathered.
        by_type = self._heads_of_types()
        logit = gather(by_type.to(x_src.dtype), edge_type)
        drop = self.dropout if self.training else 0.0
        if shares is None and not return_shares:
            h = gat_aggregate(
                plan, x_src, a_src, a_dst, logit, negative_slope=self.negative_slope, dropout_p=drop
            )
            return self._finished(h, given.x_dst)
        score = sddmm(plan, a_dst[..., None], a_src[..., None], op="add").squeeze(-1) + logit
        share = dropout(edge_softmax(plan, leaky_relu(score, self.negative_slope)), drop)
        if shares is not None:
            share = (1 - self.beta) * share + self.beta * shares
        h = self._finished(spmm(plan, x_src, share), given.x_dst)
        return (h, share) if return_shares else h

    def _heads_of_types(self) -> Tensor:
        """Returns a_3 . W_r r for each type and head, (T, H)."""
        mapped = nn.functional.linear(self.embedding, self.weight_edge)
        return (mapped.view(self.num_relations, self.heads, -1) * self.att_edge).sum(-1)

    def _finished(self, h: Tensor, x_dst: Tensor) -> Tensor:
        """Adds the residual and the bias, and takes lengths away."""
        h = self._joined(h)
        if self.weight_root is not None:
            h = h + nn.functional.linear(x_dst, self.weight_root)
        elif self.residual:
            h = h + x_dst
        return normalize(h) if self.normalize else h

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", heads={self.heads}" * (self.heads != 1) + ", concat=False" * (not self.concat)
        options += f", edge_dim={self.edge_dim}" * (self.edge_dim != self.out_dim)
        options += f", beta={self.beta:g}" * (self.beta > 0)
        options += ", residual=False" * (not self.residual)
        options += ", normalize=True" * self.normalize
        options += f", dropout={self.dropout:g}" * (self.dropout > 0)
        options += ", bias=False" * (self.bias is None)
        return f"{self.in_dim}, {self.out_dim}, num_relations={self.num_relations}{options}"
