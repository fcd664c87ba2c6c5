"""MLP: linear maps with an activation between them, the network inside many blocks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    r"""Applies linear maps with an activation between them, and perhaps a layer norm at the end.

    $$ y = \mathrm{LN}(W_K\, \sigma(\dots \sigma(W_1 x + b_1) \dots) + b_K), \qquad
       K = \text{num\_hidden} + 1 $$

    Weights start from a normal distribution with standard deviation 1 / sqrt(inputs), cut off at
    two of them; biases start at 0.

    Args:
        in_dim: size of `x`.
        out_dim: size of the output.
        hidden: size between the maps.
        num_hidden: number of hidden layers; 0 leaves one linear map.
        activation: makes the activation, for example `torch.nn.ReLU`.
        layer_norm: whether the output is normalised over its last dimension, with scale and offset.
        bias: whether the maps have a bias.

    Shapes:
        x: (*, in_dim) float.
        returns: (*, out_dim).

    Raises:
        ValueError: if a size is not positive.

    Example:
        >>> import torch
        >>> from gnnlab.layers import MLP
        >>> MLP(3, 8, hidden=16, layer_norm=True)(torch.randn(5, 3)).shape
        torch.Size([5, 8])
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden: int = 128,
        num_hidden: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        layer_norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if min(in_dim, out_dim, hidden) < 1 or num_hidden < 0:
            raise ValueError(
                f"MLP needs sizes of at least 1 and num_hidden of at least 0, got in_dim={in_dim}, "
                f"out_dim={out_dim}, hidden={hidden}, num_hidden={num_hidden}"
            )
        self.in_dim, self.out_dim = in_dim, out_dim
        sizes = [in_dim, *[hidden] * num_hidden, out_dim]
        self.lins = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes))
        self.activation = activation()
        self.norm = nn.LayerNorm(out_dim) if layer_norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew, and sets biases to 0."""
        for lin in self.lins:
            assert isinstance(lin, nn.Linear)
            init_weights(lin)
        if self.norm is not None:
            self.norm.reset_parameters()

    @property
    def first(self) -> nn.Linear:
        """The first map; a caller may apply it in parts and go on with `finish`."""
        lin = self.lins[0]
        assert isinstance(lin, nn.Linear)
        return lin

    def finish(self, h: Tensor) -> Tensor:
        """Returns the output, given what the first map gives."""
        for lin in list(self.lins)[1:]:
            h = lin(self.activation(h))
        return h if self.norm is None else self.norm(h)

    def forward(self, x: Tensor) -> Tensor:
        """Returns y, one row per row of x."""
        return self.finish(self.first(x))


def init_weights(lin: nn.Linear) -> None:
    """Draws weights from a normal of std 1 / sqrt(inputs), cut at two std; sets the bias to 0."""
    std = lin.in_features**-0.5
    nn.init.trunc_normal_(lin.weight, std=std, a=-2 * std, b=2 * std)
    if lin.bias is not None:
        nn.init.zeros_(lin.bias)
