"""Batches of graphs that are too large to go through a network at once."""

from __future__ import annotations

from gnnlab.sampling.cluster import ClusterBatch, ClusterLoader, clusters, cut_edges
from gnnlab.sampling.loader import NeighborBatch, NeighborLoader
from gnnlab.sampling.neighbor import NeighborSampler, Sample

__all__ = [
    "ClusterBatch",
    "ClusterLoader",
    "NeighborBatch",
    "NeighborLoader",
    "NeighborSampler",
    "Sample",
    "clusters",
    "cut_edges",
]
