"""Message-passing layers: each takes tensors and edges, and gives tensors."""

from __future__ import annotations

from gnnlab.layers.gat import GATConv
from gnnlab.layers.gatv2 import GATv2Conv
from gnnlab.layers.gcn import GCNConv
from gnnlab.layers.gin import GINConv, GINEConv
from gnnlab.layers.lightgcn import LGConv
from gnnlab.layers.sage import SAGEConv
from gnnlab.layers.transformer import TransformerConv

__all__ = [
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "LGConv",
    "SAGEConv",
    "TransformerConv",
]
