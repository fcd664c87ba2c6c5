"""Other libraries at the same work; whatever is not installed is left out with a reason."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np

from gnnlab.tasks.dispatch import datasets
from gnnlab.tasks.dispatch.instance import JobShopInstance

__all__ = ["RULE_NAMES", "JobShopLib", "JssEnv", "versions"]

RULE_NAMES = {
    "SPT": "shortest_processing_time",
    "MWKR": "most_work_remaining",
    "MOPNR": "most_operations_remaining",
}
"""Rules that gnnlab and job_shop_lib define alike, and their names there."""


def versions() -> dict[str, str]:
    """Returns the versions of the peers that are installed."""
    found = {}
    for name, package in (("JSSEnv", "jssenv"), ("job_shop_lib", "job-shop-lib")):
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class JobShopLib:
    """The rule solver of job_shop_lib.

    Raises:
        ImportError: when it is not installed.
    """

    def __init__(self, instances: Sequence[JobShopInstance]) -> None:
        library = importlib.import_module("job_shop_lib")
        self._solver = importlib.import_module(
            "job_shop_lib.dispatching.rules"
        ).DispatchingRuleSolver
        self._instances = [
            library.JobShopInstance(
                [
                    [
                        library.Operation(machines=int(k), duration=int(p))
                        for k, p in zip(machines[:count], times[:count], strict=True)
                    ]
                    for machines, times, count in zip(
                        one.machines, one.times, one.lengths, strict=True
                    )
                ],
                name=one.name,
            )
            for one in instances
        ]

    def makespans(self, rule: str, count: int | None = None) -> np.ndarray:
        """Returns (I,) makespans of one of `RULE_NAMES` on the first `count` instances."""
        solver = self._solver(RULE_NAMES[rule])
        chosen = self._instances[:count]
        return np.array([solver.solve(one).makespan() for one in chosen])


class JssEnv:
    """The environment of JSSEnv, played by random legal actions.

    It may refuse to place a job, so an episode has more steps than operations.

    Args:
        name: a classical instance in the standard format.

    Raises:
        ImportError: when it is not installed.
    """

    def __init__(self, name: str) -> None:
        module = importlib.import_module("JSSEnv.envs.jss_env")
        self._env = module.JssEnv({"instance_path": str(datasets.find(name))})
        self._rng = np.random.default_rng(0)

    def episode(self) -> tuple[int, float]:
        """Plays an episode; returns its steps, and CPU seconds inside `step` alone."""
        found = self._env.reset()
        observation = found[0] if isinstance(found, tuple) else found
        steps, seconds, done = 0, 0.0, False
        while not done:
            action = int(self._rng.choice(np.flatnonzero(observation["action_mask"])))
            began = time.process_time()
            answer: tuple[Any, ...] = self._env.step(action)
            seconds += time.process_time() - began
            observation, done = answer[0], any(map(bool, answer[2:-1]))
            steps += 1
        return steps, seconds
