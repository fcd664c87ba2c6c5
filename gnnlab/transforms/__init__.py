"""What is made of a graph once, before training: positions of its nodes, and coarser graphs."""

from __future__ import annotations

from gnnlab.transforms.coarsen import bistride, coarse_graph
from gnnlab.transforms.encodings import laplacian_encoding, random_walk_encoding
from gnnlab.transforms.hierarchy import Hierarchy

__all__ = [
    "Hierarchy",
    "bistride",
    "coarse_graph",
    "laplacian_encoding",
    "random_walk_encoding",
]
