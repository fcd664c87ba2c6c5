"""SAGEConv: a node's own features beside those of its neighbours."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import spmm

__all__ = ["SAGEConv"]


class SAGEConv(Layer):
    r"""Adds a linear map of a node to a linear map of the mean, sum or maximum of its neighbours.

    $$ h_i = W_1 x_i + W_2 \operatorname*{reduce}_{j \in \mathcal{N}(i)} w_{ji} x_j + b $$

    Args:
        in_dim: size of `x`; a pair for sources and targets.
        out_dim: size of the output.
        reduce: "mean", "sum" or "max".
        root: whether the term with W_1 is there.
        normalize: whether each h_i is divided by its length.
        project: whether sources go through a linear map and ReLU first, as with the pooling
            aggregator of the paper.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) or None.
        returns: (N, out_dim), or (M, out_dim) for a pair; dtype of `x`. Without neighbours the
        reduction is 0.

    Raises:
        ValueError: if shapes do not fit, `edges` refers to a node that x does not have, or `reduce`
            is unknown.

    Example:
        >>> import torch
        >>> from gnnlab.layers import SAGEConv
        >>> conv = SAGEConv((16, 8), 32, reduce="max")
        >>> x = torch.randn(3, 16), torch.randn(2, 8)
        >>> conv(x, torch.tensor([[0, 1, 2], [1, 0, 1]])).shape
        torch.Size([2, 32])

    Reference: Hamilton et al., NeurIPS 2017, arXiv:1706.02216, algorithm 1. Differs from it in:
    edge weights are allowed, and the activation is left to the caller.
    """

    citation: ClassVar[str] = """@inproceedings{hamilton2017inductive,
  title     = {Inductive Representation Learning on Large Graphs},
  author    = {Hamilton, William L. and Ying, Rex and Leskovec, Jure},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017},
  note      = {arXiv:1706.02216}
}"""
    takes = frozenset({"edge_weight", "bipartite"})
    picture = ("mean", "root")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "weight": "lin_l.weight",
        "bias": "lin_l.bias",
        "weight_root": "lin_r.weight",
        "lin_project.": "lin.",
    }
    _pyg_options: ClassVar[dict[str, str]] = {"reduce": "aggr", "normalize": "normalize"}

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        *,
        reduce: Literal["mean", "sum", "max"] = "mean",
        root: bool = True,
        normalize: bool = False,
        project: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if reduce not in ("mean", "sum", "max"):
            raise ValueError(f'SAGEConv: unknown reduce "{reduce}". Known: mean, sum, max.')
        self.in_dim, self.out_dim = in_dim, out_dim
        self.reduce: Literal["mean", "sum", "max"] = reduce
        self.normalize = normalize
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        self.lin_project = nn.Linear(src, src) if project else None
        self.weight = nn.Parameter(torch.empty(out_dim, src))
        self.weight_root = nn.Parameter(torch.empty(out_dim, dst)) if root else None
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew, as `nn.Linear` does."""
        for weight in (self.weight, self.weight_root):
            if weight is not None:
                nn.init.kaiming_uniform_(weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.lin_project is not None:
            self.lin_project.reset_parameters()

    def forward(self, x: Nodes, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges, edge_weight, in_dim=self.in_dim)
        plan, weight, x_src = given.plan, given.edge_weight, given.x_src
        if weight is not None:
            weight = weight.to(x_src.dtype)
        if self.lin_project is not None:
            x_src = self.lin_project(x_src).relu()
        if self.reduce != "max" and self.out_dim < x_src.shape[1]:  # fewer columns along edges
            h = spmm(plan, nn.functional.linear(x_src, self.weight), weight, reduce=self.reduce)
        else:
            h = nn.functional.linear(spmm(plan, x_src, weight, reduce=self.reduce), self.weight)
        if self.weight_root is not None:
            h = h + nn.functional.linear(given.x_dst, self.weight_root, self.bias)
        elif self.bias is not None:
            h = h + self.bias
        return nn.functional.normalize(h, dim=-1) if self.normalize else h

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.SAGEConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            aggr=self.reduce,
            normalize=self.normalize,
            root_weight=self.weight_root is not None,
            project=self.lin_project is not None,
            bias=self.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", reduce={self.reduce!r}" * (self.reduce != "mean")
        options += ", root=False" * (self.weight_root is None)
        options += ", normalize=True" * self.normalize + ", bias=False" * (self.bias is None)
        return f"{self.in_dim}, {self.out_dim}{options}"
