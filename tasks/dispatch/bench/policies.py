"""Trained policies on the classical instances and with shutdowns, beside rules and publications."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from gnnlab.checkpoint import load
from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.bench import _expected
from gnnlab.tasks.dispatch.bench._common import gaps, head, instances_of, rule_makespans
from gnnlab.tasks.dispatch.bench.rules import limited_gaps
from gnnlab.tasks.dispatch.bench.shutdowns import (
    TRACE_SEEDS,
    paired,
    random_traces,
    rules_with_shutdowns,
)
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.schedule import Mode

__all__ = ["GOALS", "Policy", "run"]

_GROUPS: dict[str, tuple[str, ...]] = {
    "jssp": ("ta 15x15", "ta 20x15", "ta 20x20", "ta 30x15", "ta 30x20"),
    "bws": (
        *("la01-05", "la06-10", "la11-15", "la16-20", "la21-25", "la26-30", "la31-35", "la36-40"),
    ),
}
# Samples take long on large shops: with buffers they are drawn on one group only, and so are more
# than 64 anywhere.
_MANY, _MANY_ON = {"jssp": 1, "bws": 64}, "ta 15x15"
_QUICK = ("la01-05", "ta 15x15")
GOALS: dict[str, dict[tuple[str, int], float]] = {
    "jssp": {
        ("ta 15x15", 1): 14.0,
        ("ta 15x15", 64): 10.0,
        ("ta 15x15", 512): 6.5,  # what self-labelling published
        ("ta 30x20", 1): 17.0,
    },
    "bws": {("all groups", 1): 25.0, ("all groups", 64): 15.0},
}
"""Most percent above the best known makespan: by mode, group and number of samples."""


class Policy(Protocol):
    """What is asked of a trained task."""

    config: Any

    def makespans(
        self,
        instances: Sequence[JobShopInstance],
        traces: Sequence[Any] | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> np.ndarray:
        """Returns (I,) makespans, the best of `samples` episodes; one sample is greedy."""
        ...


def run(
    runs: Sequence[str],
    quick: bool = False,
    *,
    samples: Sequence[int] = (1, 64),
    shutdowns: bool = True,
    progress: bool = False,
    loader: Callable[[str], Policy] = load,  # type: ignore[assignment]
) -> dict[str, Any]:
    """Measures trained policies.

    Args:
        runs: run folders.
        quick: one small group per mode, two traces of two probabilities.
        samples: numbers of schedules per instance of which the best counts; 1 is the greedy one,
            more than one is drawn on ta 15x15 only with buffers, 64 at most without.
        shutdowns: whether policies for shops without buffers also meet shutdowns.
        progress: whether to say on stderr what is being measured.
        loader: returns the task of a run folder.

    Raises:
        ConfigError: without run folders.
        CheckpointError: for a folder that is no run.
        DataError: when the instances are not on this machine.
    """
    if not runs:
        raise ConfigError("no policies to measure: pass --runs FOLDER[,FOLDER].")
    counts = ",".join(map(str, samples))
    about = (
        "trained policies, greedy and the best of several drawn schedules; gaps are percent above "
        "the best known makespan, means over the group"
    )
    options = f" --runs {','.join(runs)} --samples {counts}"
    result = head("policies", about, quick, options)
    result |= {"samples": list(samples), "published": _published(), "runs": []}
    for folder in runs:
        policy = loader(folder)
        if progress:
            print(folder, file=sys.stderr)
        result["runs"].append(_measure(folder, policy, quick, samples, shutdowns))
    return result


def _measure(
    folder: str, policy: Policy, quick: bool, samples: Sequence[int], shutdowns: bool
) -> dict[str, Any]:
    mode: Mode = policy.config.mode
    if mode not in _GROUPS:
        raise ConfigError(f'{folder}: nothing is published for mode "{mode}" to compare with.')
    groups = [g for g in _GROUPS[mode] if not quick or g in _QUICK]
    rows: dict[str, dict[str, dict[str, float]]] = {}
    lines: dict[str, dict[str, float]] = {}
    best_rules: dict[str, str] = {}
    for group in groups:
        instances = instances_of(group)
        for count in samples:
            if count > _MANY[mode] and group != _MANY_ON:
                continue
            began = time.perf_counter()
            makespans = np.asarray(policy.makespans(instances, samples=count), np.float64)
            seconds = (time.perf_counter() - began) / len(instances)
            rows.setdefault(str(count), {})[group] = {
                "mean": float(makespans.mean()),
                "gap": float(gaps(instances, mode, makespans).mean()),
                "seconds": seconds,
            }
        best_rules[group] = _rule_lines(lines, group, instances, mode)
    found: dict[str, Any] = {
        "run": folder,
        "mode": mode,
        "groups": groups,
        "rows": rows,
        "lines": lines,
        "best rules": best_rules,
        "rollouts": [getattr(policy.config, f"{n}_rollouts", None) for n in ("eval", "sample")],
        "guide": getattr(policy.config, "guide", False),
        "goals": _goals(mode, rows, lines),
    }
    if mode == "bws" and shutdowns:
        found["shutdowns"] = _shutdowns(policy, quick)
    return found


def _rule_lines(
    lines: dict[str, dict[str, float]],
    group: str,
    instances: Sequence[JobShopInstance],
    mode: Mode,
) -> str:
    """Adds the rules' gaps on a group; returns the name of the best rule."""
    free = rule_makespans(instances, mode)
    table = np.stack([gaps(instances, mode, free[rule][:, 0]) for rule in RULES])
    lines.setdefault("best rule", {})[group] = float(table.mean(1).min())
    lines.setdefault("best rule for each instance", {})[group] = float(table.min(0).mean())
    if mode == "bws":
        limited, _ = limited_gaps(group)
        lines.setdefault("best rule, best limit", {})[group] = float(limited.mean(1).min())
        each = float(limited.min(0).mean())
        lines.setdefault("best rule and limit for each instance", {})[group] = each
    return RULES[int(table.mean(1).argmin())]


def _goals(
    mode: Mode, rows: dict[str, dict[str, dict[str, float]]], lines: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Returns the goals that the measured groups allow to judge."""
    found: list[dict[str, Any]] = []
    for (group, count), goal in GOALS[mode].items():
        cells = rows.get(str(count), {})
        if group == "all groups":
            gap = float(np.mean([cell["gap"] for cell in cells.values()])) if cells else None
        else:
            gap = cells[group]["gap"] if group in cells else None
        if gap is not None:
            found.append({"on": group, "samples": count, "gap": gap, "goal": goal})
    if mode == "bws":
        for group, cell in rows.get("1", {}).items():
            goal = lines["best rule, best limit"][group]
            found.append({"on": group, "samples": 1, "gap": cell["gap"], "goal": goal})
    return found


def _shutdowns(policy: Policy, quick: bool) -> list[dict[str, Any]]:
    """Returns a paired comparison with the best rule for each set and probability."""
    seeds = 2 if quick else TRACE_SEEDS
    found = []
    for names in _expected.SHUTDOWN_SETS[: 1 if quick else None]:
        instances = instances_of(names)
        repeated = [instance for instance in instances for _ in range(seeds)]
        for prob in _expected.PROBS[:: 3 if quick else 1]:
            rules = rules_with_shutdowns(instances, prob, seeds)
            best = min(rules, key=lambda rule: float(rules[rule].mean()))
            traces = random_traces(prob, seeds, len(instances))
            makespans = np.asarray(
                policy.makespans(repeated, traces=traces if prob else None), np.float64
            ).reshape(len(instances), seeds)
            one = slice(None) if prob else slice(0, 1)  # without shutdowns all traces are the same
            found.append(
                {
                    "names": names,
                    "prob": prob,
                    "mean": float(makespans.mean()),
                    "rule": best,
                    "rule mean": float(rules[best].mean()),
                    "FIFO mean": float(rules["FIFO"].mean()),
                    **paired(makespans[:, one], rules[best][:, one]),
                }
            )
    return found


def _published() -> dict[str, dict[str, float]]:
    return {
        name.replace("/", ", best of "): {group: cell[0] for group, cell in row.items()}
        for name, row in _expected.PUBLISHED_GAPS.items()
    }
