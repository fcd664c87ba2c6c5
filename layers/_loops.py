"""Edges from every node to itself, as GCN and GAT want them; made once per plan."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.ops import EdgePlan, scatter

__all__ = ["Loops", "has_loops", "mean_of_edges", "with_extra_loops", "with_loops"]


class Loops(NamedTuple):
    """A plan with one loop per node, after the edges that are no loops."""

    plan: EdgePlan
    kept: Tensor | None
    """Positions of the edges that are no loops, (E',); None: all of them."""
    old: Tensor
    """For each node the position of its last loop among the old edges, -1 without one; (N,)."""

    def weights(self, given: Tensor, fill: Tensor | float) -> Tensor:
        """Returns one entry per new edge: the given ones, and for loops the old loop's or `fill`.

        Shapes:
            given: (E, *); fill: a number or (N, *); returns: (E' + N, *).
        """
        edges = given if self.kept is None else given[self.kept]
        loops = given.new_full((len(self.old), *given.shape[1:]), 0.0) + fill
        if self.kept is not None:
            is_old = (self.old >= 0).view(-1, *[1] * (given.dim() - 1))
            loops = torch.where(is_old, given[self.old.clamp(min=0)], loops)
        return torch.cat([edges, loops])

    def fresh(self, given: Tensor, loops: Tensor) -> Tensor:
        """Returns one entry per new edge, loops taken from `loops` (N, *) whatever was there."""
        return torch.cat([given if self.kept is None else given[self.kept], loops])


def has_loops(plan: EdgePlan) -> bool:
    """Whether some edge leads from a node to itself."""
    return plan.derived("has loops", lambda: bool((plan.src == plan.dst).any()))


def with_loops(plan: EdgePlan) -> Loops:
    """Returns the plan with every loop replaced by exactly one per node."""

    def build() -> Loops:
        src, dst = plan.src.long(), plan.dst.long()
        nodes = torch.arange(plan.num_dst, device=plan.device)
        old = torch.full_like(nodes, -1)
        kept = None
        if has_loops(plan):
            loop = src == dst
            positions = loop.nonzero()[:, 0]
            old = old.scatter_reduce(0, dst[positions], positions, "amax")
            kept = (~loop).nonzero()[:, 0]
            src, dst = src[kept], dst[kept]
        ends = torch.stack([torch.cat([src, nodes]), torch.cat([dst, nodes])])
        made = EdgePlan(ends, plan.num_src, plan.num_dst, validate=False)
        return Loops(made, kept, old)

    return plan.derived("with loops", build)


def with_extra_loops(
    plan: EdgePlan, edge_attr: Tensor | None
) -> tuple[EdgePlan, Tensor | None, Tensor]:
    """Returns the plan with one more loop per node, and which edges count (old loops do not).

    The shapes do not depend on what the edges are, as torch.compile wants it.

    Returns:
        plan: E + N edges; edge_attr: (E + N, *), loops hold the mean of the node's other in-edges;
        counts: (E + N,) bool.
    """
    nodes = torch.arange(plan.num_dst, device=plan.device, dtype=plan.src.dtype)
    ends = torch.stack([torch.cat([plan.src, nodes]), torch.cat([plan.dst, nodes])])
    proper = plan.src != plan.dst
    if edge_attr is not None:
        share = proper.to(edge_attr.dtype)
        total = scatter(edge_attr * share[:, None], plan.dst, plan.num_dst, plan=plan)
        number = scatter(share, plan.dst, plan.num_dst, plan=plan).clamp(min=1)
        edge_attr = torch.cat([edge_attr, total / number[:, None]])
    made = EdgePlan(ends, plan.num_src, plan.num_dst, validate=False)
    return made, edge_attr, torch.cat([proper, torch.ones_like(nodes, dtype=torch.bool)])


def mean_of_edges(plan: EdgePlan, loops: Loops, given: Tensor) -> Tensor:
    """Returns for each node the mean of its in-edges' entries, loops left out; (N, *)."""
    dst = plan.dst
    if loops.kept is not None:
        given, dst = given[loops.kept], dst[loops.kept]
    return scatter(given, dst, plan.num_dst, reduce="mean")
