"""`BatchedShop`: many episodes at once, compiled where possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gnnlab.errors import ConfigError
from gnnlab.ops import backend
from gnnlab.tasks.dispatch._compiled import CompiledEngine
from gnnlab.tasks.dispatch._engine import Engine
from gnnlab.tasks.dispatch._native import shop_library
from gnnlab.tasks.dispatch._plans import NO_PLAN, Plans
from gnnlab.tasks.dispatch.graph_view import Disjunctive, GraphView, graph_view
from gnnlab.tasks.dispatch.guide import GUIDE_FACTS
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.plain import PlainEngine
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, Trace
from gnnlab.tasks.dispatch.views import JobView, Problems

__all__ = ["BatchedShop", "JobView", "Problems"]


_APART = 1_000_003  # seeds of noisy episodes follow one another inside an action


class BatchedShop:
    """Episodes of the event-driven job shop, stepped together.

    Row i * copies + c is the c-th episode of instance i. Results are those of `Simulator`, bit for
    bit: compiled code gives them fast, and without it simulators play one row after the other.

    Args:
        problems: instances, or `Problems`.
        options: how the shop works.
        copies: episodes of each instance.
        traces: one trace per row (or one for all of them), None for no shutdowns.
        wip_limits: one limit per row instead of the options' one; 0 is none.
        threads: threads over episodes of compiled code; None takes torch's number.

    Raises:
        ConfigError: for traces or limits that do not belong to the rows.

    Example:
        >>> shop = BatchedShop([JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])])
        >>> shop.run_rules([(2, 1.0)])
        >>> shop.makespans().tolist()
        [5]
    """

    def __init__(
        self,
        problems: Sequence[JobShopInstance] | Problems,
        options: ShopOptions | None = None,
        *,
        copies: int = 1,
        traces: Sequence[Trace | None] | Trace | None = None,
        wip_limits: Sequence[int] | np.ndarray | None = None,
        threads: int | None = None,
    ) -> None:
        self.options = options or ShopOptions()
        self.problems = problems
        self.copies = copies
        self.threads = threads or torch.get_num_threads()
        self.num_rows = len(problems) * copies
        if self.num_rows < 1:
            raise ConfigError(f"no episodes: {len(problems)} instances, {copies} copies of each.")
        self.num_jobs = _most_jobs(problems)
        self.mean_times = _mean_times(problems)
        given = self._traces(traces)
        limits = self._limits(wip_limits)
        library = None if backend() == "reference" else shop_library()
        self._plans: Plans | None = None
        self._engine: Engine
        if library is None:
            self._engine = PlainEngine(problems, self.options, given, limits)
        else:
            self._engine = CompiledEngine(
                library, problems, self.options, given, limits, self.threads
            )

    def reset(self) -> None:
        """Begins all episodes again."""
        self._plans = None
        self._engine.reset()

    def step(
        self, actions: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes one decision per row and goes on to the next; rows that are over stay as they are.

        Args:
            actions: (B,) int64, a job's index, or `num_jobs` for WAIT.
            rows: (B,) int64, which rows; None is all.

        Returns:
            Rewards (B,) float64 and flags (B,) uint8: 1 done, 2 deadlock, 4 truncated.

        Raises:
            ValueError: for an illegal action, with the reason.
        """
        which, actions = self._which(rows), _int64(actions)
        if actions.shape != which.shape:
            raise ValueError(f"expected {len(which)} actions, got shape {actions.shape}.")
        if self._plans is not None:
            self._plans.follow(which, actions)
        return self._engine.step(which, actions)

    def run_rules(
        self,
        mix: Sequence[tuple[int, float]],
        *,
        rows: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
    ) -> None:
        """Plays rows to their end by a weighted sum of priority rules.

        Args:
            mix: numbers of rules, their places in `RULES`, and weights.
            rows: (B,) int64, which rows; None is all.
            seeds: (B,) uint64, of RANDOM; None is 0.
        """
        _check_rules([rule for rule, _ in mix])
        which = self._which(rows)
        self._engine.run_rules(which, mix, _seeds(seeds, which))

    def search(
        self,
        evaluations: int,
        *,
        rows: np.ndarray | None = None,
        start: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
    ) -> None:
        """Looks for better schedules by simulated annealing; rows end in the best ones found.

        It plays whole episodes, so it knows the shutdowns to come: with a trace the result is what
        hindsight could have done, not what a policy can do.

        Args:
            evaluations: episodes to play per row.
            rows: (B,) int64, which rows; None is all.
            start: (B, J, L) int64, start times of schedules to begin from; None takes the best of
                a few rules. All rows then play instances of the same size.
            seeds: (B,) uint64, None is the number of the row.
        """
        which = self._which(rows)
        keys = np.arange(len(which)) if seeds is None else seeds
        begin = None if start is None else _int64(start)
        if begin is not None:
            for n, row in enumerate(which.tolist()):
                shape = self.problems[row // self.copies].machines.shape
                if begin.shape != (len(which), *shape):
                    raise ValueError(
                        f"start has shape {begin.shape}, but row {n} needs {(len(which), *shape)}."
                    )
        self._engine.search(which, evaluations, begin, _seeds(keys, which))

    def values(
        self,
        rules: Sequence[int],
        *,
        rollouts: int = 16,
        noise: float = 0.1,
        rows: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
        remember: bool = False,
        guide: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Judges every legal action by finishing the episode many times.

        Args:
            rules: numbers of the priority rules that finish episodes, in turn.
            rollouts: noisy episodes per action; 0 takes mean and least of the plain ones.
            noise: how often a rule's choice is replaced by any candidate.
            rows: (B,) int64, which rows; None is all.
            seeds: (B,) uint64; None is 0.
            remember: whether the best episode seen so far is kept as a plan, and counts among those
                of its next action for as long as the row follows it; not with shutdowns.
            guide: (F,) weights of a guide that plays the noisy episodes instead of the rules.

        Returns:
            (B, J + 1, R + 2) int64, -1 where not legal: makespans when each rule finishes,
            then mean and least of the noisy episodes. Shutdowns to come are not known to them.
        """
        _check_rules(rules)
        which = self._which(rows)
        if remember and self._plans is None:
            self._plans = Plans.none(self.num_rows, _most_operations(self.problems))
        plans = self._plans if remember else None
        weights = None if guide is None else np.array(guide, np.float64)
        if weights is not None and weights.shape != (len(GUIDE_FACTS),):
            raise ValueError(f"a guide has {len(GUIDE_FACTS)} weights, got shape {weights.shape}.")
        keys = _seeds(seeds, which)
        return self._engine.values(which, rules, rollouts, noise, keys, plans, weights)

    def view(self, rows: np.ndarray | None = None, lookahead: Lookahead | None = None) -> JobView:
        """Returns what a policy over jobs sees."""
        which = self._which(rows)
        jobs, shop, mask, op, machine = map(torch.from_numpy, self._engine.view(which))
        if lookahead is None:
            return JobView(jobs, shop, mask, op, machine, torch.zeros(*mask.shape, 0))
        values = torch.from_numpy(
            self.values(
                lookahead.numbers,
                rollouts=lookahead.rollouts,
                noise=lookahead.noise,
                rows=which,
                seeds=(which % self.copies) * _APART,  # episodes of an instance draw other numbers
                remember=True,
                guide=lookahead.guide,
            )
        )
        legal = mask[..., None]
        best = values.masked_fill(~legal, 2**62).amin(1, keepdim=True)
        unit = torch.from_numpy(self.mean_times[which // self.copies])[:, None, None]
        ahead = ((values - best) / unit).float().masked_fill(~legal, 0.0)
        return JobView(jobs, shop, mask, op, machine, ahead)

    def graph(
        self,
        rows: np.ndarray | None = None,
        *,
        drop_done: bool = True,
        machine_nodes: bool = True,
        disjunctive: Disjunctive = "auto",
        delete_down: bool = False,
        repair_known: bool = True,
    ) -> GraphView:
        """Returns the dynamic disjunctive graph of each row.

        Args:
            rows: (B,) int64, which rows; None is all.
            drop_done: whether operations that have departed are no nodes; otherwise their features
                are 0.
            machine_nodes: whether machines are nodes.
            disjunctive: "clique" links operations that a machine has yet to order pair by pair,
                "star" by the machine alone, "auto" takes cliques up to 30 jobs.
            delete_down: whether edges of types disj, mach_next, block and block_rev of a machine
                that is down are left out.
            repair_known: whether the time to a repair may be seen.

        Raises:
            ConfigError: for an unknown or impossible choice.
            RuntimeError: without compiled kernels.
        """
        return graph_view(
            self,
            self._which(rows),
            drop_done=drop_done,
            machine_nodes=machine_nodes,
            disjunctive=disjunctive,
            delete_down=delete_down,
            repair_known=repair_known,
        )

    def guide_facts(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns (B, J, F) float64: `GUIDE_FACTS` of the candidates of the first open machine."""
        return self._engine.guide_facts(self._which(rows))

    def masks(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns (B, J + 1) bool: legal actions, the last is WAIT."""
        return self._engine.masks(self._which(rows))

    def states(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns (B, 6) int64: time, makespan (-1: none yet), flags, steps, swaps, bound."""
        return self._engine.states(self._which(rows))

    def makespans(self) -> np.ndarray:
        """Returns (rows,) int64: makespans of finished episodes, -1 for others and deadlocks."""
        return self.states()[:, 1]

    def schedule(self, row: int) -> Schedule:
        """Returns the schedule of a finished row."""
        instance = self.problems[row // self.copies]
        times = self._engine.times(row)
        jobs, ops = np.nonzero(instance.exists)
        table = np.column_stack([jobs, ops, instance.machines[jobs, ops], times[jobs, ops]])
        return Schedule(instance.name, self.options.mode, int(table[:, 4].max()), table)

    def starts(self, row: int) -> np.ndarray:
        """Returns (J, L) int64: start times of a row's operations, -1 where not known."""
        return np.ascontiguousarray(self._engine.times(row)[..., 0])

    def padded(self) -> Problems:
        """Returns the instances as arrays; all must have the same numbers of jobs and machines."""
        if isinstance(self.problems, Problems):
            return self.problems
        return Problems(
            np.stack([p.machines for p in self.problems]),
            np.stack([p.times for p in self.problems]),
            np.stack([p.lengths for p in self.problems]),
            self.problems[0].num_machines,
        )

    def copy_row(self, to: int, source: int) -> None:
        """Makes row `to` a clone of row `source` of the same instance."""
        own, other = (self.problems[row // self.copies] for row in (to, source))
        if own != other:
            raise ValueError(f"rows {to} and {source} play different instances.")
        if self._plans is not None:
            self._plans.spans[to] = NO_PLAN
        self._engine.copy_row(to, source)

    def _call(self, name: str, rows: np.ndarray, count: int, *arguments: Any) -> None:
        """Calls a C function that the plain path has no counterpart of."""
        if not isinstance(self._engine, CompiledEngine):
            raise RuntimeError(
                "BatchedShop.graph needs compiled kernels; see `gnnlab doctor`. "
                "ShopEnv builds the graph of a single shop without them."
            )
        self._engine.call(name, rows, *arguments)

    def _which(self, rows: np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.arange(self.num_rows)
        which = _int64(rows)
        wrong = (which < 0) | (which >= self.num_rows)
        if wrong.any():
            raise IndexError(f"row {which[wrong][0]} is not in 0..{self.num_rows - 1}.")
        return which

    def _traces(self, traces: Any) -> list[Trace | None]:
        given = list(traces) if isinstance(traces, (list, tuple)) else [traces] * self.num_rows
        if len(given) != self.num_rows:
            raise ConfigError(f"{len(given)} traces for {self.num_rows} episodes.")
        for row, trace in enumerate(given):
            if isinstance(trace, Cuts):
                shape = self.problems[row // self.copies].times.shape
                if not trace.after.shape == trace.duration.shape == shape:
                    raise ConfigError(
                        f"episode {row}: the cuts are {trace.after.shape}, its instance is {shape}."
                    )
        return given

    def _limits(self, limits: Sequence[int] | np.ndarray | None) -> list[int]:
        if limits is None:
            return [self.options.wip_limit or 0] * self.num_rows
        if len(limits) != self.num_rows:
            raise ConfigError(f"{len(limits)} limits for {self.num_rows} episodes.")
        return [int(limit) for limit in limits]


def _most_jobs(problems: Sequence[JobShopInstance] | Problems) -> int:
    if isinstance(problems, Problems):
        return int(problems.machines.shape[1])
    return max(instance.num_jobs for instance in problems)


def _most_operations(problems: Sequence[JobShopInstance] | Problems) -> int:
    if isinstance(problems, Problems):
        return int(np.prod(problems.machines.shape[1:]))
    return max(instance.machines.size for instance in problems)


def _mean_times(problems: Sequence[JobShopInstance] | Problems) -> np.ndarray:
    if isinstance(problems, Problems):
        exists = problems.machines >= 0
        means = np.where(exists, problems.times, 0).sum((1, 2)) / exists.sum((1, 2))
    else:
        means = np.array([p.total_time / p.num_operations for p in problems])
    return np.where(means > 0, means, 1.0)


def _check_rules(rules: Sequence[int]) -> None:
    wrong = [rule for rule in rules if not 0 <= rule < len(RULES)]
    if wrong or not len(rules):
        found = f"there is no rule {wrong[0]}" if wrong else "no rules were given"
        raise ValueError(f"{found}; rules are numbers in 0..{len(RULES) - 1}, places in RULES.")


def _seeds(seeds: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    keys = np.zeros(len(rows)) if seeds is None else np.asarray(seeds)
    if keys.shape != rows.shape:
        raise ValueError(f"expected {len(rows)} seeds, got shape {keys.shape}.")
    return np.ascontiguousarray(keys, np.uint64)


def _int64(array: Any) -> np.ndarray:
    return np.ascontiguousarray(array, np.int64)
