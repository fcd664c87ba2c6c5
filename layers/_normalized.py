"""The normalised adjacency of GCN and its relatives, as an operator on features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.layers._loops import has_loops, with_loops
from gnnlab.ops import EdgePlan, scatter, spmm

__all__ = ["Normalized", "inverse_root", "normalized"]


class Normalized(NamedTuple):
    """S x = D^-1/2 (A + loop I) D^-1/2 x, from a plain sum between two scalings."""

    plan: EdgePlan
    weight: Tensor | None
    """Weights of A; None: 1."""
    loop: float
    """Weight of the loops that are not edges of the plan."""
    scale: Tensor
    """D^-1/2 as a column, (N, 1)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns S x, (N, F)."""
        x = self.scale * x
        total = spmm(self.plan, x, self.weight)
        if self.loop:
            total = total + (x if self.loop == 1 else self.loop * x)
        return self.scale * total


def normalized(
    plan: EdgePlan, weight: Tensor | None, loop: float, dtype: torch.dtype
) -> Normalized:
    """Returns the operator; degrees without weights are computed once per plan.

    Args:
        plan: the edges.
        weight: one number per edge, or None.
        loop: weight of the loop of a node that has none among the edges; 0: no loops are added.
        dtype: of the features.
    """
    if loop and has_loops(plan):  # loops among the edges keep their weight
        loops = with_loops(plan)
        given = torch.ones(plan.num_edges, dtype=dtype, device=plan.device)
        weight = loops.weights(given if weight is None else weight, loop)
        plan, loop = loops.plan, 0.0
    if weight is None:
        scale = plan.derived(
            ("inverse root degree", loop, dtype),
            lambda: inverse_root(plan.counts.double() + loop).to(dtype),
        )
    else:
        scale = inverse_root(scatter(weight, plan.dst, plan.num_dst, plan=plan) + loop)
    return Normalized(plan, weight, loop, scale)


def inverse_root(degree: Tensor) -> Tensor:
    """Returns 1 / sqrt(d) as a column, 0 where d is not positive; (N, 1)."""
    positive = degree > 0
    return torch.where(positive, torch.where(positive, degree, 1.0).rsqrt(), 0.0).unsqueeze(1)
