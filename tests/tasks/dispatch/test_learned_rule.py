"""The guide: its facts, how it draws, and how its weights are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gnnlab.ops import backend
from gnnlab.tasks.dispatch import JobShopInstance, ShopOptions, Simulator
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.data import random_problems
from gnnlab.tasks.dispatch.guide import GUIDE_FACTS, draw, guide_facts
from gnnlab.tasks.dispatch.guide_fit import fit_guide, fit_weights
from gnnlab.tasks.dispatch.lookahead import Lookahead

compiled = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")


def test_the_facts_of_a_shop_by_hand() -> None:
    """At time 5 job 0, which blocks machine 0, or job 4 may go onto machine 1."""
    jobs = [[(0, 3), (1, 2), (2, 4)], [(0, 1)], [(1, 5)], [(2, 9), (1, 3)], [(1, 7)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), options=ShopOptions(mode="bws", focus=True))
    for job in (0, 2, 3):
        shop.step(job)
    assert (shop.time, shop.first_bound) == (5, 17)
    unit, bound = 34 / 8, 17  # the mean time; work of machine 1
    candidates, facts = guide_facts(shop)
    assert candidates == [0, 4]
    first = [2 / unit, 6 / bound, 1 / 3, 5 / 11, 0.25 * 2 / unit, 0, 0, 0, 1 / 5, 1 / bound]
    first += [4 / unit, 0, 0, 4 / bound, 0, 0, 0, 1, (9 - 5 - 2) / unit, 0]
    assert facts[0] == pytest.approx(first)
    last = [7 / unit, 7 / bound, 1, 7 / 14, 0.25 * 5 / unit, 1, 2 / 3, 1, 0, 0]
    assert facts[1] == pytest.approx([*last, *[0] * 10])


@pytest.mark.parametrize("unit", [0.0, 0.3, 0.999])
def test_jobs_are_drawn_by_their_probability(unit: float) -> None:
    shop = Simulator(JobShopInstance.from_jobs([[(0, 1)], [(0, 3)], [(0, 4)]]))
    weights = [0.0] * len(GUIDE_FACTS)
    weights[GUIDE_FACTS.index("time of the next operation / unit")] = -1.0
    odds = np.exp([-3 / 8, -9 / 8, -12 / 8])  # the mean time is 8/3
    wanted = int(np.searchsorted(np.cumsum(odds / odds.sum()), unit, side="right"))
    assert draw(shop, weights, unit) == wanted


def test_the_weights_are_the_likeliest() -> None:
    """The gradient of the likelihood vanishes, and the weights of the choices come back."""
    rng = np.random.default_rng(0)
    facts, true = rng.normal(size=(30_000, 4, 3)), np.array([1.5, -1.0, 0.0])
    mask = rng.random((30_000, 4)) < 0.8
    mask[:, 0] = True
    noise = rng.gumbel(size=mask.shape)
    chosen = np.where(mask, facts @ true + noise, -np.inf).argmax(1)
    half = 15_000
    halves = []
    for part in (slice(half), slice(half, None)):  # of different widths
        width = 4 if part.start is None else 5
        pad = ((0, 0), (0, width - 4))
        halves.append(
            (
                torch.from_numpy(np.pad(facts[part], (*pad, (0, 0)))),
                torch.from_numpy(np.pad(mask[part], pad)),
                torch.from_numpy(chosen[part]),
            )
        )
    found = fit_weights(halves)
    assert found == pytest.approx(true, abs=0.05)
    odds = np.where(mask, np.exp(facts @ found), 0)
    odds /= odds.sum(1, keepdims=True)
    seen = facts[np.arange(len(facts)), chosen].mean(0)
    expected = (odds[..., None] * facts).sum(1).mean(0)
    assert seen - expected == pytest.approx(2e-4 * found, abs=1e-5)  # the decay's pull


@compiled
def test_a_fitted_guide_makes_lookahead_better_on_other_shops() -> None:
    options = ShopOptions(mode="bws", focus=True, auto_trivial=True)
    ahead = Lookahead(("SPT/TWK", "LPT*TWK", "FDD/MWKR", "FIFO"))
    weights = fit_guide(options, ahead, [(10, 5)], seed=1, rounds=1)
    problems = random_problems(np.random.default_rng(9), 60, 10, 5)
    shop, means = BatchedShop(problems, options), []
    for guide in (None, weights):
        shop.reset()
        rows = np.arange(60)
        while len(rows):
            values = shop.values(ahead.numbers, rollouts=16, noise=0.3, rows=rows, guide=guide)
            least = np.where(values[..., -1] < 0, math.inf, values[..., -1])
            _, flags = shop.step(least.argmin(1), rows)
            rows = rows[flags == 0]
        means.append(shop.makespans().mean())
    assert means[1] < 0.985 * means[0]


def test_a_guide_of_another_length_is_refused() -> None:
    shop = BatchedShop([JobShopInstance.from_jobs([[(0, 1)], [(0, 3)]])])
    with pytest.raises(ValueError, match=r"a guide has 20 weights, got shape \(3,\)"):
        shop.values([0], guide=[0.0, 1.0, 2.0])
