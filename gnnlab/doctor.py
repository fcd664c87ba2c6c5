"""What `gnnlab doctor` looks at."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import torch

from gnnlab import ops
from gnnlab.experiment import environment
from gnnlab.registry import broken_tasks, list_tasks

__all__ = ["examine"]


def examine() -> dict[str, Any]:
    """Returns versions, kernels, devices, tasks, and the outcome of a short self-test."""
    about = environment()
    status = ops.status()
    broken = broken_tasks()
    return {
        "gnnlab": about["versions"]["gnnlab"],
        "python": about["python"],
        "versions": about["versions"],
        "platform": about["platform"],
        "processor": f"{about['processor']}, {about['cores']} cores, {about['threads']} threads",
        "device": about["device"],
        "backend": ops.backend(),
        "kernels": {k: v for k, v in dataclasses.asdict(status).items() if v not in ("", None)},
        "tasks": {n: broken.get(n, "ok") for n in list_tasks()},
        "self_test": _self_test(),
    }


def _self_test() -> str:
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 1000, (2, 20_000), generator=generator)
    x = torch.randn(1000, 32, generator=generator)
    plan = ops.EdgePlan(edges, 1000, 1000)
    found = ops.spmm(plan, x)
    dense = torch.zeros(1000, 1000, dtype=torch.float64)
    dense.index_put_((edges[1], edges[0]), torch.ones(20_000, dtype=torch.float64), accumulate=True)
    error = float((found.double() - dense @ x.double()).abs().max())
    seconds = time.perf_counter() - began
    if error > 1e-4:
        return f"failed: spmm differs from the dense product by {error:.2g}"
    return f"passed in {seconds:.2f} s (spmm against a dense product, error {error:.1g})"
