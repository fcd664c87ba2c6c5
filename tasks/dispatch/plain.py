"""`PlainEngine`: the episodes of a `BatchedShop` played by `Simulator`, one after the other.

It runs where there are no compiled kernels, and is what those are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gnnlab.tasks.dispatch._engine import Seen
from gnnlab.tasks.dispatch._plans import Plans
from gnnlab.tasks.dispatch.annealing import anneal
from gnnlab.tasks.dispatch.guide import GUIDE_FACTS, guide_facts
from gnnlab.tasks.dispatch.illegal import IllegalAction
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.job_features import JOB_COLUMNS, SHOP_COLUMNS, job_features
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rollouts import Mix, action_values, finish
from gnnlab.tasks.dispatch.simulator import Simulator
from gnnlab.tasks.dispatch.trace import Trace
from gnnlab.tasks.dispatch.views import Problems

__all__ = ["PlainEngine"]

_DONE, _DEADLOCK, _TRUNCATED = 1, 2, 4


class PlainEngine:
    """Rows of episodes, a `Simulator` each.

    Args:
        problems: I instances.
        options: how the shop works.
        traces: one per row or None; row r plays instance r // (rows / I).
        limits: one per row, of jobs inside; 0 is none.
    """

    def __init__(
        self,
        problems: Sequence[JobShopInstance] | Problems,
        options: ShopOptions,
        traces: Sequence[Trace | None],
        limits: Sequence[int],
    ) -> None:
        copies = len(traces) // len(problems)
        instances = [problems[i] for i in range(len(problems))]
        self._width = max(instance.num_jobs for instance in instances)
        self._setup = [
            (instances[r // copies], trace, replace(options, wip_limit=limit or None))
            for r, (trace, limit) in enumerate(zip(traces, limits, strict=True))
        ]
        self.reset()

    def reset(self) -> None:
        """Begins all episodes again."""
        self._shops = [Simulator(*setup) for setup in self._setup]

    def step(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes one decision per row; returns rewards and flags."""
        reward, flags = np.zeros(len(rows)), np.zeros(len(rows), np.uint8)
        first: IllegalAction | None = None
        for n, (row, action) in enumerate(zip(rows.tolist(), actions.tolist(), strict=True)):
            shop = self._shops[row]
            if not shop.over:
                try:
                    reward[n] = shop.step(shop.num_jobs if action == self._width else action)
                except IllegalAction as error:
                    first = first or IllegalAction(f"episode {n}: {error}")
            flags[n] = _flags(shop)
        if first is not None:
            raise first
        return reward, flags

    def run_rules(self, rows: np.ndarray, mix: Mix, seeds: np.ndarray) -> None:
        """Plays rows to their end by a weighted sum of priority rules."""
        for row, seed in zip(rows.tolist(), seeds.tolist(), strict=True):
            finish(self._shops[row], mix, seed)

    def search(
        self, rows: np.ndarray, evaluations: int, start: np.ndarray | None, seeds: np.ndarray
    ) -> None:
        """Looks for better schedules, and leaves each row at the end of its best one."""
        for n, (row, seed) in enumerate(zip(rows.tolist(), seeds.tolist(), strict=True)):
            begin = None if start is None else start[n]
            self._shops[row] = anneal(self._shops[row], evaluations, begin, seed)

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
        out = np.full((len(rows), self._width + 1, len(rules) + 2), -1, np.int64)
        weights = None if guide is None else guide.tolist()
        for n, (row, seed) in enumerate(zip(rows.tolist(), seeds.tolist(), strict=True)):
            shop, trace = self._shops[row], self._setup[row][1]
            kept = plans if trace is None else None
            found = action_values(
                shop,
                rules,
                rollouts=rollouts,
                noise=noise,
                seed=seed,
                plans=kept,
                row=row,
                guide=weights,
            )
            if kept is not None and kept.next[row] == shop.num_jobs:
                kept.next[row] = self._width  # WAIT
            out[n, : shop.num_jobs], out[n, -1] = found[:-1], found[-1]
        return out

    def view(self, rows: np.ndarray) -> Seen:
        """Returns what a policy over jobs sees."""
        count, width = len(rows), self._width
        jobs = np.zeros((count, width, len(JOB_COLUMNS)), np.float32)
        shops = np.zeros((count, len(SHOP_COLUMNS)), np.float32)
        mask = np.zeros((count, width + 1), bool)
        op, machine = np.full((2, count, width), -1, np.int64)
        for n, row in enumerate(rows.tolist()):
            of_jobs, shops[n], legal, of_op, of_machine = job_features(self._shops[row])
            size = len(of_jobs)
            jobs[n, :size], op[n, :size], machine[n, :size] = of_jobs, of_op, of_machine
            mask[n, :size], mask[n, -1] = legal[:-1], legal[-1]
        return jobs, shops, mask, op, machine

    def guide_facts(self, rows: np.ndarray) -> np.ndarray:
        """Returns what the guide looks at, (B, J, F) float64."""
        out = np.zeros((len(rows), self._width, len(GUIDE_FACTS)))
        for n, row in enumerate(rows.tolist()):
            if not self._shops[row].over:
                jobs, facts = guide_facts(self._shops[row])
                out[n, jobs] = facts
        return out

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Returns legal actions, (B, J + 1) bool."""
        mask = np.zeros((len(rows), self._width + 1), bool)
        for n, row in enumerate(rows.tolist()):
            shop = self._shops[row]
            mask[n, [a if a < shop.num_jobs else -1 for a in shop.legal()]] = True
        return mask

    def states(self, rows: np.ndarray) -> np.ndarray:
        """Returns time, makespan, flags, steps, swaps and bound."""
        return np.array(
            [
                (
                    shop.time,
                    shop.time if shop.done else -1,
                    _flags(shop),
                    shop.steps,
                    shop.swaps,
                    shop.lower_bound(),
                )
                for shop in (self._shops[row] for row in rows.tolist())
            ],
            np.int64,
        ).reshape(-1, 6)

    def times(self, row: int) -> np.ndarray:
        """Returns start, end and departure of a row's operations, (J, L, 3) int64."""
        shop = self._shops[row]
        times = np.full((*shop.instance.times.shape, 3), -1, np.int64)
        for j, parts in enumerate(zip(shop.start, shop.end, shop.depart, strict=True)):
            times[j, : len(parts[0])] = np.array(parts).T
        return times

    def copy_row(self, to: int, source: int) -> None:
        """Makes a row a clone of another one, with its own shutdowns to come."""
        old, clone = self._shops[to], self._shops[source].clone()
        clone.trace, clone.cuts, clone.options = old.trace, old.cuts, old.options
        self._shops[to] = clone


def _flags(shop: Simulator) -> int:
    if shop.deadlock:
        return _DONE | _DEADLOCK
    return _DONE * shop.done | _TRUNCATED * shop.truncated
