"""One graph with all that its cases share: plan, sorted edges, weights, and float64 formulas.

The formulas are the oracle of every case. They use numpy on edges sorted by numpy, share no code
with the operators, and look at a selection of columns (the first, the last and some between) or of
edges, so that wide rows on two million edges can be checked as well.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.bench._machine import Call
from gnnlab.bench.graphs import BenchGraph

__all__ = ["Case", "Setting", "some"]


def some(count: int, most: int = 12) -> np.ndarray:
    """Returns up to `most` positions out of `count`: the first, the last, and some between."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).astype(np.int64))


@dataclass
class Case:
    """One operator at one width on one graph: our call, its inputs, and what must come out."""

    op: str
    """Name, as in the table of targets. Peers answer to it as a method: "spmm sum": spmm_sum."""
    width: str
    """F, or H x D; empty where there is none."""
    setting: Setting
    size: int | None
    """bytes_gather; None where no formula is stated."""
    ours: Call | str
    """Our call, or the reason why there is none."""
    want: Any
    """Computes what `pick` must give, in float64."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Tensors by name, for the peers."""
    pick: Any = None
    """Selects the compared part of a result."""
    tolerance: float = 1e-3
    """Relative to the value, and to the root mean square of all values."""
    kind: str = ""
    """Name of the peers' method where it is not that of the operator."""

    @property
    def method(self) -> str:
        """Name of the peers' method."""
        return self.kind or re.sub(r"\W+", "_", self.op.lower()).strip("_")


class Setting:
    """A graph, sorted and weighted; `seed` draws all numbers."""

    src: Tensor
    dst: Tensor

    def __init__(self, graph: BenchGraph, seed: int = 0) -> None:
        self.graph, self.seed = graph, seed
        self.src, self.dst = graph.edge_index.contiguous()
        self.n, self.m, self.e = graph.num_src, graph.num_dst, graph.edge_index.shape[1]
        self.plan = ops.EdgePlan(graph.edge_index, self.n, self.m)

    def randn(self, name: str, *shape: int) -> Tensor:
        """Draws a tensor; the same name and shape give the same numbers."""
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + self.seed)
        return torch.randn(*shape, generator=generator)

    @cached_property
    def weight(self) -> Tensor:
        """One positive number per edge, in the caller's order."""
        return self.randn("weight", self.e).abs() + 0.1

    # ---- sorted by destination, for the formulas and for formats of peers -----------------------

    @cached_property
    def perm(self) -> Tensor:
        """The caller's edge at each place."""
        return torch.from_numpy(np.argsort(self.dst.numpy(), kind="stable"))

    @cached_property
    def col(self) -> Tensor:
        """Source at each place."""
        return self.src.index_select(0, self.perm)

    @cached_property
    def rows(self) -> Tensor:
        """Destination at each place."""
        return self.dst.index_select(0, self.perm)

    @cached_property
    def degree(self) -> Tensor:
        """Number of edges into each destination."""
        return torch.from_numpy(np.bincount(self.dst.numpy(), minlength=self.m))

    @cached_property
    def indptr(self) -> Tensor:
        """Where each destination begins."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.degree.cumsum(0)])

    # ---- formulas --------------------------------------------------------------------------------

    def reduce(self, terms: np.ndarray, how: str = "sum", by: str = "dst") -> np.ndarray:
        """Reduces `terms` (E, C), in order of `by`, to one row per destination (or source)."""
        degree = self.degree.numpy() if by == "dst" else np.bincount(self.src, minlength=self.n)
        filled = degree > 0
        starts = np.concatenate([[0], np.cumsum(degree)[:-1]])[filled]
        out = np.zeros((len(degree), terms.shape[1]))
        if len(starts):
            kind = np.maximum if how == "max" else np.add
            out[filled] = kind.reduceat(terms, starts, axis=0)
        return out / np.maximum(degree, 1)[:, None] if how == "mean" else out

    def to_sources(self, terms: np.ndarray) -> np.ndarray:
        """Adds `terms` (E, C), in the caller's order, to their sources."""
        order = np.argsort(self.src.numpy(), kind="stable")
        return self.reduce(terms[order], by="src")

    def terms(self, x: Tensor, columns: np.ndarray, weight: Tensor | None = None) -> np.ndarray:
        """Returns w x[src] in float64, in sorted order, for some columns of x (N, F)."""
        values: np.ndarray = x.double().numpy()[:, columns][self.col.numpy()]
        if weight is not None:
            share = weight.double().numpy()[self.perm.numpy()]
            values = values * share.reshape(len(share), -1)
        return values

    def softmax(self, logits: Tensor) -> np.ndarray:
        """Returns the softmax of logits (E, H) over the edges of each destination, as given."""
        rows, perm = self.rows.numpy(), self.perm.numpy()
        values = logits.double().numpy()[perm]
        values = np.exp(values - self.reduce(values, "max")[rows])
        out: np.ndarray = np.empty_like(values)
        out[perm] = values / self.reduce(values)[rows]
        return out

    def max_gradient(self, x: Tensor, grad: Tensor, columns: np.ndarray) -> np.ndarray:
        """Returns the gradient of x of the maximum: all of it goes to the first largest edge."""
        values = self.terms(x, columns)
        places, at = np.nonzero(values == self.reduce(values, "max")[self.rows.numpy()])
        rows = self.rows.numpy()[places]
        _, first = np.unique(rows * len(columns) + at, return_index=True)
        out = np.zeros((self.n, len(columns)))
        given = grad.double().numpy()[:, columns]
        np.add.at(out, (self.col.numpy()[places[first]], at[first]), given[rows[first], at[first]])
        return out
