"""What a call costs on a graph of four nodes, and what a second thread gives on a large one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from gnnlab import ops
from gnnlab.bench._machine import Call, clock_of, measure, per_call
from gnnlab.bench._setting import Setting
from gnnlab.bench.graphs import BenchGraph
from gnnlab.bench.peers import Family
from gnnlab.bench.targets import MICROSECONDS

__all__ = ["overheads", "scaling"]


def overheads(classes: Mapping[str, type[Family]], quick: bool) -> list[dict[str, Any]]:
    """Returns microseconds per call on 4 nodes and 4 edges, F = 4, forward only.

    Args:
        classes: families of peers that are installed.
        quick: fewer calls.
    """
    index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    setting = Setting(BenchGraph("tiny", index, 4, 4))
    x, plan, dst = torch.ones(4, 4), setting.plan, index[1]
    tracked = x.clone().requires_grad_()
    jobs: dict[str, Callable[[], Any]] = {
        "spmm": lambda: ops.spmm(plan, x),
        "spmm with grad": lambda: ops.spmm(plan, tracked),
    }
    peers = {name: family(setting) for name, family in classes.items()}
    if "torch" in peers:
        matrix = peers["torch"].matrix  # type: ignore[attr-defined]
        out = torch.zeros(4, 4)
        jobs["torch index_add_"] = lambda: out.index_add_(0, dst, x)
        jobs["torch.sparse.mm"] = lambda: torch.sparse.mm(matrix, x)
    if "pyg" in peers:
        scatter = importlib.import_module("torch_geometric.utils").scatter
        jobs["PyG scatter"] = lambda: scatter(x, dst, 0, 4, "sum")
    if "scatter" in peers:
        sums = importlib.import_module("torch_scatter").scatter
        jobs["torch_scatter"] = lambda: sums(x, dst, 0, dim_size=4, reduce="sum")
    if "dgl" in peers:
        graph, product = peers["dgl"].graph, importlib.import_module("dgl.ops").gspmm  # type: ignore[attr-defined]
        jobs["DGL copy_u"] = lambda: product(graph, "copy_lhs", "sum", x, None)
    calls, batches = (50, 5) if quick else (500, 15)
    return [
        {
            "call": name,
            "us": round(per_call(run, calls, batches), 2),
            "target": MICROSECONDS.get(name),
        }
        for name, run in jobs.items()
    ]


def scaling(graph: BenchGraph, quick: bool) -> dict[str, Any] | None:
    """Returns wall times of spmm sum, F = 64, with one thread and with all; None on one core."""
    cores = os.cpu_count() or 1
    if cores == 1:
        return None
    setting = Setting(graph)
    x = setting.randn("x", setting.n, 64)
    found: dict[str, Any] = {"op": "spmm sum", "graph": graph.name, "width": "64"}
    before = torch.get_num_threads()
    try:
        for threads in (1, cores):
            torch.set_num_threads(threads)
            call = Call(lambda: ops.spmm(setting.plan, x))
            first = call.timed(clock_of(wall=True))[1]
            times = measure({"": call}, {"": first}, wall=True, repeats=3 if quick else 15)[""]
            found[f"{threads}"] = {"median": round(times.median, 3), "least": round(times.least, 3)}
    finally:
        torch.set_num_threads(before)
    found["threads"] = cores
    found["speed_up"] = round(found["1"]["least"] / found[f"{cores}"]["least"], 2)
    return found
