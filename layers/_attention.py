"""What attention layers share: heads, loops, and how heads are put together."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._loops import mean_of_edges, with_extra_loops, with_loops
from gnnlab.layers._message_passing import Given
from gnnlab.ops import EdgePlan

__all__ = ["HeadedLayer", "matrix"]


def matrix(rows: int, columns: int | None) -> nn.Parameter | None:
    """Returns a matrix to be filled, None if it has no columns."""
    return None if columns is None else nn.Parameter(torch.empty(rows, columns))


class HeadedLayer(Layer):
    """A layer with `heads` heads of `out_dim` numbers each."""

    bias: nn.Parameter | None
    _pyg_options: ClassVar[dict[str, str]] = {
        "heads": "heads",
        "concat": "concat",
        "negative_slope": "negative_slope",
        "self_loops": "add_self_loops",
    }

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        heads: int,
        concat: bool,
        edge_dim: int | None,
        negative_slope: float,
        dropout: float,
        self_loops: bool,
    ) -> None:
        super().__init__()
        if heads < 1:
            raise ValueError(f"{type(self).__name__}: heads must be at least 1, got {heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"{type(self).__name__}: dropout must lie in [0, 1), got {dropout}")
        self.in_dim, self.out_dim, self.heads, self.concat = in_dim, out_dim, heads, concat
        self.edge_dim, self.negative_slope = edge_dim, negative_slope
        self.dropout, self.self_loops = dropout, self_loops

    def reset_parameters(self) -> None:
        """Draws all weights after Glorot and Bengio, and sets biases to 0."""
        for name, parameter in self.named_parameters():
            if name.rpartition(".")[2] == "bias":
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(-1, self.heads, self.out_dim)

    def _heads(self, x: Tensor, weight: Tensor) -> Tensor:
        """Returns W x, (N, H, D)."""
        return self._split(nn.functional.linear(x, weight))

    def _joined(self, out: Tensor) -> Tensor:
        """Puts heads side by side or averages them, and adds the bias."""
        out = out.flatten(1) if self.concat else out.mean(1)
        return out if self.bias is None else out + self.bias

    def _looped(
        self, given: Given, edge_attr: Tensor | None
    ) -> tuple[EdgePlan, Tensor | None, Tensor | None]:
        """Returns the plan, with loops if the layer wants them, and the features of its edges.

        The third result says which edges count, (E,) bool; None: all of them.
        """
        plan = given.plan
        if not self.self_loops or plan.num_src != plan.num_dst or given.is_bipartite:
            return plan, edge_attr, None
        if torch.compiler.is_compiling():
            return with_extra_loops(plan, edge_attr)
        loops = with_loops(plan)
        if edge_attr is not None:
            edge_attr = loops.fresh(edge_attr, mean_of_edges(plan, loops, edge_attr))
        return loops.plan, edge_attr, None

    def _library_arguments(self) -> dict[str, Any]:
        return {
            "in_channels": self.in_dim,
            "out_channels": self.out_dim,
            "heads": self.heads,
            "concat": self.concat,
            "edge_dim": self.edge_dim,
            "negative_slope": self.negative_slope,
            "dropout": self.dropout,
            "add_self_loops": self.self_loops,
            "bias": self.bias is not None,
        }

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", heads={self.heads}" * (self.heads != 1) + ", concat=False" * (not self.concat)
        options += f", edge_dim={self.edge_dim}" * (self.edge_dim is not None)
        options += f", dropout={self.dropout:g}" * (self.dropout > 0)
        options += ", self_loops=False" * (not self.self_loops)
        return f"{self.in_dim}, {self.out_dim}{options}" + ", bias=False" * (self.bias is None)
