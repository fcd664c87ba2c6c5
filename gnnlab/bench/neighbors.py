"""Neighbour searches among uniform points against scipy's k-d tree, on one thread."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from gnnlab.bench._machine import version
from gnnlab.bench._text import number, verdict
from gnnlab.errors import needs
from gnnlab.experiment import environment
from gnnlab.ops import knn_graph, radius_graph
from gnnlab.report import markdown_table, text_table

__all__ = ["run", "section", "table"]

NEIGHBORS = 16
TARGET = 3.0
"""How many times faster than scipy a search should be."""
_SIZES = {False: ((10_000, 9), (100_000, 5), (1_000_000, 3)), True: ((2_000, 3),)}
"""Numbers of points, each with the number of rounds."""
_COLUMNS = ["search", "dimensions", "points", "edges", "ms", "scipy ms", "ratio", "target", ""]
_ABOUT = """Points uniform in a unit square or cube, float64; a radius that gives {k} neighbours on
average inside, or the {k} nearest. Both libraries take turns on one thread; milliseconds are CPU
time, the median of the rounds. Times begin with the positions and end with the edges: scipy makes
its tree too, by the faster of its two ways, `query_pairs` is followed by a copy with the ends
exchanged, and its edges are not sorted, while gnnlab's are. That both found the same edges is
checked first."""

Search = Callable[[], np.ndarray[Any, Any]]


def run(quick: bool = False, *, progress: bool = False) -> dict[str, Any]:
    """Measures radius and k-NN searches in two and three dimensions.

    Args:
        quick: 2,000 points only.
        progress: whether to say on stderr what is being measured.

    Raises:
        MissingExtraError: if scipy is not installed.
    """
    tree = needs("scipy.spatial", "gnnlab bench neighbors", "bench").cKDTree
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for dim in (2, 3):
            for size, rounds in _SIZES[quick]:
                generator = torch.Generator().manual_seed(0)
                x = torch.rand(size, dim, generator=generator, dtype=torch.float64)
                for search in ("radius", "knn"):
                    if progress:
                        print(f"{search}, {size} points, {dim} dimensions", file=sys.stderr)
                    rows.append(_row(search, x, rounds, tree))
    finally:
        torch.set_num_threads(before)
    return {
        "kind": "neighbors",
        "name": "neighbors",
        "about": "neighbour searches among uniform points, against scipy's k-d tree",
        "command": "gnnlab bench neighbors"
        + " --quick" * quick
        + " --out docs/results/neighbors.json",
        "environment": {**environment(), "threads": 1},
        "neighbors": NEIGHBORS,
        "versions": {"scipy": version("scipy")},
        "rows": rows,
    }


def _row(search: str, x: torch.Tensor, rounds: int, tree: Any) -> dict[str, Any]:
    size, dim = x.shape
    ball = math.pi if dim == 2 else 4 / 3 * math.pi
    r = (NEIGHBORS / size / ball) ** (1 / dim)
    ways: dict[str, Search] = {"gnnlab": lambda: _ours(search, x, r)}
    for way, balanced in (("balanced", True), ("sliding midpoint", False)):
        ways[way] = lambda balanced=balanced: _scipy(  # type: ignore[misc]
            search, tree(x.numpy(), balanced_tree=balanced, compact_nodes=balanced), r
        )
    found = {way: _numbers(call(), size) for way, call in ways.items()}
    for way, edges in found.items():
        if not np.array_equal(edges, found["gnnlab"]):
            raise AssertionError(f"{search}: scipy's {way} tree found other edges than gnnlab")
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            start = time.process_time()
            call()
            taken[way].append((time.process_time() - start) * 1e3)
    ms = {way: statistics.median(times) for way, times in taken.items()}
    best = min(("balanced", "sliding midpoint"), key=lambda way: ms[way])
    return {
        "search": search,
        "dimensions": dim,
        "points": size,
        "edges": len(found["gnnlab"]),
        "ms": ms["gnnlab"],
        "scipy": {way: ms[way] for way in ms if way != "gnnlab"},
        "best": best,
        "ratio": ms[best] / ms["gnnlab"],
        "rounds": rounds,
    }


def _ours(search: str, x: torch.Tensor, r: float) -> np.ndarray[Any, Any]:
    edges = radius_graph(x, r) if search == "radius" else knn_graph(x, NEIGHBORS)
    return edges.numpy()


def _scipy(search: str, tree: Any, r: float) -> np.ndarray[Any, Any]:
    if search == "radius":
        pairs = tree.query_pairs(r, output_type="ndarray").T
        return np.concatenate([pairs, pairs[::-1]], 1)
    _, nearest = tree.query(tree.data, NEIGHBORS + 1)
    own = np.arange(len(nearest))[:, None]  # each point finds itself first
    return np.stack(
        [nearest[:, 1:].ravel(), np.broadcast_to(own, (len(nearest), NEIGHBORS)).ravel()]
    )


def _numbers(edges: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Returns one number for each edge, ascending: equal for equal sets of edges."""
    return np.sort(edges[1] * size + edges[0])


def table(result: Mapping[str, Any]) -> str:
    """Returns a result as text."""
    return text_table(_cells(result), _COLUMNS)


def section(result: Mapping[str, Any], made_by: str) -> str:
    """Returns the section of the benchmark page as Markdown.

    Args:
        result: what `run` returned.
        made_by: command, machine and versions, as Markdown.
    """
    peers = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    parts = [
        "## Neighbour searches",
        _ABOUT.format(k=result["neighbors"]),
        f"{made_by}\n- peers: {peers}",
        markdown_table(_cells(result), _COLUMNS),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "search": row["search"],
            "dimensions": row["dimensions"],
            "points": f"{row['points']:,}",
            "edges": f"{row['edges']:,}",
            "ms": number(row["ms"], 1),
            "scipy ms": number(row["scipy"][row["best"]], 1),
            "ratio": number(row["ratio"]),
            "target": f"{TARGET:g}",
            "": verdict(row["ratio"] >= TARGET),
        }
        for row in result["rows"]
    ]
