"""The result of `gnnlab bench ops` as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gnnlab.bench.targets import OVERALL, SCALING
from gnnlab.report import text_table

__all__ = ["summary_rows", "text"]


def text(result: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], overall: float) -> str:
    """Returns head, rows, summary, overheads, scaling, and what was not measured."""
    machine = result["machine"]
    threads = machine["threads"]
    speeds = ", ".join(f"{name} {value}" for name, value in machine["gb_s"].items())
    parts = [
        f"{threads} thread{'s' * (threads > 1)}, backend {machine['backend']}, "
        f"instruction set {machine['isa']}, {speeds} GB/s",
        f"times: {machine['clock']}; ratio: best peer's time / ours",
    ]
    rows = [
        {
            "operator": row["op"],
            "graph": row["graph"],
            "F": row["width"],
            "ms": f"{row['ms']:.3f}",
            "GB/s": number(row.get("gb_s"), 1),
            "of triad": number(row.get("of_triad")),
            "best peer": row["best"] or "-",
            "its ms": f"{row['peers'][row['best']]:.3f}" if row["best"] else "-",
            "ratio": number(row["ratio"]),
            "MB": number(row.get("mb"), 0),
            "its MB": number(row.get("best_mb"), 0),
        }
        for row in result["rows"]
    ]
    if rows:
        parts += ["", text_table(rows, list(rows[0])), ""]
        shown = summary_rows(lines)
        parts += [text_table(shown, list(shown[0])), ""]
        parts.append(
            f"geometric mean over operators {overall:.2f}, target {OVERALL}: "
            f"{'hit' if overall >= OVERALL else 'miss'}"
        )
    parts += [overhead_line(entry) for entry in result["overhead"]]
    if result["scaling"]:
        parts.append(scaling_line(result["scaling"]))
    parts += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    parts += [f"ERROR {name}: {why}" for name, why in result["errors"].items()]
    return "\n".join(parts)


def summary_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines of `gnnlab.bench.targets.summary` as cells, columns without figures out."""
    rows = []
    for line in lines:
        target = line["target"]
        verdict = {None: "-", True: "hit", False: "miss"}[line["hit"]]
        rows.append(
            {
                "operator": line["op"],
                "least": number(line["least"]),
                "on graph": line["on"] or "-",
                "mean": number(line["mean"]),
                "target": f"{target[0]:g} / {target[1]:g}" if target else "-",
                "": verdict,
                "F=1": number(line["F=1"]),
                "F=16": number(line["F=16"]),
                "F=256": number(line["F=256"]),
                "odd graphs": number(line["odd"]),
                "plain PyG": number(line["plain"], 1),
            }
        )
    kept = [c for c in (rows[0] if rows else {}) if any(row[c] != "-" for row in rows)]
    return [{c: row[c] for c in kept} for row in rows]


def overhead_line(entry: Mapping[str, Any]) -> str:
    """Returns what a call takes on four nodes."""
    target = entry["target"]
    end = "" if target is None else f", target {target}: {verdict(entry['us'] <= target)}"
    return f"call on 4 nodes, {entry['call']}: {entry['us']:.2f} us{end}"


def scaling_line(found: Mapping[str, Any]) -> str:
    """Returns the speed-up by threads; the target is for two threads."""
    threads = found["threads"]
    times = " and ".join(
        f"{found[t]['least']:.2f} ms (median {found[t]['median']:.2f})" for t in ("1", str(threads))
    )
    end = f", target {SCALING}: {verdict(found['speed_up'] >= SCALING)}" if threads == 2 else ""
    return (
        f"{found['op']} on {found['graph']}, wall time with 1 and {threads} threads: {times}, "
        f"speed-up {found['speed_up']:.2f}{end}"
    )


def verdict(hit: bool) -> str:
    """Returns the word for a target."""
    return "hit" if hit else "miss"


def number(value: float | None, digits: int = 2) -> str:
    """Returns a figure, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"
