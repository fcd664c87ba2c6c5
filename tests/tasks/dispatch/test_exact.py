"""Exact solutions against known optima, and against brute force on tiny shops."""

import graphlib
import itertools
import random
import sys

import pytest

from gnnlab.errors import ConfigError, DataError, MissingExtraError
from gnnlab.tasks.dispatch import (
    Cuts,
    JobShopInstance,
    RandomTrace,
    Schedule,
    Shutdowns,
    WindowTrace,
    solve_exact,
    verify,
)

pytest.importorskip("ortools")

SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
FT06 = JobShopInstance.from_jobs(
    [
        [(2, 1), (0, 3), (1, 6), (3, 7), (5, 3), (4, 6)],
        [(1, 8), (2, 5), (4, 10), (5, 10), (0, 10), (3, 4)],
        [(2, 5), (3, 4), (5, 8), (0, 9), (1, 1), (4, 7)],
        [(1, 5), (0, 5), (2, 5), (3, 3), (4, 8), (5, 9)],
        [(2, 9), (1, 3), (4, 5), (5, 4), (0, 3), (3, 1)],
        [(1, 3), (3, 3), (5, 9), (0, 10), (4, 4), (2, 1)],
    ],
    name="ft06",
)


@pytest.mark.parametrize(("mode", "makespan"), [("jssp", 5), ("bws", 5), ("bns", 10)])
def test_two_jobs_that_meet_swap_or_wait_outside(mode, makespan):
    result = solve_exact(SWAP, mode=mode, workers=1)
    assert (result.status, result.makespan, result.bound, result.gap) == (
        *("optimal", makespan, makespan, 0),
    )


def test_three_jobs_rotate():
    shop = JobShopInstance.from_jobs([[(j, 1), ((j + 1) % 3, 1)] for j in range(3)])
    assert solve_exact(shop, mode="bws", workers=1).makespan == 2
    assert solve_exact(shop, mode="bns", workers=1).makespan > 2


@pytest.mark.parametrize(
    ("mode", "model", "makespan"),
    [("jssp", "alternative", 55), ("bws", "alternative", 63), ("bws", "interval", 63)],
)
def test_the_known_optima_of_ft06_are_proved(mode, model, makespan):
    result = solve_exact(FT06, mode=mode, model=model, seconds=20)
    assert (result.status, result.makespan) == ("optimal", makespan)


def test_a_swap_waits_for_a_repair():
    result = solve_exact(SWAP, trace=WindowTrace([[], [(3, 6)]]), workers=1)
    assert result.makespan == 8
    assert result.schedule.ops[:, 3].tolist() == [0, 6, 0, 6]


@pytest.mark.parametrize("trace", [WindowTrace([[], []]), RandomTrace(0, Shutdowns())])
def test_a_trace_without_shutdowns_changes_nothing(trace):
    one, two = (solve_exact(SWAP, trace=t, workers=1) for t in (trace, None))
    assert (one.schedule, one.makespan, one.bound) == (two.schedule, two.makespan, two.bound)


def test_random_shutdowns_are_met_by_who_knows_them():
    trace = RandomTrace(1, Shutdowns(prob=0.02, low=2, high=9))
    result = solve_exact(FT06, trace=trace, seconds=5)
    assert verify(FT06, result.schedule, trace=trace) == []
    assert 63 < result.bound <= result.makespan


def test_one_worker_and_one_seed_repeat():
    one, two = (solve_exact(FT06, workers=1, seed=3, gap=0.3) for _ in range(2))
    assert one.schedule == two.schedule
    assert one.gap <= 0.3


def test_a_hint_bounds_the_search_and_must_be_valid():
    best = solve_exact(SWAP, mode="jssp", workers=1).schedule
    assert solve_exact(SWAP, mode="bws", hint=best, workers=1).makespan == 5
    with pytest.raises(ConfigError, match="no valid bns schedule: SWAP_ORDER"):
        solve_exact(SWAP, mode="bns", hint=best)
    with pytest.raises(ConfigError, match="one row for each operation"):
        solve_exact(SWAP, hint=Schedule("x", "bws", 0, best.ops[1:]))


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match='unknown mode "bsw"'):
        solve_exact(SWAP, mode="bsw")
    with pytest.raises(ConfigError, match='Did you mean "interval"'):
        solve_exact(SWAP, model="intervals")
    with pytest.raises(ConfigError, match="cannot forbid swaps"):
        solve_exact(SWAP, mode="bns", model="interval")
    with pytest.raises(ConfigError, match="seconds must be above 0"):
        solve_exact(SWAP, seconds=0)
    many = JobShopInstance.from_jobs([[(0, 1)] * 101])
    assert solve_exact(many, workers=1).makespan == 101
    with pytest.raises(ConfigError, match="at most 100 can be solved exactly"):
        solve_exact(many, trace=WindowTrace([[(3, 4)]]))
    long = JobShopInstance.from_jobs([[(0, 1000)]])
    with pytest.raises(ConfigError, match="fails 100000 times"):
        solve_exact(long, trace=RandomTrace(0, Shutdowns(prob=0.5)), restart=True)


def test_cuts_of_another_shop_are_refused():
    with pytest.raises(DataError, match=r"the cuts are \(6, 6\), but instance is \(2, 2\)"):
        solve_exact(SWAP, trace=Cuts.draw(FT06, 0.5, 0))


def test_an_absent_solver_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gnnlab\[dispatch\]'"):
        solve_exact(SWAP)


def test_the_log_goes_to_stderr(capfd):
    solve_exact(SWAP, log=True, workers=1)
    out, err = capfd.readouterr()
    assert out == ""
    assert "CP-SAT" in err


# Brute force: every order of the stays on every machine, with the earliest times it allows.


def brute_force(jobs, mode, windows, cuts=None, restart=False):
    """Returns the least makespan."""
    stays = {}
    for j, job in enumerate(jobs):
        for i, (k, _) in enumerate(job):
            if mode != "jssp" and i and job[i - 1][0] == k:
                stays[k][-1][2] = i
            else:
                stays.setdefault(k, []).append([j, i, i])
    limit = 2 * sum(p for job in jobs for _, p in job) + 40
    best = limit
    for order in itertools.product(*(itertools.permutations(row) for row in stays.values())):
        if mode == "bns" and not one_order_of_moves(jobs, order):
            continue
        best = min(best, earliest(jobs, mode, windows, cuts, restart, order, best))
    return best


def one_order_of_moves(jobs, order):
    first = {(j, i): a for row in order for j, a, b in row for i in range(a, b + 1)}
    graph = graphlib.TopologicalSorter()
    for row in order:
        for j, a, _ in row:
            if a:
                graph.add((j, a), (j, first[j, a - 1]))
        for (j, a, b), (l, c, _) in itertools.combinations(row, 2):
            graph.add((l, c), (j, b + 1) if b + 1 < len(jobs[j]) else (j, a))
    try:
        graph.prepare()
    except graphlib.CycleError:
        return False
    return True


def earliest(jobs, mode, windows, cuts, restart, order, limit):
    """Returns the makespan of an order; `limit` when it is not less, or there is no end."""
    start = {(j, i): 0 for j, job in enumerate(jobs) for i in range(len(job))}

    def down(k, t):
        return any(a <= t < b for a, b in windows[k])

    def end(j, i):
        k, p = jobs[j][i]
        if cuts is not None and cuts.after[j, i] >= 0:
            return start[j, i] + p + cuts.duration[j, i] + restart * cuts.after[j, i]
        t, done = start[j, i], 0
        while done < p:
            done = (0 if restart else done) if down(k, t) else done + 1
            t += 1
        return t

    while True:
        before = dict(start)
        for j, i in start:
            if i:
                start[j, i] = max(start[j, i], end(j, i - 1))
            while down(jobs[j][i][0], start[j, i]):
                start[j, i] += 1
        for row in order:
            for (j, _, b), (l, c, _) in itertools.pairwise(row):
                inside = mode != "jssp" and (j, b + 1) in start
                left = start[j, b + 1] if inside else end(j, b)
                start[l, c] = max(start[l, c], left)
        makespan = max(end(*op) for op in start)
        if makespan >= limit:
            return limit
        if start == before:
            return makespan


def draw(rng):
    m = rng.randint(1, 3)
    least = rng.randint(0, 1)
    jobs = [
        [(rng.randrange(m), rng.randint(least, 4)) for _ in range(rng.randint(1, 3))]
        for _ in range(rng.randint(1, 3))
    ]
    while any(sum(k == op[0] for job in jobs for op in job) > 5 for k in range(m)):
        jobs.pop()
    return m, jobs


@pytest.mark.parametrize("mode", ["jssp", "bws", "bns"])
def test_brute_force_finds_the_same_optimum(mode):
    rng = random.Random(mode)
    for _ in range(150):
        m, jobs = draw(rng)
        shop = JobShopInstance.from_jobs(jobs, m)
        expected = brute_force(jobs, mode, [[]] * m)
        models = ["alternative", "interval"] if mode == "bws" else ["alternative"]
        for model in models:
            result = solve_exact(shop, mode=mode, model=model, workers=1)
            assert (result.status, result.makespan) == ("optimal", expected), jobs


@pytest.mark.parametrize("mode", ["jssp", "bws", "bns"])
@pytest.mark.parametrize("restart", [False, True])
def test_brute_force_finds_the_same_optimum_with_shutdowns(mode, restart):
    rng = random.Random(f"{mode} {restart}")
    for n in range(100):
        m, jobs = draw(rng)
        shop = JobShopInstance.from_jobs(jobs, m)
        windows, cuts, trace = [[] for _ in range(m)], None, None
        if n % 5 == 0:
            trace = cuts = Cuts.draw(shop, 0.5, n, Shutdowns(low=1, high=4))
        else:
            for row in windows:
                at = 0
                for _ in range(rng.randint(0, 3)):
                    at += rng.randint(0, 4)
                    row.append((at, at := at + rng.randint(1, 3)))
            trace = WindowTrace(windows)
        expected = brute_force(jobs, mode, windows, cuts, restart)
        result = solve_exact(shop, mode=mode, trace=trace, restart=restart, workers=1)
        assert (result.status, result.makespan) == ("optimal", expected), (jobs, trace)
