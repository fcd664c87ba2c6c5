"""Operators on graphs: fast kernels where they exist, plain torch everywhere else.

The user never chooses: `backend()` says which implementation runs, `status()` says why.
"""

from __future__ import annotations

from gnnlab.ops._library import Backend, Status, backend, status, use_backend
from gnnlab.ops.gather import gather
from gnnlab.ops.plan import EdgePlan
from gnnlab.ops.scatter import scatter, segment
from gnnlab.ops.spmm import spmm

__all__ = [
    "Backend",
    "EdgePlan",
    "Status",
    "backend",
    "gather",
    "scatter",
    "segment",
    "spmm",
    "status",
    "use_backend",
]
