"""Message-passing layers: each takes tensors and edges, and gives tensors."""

from __future__ import annotations

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import prepare
from gnnlab.layers.appnp import APPNP
from gnnlab.layers.cgcnn import CGConv
from gnnlab.layers.cheb import ChebConv
from gnnlab.layers.decoders import (
    BilinearDecoder,
    DistMultDecoder,
    InnerProductDecoder,
    MLPDecoder,
)
from gnnlab.layers.drop_edge import DropEdge, edge_dropout_weight
from gnnlab.layers.edge_conv import DynamicEdgeConv, EdgeConv
from gnnlab.layers.gat import GATConv
from gnnlab.layers.gated import ResGatedGraphConv
from gnnlab.layers.gatv2 import GATv2Conv
from gnnlab.layers.gcn import GCNConv
from gnnlab.layers.gin import GINConv, GINEConv
from gnnlab.layers.heterogeneous import HeteroConv
from gnnlab.layers.hgt import HGTConv
from gnnlab.layers.interaction import InteractionBlock
from gnnlab.layers.jumping import JumpingKnowledge
from gnnlab.layers.lightgcn import LGConv
from gnnlab.layers.mesh_transformer import (
    ContactTransformerBlock,
    EdgeModulatedAttention,
    MeshTransformerBlock,
)
from gnnlab.layers.mlp import MLP
from gnnlab.layers.nnconv import NNConv
from gnnlab.layers.norm import GraphNorm, LayerNorm, PairNorm
from gnnlab.layers.pna import PNAConv
from gnnlab.layers.pool import BistrideTransfer, pool, unpool
from gnnlab.layers.readout import AttentionReadout, Readout, SoftmaxReadout
from gnnlab.layers.rgcn import RGCNConv
from gnnlab.layers.sage import SAGEConv
from gnnlab.layers.sgc import SGConv
from gnnlab.layers.signed import SignedConv
from gnnlab.layers.simple_hgn import SimpleHGNConv
from gnnlab.layers.stack import DeepStack
from gnnlab.layers.temporal import Events, Memory, MemoryUpdater, TimeEncoder
from gnnlab.layers.topk import Pooled, TopKPooling
from gnnlab.layers.transformer import TransformerConv

__all__ = [
    "APPNP",
    "MLP",
    "AttentionReadout",
    "BilinearDecoder",
    "BistrideTransfer",
    "CGConv",
    "ChebConv",
    "ContactTransformerBlock",
    "DeepStack",
    "DistMultDecoder",
    "DropEdge",
    "DynamicEdgeConv",
    "EdgeConv",
    "EdgeModulatedAttention",
    "Events",
    "GATConv",
    "GATv2Conv",
    "GCNConv",
    "GINConv",
    "GINEConv",
    "GraphNorm",
    "HGTConv",
    "HeteroConv",
    "InnerProductDecoder",
    "InteractionBlock",
    "JumpingKnowledge",
    "LGConv",
    "Layer",
    "LayerNorm",
    "MLPDecoder",
    "Memory",
    "MemoryUpdater",
    "MeshTransformerBlock",
    "NNConv",
    "PNAConv",
    "PairNorm",
    "Pooled",
    "RGCNConv",
    "Readout",
    "ResGatedGraphConv",
    "SAGEConv",
    "SGConv",
    "SignedConv",
    "SimpleHGNConv",
    "SoftmaxReadout",
    "TimeEncoder",
    "TopKPooling",
    "TransformerConv",
    "edge_dropout_weight",
    "pool",
    "prepare",
    "unpool",
]
