"""The plain path: the numbers of the compiled code, and what they mean."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_shops import random_instance, random_options, random_trace

from gnnlab.errors import ConfigError
from gnnlab.ops import backend, use_backend
from gnnlab.task import Shard
from gnnlab.tasks.dispatch import (
    RULES,
    Cuts,
    JobShopInstance,
    KeyRule,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    Simulator,
    WindowTrace,
    dispatch,
    machine_job_bound,
    verify,
)
from gnnlab.tasks.dispatch._native import (
    GLOBAL_FEATURES,
    GUIDE_FACTS as GUIDE_FACTS_IN_C,
    JOB_FEATURES,
)
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.guide import GUIDE_FACTS
from gnnlab.tasks.dispatch.job_features import (
    JOB_COLUMNS,
    MACHINE_FACTS,
    SHOP_COLUMNS,
    job_features,
)
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.task import Dispatch
from gnnlab.tasks.dispatch.trace import Trace

compiled = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")
both = pytest.mark.parametrize("name", ["reference", pytest.param("cpu", marks=compiled)])
SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
POLICY = {
    "dim": 8,
    "heads": 2,
    "layers": 1,
    "encoder_layers": 1,
    "sizes": "3x2",
    "updates": 1,
    "instances": 2,
    "samples": 2,
    "rollouts": 1,
    "val_size": "3x2",
    "val_count": 2,
    "shutdown": "0,0.02",
}
FIELDS = ("jobs", "shop", "mask", "op", "machine", "ahead")


def shop_of(name: str, *args, **kwargs) -> BatchedShop:
    with use_backend(name):
        return BatchedShop(*args, **kwargs)


def same_view(one: BatchedShop, other: BatchedShop, lookahead: Lookahead | None = None) -> bool:
    views = [shop.view(lookahead=lookahead) for shop in (one, other)]
    return all(np.array_equal(*(getattr(v, f).numpy() for v in views)) for f in FIELDS)


# ---- the same numbers as the compiled code --------------------------------------------------


def compare(seed: int) -> None:
    """Plays two or three instances at once, both ways, with all questions at each step."""
    rng = np.random.default_rng(seed)
    instances = [random_instance(rng) for _ in range(int(rng.integers(1, 4)))]
    options = random_options(rng)
    traces = [random_trace(rng, instance) for instance in instances]
    fast, plain = (shop_of(n, instances, options, traces=traces) for n in ("cpu", "reference"))
    while True:
        assert same_view(fast, plain)
        assert np.array_equal(fast.states(), plain.states())
        masks = plain.masks()
        assert np.array_equal(fast.masks(), masks)
        live = np.flatnonzero(masks.any(1))
        if len(live) == 0:
            break
        rules = rng.integers(len(RULES), size=rng.integers(1, 4)).tolist()
        how = {
            "rollouts": int(rng.integers(4)),
            "noise": float(rng.choice([0.0, 0.3, 1.0])),
            "remember": bool(rng.random() < 0.7),
            "guide": rng.normal(0, 3, len(GUIDE_FACTS)) if rng.random() < 0.5 else None,
        }
        assert np.array_equal(fast.guide_facts(live), plain.guide_facts(live))
        seeds = rng.integers(2**63, size=len(live)).astype(np.uint64)
        one, other = (s.values(rules, rows=live, seeds=seeds, **how) for s in (fast, plain))
        assert np.array_equal(one, other)
        actions = np.array([rng.choice(np.flatnonzero(masks[row])) for row in live])
        if rng.random() < 0.7:  # what the plans would do
            likely = np.where(one[..., -1] < 0, 2**61, one[..., -1]).argmin(1)
            actions = np.where(masks[live, likely], likely, actions)
        one, other = (s.step(actions, live) for s in (fast, plain))
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
        if rng.random() < 0.05:
            mix = [(rule, float(rng.choice([1.0, 0.5, -1.0]))) for rule in rules]
            for shop in (fast, plain):
                shop.run_rules(mix, rows=live, seeds=seeds)
    for row in range(len(instances)):
        assert np.array_equal(fast.starts(row), plain.starts(row))


@compiled
@pytest.mark.parametrize("seed", range(10))
def test_everything_is_equal_bit_for_bit(seed: int) -> None:
    for n in range(12):
        compare(100 * seed + n)


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
def test_everything_is_equal_bit_for_bit_in_many_more_cases(seed: int) -> None:
    for n in range(40):
        compare(100 * seed + n)


@compiled
def test_the_search_finds_the_same_schedules() -> None:
    rng = np.random.default_rng(3)
    for n in range(60):
        instance, options = random_instance(rng), random_options(rng)
        trace = random_trace(rng, instance)
        shops = [shop_of(name, [instance], options, traces=trace) for name in ("cpu", "reference")]
        for start in (None, *(s.starts(0)[None] for s in shops[:1] if n % 2)):
            for shop in shops:
                shop.search(30, start=start, seeds=np.array([n]))
            assert np.array_equal(shops[0].starts(0), shops[1].starts(0))
            assert np.array_equal(shops[0].states(), shops[1].states())


@compiled
def test_a_policy_learns_and_decides_the_same() -> None:
    found = []
    for name in ("cpu", "reference"):
        with use_backend(name):
            config = Dispatch.Config(**POLICY)
            data = Dispatch.read("random", config)
            torch.manual_seed(0)
            task = Dispatch(config, data.spec)
            generator = torch.Generator().manual_seed(1)
            batches = task.batches(data.train, generator=generator, shard=Shard())
            losses = [float(task.loss(batch)["loss"].detach()) for batch in batches]
            shops = data.val.history
            found.append((losses, task.makespans(shops.instances, shops.traces, samples=2)))
    (losses, spans), (plain_losses, plain_spans) = found
    assert len(losses) == 1
    assert plain_losses == pytest.approx(losses, rel=1e-5)
    assert np.array_equal(plain_spans, spans)


# ---- which one runs -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shop_without_kernels_plays_the_simulator() -> None:
    code = (
        "from gnnlab.tasks.dispatch import JobShopInstance\n"
        "from gnnlab.tasks.dispatch.batched import BatchedShop\n"
        "from gnnlab.tasks.dispatch.lookahead import Lookahead\n"
        "shop = BatchedShop([JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])])\n"
        "print(shop.view(lookahead=Lookahead()).ahead.shape)\n"
        "shop.run_rules([(2, 1.0)])\n"
        "print(type(shop._engine).__name__, shop.makespans())\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "GNNLAB_KERNELS": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stderr == ""
    assert done.stdout == "torch.Size([1, 3, 6])\nPlainEngine [5]\n"


@compiled
def test_the_reference_backend_plays_the_simulator_and_others_do_not() -> None:
    assert type(shop_of("reference", [SWAP])._engine).__name__ == "PlainEngine"
    assert type(shop_of("auto", [SWAP])._engine).__name__ == "CompiledEngine"


def test_the_columns_have_the_widths_of_the_compiled_code() -> None:
    assert (len(JOB_COLUMNS), len(SHOP_COLUMNS)) == (JOB_FEATURES, GLOBAL_FEATURES)
    assert len(set(GUIDE_FACTS)) == GUIDE_FACTS_IN_C
    assert len(set(JOB_COLUMNS)) == JOB_FEATURES
    assert len(set(SHOP_COLUMNS)) == GLOBAL_FEATURES


# ---- what the columns mean, by hand ---------------------------------------------------------
# SWAP: the mean time is 2.5, the bound 5, and each machine has work 5 from the start.

FRESH = [0, 0, 0, 0, 0.5, 0.12, 1, 0, 1, 0, 0, 0]  # a machine that one job of time 3 waits for


def rows_of(shop: Simulator) -> tuple[list[list[float]], list[float]]:
    jobs, whole, *_ = job_features(shop)
    return jobs.tolist(), whole.tolist()


def test_columns_at_the_start_are_those_computed_by_hand() -> None:
    jobs, whole = rows_of(Simulator(SWAP))
    other = [0, 0, 0, 0, 0.5, 0.12, 1, 0, 1, 0, 0, 0]
    job = [1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1.2, 0.6, 0.375, *FRESH, 1, 0.8, *other]
    assert jobs == [pytest.approx(job), pytest.approx(job)]
    assert whole == pytest.approx([0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, *FRESH])


def test_columns_of_jobs_in_process_are_those_computed_by_hand() -> None:
    shop = Simulator(SWAP)
    shop.step(0)
    jobs, whole = rows_of(shop)
    first = [0, 0, 0, 1, 1.2, 0, 0, 0.4, 0.5, 0.4, 0.8, 1, 5 / 7, *FRESH, *[0] * 14]
    busy = [1.2, 0, 0, 0, 0, 0, 0.4, 0, 0, 0, 1.2, 0]  # the machine that job 0 is on
    second = [1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1.2, 0.6, 0.375, *FRESH, 1, 0.8, *busy]
    assert jobs == [pytest.approx(first), pytest.approx(second)]
    assert whole == pytest.approx([0, 0.5, 0.5, 0, 0.5, 0, 0, 0.7, 0, 1.2, 0, 0.5, *FRESH])


def test_a_rotation_that_waits_for_a_repair_shows_as_a_cycle() -> None:
    jobs = [*SWAP.jobs(), [(2, 1)], [(2, 3)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), WindowTrace([[], [(3, 6)]]))
    for action in (0, 1, 3):
        shop.step(action)
    assert (shop.time, shop.legal()) == (3, [2])
    unit, row = 14 / 6, rows_of(shop)[0][0]
    facts = dict(zip(MACHINE_FACTS, row[13:25], strict=True))
    assert facts["blocked"] == facts["down"] == facts["they end in a cycle"] == 1
    assert facts["time to the repair / unit"] == pytest.approx(3 / unit)
    assert facts["blocked jobs ahead / machines"] == pytest.approx(4 / 3)  # one more than machines
    assert facts["up and empty"] == facts["remaining time in process / unit"] == 0
    assert row[2] == 1  # waiting inside
    assert row[5] == 0  # since now


def test_places_and_machines_of_next_operations_are_told() -> None:
    shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3)]]))
    shop.step(0)
    _, _, mask, op, machine = job_features(shop)
    assert (mask.tolist(), op.tolist(), machine.tolist()) == ([False, True, False], [1, 2], [1, 1])
    shop.step(1)  # it ends at 3, when job 0 comes from machine 0 and goes on at once
    assert job_features(shop)[3].tolist() == [1, -1]


# ---- the present only -----------------------------------------------------------------------


@both
def test_the_next_event_is_the_one_expected_without_shutdowns_to_come(name: str) -> None:
    instance = JobShopInstance.from_jobs([[(0, 5)], [(1, 3)]])
    shop = shop_of(name, [instance], traces=WindowTrace([[(2, 10)]]))
    shop.step(np.array([0]))
    event = shop.view().shop[0, SHOP_COLUMNS.index("time to the next event / unit")]
    assert event == 5 / 4


@both
def test_lookahead_waits_for_the_repair_of_a_machine_that_is_down(name: str) -> None:
    instance = JobShopInstance.from_jobs([[(0, 3)], [(1, 2)]])
    shop = shop_of(name, [instance], traces=WindowTrace([[(0, 4), (5, 90)]]))
    values = shop.values([RULES.index("SPT")], rollouts=0)
    assert values[0].tolist() == [[-1] * 3, [7] * 3, [-1] * 3]


@both
@pytest.mark.parametrize("mode", ["jssp", "bws", "bns"])
def test_who_follows_a_plan_ends_as_well_as_the_best_episode_seen(name: str, mode: str) -> None:
    rng = np.random.default_rng(8)
    rules, gains = [RULES.index("SPT"), RULES.index("MWKR")], 0
    for _ in range(15):
        instance = random_instance(rng)
        shop = shop_of(name, [instance], ShopOptions(mode=mode, focus=True))
        most, best = 4 * instance.total_time, 4 * instance.total_time
        while shop.masks().any():
            seeds = rng.integers(99, size=1)
            once = shop.values(rules, rollouts=3, noise=0.5, seeds=seeds)
            values = shop.values(rules, rollouts=3, noise=0.5, seeds=seeds, remember=True)
            assert np.array_equal(values[..., :-1], once[..., :-1])
            best = min(best, once[once >= 0].min())
            assert best == most or values[values >= 0].min() == best
            gains += (values < once).sum()
            plan = shop._plans.next.copy() if best < most else shop.masks().argmax(1)
            shop.step(plan)
        assert best == most or shop.makespans()[0] == best
    assert gains > 0


@both
def test_a_plan_is_forgotten_when_something_else_is_done(name: str) -> None:
    rng, others = np.random.default_rng(4), 0
    for _ in range(40):
        shop = shop_of(name, [random_instance(rng)], ShopOptions(focus=True), copies=2)
        how = {"rollouts": 3, "noise": 0.5, "remember": True}
        first = shop.values([0], rows=np.array([0]), **how)
        legal = shop.masks()[0] & (first[0, :, -1] != first[first >= 0].min())
        if not legal.any():
            continue
        others += 1
        shop.step(legal.argmax().repeat(2))
        one, other = shop.values([0], **how)
        assert np.array_equal(one, other)
        shop.reset()
        assert np.array_equal(shop.values([0], rows=np.array([1]), **how), first)
    assert others > 5


def with_another_future(trace: Trace, shop: Simulator, rng: np.random.Generator) -> Trace:
    """Returns the same trace up to now, and other shutdowns later."""
    now = shop.time
    if isinstance(trace, Cuts):
        after, duration = trace.after.copy(), trace.duration.copy()
        for j, times in enumerate(shop.times):
            for i, p in enumerate(times):
                start = shop.start[j][i]
                if start < 0 or now < start + after[j, i] or after[j, i] < 0 < shop.end[j][i] - now:
                    first = 0 if start < 0 else now - start + 1
                    after[j, i] = rng.integers(first, p) if first < p else -1
                    duration[j, i] = rng.integers(1, 30)
        return Cuts(after, duration)
    windows = []
    for k in range(shop.num_machines):
        row = []
        while (window := trace.window(k, len(row))) is not None and window[0] <= now:
            row.append(window)
        begin = max(now, row[-1][1] if row else 0)
        for _ in range(int(rng.integers(4))):
            begin += int(rng.integers(1, 9))
            row.append((begin, begin + int(rng.integers(1, 40))))
            begin = row[-1][1]
        windows.append(row)
    return WindowTrace(windows)


@both
def test_nothing_seen_depends_on_shutdowns_to_come(name: str) -> None:
    rng = np.random.default_rng(11)
    ahead = Lookahead(("SPT", "FDD/MWKR"), rollouts=2)
    compared = 0
    while compared < 60:
        instance = random_instance(rng)
        options = replace(random_options(rng), max_steps=None)
        trace = random_trace(rng, instance) or RandomTrace(0, Shutdowns(prob=0.1, low=1, high=6))
        shop, actions = Simulator(instance, trace, options), []
        for _ in range(int(rng.integers(1, 9))):
            if not shop.over:
                actions.append(int(rng.choice(shop.legal())))
                shop.step(actions[-1])
        if shop.over:
            continue
        traces = [trace, with_another_future(trace, shop, rng)]
        rows = [shop_of(name, [instance], options, traces=t) for t in traces]
        for row in rows:
            for action in actions:
                row.step(np.array([action]))
            assert row.states()[0, 0] == shop.time
        assert same_view(*rows, ahead)
        compared += 1


# ---- against rules and verifier -------------------------------------------------------------


def test_batches_of_rules_are_the_episodes_of_dispatch() -> None:
    rng = np.random.default_rng(5)
    for n in range(60):
        instance, rule = random_instance(rng), RULES[n % len(RULES)]
        options = replace(random_options(rng), auto_trivial=False, max_steps=None)
        trace = random_trace(rng, instance)
        shop = shop_of("reference", [instance], options, traces=trace)
        shop.run_rules([(RULES.index(rule), 1.0)], seeds=np.array([n]))
        single = dispatch(instance, rule, trace, options, seed=n)
        assert shop.makespans()[0] == (single.makespan if single.done else -1)
        assert single.deadlock or shop.schedule(0) == single.schedule()


def test_values_are_makespans_of_episodes_in_the_expected_future() -> None:
    rng = np.random.default_rng(6)
    rule = KeyRule("SPT/TWKR")
    for _ in range(40):
        instance = random_instance(rng)
        options = replace(random_options(rng), auto_trivial=False, max_steps=None)
        trace = random_trace(rng, instance)
        shop = Simulator(instance, trace, options)
        found = shop_of("reference", [instance], options, traces=trace).values(
            [RULES.index(rule.name)], rollouts=0
        )
        for action in range(instance.num_jobs + 1):
            end = -1
            if action in shop.legal():
                one = shop.expected()
                one.step(action)
                while not one.over:
                    one.step(rule(one))
                end = 4 * instance.total_time if one.deadlock else one.time
            assert found[0, action].tolist() == [end] * 3


@both
def test_the_search_ends_in_valid_schedules_no_worse_than_the_first(name: str) -> None:
    rng = np.random.default_rng(8)
    for n in range(30):
        instance = random_instance(rng)
        options = ShopOptions(mode=("bws", "jssp")[n % 2], allow_wait=n % 3 == 0)
        trace = random_trace(rng, instance)
        shop = shop_of(name, [instance], options, traces=trace)
        shop.run_rules([(RULES.index("LPT"), 1.0)])
        first, start = shop.makespans()[0], shop.starts(0)
        shop.search(25, start=start[None])
        assert verify(instance, shop.schedule(0), options.mode, trace) == []
        assert shop.makespans()[0] >= machine_job_bound(instance)
        if not instance.has_zero_times:  # then starts say who goes first
            assert shop.makespans()[0] <= first


# ---- arguments ------------------------------------------------------------------------------


@both
def test_a_row_can_be_copied_and_goes_on_by_itself(name: str) -> None:
    shop = shop_of(name, [SWAP], copies=2)
    shop.step(np.array([0]), np.array([0]))
    shop.copy_row(1, 0)
    assert np.array_equal(*shop.masks())
    shop.step(np.array([1]), np.array([1]))
    assert shop.states()[:, 3].tolist() == [1, 2]
    shop.reset()
    assert shop.states()[:, 3].tolist() == [0, 0]


@both
def test_wrong_arguments_are_refused_with_what_is_wrong(name: str) -> None:
    shop = shop_of(name, [SWAP, JobShopInstance.from_jobs([[(0, 3)]])])
    with pytest.raises(ValueError, match="rows 0 and 1 play different instances"):
        shop.copy_row(0, 1)
    with pytest.raises(ValueError, match="episode 1: "):
        shop.step(np.array([0, 1]))
    with pytest.raises(IndexError, match=r"row 2 is not in 0\.\.1"):
        shop.masks(np.array([2]))
    with pytest.raises(ValueError, match="no rules were given"):
        shop.values([])
    with pytest.raises(ValueError, match="there is no rule 99"):
        shop.run_rules([(99, 1.0)])
    with pytest.raises(ValueError, match="expected 2 seeds"):
        shop.run_rules([(0, 1.0)], seeds=np.zeros(3))
    with pytest.raises(ValueError, match="start has shape"):
        shop.search(5, start=np.zeros((2, 2, 2)))
    with pytest.raises(ConfigError, match="no episodes"):
        shop_of(name, [])
    with pytest.raises(ConfigError, match="1 traces for 2 episodes"):
        shop_of(name, [SWAP], copies=2, traces=[None])
    with pytest.raises(ConfigError, match="1 limits for 2 episodes"):
        shop_of(name, [SWAP], copies=2, wip_limits=[1])
    with pytest.raises(ConfigError, match="the cuts are"):
        shop_of(name, [SWAP], traces=Cuts(np.zeros((1, 1), int), np.zeros((1, 1), int)))


def test_graphs_of_batches_say_that_they_need_kernels() -> None:
    with pytest.raises(RuntimeError, match="graph needs compiled kernels"):
        shop_of("reference", [SWAP]).graph()
