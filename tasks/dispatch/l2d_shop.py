"""`L2DShop`: how L2D (Zhang et al. 2020) builds schedules of the classical job shop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.illegal import IllegalAction
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import Schedule

__all__ = ["L2DShop", "L2DView", "l2d_instances"]

FAR = 2**62  # later than any time
TIME_UNIT = 1000.0


@dataclass(frozen=True)
class L2DView:
    """What L2D sees of B partial schedules of N = J * L operations, by job and place in the job.

    Args:
        x: (B, N, 2) float32, bound of the end / 1000, and whether it is in the schedule.
        before: (B, N) int64, the operation before it on its machine, or -1.
        candidate: (B, J) int64, each job's next operation (its last when it is finished).
        mask: (B, J) bool, jobs that are not finished.
        length: L.
    """

    x: Tensor
    before: Tensor
    candidate: Tensor
    mask: Tensor
    length: int

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> L2DView:
        """Returns the view of some schedules: rows (C,) int64."""
        return self._map(lambda part: part[rows])

    @classmethod
    def join(cls, views: Sequence[L2DView]) -> L2DView:
        """Returns the schedules of all views."""
        return cls(
            x=torch.cat([v.x for v in views]),
            before=torch.cat([v.before for v in views]),
            candidate=torch.cat([v.candidate for v in views]),
            mask=torch.cat([v.mask for v in views]),
            length=views[0].length,
        )

    def to(self, device: torch.device | str) -> L2DView:
        """Returns the view on another device."""
        return self._map(lambda part: part.to(device))

    def _map(self, use: Callable[[Tensor], Tensor]) -> L2DView:
        parts = [use(part) for part in (self.x, self.before, self.candidate, self.mask)]
        x, before, candidate, mask = parts
        return L2DView(x, before, candidate, mask, self.length)


class L2DShop:
    """Partial schedules of the classical job shop, extended together one operation at a time.

    An action is a job. Its next operation goes on its machine by a permissible left shift: into the
    earliest idle gap that it fits, not before the job is ready, without moving any other. The
    reward is by how much the largest bound on the end of a job shrinks, so that an episode's sum is
    the longest job minus the makespan. There is no clock, and there are no shutdowns.

    Row i * copies + c is the c-th schedule of instance i.

    Args:
        problems: instances, or `Problems`, all of the same number of jobs, machines, and
            operations in every job.
        copies: schedules of each instance.

    Raises:
        ConfigError: for instances of different sizes.

    Example:
        >>> shop = L2DShop([JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 1), (0, 2)]])])
        >>> for job in (0, 0, 1, 1):
        ...     reward, over = shop.step(np.array([job]))
        >>> shop.makespans().tolist(), over.tolist()
        ([5], [1])
    """

    def __init__(self, problems: Sequence[JobShopInstance] | Any, *, copies: int = 1) -> None:
        every = [problems[i] for i in range(len(problems))]
        shapes = {(*one.machines.shape, one.num_machines) for one in every}
        if len(shapes) != 1 or any((one.lengths != one.machines.shape[1]).any() for one in every):
            raise ConfigError(
                "L2DShop: all instances must have the same number of jobs and machines, and all "
                f"jobs the same number of operations; got (jobs, operations, machines) {shapes}."
            )
        self.problems, self.copies = every, copies
        self.num_jobs, self.length, self.num_machines = next(iter(shapes))
        self.num_rows = len(every) * copies
        self._machines = np.stack([one.machines for one in every]).repeat(copies, 0)
        self._times = np.stack([one.times for one in every]).repeat(copies, 0)
        visits = (self._machines[..., None] == np.arange(self.num_machines)).sum((1, 2))
        self._most = int(visits.max())  # operations of a machine
        self.reset()

    def reset(self) -> None:
        """Begins all schedules again."""
        rows, n, length = self._times.shape
        cells = (rows, self.num_machines, self._most)
        self._next = np.zeros((rows, n), np.int64)
        self._placed = np.zeros((rows, n, length), bool)
        self._end = self._times.cumsum(2)  # of operations placed; for others a bound
        self._before = np.full((rows, n * length), -1, np.int64)
        # The operations of each machine in their order.
        self._from, self._to = np.full(cells, FAR, np.int64), np.full(cells, FAR, np.int64)
        self._order = np.full(cells, -1, np.int64)

    def step(
        self, actions: np.ndarray, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Puts the next operation of a job into the schedule of each row.

        Args:
            actions: (B,) int64, jobs.
            rows: (B,) int64, different rows; None is all.

        Returns:
            Rewards (B,) float64 and flags (B,) uint8, 1 where the schedule is complete.

        Raises:
            IllegalAction: for a job that does not exist or is finished.
        """
        r = np.arange(self.num_rows) if rows is None else np.asarray(rows)
        j = np.asarray(actions)
        if j.shape != r.shape or ((j < 0) | (j >= self.num_jobs)).any():
            raise IllegalAction(f"expected {len(r)} jobs in 0..{self.num_jobs - 1}, got {j}.")
        i = self._next[r, j]
        if (i >= self.length).any():
            bad = int(np.argmax(i >= self.length))
            raise IllegalAction(f"row {r[bad]}: job {j[bad]} is finished.")
        k, p = self._machines[r, j, i], self._times[r, j, i]
        bound = self._end[r, :, -1].max(1)
        ready = np.where(i > 0, self._end[r, j, i - 1], 0)
        start, place = _left_shift(self._from[r, k], self._to[r, k], ready, p)
        self._insert(r, k, place, start, start + p, j * self.length + i)
        later = np.arange(self.length) >= i[:, None]
        self._end[r, j] += later * (start + p - self._end[r, j, i])[:, None]
        self._placed[r, j, i] = True
        self._next[r, j] += 1
        reward = bound - self._end[r, :, -1].max(1)
        flags = (self._next[r] == self.length).all(1)
        return reward.astype(np.float64), flags.astype(np.uint8)

    def masks(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Returns (B, J) bool: jobs that are not finished."""
        mask: np.ndarray = self._next[slice(None) if rows is None else rows] < self.length
        return mask

    def view(self, rows: np.ndarray | None = None) -> L2DView:
        """Returns what L2D sees."""
        r = np.arange(self.num_rows) if rows is None else np.asarray(rows)
        x = np.empty((len(r), self.num_jobs * self.length, 2), np.float32)
        x[..., 0] = (self._end[r] / TIME_UNIT).reshape(len(r), -1)
        x[..., 1] = self._placed[r].reshape(len(r), -1)
        place = np.minimum(self._next[r], self.length - 1)
        candidate = np.arange(self.num_jobs) * self.length + place
        return L2DView(
            x=torch.from_numpy(x),
            before=torch.from_numpy(self._before[r]),
            candidate=torch.from_numpy(candidate),
            mask=torch.from_numpy(self.masks(r)),
            length=self.length,
        )

    def makespans(self) -> np.ndarray:
        """Returns (rows,) int64: makespans of complete schedules, for others a lower bound."""
        return self._end[:, :, -1].max(1)  # type: ignore[no-any-return]

    def schedule(self, row: int) -> Schedule:
        """Returns the operations placed so far in a row."""
        j, i = np.nonzero(self._placed[row])
        end, k = self._end[row, j, i], self._machines[row, j, i]
        table = np.column_stack([j, i, k, end - self._times[row, j, i], end, end])
        name = self.problems[row // self.copies].name
        return Schedule(name, "jssp", int(end.max(initial=0)), table)

    def _insert(
        self,
        r: np.ndarray,
        k: np.ndarray,
        place: np.ndarray,
        start: np.ndarray,
        end: np.ndarray,
        op: np.ndarray,
    ) -> None:
        """Puts operations on machines, at places in their orders."""
        slots = np.arange(self._most)
        source = slots - (slots > place[:, None])
        is_new = slots == place[:, None]
        for array, new in ((self._from, start), (self._to, end), (self._order, op)):
            old = np.take_along_axis(array[r, k], source, 1)
            array[r, k] = np.where(is_new, new[:, None], old)
        order = self._order[r, k]
        at = np.arange(len(r))
        self._before[r, op] = np.where(place > 0, order[at, place - 1], -1)
        has_next = place + 1 < self._most
        after = np.where(has_next, order[at, np.minimum(place + 1, self._most - 1)], -1)
        moved = after >= 0
        self._before[r[moved], after[moved]] = op[moved]


def _left_shift(
    starts: np.ndarray, ends: np.ndarray, ready: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the start and the place of an operation in the earliest gap that it fits.

    Args:
        starts: (B, C) of the operations of a machine in their order, then FAR.
        ends: (B, C) likewise.
        ready: (B,) earliest start.
        p: (B,) time.
    """
    free = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :-1]], 1)
    begin = np.maximum(free, ready[:, None])
    place = (begin + p[:, None] <= starts).argmax(1)
    return begin[np.arange(len(p)), place], place


def l2d_instances(
    n: int, m: int, count: int = 100, seed: int = 200, low: int = 1, high: int = 99
) -> list[JobShopInstance]:
    """Draws the instances of L2D's published test sets, digit for digit (the defaults for a size).

    Times are low..high - 1: the authors' code draws with an exclusive upper end. Machines of a job
    are a random order. The mean makespan of the published policies is 574.09 on 6 x 6 and 988.58
    on 10 x 10 in the paper, and 572.08 and 982.45 with the weights and the code of the authors'
    repository.

    Args:
        n: J, jobs.
        m: M, machines.
        count: how many.
        seed: 200 for the published test sets.
        low: shortest time.
        high: one more than the longest time.

    Example:
        >>> len(l2d_instances(6, 6, count=3))
        3
    """
    rng = np.random.RandomState(seed)
    made = []
    for index in range(count):
        times = rng.randint(low, high, (n, m))
        machines = rng.random_sample((n, m)).argsort(1)
        made.append(
            JobShopInstance(f"l2d-{n}x{m}-{seed}-{index}", machines, times, np.full(n, m), m)
        )
    return made
