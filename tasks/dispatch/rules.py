"""Priority rules: which of the jobs that wait for a free machine it takes.

A rule gives each candidate a key; the smallest key goes first, and of equal keys the smallest job.
Machines decide in ascending order. Names differ between libraries: what some call first come,
first served takes the job with the fewest operations behind it, which is MOPNR here, not FIFO.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.simulator import Simulator, Status
from gnnlab.tasks.dispatch.trace import Cuts, Trace

__all__ = [
    "RULES",
    "CompositeRule",
    "KeyRule",
    "PilotRule",
    "RandomRule",
    "Rule",
    "dispatch",
    "parse_rule",
]


class Rule(ABC):
    """Chooses an action for a simulator: a job for its first open machine.

    `rule @ 5` is the same rule in a shop that lets in a new job only while fewer than 5 are inside;
    `dispatch` heeds it.
    """

    name: str
    wip_limit: int | None

    @abstractmethod
    def __call__(self, shop: Simulator) -> int:
        """Returns a job that may move to the first open machine."""

    def __matmul__(self, wip_limit: int) -> Rule:
        """Returns this rule with another limit of jobs inside."""
        ShopOptions(wip_limit=wip_limit)
        return replace(self, wip_limit=wip_limit)  # type: ignore[type-var]

    def __str__(self) -> str:
        return self.name if self.wip_limit is None else f"{self.name}@{self.wip_limit}"


def _candidates(shop: Simulator) -> list[int]:
    return shop.candidates(shop.open_machines()[0])


@dataclass(frozen=True)
class KeyRule(Rule):
    """A rule of the table: the candidate with the smallest key.

    Args:
        name: one of `RULES` that has a key, that is all but RANDOM.
        due_dates: (J) for ATC and CR; None takes 1.3 times the processing time of each job.
        wip_limit: lets in a new job only while fewer are inside; None is no limit.
    """

    name: str
    due_dates: Sequence[float] | None = None
    wip_limit: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _KEYS:
            raise ConfigError(f'no rule with a key is "{self.name}".{_did_you_mean(self.name)}')

    def keys(self, shop: Simulator, jobs: Sequence[int]) -> list[float]:
        """Returns the key of each job, given that these are the candidates of one machine."""
        if self.name in _DUE_KEYS:
            due = self.due_dates
            if due is not None and len(due) != shop.num_jobs:
                raise ConfigError(f"{self}: {len(due)} due dates for {shop.num_jobs} jobs.")
            dates = [1.3 * shop.total[j] if due is None else float(due[j]) for j in jobs]
            return _DUE_KEYS[self.name](shop, jobs, dates)
        key = _JOB_KEYS[self.name]
        return [float(key(shop, j)) for j in jobs]

    def __call__(self, shop: Simulator) -> int:
        """Returns the candidate with the smallest key."""
        jobs = _candidates(shop)
        return min(zip(self.keys(shop, jobs), jobs, strict=True))[1]


@dataclass(frozen=True)
class CompositeRule(Rule):
    """A weighted sum of keys.

    Args:
        terms: rules with a key, and the weight of each.
        wip_limit: lets in a new job only while fewer are inside; None is no limit.

    Example:
        >>> rule = CompositeRule([(parse_rule("SPT"), 1.0), (parse_rule("MWKR"), 0.2)])
        >>> str(rule)
        '1*SPT+0.2*MWKR'
    """

    terms: Sequence[tuple[KeyRule, float]]
    wip_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError("a composite rule needs a term.")
        for rule, weight in self.terms:
            if not isinstance(rule, KeyRule):
                raise ConfigError(f"a composite rule adds keys, and {rule} has none.")
            if weight == 0 or not math.isfinite(weight):
                raise ConfigError(f"the weight of {rule} is {weight}; it must be finite, not 0.")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The terms as text."""
        return "+".join(f"{weight:g}*{rule.name}" for rule, weight in self.terms)

    def keys(self, shop: Simulator, jobs: Sequence[int]) -> list[float]:
        """Returns the key of each job, given that these are the candidates of one machine."""
        sums = [0.0] * len(jobs)
        for rule, weight in self.terms:
            sums = [s + weight * key for s, key in zip(sums, rule.keys(shop, jobs), strict=True)]
        return sums

    def __call__(self, shop: Simulator) -> int:
        """Returns the candidate with the smallest key."""
        jobs = _candidates(shop)
        return min(zip(self.keys(shop, jobs), jobs, strict=True))[1]


@dataclass(frozen=True)
class RandomRule(Rule):
    """A candidate drawn evenly: one number of a seeded stream per decision.

    Args:
        seed: 0 or more. A rule goes on in its stream; make a new one for each episode.
        wip_limit: lets in a new job only while fewer are inside; None is no limit.
    """

    seed: int = 0
    wip_limit: int | None = None
    name = "RANDOM"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must be in 0..2**63 - 1.")
        key = np.array([self.seed, 0], np.uint64)
        object.__setattr__(self, "_stream", np.random.Generator(np.random.Philox(key=key)))

    def __call__(self, shop: Simulator) -> int:
        """Returns a candidate."""
        jobs = _candidates(shop)
        uniform: float = self._stream.random()  # type: ignore[attr-defined]
        return jobs[int(uniform * len(jobs))]


@dataclass(frozen=True)
class PilotRule(Rule):
    """Tries each candidate, finishes the episode by another rule, and keeps the best.

    It tries them in the expected future: the shutdowns of now end as known and no others follow.

    Args:
        rule: finishes the episodes; its limit of jobs inside becomes this rule's.
        wip_limit: lets in a new job only while fewer are inside; None takes the rule's.
    """

    rule: KeyRule | CompositeRule
    wip_limit: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rule, KeyRule | CompositeRule):
            raise ConfigError(f"PILOT finishes episodes by a rule with keys, not by {self.rule}.")
        if self.wip_limit is None:
            object.__setattr__(self, "wip_limit", self.rule.wip_limit)

    @property
    def name(self) -> str:  # type: ignore[override]
        """PILOT and the rule."""
        return f"PILOT({self.rule.name})"

    def __call__(self, shop: Simulator) -> int:
        """Returns the candidate after which the rule finishes first."""
        jobs = _candidates(shop)
        if len(jobs) == 1:
            return jobs[0]
        expected = shop.expected()
        return min((self._finish(expected.clone(), j), j) for j in jobs)[1]

    def _finish(self, shop: Simulator, j: int) -> float:
        shop.step(j)
        while not shop.over:
            shop.step(self.rule(shop))
        return shop.makespan


def parse_rule(text: str | Rule, seed: int = 0, due_dates: Sequence[float] | None = None) -> Rule:
    """Makes a rule from its name: `SPT`, `SPT@5` (at most 5 jobs inside), `PILOT(SPT)`.

    Args:
        text: the name; a rule is returned as it is.
        seed: for RANDOM.
        due_dates: (J) for ATC and CR; None takes 1.3 times the processing time of each job.

    Raises:
        ConfigError: for a name that is not known, with the nearest one that is.

    Example:
        >>> str(parse_rule("pilot(mtwr)@5"))
        'PILOT(MWKR)@5'
    """
    if isinstance(text, Rule):
        return text
    name = text.strip().upper()
    if "@" in name and not name.endswith(")"):
        name, _, limit = name.rpartition("@")
        if not limit.strip().isdecimal():
            raise ConfigError(f'rule "{text}": "{limit}" is no number of jobs.')
        return parse_rule(name, seed, due_dates) @ int(limit)
    if name.startswith("PILOT(") and name.endswith(")"):
        return PilotRule(parse_rule(name[6:-1], seed, due_dates))  # type: ignore[arg-type]
    name = _ALIASES.get(name, name)
    if name == "RANDOM":
        return RandomRule(seed)
    if name not in _KEYS:
        raise ConfigError(f'unknown rule "{text}".{_did_you_mean(name)}')
    return KeyRule(name, due_dates)


def dispatch(
    instance: JobShopInstance,
    rule: str | Rule,
    trace: Trace | None = None,
    options: ShopOptions | None = None,
    seed: int = 0,
    *,
    cuts: Cuts | None = None,
    due_dates: Sequence[float] | None = None,
) -> Simulator:
    """Runs an episode by a rule, machine by machine in ascending order, without waiting.

    Args:
        instance: the job shop.
        rule: a rule or its name.
        trace: when machines are down; None is never.
        options: the rules of the game; `focus` and `allow_wait` have no effect.
        seed: for RANDOM.
        cuts: interruptions of single operations, in place of a trace.
        due_dates: (J) for ATC and CR; None takes 1.3 times the processing time of each job.

    Returns:
        The simulator at the end: its `makespan`, `schedule()` and `info`.

    Example:
        >>> shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> dispatch(shop, "SPT").schedule()
        Schedule('instance', bws, makespan 5, 4 operations)
    """
    chosen = parse_rule(rule, seed, due_dates)
    how = replace(options or ShopOptions(), focus=True, allow_wait=False)
    if chosen.wip_limit is not None:
        how = replace(how, wip_limit=chosen.wip_limit)
    shop = Simulator(instance, trace, how, cuts=cuts)
    while not shop.over:
        shop.step(chosen(shop))
    return shop


# Keys of a job by itself, in float64 and in the order of operations that is written here.


def _p(shop: Simulator, j: int) -> int:
    return shop.times[j][shop.next_op[j]]


def _ops_left(shop: Simulator, j: int) -> int:
    return len(shop.times[j]) - shop.next_op[j]


def _p_over(shop: Simulator, j: int, work: int) -> float:
    return _p(shop, j) / work if work else 0.0


def _flow_due_date(shop: Simulator, j: int) -> float:
    rem = shop.work_left[j]
    return (shop.total[j] - rem + _p(shop, j)) / rem if rem else math.inf


def _work_in_next_queue(shop: Simulator, j: int) -> int:
    k = shop.next_machine(j, 1)
    return sum(_p(shop, other) for other in shop.waiting(k)) if k >= 0 else 0


def _next_queue(shop: Simulator, j: int) -> int:
    k = shop.next_machine(j, 1)
    return len(shop.waiting(k)) if k >= 0 else 0


def _next_is_blocked(shop: Simulator, j: int) -> int:
    k = shop.next_machine(j, 1)
    occupant = shop.occupant[k] if k >= 0 else -1
    return int(occupant >= 0 and shop.status[occupant] == Status.BLOCKED)


_JOB_KEYS: dict[str, Callable[[Simulator, int], float]] = {
    "FIFO": lambda shop, j: shop.ready[j],
    "LIFO": lambda shop, j: -shop.ready[j],
    "SPT": _p,
    "LPT": lambda shop, j: -_p(shop, j),
    "LWKR": lambda shop, j: shop.work_left[j],
    "MWKR": lambda shop, j: -shop.work_left[j],
    "LOPNR": _ops_left,
    "MOPNR": lambda shop, j: -_ops_left(shop, j),
    "SPT/TWK": lambda shop, j: _p_over(shop, j, shop.total[j]),
    "SPT/TWKR": lambda shop, j: _p_over(shop, j, shop.work_left[j]),
    "LPT*TWK": lambda shop, j: float(-_p(shop, j)) * shop.total[j],
    "FDD/MWKR": _flow_due_date,
    "WINQ": _work_in_next_queue,
    "NINQ": _next_queue,
    "LBOCC": _next_is_blocked,
}


# Keys that need due dates.


def _apparent_tardiness_cost(
    shop: Simulator, jobs: Sequence[int], dates: Sequence[float]
) -> list[float]:
    weight, horizon = 1.0, 2.0
    times = [_p(shop, j) or 1 for j in jobs]
    mean = sum(times) / len(times)
    keys = []
    for j, p, d in zip(jobs, times, dates, strict=True):
        slack = d - p - shop.time - (shop.work_left[j] - p)
        keys.append(-(weight / p) * math.exp(-max(0.0, slack) / (horizon * mean)))
    return keys


def _critical_ratio(shop: Simulator, jobs: Sequence[int], dates: Sequence[float]) -> list[float]:
    return [
        (d - shop.time) / shop.work_left[j] if shop.work_left[j] else math.inf
        for j, d in zip(jobs, dates, strict=True)
    ]


_DUE_KEYS: dict[str, Callable[[Simulator, Sequence[int], Sequence[float]], list[float]]] = {
    "ATC": _apparent_tardiness_cost,
    "CR": _critical_ratio,
}
_KEYS = (*_JOB_KEYS, *_DUE_KEYS)
_ALIASES = {"MTWR": "MWKR", "LTWR": "LWKR"}
RULES = (*_KEYS, "RANDOM")


def _did_you_mean(name: str) -> str:
    return did_you_mean(name, [*RULES, *_ALIASES])
