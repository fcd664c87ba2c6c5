"""Trained dispatching policies beside rules, published figures and goals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnlab.bench._dispatch_cells import Block, figure, lines_table
from gnnlab.bench._text import verdict

__all__ = ["blocks"]

_MODES = {"jssp": "with buffers", "bws": "without buffers, swaps allowed"}
_PUBLISHED = """Published rows are as in the literature and were not measured here: L2D's from its
paper, the others cited without a second look. "Best rule" is the rule with the best mean of the
group, "for each instance" the best of all rules on each, and "best limit" the best number of jobs
inside for each instance. Greedy and the best of several samples are rows of their own."""
_SHUTDOWNS = """{run} while machines fail, greedy, beside the rule with the best mean of the same
set and q, on the same traces. "Shorter by" is the mean over pairs of instance and trace of the
rule's makespan less the policy's, with its 95 % interval by Student's t; win, tie and loss count
pairs. Wanted: an interval above 0 for q up to {sure:g}, and not below 0 for larger q."""
SURE = 0.005
"""Largest probability of a shutdown at which the policy must be surely better."""


_LOOKAHEAD = """Before each decision lookahead finishes the episode after every action by four
rules, and {greedy} times by {noisy} ({drawn} times, with random numbers of its own for each sample,
when several schedules are drawn). It remembers the best of these episodes for as long as it is
followed. "Greedy" is one pass in which no decision is taken back."""


def blocks(result: Mapping[str, Any]) -> list[Block]:
    """Returns paragraphs and tables."""
    found: list[Block] = [_PUBLISHED]
    for run in result["runs"]:
        found.append(f"{run['run']}, {_MODES[run['mode']]}: gap, %.")
        greedy, drawn = run.get("rollouts") or (None, None)
        if greedy is not None:
            noisy = "the guide, a learned rule" if run.get("guide") else "these with noise"
            found.append(_LOOKAHEAD.format(greedy=greedy, drawn=drawn, noisy=noisy))
        lines: dict[str, Mapping[str, float]] = {}
        for count, row in run["rows"].items():
            gaps = {group: cell["gap"] for group, cell in row.items()}
            lines[_name(int(count))] = gaps
        lines |= run["lines"]
        if run["mode"] == "jssp":
            lines |= {f"{name} (published)": row for name, row in result["published"].items()}
        found.append(lines_table("gap, %", lines, run["groups"]))
        found.append(_seconds(run))
        if run["goals"]:
            found += ["Goals:", [_goal(goal) for goal in run["goals"]]]
        if run.get("shutdowns"):
            found.append(_SHUTDOWNS.format(run=run["run"], sure=SURE))
            found.append([_pair(row) for row in run["shutdowns"]])
    return found


def _name(count: int) -> str:
    return "greedy" if count == 1 else f"best of {count}"


def _seconds(run: Mapping[str, Any]) -> str:
    """Returns seconds of wall time per instance."""
    parts = []
    for count, row in run["rows"].items():
        cells = ", ".join(f"{group} {cell['seconds']:.3f}" for group, cell in row.items())
        parts.append(f"{_name(int(count))}: {cells}")
    return f"Wall seconds per instance, all instances of a group at once: {'; '.join(parts)}."


def _goal(goal: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "on": goal["on"],
        "by": _name(goal["samples"]),
        "gap, %": figure(goal["gap"]),
        "at most": figure(goal["goal"]),
        "": verdict(goal["gap"] <= goal["goal"]),
    }


def _pair(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = row["interval"]
    hit = low > 0 if row["prob"] <= SURE else high >= 0
    return {
        "set": row["names"],
        "q": f"{row['prob']:g}",
        "policy": figure(row["mean"]),
        "best rule": f"{figure(row['rule mean'])} ({row['rule']})",
        "FIFO": figure(row["FIFO mean"]),
        "shorter by": f"{figure(row['difference'])} [{figure(low)}, {figure(high)}]",
        "%": figure(row["percent"]),
        "win / tie / loss": f"{row['win']} / {row['tie']} / {row['loss']}",
        "": verdict(hit),
    }
