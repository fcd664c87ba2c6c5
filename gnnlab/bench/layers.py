"""Measures the layers against PyG, with and without torch_scatter, and DGL.

One turn is a training step: forward and backward, with gradients of the features and of all
weights. All libraries have the same weights (`to_pyg`, `to_dgl`), and what they give is compared
with ours before anything is timed: the result and the gradient of the features. Peers keep their
own formats of the graph, and PyG its normalised weights where it can (`cached=True`), as we keep
the plan. Peers take turns with us in the same run; times are the CPU time of the one thread.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gnnlab import ops
from gnnlab.bench._epochs import epochs
from gnnlab.bench._layer_cases import Inputs, LayerCase, Setting, cases
from gnnlab.bench._layers_summary import (
    DGL,
    PYG,
    SCATTER,
    UNSORTED,
    epochs_of,
    layers_of,
    reuse,
    rows_of,
    summary,
    verdicts,
)
from gnnlab.bench._machine import Call, bandwidth, clock_of, measure, observed, version
from gnnlab.bench._names import known_names
from gnnlab.bench.graphs import BenchGraph, all_graphs
from gnnlab.compat.dgl import dgl_graph, to_dgl
from gnnlab.experiment import environment
from gnnlab.report import text_table

__all__ = ["PEERS", "reuse", "run", "summary", "table", "verdicts"]

PEERS = {"pyg": "torch-geometric", "scatter": "torch-scatter", "dgl": "dgl"}
"""Name on the command line: the package."""

_LARGEST = 4 << 30
"""Bytes of the largest array of messages that is measured."""


def run(
    quick: bool = False,
    *,
    compare: str = "all",
    graphs: Sequence[str] | None = None,
    only: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Measures a training step of every layer on every graph.

    Args:
        quick: small graphs and fewer repeats: a minute or two.
        compare: pyg, scatter, dgl, separated by commas, or "all"; what is not installed is skipped.
        graphs: short names: a, b, c, d (`gnnlab.bench.graphs`), cora, pubmed (real; skipped when
            they are not under $GNNLAB_DATA/graphs).
        only: layers whose name contains this; "epoch" is the training epoch on Cora.
        progress: a line per graph on stderr.

    Returns:
        A dict that can be written as JSON: "kind", "command", "environment", "machine", "rows" (one
        per layer and graph), "epochs" (one per model on Cora), "skipped", and "errors" (peers whose
        result differs).

    Raises:
        ConfigError: for unknown names of peers or graphs.

    Example:
        >>> from gnnlab.bench import layers
        >>> result = layers.run(quick=True, compare="dgl", graphs=["d"], only="GCN")
        >>> result["rows"][0]["layer"]
        'GCN'
    """
    begin, about = time.perf_counter(), environment()
    makers = _graphs(quick)
    names = known_names("graphs", graphs or (*makers,), makers)
    wanted = known_names("peers", compare.split(","), PEERS) if compare != "all" else (*PEERS,)
    skipped = {p: f"{PEERS[p]} is not installed" for p in wanted if version(PEERS[p]) is None}
    job = _Job(quick, [p for p in wanted if p not in skipped], skipped)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        speeds = bandwidth(quick, wall=False)
        for name in names:
            start = time.perf_counter()
            graph = makers[name]()
            if isinstance(graph, str):
                skipped[name] = graph
                continue
            job.measure(graph, only)
            if name == "cora" and only in "epoch":
                turns = 5 if quick else 40
                job.epochs = epochs(job.peers, turns, _switched)
            if progress:
                taken = time.perf_counter() - start
                print(f"graph {name}: {taken:.0f} s", file=sys.stderr, flush=True)
    finally:
        torch.set_num_threads(before)
    words = ["gnnlab bench layers"] + ["--quick"] * quick
    words += [f"--compare {compare}"] * (compare != "all")
    words += [f"--graphs {','.join(graphs)}"] if graphs else []
    words += [f'--only "{only}"'] * bool(only)
    return {
        "kind": "layers",
        "command": " ".join([*words, "--out docs/results/layers.json"]),
        "environment": {**about, "threads": 1},
        "machine": {
            "isa": ops.status().isa,
            "backend": ops.backend(),
            "gb_s": speeds,
            "versions": {p: v for p in PEERS.values() if (v := version(p))},
        },
        "seconds": round(time.perf_counter() - begin),
        "skipped": skipped,
        "errors": job.errors,
        "epochs": job.epochs,
        "rows": job.rows,
    }


class _Job:
    """What a run compares with, and what it has found so far."""

    def __init__(self, quick: bool, peers: Sequence[str], skipped: dict[str, str]) -> None:
        self.quick, self.peers, self.skipped = quick, peers, skipped
        self.rows: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.errors: dict[str, str] = {}

    def measure(self, graph: BenchGraph, only: str) -> None:
        setting = Setting(graph)
        for case in cases(setting, only):
            if case.message * 4 * setting.num_edges > _LARGEST // 2:
                self.skipped[f"{case.name} on {graph.name}"] = (
                    f"{case.message} numbers per edge would fill an array of more than 2 GiB"
                )
                continue
            self.rows.append(self._row(setting, case))

    def _row(self, setting: Setting, case: LayerCase) -> dict[str, Any]:
        torch.manual_seed(0)
        layer = case.make(setting)
        x = setting.nodes(case.width)
        given = case.inputs(setting)

        def call(module: nn.Module, *behind: Any) -> Callable[[], Tensor]:
            return lambda: given.as_rows(module(given.as_given(x), *behind))

        found: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
            "gnnlab": (layer, call(layer, *given.ours)),
            UNSORTED: (layer, call(layer, *given.unsorted)),
        }
        for name in self.peers:
            try:
                found.update(_peer(name, case, setting, layer, x, given))
            except NotImplementedError as error:
                self.skipped[f"{name}, {case.name}"] = str(error)
        want, calls, firsts, peaks = None, {}, {}, {}
        for name, (module, forward) in found.items():
            step = _step(module, forward, x)
            result, taken, peak = observed(step, clock_of(wall=False))
            if want is None:
                want = result
            elif not (name == DGL and case.by_degree and not setting.is_undirected):
                wrong = _differs(result, want)
                if wrong:
                    self.errors[f"{name}, {case.name} on {setting.graph.name}"] = wrong
                    continue
            calls[name], firsts[name], peaks[name] = step, taken, peak
            del result
        times = measure(calls, firsts, wall=False, repeats=3)
        row: dict[str, Any] = {
            "layer": case.name,
            "class": type(layer).__name__,
            "graph": setting.graph.name,
        }
        row["ms"] = {name: float(f"{t.median:.4g}") for name, t in times.items()}
        if setting.num_edges * case.width * 4 >= 1 << 24:
            row["mb"] = {name: peak for name, peak in peaks.items() if name != UNSORTED}
        return row


def _peer(
    name: str, case: LayerCase, setting: Setting, layer: Any, x: Any, given: Inputs
) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Returns the peer's layer with our weights, and its forward pass."""
    if name == "dgl":
        theirs = to_dgl(layer)
        graph = dgl_graph(setting.edges, loops=theirs.loops)
        return {DGL: (theirs, lambda: theirs(graph, x, *given.more))}
    made = layer.to_pyg()
    if case.cached:
        made.cached = True
    with_scatter = name == "scatter"

    def forward() -> Tensor:
        return given.as_rows(made(given.as_given(x), *given.pyg))

    return {SCATTER if with_scatter else PYG: (made, _switched(forward, with_scatter))}


def _switched(forward: Callable[..., Tensor], on: bool) -> Callable[..., Tensor]:
    """Returns the call with PyG's use of torch_scatter on or off."""
    typing: Any = importlib.import_module("torch_geometric.typing")

    def call(*given: Tensor) -> Tensor:
        before = typing.WITH_TORCH_SCATTER
        typing.WITH_TORCH_SCATTER = on
        try:
            return forward(*given)
        finally:
            typing.WITH_TORCH_SCATTER = before

    return call


def _step(module: nn.Module, forward: Callable[[], Tensor], x: Any) -> Call:
    """Returns a training step; its result is the output and the gradient of the features."""
    leaves = list(x) if isinstance(x, tuple) else [x]
    weights = [p for p in module.parameters() if p.requires_grad]
    grad: list[Tensor] = []  # made once: what comes from above a layer is there already

    def call() -> tuple[Tensor, Tensor]:
        out = forward()
        if not grad:
            random = torch.Generator().manual_seed(1)
            grad.append(torch.randn(out.shape, generator=random))
        grads = torch.autograd.grad(out, [*leaves, *weights], grad, allow_unused=True)
        assert grads[0] is not None  # the first are the sources, which every layer reads
        return out.detach(), grads[0]

    return Call(call)


def _differs(found: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> str:
    """Returns how a result differs, "" when it agrees as float32 does."""
    for a, b, word in zip(found, want, ("result", "gradient"), strict=True):
        if a.shape != b.shape:
            return f"{word} of shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        far = float((a - b).norm()) / max(float(b.norm()), 1e-30)
        if not far <= 5e-3:  # near ties of a maximum may fall the other way
            return f"{word} differs by {far:.1e} of its norm"
    return ""


def table(result: Mapping[str, Any]) -> str:
    """Returns the result of `run` as text."""
    machine = result["machine"]
    speeds = ", ".join(f"{name} {value}" for name, value in machine["gb_s"].items())
    parts = [
        f"1 thread, backend {machine['backend']}, instruction set {machine['isa']}, {speeds} GB/s",
        "a training step, CPU time; ratio: the peer's time / ours",
    ]
    if result["rows"]:
        found = summary(result["rows"])
        shown = rows_of(result["rows"])
        parts += ["", text_table(shown, list(shown[0])), ""]
        lines = layers_of(found)
        parts += [text_table(lines, list(lines[0])), "", *verdicts(found)]
    cells = epochs_of(result.get("epochs", ()))
    if cells:
        parts += ["", "a training epoch of two layers on Cora", text_table(cells, list(cells[0]))]
    parts += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    parts += [f"ERROR {name}: {why}" for name, why in result["errors"].items()]
    return "\n".join(parts)


def _graphs(quick: bool) -> dict[str, Callable[[], BenchGraph | str]]:
    """Returns makers of graphs by short name; a maker returns a reason where data is absent."""
    made: dict[str, Callable[[], BenchGraph | str]] = {
        name: maker for name, maker in all_graphs(quick).items() if name in "abcd"
    }
    from gnnlab.bench.real_graphs import structure

    made["cora"] = lambda: structure("cora")
    made["pubmed"] = lambda: structure("pubmed")
    return made
