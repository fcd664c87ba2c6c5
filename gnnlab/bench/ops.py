"""Measures the operators against torch, MKL, numpy, scipy, PyG, torch_scatter and DGL.

Equality comes before speed: every call, ours and the peers', is compared with a formula in float64,
and only what agrees is timed. Peers take turns with us in the same run. With one thread times are
CPU time (`time.thread_time`), which is steadier than wall time on a shared machine, and the median
is kept; with several threads they are wall time, and ratios are of the fastest runs. Peers that are
far slower than the two fastest calls get fewer turns than the others' seven or more, at least one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gnnlab import ops
from gnnlab.bench._backward import backward
from gnnlab.bench._cases import forward
from gnnlab.bench._machine import Call, bandwidth, clock_of, measure, peak_memory, version
from gnnlab.bench._names import known_names
from gnnlab.bench._overhead import overheads, scaling
from gnnlab.bench._setting import Case, Setting
from gnnlab.bench.graphs import BenchGraph, all_graphs
from gnnlab.bench.peers import FAMILIES, PLAIN, Family, calls_of, families
from gnnlab.bench.targets import geometric_mean, summary
from gnnlab.experiment import environment

__all__ = ["difference", "run", "table", "write"]

WIDTHS = (1, 16, 64, 256)
_SMALL = 1 << 25  # bytes of an operand below which peak memory is not worth a measurement


def run(
    quick: bool = False,
    *,
    compare: str = "all",
    threads: int | Literal["all"] = 1,
    graphs: Sequence[str] | None = None,
    widths: Sequence[int] | None = None,
    only: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Measures all operators, forward and backward.

    Args:
        quick: small graphs, F = 64 and fewer repeats: a minute or two.
        compare: families of peers, separated by commas, or "all"; those that are not installed
            are skipped with a reason.
        threads: 1 or "all" (or a number).
        graphs: short names of `gnnlab.bench.graphs.all_graphs`; all of them without it.
        widths: values of F; 1, 16, 64, 256 without it. Graphs without targets are measured at 64.
        only: measure operators whose name contains this.
        progress: a line per graph on stderr.

    Returns:
        A dict that can be written as JSON: "kind", "command", "environment", "machine" (with
        bandwidths), "rows" (one per operator, graph and width), "overhead", "scaling", "skipped"
        (peers and cases that were not measured, with reasons) and "errors" (peers whose result
        differs).

    Raises:
        RuntimeError: if a result of ours differs from the formula.
        ConfigError: for unknown names of peers or graphs.

    Example:
        >>> from gnnlab.bench import ops
        >>> result = ops.run(quick=True, compare="torch", graphs=["d"], only="spmm sum")
        >>> result["rows"][0]["op"], result["errors"]
        ('spmm sum', {})
    """
    begin, about = time.perf_counter(), environment()  # the commit it began with
    wanted = (
        known_names("peers", compare.split(","), FAMILIES) if compare != "all" else (*FAMILIES,)
    )
    makers = all_graphs(quick)
    names = known_names("graphs", graphs or (*makers,), makers)
    classes, missing = families(wanted)
    before = torch.get_num_threads()
    count = (os.cpu_count() or 1) if threads == "all" else threads
    job = _Job(quick, count, widths or ((64,) if quick else WIDTHS), only, classes)
    torch.set_num_threads(count)
    try:
        speeds = bandwidth(quick, wall=count > 1)
        for name in names:
            start = time.perf_counter()
            job.measure(makers[name]())
            if progress:
                taken = time.perf_counter() - start
                print(f"graph {name}: {taken:.0f} s", file=sys.stderr, flush=True)
        calls = [] if only else overheads(classes, quick)
        scaled = None if only or count > 1 or "a" not in names else scaling(makers["a"](), quick)
    finally:
        torch.set_num_threads(before)
    packages = {package: version(package) for *_, package in FAMILIES.values()}
    return {
        "kind": "ops",
        "command": _command(quick, compare, threads, graphs, widths, only),
        "environment": {**about, "threads": count},
        "machine": {
            "isa": ops.status().isa,
            "backend": ops.backend(),
            "threads": count,
            "clock": "wall, fastest" if count > 1 else "CPU time of the thread, median",
            "gb_s": speeds,
            "versions": {name: v for name, v in packages.items() if v},
        },
        "seconds": round(time.perf_counter() - begin),
        "skipped": {**missing, **job.skipped},
        "errors": job.errors,
        "overhead": calls,
        "scaling": scaled,
        "rows": [_finished(row, speeds["triad"]) for row in job.rows],
    }


class _Job:
    """Settings of a run, and what it has found so far."""

    def __init__(
        self,
        quick: bool,
        threads: int,
        widths: Sequence[int],
        only: str,
        classes: dict[str, type[Family]],
    ) -> None:
        self.quick, self.threads, self.widths, self.only = quick, threads, widths, only
        self.classes = classes
        self.rows: list[dict[str, Any]] = []
        self.skipped: dict[str, str] = {}
        self.errors: dict[str, str] = {}

    def measure(self, graph: BenchGraph) -> None:
        """Measures all cases of one graph."""
        setting = Setting(graph)
        peers: list[Family] = []
        for name, family in self.classes.items():
            try:
                peers.append(family(setting))
            except Exception as error:  # a format that the library cannot make
                self.skipped[f"{name} on {graph.name}"] = _line(error)
        for case in self._cases(setting):
            row = self._row(case, peers)
            if row is not None:
                self.rows.append(row)

    def _cases(self, setting: Setting) -> Iterator[Case]:
        widths = self.widths if setting.graph.has_target else (64,)
        for cases in (forward(setting, widths), backward(setting, widths)):
            for case in cases:
                informal = case.size is None  # forward and backward together: no target, and slow
                if self.only in case.op and (setting.graph.has_target or not informal):
                    yield case

    def _row(self, case: Case, peers: Sequence[Family]) -> dict[str, Any] | None:
        """Checks all calls, then times those that gave the right result."""
        if isinstance(case.ours, str):
            self.skipped[case.op] = case.ours
            return None
        want = np.asarray(case.want())
        wrong, first = self._check(case, case.ours, want)
        if wrong:
            raise RuntimeError(f"{_title(case)}: gnnlab gives another result: {wrong}")
        calls, firsts = {"gnnlab": case.ours}, {"gnnlab": first}
        for family in peers:
            found, reason = calls_of(family, case)
            if reason:
                self.skipped[f"{family.name}, {_title(case)}"] = reason
            for label, call in found.items():
                if case.width == "256" and "gather+" in label:
                    self.skipped[f"{label}, {_title(case)}"] = (
                        "arrays of messages take minutes there"
                    )
                    continue
                try:
                    wrong, first = self._check(case, call, want)
                except Exception as error:  # a dtype or size that the library refuses
                    self.skipped[f"{label}, {_title(case)}"] = _line(error)
                    continue
                if wrong:
                    self.errors[f"{label}, {_title(case)}"] = f"another result: {wrong}"
                else:
                    calls[label], firsts[label] = call, first
        return self._timed(case, calls, firsts)

    def _check(self, case: Case, call: Call, want: np.ndarray) -> tuple[str, float]:
        """Returns how the result differs from the formula, and the milliseconds it took."""
        result, taken = call.timed(clock_of(self.threads > 1))
        return difference(np.asarray(case.pick(result)), want, case.tolerance), taken

    def _timed(
        self, case: Case, calls: dict[str, Call], firsts: dict[str, float]
    ) -> dict[str, Any]:
        wall = self.threads > 1
        times = measure(calls, firsts, wall=wall, repeats=3 if self.quick else 7)
        least = {name: t.least if wall else t.median for name, t in times.items()}
        ours = least.pop("gnnlab")
        best = min(least, key=least.__getitem__, default=None)
        row: dict[str, Any] = {
            "op": case.op,
            "graph": case.setting.graph.name,
            "width": case.width,
            "ms": ours,
            "bytes": case.size,
            "best": best,
            "ratio": None if best is None else least[best] / ours,
            "peers": least,
        }
        if wall:
            row["medians"] = {name: t.median for name, t in times.items()}
        plain = [t for name, t in least.items() if name.startswith(PLAIN)]
        if plain:
            row["plain"] = plain[0] / ours
        if (case.size or _SMALL) >= _SMALL and case.width not in ("1", "16", "256"):
            row["mb"] = peak_memory(calls["gnnlab"])
            row["best_mb"] = None if best is None else peak_memory(calls[best])
        return row


def _title(case: Case) -> str:
    return f"{case.op} {case.width} on {case.setting.graph.name}".replace("  ", " ")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


def difference(found: np.ndarray, want: np.ndarray, tolerance: float) -> str:
    """Returns how a result differs from `want`, "" when it does not."""
    if found.shape != want.shape:
        return f"shape {found.shape} instead of {want.shape}"
    scale = float(np.sqrt(np.mean(np.square(want)))) if want.size else 0.0
    far = ~(np.abs(found - want) <= tolerance * (np.abs(want) + scale))  # NaN is far too
    if not far.any():
        return ""
    at = tuple(int(i) for i in np.argwhere(far)[0])
    return f"{int(far.sum())} of {want.size} values, first {found[at]:.6g} for {want[at]:.6g}"


def _finished(row: dict[str, Any], triad: float) -> dict[str, Any]:
    """Adds rates, and rounds to what can be told apart."""
    size = row.pop("bytes")
    row["gb_s"] = None if size is None else size / row["ms"] / 1e6
    row["of_triad"] = None if size is None else row["gb_s"] / triad
    return {key: _rounded(value) for key, value in row.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _command(
    quick: bool,
    compare: str,
    threads: int | str,
    graphs: Sequence[str] | None,
    widths: Sequence[int] | None,
    only: str,
) -> str:
    words = ["gnnlab bench ops"]
    words += ["--quick"] * quick + [f"--compare {compare}"] * (compare != "all")
    words += [f"--threads {threads}"] * (threads != 1)
    words += [f"--graphs {','.join(graphs)}"] if graphs else []
    words += [f"--widths {','.join(map(str, widths))}"] if widths else []
    words += [f'--only "{only}"'] * bool(only)
    return " ".join([*words, "--out docs/results/ops.json"])


def write(path: Path, result: dict[str, Any]) -> None:
    """Writes the result as JSON with one line per row, so that the file stays small.

    Example:
        >>> import json, pathlib
        >>> from gnnlab.bench import ops
        >>> ops.write(pathlib.Path("ops.json"), {"kind": "ops", "rows": [{"op": "gather"}]})
        >>> json.loads(pathlib.Path("ops.json").read_text())["rows"]
        [{'op': 'gather'}]
    """
    head = json.dumps({k: v for k, v in result.items() if k != "rows"}, indent=1)
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in result["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")
    os.replace(partial, path)


def table(result: dict[str, Any]) -> str:
    """Returns the result of `run` as text: rows, then operators beside their targets.

    Example:
        >>> from gnnlab.bench import ops
        >>> speeds = {"copy": 12.0, "triad": 13.6, "read": 12.5}
        >>> machine = {"isa": "v4", "backend": "cpu", "threads": 1, "gb_s": speeds, "clock": "wall"}
        >>> empty = {"machine": machine, "skipped": {}, "errors": {}, "rows": [], "overhead": []}
        >>> print(ops.table({**empty, "scaling": None}).splitlines()[0])
        1 thread, backend cpu, instruction set v4, copy 12.0, triad 13.6, read 12.5 GB/s
    """
    from gnnlab.bench._text import text

    lines = summary(result["rows"])
    means = [line["mean"] for line in lines if line["mean"] and line["target"]]
    return text(result, lines, geometric_mean(means))
