"""Proximal policy optimisation of dispatching policies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gnnlab.errors import ConfigError
from gnnlab.ops import backend
from gnnlab.tasks.dispatch import JobShopInstance, ShopOptions, Simulator
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.generate import random_batch, taillard
from gnnlab.tasks.dispatch.isb import IsbPolicy
from gnnlab.tasks.dispatch.l2d import L2DPolicy
from gnnlab.tasks.dispatch.l2d_shop import L2DShop
from gnnlab.tasks.dispatch.ppo import PPO, PPOConfig, advantages
from gnnlab.tasks.dispatch.rollout import Rollout, collect, play

compiled = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")


def _rollout(
    rewards: list[list[float]], values: list[list[float]], dtype: torch.dtype = torch.float64
) -> Rollout:
    """Of episodes given one by one; decisions are in the order of steps."""
    at = sorted((t, r) for r, row in enumerate(rewards) for t in range(len(row)))
    step, row = torch.tensor(at).T
    reward = torch.tensor([rewards[r][t] for t, r in at], dtype=dtype)
    value = torch.tensor([values[r][t] for t, r in at], dtype=dtype)
    total = torch.tensor([sum(row) for row in rewards], dtype=torch.float64)
    zero = torch.zeros(len(at))
    return Rollout(None, zero.long(), zero, value, reward, row, step, total)


# Advantages.


def test_advantages_of_the_critic_are_those_computed_by_hand() -> None:
    rollout = _rollout([[-1.0, -2.0, -4.0], [-3.0]], [[-5.0, -7.0, -3.0], [-2.0]])
    config = PPOConfig(gamma=0.5, gae_lambda=0.5)
    # Episode 0: surprises -1 - 3.5 + 5 = .5, -2 - 1.5 + 7 = 3.5, -4 + 3 = -1, discounted by 1/4.
    expected = {(0, 0): 0.5 + 3.25 / 4, (1, 0): 3.25, (2, 0): -1.0, (0, 1): -1.0}
    gain, target = advantages(rollout, config)
    places = list(zip(rollout.step.tolist(), rollout.row.tolist(), strict=True))
    assert gain.tolist() == [expected[place] for place in places]
    assert target.tolist() == (gain + rollout.value).tolist()


def test_with_lambda_one_the_target_is_the_return_to_go() -> None:
    rollout = _rollout([[-1.0, -2.0, -4.0], [-3.0]], [[9.0, 8.0, 7.0], [6.0]])
    gain, target = advantages(rollout, PPOConfig(gae_lambda=1.0))
    assert target.tolist() == [-7.0, -3.0, -6.0, -4.0]
    assert gain.tolist() == [-16.0, -9.0, -14.0, -11.0]


def test_a_group_is_compared_with_itself() -> None:
    rollout = _rollout([[-1.0, -2.0], [-5.0], [-4.0], [-4.0]], [[0.0, 0.0], [0.0], [0.0], [0.0]])
    gain, _ = advantages(rollout, PPOConfig(baseline="group"), copies=2)
    # Returns -3 and -5: mean -4, deviation 1; the other group has none.
    assert gain.tolist() == [1.0, -1.0, 0.0, 0.0, 1.0]


def test_returns_are_normalised_episode_by_episode_as_l2d_does() -> None:
    rewards = [[-1.0, 0.0, -2.0, -4.0], [-3.0, -1.0]]
    rollout = _rollout(rewards, [[0.5] * 4, [0.25] * 2])
    gain, target = advantages(rollout, PPOConfig.l2d())
    for row, of_row in enumerate(rewards):
        togo = torch.tensor(of_row, dtype=torch.float64).flip(0).cumsum(0).flip(0)
        expected = (togo - togo.mean()) / (togo.std() + 1e-5)
        torch.testing.assert_close(target[rollout.row == row], expected)
    torch.testing.assert_close(gain, target - rollout.value)


# Batches and the loss.


def _small_shop(generator: torch.Generator) -> BatchedShop:
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    machines, times = random_batch(rng, 8, 4, 3)
    problems = [
        JobShopInstance("random", m, t, np.full(4, 3), 3)
        for m, t in zip(machines, times, strict=True)
    ]
    return BatchedShop(problems, threads=1)


def _l2d_shop(generator: torch.Generator) -> L2DShop:
    seed = int(torch.randint(2**31, (), generator=generator))
    return L2DShop([taillard(4, 3, seed=seed + i) for i in range(4)])


CASES = [
    pytest.param(lambda: IsbPolicy(dim=8), _small_shop, PPOConfig(), marks=compiled),
    pytest.param(lambda: L2DPolicy(hidden=8), _l2d_shop, PPOConfig.l2d()),
]


@pytest.mark.parametrize(("make", "shop", "config"), CASES)
def test_the_first_minibatch_is_of_the_policy_that_played(
    make: Callable[[], Any], shop: Any, config: PPOConfig
) -> None:
    torch.manual_seed(0)
    policy, ppo = make(), PPO(config)
    batch = next(ppo.batches(policy, shop, torch.Generator().manual_seed(0)))
    logits, _ = policy(batch["view"])
    taken = logits.log_softmax(1).gather(1, batch["action"][:, None]).squeeze(1)
    torch.testing.assert_close(taken, batch["log_prob"], atol=1e-5, rtol=1e-5)
    losses = ppo.loss(policy, batch)
    assert abs(losses["kl"]) < 1e-6
    assert losses["clip_fraction"] == 0
    chosen = batch["weight"] > 0
    assert torch.equal(chosen, batch["view"].mask.sum(1) > 1)
    # With ratios of 1 the policy's loss is minus the mean advantage.
    torch.testing.assert_close(
        losses["policy"], -batch["advantage"][chosen].mean(), atol=1e-5, rtol=1e-4
    )
    losses["loss"].backward()
    assert all(p.grad is not None for p in policy.actor.parameters())


@pytest.mark.parametrize(("make", "shop", "config"), CASES)
def test_the_same_seed_trains_the_same_weights(
    make: Callable[[], Any], shop: Any, config: PPOConfig
) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        policy = make()
        _train(PPO(config), policy, shop, updates=2, seed=seed)
        weights.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def _train(ppo: PPO, policy: Any, make_shop: Any, updates: int, seed: int, lr: float = 3e-3) -> int:
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(policy.parameters(), lr, eps=ppo.config.adam_eps)
    steps = 0
    for update in range(updates):
        for group in adam.param_groups:
            group["lr"] = lr * ppo.config.lr_factor(update / updates)
        for batch in ppo.batches(policy, make_shop, generator, update / updates):
            adam.zero_grad()
            ppo.loss(policy, batch)["loss"].backward()
            if ppo.config.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(policy.parameters(), ppo.config.grad_clip)
            adam.step()
            steps += 1
    return steps


@compiled
def test_every_decision_comes_once_per_pass() -> None:
    torch.manual_seed(0)
    policy, ppo = IsbPolicy(dim=8), PPO(PPOConfig(epochs=2, minibatch=10, max_kl=None))
    batches = list(ppo.batches(policy, _small_shop, torch.Generator().manual_seed(0)))
    count = int(ppo.report["decisions"])
    assert len(batches) == 2 * -(-count // 10)
    assert max(len(batch["action"]) for batch in batches) <= 10
    for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
        seen = torch.cat([batch["return"] for batch in epoch]).sort().values
        assert len(seen) == count
    assert {len(batch["view"]) == len(batch["action"]) for batch in batches} == {True}


@compiled
def test_passes_end_when_the_policy_has_moved_too_far() -> None:
    counts = []
    for limit in (1e-8, None):
        torch.manual_seed(0)
        ppo = PPO(PPOConfig(epochs=6, max_kl=limit))
        counts.append(_train(ppo, IsbPolicy(dim=8), _small_shop, updates=1, seed=0, lr=0.01))
    assert counts[0] < counts[1] == 6


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))

        def forward(self, view: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return self.logits, self.logits.new_zeros(2)

    class Everything:
        mask = torch.ones(2, 2, dtype=torch.bool)

        def to(self, device: Any) -> Any:
            return self

    policy = Fixed()
    log_prob = torch.tensor([0.5, 0.5]).log()  # now 0.73, a ratio of 1.46
    batch = {
        "view": Everything(),
        "action": torch.zeros(2, dtype=torch.int64),
        "log_prob": log_prob,
        "advantage": torch.tensor([1.0, -1.0]),
        "return": torch.zeros(2),
        "weight": torch.ones(2),
        "entropy_coef": 0.0,
    }
    losses = PPO().loss(policy, batch)
    ratio = float(torch.tensor(1.0).sigmoid()) / 0.5
    assert float(losses["policy"]) == pytest.approx(-(1.2 - ratio) / 2)
    assert float(losses["clip_fraction"]) == 1
    chance = float(torch.tensor(1.0).sigmoid())
    entropy = -(chance * np.log(chance) + (1 - chance) * np.log(1 - chance))
    assert float(losses["entropy"]) == pytest.approx(entropy)
    assert float(losses["kl"]) == pytest.approx(ratio - 1 - np.log(ratio), rel=1e-5)
    losses["loss"].backward()
    assert policy.logits.grad is not None
    assert policy.logits.grad[0].abs().sum() == 0  # good, but already likelier than it may get
    assert policy.logits.grad[1].abs().sum() > 0


def test_schedules_go_from_their_first_value_to_their_last() -> None:
    config = PPOConfig()
    assert [config.entropy_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.01, 0.0055, 0.001])
    assert [config.lr_factor(p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.55, 0.1])
    assert PPOConfig.l2d().lr_factor(0.7) == 1
    for wrong in ({"epochs": 0}, {"gamma": 2.0}, {"clip": 0.0}, {"baseline": "none"}):
        with pytest.raises(ConfigError):
            PPOConfig(**wrong)  # type: ignore[arg-type]


@compiled
def test_a_group_needs_copies() -> None:
    ppo = PPO(PPOConfig(baseline="group"))
    with pytest.raises(ConfigError, match="make a shop with copies=8"):
        next(ppo.batches(IsbPolicy(dim=8), _small_shop, torch.Generator()))


# Learning.

TRAP = JobShopInstance.from_jobs(
    [[(0, 2), (1, 9), (2, 1)], [(0, 8), (2, 2)], [(0, 3), (2, 7), (1, 2)]]
)


def _best(instance: JobShopInstance, options: ShopOptions) -> tuple[int, float]:
    """The least makespan of all ways to decide, and the mean over uniform decisions."""
    least = 10**9

    def visit(shop: Simulator) -> float:
        nonlocal least
        if shop.over:
            least = min(least, int(shop.makespan))
            return shop.makespan
        ends = []
        for action in shop.legal():
            other = shop.clone()
            other.step(action)
            ends.append(visit(other))
        return sum(ends) / len(ends)

    mean = visit(Simulator(instance, options=options))
    return least, mean


@compiled
@pytest.mark.parametrize("baseline", ["critic", "group"])
def test_a_tiny_shop_is_learned_to_its_optimum(baseline: Any) -> None:
    options = ShopOptions()
    least, mean = _best(TRAP, options)
    assert mean > 1.1 * least
    torch.manual_seed(0)
    policy = IsbPolicy(dim=16, layers=2)
    ppo = PPO(PPOConfig(baseline=baseline))

    def make_shop(generator: torch.Generator) -> BatchedShop:
        return BatchedShop([TRAP], options, copies=32, threads=1)

    _train(ppo, policy, make_shop, updates=20, seed=0)
    shop = BatchedShop([TRAP], options, threads=1)
    play(policy, shop)
    assert shop.makespans().tolist() == [least]
    assert ppo.report["return"] > -1.05 * least / Simulator(TRAP).first_bound


def test_l2d_learns_a_tiny_shop_to_its_optimum() -> None:
    orders = np.array(sorted(set(itertools.permutations([0, 0, 0, 1, 1, 1, 2, 2, 2]))))
    every = L2DShop([_even(TRAP)], copies=len(orders))
    for actions in orders.T:
        every.step(actions)
    least, mean = every.makespans().min(), every.makespans().mean()
    assert mean > 1.1 * least
    torch.manual_seed(0)
    policy = L2DPolicy(hidden=16)
    _train(PPO(), policy, lambda _: L2DShop([_even(TRAP)], copies=32), updates=20, seed=0)
    shop = L2DShop([_even(TRAP)])
    play(policy, shop)
    assert shop.makespans()[0] == least


def _even(instance: JobShopInstance) -> JobShopInstance:
    """The instance with a last operation of no time where a job has fewer than the others."""
    jobs = [job + [(1, 0)] * (3 - len(job)) for job in instance.jobs()]
    return JobShopInstance.from_jobs(jobs)


@compiled
def test_an_episode_that_is_over_at_once_gives_no_batch() -> None:
    one = JobShopInstance.from_jobs([[(0, 3)]])
    options = ShopOptions(auto_trivial=True)
    ppo = PPO()
    made = ppo.batches(
        IsbPolicy(dim=8), lambda _: BatchedShop([one], options), torch.Generator().manual_seed(0)
    )
    assert list(made) == []


@compiled
def test_a_rollout_adds_up_to_the_makespan() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    shop = _small_shop(generator)
    rollout = collect(IsbPolicy(dim=8), shop, generator)
    scale = [Simulator(one).first_bound for one in shop.problems]
    np.testing.assert_allclose(rollout.total.numpy(), -shop.makespans() / scale)
    sums = torch.zeros(8).index_add(0, rollout.row, rollout.reward)
    torch.testing.assert_close(sums.double(), rollout.total, atol=1e-5, rtol=1e-5)


@compiled
def test_shops_of_different_sizes_play_together_and_may_wait() -> None:
    torch.manual_seed(0)
    problems = [taillard(3, 2, seed=1), taillard(6, 4, seed=2), taillard(5, 5, seed=3)]
    shop = BatchedShop(problems, ShopOptions(allow_wait=True), copies=8)
    policy = IsbPolicy(dim=8)
    rollout = collect(policy, shop, torch.Generator().manual_seed(0))
    assert (shop.makespans() > 0).all()
    waits = rollout.action == shop.num_jobs
    assert waits[rollout.row < 8].any()  # the smallest too
    shop.reset()
    play(policy, shop)
    assert (shop.makespans() > 0).all()
