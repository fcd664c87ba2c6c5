"""NeighborLoader: sampled batches, made while the network is busy with the one before."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gnnlab.data import HostFeatures
from gnnlab.graph import Graph
from gnnlab.ops._arguments import check_index, index_vector
from gnnlab.sampling._batches import Rows, ahead, fetch, mix, order_of, with_rows
from gnnlab.sampling.neighbor import NeighborSampler, Sample

__all__ = ["NeighborBatch", "NeighborLoader"]


@final
@dataclass(frozen=True, eq=False)
class NeighborBatch:
    """Seeds, what surrounds them, and their rows of the tables."""

    seeds: Tensor
    """The nodes to be computed: (B,) int64, as the loader got them."""
    sample: Sample
    """Their surroundings; `sample.seeds` are their rows in the network's result."""
    x: Tensor | None
    """Features of `sample.nodes`: (n, *F); None without features."""
    y: Tensor | None
    """Labels of `seeds`: (B, ...); None without labels."""

    @property
    def nodes(self) -> Tensor:
        """The nodes that rows of x stand for: (n,) int64."""
        return self.sample.nodes

    @property
    def blocks(self) -> tuple[Graph, ...]:
        """One bipartite graph per layer; see `Sample`."""
        return self.sample.blocks


@final
class NeighborLoader:
    """Goes through nodes in batches, with their neighbours and rows of tables.

    A thread samples and gathers up to `prefetch` batches ahead. Batches depend on the arguments and
    the epoch, not on `prefetch` or the number of threads. Each pass is another epoch.

    Args:
        sampler: how to sample.
        features: one row per node of the graph; None if the network looks rows up itself.
        labels: one entry per node of the graph, on the CPU; None for none.
        nodes: the nodes to go through: ids (n,), or a mask (N,) of bool; None for all.
        batch_size: seeds per batch; the last batch may be smaller.
        shuffle: whether nodes come in another random order each epoch.
        drop_last: whether to leave out a last batch that is smaller.
        seed: of the order and the samples.
        prefetch: how many batches to be ahead; 0 works without a thread.

    Raises:
        IndexError: if a node is not in the graph.
        ValueError: if a table does not have one row per node, or a number is out of range.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.sampling import NeighborLoader, NeighborSampler
        >>> graph = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), 4)
        >>> loader = NeighborLoader(NeighborSampler(graph, (2,)), torch.eye(4), batch_size=2)
        >>> [batch.nodes.tolist() for batch in loader]
        [[0, 1, 3], [2, 3, 1]]

    On a GPU, features in a `HostFeatures` of that device bring the whole batch there.
    """

    def __init__(
        self,
        sampler: NeighborSampler,
        features: Tensor | HostFeatures | None = None,
        labels: Tensor | None = None,
        *,
        nodes: Tensor | None = None,
        batch_size: int = 1024,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        size = sampler.graph.num_nodes
        for name, value, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0)):
            if operator.index(value) < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if labels is not None and labels.shape[:1] != (size,):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}, but the graph has {size} nodes"
            )
        self.sampler, self.labels = sampler, labels
        self.features = with_rows(features, "features", size)
        self.nodes = _ids(nodes, size)
        self.batch_size, self.prefetch = batch_size, prefetch
        self.shuffle, self.drop_last, self.seed = shuffle, drop_last, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass is; later ones count on from there."""
        self._epoch = operator.index(epoch)

    def __len__(self) -> int:
        """Returns the number of batches."""
        whole, rest = divmod(self.nodes.shape[0], self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[NeighborBatch]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        order = order_of(self.nodes.shape[0], self.shuffle, self.seed, epoch)
        size = self.batch_size

        def make(i: int) -> tuple[Tensor, Sample, Rows, Tensor | None]:
            seeds = self.nodes[order[i * size : (i + 1) * size]]
            sample = self.sampler(seeds, seed=mix(self.seed, epoch, i))
            y = None if self.labels is None else self.labels[seeds]
            return seeds, sample, fetch(self.features, sample.nodes), y

        return self._batches(ahead(make, len(self), self.prefetch))

    def _batches(
        self, parts: Generator[tuple[Tensor, Sample, Rows, Tensor | None]]
    ) -> Iterator[NeighborBatch]:
        with closing(parts):
            for seeds, sample, rows, y in parts:
                x = rows()
                if x is not None and x.device != seeds.device:
                    seeds, sample = seeds.to(x.device), sample.to(x.device)
                    y = None if y is None else y.to(x.device)
                yield NeighborBatch(seeds, sample, x, y)

    def __repr__(self) -> str:
        return f"NeighborLoader({self.sampler!r}, {len(self)} batches of {self.batch_size})"


def _ids(nodes: Tensor | None, size: int) -> Tensor:
    """Returns the nodes to go through, (n,) int64."""
    if nodes is None:
        return torch.arange(size)
    if nodes.dtype == torch.bool:
        if nodes.shape != (size,):
            raise ValueError(
                f"nodes as a mask must have shape ({size},), one entry per node, "
                f"got {tuple(nodes.shape)}"
            )
        return nodes.nonzero().view(-1)
    ids = index_vector(nodes, "nodes").long()
    try:
        check_index(ids, size)
    except IndexError as error:
        raise IndexError(f"nodes: {error}") from None
    return ids
