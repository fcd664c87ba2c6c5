"""Priority rules while machines fail, and the paired comparison of two ways to dispatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnlab.errors import DataError
from gnnlab.tasks.dispatch.bench import _expected
from gnnlab.tasks.dispatch.bench._common import head, instances_of, rule_makespans
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.trace import RandomTrace, Shutdowns

__all__ = ["paired", "random_traces", "rules_with_shutdowns", "run", "student_quantile"]

TRACE_SEEDS = 20


def run(quick: bool = False) -> dict[str, Any]:
    """Plays all rules on two sets of instances, 20 traces each, for six probabilities.

    Args:
        quick: four traces and the first set only.

    Raises:
        DataError: when the instances are not on this machine.
    """
    seeds = 4 if quick else TRACE_SEEDS
    about = (
        "priority rules without buffers, swaps allowed, while machines fail with probability q "
        f"per unit of time for 10 to 50 of them; work goes on after the repair; {seeds} traces"
    )
    result = head("shutdowns", about, quick)
    result |= {"seeds": seeds, "probs": _expected.PROBS, "sets": []}
    for names in _expected.SHUTDOWN_SETS[: 1 if quick else None]:
        result["sets"].append(_set(names, seeds))
    return result


def random_traces(prob: float, seeds: int, instances: int) -> list[RandomTrace | None]:
    """Returns the traces 0..seeds-1 once per instance; None where no machine ever fails.

    Args:
        prob: probability that an up machine fails in a unit of time.
        seeds: S, how many traces.
        instances: I, how often.

    Example:
        >>> [trace.seed for trace in random_traces(0.01, 2, 2)]
        [0, 1, 0, 1]
    """
    how = Shutdowns(prob=prob)
    return [RandomTrace(s, how) if prob else None for s in range(seeds)] * instances


def rules_with_shutdowns(
    instances: Sequence[JobShopInstance],
    prob: float,
    seeds: int = TRACE_SEEDS,
    rules: Sequence[str] = RULES,
) -> dict[str, np.ndarray]:
    """Returns (I, S) makespans of each rule without buffers, swaps allowed, on the same traces.

    Args:
        instances: I job shops.
        prob: probability that an up machine fails in a unit of time.
        seeds: S, traces per instance.
        rules: names of rules.
    """
    return rule_makespans(
        instances,
        "bws",
        rules,
        copies=seeds,
        traces=random_traces(prob, seeds, len(instances)),
        random_seeds=1,
    )


def paired(policy_makespans: np.ndarray, rule_makespans: np.ndarray) -> dict[str, Any]:
    """Compares a policy with a rule on the same pairs of instance and trace.

    Args:
        policy_makespans: any shape; n makespans.
        rule_makespans: the same shape, on the same instances and traces.

    Returns:
        "pairs" n; "difference", the mean of rule - policy, positive when the policy is shorter;
        "interval", its 95 % confidence interval by Student's t over the pairs; "percent",
        the difference in percent of the rule's mean; "win", "tie" and "loss", pairs in which the
        policy is shorter, equal and longer.

    Raises:
        DataError: for shapes that differ, or fewer than two pairs.

    Example:
        >>> found = paired(np.array([10, 12, 11]), np.array([12, 12, 15]))
        >>> found["difference"], found["win"], found["tie"], found["loss"]
        (2.0, 2, 1, 0)
    """
    policy = np.asarray(policy_makespans, np.float64)
    rule = np.asarray(rule_makespans, np.float64)
    if policy.shape != rule.shape or policy.size < 2:
        raise DataError(
            f"paired: makespans of shapes {policy.shape} and {rule.shape}; two equal shapes with "
            "at least two pairs are needed."
        )
    delta = (rule - policy).ravel()
    n, mean = delta.size, float(delta.mean())
    half = student_quantile(n - 1) * float(delta.std(ddof=1)) / math.sqrt(n)
    return {
        "pairs": n,
        "difference": mean,
        "interval": (mean - half, mean + half),
        "percent": 100 * mean / float(rule.mean()),
        "win": int((delta > 0).sum()),
        "tie": int((delta == 0).sum()),
        "loss": int((delta < 0).sum()),
    }


def student_quantile(freedom: int, inside: float = 0.95) -> float:
    """Returns t such that Student's distribution has the share `inside` in -t..t.

    Args:
        freedom: degrees of freedom, 1 or more.
        inside: in (0, 1).

    Example:
        >>> round(student_quantile(9), 3)
        2.262
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # the angle atan(t / sqrt(freedom)) lies in 0..pi/2
        angle = (low + high) / 2
        low, high = (angle, high) if _share(angle, freedom) < inside else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _share(angle: float, freedom: int) -> float:
    """Share inside -t..t by the finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _set(names: str, seeds: int) -> dict[str, Any]:
    instances = instances_of(names)
    rows: dict[str, dict[str, Any]] = {rule: {} for rule in RULES}
    best: dict[str, str] = {}
    deviations = []
    for prob in _expected.PROBS:
        found = rules_with_shutdowns(instances, prob, seeds)
        for rule, makespans in found.items():
            wanted = _expected.SHUTDOWNS.get(rule, {}).get(f"{names} {prob:g}")
            mean = float(makespans.mean())
            cell = {
                "mean": mean,
                "error": float(makespans.mean(0).std(ddof=1) / math.sqrt(seeds)),
                "expected": None if wanted is None else wanted[0],
            }
            rows[rule][f"{prob:g}"] = cell
            if wanted is not None and prob:
                deviations.append(100 * (mean / wanted[0] - 1))
        best[f"{prob:g}"] = min(found, key=lambda rule: float(found[rule].mean()))
    return {
        "names": names,
        "rows": rows,
        "best": best,
        "mean deviation": float(np.mean(deviations)),
        "mean absolute deviation": float(np.mean(np.abs(deviations))),
        "largest deviation": float(np.max(np.abs(deviations))),
    }
