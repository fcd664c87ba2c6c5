"""`CompiledEngine`: the simulator in C++, threads over episodes."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gnnlab.errors import ConfigError
from gnnlab.ops._library import Library
from gnnlab.tasks.dispatch import _native
from gnnlab.tasks.dispatch._engine import Seen
from gnnlab.tasks.dispatch._plans import Plans
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import REWARDS, ShopOptions
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Trace, WindowTrace
from gnnlab.tasks.dispatch.views import Problems

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Rows of episodes in the memory of the compiled simulator.

    Args:
        library: gnnlab's CPU library with the functions of `native/shop_api.h`.
        problems: I instances.
        options: how the shop works.
        traces: one per row or None; row r plays instance r // (rows / I).
        limits: one per row, of jobs inside; 0 is none.
        threads: threads over episodes.
    """

    def __init__(
        self,
        library: Library,
        problems: Sequence[JobShopInstance] | Problems,
        options: ShopOptions,
        traces: Sequence[Trace | None],
        limits: Sequence[int],
        threads: int,
    ) -> None:
        self._library, self._problems, self._threads = library, problems, threads
        self._keep: list[Any] = []
        sizes, machines, times, lengths = _arrays(problems)
        self._num_rows, self._width = len(traces), int(sizes[:, 0].max())
        copies = len(traces) // len(sizes)
        rows = self._rows(copies, traces, limits)
        settings, handle = _options(options), ctypes.c_void_p()
        library.check(
            library.shop_new(
                len(sizes),
                _at(sizes),
                _at(machines),
                _at(times),
                _at(lengths),
                len(rows),
                ctypes.addressof(rows),
                ctypes.addressof(settings),
                ctypes.byref(handle),
            )
        )
        self._copies, self._handle = copies, handle.value
        self._free = weakref.finalize(self, library.shop_free, self._handle)
        self.reset()

    def reset(self) -> None:
        """Begins all episodes again."""
        self.call("reset", np.arange(self._num_rows), self._threads)

    def step(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes one decision per row; returns rewards and flags."""
        reward, flags = np.zeros(len(rows)), np.zeros(len(rows), np.uint8)
        self.call("step", rows, _at(actions), _at(reward), _at(flags), self._threads)
        return reward, flags

    def run_rules(
        self, rows: np.ndarray, mix: Sequence[tuple[int, float]], seeds: np.ndarray
    ) -> None:
        """Plays rows to their end by a weighted sum of priority rules."""
        rules = np.array([rule for rule, _ in mix], np.int64)
        weights = np.array([weight for _, weight in mix], np.float64)
        self.call("rules", rows, _at(rules), _at(weights), len(mix), _at(seeds), self._threads)

    def search(
        self, rows: np.ndarray, evaluations: int, start: np.ndarray | None, seeds: np.ndarray
    ) -> None:
        """Looks for better schedules, and leaves each row at the end of its best one."""
        self.call("search", rows, _at(start), evaluations, _at(seeds), self._threads)

    def values(
        self,
        rows: np.ndarray,
        rules: Sequence[int],
        rollouts: int,
        noise: float,
        seeds: np.ndarray,
        plans: Plans | None = None,
        guide: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns what legal actions lead to, (B, J + 1, R + 2) int64."""
        kept = None
        if plans is not None:
            cells = plans.before.shape[1]
            kept = _native.Plans(cells, _at(plans.spans), _at(plans.next), _at(plans.before))
        out = np.empty((len(rows), self._width + 1, len(rules) + 2), np.int64)
        which = np.array(rules, np.int64)
        self.call(
            "values",
            rows,
            _at(which),
            len(which),
            noise,
            rollouts,
            _at(seeds),
            None if kept is None else ctypes.addressof(kept),
            _at(guide),
            _at(out),
            self._threads,
        )
        return out

    def guide_facts(self, rows: np.ndarray) -> np.ndarray:
        """Returns what the guide looks at, (B, J, F) float64."""
        out = np.empty((len(rows), self._width, _native.GUIDE_FACTS))
        self.call("guide", rows, _at(out), self._threads)
        return out

    def view(self, rows: np.ndarray) -> Seen:
        """Returns what a policy over jobs sees."""
        count, jobs = len(rows), self._width
        seen = (
            np.empty((count, jobs, _native.JOB_FEATURES), np.float32),
            np.empty((count, _native.GLOBAL_FEATURES), np.float32),
            np.empty((count, jobs + 1), bool),
            np.empty((count, jobs), np.int64),
            np.empty((count, jobs), np.int64),
        )
        self.call("jobs", rows, *map(_at, seen), self._threads)
        return seen

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Returns legal actions, (B, J + 1) bool."""
        mask = np.zeros((len(rows), self._width + 1), bool)
        self.call("mask", rows, _at(mask))
        return mask

    def states(self, rows: np.ndarray) -> np.ndarray:
        """Returns time, makespan, flags, steps, swaps and bound."""
        out = np.empty((len(rows), 6), np.int64)
        self.call("state", rows, _at(out))
        return out

    def times(self, row: int) -> np.ndarray:
        """Returns start, end and departure of a row's operations, (J, L, 3) int64."""
        shape = self._problems[row // self._copies].machines.shape
        times = np.empty((*shape, 3), np.int64)
        self._library.check(self._library.shop_schedule(self._handle, row, _at(times)))
        return times

    def copy_row(self, to: int, source: int) -> None:
        """Makes a row a clone of another one."""
        self._library.check(self._library.shop_copy(self._handle, to, self._handle, source))

    def call(self, name: str, rows: np.ndarray, *arguments: Any) -> None:
        """Calls `gnnlab_shop_NAME` with the rows, their number and the arguments."""
        function = getattr(self._library, f"shop_{name}")
        self._library.check(function(self._handle, _at(rows), len(rows), *arguments))

    def _rows(
        self, copies: int, traces: Sequence[Trace | None], limits: Sequence[int]
    ) -> ctypes.Array[_native.Row]:
        rows = (_native.Row * len(traces))()
        known: dict[int, dict[str, Any]] = {}
        for r, (row, trace) in enumerate(zip(rows, traces, strict=True)):
            row.instance = r // copies
            row.wip_limit = limits[r]
            if trace is not None:
                if id(trace) not in known:
                    known[id(trace)] = self._trace(trace)
                for name, value in known[id(trace)].items():
                    setattr(row, name, value)
        return rows

    def _trace(self, trace: Trace) -> dict[str, Any]:
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
            problems = self._problems
            most = max(problems[i].num_machines for i in range(len(problems)))
            lengths += [0] * (most - len(lengths))
            starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            flat = [w for machine in trace.windows for w in machine]
            windows = np.array(flat, np.int64).reshape(-1, 2)
            self._keep += [trace, starts, windows]
            return {"trace": 2, "windows": _at(windows), "starts": _at(starts)}
        raise ConfigError(f"{type(trace).__name__} is no trace that BatchedShop can read.")


def _arrays(
    problems: Sequence[JobShopInstance] | Problems,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns sizes (I, 3): jobs, machines, longest job; and the blocks of all instances."""
    if isinstance(problems, Problems):
        count, jobs, longest = problems.machines.shape
        sizes = np.tile(np.array([jobs, problems.num_machines, longest], np.int64), (count, 1))
        machines, times, lengths = problems.machines, problems.times, problems.lengths
    else:
        sizes = np.array(
            [(p.num_jobs, p.num_machines, p.machines.shape[1]) for p in problems], np.int64
        )
        machines = np.concatenate([p.machines.ravel() for p in problems])
        times = np.concatenate([p.times.ravel() for p in problems])
        lengths = np.concatenate([p.lengths for p in problems])
    return sizes, _int64(machines), _int64(times), _int64(lengths)


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


def _int64(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.int64)


def _at(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data
