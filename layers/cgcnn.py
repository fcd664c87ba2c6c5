"""CGConv: gated messages of crystal graphs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import scatter, sddmm

__all__ = ["CGConv"]


class CGConv(Layer):
    r"""Adds messages of both end points and the edge, each passed through a gate, to the node.

    $$ h_i = x_i + \sum_{j \in \mathcal{N}(i)} \sigma(W_1 z_{ij} + b_1) \odot
       \mathrm{softplus}(W_2 z_{ij} + b_2), \qquad z_{ij} = [x_i, x_j, e_{ji}] $$

    The maps are applied to nodes before they meet on an edge: z is never made.

    Args:
        in_dim: size of `x`, and of the output; a pair for sources and targets.
        edge_dim: size of the edge features; None: there are none.
        batch_norm: whether sums are normalised over the nodes.
        bias: whether b_1 and b_2 are there.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, edge_dim) or None.
        returns: the shape of `x`, for a pair that of its second.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import CGConv
        >>> conv = CGConv(16, edge_dim=2)
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> conv(torch.randn(4, 16), edges, torch.randn(3, 2)).shape
        torch.Size([4, 16])

    Reference: Xie and Grossman, Physical Review Letters 2018, arXiv:1710.10324, eq. (5). Differs
    from it in: batch normalisation is off by default.
    """

    citation: ClassVar[str] = """@article{xie2018crystal,
  title   = {Crystal Graph Convolutional Neural Networks for an Accurate and Interpretable
             Prediction of Material Properties},
  author  = {Xie, Tian and Grossman, Jeffrey C.},
  journal = {Physical Review Letters},
  volume  = {120},
  year    = {2018},
  note    = {arXiv:1710.10324}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "root", "gate", "edges")
    _pyg_weights: ClassVar[dict[str, str]] = {"lin_f.": "lin_f.", "lin_s.": "lin_s.", "bn.": "bn."}

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        *,
        edge_dim: int | None = None,
        batch_norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.edge_dim = in_dim, edge_dim
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        total = src + dst + (edge_dim or 0)
        self.lin_f = nn.Linear(total, dst, bias=bias)
        self.lin_s = nn.Linear(total, dst, bias=bias)
        self.bn = nn.BatchNorm1d(dst) if batch_norm else None

    def reset_parameters(self) -> None:
        """Draws all weights anew, as `nn.Linear` does."""
        self.lin_f.reset_parameters()
        self.lin_s.reset_parameters()
        if self.bn is not None:
            self.bn.reset_parameters()

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        plan, x_src, x_dst = given.plan, given.x_src, given.x_dst
        cut = x_dst.shape[1], x_dst.shape[1] + x_src.shape[1]

        def on_edges(lin: nn.Linear) -> Tensor:
            own = linear(x_dst, lin.weight[:, : cut[0]], lin.bias)
            other = linear(x_src, lin.weight[:, cut[0] : cut[1]])
            z = sddmm(plan, own.unsqueeze(1), other.unsqueeze(1), op="add").squeeze(1)
            return z if edge_attr is None else z + linear(edge_attr, lin.weight[:, cut[1] :])

        messages = on_edges(self.lin_f).sigmoid() * softplus(on_edges(self.lin_s))
        total = scatter(messages, plan.dst, plan.num_dst, plan=plan)
        return x_dst + (total if self.bn is None else self.bn(total))

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.CGConv(  # type: ignore[no-any-return]
            self.in_dim,
            dim=self.edge_dim or 0,
            batch_norm=self.bn is not None,
            bias=self.lin_f.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes."""
        return f"{self.in_dim}" + f", edge_dim={self.edge_dim}" * (self.edge_dim is not None)
