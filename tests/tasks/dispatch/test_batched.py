"""The compiled simulator against the plain one: the same decisions give the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gnnlab.ops import backend
from gnnlab.tasks.dispatch import (
    RULES,
    Cuts,
    JobShopInstance,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    Simulator,
    WindowTrace,
    dispatch,
)
from gnnlab.tasks.dispatch.batched import BatchedShop

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")


def random_instance(rng: np.random.Generator) -> JobShopInstance:
    """Up to 6 jobs and machines, recirculation, stays on a machine, and times of zero."""
    m = int(rng.integers(1, 7))
    jobs = []
    for _ in range(int(rng.integers(1, 7))):
        length = int(rng.integers(1, 7))
        times = rng.integers(0 if rng.random() < 0.4 else 1, 9, length)
        jobs.append(list(zip(rng.integers(0, m, length), times, strict=True)))
    return JobShopInstance.from_jobs(jobs, m)


def random_options(rng: np.random.Generator) -> ShopOptions:
    def coin() -> bool:
        return bool(rng.random() < 0.5)

    return ShopOptions(
        mode=("jssp", "bws", "bns")[rng.integers(3)],
        restart=coin(),
        unload_when_down=coin(),
        wip_limit=int(rng.integers(1, 5)) if rng.random() < 0.3 else None,
        allow_wait=coin(),
        focus=coin(),
        auto_trivial=coin(),
        reward=("elapsed", "waiting", "delta_lb")[rng.integers(3)],
        max_steps=int(rng.integers(1, 12)) if rng.random() < 0.1 else None,
    )


def random_trace(rng: np.random.Generator, instance: JobShopInstance):
    kind = rng.integers(5)
    how = Shutdowns(
        prob=float(rng.choice([0.02, 0.1, 0.2])),
        duration=("uniform", "fixed", "geometric")[rng.integers(3)],
        low=1,
        high=6,
    )
    seed = int(rng.integers(2**62))
    if kind == 0:
        return None, None
    if kind == 1:
        return None, Cuts.draw(instance, 0.5, seed, how)
    if kind == 2:
        return RandomTrace(seed, how).until(instance.num_machines, 20), None
    return RandomTrace(seed, how), None


def play_both(
    rng: np.random.Generator,
    instance: JobShopInstance,
    options: ShopOptions,
    trace: RandomTrace | WindowTrace | None,
    cuts: Cuts | None,
) -> None:
    plain = Simulator(instance, trace, options, cuts=cuts)
    batch = BatchedShop([instance], options, traces=trace if cuts is None else cuts, threads=1)
    while not plain.over:
        legal = plain.legal()
        assert np.flatnonzero(batch.masks()[0]).tolist() == legal
        state = batch.states()[0].tolist()
        assert state[0] == plain.time
        assert state[3:] == [plain.steps, plain.swaps, plain.lower_bound()]
        action = legal[rng.integers(len(legal))]
        reward, _ = batch.step(np.array([action]))
        assert reward[0] == plain.step(action)  # bit for bit
    flags = batch.states()[0, 2]
    assert (flags & 2 > 0, flags & 4 > 0) == (plain.deadlock, plain.truncated)
    assert not batch.masks().any()
    if plain.done:
        assert batch.makespans()[0] == plain.makespan
        assert batch.schedule(0) == plain.schedule()


@pytest.mark.parametrize("seed", range(10))
def test_random_episodes_are_those_of_the_plain_simulator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        instance = random_instance(rng)
        options = random_options(rng)
        trace, cuts = random_trace(rng, instance)
        play_both(rng, instance, options, trace, cuts)


@pytest.mark.parametrize("rule", RULES)
def test_rules_give_the_schedules_of_the_plain_rules(rule: str) -> None:
    rng = np.random.default_rng(RULES.index(rule))
    for _ in range(30):
        instance = random_instance(rng)
        options = dataclasses.replace(random_options(rng), max_steps=None, auto_trivial=False)
        trace, cuts = random_trace(rng, instance)
        plain = dispatch(instance, rule, trace, options, seed=5, cuts=cuts)
        batch = BatchedShop([instance], options, traces=trace if cuts is None else cuts)
        batch.run_rules([(RULES.index(rule), 1.0)], seeds=np.array([5]))
        assert bool(batch.states()[0, 2] & 2) == plain.deadlock
        if plain.done:
            assert batch.schedule(0) == plain.schedule()
