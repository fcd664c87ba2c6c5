"""Message-passing layers: each takes tensors and edges, and gives tensors."""

from __future__ import annotations

from gnnlab.layers.lightgcn import LGConv

__all__ = ["LGConv"]
