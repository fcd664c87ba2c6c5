"""The compiled simulator against the plain one: the same decisions give the same bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from random_shops import random_instance, random_options, random_trace

from gnnlab.ops import backend
from gnnlab.tasks.dispatch import RULES, JobShopInstance, ShopOptions, Simulator, dispatch
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.trace import Trace

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")


def play_both(
    rng: np.random.Generator,
    instance: JobShopInstance,
    options: ShopOptions,
    trace: Trace | None,
) -> None:
    plain = Simulator(instance, trace, options)
    batch = BatchedShop([instance], options, traces=trace, threads=1)
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
        trace = random_trace(rng, instance)
        play_both(rng, instance, options, trace)


@pytest.mark.parametrize("rule", RULES)
def test_rules_give_the_schedules_of_the_plain_rules(rule: str) -> None:
    rng = np.random.default_rng(RULES.index(rule))
    for _ in range(30):
        instance = random_instance(rng)
        options = dataclasses.replace(random_options(rng), max_steps=None, auto_trivial=False)
        trace = random_trace(rng, instance)
        plain = dispatch(instance, rule, trace, options, seed=5)
        batch = BatchedShop([instance], options, traces=trace)
        batch.run_rules([(RULES.index(rule), 1.0)], seeds=np.array([5]))
        assert bool(batch.states()[0, 2] & 2) == plain.deadlock
        if plain.done:
            assert batch.schedule(0) == plain.schedule()
