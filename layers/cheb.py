"""ChebConv: filters that are Chebyshev polynomials of the Laplacian."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._loops import has_loops
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers._normalized import inverse_root_degree
from gnnlab.ops import spmm

__all__ = ["ChebConv"]


class ChebConv(Layer):
    r"""Adds linear maps of K Chebyshev polynomials of the scaled Laplacian.

    $$ h = \sum_{k=0}^{K-1} T_k\, W_k^\top + b, \quad T_0 = x, \quad T_1 = \hat L x, \quad
       T_k = 2 \hat L T_{k-1} - T_{k-2}, \quad
       \hat L = \tfrac{2}{\lambda} (I - D^{-1/2} A D^{-1/2}) - I $$

    D counts the edges that leave a node; loops are left out.

    Args:
        in_dim: size of `x`.
        out_dim: size of the output.
        terms: K.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) or None;
        lambda_max: the largest eigenvalue of the Laplacian, 2 if it is not given.
        returns: (N, out_dim), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import ChebConv
        >>> conv = ChebConv(16, 32, terms=3)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Defferrard et al., NeurIPS 2016, arXiv:1606.09375, eq. (4).
    """

    citation: ClassVar[str] = """@inproceedings{defferrard2016convolutional,
  title     = {Convolutional Neural Networks on Graphs with Fast Localized Spectral Filtering},
  author    = {Defferrard, Micha{\\"e}l and Bresson, Xavier and Vandergheynst, Pierre},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016},
  note      = {arXiv:1606.09375}
}"""
    takes = frozenset({"edge_weight"})
    picture = ("sum", "root", "degrees", "hops")
    _pyg_weights: ClassVar[dict[str, str]] = {"lins.": "lins.", "bias": "bias"}

    def __init__(self, in_dim: int, out_dim: int, *, terms: int, bias: bool = True) -> None:
        super().__init__()
        if terms < 1:
            raise ValueError(f"ChebConv: terms must be at least 1, got {terms}")
        self.in_dim, self.out_dim = in_dim, out_dim
        self.lins = nn.ModuleList(nn.Linear(in_dim, out_dim, bias=False) for _ in range(terms))
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the maps after Glorot and Bengio, and sets b to 0."""
        for weight in self.lins.parameters():
            nn.init.xavier_uniform_(weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor,
        edges: Edges,
        edge_weight: Tensor | None = None,
        lambda_max: float | Tensor = 2.0,
    ) -> Tensor:
        """Returns h, one row per node."""
        given = prepare(self, x, edges, edge_weight, in_dim=self.in_dim)
        plan, weight = given.plan, given.edge_weight
        if weight is not None:
            weight = weight.to(x.dtype)
        if torch.compiler.is_compiling() or has_loops(plan):
            ones = x.new_ones(plan.num_edges) if weight is None else weight
            weight = torch.where(plan.src == plan.dst, 0.0, ones)
        scale = inverse_root_degree(plan.T, weight, 0.0, x.dtype)
        factor = 2.0 / lambda_max

        def laplacian(t: Tensor) -> Tensor:
            return (factor - 1.0) * t - factor * (scale * spmm(plan, scale * t, weight))

        before, now = x, x
        out: Tensor = self.lins[0](x)
        for k, lin in enumerate(self.lins[1:], 1):
            before, now = now, laplacian(now) if k == 1 else 2.0 * laplacian(now) - before
            out = out + lin(now)
        return out if self.bias is None else out + self.bias

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.ChebConv(  # type: ignore[no-any-return]
            self.in_dim, self.out_dim, K=len(self.lins), bias=self.bias is not None
        )

    def extra_repr(self) -> str:
        """Returns sizes."""
        return f"{self.in_dim}, {self.out_dim}, terms={len(self.lins)}"
