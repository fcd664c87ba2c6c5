"""Operations and steps per second of the simulators, beside other libraries, on one thread."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gnnlab.tasks.dispatch.batched import BatchedShop, Problems
from gnnlab.tasks.dispatch.bench._common import head, instances_of
from gnnlab.tasks.dispatch.bench._peers import RULE_NAMES, JobShopLib, JssEnv, versions
from gnnlab.tasks.dispatch.generate import random_batch
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rules import RULES, dispatch
from gnnlab.tasks.dispatch.schedule import Mode

__all__ = ["TARGETS", "run"]

TARGETS = {"rules": 2_000_000, "steps 10x10": 100_000, "steps 15x15": 30_000}
"""Least operations or steps per second of one core."""
RATIOS = {"JSSEnv": 40, "job_shop_lib": 100}
"""How many times as fast as these the compiled simulator should be."""
_RULES = ("SPT", "MWKR", "MOPNR", "SPT/TWKR", "FDD/MWKR", "WINQ", "ATC")
_INSTANCES = {"10x10": "la16", "15x15": "ta01"}
_MODES: tuple[Mode, Mode] = ("jssp", "bws")
_ROWS = 256
_BARE = "step, legal actions alone"


@dataclass
class _Contender:
    """Something to time: `run` returns how much it did, and the CPU seconds it took."""

    what: str
    who: str
    size: str
    mode: str
    run: Callable[[], tuple[int, float]]
    target: float | None = None
    rule: str = ""


def run(quick: bool = False, *, progress: bool = False) -> dict[str, Any]:
    """Measures rules and steps, ours and the peers' in turn.

    Args:
        quick: two rounds on few episodes.
        progress: whether to say on stderr what is being measured.

    Raises:
        DataError: when the instances are not on this machine.
        RuntimeError: without compiled kernels.
    """
    about = (
        "operations dispatched by priority rules, and steps of random legal actions with what a "
        "policy sees before each, per second of the process's CPU time on one thread"
    )
    result = head("simulator", about, quick)
    rounds = 2 if quick else 7
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result["environment"]["threads"] = 1
        skipped: dict[str, str] = {}
        result["equal"] = _equal(skipped, quick)
        contenders = [*_ours(quick), *_others(skipped)]
        rates = _race(contenders, rounds, progress)
    finally:
        torch.set_num_threads(before)
    result |= {
        "rounds": rounds,
        "episodes": 32 if quick else _ROWS,
        "rows": [_row(c, rates[i]) for i, c in enumerate(contenders)],
        "skipped": skipped,
        "versions": versions(),
    }
    result["ratios"] = _ratios(result["rows"])
    return result


def _equal(skipped: dict[str, str], quick: bool) -> dict[str, bool]:
    """Returns for each common rule whether its makespans on ta01-10 are job_shop_lib's."""
    instances = instances_of("ta01-10")[: 2 if quick else None]
    try:
        peer = JobShopLib(instances)
    except ImportError as error:
        skipped["job_shop_lib"] = str(error)
        return {}
    shop = BatchedShop(instances, ShopOptions(mode="jssp", focus=True), threads=1)
    equal = {}
    for rule in RULE_NAMES:
        shop.reset()
        shop.run_rules([(RULES.index(rule), 1.0)])
        equal[rule] = bool(np.array_equal(shop.makespans(), peer.makespans(rule)))
    return equal


def _ours(quick: bool) -> list[_Contender]:
    copies = 20 if quick else 100
    found = []
    for mode in _MODES:
        for rule in _RULES:
            run = _rule_runner(mode, rule, copies)
            target = TARGETS["rules"]
            found.append(_Contender("rule", "gnnlab", "15x15", mode, run, target, rule))
    for mode in _MODES:
        for size in _INSTANCES:
            rows = 32 if quick else _ROWS
            target = TARGETS[f"steps {size}"]
            run = _stepper(mode, size, rows, features=True)
            found.append(_Contender("step", "gnnlab", size, mode, run, target))
    for size in _INSTANCES:
        run = _stepper("jssp", size, 32 if quick else _ROWS, features=False)
        found.append(_Contender(_BARE, "gnnlab", size, "jssp", run))
    for mode in _MODES:
        run = _python_runner(mode)
        found.append(_Contender("rule", "gnnlab, in Python", "15x15", mode, run, None, "SPT"))
    return found


def _others(skipped: dict[str, str]) -> list[_Contender]:
    found = []
    try:
        for size, name in _INSTANCES.items():
            env = JssEnv(name)
            found.append(_Contender("step", "JSSEnv", size, "jssp", env.episode))
    except ImportError as error:
        skipped["JSSEnv"] = str(error)
    if "job_shop_lib" not in skipped:
        instances = instances_of("ta01-02")
        peer = JobShopLib(instances)
        count = sum(one.num_operations for one in instances)
        for rule in RULE_NAMES:
            run = _timed(lambda rule=rule: peer.makespans(rule), count)  # type: ignore[misc]
            found.append(_Contender("rule", "job_shop_lib", "15x15", "jssp", run, None, rule))
    return found


def _rule_runner(mode: Mode, rule: str, copies: int) -> Callable[[], tuple[int, float]]:
    instances = instances_of("ta01-10")
    options = ShopOptions(mode=mode, focus=True)
    shop = BatchedShop(instances, options, copies=copies, threads=1)
    number = RULES.index(rule)

    def play() -> None:
        shop.reset()
        shop.run_rules([(number, 1.0)])

    return _timed(play, copies * sum(one.num_operations for one in instances))


def _python_runner(mode: Mode) -> Callable[[], tuple[int, float]]:
    (instance,) = instances_of(_INSTANCES["15x15"])
    options = ShopOptions(mode=mode)
    return _timed(lambda: dispatch(instance, "SPT", options=options), instance.num_operations)


def _timed(call: Callable[[], Any], count: int) -> Callable[[], tuple[int, float]]:
    def run() -> tuple[int, float]:
        began = time.process_time()
        call()
        return count, time.process_time() - began

    return run


def _stepper(
    mode: Mode, size: str, rows: int, *, features: bool
) -> Callable[[], tuple[int, float]]:
    """Returns whole episodes of `rows` random shops: what a policy sees, and then a step.

    Without features only the legal actions are asked for.
    """
    jobs, machines = map(int, size.split("x"))
    rng = np.random.default_rng(0)
    drawn = random_batch(rng, rows, jobs, machines)
    problems = Problems(*drawn, np.full((rows, jobs), machines), machines)
    options = ShopOptions(mode=mode, auto_trivial=False)
    shop = BatchedShop(problems, options, threads=1)

    def run() -> tuple[int, float]:
        shop.reset()
        alive = np.arange(rows)
        steps, seconds = 0, 0.0
        while len(alive):
            began = time.process_time()
            mask = shop.view(alive).mask.numpy() if features else shop.masks(alive)
            seconds += time.process_time() - began
            actions = (rng.random(mask.shape) * mask).argmax(1)
            began = time.process_time()
            _, flags = shop.step(actions, alive)
            seconds += time.process_time() - began
            steps += len(alive)
            alive = alive[flags == 0]
        return steps, seconds

    return run


def _race(contenders: list[_Contender], rounds: int, progress: bool) -> list[tuple[float, float]]:
    """Times all in turn; returns the median and the best rate of each, the first round left out."""
    rates: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        if progress:
            print(f"round {turn} of {rounds}", file=sys.stderr)
        for c, contender in enumerate(contenders):
            count, seconds = contender.run()
            if turn:
                rates[c].append(count / seconds)
    return [(statistics.median(r), max(r)) for r in rates]


def _row(contender: _Contender, rates: tuple[float, float]) -> dict[str, Any]:
    return {
        "what": contender.what,
        "who": contender.who,
        "size": contender.size,
        "mode": contender.mode,
        "rule": contender.rule,
        "per second": round(rates[0]),
        "best": round(rates[1]),
        "target": contender.target,
    }


def _ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns how many times as fast as each peer the compiled simulator did the same.

    JSSEnv's steps hold what a policy sees; a ratio to steps without that is given, but not judged.
    """
    found = []
    for row in rows:
        for ours in rows:
            same = all(row[key] == ours[key] for key in ("size", "mode", "rule"))
            kinds = (row["what"], _BARE) if row["what"] == "step" else (row["what"],)
            if row["who"] not in RATIOS or ours["who"] != "gnnlab" or not same:
                continue
            if ours["what"] in kinds:
                judged = ours["what"] == row["what"]
                found.append(
                    {
                        "peer": row["who"],
                        **{key: ours[key] for key in ("what", "size", "mode", "rule")},
                        "ratio": round(ours["per second"] / row["per second"], 1),
                        "target": RATIOS[row["who"]] if judged else None,
                    }
                )
    return found
