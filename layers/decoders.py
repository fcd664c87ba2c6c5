"""Edge decoders: scores of pairs of nodes from the embeddings of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._message_passing import Edges, Given, Nodes, prepare
from gnnlab.layers.mlp import MLP
from gnnlab.ops import EdgePlan, sddmm

__all__ = ["BilinearDecoder", "DistMultDecoder", "InnerProductDecoder", "MLPDecoder"]


class InnerProductDecoder(nn.Module):
    r"""Scores a pair by the inner product of its embeddings.

    $$ s_{uv} = z_u^\top z_v $$

    Shapes:
        z: (N, F) float, or a pair (N, F), (M, F) for sources and targets;
        pairs: (2, P) int64, `Graph` or `EdgePlan`; row 0 holds u, row 1 v.
        returns: (P,), logits.

    Raises:
        ValueError: if shapes do not fit, or `pairs` refers to a node that z does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import InnerProductDecoder
        >>> z = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> InnerProductDecoder()(z, torch.tensor([[0, 1], [1, 1]]))
        tensor([11., 25.])

    Reference: Kipf and Welling, arXiv:1611.07308, eq. (2), without the sigmoid.
    """

    citation: ClassVar[str] = """@article{kipf2016variational,
  title   = {Variational Graph Auto-Encoders},
  author  = {Kipf, Thomas N. and Welling, Max},
  journal = {arXiv:1611.07308},
  year    = {2016}
}"""

    def forward(self, z: Nodes, pairs: Edges) -> Tensor:
        """Returns one score per pair."""
        given = _ends(self, z, pairs)
        return sddmm(given.plan, given.x_dst, given.x_src, op="dot")


class DistMultDecoder(nn.Module):
    r"""Scores a pair and a relation by a product of three, the relation's weights learned.

    $$ s_{ukv} = \sum_d z_{ud}\, r_{kd}\, z_{vd} $$

    One product of both ends is made per pair; weights of relations are not copied to pairs.

    Args:
        dim: size of `z`.
        num_relations: number of relations.

    Shapes:
        z: (N, dim) float, or a pair (N, dim), (M, dim) for sources and targets;
        pairs: (2, P) int64, `Graph` or `EdgePlan`; row 0 holds u, row 1 v;
        relation: (P,) int64, k of each pair; None: all are of relation 0.
        returns: (P,), logits.

    Raises:
        ValueError: if shapes do not fit, or `pairs` refers to a node that z does not have.
        IndexError: if a relation does not exist (CPU).

    Example:
        >>> import torch
        >>> from gnnlab.layers import DistMultDecoder
        >>> pairs, relation = torch.tensor([[0, 1], [1, 2]]), torch.tensor([4, 0])
        >>> DistMultDecoder(8, 5)(torch.randn(3, 8), pairs, relation).shape
        torch.Size([2])

    Reference: Yang et al., ICLR 2015, arXiv:1412.6575, eq. (3).
    """

    citation: ClassVar[str] = """@inproceedings{yang2015embedding,
  title     = {Embedding Entities and Relations for Learning and Inference in Knowledge Bases},
  author    = {Yang, Bishan and Yih, Wen-tau and He, Xiaodong and Gao, Jianfeng and Deng, Li},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
  note      = {arXiv:1412.6575}
}"""

    def __init__(self, dim: int, num_relations: int = 1) -> None:
        super().__init__()
        self.dim, self.num_relations = dim, num_relations
        self.weight = nn.Parameter(torch.empty(num_relations, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights of the relations anew."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, z: Nodes, pairs: Edges, relation: Tensor | None = None) -> Tensor:
        """Returns one score per pair."""
        given = _ends(self, z, pairs, self.dim)
        plan = given.plan
        if relation is None:
            return sddmm(plan, given.x_dst * self.weight[0], given.x_src, op="dot")
        if relation.shape != (plan.num_edges,):
            raise ValueError(
                f"DistMultDecoder expected relation of shape ({plan.num_edges},), one per pair, "
                f"got {tuple(relation.shape)}"
            )
        both = sddmm(plan, given.x_dst, given.x_src, op="mul")
        place = torch.arange(plan.num_edges, device=plan.device, dtype=relation.dtype)
        to_relation = EdgePlan(
            torch.stack((relation, place)),
            self.num_relations,
            plan.num_edges,
            validate=not torch.compiler.is_compiling(),
        )
        return sddmm(to_relation, both, self.weight, op="dot")

    def extra_repr(self) -> str:
        """Returns sizes."""
        return f"{self.dim}, num_relations={self.num_relations}"


class BilinearDecoder(nn.Module):
    r"""Scores a pair by a learned matrix between its embeddings, one matrix per output.

    $$ s_{uvk} = z_u^\top W_k z_v + b_k $$

    W_k acts on nodes, and pairs take inner products: nothing else is made per pair.

    Args:
        in_dim: size of `z`; a pair for sources and targets.
        out_dim: number of scores of a pair, K; None: one, without the last dimension.
        bias: whether to add b.

    Shapes:
        z: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]) for sources and targets;
        pairs: (2, P) int64, `Graph` or `EdgePlan`; row 0 holds u, row 1 v.
        returns: (P,), or (P, out_dim); logits.

    Raises:
        ValueError: if shapes do not fit, or `pairs` refers to a node that z does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import BilinearDecoder
        >>> BilinearDecoder(8, 3)(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([2, 3])

    Reference: van den Berg et al., arXiv:1706.02263, eq. (4), without the softmax.
    """

    citation: ClassVar[str] = """@article{berg2017graph,
  title   = {Graph Convolutional Matrix Completion},
  author  = {van den Berg, Rianne and Kipf, Thomas N. and Welling, Max},
  journal = {arXiv:1706.02263},
  year    = {2017}
}"""

    def __init__(
        self, in_dim: int | tuple[int, int], out_dim: int | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        count = 1 if out_dim is None else out_dim
        self.weight = nn.Parameter(torch.empty(count, src, dst))
        self.bias = nn.Parameter(torch.empty(count)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the matrices anew, and sets b to 0."""
        for matrix in self.weight:
            nn.init.xavier_uniform_(matrix)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, z: Nodes, pairs: Edges) -> Tensor:
        """Returns the scores of each pair."""
        given = prepare(self, z, pairs, in_dim=self.in_dim)
        count, src, _ = self.weight.shape
        # (M, K, src): what each matrix makes of a target.
        mapped = linear(given.x_dst, self.weight.flatten(0, 1)).view(-1, count, src)
        source = given.x_src.unsqueeze(1).expand(-1, count, -1)
        score = sddmm(given.plan, mapped, source, op="dot")
        if self.bias is not None:
            score = score + self.bias
        return score.squeeze(1) if self.out_dim is None else score

    def extra_repr(self) -> str:
        """Returns sizes."""
        return f"{self.in_dim}, {self.out_dim}" + ", bias=False" * (self.bias is None)


class MLPDecoder(nn.Module):
    r"""Scores a pair by a network that sees both embeddings, their product and their distance.

    $$ s_{uv} = \mathrm{MLP}([z_u,\; z_v,\; z_u \odot z_v,\; |z_u - z_v|]) $$

    The row of four parts is never made: the first map acts on nodes, products and distances apart.

    Args:
        dim: size of `z`.
        out_dim: number of scores of a pair; None: one, without the last dimension.
        hidden: size of the hidden layers; by default dim.
        num_hidden: number of hidden layers; 0 leaves a linear map.
        interactions: whether product and distance are there; without them and with num_hidden=0
            the decoder is linear in [z_u, z_v].
        activation: makes the activation.

    Shapes:
        z: (N, dim) float, or a pair (N, dim), (M, dim) for sources and targets;
        pairs: (2, P) int64, `Graph` or `EdgePlan`; row 0 holds u, row 1 v.
        returns: (P,), or (P, out_dim); logits.

    Raises:
        ValueError: if shapes do not fit, or `pairs` refers to a node that z does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import MLPDecoder
        >>> MLPDecoder(8, 3)(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]])).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        *,
        hidden: int | None = None,
        num_hidden: int = 1,
        interactions: bool = True,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.dim, self.out_dim, self.interactions = dim, out_dim, interactions
        self.mlp = MLP(
            (4 if interactions else 2) * dim,
            1 if out_dim is None else out_dim,
            hidden=dim if hidden is None else hidden,
            num_hidden=num_hidden,
            activation=activation,
        )

    def reset_parameters(self) -> None:
        """Draws all maps anew."""
        self.mlp.reset_parameters()

    def forward(self, z: Nodes, pairs: Edges) -> Tensor:
        """Returns the scores of each pair."""
        given = _ends(self, z, pairs, self.dim)
        plan, z_src, z_dst = given.plan, given.x_src, given.x_dst
        first = self.mlp.first
        source, target, *more = first.weight.chunk(4 if self.interactions else 2, 1)
        h = sddmm(plan, linear(z_dst, target, first.bias), linear(z_src, source), op="add")
        if self.interactions:
            product, distance = more
            h = torch.addmm(h, sddmm(plan, z_dst, z_src, op="mul"), product.t())
            h = torch.addmm(h, sddmm(plan, z_dst, z_src, op="sub").abs(), distance.t())
        score = self.mlp.finish(h)
        return score.squeeze(1) if self.out_dim is None else score

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        return f"{self.dim}, {self.out_dim}" + ", interactions=False" * (not self.interactions)


def _ends(decoder: nn.Module, z: Nodes, pairs: Edges, dim: int | None = None) -> Given:
    """Returns both embeddings and the plan of the pairs, checked."""
    given = prepare(decoder, z, pairs, in_dim=dim)
    if given.x_src.shape[1] != given.x_dst.shape[1]:
        raise ValueError(
            f"{type(decoder).__name__} needs embeddings of one size, got {given.x_src.shape[1]} "
            f"and {given.x_dst.shape[1]}"
        )
    return given
