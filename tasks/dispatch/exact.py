"""`solve_exact`: best schedules and bounds by constraint programming (CP-SAT of OR-Tools)."""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from gnnlab.errors import ConfigError, GnnlabError, did_you_mean, needs
from gnnlab.tasks.dispatch._world import Op, Starts, World
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import MODES, Mode, Schedule
from gnnlab.tasks.dispatch.trace import Trace

__all__ = ["ExactModel", "ExactResult", "solve_exact"]

ExactModel = Literal["alternative", "interval"]
MAX_OPERATIONS_DOWN = 100


@dataclass(frozen=True)
class ExactResult:
    """What the solver found.

    Args:
        schedule: the best schedule, None if there is none; it has passed `verify`.
        makespan: its makespan, None if there is none.
        bound: no schedule is shorter than this.
        status: "optimal" (makespan equals bound), "feasible", "infeasible" or "unknown".
        seconds: wall time of the search.
    """

    schedule: Schedule | None
    makespan: int | None
    bound: int
    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    seconds: float

    @property
    def gap(self) -> float:
        """Share of the makespan that lies above the bound; infinite without a schedule."""
        if self.makespan is None:
            return float("inf")
        return (self.makespan - self.bound) / max(1, self.makespan)


class _Stay(NamedTuple):
    """Operations first..last of a job, all on one machine."""

    job: int
    first: int
    last: int


def solve_exact(
    instance: JobShopInstance,
    *,
    mode: Mode = "bws",
    seconds: float = 20,
    workers: int = 2,
    seed: int = 0,
    model: ExactModel = "alternative",
    hint: Schedule | None = None,
    trace: Trace | None = None,
    restart: bool = False,
    gap: float = 0.0,
    log: bool = False,
) -> ExactResult:
    """Minimises the makespan; with a trace, as one who knows all shutdowns beforehand.

    The result repeats for one seed and one worker, if the time limit does not end the search.

    Args:
        instance: the job shop.
        mode: "jssp", "bws" or "bns".
        seconds: time limit of the search.
        workers: threads.
        seed: of the search.
        model: "alternative" decides who goes first for each two jobs on a machine; "interval"
            has one interval per stay on a machine ("jssp" has no other). The first is faster, and
            the only one for "bns".
        hint: a schedule to begin with, valid in `mode`; only shorter or equal ones are searched.
        trace: when machines are down, or `Cuts`; shutdowns need at most 100 operations.
        restart: whether work that an interruption cuts is lost.
        gap: stop when the share of the makespan above the bound is at most this.
        log: whether the solver's log goes to stderr.

    Raises:
        MissingExtraError: when OR-Tools is not installed.
        ConfigError: for an option that does not fit, or a hint that is no valid schedule.
        DataError: when cuts belong to an instance of another shape.
        GnnlabError: if the solver's schedule does not pass `verify`, which would be a bug.

    Example:
        >>> shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> solve_exact(shop, mode="bws", workers=1).makespan  # they swap machines at 3
        5
        >>> solve_exact(shop, mode="bns", workers=1).makespan  # no swap: one after the other
        10
    """
    cp = needs("ortools.sat.python.cp_model", "solve_exact", "dispatch")
    _check_options(mode, model, seconds, workers, gap)
    world = World(instance, mode, trace, restart)
    first = world.serial() if hint is None else world.starts_of(hint)
    horizon = max(world.end(op, start) for op, start in first.items())
    if world.has_shutdowns(horizon) and instance.num_operations > MAX_OPERATIONS_DOWN:
        raise ConfigError(
            f"{instance.name} has {instance.num_operations} operations; with shutdowns at most "
            f"{MAX_OPERATIONS_DOWN} can be solved exactly. Leave out the trace."
        )
    shop = _Shop(cp, world, horizon)
    shop.add_machines(model)
    shop.add_hint(first)
    solver = cp.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.relative_gap_limit = gap
    solver.parameters.log_search_progress = log
    solver.parameters.log_to_stdout = False
    solver.log_callback = lambda line: print(line, file=sys.stderr)
    status = solver.solve(shop.model)
    if status == cp.MODEL_INVALID:
        raise ConfigError(f"{instance.name}: the solver cannot take it: {shop.model.validate()}")
    bound = max(0, int(np.ceil(solver.best_objective_bound - 1e-6)))
    if status not in (cp.OPTIMAL, cp.FEASIBLE):
        word: Any = "infeasible" if status == cp.INFEASIBLE else "unknown"
        return ExactResult(None, None, bound, word, solver.wall_time)
    plan = world.schedule({op: solver.value(var) for op, var in shop.start.items()})
    if found := world.verify(plan):
        raise GnnlabError(
            f"{instance.name}: the solver's schedule breaks {len(found)} rules, first {found[0]} "
            "Please report this with the instance."
        )
    done: Any = "optimal" if plan.makespan == bound else "feasible"
    return ExactResult(plan, plan.makespan, bound, done, solver.wall_time)


def _check_options(mode: str, model: str, seconds: float, workers: int, gap: float) -> None:
    for what, value, known in (
        ("mode", mode, MODES),
        ("model", model, ("alternative", "interval")),
    ):
        if value not in known:
            raise ConfigError(f'unknown {what} "{value}".{did_you_mean(value, known)}')
    if mode == "bns" and model == "interval":
        raise ConfigError(
            'model "interval" cannot forbid swaps; use model="alternative" for "bns".'
        )
    if not seconds > 0 or workers < 1 or not gap >= 0:
        raise ConfigError(
            f"seconds={seconds}, workers={workers}, gap={gap}: seconds must be above 0, workers "
            "1 or more, and gap 0 or more."
        )


class _Shop:
    """The model: a start and an end for each operation, and who is first on each machine."""

    def __init__(self, cp: Any, world: World, horizon: int) -> None:
        self.model, self.world, self.horizon = cp.CpModel(), world, horizon
        self.start = {op: self.model.new_int_var(0, horizon, f"start {op}") for op in world.ops}
        self.delay: dict[Op, int] = {}  # of the operations that no shutdown can meet
        self.end: dict[Op, Any] = {op: self._end(op) for op in world.ops}
        self.makespan = self.model.new_int_var(0, horizon, "makespan")
        self.orders: list[tuple[Any, _Stay, _Stay]] = []
        for j, i in world.ops:
            if (j, i + 1) in self.start:
                self.model.add(self.start[j, i + 1] >= self.end[j, i])
            else:
                self.model.add(self.makespan >= self.end[j, i])
        self.model.minimize(self.makespan)

    def _end(self, op: Op) -> Any:
        """Returns the end: start + constant, or the value of the piece that holds the start."""
        start, pieces = self.start[op], self.world.pieces(op, self.horizon)
        only = pieces[0]
        if len(pieces) == 1 and only.end is None and (only.first, only.last) == (0, self.horizon):
            self.delay[op] = only.delay
            return start + only.delay
        end = self.model.new_int_var(0, self.horizon, f"end {op}")
        chosen = [self.model.new_bool_var(f"piece {op} {n}") for n in range(len(pieces))]
        self.model.add_exactly_one(chosen)
        self.model.add(end >= start + self.world.work(op))  # follows, but helps the bound
        for piece, choice in zip(pieces, chosen, strict=True):
            right = start + piece.delay if piece.end is None else piece.end
            self.model.add(end == right).only_enforce_if(choice)
            self.model.add_linear_constraint(start, piece.first, piece.last).only_enforce_if(choice)
        return end

    def _interval(self, start: Any, end: Any, least: int, name: str) -> Any:
        size = self.model.new_int_var(least, self.horizon, f"size {name}")
        return self.model.new_interval_var(start, size, end, name)

    def add_machines(self, model: ExactModel) -> None:
        """Adds what keeps jobs from being on a machine together."""
        intervals = defaultdict(list)
        stays: dict[int, list[_Stay]] = defaultdict(list)
        for j, job in enumerate(self.world.jobs):
            runs = itertools.groupby(range(len(job)), key=lambda i, job=job: job[i][0])  # type: ignore[misc]
            for k, run in runs:
                at = list(run)
                stays[k].append(_Stay(j, at[0], at[-1]))
        blocking = self.world.mode != "jssp"
        if blocking and model == "interval":
            for k, row in stays.items():
                for stay in row:
                    times = self.start[stay.job, stay.first], self.release(stay)
                    ops = range(stay.first, stay.last + 1)
                    least = sum(self.world.work((stay.job, i)) for i in ops)
                    intervals[k].append(self._interval(*times, least, f"stay {stay}"))
        else:
            for op in self.world.ops:
                k, delay = self.world.jobs[op[0]][op[1]][0], self.delay.get(op)
                if delay is not None:
                    part = self.model.new_fixed_size_interval_var(self.start[op], delay, f"{op}")
                else:
                    part = self._interval(
                        self.start[op], self.end[op], self.world.work(op), f"{op}"
                    )
                intervals[k].append(part)
        for row in intervals.values():
            self.model.add_no_overlap(row)
        if blocking and model == "alternative":
            self._add_orders(stays)

    def release(self, stay: _Stay) -> Any:
        """Returns when a stay ends: at the start of the next one, or at the end of the job."""
        return self.start.get((stay.job, stay.last + 1), self.end[stay.job, stay.last])

    def _add_orders(self, stays: dict[int, list[_Stay]]) -> None:
        """Adds a choice for each two stays of different jobs: which one comes first."""
        places: dict[Op, Any] = {}
        if self.world.mode == "bns":
            # Without swaps all moves have one order, in which a machine is left before the next
            # job enters it. A finished job leaves by itself, any time after it came.
            ops = [(stay.job, stay.first) for row in stays.values() for stay in row]
            places = {op: self.model.new_int_var(0, len(ops), f"place {op}") for op in ops}
            for row in stays.values():
                for stay in row:
                    if (after := places.get((stay.job, stay.last + 1))) is not None:
                        self.model.add(after >= places[stay.job, stay.first] + 1)
        for row in stays.values():
            for pair in itertools.combinations(row, 2):
                if pair[0].job == pair[1].job:
                    continue
                choice = self.model.new_bool_var(f"order {pair}")
                self.orders.append((choice, *pair))
                for literal, (u, v) in ((choice, pair), (~choice, pair[::-1])):
                    enter = (v.job, v.first)
                    self.model.add(self.start[enter] >= self.release(u)).only_enforce_if(literal)
                    if places:
                        leave = places.get((u.job, u.last + 1), places[u.job, u.first])
                        self.model.add(places[enter] >= leave + 1).only_enforce_if(literal)

    def add_hint(self, starts: Starts) -> None:
        """Tells the solver a schedule to begin with."""
        for op, start in starts.items():
            self.model.add_hint(self.start[op], start)
        for choice, u, v in self.orders:
            left = starts.get((u.job, u.last + 1))
            if left is None:
                left = self.world.end((u.job, u.last), starts[u.job, u.last])
            self.model.add_hint(choice, int(starts[v.job, v.first] >= left))
