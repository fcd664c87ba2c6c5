"""How much faster than the best peer each operator must be, and whether it is.

A ratio is the best peer's time over ours. Targets are set at F = 64 (or the heads named) on the
four graphs a to d: the least ratio over graphs, and the geometric mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["MICROSECONDS", "OVERALL", "SCALING", "TARGETS", "counts", "geometric_mean", "summary"]

TARGETS: dict[str, tuple[float, float]] = {
    "plan build": (3.5, 4.5),
    "gather": (1.0, 1.3),
    "gather, output reused": (2.0, 2.3),
    "scatter sum": (1.1, 1.5),
    "scatter mean": (2.1, 2.5),
    "scatter max": (1.1, 2.0),
    "segment sum": (2.5, 3.0),
    "segment max": (2.7, 4.0),
    "spmm sum": (1.3, 1.6),
    "spmm mean": (1.35, 1.8),
    "spmm max": (2.0, 2.0),
    "spmm max with arg": (1.6, 1.7),
    "spmm weighted sum": (1.65, 1.8),
    "spmm weighted max": (1.5, 1.7),
    "spmm sum bf16": (1.25, 1.8),
    "sddmm dot": (1.9, 2.2),
    "edge softmax H=1": (5.3, 6.5),
    "edge softmax H=8": (2.5, 4.0),
    "edge softmax backward H=1": (1.5, 1.5),
    "edge softmax backward H=8": (2.7, 3.4),
    "GAT (1,64)": (3.3, 4.1),
    "GAT (4,16)": (2.5, 3.5),
    "GAT (8,32)": (3.4, 5.3),
    "backward spmm sum": (1.4, 1.8),
    "backward spmm weighted": (4.0, 5.1),
    "backward spmm max": (1.7, 1.8),
    "backward scatter sum": (1.0, 1.3),
    "backward gather": (2.45, 2.9),
}
"""Operator: least ratio over graphs a to d, geometric mean over them."""

OVERALL = 3.0
"""Geometric mean of the operators' geometric means."""

MICROSECONDS = {"spmm": 4.5, "spmm with grad": 9.0}
"""Most time of a call on 4 nodes."""

SCALING = 1.8
"""Least speed-up of spmm sum on graph a with two threads."""


def geometric_mean(values: Iterable[float]) -> float:
    """Returns the geometric mean of positive numbers, NaN of none.

    Example:
        >>> from gnnlab.bench.targets import geometric_mean
        >>> geometric_mean([1.0, 4.0])
        2.0
    """
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one line per operator: ratios beside their targets; hit is None without a target.

    Args:
        rows: "rows" of the result of `gnnlab.bench.ops.run`.

    Example:
        >>> from gnnlab.bench.targets import summary
        >>> row = {"op": "spmm sum", "graph": "b mesh", "width": "64", "ratio": 1.7}
        >>> line = summary([row])[0]
        >>> line["least"], line["on"], line["hit"]
        (1.7, 'b mesh', True)
    """
    lines = []
    for op in dict.fromkeys(row["op"] for row in rows):
        mine = [row for row in rows if row["op"] == op and row.get("ratio")]
        main = [row for row in mine if counts(row)]
        least = min(main, key=lambda row: row["ratio"], default=None)
        target = TARGETS.get(op)
        mean = geometric_mean(row["ratio"] for row in main)
        line: dict[str, Any] = {
            "op": op,
            "least": None if least is None else least["ratio"],
            "on": None if least is None else least["graph"],
            "mean": None if least is None else mean,
            "target": target,
            "hit": None,
        }
        if target and least is not None:
            line["hit"] = least["ratio"] >= target[0] and mean >= target[1]
        for width in ("1", "16", "256"):
            other = [r["ratio"] for r in mine if r["width"] == width and _has_letter(r)]
            line[f"F={width}"] = geometric_mean(other) if other and op in _BY_WIDTH else None
        odd = [row["ratio"] for row in mine if not _has_letter(row)]
        line["odd"] = min(odd, default=None)
        plain = [row["plain"] for row in main if row.get("plain")]
        line["plain"] = geometric_mean(plain) if plain else None
        lines.append(line)
    return lines


_BY_WIDTH = {op for op in TARGETS if not op.startswith(("plan", "edge softmax", "GAT"))}


def _has_letter(row: Mapping[str, Any]) -> bool:
    return str(row["graph"])[1:2] == " "


def counts(row: Mapping[str, Any]) -> bool:
    """Returns whether targets speak of the row: graphs a to d, and F = 64 where there is an F."""
    return _has_letter(row) and (row["op"] not in _BY_WIDTH or row["width"] == "64")
