"""Measures the operators against torch, MKL, PyG and scipy on the same machine, in the same run.

Equality comes before speed: a peer whose result differs is reported as an error and not timed.
Times are CPU time of one thread (`time.thread_time`), peers take turns, and the median is kept: on
a shared machine that is steadier than wall time. Rates are of `bytes_gather`: every byte that an
operator must move when gathered rows are counted once per edge.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.bench.graphs import BenchGraph, bipartite, mesh, small_graphs
from gnnlab.experiment import environment

__all__ = ["run", "table"]

Call = Callable[[], Any]
WIDTHS = (1, 16, 64)


def run(quick: bool = False) -> dict[str, Any]:
    """Measures spmm sum, plan build, segment sum, gather and scatter sum on three graphs.

    Args:
        quick: fewer repeats and smaller graphs: seconds rather than minutes.

    Returns:
        A dict that can be written as JSON: "kind", "command", "environment", "machine" (instruction
        set, versions of peers, bandwidth), "skipped"
        (peers that are not installed) and "rows" (one per operator, graph and width).

    Raises:
        RuntimeError: if a result differs from the reference.

    Example:
        >>> from gnnlab.bench import ops
        >>> result = ops.run(quick=True)  # doctest: +SKIP
        >>> print(ops.table(result))  # doctest: +SKIP
    """
    graphs = (
        [mesh(60, 50), bipartite(2_000, 2_500, 60_000), small_graphs(64)]
        if quick
        else [mesh(), bipartite(), small_graphs()]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bandwidth = _copy_bandwidth(quick)
        rows = [
            _row(case, bandwidth, 5 if quick else 11) for graph in graphs for case in _cases(graph)
        ]
    finally:
        torch.set_num_threads(threads)
    return {
        "kind": "ops",
        "command": f"gnnlab bench ops{' --quick' * quick} --out docs/results/ops.json",
        "environment": environment(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "isa": ops.status().isa,
            "backend": ops.backend(),
            "threads": 1,
            "copy_gb_s": round(bandwidth, 2),
            "versions": {name: _version(name) for name in ("torch", "numpy", "scipy")},
        },
        "skipped": {name: "not installed" for name in _PEERS if _version(_PEERS[name]) is None},
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result of `run` as text: one line per operator, graph and width.

    Example:
        >>> from gnnlab.bench import ops
        >>> machine = {"isa": "v4", "backend": "cpu", "copy_gb_s": 12.0}
        >>> print(ops.table({"machine": machine, "skipped": {}, "rows": []}).splitlines()[0])
        1 thread, backend cpu, instruction set v4, copy 12.0 GB/s
    """
    machine = result["machine"]
    lines = [
        f"1 thread, backend {machine['backend']}, instruction set {machine['isa']}, "
        f"copy {machine['copy_gb_s']} GB/s",
        f"{'operator':<14} {'graph':<15} {'F':>3} {'ours ms':>9} {'GB/s':>6} {'of copy':>7} "
        f"{'best peer':<18} {'ms':>9} {'ratio':>6}",
    ]
    for row in result["rows"]:
        best = row["best_peer"]
        lines.append(
            f"{row['op']:<14} {row['graph']:<15} {row['width']:>3} {row['ms']:>9.3f} "
            f"{row['gb_s']:>6.1f} {row['of_copy']:>7.2f} {best or '-':<18} "
            f"{row['peers'].get(best, float('nan')):>9.3f} {row['ratio'] or float('nan'):>6.2f}"
        )
    lines += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines)


_PEERS = {"scipy": "scipy", "PyG": "torch_geometric"}


class _Case:
    """One operator on one graph: our call, the peers' calls and what they should all return."""

    def __init__(
        self, op: str, graph: BenchGraph, width: int, size: int, ours: Call, expected: Tensor | None
    ) -> None:
        self.op, self.graph, self.width, self.size = op, graph, width, size
        self.ours, self.expected = ours, expected
        self.peers: dict[str, Call] = {}


def _cases(graph: BenchGraph) -> Iterator[_Case]:
    """Yields the operators to measure on one graph."""
    src, dst = graph.edge_index
    n, m, e = graph.num_src, graph.num_dst, graph.edge_index.shape[1]
    plan = ops.EdgePlan(graph.edge_index, n, m)
    ones = np.ones(e, dtype=np.float32)
    sparse: Any = importlib.import_module("scipy.sparse") if _version("scipy") else None

    build = _Case("plan build", graph, 0, 16 * e + 8 * (m + 1) + 8 * e, lambda: _build(graph), None)
    build.peers["torch.sort"] = lambda: dst.sort(stable=True)
    if sparse:
        pair = (dst.numpy(), src.numpy())
        build.peers["scipy coo->csr"] = lambda: sparse.coo_matrix((ones, pair), (m, n)).tocsr()
    if _version("torch_geometric"):
        from torch_geometric.utils import index_sort

        build.peers["PyG index_sort"] = lambda: index_sort(dst, max_value=m)
    yield build

    matrix = _csr(plan, n, m)
    numpy_matrix = (
        sparse.csr_matrix((ones, plan.col.numpy(), plan.indptr.numpy()), (m, n)) if sparse else None
    )
    generator = torch.Generator().manual_seed(0)
    for width in WIDTHS:
        x = torch.randn(n, width, generator=generator)
        messages = torch.randn(e, width, generator=generator)
        yield _spmm_case(graph, plan, x, matrix, numpy_matrix)
        yield _segment_case(graph, plan, messages)
        yield _gather_case(graph, x)
        yield _scatter_case(graph, messages)


def _spmm_case(
    graph: BenchGraph, plan: ops.EdgePlan, x: Tensor, matrix: Tensor, other: Any
) -> _Case:
    (src, dst), width = graph.edge_index, x.shape[1]
    m, e = graph.num_dst, plan.num_edges
    zeros = torch.zeros(m, width)
    size = 8 * (m + 1) + 4 * e + 4 * width * (e + m)
    case = _Case(
        "spmm sum", graph, width, size, lambda: ops.spmm(plan, x), zeros.index_add(0, dst, x[src])
    )
    case.peers["torch CSR (MKL)"] = lambda: torch.sparse.mm(matrix, x)
    case.peers["gather+index_add"] = lambda: zeros.index_add(0, dst, x.index_select(0, src))
    if other is not None:
        array = x.numpy()
        case.peers["scipy"] = lambda: torch.from_numpy(other @ array)
    if _version("torch_geometric"):
        from torch_geometric.utils import scatter as pyg_scatter

        case.peers["PyG"] = lambda: pyg_scatter(x.index_select(0, src), dst, 0, m, "sum")
    return case


def _segment_case(graph: BenchGraph, plan: ops.EdgePlan, messages: Tensor) -> _Case:
    m, (e, width) = graph.num_dst, messages.shape
    indptr = plan.indptr
    rows = torch.arange(m).repeat_interleave(plan.counts)
    expected = torch.zeros(m, width).index_add(0, rows, messages)
    size = 8 * (m + 1) + 4 * width * (e + m)
    case = _Case("segment sum", graph, width, size, lambda: ops.segment(messages, indptr), expected)
    case.peers["segment_reduce"] = lambda: torch.segment_reduce(
        messages, "sum", offsets=indptr, axis=0
    )
    case.peers["index_add"] = lambda: torch.zeros(m, width).index_add_(0, rows, messages)
    if _version("torch_scatter"):
        torch_scatter: Any = importlib.import_module("torch_scatter")
        case.peers["torch_scatter"] = lambda: torch_scatter.segment_csr(messages, indptr)
    return case


def _gather_case(graph: BenchGraph, x: Tensor) -> _Case:
    src, width = graph.edge_index[0], x.shape[1]
    size = src.numel() * (8 + 8 * width)
    case = _Case("gather", graph, width, size, lambda: ops.gather(x, src), x[src])
    array, places = x.numpy(), src.numpy()
    case.peers["index_select"] = lambda: x.index_select(0, src)
    case.peers["numpy.take"] = lambda: torch.from_numpy(np.take(array, places, axis=0))
    return case


def _scatter_case(graph: BenchGraph, messages: Tensor) -> _Case:
    dst, m, (e, width) = graph.edge_index[1], graph.num_dst, messages.shape
    size = 8 * e + 4 * width * (e + m)
    expected = torch.zeros(m, width).index_add(0, dst, messages)
    case = _Case("scatter sum", graph, width, size, lambda: ops.scatter(messages, dst, m), expected)
    case.peers["index_add"] = lambda: torch.zeros(m, width).index_add_(0, dst, messages)
    if _version("torch_geometric"):
        from torch_geometric.utils import scatter as pyg_scatter

        case.peers["PyG"] = lambda: pyg_scatter(messages, dst, 0, m, "sum")
    return case


def _row(case: _Case, bandwidth: float, repeats: int) -> dict[str, Any]:
    """Checks that all agree, then measures all in turn."""
    if case.expected is not None:
        for name, call in {"gnnlab": case.ours, **case.peers}.items():
            if not torch.allclose(call(), case.expected, rtol=1e-3, atol=1e-2):
                raise RuntimeError(f"{case.op} on {case.graph.name}: {name} gives another result")
    calls = {"": case.ours, **case.peers}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if turn:  # the first turn warms up
                times[name].append((time.thread_time() - start) * 1e3)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = max(medians.pop(""), 1e-6)
    best = min(medians, key=medians.__getitem__) if medians else None
    rate = case.size / ours / 1e6
    return {
        "op": case.op,
        "graph": case.graph.name,
        "width": case.width,
        "ms": ours,
        "gb_s": rate,
        "of_copy": rate / bandwidth,
        "peers": medians,
        "best_peer": best,
        "ratio": medians[best] / ours if best else None,
    }


def _build(graph: BenchGraph) -> Tensor:
    """Checks and sorts edges as the first operator call on a new graph does."""
    return ops.EdgePlan(graph.edge_index, graph.num_src, graph.num_dst).indptr


def _csr(plan: ops.EdgePlan, num_src: int, num_dst: int) -> Tensor:
    """Returns the plan as torch's own sparse matrix, with indices of MKL's width."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its CSR is in beta
        return torch.sparse_csr_tensor(
            plan.indptr.int(), plan.col.int(), torch.ones(plan.num_edges), (num_dst, num_src)
        )


def _copy_bandwidth(quick: bool) -> float:
    """Returns GB/s (read + written) of copying an array much larger than the caches."""
    source = torch.ones((1 << 24) if quick else (1 << 26))
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        target.copy_(source)
        best = min(best, time.thread_time() - start)
    return 8 * source.numel() / best / 1e9


def _version(package: str) -> str | None:
    """Returns the version of an installed package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
