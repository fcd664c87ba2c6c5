"""GCNConv: graph convolution with symmetric degree weights."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers._normalized import Normalized, normalized
from gnnlab.ops import spmm

__all__ = ["GCNConv"]


class GCNConv(Layer):
    r"""Averages neighbours with symmetric degree weights, then applies a linear map.

    $$ h_i = W \sum_{j \in \mathcal{N}(i) \cup \{i\}} \frac{w_{ji}}{\sqrt{d_i d_j}}\, x_j + b,
       \qquad d_i = \sum_{j \in \mathcal{N}(i) \cup \{i\}} w_{ji} $$

    Without edge weights no weight per edge is ever made: rows are scaled before and after a plain
    sum, and degrees are computed once per graph.

    Args:
        in_dim: size of `x`.
        out_dim: size of the output.
        self_loops: whether node i counts as its own neighbour, with weight 1 unless the edges hold
            a loop of its own.
        improved: whether such a loop has weight 2.
        normalize: whether to divide by the roots of the degrees; without it neighbours are added,
            and there are no loops.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) or None.
        returns: (N, out_dim), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import GCNConv
        >>> conv = GCNConv(16, 32)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Kipf and Welling, ICLR 2017, arXiv:1609.02907, eq. (2). Differs from it in: edge
    weights are allowed.
    """

    citation: ClassVar[str] = """@inproceedings{kipf2017semi,
  title     = {Semi-Supervised Classification with Graph Convolutional Networks},
  author    = {Kipf, Thomas N. and Welling, Max},
  booktitle = {International Conference on Learning Representations},
  year      = {2017},
  note      = {arXiv:1609.02907}
}"""
    takes = frozenset({"edge_weight"})
    picture = ("sum", "loop", "degrees")
    _pyg_weights: ClassVar[dict[str, str]] = {"weight": "lin.weight", "bias": "bias"}
    _pyg_options: ClassVar[dict[str, str]] = {
        "self_loops": "add_self_loops",
        "improved": "improved",
        "normalize": "normalize",
    }

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        self_loops: bool = True,
        improved: bool = False,
        normalize: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.normalize, self.improved = normalize, improved
        self.self_loops = self_loops and normalize
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim))
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W after Glorot and Bengio, and sets b to 0."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns h, one row per node."""
        given = prepare(self, x, edges, edge_weight, in_dim=self.in_dim)
        plan, weight = given.plan, given.edge_weight
        if weight is not None:
            weight = weight.to(x.dtype)
        propagate: Normalized | functools.partial[Tensor]
        if self.normalize:
            loop = 2.0 if self.improved else 1.0
            propagate = normalized(plan, weight, loop if self.self_loops else 0.0, x.dtype)
        else:
            propagate = functools.partial(spmm, plan, weight=weight)
        narrows = self.out_dim < self.in_dim  # then fewer columns are moved along edges
        if narrows:
            x = nn.functional.linear(x, self.weight)
        h = propagate(x)
        if not narrows:
            return nn.functional.linear(h, self.weight, self.bias)
        return h if self.bias is None else h + self.bias

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.GCNConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            add_self_loops=self.self_loops,
            improved=self.improved,
            normalize=self.normalize,
            bias=self.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = "" if self.normalize else ", normalize=False"
        options += ", improved=True" * self.improved
        options += ", self_loops=False" * (self.normalize and not self.self_loops)
        return f"{self.in_dim}, {self.out_dim}{options}" + ", bias=False" * (self.bias is None)
