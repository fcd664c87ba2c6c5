import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import (
    Cuts,
    IllegalAction,
    JobShopInstance,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    Simulator,
    WindowTrace,
)

Jobs = list[list[tuple[int, int]]]
Windows = list[list[tuple[int, int]]]
SWAP: Jobs = [[(0, 3), (1, 2)], [(1, 3), (0, 2)]]


def _shop(jobs: Jobs, windows: Windows | None = None, **options: Any) -> Simulator:
    machines = 1 + max(k for job in jobs for k, _ in job)
    instance = JobShopInstance.from_jobs(jobs, max(machines, len(windows or [])))
    trace = WindowTrace(windows) if windows else None
    return Simulator(instance, trace, ShopOptions(**options), scale=1)


def _run(shop: Simulator, seed: int | None = None) -> list[float]:
    """Plays to the end, by the first legal action or by random ones; returns the rewards."""
    rng = random.Random(seed)
    rewards = [shop.initial_reward] if shop.over else []
    while not shop.over:
        legal = shop.legal()
        assert legal
        assert legal == sorted(set(legal))
        rewards.append(shop.step(legal[0] if seed is None else rng.choice(legal)))
    return rewards


# Cases by hand.


def test_with_buffers_two_jobs_cross_without_a_swap() -> None:
    shop = _shop(SWAP, mode="jssp")
    _run(shop)
    assert (shop.makespan, shop.swaps) == (5, 0)
    assert type(shop.makespan) is int


def test_without_buffers_two_jobs_exchange_their_machines() -> None:
    shop = _shop(SWAP)
    _run(shop)
    assert (shop.makespan, shop.swaps, shop.start) == (5, 1, [[0, 3], [0, 3]])
    assert shop.schedule().ops.tolist() == [
        [0, 0, 0, 0, 3, 3],
        [0, 1, 1, 3, 5, 5],
        [1, 0, 1, 0, 3, 3],
        [1, 1, 0, 3, 5, 5],
    ]


def test_without_swaps_the_same_jobs_are_stuck() -> None:
    shop = _shop(SWAP, mode="bns")
    rewards = _run(shop)
    assert (shop.deadlock, shop.done, shop.time, shop.makespan) == (True, False, 3, math.inf)
    assert shop.info == {"swaps": 0, "steps": 2, "deadlock": True}
    assert rewards == [0, -3 - 10]


def test_without_swaps_one_job_at_a_time_gets_through() -> None:
    shop = _shop(SWAP, mode="bns", wip_limit=1)
    _run(shop)
    assert (shop.makespan, shop.deadlock) == (10, False)


def test_a_swap_waits_until_both_machines_are_up() -> None:
    shop = _shop(SWAP, [[], [(3, 6)]])
    _run(shop)
    assert (shop.start, shop.makespan, shop.swaps) == ([[0, 6], [0, 6]], 8, 1)


def test_three_jobs_rotate_in_one_instant() -> None:
    shop = _shop([[(i, 1), ((i + 1) % 3, 1)] for i in range(3)])
    _run(shop)
    assert (shop.makespan, shop.swaps) == (2, 1)


def test_a_job_that_leaves_frees_its_machine_for_another_at_the_same_time() -> None:
    shop = _shop([[(0, 2), (1, 3)], [(0, 4)], [(1, 5)]])
    for j in (0, 2):
        shop.step(j)
    assert (shop.time, shop.legal()) == (5, [0])
    shop.step(0)
    assert (shop.time, shop.legal()) == (5, [1])
    shop.step(1)
    assert shop.start == [[0, 5], [5], [0]]
    assert shop.depart == [[5, 8], [9], [5]]


@pytest.mark.parametrize(
    ("windows", "restart", "end"),
    [
        ([(2, 4)], False, 5),
        ([(2, 4)], True, 7),
        ([(3, 9)], False, 3),
        ([(3, 9)], True, 3),
        ([(1, 2), (2, 4), (5, 6)], False, 7),
        ([(1, 2), (2, 4), (5, 6)], True, 9),
        ([(0, 4)], True, 7),
    ],
)
def test_shutdowns_lengthen_or_restart_work(
    windows: list[tuple[int, int]], restart: bool, end: int
) -> None:
    shop = _shop([[(0, 3)]], [windows], restart=restart)
    rewards = _run(shop)
    assert shop.makespan == end
    assert sum(rewards) == -end


@pytest.mark.parametrize(("restart", "end"), [(False, 11), (True, 13)])
def test_a_cut_operation_takes_its_repair_and_the_work_it_lost(restart: bool, end: int) -> None:
    instance = JobShopInstance.from_jobs([[(0, 4)]])
    cuts = Cuts(np.array([[2]]), np.array([[7]]))
    for arguments in ({"cuts": cuts}, {"trace": cuts}):
        shop = Simulator(instance, options=ShopOptions(restart=restart), **arguments)  # type: ignore
        _run(shop)
        assert shop.makespan == end


def test_operations_without_time_rotate_and_finish_in_one_instant() -> None:
    shop = _shop([[(i, 0), ((i + 1) % 3, 0)] for i in range(3)])
    _run(shop)
    assert shop.makespan == 0
    assert all(row[3:] == [0, 0, 0] for row in shop.schedule().ops.tolist())
    # a job in between that needs no time still has to wait for the others' rotation
    shop = _shop([[(0, 2), (1, 0), (2, 1)], [(1, 2), (0, 0), (2, 1)]])
    _run(shop)
    assert (shop.swaps, shop.start) == (1, [[0, 2, 2], [0, 2, 3]])


@pytest.mark.parametrize("mode", ["jssp", "bws", "bns"])
def test_a_job_keeps_its_machine_for_two_operations_in_a_row(mode: str) -> None:
    shop = _shop([[(0, 2), (0, 3)], [(0, 1)]], [[(2, 4)]], mode=mode)
    shop.step(0)
    assert (shop.time, shop.legal()) == (7, [1])
    _run(shop)
    assert (shop.start, shop.swaps) == ([[0, 4], [7]], 0)
    assert shop.depart[0] == [2 if mode == "jssp" else 4, 7]


@pytest.mark.parametrize(("unload", "start"), [(True, 3), (False, 6)])
def test_a_finished_job_may_have_to_wait_for_its_own_machine(unload: bool, start: int) -> None:
    shop = _shop([[(0, 3), (1, 1)]], [[(3, 6)], []], unload_when_down=unload)
    _run(shop)
    assert shop.start == [[0, start]]
    last = _shop([[(0, 3)]], [[(3, 6)]], unload_when_down=unload)
    _run(last)
    assert last.depart == [[3]]


@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_no_more_jobs_than_the_limit_are_inside(mode: str) -> None:
    shop = _shop([[(k, 2), (3, 1)] for k in range(3)], mode=mode, wip_limit=2)
    assert shop.legal() == [0, 1, 2]
    shop.step(2)
    assert shop.legal() == [0, 1]
    shop.step(0)
    assert (shop.time, shop.legal()) == (2, [0, 2])
    with pytest.raises(IllegalAction, match="2 jobs are inside, and wip_limit lets in no more"):
        shop.step(1)


# Decisions.


def test_waiting_goes_to_the_next_event_and_ends_when_nothing_can_happen() -> None:
    shop = _shop([[(0, 4)], [(1, 2), (0, 1)], [(1, 7)]], allow_wait=True)
    assert shop.legal() == [0, 1, 2]
    with pytest.raises(IllegalAction, match="there is nothing to wait for"):
        shop.step(3)
    shop.step(1)
    assert shop.legal() == [0, 3]
    assert shop.step(3) == -2
    assert (shop.time, shop.legal()) == (2, [0, 1])  # nothing is processed: no waiting


def test_in_focus_a_machine_that_declines_is_asked_again_when_time_has_passed() -> None:
    jobs: Jobs = [[(0, 4)], [(1, 2)], [(2, 3)], [(0, 1)]]
    shop = _shop(jobs, focus=True, allow_wait=True)
    assert shop.legal() == [0, 3, 4]  # other machines can decide
    shop.step(3)
    assert shop.legal() == [1, 4]
    assert shop.step(4) == 0
    assert (shop.time, shop.legal()) == (0, [2, 4])
    assert shop.step(4) == -1
    assert (shop.time, shop.legal()) == (1, [0, 4])


def test_single_choices_are_taken_without_asking() -> None:
    shop = _shop([[(0, 3), (1, 2)]], auto_trivial=True)
    assert (shop.over, shop.makespan, shop.initial_reward, shop.steps) == (True, 5, -5, 2)
    shop = _shop([[(0, 3), (1, 2)], [(0, 4)]], [[(0, 2)]], auto_trivial=True)
    assert (shop.time, shop.legal(), shop.initial_reward) == (2, [0, 1], 0)
    assert shop.step(0) == -9


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (0, "job is being processed on machine 0"),
        (1, "next machine 0 holds job 0"),
        (2, "next machine 1 is down until 9"),
        (4, "waiting is not allowed"),
        (5, "actions are jobs 0..3, and 4 to wait"),
        (-1, "actions are jobs"),
        (1.0, "an action is an integer"),
        (True, "an action is an integer"),
        (None, "an action is an integer"),
    ],
)
def test_an_illegal_action_says_why(action: Any, reason: str) -> None:
    shop = _shop([[(0, 3)], [(0, 1)], [(1, 1)], [(2, 1)]], [[], [(0, 9)], []])
    shop.step(np.int64(0))  # type: ignore[arg-type]
    before = vars(shop.clone())
    with pytest.raises(IllegalAction, match=f"at time 0: .*{reason}"):
        shop.step(action)
    assert vars(shop) == before


def test_other_illegal_actions_say_why() -> None:
    shop = _shop([[(0, 3)], [(1, 1)]], focus=True)
    with pytest.raises(IllegalAction, match="wants machine 1; the decision is about 0"):
        shop.step(1)
    shop = _shop([[(0, 1), (1, 1)], [(2, 9), (1, 1)], [(3, 1)]], [[(1, 9)]], unload_when_down=False)
    shop.step(0)
    shop.step(1)
    shop.step(2)
    assert (shop.time, shop.legal()) == (9, [0, 1])
    _run(shop)
    with pytest.raises(IllegalAction, match="the episode is over"):
        shop.step(0)


def test_an_episode_is_cut_off_after_its_steps() -> None:
    shop = _shop(SWAP, max_steps=1)
    shop.step(0)
    assert (shop.truncated, shop.done, shop.legal()) == (True, False, [])


def test_wrong_arguments_are_refused() -> None:
    instance = JobShopInstance.from_jobs(SWAP)
    with pytest.raises(ConfigError, match="scale is 0; it must be a positive number"):
        Simulator(instance, scale=0)
    with pytest.raises(ConfigError, match="a trace or cuts, not both"):
        Simulator(instance, WindowTrace([]), cuts=Cuts.draw(instance, 0.5, 1))


def test_restarted_work_that_never_ends_is_an_error() -> None:
    instance = JobShopInstance.from_jobs([[(0, 60)]])

    class Flicker:
        def window(self, machine: int, index: int) -> tuple[int, int]:
            return 2 * index + 1, 2 * index + 2

    shop = Simulator(instance, Flicker(), ShopOptions(restart=True))
    with pytest.raises(ConfigError, match=r"machine 0 cut an operation that takes 60: .* hardly"):
        shop.step(0)


def test_in_the_expected_future_shutdowns_of_now_end_and_no_others_follow() -> None:
    jobs: Jobs = [[(0, 5), (2, 1)], [(1, 3)], [(1, 1)], [(1, 1)]]
    shop = _shop(jobs, [[(2, 4), (6, 9)], [(4, 8)]])
    shop.step(0)
    shop.step(1)
    assert (shop.time, shop.end[0][0]) == (3, 10)
    expected = shop.expected()
    assert (expected.end[0][0], shop.end[0][0]) == (7, 10)
    expected.step(2)
    assert expected.time == 4  # the shutdown of machine 1 at 4 is not expected
    shop.step(2)
    assert shop.time == 8


# Properties of random shops.


@st.composite
def _shops(draw: st.DrawFn, **fixed: Any) -> Simulator:
    m = draw(st.integers(1, 4))
    operation = st.tuples(st.integers(0, m - 1), st.integers(0, 4))
    jobs = draw(st.lists(st.lists(operation, min_size=1, max_size=5), min_size=1, max_size=5))
    gaps = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=3)
    windows = []
    for machine in draw(st.lists(gaps, min_size=m, max_size=m)):
        edges = list(itertools.accumulate(itertools.chain(*machine)))
        windows.append(list(zip(edges[::2], edges[1::2], strict=True)))
    flags = ("restart", "unload_when_down", "allow_wait", "focus", "auto_trivial")
    options: dict[str, Any] = {name: draw(st.booleans()) for name in flags}
    options["mode"] = draw(st.sampled_from(["jssp", "bws", "bns"]))
    options["wip_limit"] = draw(st.sampled_from([None, None, 1, 2, 3]))
    return _shop(jobs, windows, **{**options, **fixed})


def _is_down(shop: Simulator, k: int, t: int) -> bool:
    windows = shop.trace.windows  # type: ignore[attr-defined]
    return any(a <= t < b for a, b in (windows[k] if windows else ()))


def _work(shop: Simulator, k: int, start: int, p: int) -> int:
    """Counts time unit by unit until the work is done."""
    t, left = start, p
    while left:
        if _is_down(shop, k, t):
            left = p if shop.options.restart else left
        else:
            left -= 1
        t += 1
    return t


def _check(shop: Simulator) -> None:
    """Checks a finished schedule by the definitions of the problem."""
    stays: dict[int, list[tuple[int, int, int]]] = {}
    for j, (machines, times) in enumerate(zip(shop.machines, shop.times, strict=True)):
        ready = 0
        for i, (k, p) in enumerate(zip(machines, times, strict=True)):
            s, c, d = shop.start[j][i], shop.end[j][i], shop.depart[j][i]
            assert s >= ready
            assert not _is_down(shop, k, s)
            assert c == _work(shop, k, s, p)
            last = i == len(times) - 1
            blocks = not last and shop.options.mode != "jssp"
            assert d == (shop.start[j][i + 1] if blocks else c)
            assert shop.options.unload_when_down or not blocks or not _is_down(shop, k, d)
            keeps = not last and machines[i + 1] == k
            stays.setdefault(k, []).append((s, shop.start[j][i + 1] if keeps else d, j))
            ready = c
    for machine in stays.values():
        for (s, d, _), (t, e, _) in itertools.combinations(machine, 2):
            assert d <= t or e <= s
    assert shop.makespan == max(row[-1] for row in shop.end)


@given(_shops(), st.integers(0, 9))
@settings(max_examples=400)
def test_every_episode_ends_in_a_schedule_that_keeps_the_rules(shop: Simulator, seed: int) -> None:
    rewards = _run(shop, seed)
    assert shop.done != shop.deadlock
    if shop.deadlock:
        assert shop.options.mode == "bns"
        assert sum(rewards) == -shop.time - shop.instance.total_time
        return
    _check(shop)
    assert sum(rewards) == -shop.makespan
    limit = shop.options.wip_limit
    spans = [(row[0], end[-1]) for row, end in zip(shop.start, shop.end, strict=True)]
    if limit is not None:
        assert all(sum(a <= t < b for a, b in spans) <= limit for t, _ in spans)


@given(_shops(mode="bws", reward="delta_lb"), st.integers(0, 9))
def test_the_bound_never_falls_and_its_growth_is_the_return(shop: Simulator, seed: int) -> None:
    rng = random.Random(seed)
    first = shop.first_bound
    bounds = [first, shop.lower_bound()]
    total = shop.initial_reward
    while not shop.over:
        total += shop.step(rng.choice(shop.legal()))
        bounds.append(shop.lower_bound())
    assert bounds == sorted(bounds)
    assert bounds[-1] == shop.makespan
    assert total == -(shop.makespan - first)


@given(_shops(mode="bws", reward="waiting"), st.integers(0, 9))
def test_the_waiting_reward_is_the_time_between_operations(shop: Simulator, seed: int) -> None:
    total = sum(_run(shop, seed))
    waited = sum(
        s - c
        for starts, ends in zip(shop.start, shop.end, strict=True)
        for s, c in zip(starts, [0, *ends[:-1]], strict=True)
    )
    assert total == pytest.approx(-waited / shop.num_jobs)


@given(_shops(), st.integers(0, 9))
@settings(max_examples=50)
def test_a_clone_goes_on_alike_and_apart(shop: Simulator, seed: int) -> None:
    rng = random.Random(seed)
    while not shop.over and rng.random() < 0.7:
        shop.step(rng.choice(shop.legal()))
    twin, before = shop.clone(), vars(shop.clone())
    _run(twin, seed)
    assert vars(shop) == before
    _run(shop, seed)
    assert vars(shop) == vars(twin)


@pytest.mark.parametrize("mode", ["bws", "jssp"])
def test_the_same_seed_gives_the_same_episode(mode: str) -> None:
    rng = random.Random(3)
    jobs = [[(k, rng.randint(1, 99)) for k in rng.sample(range(5), 5)] for _ in range(8)]
    instance = JobShopInstance.from_jobs(jobs)
    shops = []
    for _ in range(2):
        trace = RandomTrace(11, Shutdowns(prob=0.02))
        shop = Simulator(instance, trace, ShopOptions(mode=mode))  # type: ignore[arg-type]
        _run(shop, 5)
        shops.append(shop)
    assert shops[0].schedule() == shops[1].schedule()


# The best of all ways to decide against the best of all orders of jobs on machines.


def _longest_path(jobs: Jobs, orders: tuple[tuple[tuple[int, int], ...], ...], mode: str) -> float:
    """Returns the makespan of given orders, infinite if they contradict one another."""
    arcs = []
    for j, job in enumerate(jobs):
        arcs += [((j, i), (j, i + 1), job[i][1]) for i in range(len(job) - 1)]
    for order in orders:
        for (j, i), later in itertools.pairwise(order):
            if j == later[0]:
                continue
            if mode == "jssp" or i == len(jobs[j]) - 1:
                arcs.append(((j, i), later, jobs[j][i][1]))
            else:
                arcs.append(((j, i + 1), later, 0))
    start = {(j, i): 0 for j, job in enumerate(jobs) for i in range(len(job))}
    for _ in range(len(start) + 1):
        late = [(b, start[a] + w) for a, b, w in arcs if start[b] < start[a] + w]
        if not late:
            return max(s + jobs[j][i][1] for (j, i), s in start.items())
        for b, s in late:
            start[b] = max(start[b], s)
    return math.inf


def _best_order(jobs: Jobs, mode: str) -> float:
    machines: dict[int, list[tuple[int, int]]] = {}
    for j, job in enumerate(jobs):
        for i, (k, _) in enumerate(job):
            machines.setdefault(k, []).append((j, i))
    orders = [itertools.permutations(operations) for operations in machines.values()]
    return min(_longest_path(jobs, order, mode) for order in itertools.product(*orders))


def _best_play(shop: Simulator) -> float:
    if shop.over:
        return shop.makespan
    best = math.inf
    for action in shop.legal():
        after = shop.clone()
        after.step(action)
        best = min(best, _best_play(after))
    return best


@pytest.mark.parametrize("mode", ["jssp", "bws"])
@pytest.mark.parametrize("seed", range(12))
def test_with_waiting_some_decisions_reach_the_optimum(mode: str, seed: int) -> None:
    rng = random.Random(seed)
    m = rng.choice([2, 3])
    jobs = [[(k, rng.randint(1, 4)) for k in rng.sample(range(m), m)] for _ in range(5 - m)]
    shop = _shop(jobs, mode=mode, allow_wait=True)
    assert _best_play(shop) == _best_order(jobs, mode)
