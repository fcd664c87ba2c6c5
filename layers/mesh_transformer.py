"""Attention that features of the edges modulate, and its two blocks for meshes with contact."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers.mlp import MLP, init_weights
from gnnlab.ops import EdgePlan, edge_softmax, sddmm, spmm

__all__ = ["ContactTransformerBlock", "EdgeModulatedAttention", "MeshTransformerBlock"]

Normalize = Literal["none", "softmax"]

_HCMT = """@inproceedings{yu2024learning,
  title     = {Learning Flexible Body Collision Dynamics with Hierarchical Contact Mesh
               Transformer},
  author    = {Yu, Youn-Yeol and Choi, Jeongwhan and Cho, Woojin and Lee, Kookjin and
               Kim, Nayong and Chang, Kiseok and Woo, ChangSeung and Kim, Ilho and Lee, SeokWoo and
               Yang, Joon-Young and Yoon, Sooyoung and Park, Noseong},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2312.12467}
}"""


class EdgeModulatedAttention(Layer):
    r"""Adds up neighbours' values, each channel with its own score, modulated by the edge.

    $$ h_i = \sum_{j \in \mathcal{N}(i)} a_{ji} \odot W_v v_j \odot W_g e_{ji}, \qquad
       a_{ji} = \exp\, \mathrm{clip}_{[-2, 2]} \Bigl(
       W_p e_{ji} \odot \frac{W_q v_i \odot W_k v_j}{\sqrt{D}} \Bigr) $$

    All products are element by element: a score belongs to a channel, not to a head; heads only say
    what D is. No map has a bias. With normalize="softmax" a is divided by its sum over j. Per edge
    there are W_p e, W_g e, scores and weights, (E, dim) each; keys, queries and values are
    read where they lie, by `sddmm` and `spmm` with one head per channel, also in the gradient.

    Args:
        dim: size of `v` and of the output.
        heads: number of heads; a head has D = dim / heads channels.
        edge_dim: size of `e`; by default dim.
        normalize: "none", or "softmax" over the edges of a node.

    Shapes:
        v: (N, dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; e: (E, edge_dim).
        returns: (N, dim); 0 for a node without edges.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that v does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import EdgeModulatedAttention
        >>> attention = EdgeModulatedAttention(16, heads=4)
        >>> edges, e = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.randn(3, 16)
        >>> attention(torch.randn(4, 16), edges, e).shape
        torch.Size([4, 16])

    Reference: Yu et al., ICLR 2024, arXiv:2312.12467, section 4. Follows the released code, which
    has no softmax.
    """

    citation: ClassVar[str] = _HCMT
    takes = frozenset({"edge_attr"})
    picture = ("sum", "attention", "edges")

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        edge_dim: int | None = None,
        normalize: Normalize = "none",
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(
                f"{type(self).__name__}: dim must be a multiple of heads, got dim={dim} and "
                f"heads={heads}"
            )
        if normalize not in ("none", "softmax"):
            raise ValueError(
                f'{type(self).__name__}: unknown normalize "{normalize}". Known: none, softmax.'
            )
        self.dim, self.heads, self.normalize = dim, heads, normalize
        self.edge_dim = dim if edge_dim is None else edge_dim
        self.lin_query = nn.Linear(dim, dim, bias=False)
        self.lin_key = nn.Linear(dim, dim, bias=False)
        self.lin_value = nn.Linear(dim, dim, bias=False)
        self.lin_score = nn.Linear(self.edge_dim, dim, bias=False)
        self.lin_gate = nn.Linear(self.edge_dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all maps anew."""
        for lin in (self.lin_query, self.lin_key, self.lin_value, self.lin_score, self.lin_gate):
            init_weights(lin)

    def forward(self, v: Tensor, edges: Edges, e: Tensor) -> Tensor:
        """Returns h, one row per node."""
        given = prepare(self, v, edges, in_dim=self.dim, edge_attr=e, edge_dim=self.edge_dim)
        return self.reduce(given.plan, self.project(v), e)

    def project(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values; the same serve several sets of edges."""
        scale = (self.dim // self.heads) ** -0.5
        return self.lin_query(v) * scale, self.lin_key(v), self.lin_value(v)

    def reduce(self, plan: EdgePlan, projected: tuple[Tensor, Tensor, Tensor], e: Tensor) -> Tensor:
        """Returns h over the edges of `plan`, given what `project` returns."""
        # One head of width 1 per channel: a "dot" is then a product, and its gradient an spmm.
        q, k, v = (t.unsqueeze(-1) for t in projected)
        score = (self.lin_score(e) * sddmm(plan, q, k, op="dot")).clamp(-2, 2)
        share = edge_softmax(plan, score) if self.normalize == "softmax" else score.exp()
        weight = share * self.lin_gate(e)
        return spmm(plan, v, weight.to(v.dtype)).squeeze(-1)

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", edge_dim={self.edge_dim}" * (self.edge_dim != self.dim)
        options += f", normalize={self.normalize!r}" * (self.normalize != "none")
        return f"{self.dim}, heads={self.heads}{options}"


class MeshTransformerBlock(Layer):
    r"""Edge-modulated attention and a network per node, both with a residual.

    $$ v \leftarrow v + W_o\, \mathrm{Attention}(\mathrm{LN}(v), \mathrm{LN}(e)), \qquad
       v \leftarrow v + \mathrm{FFN}(\mathrm{LN}(v)) $$

    with `EdgeModulatedAttention`. FFN has two hidden layers of size dim and ReLU; it and W_o have
    no bias. Features of the edges are not changed.

    Args:
        dim: size of `v` and of the output.
        heads: number of heads.
        edge_dim: size of `e`; by default dim.
        normalize: "none", or "softmax" over the edges of a node.

    Shapes:
        v: (N, dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; e: (E, edge_dim).
        returns: (N, dim).

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that v does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import MeshTransformerBlock
        >>> block = MeshTransformerBlock(16)
        >>> edges, e = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.randn(3, 16)
        >>> block(torch.randn(4, 16), edges, e).shape
        torch.Size([4, 16])

    Reference: Yu et al., ICLR 2024, arXiv:2312.12467, section 4: the hierarchical mesh
    transformer's layer.
    """

    citation: ClassVar[str] = _HCMT
    takes = frozenset({"edge_attr"})
    picture = ("sum", "root", "attention", "edges")

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        edge_dim: int | None = None,
        normalize: Normalize = "none",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.attention = EdgeModulatedAttention(
            dim, heads=heads, edge_dim=edge_dim, normalize=normalize
        )
        self.norm_node = nn.LayerNorm(dim)
        self.norm_edge = nn.LayerNorm(self.attention.edge_dim)
        self.lin_out = nn.Linear(dim, dim, bias=False)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = MLP(dim, dim, hidden=dim, bias=False)
        init_weights(self.lin_out)

    def forward(self, v: Tensor, edges: Edges, e: Tensor) -> Tensor:
        """Returns the new v."""
        v = v + self.lin_out(self.attention(self.norm_node(v), edges, self.norm_edge(e)))
        out: Tensor = v + self.ffn(self.norm_ffn(v))
        return out


class ContactTransformerBlock(Layer):
    r"""The mesh transformer's block with two sets of edges: of the mesh, and of contact.

    $$ v \leftarrow v + W_o\, [\mathrm{Attention}(\mathrm{LN}(v), \mathrm{LN}(e)),\;
       \mathrm{Attention}(\mathrm{LN}(v), \mathrm{LN}'(c))], \qquad
       v \leftarrow v + \mathrm{FFN}(\mathrm{LN}(v)) $$

    with one `EdgeModulatedAttention`, whose weights both sets share; each set has a layer norm of
    its own. W_o acts on the two sums apart. Without contact the second sum is 0.

    Args:
        dim: size of `v` and of the output.
        heads: number of heads.
        edge_dim: size of `e` and `c`; by default dim.
        normalize: "none", or "softmax" over the edges of a node and a set.

    Shapes:
        v: (N, dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; e: (E, edge_dim);
        contact: (2, C) int64, `Graph` or `EdgePlan`; c: (C, edge_dim); C may be 0.
        returns: (N, dim).

    Raises:
        ValueError: if shapes do not fit, or edges refer to a node that v does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import ContactTransformerBlock
        >>> block = ContactTransformerBlock(16)
        >>> edges, e = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.randn(3, 16)
        >>> contact, c = torch.tensor([[3], [0]]), torch.randn(1, 16)
        >>> block(torch.randn(4, 16), edges, e, contact, c).shape
        torch.Size([4, 16])

    Reference: Yu et al., ICLR 2024, arXiv:2312.12467, section 4: the contact mesh transformer's
    layer.
    """

    citation: ClassVar[str] = _HCMT
    takes = frozenset({"edge_attr", "edge_sets"})
    picture = ("sum", "root", "attention", "contact")

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        edge_dim: int | None = None,
        normalize: Normalize = "none",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.attention = EdgeModulatedAttention(
            dim, heads=heads, edge_dim=edge_dim, normalize=normalize
        )
        self.norm_node = nn.LayerNorm(dim)
        self.norm_edge = nn.LayerNorm(self.attention.edge_dim)
        self.norm_contact = nn.LayerNorm(self.attention.edge_dim)
        self.lin_out = nn.Linear(2 * dim, dim, bias=False)
        self.norm_ffn = nn.LayerNorm(dim)
        self.ffn = MLP(dim, dim, hidden=dim, bias=False)
        init_weights(self.lin_out)

    def forward(self, v: Tensor, edges: Edges, e: Tensor, contact: Edges, c: Tensor) -> Tensor:
        """Returns the new v."""
        plan, contact_plan = (
            prepare(
                self, v, given, in_dim=self.dim, edge_attr=own, edge_dim=self.attention.edge_dim
            ).plan
            for given, own in ((edges, e), (contact, c))
        )
        projected = self.attention.project(self.norm_node(v))
        of_mesh = self.attention.reduce(plan, projected, self.norm_edge(e))
        of_contact = self.attention.reduce(contact_plan, projected, self.norm_contact(c))
        mesh_part, contact_part = self.lin_out.weight.chunk(2, 1)
        v = v + linear(of_mesh, mesh_part) + linear(of_contact, contact_part)
        out: Tensor = v + self.ffn(self.norm_ffn(v))
        return out
