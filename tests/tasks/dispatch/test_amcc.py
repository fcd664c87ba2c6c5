"""The AMCC heuristic against its definition, written with plain longest paths."""

import random

import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import JobShopInstance, Schedule, amcc, verify


def longest_paths(n, arcs, source):
    """Returns the longest paths from a node (Bellman and Ford); None with a positive cycle."""
    length = [0 if v == source else float("-inf") for v in range(n)]
    for _ in range(n + 1):
        before = list(length)
        for u, v, w in arcs:
            length[v] = max(length[v], length[u] + w)
        if length == before:
            return length
    return None


def amcc_by_definition(jobs, mode):
    """Returns the makespan, or None for a dead end."""
    node = {
        op: n for n, op in enumerate((j, i) for j, job in enumerate(jobs) for i in range(len(job)))
    }
    source, sink = len(node), len(node) + 1
    n = len(node) + 2
    arcs, stays = [], []
    for j, job in enumerate(jobs):
        arcs.append((source, node[j, 0], 0))
        arcs.append((node[j, len(job) - 1], sink, job[-1][1]))
        arcs += [(node[j, i], node[j, i + 1], job[i][1]) for i in range(len(job) - 1)]
        for i, (k, p) in enumerate(job):
            inside = mode == "bws" and i + 1 < len(job)
            leave = (node[j, i + 1], 0) if inside else (node[j, i], p)
            if mode == "bws" and i and job[i - 1][0] == k:
                stays[-1][3] = leave
            else:
                stays.append([j, k, node[j, i], leave])
    pairs = []
    for a, (j, k, enter, leave) in enumerate(stays):
        for other, l, enters, leaves in stays[a + 1 :]:
            if j != other and k == l:
                pairs.append(((leave[0], enters, leave[1]), (leaves[0], enter, leaves[1])))
    while True:
        chosen = None
        for pair in pairs:
            closes = [longest_paths(n, [*arcs, arc], source) is None for arc in pair]
            if all(closes):
                return None
            if any(closes):
                chosen = pair, pair[closes[0]]
                break
        if chosen is None and pairs:
            heads = longest_paths(n, arcs, source)
            tails = longest_paths(n, [(v, u, w) for u, v, w in arcs], sink)
            best = []
            for pair in pairs:
                size = [heads[u] + w + tails[v] for u, v, w in pair]
                for side in (0, 1):
                    key = (-size[side], size[1 - side], *pair[side][:2])
                    best.append((key, pair, pair[1 - side]))
            chosen = min(best)[1:]
        if chosen is None:
            return longest_paths(n, arcs, source)[sink]
        pairs.remove(chosen[0])
        arcs.append(chosen[1])


def draw(rng):
    m = rng.randint(2, 4)
    least = rng.randint(0, 1)
    jobs = [
        [(rng.randrange(m), rng.randint(least, 9)) for _ in range(rng.randint(2, 4))]
        for _ in range(rng.randint(2, 4))
    ]
    return JobShopInstance.from_jobs(jobs, m)


@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_it_does_what_its_definition_says(mode):
    rng = random.Random(mode)
    dead_ends = 0
    for _ in range(300):
        shop = draw(rng)
        plan = amcc(shop, mode=mode, backtracks=0)
        assert (plan and plan.makespan) == amcc_by_definition(shop.jobs(), mode), shop.jobs()
        dead_ends += plan is None
        if plan is not None:
            assert plan.mode == mode
            assert verify(shop, plan) == []
    assert dead_ends == 0 if mode == "jssp" else 0 < dead_ends < 150


def test_choices_taken_back_lead_to_more_valid_schedules():
    rng = random.Random(0)
    solved = [0, 0]
    for _ in range(30):
        jobs = [[(k, rng.randint(1, 9)) for k in rng.sample(range(4), 4)] for _ in range(6)]
        shop = JobShopInstance.from_jobs(jobs)
        for column, backtracks in enumerate((0, 1000)):
            plan = amcc(shop, backtracks=backtracks)
            solved[column] += plan is not None
            assert plan is None or verify(shop, plan) == []
    assert solved[0] < solved[1] >= 25


def test_a_swap_and_a_rotation_are_found():
    assert amcc(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])).makespan == 5
    rotation = [[(j, 1), ((j + 1) % 3, 1)] for j in range(3)]
    assert amcc(JobShopInstance.from_jobs(rotation)).makespan == 2


def test_one_job_needs_no_choice():
    plan = amcc(JobShopInstance.from_jobs([[(0, 3), (0, 2), (1, 4)]]))
    assert plan.ops[:, 3:].tolist() == [[0, 3, 3], [3, 5, 5], [5, 9, 9]]


def test_a_dead_end_gives_the_fallback():
    rng = random.Random(0)
    for _ in range(100):
        jobs = [[(k, rng.randint(1, 9)) for k in rng.sample(range(4), 4)] for _ in range(6)]
        shop = JobShopInstance.from_jobs(jobs)
        if amcc(shop, backtracks=0) is None:
            other = Schedule("x", "bws", 0, [])
            assert amcc(shop, fallback=other, backtracks=0) is other
            return
    pytest.fail("no dead end among the shops drawn")


def test_other_modes_and_large_shops_are_refused():
    with pytest.raises(ConfigError, match='no mode "bns"'):
        amcc(JobShopInstance.from_jobs([[(0, 1)]]), mode="bns")
    with pytest.raises(ConfigError, match="at most 5000"):
        amcc(JobShopInstance.from_jobs([[(0, 1)] * 5001]))
