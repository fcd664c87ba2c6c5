import math
import random
from collections import Counter

import numpy as np
import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import (
    RULES,
    CompositeRule,
    JobShopInstance,
    KeyRule,
    PilotRule,
    RandomRule,
    ShopOptions,
    Simulator,
    WindowTrace,
    dispatch,
    parse_rule,
)

JOBS = [[(0, 2), (1, 3), (2, 4)], [(0, 5), (2, 1)], [(2, 6), (1, 7)]]


def _random_shop(seed: int, n: int = 6, m: int = 4) -> JobShopInstance:
    rng = random.Random(seed)
    jobs = [[(k, rng.randint(1, 99)) for k in rng.sample(range(m), m)] for _ in range(n)]
    return JobShopInstance.from_jobs(jobs)


def _keys(name: str, shop: Simulator, machine: int, due: list[float] | None = None) -> list[float]:
    return KeyRule(name, due).keys(shop, shop.candidates(machine))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("FIFO", [0, 0]),
        ("LIFO", [0, 0]),
        ("SPT", [2, 5]),
        ("LPT", [-2, -5]),
        ("LWKR", [9, 6]),
        ("MWKR", [-9, -6]),
        ("LOPNR", [3, 2]),
        ("MOPNR", [-3, -2]),
        ("SPT/TWK", [2 / 9, 5 / 6]),
        ("SPT/TWKR", [2 / 9, 5 / 6]),
        ("LPT*TWK", [-18, -30]),
        ("FDD/MWKR", [2 / 9, 5 / 6]),
        ("WINQ", [0, 6]),
        ("NINQ", [0, 1]),
        ("LBOCC", [0, 0]),
        ("ATC", [-math.exp(-2.7 / 7) / 2, -math.exp(-1.8 / 7) / 5]),
        ("CR", [1.3, 1.3]),
    ],
)
def test_keys_at_the_start_are_those_computed_by_hand(name: str, keys: list[float]) -> None:
    shop = Simulator(JobShopInstance.from_jobs(JOBS))
    assert shop.candidates(0) == [0, 1]
    assert _keys(name, shop, 0) == pytest.approx(keys, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("FIFO", [0, 5]),
        ("LIFO", [0, -5]),
        ("SPT", [2, 8]),
        ("LWKR", [5, 9]),
        ("LOPNR", [2, 2]),
        ("SPT/TWK", [2 / 5, 8 / 14]),
        ("SPT/TWKR", [2 / 5, 8 / 9]),
        ("FDD/MWKR", [2 / 5, (5 + 8) / 9]),
        ("LPT*TWK", [-2 * 5, -8 * 14]),
        ("CR", [(6.5 - 5) / 5, (18.2 - 5) / 9]),
        ("ATC", [-1 / 2, -math.exp(-(18.2 - 8 - 5 - 1) / 10) / 8]),
    ],
)
def test_keys_under_way_count_what_is_done_and_the_time(name: str, keys: list[float]) -> None:
    jobs = [[(1, 2), (0, 3)], [(0, 5), (1, 8), (2, 1)], [(1, 5)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), options=ShopOptions(mode="jssp"))
    for j in (1, 2):
        shop.step(j)
    assert (shop.time, shop.candidates(1)) == (5, [0, 1])
    assert _keys(name, shop, 1) == pytest.approx(keys, rel=1e-14)


def test_due_dates_can_be_given() -> None:
    shop = Simulator(JobShopInstance.from_jobs(JOBS))
    assert _keys("CR", shop, 0, [20.0, 3.0, 1.0]) == [20 / 9, 0.5]
    late = math.exp(0.0)
    assert _keys("ATC", shop, 0, [1.0, 2.0, 3.0]) == [-late / 2, -late / 5]
    with pytest.raises(ConfigError, match="CR: 1 due dates for 3 jobs"):
        _keys("CR", shop, 0, [1.0])


def test_jobs_bound_for_a_blocked_machine_are_told_apart() -> None:
    jobs = [[(0, 1), (1, 9)], [(1, 5)], [(2, 1), (0, 1)], [(2, 2), (3, 1)], [(2, 1)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs))
    for j in (0, 1, 4):
        shop.step(j)
    assert (shop.time, shop.candidates(2)) == (1, [2, 3])
    assert _keys("LBOCC", shop, 2) == [1, 0]


def test_operations_without_time_have_keys() -> None:
    shop = Simulator(JobShopInstance.from_jobs([[(0, 0)], [(0, 1)]]))
    assert _keys("SPT/TWK", shop, 0) == _keys("SPT/TWKR", shop, 0) == [0, 1]
    assert _keys("FDD/MWKR", shop, 0) == [math.inf, 1]
    assert _keys("CR", shop, 0) == [math.inf, 1.3]
    assert all(math.isfinite(key) for key in _keys("ATC", shop, 0))


@pytest.mark.parametrize("name", [name for name in RULES if name != "RANDOM"])
def test_of_equal_candidates_the_first_goes_first(name: str) -> None:
    shop = dispatch(JobShopInstance.from_jobs([[(0, 2), (1, 2)]] * 4), name)
    assert [row[0] for row in shop.start] == [0, 2, 4, 6]


def test_machines_decide_in_ascending_order() -> None:
    """Machine 0 gives job 0 away first; only then machine 1, which job 0 has left, decides."""
    jobs = [[(1, 2), (0, 1)], [(0, 2)], [(1, 3)]]
    shop = dispatch(JobShopInstance.from_jobs(jobs), "FIFO")
    assert shop.start == [[0, 2], [0], [2]]


@pytest.mark.parametrize(("alias", "name"), [("MTWR", "MWKR"), ("ltwr", "LWKR"), ("spt", "SPT")])
def test_other_names_are_understood(alias: str, name: str) -> None:
    assert parse_rule(alias) == KeyRule(name)


def test_a_rule_may_limit_the_jobs_inside() -> None:
    instance = _random_shop(4)
    limited = dispatch(instance, "SPT", options=ShopOptions(wip_limit=2))
    for rule in ("SPT@2", KeyRule("SPT") @ 2):
        assert dispatch(instance, rule).schedule() == limited.schedule()
    assert limited.makespan != dispatch(instance, "SPT").makespan
    assert str(parse_rule("SPT@2")) == "SPT@2"


def test_a_composite_rule_adds_weighted_keys() -> None:
    shop = Simulator(JobShopInstance.from_jobs(JOBS))
    rule = CompositeRule([(KeyRule("SPT"), 2.0), (KeyRule("MWKR"), 1.0)])
    assert rule.keys(shop, [0, 1]) == [2 * 2 - 9, 2 * 5 - 6]
    assert rule(shop) == 0
    alone = CompositeRule([(KeyRule("SPT"), 3.0)])
    instance = _random_shop(9)
    assert dispatch(instance, alone).schedule() == dispatch(instance, "SPT").schedule()


def test_the_random_rule_draws_from_a_philox_stream() -> None:
    instance = JobShopInstance.from_jobs([[(0, 1)]] * 5)
    stream = np.random.Generator(np.random.Philox(key=np.array([7, 0], np.uint64)))
    left, expected = [0, 1, 2, 3, 4], []
    while left:
        expected.append(left.pop(int(stream.random() * len(left))))
    for _ in range(2):
        shop = dispatch(instance, "RANDOM", seed=7)
        assert sorted(range(5), key=lambda j: shop.start[j]) == expected


def test_the_random_rule_is_fair() -> None:
    shop = Simulator(JobShopInstance.from_jobs([[(0, 1)]] * 3))
    count = Counter(RandomRule(seed)(shop) for seed in range(3000))
    assert all(abs(count[j] - 1000) < 120 for j in range(3))


@pytest.mark.parametrize("mode", ["jssp", "bws"])
@pytest.mark.parametrize("name", ["SPT", "FIFO@3"])
def test_looking_ahead_is_never_worse_than_the_rule(mode: str, name: str) -> None:
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    better = 0
    for seed in range(12):
        instance = _random_shop(seed)
        rule, pilot = (dispatch(instance, n, options=options) for n in (name, f"PILOT({name})"))
        assert pilot.makespan <= rule.makespan
        better += pilot.makespan < rule.makespan
    assert better > 6


def test_looking_ahead_does_not_see_shutdowns_to_come() -> None:
    instance = _random_shop(2)
    first = []
    for windows in ([], [[(1, 1000)]] * 4):
        shop = Simulator(instance, WindowTrace(windows), ShopOptions(focus=True))
        first.append(PilotRule(KeyRule("SPT"))(shop))
    assert first[0] == first[1]


@pytest.mark.parametrize("name", [*RULES, "PILOT(SPT)", "MWKR@3"])
@pytest.mark.parametrize("mode", ["bws", "bns", "jssp"])
def test_every_rule_plays_in_every_mode(name: str, mode: str) -> None:
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    trace = WindowTrace([[(10, 90)], [(50, 60), (70, 200)]])
    shop = dispatch(_random_shop(1, 4, 3), name, trace, options)
    assert shop.done != shop.deadlock
    assert mode == "bns" or shop.done


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STP", 'unknown rule "STP". Did you mean "SPT"'),
        ("SPT@x", '"X" is no number of jobs'),
        ("SPT@0", "wip_limit is 0; it must be 1 or more"),
        ("PILOT(RANDOM)", "by a rule with keys, not by RANDOM"),
    ],
)
def test_wrong_rules_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_rule(text)


def test_wrong_compositions_are_refused() -> None:
    with pytest.raises(ConfigError, match="adds keys, and RANDOM has none"):
        CompositeRule([(RandomRule(), 1.0)])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="weight of SPT is 0"):
        CompositeRule([(KeyRule("SPT"), 0)])
    with pytest.raises(ConfigError, match="needs a term"):
        CompositeRule([])
    with pytest.raises(ConfigError, match='no rule with a key is "RANDOM"'):
        KeyRule("RANDOM")
