"""Message-passing layers: each takes tensors and edges, and gives tensors."""

from __future__ import annotations

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import prepare
from gnnlab.layers.appnp import APPNP
from gnnlab.layers.cgcnn import CGConv
from gnnlab.layers.cheb import ChebConv
from gnnlab.layers.edge_conv import EdgeConv
from gnnlab.layers.gat import GATConv
from gnnlab.layers.gated import ResGatedGraphConv
from gnnlab.layers.gatv2 import GATv2Conv
from gnnlab.layers.gcn import GCNConv
from gnnlab.layers.gin import GINConv, GINEConv
from gnnlab.layers.jumping import JumpingKnowledge
from gnnlab.layers.lightgcn import LGConv
from gnnlab.layers.nnconv import NNConv
from gnnlab.layers.norm import GraphNorm, LayerNorm, PairNorm
from gnnlab.layers.pna import PNAConv
from gnnlab.layers.readout import AttentionReadout, Readout, SoftmaxReadout
from gnnlab.layers.sage import SAGEConv
from gnnlab.layers.sgc import SGConv
from gnnlab.layers.transformer import TransformerConv

__all__ = [
    "APPNP",
    "AttentionReadout",
    "CGConv",
    "ChebConv",
    "EdgeConv",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GraphNorm",
    "JumpingKnowledge",
    "LGConv",
    "Layer",
    "LayerNorm",
    "NNConv",
    "PNAConv",
    "PairNorm",
    "Readout",
    "ResGatedGraphConv",
    "SAGEConv",
    "SGConv",
    "SoftmaxReadout",
    "TransformerConv",
    "prepare",
]
