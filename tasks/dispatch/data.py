"""What `Dispatch` learns from and is tested on: random shops, classical instances, users' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnnlab.errors import DataError
from gnnlab.task import Data, Split
from gnnlab.tasks.dispatch.batched import Problems
from gnnlab.tasks.dispatch.config import DispatchConfig, parse_numbers, parse_sizes
from gnnlab.tasks.dispatch.datasets import CLASSICAL, expand, load, published
from gnnlab.tasks.dispatch.files import FORMATS, read_instances
from gnnlab.tasks.dispatch.generate import random_batch
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.trace import RandomTrace, Shutdowns

__all__ = ["Shops", "random_problems", "read", "read_shops"]

# Seeds of the shops that choose the epoch and of those that are reported. Training draws its own
# from a generator, and its traces from 2**40 upwards.
_VAL_SEED, _TEST_SEED = 200, 300
_SUFFIXES = (".txt", ".json", ".npy", ".fjs", ".dct", ".jsp", ".std", ".tai")


@dataclass(frozen=True)
class Shops:
    """Instances to schedule, each with a trace of shutdowns or None."""

    instances: Sequence[JobShopInstance]
    """I instances; the same one may come several times with different traces."""
    traces: Sequence[RandomTrace | None]
    """As many traces."""

    def __len__(self) -> int:
        return len(self.instances)


def random_problems(rng: np.random.Generator, count: int, jobs: int, machines: int) -> Problems:
    """Returns random job shops: every job visits all machines, times 1..99."""
    order, times = random_batch(rng, count, jobs, machines)
    return Problems(order, times, np.full((count, jobs), machines), machines)


def read(source: Any, config: DispatchConfig) -> Data:
    """Returns random training and validation shops, and the test shops that `source` names."""
    jobs, machines = parse_sizes(config.val_size)[0]
    if isinstance(source, str) and source == "random":
        problems = random_problems(
            np.random.default_rng(_TEST_SEED), config.val_count, jobs, machines
        )
        instances: list[JobShopInstance] = [problems[i] for i in range(len(problems))]
    else:
        instances = read_shops(source)
    problems = random_problems(np.random.default_rng(_VAL_SEED), config.val_count, jobs, machines)
    known = [
        published(i.name).best(config.mode) if i.name in CLASSICAL else None for i in instances
    ]
    test = _with_traces(instances, config)
    return Data(
        train=Split(name="train", history=None, target=None),
        val=Split(
            name="val",
            history=_with_traces([problems[i] for i in range(len(problems))], config),
            target=None,
        ),
        test=Split(name="test", history=test, target=known * (len(test) // len(instances))),
        spec={"mode": config.mode},
        facts={
            "training": f"random shops of {config.sizes}",
            "validation": f"{len(problems)} random shops of {config.val_size}",
            "test": f"{len(instances)} shops: {_names(instances)}",
            "mode": config.mode,
            "shutdown probabilities": config.shutdown,
        },
    )


def read_shops(source: Any) -> list[JobShopInstance]:
    """Returns the instances of a file, a folder, names of classical ones, or objects as they are.

    Raises:
        DataError: when there is none.
    """
    if isinstance(source, JobShopInstance):
        return [source]
    if isinstance(source, (list, tuple)) and all(isinstance(s, JobShopInstance) for s in source):
        found = list(source)
    else:
        path = Path(str(source))
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
            found = [instance for file in files for instance in read_instances(file)]
        elif path.exists() or path.suffix.lower() in _SUFFIXES:
            found = read_instances(path)
        else:
            found = [load(name) for name in expand(str(source))]
    if not found:
        raise DataError(
            f"{source}: no job shops there. Give a file ({', '.join(FORMATS)}), a folder of them, "
            "names such as la01-05, or random."
        )
    return found


def _with_traces(instances: Sequence[JobShopInstance], config: DispatchConfig) -> Shops:
    every, traces = [], []
    for prob in parse_numbers(config.shutdown):
        how = shutdowns(config, prob)
        for seed, instance in enumerate(instances):
            every.append(instance)
            traces.append(RandomTrace(seed, how) if prob > 0 else None)
    return Shops(every, traces)


def shutdowns(config: DispatchConfig, prob: float) -> Shutdowns:
    """Returns how machines fail with this probability."""
    return Shutdowns(prob=prob, low=config.repair_low, high=config.repair_high)


def _names(instances: Sequence[JobShopInstance]) -> str:
    names = [i.name for i in instances]
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} ... {names[-1]}"
