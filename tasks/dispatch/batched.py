"""`BatchedShop`: many episodes at once, in C++."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import _native
from gnnlab.tasks.dispatch.graph_view import Disjunctive, GraphView, graph_view
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.options import REWARDS, ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Trace, WindowTrace

__all__ = ["BatchedShop", "JobView", "Problems"]


@dataclass(frozen=True)
class Problems:
    """Instances as arrays, padded to a common size, without a Python object for each.

    Args:
        machines: (I, J, L) int64, -1 after a job's last operation.
        times: (I, J, L) int64.
        lengths: (I, J) int64.
        num_machines: M, the same for all.
    """

    machines: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    num_machines: int

    def __len__(self) -> int:
        return len(self.machines)

    def __getitem__(self, index: int) -> JobShopInstance:
        return JobShopInstance(
            f"random-{index}",
            self.machines[index],
            self.times[index],
            self.lengths[index],
            self.num_machines,
        )


@dataclass
class JobView:
    """What a policy over jobs sees of B episodes with up to J jobs.

    Args:
        jobs: (B, J, 39) float32.
        shop: (B, 24) float32.
        mask: (B, J + 1) bool, legal actions; the last is WAIT.
        op: (B, J) int64, place j * L + i of a job's next operation, -1 without one.
        machine: (B, J) int64, the machine of that operation, -1 without one.
        ahead: (B, J + 1, A) float32, what lookahead thinks of each legal action: how much later
            than the best action the episode ends, in mean operation times; A may be 0.
    """

    jobs: torch.Tensor
    shop: torch.Tensor
    mask: torch.Tensor
    op: torch.Tensor
    machine: torch.Tensor
    ahead: torch.Tensor

    def to(self, device: torch.device) -> JobView:
        """Returns the same on another device."""
        return JobView(*(getattr(self, f.name).to(device) for f in fields(self)))

    def at(self, chosen: torch.Tensor) -> JobView:
        """Returns the decisions that a mask or an index chooses."""
        return JobView(*(getattr(self, f.name)[chosen] for f in fields(self)))


class BatchedShop:
    """Episodes of the event-driven job shop, stepped together by compiled code.

    Row i * copies + c is the c-th episode of instance i. Results are those of `Simulator`, bit for
    bit.

    Args:
        problems: instances, or `Problems`.
        options: how the shop works.
        copies: episodes of each instance.
        traces: one trace per row (or one for all of them), None for no shutdowns.
        wip_limits: one limit per row instead of the options' one; 0 is none.
        threads: threads over episodes; None takes torch's number.

    Raises:
        RuntimeError: without compiled kernels.

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
        traces: Sequence[Any] | Trace | None = None,
        wip_limits: Sequence[int] | np.ndarray | None = None,
        threads: int | None = None,
    ) -> None:
        found = _native.shop_library()
        if found is None:
            raise RuntimeError("BatchedShop needs compiled kernels; see `gnnlab doctor`.")
        self._library = found
        self.options = options or ShopOptions()
        self.problems = problems
        self.copies = copies
        self.threads = threads or torch.get_num_threads()
        self._keep: list[Any] = []
        sizes, machines, times, lengths = _arrays(problems)
        self.num_rows = len(sizes) * copies
        self.num_jobs = int(sizes[:, 0].max())
        self.mean_times = _mean_times(problems)
        rows = self._rows(traces, wip_limits)
        settings, handle = _options(self.options), ctypes.c_void_p()
        found.check(
            found.shop_new(
                len(sizes),
                _at(sizes),
                _at(machines),
                _at(times),
                _at(lengths),
                self.num_rows,
                ctypes.addressof(rows),
                ctypes.addressof(settings),
                ctypes.byref(handle),
            )
        )
        self._handle = handle.value
        self._free = weakref.finalize(self, found.shop_free, self._handle)
        self.reset()

    def reset(self) -> None:
        """Begins all episodes again."""
        self._call("reset", None, self.num_rows, self.threads)

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
        actions, rows = _int64(actions), None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        if actions.shape != (count,):
            raise ValueError(f"expected {count} actions, got shape {actions.shape}.")
        reward, flags = np.zeros(count), np.zeros(count, np.uint8)
        self._call("step", rows, count, _at(actions), _at(reward), _at(flags), self.threads)
        return reward, flags

    def run_rules(
        self,
        mix: Sequence[tuple[int, float]],
        *,
        rows: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
    ) -> None:
        """Plays rows to their end by a weighted sum of priority rules, given by their numbers."""
        rows = None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        rules = np.array([rule for rule, _ in mix], np.int64)
        weights = np.array([weight for _, weight in mix], np.float64)
        keys = None if seeds is None else np.ascontiguousarray(seeds, np.uint64)
        self._call(
            "rules", rows, count, _at(rules), _at(weights), len(rules), _at(keys), self.threads
        )

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
        rows = None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        keys = np.arange(count) if seeds is None else np.asarray(seeds)
        begin = None if start is None else _int64(start)
        self._call(
            "search",
            rows,
            count,
            _at(begin),
            evaluations,
            _at(np.ascontiguousarray(keys, np.uint64)),
            self.threads,
        )

    def values(
        self,
        rules: Sequence[int],
        *,
        rollouts: int = 16,
        noise: float = 0.1,
        rows: np.ndarray | None = None,
        seeds: np.ndarray | None = None,
    ) -> np.ndarray:
        """Judges every legal action by finishing the episode many times.

        Args:
            rules: numbers of the priority rules that finish episodes, in turn.
            rollouts: noisy episodes per action; 0 takes mean and least of the plain ones.
            noise: how often a rule's choice is replaced by any candidate.
            rows: (B,) int64, which rows; None is all.
            seeds: (B,) uint64; None is 0.

        Returns:
            (B, J + 1, R + 2) int64, -1 where not legal: makespans when each rule finishes,
            then mean and least of the noisy episodes. Shutdowns to come are not known to them.
        """
        rows = None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        out = np.empty((count, self.num_jobs + 1, len(rules) + 2), np.int64)
        which = np.array(rules, np.int64)
        keys = None if seeds is None else np.ascontiguousarray(seeds, np.uint64)
        self._call(
            "values",
            rows,
            count,
            _at(which),
            len(which),
            noise,
            rollouts,
            _at(keys),
            _at(out),
            self.threads,
        )
        return out

    def view(self, rows: np.ndarray | None = None, lookahead: Lookahead | None = None) -> JobView:
        """Returns what a policy over jobs sees."""
        rows = None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        jobs = torch.empty(count, self.num_jobs, _native.JOB_FEATURES)
        shop = torch.empty(count, _native.GLOBAL_FEATURES)
        mask = torch.empty(count, self.num_jobs + 1, dtype=torch.bool)
        op = torch.empty(count, self.num_jobs, dtype=torch.int64)
        machine = torch.empty_like(op)
        parts = [t.data_ptr() for t in (jobs, shop, mask, op, machine)]
        self._call("jobs", rows, count, *parts, self.threads)
        if lookahead is None:
            return JobView(jobs, shop, mask, op, machine, torch.zeros(*mask.shape, 0))
        which = np.arange(self.num_rows) if rows is None else rows
        values = torch.from_numpy(
            self.values(
                lookahead.numbers, rollouts=lookahead.rollouts, noise=lookahead.noise, rows=which
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
        """
        rows = None if rows is None else _int64(rows)
        return graph_view(
            self,
            rows,
            drop_done=drop_done,
            machine_nodes=machine_nodes,
            disjunctive=disjunctive,
            delete_down=delete_down,
            repair_known=repair_known,
        )

    def masks(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns (B, J + 1) bool: legal actions, the last is WAIT."""
        rows = None if rows is None else _int64(rows)
        count = self.num_rows if rows is None else len(rows)
        mask = np.zeros((count, self.num_jobs + 1), bool)
        self._call("mask", rows, count, _at(mask))
        return mask

    def states(self) -> np.ndarray:
        """Returns (rows, 6) int64: time, makespan (-1: none yet), flags, steps, swaps, bound."""
        out = np.empty((self.num_rows, 6), np.int64)
        self._call("state", None, self.num_rows, _at(out))
        return out

    def makespans(self) -> np.ndarray:
        """Returns (rows,) int64: makespans of finished episodes, -1 for others and deadlocks."""
        return self.states()[:, 1]

    def schedule(self, row: int) -> Schedule:
        """Returns the schedule of a finished row."""
        instance = self.problems[row // self.copies]
        shape = instance.machines.shape
        times = np.empty((*shape, 3), np.int64)
        self._library.check(self._library.shop_schedule(self._handle, row, _at(times)))
        jobs, ops = np.nonzero(instance.exists)
        table = np.column_stack([jobs, ops, instance.machines[jobs, ops], times[jobs, ops]])
        return Schedule(instance.name, self.options.mode, int(table[:, 4].max()), table)

    def starts(self, row: int) -> np.ndarray:
        """Returns (J, L) int64: start times of a row's operations, -1 where not known."""
        instance = self.problems[row // self.copies]
        times = np.empty((*instance.machines.shape, 3), np.int64)
        self._library.check(self._library.shop_schedule(self._handle, row, _at(times)))
        return np.ascontiguousarray(times[..., 0])

    def padded(self) -> Problems:
        """Returns the instances as arrays; all must have the same numbers of jobs and machines."""
        if isinstance(self.problems, Problems):
            return self.problems
        parts = [np.stack([getattr(p, f) for p in self.problems]) for f in _FIELDS]
        return Problems(*parts, self.problems[0].num_machines)

    def copy_row(self, to: int, source: int) -> None:
        """Makes row `to` a clone of row `source` of the same instance."""
        self._library.check(self._library.shop_copy(self._handle, to, self._handle, source))

    def _call(self, name: str, rows: np.ndarray | None, count: int, *arguments: Any) -> None:
        function = getattr(self._library, f"shop_{name}")
        self._library.check(function(self._handle, _at(rows), count, *arguments))

    def _rows(self, traces: Any, wip_limits: Any) -> ctypes.Array[_native.Row]:
        rows = (_native.Row * self.num_rows)()
        given = list(traces) if isinstance(traces, (list, tuple)) else [traces] * self.num_rows
        if len(given) != self.num_rows:
            raise ConfigError(f"{len(given)} traces for {self.num_rows} episodes.")
        known: dict[int, dict[str, Any]] = {}
        for r, row in enumerate(rows):
            row.instance = r // self.copies
            limit = self.options.wip_limit if wip_limits is None else int(wip_limits[r])
            row.wip_limit = limit or 0
            trace = given[r]
            if trace is not None:
                if id(trace) not in known:
                    known[id(trace)] = self._trace(trace)
                for name, value in known[id(trace)].items():
                    setattr(row, name, value)
        return rows

    def _trace(self, trace: Any) -> dict[str, Any]:
        if isinstance(trace, Cuts):
            after, duration = _int64(trace.after), _int64(trace.duration)
            self._keep += [trace, after, duration]
            return {"cut_after": _at(after), "cut_duration": _at(duration)}
        if isinstance(trace, RandomTrace) and not callable(trace.shutdowns.duration):
            how = trace.shutdowns
            kind = ("uniform", "fixed", "geometric").index(str(how.duration))
            return {
                "trace": 1,
                "duration": kind,
                "seed": trace.seed,
                "prob": how.prob,
                "low": how.low,
                "high": how.high,
            }
        if isinstance(trace, WindowTrace):
            lengths = [len(machine) for machine in trace.windows]
            most = max(p.num_machines for p in self.problems) if len(self.problems) else 0
            lengths += [0] * (most - len(lengths))
            starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            flat = [w for machine in trace.windows for w in machine]
            windows = np.array(flat, np.int64).reshape(-1, 2)
            self._keep += [trace, starts, windows]
            return {"trace": 2, "windows": _at(windows), "starts": _at(starts)}
        raise ConfigError(f"{type(trace).__name__} is no trace that BatchedShop can read.")


_FIELDS = ("machines", "times", "lengths")


def _arrays(problems: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(problems, Problems):
        count, jobs, longest = problems.machines.shape
        sizes = np.tile(np.array([jobs, problems.num_machines, longest], np.int64), (count, 1))
        return sizes, *(map(_int64, (problems.machines, problems.times, problems.lengths)))
    sizes = np.array([(*p.machines.shape, p.num_machines) for p in problems], np.int64)
    flat = [
        np.concatenate([getattr(p, f).ravel() for p in problems])
        for f in ("machines", "times", "lengths")
    ]
    return np.ascontiguousarray(sizes[:, [0, 2, 1]]), *map(_int64, flat)


def _mean_times(problems: Any) -> np.ndarray:
    if isinstance(problems, Problems):
        exists = problems.machines >= 0
        means = np.where(exists, problems.times, 0).sum((1, 2)) / exists.sum((1, 2))
    else:
        means = np.array([p.total_time / p.num_operations for p in problems])
    return np.where(means > 0, means, 1.0)


def _options(options: ShopOptions) -> _native.Options:
    return _native.Options(
        ("jssp", "bws", "bns").index(options.mode),
        options.restart,
        options.unload_when_down,
        options.allow_wait,
        options.focus,
        options.auto_trivial,
        REWARDS.index(options.reward),
        1,
        options.max_steps or 0,
    )


def _int64(array: Any) -> np.ndarray:
    return np.ascontiguousarray(array, np.int64)


def _at(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data
