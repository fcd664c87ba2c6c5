"""Bounds of the makespan: by hand, against brute force, and against the published table."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from gnnlab.tasks.dispatch import (
    JobShopInstance,
    machine_job_bound,
    one_machine_bound,
    serial_bound,
)
from gnnlab.tasks.dispatch.datasets import CLASSICAL, load, published
from gnnlab.tasks.dispatch.generate import general

DATA = Path(os.environ.get("GNNLAB_DATA", "nowhere"), "scheduling")
needs_data = pytest.mark.skipif(
    not (DATA / "bounds.json").is_file(), reason="needs GNNLAB_DATA with scheduling/bounds.json"
)


def shop(*jobs: list) -> JobShopInstance:
    return JobShopInstance.from_jobs(list(jobs))


def test_the_longest_job_bounds_the_makespan() -> None:
    assert machine_job_bound(shop([(0, 3), (1, 4), (0, 5)], [(1, 1)])) == 12


def test_a_busy_machine_counts_its_shortest_head_and_tail() -> None:
    # machine 1: heads 2 and 5, work 4 + 6, tails 3 and 1
    tight = shop([(0, 2), (1, 4), (2, 3)], [(2, 5), (1, 6), (0, 1)])
    assert machine_job_bound(tight) == 2 + 10 + 1
    assert serial_bound(tight) == 9 + 12


def test_one_machine_with_preemption_can_exceed_the_simple_bound() -> None:
    # machine 2, (head, time, tail): twice (5, 2, 5) cannot overlap, so 5 + 2 + 2 + 5
    pair = shop([(0, 5), (2, 2), (1, 5)], [(1, 5), (2, 2), (0, 5)], [(2, 1)])
    assert machine_job_bound(pair) == 12
    assert one_machine_bound(pair) == 14
    # machine 0: (0, 4, 0) is interrupted at 1 by two of (1, 2, 9), which end at 3 and 5
    cut = shop([(0, 4)], [(1, 1), (0, 2), (2, 9)], [(3, 1), (0, 2), (4, 9)])
    assert machine_job_bound(cut) == 12
    assert one_machine_bound(cut) == 5 + 9


def preemptive_by_ticks(heads: list, times: list, tails: list) -> int:
    """The best preemptive schedule of one machine, by search over who works in each tick."""
    best = [10**9]

    def go(now: int, left: tuple, worst: int) -> None:
        if worst >= best[0]:
            return
        if not any(left):
            best[0] = worst
            return
        ready = [i for i, w in enumerate(left) if w and heads[i] <= now]
        if not ready:
            go(now + 1, left, worst)
        for i in ready:
            after = (*left[:i], left[i] - 1, *left[i + 1 :])
            go(now + 1, after, max(worst, now + 1 + tails[i]) if after[i] == 0 else worst)

    go(0, tuple(times), 0)
    return best[0]


@pytest.mark.parametrize("seed", range(25))
def test_the_one_machine_bound_is_the_best_preemptive_schedule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads, times, tails = (rng.integers(low, 5, 4).tolist() for low in (0, 1, 0))
    # heads and tails on machines of their own, so that machine 0 alone matters
    rows = [
        [(1 + 2 * j, h), (0, p), (2 + 2 * j, q)]
        for j, (h, p, q) in enumerate(zip(heads, times, tails, strict=True))
    ]
    expected = preemptive_by_ticks(heads, times, tails)
    assert one_machine_bound(shop(*rows)) == expected


def shortest(instance: JobShopInstance) -> int:
    """The least makespan with buffers: all orders of dispatching operations as early as can be."""
    jobs = instance.jobs()
    order = [j for j, job in enumerate(jobs) for _ in job]
    best = serial_bound(instance)
    for sequence in set(itertools.permutations(order)):
        ready, free, step = [0] * len(jobs), [0] * instance.num_machines, [0] * len(jobs)
        for j in sequence:
            k, p = jobs[j][step[j]]
            step[j] += 1
            ready[j] = free[k] = max(ready[j], free[k]) + p
        best = min(best, max(ready))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_bounds_are_ordered_and_below_the_least_makespan(seed: int) -> None:
    instance = general(3, (1, 2), 2, low=0, high=6, seed=seed)
    low, high = machine_job_bound(instance), one_machine_bound(instance)
    assert low <= high <= shortest(instance) <= serial_bound(instance)


@needs_data
def test_all_classical_bounds_agree_with_the_published_table() -> None:
    table = json.loads((DATA / "bounds.json").read_text())
    assert sorted(table) == sorted(CLASSICAL)
    for name in CLASSICAL:
        instance, facts = load(name), published(name)
        low = machine_job_bound(instance)
        assert low == table[name]["machine_job_bound"], name
        assert low <= one_machine_bound(instance) <= facts.lower_bound, name
        assert facts.blocking_upper_bound <= serial_bound(instance), name
