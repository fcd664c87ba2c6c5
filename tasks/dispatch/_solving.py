"""What `gnnlab dispatch solve` does before it prints: one schedule, by the chosen means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch._deadlock import deadlock_of
from gnnlab.tasks.dispatch._improving import improved
from gnnlab.tasks.dispatch._native import shop_library
from gnnlab.tasks.dispatch.bounds import machine_job_bound, one_machine_bound
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rules import RULES, dispatch
from gnnlab.tasks.dispatch.schedule import Mode, Schedule
from gnnlab.tasks.dispatch.trace import Trace

_HINT_EPISODES = 20_000


class NoScheduleError(Exception):
    """There is an answer, and it is that no schedule was found; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """How to look for a schedule: a rule, a policy, an exact solver, or all rules."""

    rule: str | None = None
    policy: Path | None = None
    exact: float | None = None
    samples: int = 1
    search: int = 0
    wip_limit: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises ConfigError for means that do not go together."""
        chosen = [n for n in ("rule", "policy", "exact") if getattr(self, n) is not None]
        if len(chosen) > 1:
            raise ConfigError(f"choose one of {' and '.join(f'--{n}' for n in chosen)}.")
        if self.samples < 1 or self.search < 0:
            raise ConfigError(
                f"samples is {self.samples} and search is {self.search}; --samples must be 1 or "
                "more, --search 0 or more."
            )
        if self.samples > 1 and self.policy is None:
            raise ConfigError("--samples draws from a policy; pass --policy RUN as well.")
        if self.exact is not None and (self.search or self.wip_limit is not None):
            raise ConfigError("--exact takes neither --search nor --wip-limit.")


@dataclass(frozen=True)
class Solution:
    """A schedule, and what is known about it."""

    schedule: Schedule
    how: str
    bound: int
    """No schedule is shorter."""
    options: ShopOptions


def find(instance: JobShopInstance, mode: Mode | None, trace: Trace | None, by: Means) -> Solution:
    """Returns a schedule that was not verified yet.

    Raises:
        NoScheduleError: for a deadlock, or a solver that ran out of time.
    """
    by.check()
    bound = max(machine_job_bound(instance), one_machine_bound(instance))
    if by.policy is not None:
        return _by_policy(instance, mode, trace, by, bound)
    options = ShopOptions(mode=mode or "bws", wip_limit=by.wip_limit)
    if by.exact is not None:
        return _by_solver(instance, options, trace, by, bound)
    if by.rule is not None:
        plan, how = _by_rule(instance, by.rule, trace, options, by.seed), by.rule.upper()
    else:
        plan, how = _by_best_rule(instance, trace, options)
    return _improved(instance, Solution(plan, how, bound, options), trace, by)


def _by_rule(
    instance: JobShopInstance, rule: str, trace: Trace | None, options: ShopOptions, seed: int
) -> Schedule:
    shop = dispatch(instance, rule, trace, options, seed)
    if shop.deadlock:
        raise NoScheduleError(f"{instance.name}, {rule}: {deadlock_of(shop)}.")
    return shop.schedule()


def _by_best_rule(
    instance: JobShopInstance, trace: Trace | None, options: ShopOptions
) -> tuple[Schedule, str]:
    rules = [name for name in RULES if name != "RANDOM"]
    spans = _spans(instance, trace, options, rules)
    if all(math.isinf(span) for span in spans):
        try:
            _by_rule(instance, rules[0], trace, options, 0)
        except NoScheduleError as error:
            raise NoScheduleError(
                f"all {len(rules)} rules end in a deadlock, the first so: {error}"
            ) from None
    best = rules[spans.index(min(spans))]
    stuck = sum(map(math.isinf, spans))
    note = f"; {stuck} end in a deadlock" if stuck else ""
    plan = _by_rule(instance, best, trace, options, 0)
    return plan, f"{best}, the best of {len(rules)} priority rules{note}"


def _spans(
    instance: JobShopInstance, trace: Trace | None, options: ShopOptions, rules: Sequence[str]
) -> list[float]:
    """Returns the makespan by each rule, infinite for a deadlock."""
    from gnnlab.tasks.dispatch._rule_spans import rule_spans
    from gnnlab.tasks.dispatch.batched import BatchedShop

    shop = BatchedShop([instance], options, traces=[trace])
    return [float(rule_spans(shop, name)[0]) for name in rules]


def _by_solver(
    instance: JobShopInstance, options: ShopOptions, trace: Trace | None, by: Means, bound: int
) -> Solution:
    from gnnlab.tasks.dispatch.exact import solve_exact

    hint = good_schedule(instance, options, trace)
    found = solve_exact(
        instance, mode=options.mode, seconds=by.exact or 0, seed=by.seed, hint=hint, trace=trace
    )
    if found.schedule is None:
        raise NoScheduleError(
            f"{instance.name}: no schedule found in {by.exact:g} s ({found.status}). Give it more "
            "time, or use --rule."
        )
    proved = "proved optimal" if found.status == "optimal" else "not proved optimal"
    if trace is not None:
        proved += ", knowing all shutdowns beforehand"
    how = f"CP-SAT, {proved}, {found.seconds:.1f} s"
    return Solution(found.schedule, how, max(bound, found.bound), options)


def good_schedule(
    instance: JobShopInstance, options: ShopOptions, trace: Trace | None = None
) -> Schedule | None:
    """Returns the best rule's schedule after a second of local search, for a solver to begin with.

    None if every rule ends in a deadlock. Without compiled kernels it is the rule's schedule.
    """
    try:
        plan = _by_best_rule(instance, trace, options)[0]
    except NoScheduleError:
        return None
    if shop_library() is None:
        return plan
    by = Means(search=_HINT_EPISODES)
    return _improved(instance, Solution(plan, "", 0, options), trace, by).schedule


def _by_policy(
    instance: JobShopInstance, mode: Mode | None, trace: Trace | None, by: Means, bound: int
) -> Solution:
    from gnnlab import checkpoint
    from gnnlab.tasks.dispatch.task import Dispatch

    task: Any = checkpoint.load(by.policy or "", Dispatch)
    if task.config.model == "isb" and shop_library() is None:
        raise ConfigError(f"{by.policy} is a graph policy; it needs kernels, see `gnnlab doctor`.")
    if mode not in (None, task.config.mode):
        raise ConfigError(
            f"{by.policy} was trained for mode {task.config.mode}; leave out --mode {mode}."
        )
    if by.wip_limit is not None:
        task.config = replace(task.config, wip_limit=by.wip_limit)
    options = task.config.shop_options()
    how = f"policy {by.policy}"
    if by.samples > 1:
        how += f", the best of {by.samples} schedules drawn from it"
    given = {"samples": by.samples, "seed": by.seed}
    if (
        options.mode == "bns"
        and not np.isfinite(task.makespans([instance], [trace], **given)).all()
    ):
        raise NoScheduleError(
            f"{instance.name}, {how}: ends in a deadlock: without buffers and swaps, jobs wait in "
            "a circle for one another's machines."
        )
    plan = task.solve(instance, trace, **given)
    return _improved(instance, Solution(plan, how, bound, options), trace, by)


def _improved(
    instance: JobShopInstance, found: Solution, trace: Trace | None, by: Means
) -> Solution:
    """Returns what local search makes of a schedule; never a worse one."""
    if not by.search:
        return found
    better = improved(instance, found.schedule, found.options, trace, by.search, by.seed)
    how = f"{found.how}, then {by.search} episodes of local search"
    if trace is not None:
        how += " that knew all shutdowns beforehand"
    return replace(found, schedule=better, how=how)
