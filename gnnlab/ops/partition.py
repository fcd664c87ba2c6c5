"""Partition of nodes: parts of about one size, few edges between them."""

from __future__ import annotations

import math
import operator

import torch
from torch import Tensor

from gnnlab.ops._library import cpu_library
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.reference_sample import stream

__all__ = ["partition"]


def partition(plan: EdgePlan, parts: int, *, slack: float = 0.1, passes: int = 10) -> Tensor:
    r"""Shares the nodes of a graph out over parts, so that few edges join different ones.

    Parts are grown one after the other, breadth first. Then all nodes come in that order, several
    times, and each goes to the part p with room where

    $$ \lvert \mathcal{N}(v) \cap p \rvert \, (C - \lvert p \rvert) $$

    is largest, with the neighbours along edges of either direction and
    C = ceil((1 + slack) N / parts); the lower p among equals. A node without neighbours in a part
    with room stays. The same plan gives the same parts on every machine.

    Args:
        plan: the edges of a graph, with as many sources as destinations.
        parts: how many parts.
        slack: by which share a part may be larger than the mean.
        passes: how often the nodes come.

    Shapes:
        returns: (N,) int64, from 0 to parts - 1. A part may be empty.

    Raises:
        ValueError: if a number is out of range, or the graph is bipartite.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, partition
        >>> plan = EdgePlan(torch.tensor([[0, 1, 2, 3, 1], [1, 0, 3, 2, 2]]), 4, 4)
        >>> partition(plan, 2, slack=0)
        tensor([0, 0, 1, 1])

    Reference: Stanton and Kliot, KDD 2012, doi:10.1145/2339530.2339722 (linear deterministic
    greedy); Nishimura and Ugander, KDD 2013, doi:10.1145/2487575.2487696 (streaming again).
    """
    if plan.num_src != plan.num_dst:
        raise ValueError(f"partition needs a graph whose sources can be targets, got {plan!r}")
    if operator.index(parts) < 1 or slack < 0 or operator.index(passes) < 1:
        raise ValueError(
            "partition needs at least 1 part, 1 pass and no negative slack, got "
            f"parts={parts}, passes={passes}, slack={slack}"
        )
    capacity = max(math.ceil((1 + slack) * plan.num_dst / parts), 1)
    order, back = plan.order, plan.T.order
    library = cpu_library(order.indptr)
    if library is None:
        return stream(plan.src, plan.dst, plan.num_dst, parts, capacity, passes)
    part = torch.empty(plan.num_dst, dtype=torch.int64)
    library.check(
        library.partition(order.locate(), back.locate(), parts, capacity, passes, part.data_ptr())
    )
    return part
