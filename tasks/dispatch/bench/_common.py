"""What the parts share: playing rules, gaps, and the head of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnlab.experiment import environment
from gnnlab.tasks.dispatch import datasets
from gnnlab.tasks.dispatch._rule_spans import rule_spans
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.schedule import Mode

__all__ = ["best_known", "gaps", "head", "instances_of", "rule_makespans"]

RANDOM_SEEDS = 5


def head(part: str, about: str, quick: bool, options: str = "") -> dict[str, Any]:
    """Returns the first fields of a result: what was run, where, and by which command."""
    out = "" if quick else f" --out docs/results/dispatch-{part}.json"
    return {
        "kind": f"dispatch-{part}",
        "name": part,
        "about": about,
        "command": f"gnnlab bench dispatch {part}{options}{' --quick' if quick else ''}{out}",
        "environment": environment(),
    }


def instances_of(names: str) -> list[JobShopInstance]:
    """Reads the classical instances that names, ranges and families stand for."""
    return [datasets.load(name) for name in datasets.expand(names)]


def best_known(instances: Sequence[JobShopInstance], mode: Mode) -> np.ndarray:
    """Returns (I,) best known makespans; NaN where none is published."""
    best = [datasets.published(instance.name).best(mode) for instance in instances]
    return np.array([np.nan if value is None else value for value in best], np.float64)


def gaps(instances: Sequence[JobShopInstance], mode: Mode, makespans: np.ndarray) -> np.ndarray:
    """Returns by how many percent makespans (..., I) lie above the best known ones."""
    found: np.ndarray = 100 * (makespans / best_known(instances, mode) - 1)
    return found


def rule_makespans(
    instances: Sequence[JobShopInstance],
    mode: Mode,
    rules: Sequence[str] = RULES,
    *,
    copies: int = 1,
    traces: Sequence[Any] | None = None,
    limits: np.ndarray | None = None,
    random_seeds: int = RANDOM_SEEDS,
) -> dict[str, np.ndarray]:
    """Plays priority rules.

    Args:
        instances: I job shops.
        mode: "jssp", "bws" or "bns".
        rules: names of rules.
        copies: C, episodes of each instance.
        traces: one per episode, I * C; those of an instance follow one another.
        limits: (I, C) int, how many jobs may be inside; 0 is any number.
        random_seeds: episodes of RANDOM whose mean counts.

    Returns:
        (I, C) float64 makespans of each rule; infinite after a deadlock.
    """
    options = ShopOptions(mode=mode, focus=True)
    wip = None if limits is None else np.asarray(limits).reshape(-1)
    shop = BatchedShop(instances, options, copies=copies, traces=traces, wip_limits=wip, threads=1)
    found = {}
    for rule in rules:
        seeds = random_seeds if rule == "RANDOM" else 1
        found[rule] = np.zeros((len(instances), copies))
        for seed in range(seeds):
            keys = (np.arange(shop.num_rows) % copies * seeds + seed).astype(np.uint64)
            spans = rule_spans(shop, rule, keys)
            found[rule] += spans.reshape(len(instances), copies) / seeds
    return found
