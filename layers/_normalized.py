"""The normalised adjacency of GCN and its relatives, as an operator on features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.layers._loops import has_loops, with_loops
from gnnlab.ops import EdgePlan, scatter, spmm

__all__ = ["Normalized", "inverse_root_degree", "normalized"]


class Normalized(NamedTuple):
    """S x = D^-1/2 (A + loop I) D^-1/2 x, from a plain sum between two scalings."""

    plan: EdgePlan
    weight: Tensor | None
    """Weights of A; None: 1."""
    loop: float | Tensor
    """Weight of the loops that are not edges of the plan; one, or one per node (N, 1)."""
    scale: Tensor
    """D^-1/2 as a column, (N, 1)."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns S x, (N, F)."""
        x = self.scale * x
        total = spmm(self.plan, x, self.weight)
        if isinstance(self.loop, Tensor) or self.loop not in (0, 1):
            total = total + self.loop * x
        elif self.loop:
            total = total + x
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
    if loop and torch.compiler.is_compiling():  # shapes may not depend on the edges there
        weight, own = _without_loops(plan, weight, loop, dtype)
        scale = inverse_root_degree(plan, weight, own, dtype)
        return Normalized(plan, weight, own.unsqueeze(1), scale)
    if loop and has_loops(plan):  # loops among the edges keep their weight
        loops = with_loops(plan)
        given = torch.ones(plan.num_edges, dtype=dtype, device=plan.device)
        weight = loops.weights(given if weight is None else weight, loop)
        plan, loop = loops.plan, 0.0
    return Normalized(plan, weight, loop, inverse_root_degree(plan, weight, loop, dtype))


def _without_loops(
    plan: EdgePlan, weight: Tensor | None, loop: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns weights that are 0 on loops (E,), and that of each node's loop, or `loop` (N,)."""
    given = (
        torch.ones(plan.num_edges, dtype=dtype, device=plan.device) if weight is None else weight
    )
    nowhere = plan.num_dst
    at = torch.where(plan.src == plan.dst, plan.dst, nowhere).long()
    order = torch.arange(plan.num_edges, device=plan.device)
    last = order.new_full((nowhere + 1,), -1).scatter_reduce(0, at, order, "amax")[:nowhere]
    own = torch.cat([given, given.new_full((1,), loop)])[last]  # -1 is the place behind the edges
    return torch.where(plan.src == plan.dst, 0.0, given), own


def inverse_root_degree(
    plan: EdgePlan, weight: Tensor | None, loop: float | Tensor, dtype: torch.dtype
) -> Tensor:
    """Returns 1 / sqrt(d) as a column, 0 where d is not positive; (M, 1).

    d is the number of in-edges, or the sum of their weights, plus `loop`. Without weights it is
    computed once per plan.
    """
    if weight is None:
        return plan.derived(
            ("inverse root degree", loop, dtype),
            lambda: _inverse_root(plan.counts.double() + loop).to(dtype),
        )
    return _inverse_root(scatter(weight, plan.dst, plan.num_dst, plan=plan) + loop)


def _inverse_root(degree: Tensor) -> Tensor:
    positive = degree > 0
    return torch.where(positive, torch.where(positive, degree, 1.0).rsqrt(), 0.0).unsqueeze(1)
