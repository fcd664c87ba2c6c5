"""What is made of a graph once, before training: positions of its nodes."""

from __future__ import annotations

from gnnlab.transforms.encodings import laplacian_encoding, random_walk_encoding

__all__ = ["laplacian_encoding", "random_walk_encoding"]
