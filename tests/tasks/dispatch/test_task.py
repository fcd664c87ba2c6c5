"""The dispatching task behind the common interface."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

import gnnlab
from gnnlab.errors import ConfigError, DataError
from gnnlab.ops import backend
from gnnlab.tasks.dispatch import JobShopInstance, RandomTrace, Shutdowns, verify
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.data import random_problems
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.task import Dispatch
from gnnlab.testing import check_task

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")

SMALL = {
    "dim": 8,
    "heads": 2,
    "layers": 1,
    "encoder_layers": 1,
    "sizes": "3x3,4x2",
    "updates": 2,
    "instances": 4,
    "samples": 4,
    "rollouts": 2,
    "val_size": "4x3",
    "val_count": 4,
    "eval_rollouts": 2,
    "sample_rollouts": 2,
}
SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]], name="swap")


def shops(count: int, jobs: int, machines: int, seed: int = 0) -> list[JobShopInstance]:
    problems = random_problems(np.random.default_rng(seed), count, jobs, machines)
    return [problems[i] for i in range(count)]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"mode": "jssp", "lookahead": False},
        {"mode": "bws", "allow_wait": True, "shutdown": "0,0.02"},
        {"mode": "bws", "allow_wait": True, "label_search": 20},
        {"mode": "bws", "guide": True},
        {"learn": "policy-gradient", "entropy": 0.01},
        {"model": "isb", "shutdown": "0,0.02"},
        {"model": "l2d", "mode": "jssp"},
        {"model": "SPT"},
    ],
)
def test_dispatch_keeps_the_promises_of_a_task(values: dict[str, object], tmp_path) -> None:
    file = tmp_path / "shop.txt"
    file.write_text("2 2\n0 3 1 2\n1 3 0 2\n")
    query = {"instance": str(file)}
    check_task(Dispatch, shops(3, 3, 3), {**SMALL, **values}, query=query, epochs=2)


@pytest.fixture(scope="module")
def trained() -> Dispatch:
    config = Dispatch.Config(**SMALL, allow_wait=True)
    data = Dispatch.read("random", config)
    return gnnlab.fit(Dispatch(config, data.spec), data, epochs=2, progress=False).best


@pytest.mark.parametrize(("samples", "search"), [(1, 0), (6, 0), (1, 50)])
def test_every_schedule_is_valid(trained: Dispatch, samples: int, search: int) -> None:
    for seed, shop in enumerate(shops(5, 5, 4)):
        trace = RandomTrace(seed, Shutdowns(prob=0.01)) if seed % 2 else None
        plan = trained.solve(shop, trace, samples=samples, search=search)
        assert verify(shop, plan, trace=trace) == []


def test_more_samples_and_search_are_never_worse(trained: Dispatch) -> None:
    for shop in shops(5, 6, 6):
        few = trained.solve(shop, samples=4).makespan
        assert trained.solve(shop, samples=4, search=200).makespan <= few
    spans = [trained.makespans(shops(5, 6, 6), samples=k) for k in (4, 4)]
    assert (spans[0] == spans[1]).all()  # the same seed draws the same


def test_makespans_are_those_of_the_schedules(trained: Dispatch) -> None:
    some = [*shops(3, 4, 3), *shops(2, 5, 5)]
    spans = trained.makespans(some)
    assert spans.tolist() == [trained.solve(shop).makespan for shop in some]


def first_logits(task: Dispatch, shop: JobShopInstance) -> torch.Tensor:
    batch = BatchedShop([shop], task.config.shop_options())
    view = batch.view(lookahead=Lookahead(rollouts=0))  # noise would draw by the order of jobs
    with torch.no_grad():
        vectors = task.policy.encode(batch.padded())
        return task.policy(view, vectors, torch.zeros(1, dtype=torch.int64))[0]


@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_relabelling_jobs_and_machines_permutes_the_logits(mode: str) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(1)
    task = Dispatch(Dispatch.Config(**SMALL, mode=mode, allow_wait=True), {"mode": mode})
    for shop in shops(8, 6, 5, seed=9):
        jobs = rng.permutation(6)
        asked = int(shop.machines[:, 0].min())  # the machine that decides first stays the first
        names = np.concatenate([np.arange(asked + 1), asked + 1 + rng.permutation(4 - asked)])
        other = JobShopInstance(
            "other", names[shop.machines[jobs]], shop.times[jobs], shop.lengths, 5
        )
        logits, permuted = first_logits(task, shop), first_logits(task, other)
        torch.testing.assert_close(permuted[:-1], logits[:-1][jobs], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(permuted[-1], logits[-1], rtol=1e-5, atol=1e-5)


def test_parameters_do_not_depend_on_sizes() -> None:
    counts = set()
    for size in ("3x3", "9x4"):
        config = Dispatch.Config(**{**SMALL, "sizes": size, "val_size": size})
        counts.add(sum(p.numel() for p in Dispatch(config, {"mode": "bws"}).parameters()))
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("epochs", "count"), [(2, 20), pytest.param(10, 100, marks=pytest.mark.slow)]
)
def test_it_is_five_percent_better_than_the_best_rule(epochs: int, count: int) -> None:
    config = Dispatch.Config(preset="6x6", updates=5 * epochs, samples=8, val_count=count)
    data = Dispatch.read("random", config)
    task = Dispatch(config, data.spec)
    begun = time.process_time()
    run = gnnlab.fit(task, data, epochs=epochs, progress=False)
    assert time.process_time() - begun < 600
    assert run.best.evaluate(data.test)["ratio"] <= 0.95


def test_a_run_reads_files_and_says_what_is_wrong(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("2 2\n0 3 1 2\n1 3 0 2\n")
    data = Dispatch.read(tmp_path, Dispatch.Config(**SMALL))
    assert data.test is not None
    assert data.test.history.instances[0] == SWAP
    (tmp_path / "b.txt").write_text("2 2\n0 3 1\n1 3 0 2\n")
    with pytest.raises(DataError, match="odd number of values"):
        Dispatch.read(tmp_path, Dispatch.Config(**SMALL))
    with pytest.raises(ConfigError, match=r'unknown model "SPTT"\. Did you mean "SPT"'):
        Dispatch.Config(model="SPTT")
    with pytest.raises(ConfigError, match='"6by6" is no size'):
        Dispatch.Config(sizes="6by6")
