"""Priority rules on the classical instances, against numbers of an independent implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnlab.tasks.dispatch.bench import _expected
from gnnlab.tasks.dispatch.bench._common import (
    RANDOM_SEEDS,
    gaps,
    head,
    instances_of,
    rule_makespans,
)
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.schedule import Mode

__all__ = ["limited_gaps", "run"]

_QUICK = ("ta 15x15", "ft06", "la01-05", "la11-15")
_TABLES: dict[str, tuple[Mode, _expected.Cells]] = {
    "with buffers": ("jssp", _expected.BUFFERS),
    "without buffers, swaps allowed": ("bws", _expected.NO_BUFFERS),
    "without buffers, larger shops": ("bws", _expected.NO_BUFFERS_GAPS),
}
_LINES = ("SPT", "SPT/TWKR", "MWKR")


def run(quick: bool = False) -> dict[str, Any]:
    """Plays all rules on all columns, and rules with the best limit of jobs inside.

    Args:
        quick: only the smallest columns.

    Raises:
        DataError: when the instances are not on this machine.
    """
    about = (
        "all priority rules, event-driven, machine by machine and without waiting: mean makespans "
        "and mean gaps to the best known ones"
    )
    result = head("rules", about, quick)
    result["random seeds"] = RANDOM_SEEDS
    result["tables"] = [
        {"name": name, **_table(mode, expected, quick)}
        for name, (mode, expected) in _TABLES.items()
    ]
    result["limits"] = _limits(quick)
    return result


def limited_gaps(names: str, rules: Sequence[str] = RULES) -> tuple[np.ndarray, np.ndarray]:
    """Tries every limit 1..min(J, M + 3) of jobs inside, without buffers.

    Args:
        names: instances, as `datasets.expand` takes them; I of them.
        rules: R names of rules.

    Returns:
        Gaps in percent (R, I) with each instance's best limit, and these limits (R, I).
    """
    instances = instances_of(names)
    most = [min(i.num_jobs, i.num_machines + 3) for i in instances]
    limits = np.minimum(np.arange(1, max(most) + 1), np.array(most)[:, None])
    found = rule_makespans(instances, "bws", rules, copies=max(most), limits=limits)
    makespans = np.stack([found[rule] for rule in rules])
    best = makespans.argmin(2)
    return gaps(instances, "bws", makespans.min(2)), best + 1


def _table(mode: Mode, expected: _expected.Cells, quick: bool) -> dict[str, Any]:
    columns = [c for c in next(iter(expected.values())) if not quick or c in _QUICK]
    rows: dict[str, dict[str, Any]] = {rule: {} for rule in RULES}
    differences = []
    compared = 0
    for column in columns:
        instances = instances_of(column)
        for rule, values in rule_makespans(instances, mode).items():
            cell = {
                "mean": float(values.mean()),
                "gap": float(gaps(instances, mode, values[:, 0]).mean()),
            }
            rows[rule][column] = cell
            if rule not in expected or rule == "RANDOM":
                continue
            wanted = expected[rule][column]
            names = ("mean", "gap")[-len(wanted) :]
            for name, number in zip(names, wanted, strict=True):
                compared += 1
                if not _rounds_to(cell[name], number):
                    differences.append(
                        {
                            "rule": rule,
                            "on": column,
                            "what": name,
                            "found": cell[name],
                            "expected": number,
                        }
                    )
    return {
        "mode": mode,
        "columns": columns,
        "rows": rows,
        "expected RANDOM": {c: expected["RANDOM"][c] for c in columns},
        "compared": compared,
        "differences": differences,
    }


def _limits(quick: bool) -> dict[str, Any]:
    """Returns lines of gaps with the best limit per instance, beside those without a limit."""
    columns = [c for c in next(iter(_expected.LIMITED.values())) if not quick or c in _QUICK]
    lines: dict[str, dict[str, float]] = {f"{rule}, best limit": {} for rule in _LINES}
    best_rules, differences, chosen = {}, [], []
    for column in columns:
        found, limits = limited_gaps(column)
        instances = instances_of(column)
        free = rule_makespans(instances, "bws")
        plain = np.stack([gaps(instances, "bws", free[rule][:, 0]) for rule in RULES])
        for rule in _LINES:
            gap = float(found[RULES.index(rule)].mean())
            lines[f"{rule}, best limit"][column] = gap
            wanted = _expected.LIMITED[rule][column][0]
            if not _rounds_to(gap, wanted):
                differences.append({"rule": rule, "on": column, "found": gap, "expected": wanted})
            chosen += limits[RULES.index(rule)].tolist()
        best_rules[column] = RULES[int(found.mean(1).argmin())]
        _add(lines, column, plain, "no limit")
        _add(lines, column, found, "best limit")
    return {
        "columns": columns,
        "lines": lines,
        "best rules": best_rules,
        "mean limit": float(np.mean(chosen)),
        "compared": len(columns) * len(_LINES),
        "differences": differences,
    }


def _add(lines: dict[str, dict[str, float]], column: str, found: np.ndarray, limit: str) -> None:
    lines.setdefault(f"best rule, {limit}", {})[column] = float(found.mean(1).min())
    each = float(found.min(0).mean())
    lines.setdefault(f"best rule for each instance, {limit}", {})[column] = each


def _rounds_to(value: float, printed: float) -> bool:
    """Returns whether `value` may be printed so with one digit; halves go either way."""
    return abs(value - printed) <= 0.05 + 1e-9
