"""Random job shops, options and shutdowns: small, and full of corner cases."""

from __future__ import annotations

import numpy as np

from gnnlab.tasks.dispatch import Cuts, JobShopInstance, RandomTrace, ShopOptions, Shutdowns
from gnnlab.tasks.dispatch.trace import Trace


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
    """Any mode, any switches, and now and then a limit of steps."""

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


def random_trace(rng: np.random.Generator, instance: JobShopInstance) -> Trace | None:
    """Nothing, cuts of operations, a list of windows, or windows without end."""
    kind = rng.integers(5)
    how = Shutdowns(
        prob=float(rng.choice([0.02, 0.1, 0.2])),
        duration=("uniform", "fixed", "geometric")[rng.integers(3)],
        low=1,
        high=6,
    )
    seed = int(rng.integers(2**62))
    if kind == 0:
        return None
    if kind == 1:
        return Cuts.draw(instance, 0.5, seed, how)
    if kind == 2:
        return RandomTrace(seed, how).until(instance.num_machines, 20)
    return RandomTrace(seed, how)
