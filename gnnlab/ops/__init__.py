"""Operators on graphs: fast kernels where they exist, plain torch everywhere else.

The user never chooses: `backend()` says which implementation runs, `status()` says why.
"""

from __future__ import annotations

from gnnlab.ops._library import Backend, Status, backend, status, use_backend
from gnnlab.ops.attention import attention_aggregate, gat_aggregate, gatv2_aggregate
from gnnlab.ops.gather import gather
from gnnlab.ops.messages import gated_aggregate, relu_aggregate
from gnnlab.ops.neighbor_list import NeighborList
from gnnlab.ops.neighbors import knn, knn_graph, knn_table, radius, radius_graph
from gnnlab.ops.partition import partition
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.sample import Hops, Neighbors, sample_hops, sample_neighbors
from gnnlab.ops.scatter import scatter, scatter_arg, segment
from gnnlab.ops.sddmm import sddmm
from gnnlab.ops.softmax import (
    edge_softmax,
    segment_log_softmax,
    segment_logsumexp,
    segment_softmax,
    segment_std,
)
from gnnlab.ops.spmm import spmm, spmm_multi

__all__ = [
    "Backend",
    "EdgePlan",
    "Hops",
    "NeighborList",
    "Neighbors",
    "Status",
    "attention_aggregate",
    "backend",
    "edge_softmax",
    "gat_aggregate",
    "gated_aggregate",
    "gather",
    "gatv2_aggregate",
    "knn",
    "knn_graph",
    "knn_table",
    "partition",
    "radius",
    "radius_graph",
    "relu_aggregate",
    "sample_hops",
    "sample_neighbors",
    "scatter",
    "scatter_arg",
    "sddmm",
    "segment",
    "segment_log_softmax",
    "segment_logsumexp",
    "segment_softmax",
    "segment_std",
    "spmm",
    "spmm_multi",
    "status",
    "use_backend",
]
