"""Which graph a node belongs to, and what readouts and normalisations do with that."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gnnlab.ops import scatter

__all__ = ["Batch", "per_graph", "spread"]

Batch = Tensor | None
"""The graph of each node, (N,) int64; None: all nodes are of one graph."""


def per_graph(
    x: Tensor, batch: Batch, num_graphs: int | None, reduce: Literal["sum", "mean", "max"]
) -> Tensor:
    """Returns one row per graph, (G, F); graphs without nodes get 0.

    Args:
        x: one row per node, (N, F).
        batch: the graph of each node.
        num_graphs: G; the largest entry of batch plus 1 without it, which waits for a GPU.
        reduce: how the rows of a graph become one.

    Raises:
        ValueError: if batch is not one number per node.
    """
    if batch is None:
        if reduce == "max":
            return x.amax(0, keepdim=True) if len(x) else x.new_zeros(1, *x.shape[1:])
        total = x.sum(0, keepdim=True)
        return total / max(len(x), 1) if reduce == "mean" else total
    if batch.shape != x.shape[:1]:
        raise ValueError(
            f"batch must hold one graph per node, shape ({len(x)},), got {tuple(batch.shape)}"
        )
    return scatter(x, batch, num_graphs, reduce=reduce)


def spread(rows: Tensor, batch: Batch) -> Tensor:
    """Returns each node's graph's row: (N, F), or (1, F) for one graph."""
    return rows if batch is None else rows.index_select(0, batch)
