"""L2D: schedules by left shift, and its network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import IllegalAction, JobShopInstance, verify
from gnnlab.tasks.dispatch.generate import taillard
from gnnlab.tasks.dispatch.l2d import L2DPolicy
from gnnlab.tasks.dispatch.l2d_shop import L2DShop, L2DView, l2d_instances


def _random_instance(
    rng: np.random.Generator, n: int, length: int, m: int, repeats: bool
) -> JobShopInstance:
    machines = rng.random((n, m)).argsort(1)[:, :length]
    if repeats:
        machines = rng.integers(0, m, (n, length))
    times = rng.integers(0, 9, (n, length))
    return JobShopInstance("random", machines, times, np.full(n, length), m)


class _Plain:
    """The same schedule built from the definition, by trying every time."""

    def __init__(self, instance: JobShopInstance) -> None:
        self.jobs, self.next = instance.jobs(), [0] * instance.num_jobs
        self.ready = [0] * instance.num_jobs
        self.busy: dict[int, list[tuple[int, int, tuple[int, int]]]] = {}

    def add(self, j: int) -> tuple[int, int]:
        i = self.next[j]
        k, p = self.jobs[j][i]
        placed = self.busy.setdefault(k, [])
        free = (
            t
            for t in itertools.count(self.ready[j])
            if not any(t < end and start < t + p for start, end, _ in placed)
        )
        start = next(free)
        placed.append((start, start + p, (j, i)))
        self.ready[j], self.next[j] = start + p, i + 1
        return start, start + p

    def bound(self) -> int:
        """The longest job, of what is placed and what is left of it."""
        rest = zip(self.jobs, self.ready, self.next, strict=True)
        return max(ready + sum(p for _, p in job[i:]) for job, ready, i in rest)


@pytest.mark.parametrize("repeats", [False, True])
def test_operations_start_where_trying_every_time_puts_them(repeats: bool) -> None:
    rng = np.random.default_rng(int(repeats))
    for _ in range(30):
        n, m = int(rng.integers(1, 6)), int(rng.integers(1, 5))
        length = int(rng.integers(1, m + 1 + repeats))
        batch = [_random_instance(rng, n, length, m, repeats) for _ in range(4)]
        shop, plains = L2DShop(batch), [_Plain(one) for one in batch]
        total, first = np.zeros(4), [plain.bound() for plain in plains]
        for _ in range(n * length):
            masks = shop.masks()
            actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
            reward, over = shop.step(actions)
            for row, (plain, j) in enumerate(zip(plains, actions.tolist(), strict=True)):
                before = plain.bound()
                _, end = plain.add(j)
                assert shop._end[row, j, plain.next[j] - 1] == end
                assert reward[row] == before - plain.bound()
            total += reward
        assert over.all()
        assert not shop.masks().any()
        for row, plain in enumerate(plains):
            schedule = shop.schedule(row)
            assert verify(batch[row], schedule, "jssp") == []
            assert schedule.makespan == shop.makespans()[row] == max(plain.ready)
            assert total[row] == first[row] - schedule.makespan


def test_the_graph_has_the_arcs_of_the_job_and_of_neighbours_on_the_machine() -> None:
    rng = np.random.default_rng(5)
    batch = [_random_instance(rng, 5, 4, 4, repeats=False) for _ in range(3)]
    batch = [JobShopInstance(o.name, o.machines, o.times + 1, o.lengths, 4) for o in batch]
    shop, plains = L2DShop(batch), [_Plain(one) for one in batch]
    for _ in range(20):
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in shop.masks()])
        shop.step(actions)
        view = shop.view()
        for row, plain in enumerate(plains):
            plain.add(int(actions[row]))
            expected = np.full(20, -1)
            for placed in plain.busy.values():
                order = [j * 4 + i for _, _, (j, i) in sorted(placed)]
                for a, b in itertools.pairwise(order):
                    expected[b] = a
            assert view.before[row].tolist() == expected.tolist()
            ends = np.cumsum([[p for _, p in job] for job in plain.jobs], 1)
            assert (view.x[row, :, 0].numpy() * 1000 >= ends.ravel() - 1e-3).all()
            assert view.x[row, :, 1].sum() == sum(plain.next)


def test_schedules_of_one_batch_advance_on_their_own() -> None:
    one = taillard(4, 4, seed=3)
    shop = L2DShop([one], copies=3)
    shop.step(np.array([2, 1]), np.array([2, 0]))
    assert shop.view().x[:, :, 1].sum(1).tolist() == [1, 0, 1]
    assert len(shop.view(np.array([1])).take(torch.tensor([0, 0]))) == 2


def test_finished_and_unknown_jobs_are_refused() -> None:
    shop = L2DShop([JobShopInstance.from_jobs([[(0, 3)], [(0, 1)]])])
    shop.step(np.array([1]))
    with pytest.raises(IllegalAction, match="row 0: job 1 is finished"):
        shop.step(np.array([1]))
    with pytest.raises(IllegalAction, match=r"expected 1 jobs in 0..1, got \[2\]"):
        shop.step(np.array([2]))
    with pytest.raises(ConfigError, match="same number of jobs and machines"):
        L2DShop([taillard(3, 3), taillard(4, 3)])


def _dense(policy: L2DPolicy, view: L2DView) -> tuple[torch.Tensor, torch.Tensor]:
    """The network from its formulas: dense adjacency with self loops, torch's batch norm."""
    graphs, nodes, _ = view.x.shape
    logits, values = [], []
    for g in range(graphs):
        adjacency = torch.eye(nodes)
        for v in range(nodes):
            if v % view.length:
                adjacency[v, v - 1] = 1
            if view.before[g, v] >= 0:
                adjacency[v, view.before[g, v]] += 1
        h = view.x[g]

        def norm(x: torch.Tensor, like: torch.nn.Module) -> torch.Tensor:
            return torch.nn.functional.batch_norm(
                x, None, None, like.weight, like.bias, training=True
            )

        for block in policy.blocks:
            h = norm(block.conv.net(adjacency @ h), block.inner).relu()
            h = norm(block.lin(h), block.outer).relu()
        mean = h.mean(0)
        jobs = h[view.candidate[g]]
        scores = policy.actor(torch.cat([jobs, mean.expand_as(jobs)], 1)).squeeze(1)
        logits.append(torch.where(view.mask[g], scores, -torch.inf))
        values.append(policy.critic(mean))
    return torch.stack(logits), torch.cat(values)


@pytest.mark.parametrize("norm", ["graph", "batch_train"])
def test_the_network_is_that_of_its_formulas(norm: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shop = L2DShop(l2d_instances(4, 3, count=3) if norm == "graph" else [taillard(4, 3)])
    policy = L2DPolicy(hidden=16, norm=norm)
    for block in policy.blocks:
        torch.nn.init.normal_(block.inner.weight)
        torch.nn.init.normal_(block.outer.bias)
    for _ in range(9):
        shop.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in shop.masks()]))
        view = policy.observe(shop)
        for got, expected in zip(policy(view), _dense(policy, view), strict=True):
            torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


def test_normalising_by_graph_keeps_schedules_of_a_batch_apart() -> None:
    torch.manual_seed(0)
    shop = L2DShop(l2d_instances(5, 4, count=4))
    alone, together = ([], [])
    for norm, differs in (("graph", False), ("batch_train", True)):
        policy = L2DPolicy(norm=norm)
        together = policy(policy.observe(shop))[0][2]
        alone = policy(policy.observe(shop, np.array([2])))[0][0]
        assert torch.allclose(together, alone, atol=1e-5) != differs


def test_parameters_are_those_of_the_published_network() -> None:
    linear = (2 * 64 + 64) + 3 * (64 * 64 + 64)  # two updates of two maps
    norms = 4 * 2 * 64
    heads = (128 * 32 + 32 + 32 + 1) + (64 * 32 + 32 + 32 + 1)
    assert sum(p.numel() for p in L2DPolicy().parameters()) == linear + norms + heads


def test_instances_are_those_of_the_published_test_sets() -> None:
    six, ten = l2d_instances(6, 6), l2d_instances(10, 10)
    assert len(six) == len(ten) == 100
    assert six[0].times[0].tolist() == [27, 17, 69, 43, 56, 77]
    assert (six[0].machines[0] + 1).tolist() == [6, 4, 1, 3, 5, 2]
    assert six[99].times[5].tolist() == [81, 30, 31, 6, 48, 13]
    assert (six[99].machines[5] + 1).tolist() == [5, 2, 1, 4, 6, 3]
    assert ten[99].times[9].tolist() == [35, 93, 23, 27, 43, 82, 94, 66, 27, 15]
    assert (ten[99].machines[9] + 1).tolist() == [7, 3, 5, 10, 8, 9, 2, 4, 1, 6]
