"""The policy on the dynamic disjunctive graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnlab.ops import backend
from gnnlab.tasks.dispatch import JobShopInstance, RandomTrace, ShopOptions, Shutdowns, WindowTrace
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.generate import general, taillard
from gnnlab.tasks.dispatch.isb import IsbPolicy, _groups, disjunctive_sum

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")
SHUTDOWNS = Shutdowns(prob=0.02, low=5, high=30)


def _spread(policy: IsbPolicy) -> IsbPolicy:
    """With weights of the size that training gives: the initial actor hardly tells jobs apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if name.startswith(("actor", "waiter")) or weight.dim() == 1:
                weight.copy_(torch.randn_like(weight) * 0.3)
    return policy.eval()


@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_renumbering_jobs_and_machines_renumbers_logits(mode: str, extended: bool) -> None:
    rng = np.random.default_rng(3)
    policy = _spread(IsbPolicy(dim=16, extended=extended))
    for n, m in ((6, 5), (9, 4)):
        one = taillard(n, m, seed=n)
        job, machine = rng.permutation(n), rng.permutation(m)  # new job j is the old job[j]
        other = JobShopInstance("other", machine[one.machines[job]], one.times[job], one.lengths, m)
        windows = [[(int(a), int(a) + 40)] for a in rng.integers(0, 200, m)]
        renumbered = [windows[k] for k in np.argsort(machine)]
        options = ShopOptions(mode=mode, allow_wait=True)
        first = BatchedShop([one], options, traces=[WindowTrace(windows)])
        second = BatchedShop([other], options, traces=[WindowTrace(renumbered)])
        while not first.states()[0, 2]:
            logits, value = policy(policy.observe(first))
            logits2, value2 = policy(policy.observe(second))
            columns = [*job.tolist(), n]
            torch.testing.assert_close(logits2, logits[:, columns], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(value2, value, atol=1e-5, rtol=1e-5)
            action = int(logits[0, :n].argmax()) if rng.random() < 0.9 else n
            if not torch.isfinite(logits[0, action]):
                action = int(logits[0].argmax())
            first.step(np.array([action]))
            second.step(np.array([n if action == n else int(np.flatnonzero(job == action)[0])]))
        assert first.makespans() == second.makespans()


@pytest.mark.parametrize("delete_down", [True, False])
def test_sums_by_machine_are_those_over_disjunctive_edges(delete_down: bool) -> None:
    rng = np.random.default_rng(0)
    problems = [general(7, (1, 6), 4, seed=s) for s in range(4)] + [taillard(6, 6, seed=1)]
    shop = BatchedShop(problems, traces=[RandomTrace(s, SHUTDOWNS) for s in range(5)])
    for _ in range(15):
        view = shop.graph(disjunctive="clique", delete_down=delete_down)
        h = torch.randn(len(view.x_op), 3)
        groups = _groups(view, delete_down)
        source, target = view.edge_index["disj"]
        expected = torch.zeros_like(h).index_add(0, target, h[source])
        torch.testing.assert_close(disjunctive_sum(groups, h, len(view.x_machine)), expected)
        counts = torch.zeros(len(h)).index_add(0, target, torch.ones(len(target)))
        assert torch.equal(groups.count[:, 0], counts)
        if not view.mask.any(1).all():
            break
        actions = [int(rng.choice(np.flatnonzero(row))) for row in view.mask.numpy()]
        shop.step(np.array(actions))


def _expected_parameters() -> int:
    """Those of the defaults, counted by hand: an MLP has one hidden layer of 64 and an output."""

    def mlp(inputs: int, outputs: int = 64) -> int:
        return (inputs + 1) * 64 + 65 * outputs

    norm, total = 2 * 64, 0
    for op, machine in ((16, 8), (64, 64), (64, 64)):
        total += 6 * mlp(op) + mlp(machine)  # relations from operations, and from machines
        total += mlp(6 * 64 + 2 * op + 16) + norm  # six relations, graph, state, features
        total += mlp(64 + machine + 8) + norm
    return total + mlp(3 * 64, 1) + mlp(64, 1) + mlp(2 * 64, 1)


@pytest.mark.parametrize(("n", "m"), [(3, 2), (6, 6), (20, 15)])
def test_parameters_do_not_depend_on_the_size_of_the_shop(n: int, m: int) -> None:
    policy = IsbPolicy()
    assert sum(p.numel() for p in policy.parameters()) == _expected_parameters()
    logits, value = policy(policy.observe(BatchedShop([taillard(n, m)] * 2)))
    assert logits.shape == (2, n + 1)
    assert value.shape == (2,)


def test_illegal_actions_have_no_chance_and_shops_in_a_batch_do_not_mix() -> None:
    problems = [taillard(4, 3, seed=1), taillard(6, 5, seed=2), taillard(6, 5, seed=3)]
    policy = _spread(IsbPolicy(dim=16))
    shop = BatchedShop(problems, ShopOptions(allow_wait=True))
    for _ in range(8):
        view = policy.observe(shop)
        logits, value = policy(view)
        assert torch.equal(torch.isfinite(logits), view.mask)
        for row in range(3):
            alone, worth = policy(policy.observe(shop, np.array([row])))
            torch.testing.assert_close(alone[0], logits[row], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(worth[0], value[row], atol=1e-5, rtol=1e-5)
        actions = logits[:, :-1].argmax(1).numpy()
        shop.step(actions)


def test_a_new_policy_prefers_nothing_much() -> None:
    policy = IsbPolicy()
    logits, _ = policy(policy.observe(BatchedShop([taillard(8, 8)])))
    chances = logits.softmax(1)[0, :-1]
    assert chances.max() < 1.5 * chances.min()


def test_gradients_reach_every_parameter() -> None:
    policy = IsbPolicy(dim=8)
    shop = BatchedShop(
        [taillard(6, 3, seed=s) for s in range(4)], ShopOptions(allow_wait=True, wip_limit=None)
    )
    for _ in range(6):
        shop.step(policy.observe(shop).mask[:, :-1].float().argmax(1).numpy())
    logits, value = policy(policy.observe(shop))
    (logits[torch.isfinite(logits)].pow(2).sum() + value.sum()).backward()
    for name, weight in policy.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name
