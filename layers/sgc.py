"""SGConv: several steps of propagation, then one linear map."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers._normalized import normalized

__all__ = ["SGConv"]


class SGConv(Layer):
    r"""Propagates K steps with symmetric degree weights, then applies one linear map.

    $$ h = S^K x\, W^\top + b, \qquad S = D^{-1/2} (A + I) D^{-1/2} $$

    Args:
        in_dim: size of `x`.
        out_dim: size of the output.
        steps: K.
        self_loops: whether I is there; loops among the edges keep their weight.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) or None.
        returns: (N, out_dim), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import SGConv
        >>> conv = SGConv(16, 32, steps=2)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Wu et al., ICML 2019, arXiv:1902.07153, eq. (8). Differs from it in: edge weights are
    allowed.
    """

    citation: ClassVar[str] = """@inproceedings{wu2019simplifying,
  title     = {Simplifying Graph Convolutional Networks},
  author    = {Wu, Felix and Souza, Amauri and Zhang, Tianyi and Fifty, Christopher and Yu, Tao and
               Weinberger, Kilian},
  booktitle = {International Conference on Machine Learning},
  year      = {2019},
  note      = {arXiv:1902.07153}
}"""
    takes = frozenset({"edge_weight"})
    picture = ("sum", "loop", "degrees", "hops")
    _pyg_weights: ClassVar[dict[str, str]] = {"lin.": "lin."}
    _pyg_options: ClassVar[dict[str, str]] = {"steps": "K", "self_loops": "add_self_loops"}

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        steps: int = 1,
        self_loops: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_dim, self.out_dim, self.steps = in_dim, out_dim, steps
        self.self_loops = self_loops
        self.lin = nn.Linear(in_dim, out_dim, bias=bias)

    def reset_parameters(self) -> None:
        """Draws W and b anew, as `nn.Linear` does."""
        self.lin.reset_parameters()

    def forward(self, x: Tensor, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns h, one row per node."""
        given = prepare(self, x, edges, edge_weight, in_dim=self.in_dim)
        weight = None if given.edge_weight is None else given.edge_weight.to(x.dtype)
        propagate = normalized(given.plan, weight, float(self.self_loops), x.dtype)
        narrows = self.out_dim < self.in_dim  # then fewer columns are moved along edges
        if narrows:
            x = nn.functional.linear(x, self.lin.weight)
        for _ in range(self.steps):
            x = propagate(x)
        if not narrows:
            out: Tensor = self.lin(x)
            return out
        return x if self.lin.bias is None else x + self.lin.bias

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.SGConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            K=self.steps,
            add_self_loops=self.self_loops,
            bias=self.lin.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns the number of steps, and the options that differ from the default."""
        return f"steps={self.steps}" + ", self_loops=False" * (not self.self_loops)
