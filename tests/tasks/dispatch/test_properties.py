"""What must hold of any shop: drawn ones with recirculation, times of zero, and shutdowns."""

from __future__ import annotations

import numpy as np
import pytest
from random_shops import random_instance, random_options, random_trace

from gnnlab.tasks.dispatch import (
    RULES,
    ShopOptions,
    Simulator,
    dispatch,
    machine_job_bound,
    one_machine_bound,
    solve_exact,
    verify,
)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_decided_the_schedule_is_valid_and_not_below_the_bounds(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    for _ in range(100):
        instance, options = random_instance(rng), random_options(rng)
        trace = random_trace(rng, instance)
        shop = Simulator(instance, trace, options)
        total = shop.initial_reward
        while not shop.over:
            legal = shop.legal()
            assert legal  # never without an action before the end
            total += shop.step(legal[rng.integers(len(legal))])
        if not shop.done:
            continue
        found = verify(
            instance,
            shop.schedule(),
            options.mode,
            trace,
            restart=options.restart,
            unload_when_down=options.unload_when_down,
        )
        assert found == []
        assert machine_job_bound(instance) <= one_machine_bound(instance) <= shop.makespan
        if options.reward == "elapsed":
            assert total == pytest.approx(-shop.makespan / shop.scale)


def test_the_exact_solver_is_never_worse_than_a_rule() -> None:
    pytest.importorskip("ortools")
    rng = np.random.default_rng(5)
    for _ in range(8):
        instance = random_instance(rng)
        best = min(
            dispatch(instance, rule, options=ShopOptions(mode="bws")).makespan for rule in RULES
        )
        found = solve_exact(instance, mode="bws", seconds=2, workers=1)
        assert found.makespan is not None
        assert found.makespan <= best
        assert verify(instance, found.schedule) == []
