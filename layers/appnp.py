"""APPNP: personalised PageRank, after the predictions."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._loops import with_loops
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers._normalized import Normalized, normalized
from gnnlab.ops import EdgePlan, gather, spmm

__all__ = ["APPNP"]


class APPNP(Layer):
    r"""Spreads predictions by steps of personalised PageRank; nothing is learned.

    $$ h^{(k+1)} = (1 - \alpha)\, S h^{(k)} + \alpha x, \qquad h^{(0)} = x, \qquad
       S = D^{-1/2} (A + I) D^{-1/2} $$

    Args:
        steps: number of steps K.
        alpha: probability of returning to x.
        dropout: with which probability an entry of S is dropped while training, anew at each step.
        self_loops: whether I is there; loops among the edges keep their weight.
        normalize: whether to divide by the roots of the degrees; without it S is A.

    Shapes:
        x: (N, F) float; edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) or None.
        returns: (N, F), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import APPNP
        >>> APPNP(10, 0.1)(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 3])

    Reference: Klicpera et al., ICLR 2019, arXiv:1810.05997, eq. (4). Differs from it in: edge
    weights are allowed.
    """

    citation: ClassVar[str] = """@inproceedings{klicpera2019predict,
  title     = {Predict then Propagate: Graph Neural Networks meet Personalized {PageRank}},
  author    = {Klicpera, Johannes and Bojchevski, Aleksandar and G{\\"u}nnemann, Stephan},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  note      = {arXiv:1810.05997}
}"""
    takes = frozenset({"edge_weight"})
    picture = ("sum", "loop", "degrees", "hops")
    _pyg_options: ClassVar[dict[str, str]] = {
        "steps": "K",
        "alpha": "alpha",
        "self_loops": "add_self_loops",
        "normalize": "normalize",
    }

    def __init__(
        self,
        steps: int,
        alpha: float,
        *,
        dropout: float = 0.0,
        self_loops: bool = True,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.steps, self.alpha, self.dropout = steps, alpha, dropout
        self.self_loops, self.normalize = self_loops, normalize

    def forward(self, x: Tensor, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns the predictions after K steps, one row per node."""
        given = prepare(self, x, edges, edge_weight)
        plan, weight = given.plan, given.edge_weight
        if weight is not None:
            weight = weight.to(x.dtype)
        propagate = None
        if self.normalize:
            propagate = normalized(plan, weight, float(self.self_loops), x.dtype)
        entries = None
        if self.training and self.dropout:
            plan, entries = _entries(plan, weight, propagate, x)
        h = x
        for _ in range(self.steps):
            if entries is not None:
                moved = spmm(plan, h, nn.functional.dropout(entries, self.dropout))
            else:
                moved = spmm(plan, h, weight) if propagate is None else propagate(h)
            h = (1 - self.alpha) * moved + self.alpha * x
        return h

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.APPNP(  # type: ignore[no-any-return]
            self.steps,
            self.alpha,
            dropout=self.dropout,
            add_self_loops=self.self_loops,
            normalize=self.normalize,
        )

    def extra_repr(self) -> str:
        """Returns steps and alpha, and the options that differ from the default."""
        options = f", dropout={self.dropout:g}" * (self.dropout > 0)
        options += ", self_loops=False" * (not self.self_loops)
        return f"{self.steps}, {self.alpha:g}{options}" + ", normalize=False" * (not self.normalize)


def _entries(
    plan: EdgePlan, weight: Tensor | None, s: Normalized | None, x: Tensor
) -> tuple[EdgePlan, Tensor]:
    """Returns the plan with loops, and the entry of S of each of its edges."""
    if s is None:
        return plan, x.new_ones(plan.num_edges) if weight is None else weight
    plan = s.plan
    entries = x.new_ones(plan.num_edges) if s.weight is None else s.weight
    if isinstance(s.loop, Tensor) or s.loop:  # there is no loop among the edges
        own = s.loop if isinstance(s.loop, Tensor) else entries.new_full((plan.num_dst,), s.loop)
        entries = torch.cat([entries, own.view(-1)])
        plan = with_loops(plan).plan
    scale = s.scale[:, 0]
    ends = gather(scale, plan.src, plan=plan.T) * gather(scale, plan.dst, plan=plan)
    return plan, entries * ends
