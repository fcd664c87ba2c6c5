"""Samplers on a large power-law graph, an epoch of GraphSAGE with its memory, and clusters.

All samplers take turns on the same batches, on one thread. The epoch runs in a process of its own,
which makes the graph too, so that its peak memory is all that a user needs.
"""

from __future__ import annotations

import importlib
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gnnlab.bench._machine import _status, version
from gnnlab.bench.graphs import BenchGraph, mesh, power_law
from gnnlab.experiment import environment
from gnnlab.graph import Graph
from gnnlab.layers import SAGEConv
from gnnlab.report import text_table
from gnnlab.sampling import NeighborLoader, NeighborSampler, clusters, cut_edges

__all__ = ["epoch", "run", "table"]

FANOUTS = (15, 10)
BATCH = 1024
TARGETS = {"pure Python": 10.0, "DGL": 2.0}
MEMORY = 8.0
"""GB that the epoch may take at its peak."""
_SIZES = {False: (1_000_000, 20_000_000), True: (20_000, 400_000)}

Sampled = Callable[[Tensor, int], tuple[int, int]]
"""Samples around seeds with a random seed; returns the number of nodes and edges."""


def run(quick: bool = False, *, progress: bool = False) -> dict[str, Any]:
    """Measures samplers, the epoch and clusters.

    Args:
        quick: a graph of 20,000 nodes, and few batches.
        progress: whether to say on stderr what is being measured.
    """
    begin = time.perf_counter()
    say = _say if progress else _silent
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, skipped, sizes = _samplers(quick, say)
    finally:
        torch.set_num_threads(before)
    say("epoch")
    trained = _epoch_apart(quick)
    say("clusters")
    return {
        "kind": "sampling",
        "name": "sampling",
        "about": "neighbour samplers on a power-law graph, an epoch of GraphSAGE, and clusters",
        "command": "gnnlab bench sampling"
        + " --quick" * quick
        + " --out docs/results/sampling.json",
        "environment": {**environment(), "threads": 1},
        "seconds": round(time.perf_counter() - begin),
        "graph": sizes,
        "fanouts": list(FANOUTS),
        "batch_size": BATCH,
        "versions": {n: v for n in ("dgl", "torch-geometric", "pymetis") if (v := version(n))},
        "rows": rows,
        "skipped": skipped,
        "epoch": trained,
        "clusters": _clusters(quick),
    }


# ---- samplers ------------------------------------------------------------------------------------


def _samplers(
    quick: bool, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], dict[str, str], dict[str, Any]]:
    """Returns a row per sampler, why others are missing, and the sizes of the graph."""
    say("graph")
    graph = power_law(*_SIZES[quick])
    samplers: dict[str, Sampled] = {"gnnlab": _ours(graph)}
    skipped: dict[str, str] = {}
    for name, make in (("DGL", _dgl), ("PyG", _pyg), ("pure Python", _python)):
        try:
            samplers[name] = make(graph)
        except Exception as error:  # a library that breaks must not end the run
            skipped[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    order = torch.randperm(graph.num_dst, generator=torch.Generator().manual_seed(0))
    batches = order[: BATCH * (5 if quick else 25)].view(-1, BATCH)
    taken: dict[str, list[float]] = {name: [] for name in samplers}
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in samplers}
    say("samplers")
    for turn, seeds in enumerate(batches):
        for name, sample in samplers.items():
            start = time.process_time()
            sizes = sample(seeds, turn)
            if turn:  # the first one makes tables and formats
                taken[name].append((time.process_time() - start) * 1e3)
                found[name].append(sizes)
    ours = statistics.median(taken["gnnlab"])
    rows = []
    for name, times in taken.items():
        row = {
            "sampler": name,
            "ms": statistics.median(times),
            "least ms": min(times),
            "nodes": round(statistics.mean(n for n, _ in found[name])),
            "edges": round(statistics.mean(e for _, e in found[name])),
            "ratio": None if name == "gnnlab" else statistics.median(times) / ours,
            "target": TARGETS.get(name),
        }
        rows.append(row)
    about = {"name": "power-law", "nodes": graph.num_dst, "edges": graph.edge_index.shape[1]}
    return rows, skipped, {**about, "batches": len(batches) - 1}


def _ours(graph: BenchGraph) -> Sampled:
    sampler = NeighborSampler(Graph(graph.edge_index, graph.num_dst), FANOUTS)
    _ = sampler.graph.plan.order

    def sample(seeds: Tensor, seed: int) -> tuple[int, int]:
        found = sampler(seeds, seed=seed)
        _ = [block.plan.order for block in found.blocks], found.edge_ids  # as peers have them
        return found.num_nodes[-1], found.num_edges[-1]

    return sample


def _dgl(graph: BenchGraph) -> Sampled:
    dgl: Any = importlib.import_module("dgl")
    whole = dgl.graph(tuple(graph.edge_index), num_nodes=graph.num_dst).formats(["csc"])
    whole.create_formats_()
    sampler = dgl.dataloading.MultiLayerNeighborSampler(list(FANOUTS[::-1]))

    def sample(seeds: Tensor, seed: int) -> tuple[int, int]:
        nodes, _, blocks = sampler.sample(whole, seeds)
        return len(nodes), sum(block.num_edges() for block in blocks)

    return sample


def _pyg(graph: BenchGraph) -> Sampled:
    """PyG's own sampler, which needs one of its compiled extensions."""
    data: Any = importlib.import_module("torch_geometric.data")
    sampling: Any = importlib.import_module("torch_geometric.sampler")
    whole = data.Data(edge_index=graph.edge_index, num_nodes=graph.num_dst)
    sampler = sampling.NeighborSampler(whole, num_neighbors=list(FANOUTS))

    def sample(seeds: Tensor, seed: int) -> tuple[int, int]:
        found = sampler.sample_from_nodes(sampling.NodeSamplerInput(None, seeds))
        return len(found.node), len(found.row)

    sample(torch.arange(1), 0)  # refuses here without its extensions
    return sample


def _python(graph: BenchGraph) -> Sampled:
    """What is left without extensions: a loop over nodes on the rows of a CSR matrix."""
    src, dst = graph.edge_index.numpy()
    perm = np.argsort(dst, kind="stable")
    col = src[perm]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(dst, minlength=graph.num_dst))]).tolist()

    def sample(seeds: Tensor, seed: int) -> tuple[int, int]:
        draw = random.Random(seed)
        frontier = seeds.tolist()
        number = {node: i for i, node in enumerate(frontier)}
        rows: list[int] = []
        cols: list[int] = []
        edges: list[int] = []
        for k in FANOUTS:
            begin = len(number)
            for node in frontier:
                row = range(indptr[node], indptr[node + 1])
                places = draw.sample(row, k) if len(row) > k else list(row)
                edges += perm[places].tolist()
                here = number[node]
                for neighbor in col[places].tolist():
                    cols.append(number.setdefault(neighbor, len(number)))
                    rows.append(here)
            frontier = list(number)[begin:]
        _ = torch.tensor([cols, rows]), torch.tensor(edges), torch.tensor(list(number))
        return len(number), len(edges)

    return sample


# ---- epoch ---------------------------------------------------------------------------------------


def epoch(quick: bool = False) -> dict[str, Any]:
    """Trains a two-layer GraphSAGE for one epoch over all nodes, and returns times and memory.

    64 random features, 64 hidden units, 16 classes. Run it in a fresh process: the peak is that of
    the process so far, the making of the graph included.
    """
    torch.manual_seed(0)
    begin = time.perf_counter()
    made = power_law(*_SIZES[quick])
    size = made.num_dst
    graph = Graph(made.edge_index, size)
    _ = graph.plan.order
    x, y = torch.randn(size, 64), torch.randint(0, 16, (size,))
    ready = time.perf_counter() - begin
    convs = nn.ModuleList([SAGEConv(64, 64), SAGEConv(64, 16)])
    optimizer = torch.optim.Adam(convs.parameters())
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": True}

    def train(nodes: Tensor, prefetch: int) -> float:
        loader: Any = NeighborLoader(
            NeighborSampler(graph, FANOUTS), x, y, nodes=nodes, prefetch=prefetch, **options
        )
        start = time.perf_counter()
        for batch in loader:
            outer, inner = batch.blocks
            h = convs[0]((batch.x, batch.x[: outer.num_dst]), outer).relu()
            h = convs[1]((h, h[: inner.num_dst]), inner)
            loss: Any = nn.functional.cross_entropy(h, batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - start

    some = torch.arange(min(size, 50 * BATCH))
    without, ahead = train(some, 0), train(some, 2)
    seconds = train(torch.arange(size), 2)
    return {
        "batches": -(-size // BATCH),
        "seconds": seconds,
        "graph seconds": ready,
        "peak GB": _status("VmHWM") * 1024 / 1e9,
        "limit GB": MEMORY,
        "threads": torch.get_num_threads(),
        "first batches": {"seconds": ahead, "seconds without prefetching": without},
    }


def _epoch_apart(quick: bool) -> dict[str, Any]:
    code = (
        f"import json; from gnnlab.bench.sampling import epoch; print(json.dumps(epoch({quick})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ---- clusters ------------------------------------------------------------------------------------


def _clusters(quick: bool) -> list[dict[str, Any]]:
    """Returns which share of the edges each method cuts, into parts of about 500 nodes."""
    rows = []
    for made in (mesh(60, 50), power_law(5_000, 50_000)) if quick else (mesh(), power_law()):
        graph = Graph(made.edge_index, made.num_dst)
        _ = graph.plan.order, graph.plan.T.order
        parts = max(made.num_dst // 500, 2)
        chance = torch.randint(parts, (made.num_dst,), generator=torch.Generator().manual_seed(0))
        row: dict[str, Any] = {
            "graph": made.name.split(" ", 1)[-1],
            "parts": parts,
            "random": cut_edges(graph, chance) / graph.num_edges,
        }
        for method in ("stream", "metis") if version("pymetis") else ("stream",):
            start = time.perf_counter()
            part = clusters(graph, parts, method=method)
            row[f"{method} seconds"] = time.perf_counter() - start
            row[method] = cut_edges(graph, part) / graph.num_edges
        rows.append(row)
    return rows


# ---- text ----------------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> str:
    """Returns a result as text."""
    trained, first = result["epoch"], result["epoch"]["first batches"]
    rows = [
        {**row, "ms": f"{row['ms']:.2f}", "least ms": f"{row['least ms']:.2f}"}
        for row in result["rows"]
    ]
    parts = [
        text_table(rows, ["sampler", "ms", "least ms", "nodes", "edges", "ratio", "target"]),
        *(f"skipped {name}: {why}" for name, why in result["skipped"].items()),
        f"epoch of {trained['batches']} batches: {trained['seconds']:.1f} s on "
        f"{trained['threads']} threads, peak {trained['peak GB']:.2f} GB (limit "
        f"{trained['limit GB']:g}); first batches {first['seconds']:.1f} s, without prefetching "
        f"{first['seconds without prefetching']:.1f} s",
        text_table(result["clusters"], list(result["clusters"][0])),
    ]
    return "\n".join(parts)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _silent(what: str) -> None:
    pass
