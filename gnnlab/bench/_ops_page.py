"""The section of the benchmark page about operators: summary first, then a table per graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnlab.bench._text import number, overhead_line, scaling_line, summary_rows
from gnnlab.bench.targets import OVERALL, geometric_mean, summary
from gnnlab.report import markdown_table

__all__ = ["IMAGE", "section"]

IMAGE = "images/ops.svg"  # beside the page

_ABOUT = """Every call was compared with a formula in float64 before anything was timed; peers took
turns with ours in the same run and kept their own pre-built formats of the graph, as we keep the
plan. Times: {clock}, {threads}. Instruction set {isa}, backend {backend}.

The ratio is the best peer's time over ours. The summary is about graphs a to d at F = 64 (or the
heads named): the least ratio and on which graph, the geometric mean, and the targets for both.
Columns F=1, F=16, F=256 are geometric means at these widths; "odd graphs" is the least ratio on a
star, on a graph where nine of ten rows are empty, and on a chain; "plain PyG" compares with
what users write today, a gather, a product and a scatter."""
_RATES = """Rates count every byte that an operator must move, gathered rows once per edge. This
machine copies {copy} GB/s, does a triad at {triad} GB/s and reads {read} GB/s from arrays far
larger than its caches; operators whose rows stay in a cache can exceed that. MB is the peak that a
call adds to the process, result included."""
_GRAPHS = {
    "a power-law": "100,000 nodes, 2 million edges, both ends by Zipf's law",
    "b mesh": "a triangulated grid of 50,000 nodes, degree 6",
    "c bipartite": "25,000 items to 30,000 users, 1.07 million ratings",
    "d small graphs": "256 graphs of 100 nodes and 300 edges",
    "star": "one row with a million edges",
    "90 % empty": "nine of ten rows have no edge",
    "chain": "200,000 rows of one edge",
}


def section(result: Mapping[str, Any], made_by: str) -> str:
    """Returns the section as Markdown.

    Args:
        result: what `gnnlab.bench.ops.run` returned.
        made_by: command, machine and versions, as Markdown.
    """
    machine = result["machine"]
    threads = machine["threads"]
    parts = [
        "## Operators",
        _ABOUT.format(**{**machine, "threads": f"{threads} thread{'s' * (threads > 1)}"}),
        made_by,
        "- peers: " + ", ".join(f"{name} {v}" for name, v in machine["versions"].items()),
    ]
    parts[-2:] = ["\n".join(parts[-2:])]
    lines = summary(result["rows"])
    shown = summary_rows(lines)
    if shown:
        means = [line["mean"] for line in lines if line["mean"] and line["target"]]
        hits = [line["hit"] for line in lines if line["hit"] is not None]
        overall = geometric_mean(means) if means else 0.0
        parts += [
            f"Geometric mean over operators: **{overall:.2f}** (target {OVERALL}); "
            f"{sum(hits)} of {len(hits)} operators meet both of their targets.",
            markdown_table(shown, list(shown[0])),
            f"![Ratios of all peers on a log axis, and GB/s of our operators]({IMAGE})",
        ]
    extra = [overhead_line(entry) for entry in result["overhead"]]
    if result["scaling"]:
        extra.append(scaling_line(result["scaling"]))
    parts += ["\n".join(f"- {line}" for line in extra)] if extra else []
    parts.append(_RATES.format(**machine["gb_s"]))
    for graph in dict.fromkeys(row["graph"] for row in result["rows"]):
        about = (
            f": {_GRAPHS[graph]}" if graph in _GRAPHS and "--quick" not in result["command"] else ""
        )
        parts += [f"### Graph {graph}{about}", _table(result, graph)]
    parts += _left_out(result)
    return "\n\n".join(parts) + "\n"


def _table(result: Mapping[str, Any], graph: str) -> str:
    rows = [
        {
            "operator": row["op"],
            "F": row["width"] or None,
            "ms": f"{row['ms']:.3f}",
            "GB/s": number(row["gb_s"], 1),
            "of triad": number(row["of_triad"]),
            "best peer": row["best"],
            "its ms": f"{row['peers'][row['best']]:.3f}" if row["best"] else None,
            "ratio": number(row["ratio"]),
            "MB": number(row.get("mb"), 0),
            "its MB": number(row.get("best_mb"), 0),
        }
        for row in result["rows"]
        if row["graph"] == graph
    ]
    return markdown_table(rows, list(rows[0]))


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """What was not compared and why, reasons that occur often once."""
    reasons: dict[str, list[str]] = {}
    for name, why in result["skipped"].items():
        reasons.setdefault(why, []).append(name)
    parts = []
    if reasons:
        lines = [f"- {'; '.join(names)}: {why}" for why, names in reasons.items()]
        parts += ["Not compared:", "\n".join(lines)]
    if result["errors"]:
        lines = [f"- {name}: {why}" for name, why in result["errors"].items()]
        parts += ["Not timed, because the result differs from the formula:", "\n".join(lines)]
    return parts
