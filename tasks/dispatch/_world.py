"""What a start time leads to, seen by one who knows all shutdowns beforehand."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from gnnlab.errors import ConfigError, DataError
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import Mode, Schedule
from gnnlab.tasks.dispatch.trace import NEVER, Cuts, Trace, Window
from gnnlab.tasks.dispatch.verifier import Violation, verify

__all__ = ["Op", "Piece", "Starts", "World"]

MAX_WINDOWS = 100_000
Op = tuple[int, int]
Starts = dict[Op, int]


class Piece(NamedTuple):
    """Starts in first..last end `delay` later, or all at `end`."""

    first: int
    last: int
    delay: int
    end: int | None = None


class World:
    """What a start time leads to: ends, departures and schedules, under a trace or cuts."""

    def __init__(
        self, instance: JobShopInstance, mode: Mode, trace: Trace | None, restart: bool
    ) -> None:
        self.instance, self.mode, self.trace, self.restart = instance, mode, trace, restart
        if isinstance(trace, Cuts) and trace.after.shape != instance.times.shape:
            raise DataError(
                f"the cuts are {trace.after.shape}, but {instance.name} is {instance.times.shape}."
            )
        self.jobs = instance.jobs()
        self.ops: list[Op] = [(j, i) for j, job in enumerate(self.jobs) for i in range(len(job))]
        self._windows: dict[int, list[Window]] = {}

    def window(self, machine: int, index: int) -> Window | None:
        """Returns a window of a machine, None when there are no more."""
        known = self._windows.setdefault(machine, [])
        if index == len(known) and self.trace is not None:
            if (window := self.trace.window(machine, index)) is None:
                return None
            if index == MAX_WINDOWS:
                raise ConfigError(
                    f"machine {machine} fails {MAX_WINDOWS} times before an operation can end. "
                    "Take shorter operations, a smaller shutdown probability, or restart=False."
                )
            known.append(window)
        return known[index] if index < len(known) else None

    def windows(self, machine: int, until: int) -> list[Window]:
        """Returns the windows of a machine that begin before a time."""
        found: list[Window] = []
        while (window := self.window(machine, len(found))) is not None and window[0] < until:
            found.append(window)
        return found

    def has_shutdowns(self, until: int) -> bool:
        """Whether some machine fails before a time."""
        return any(self.windows(k, until) for k in range(self.instance.num_machines))

    def work(self, op: Op) -> int:
        """Returns how long an operation is on a machine that does not fail."""
        work = self.jobs[op[0]][op[1]][1]
        if isinstance(self.trace, Cuts) and self.trace.after[op] >= 0:
            work += int(self.trace.duration[op])
            work += int(self.trace.after[op]) if self.restart else 0
        return work

    def pieces(self, op: Op, until: int) -> list[Piece]:
        """Returns the starts up to a time that an operation may have, and the ends they lead to."""
        work = self.work(op)
        windows = self.windows(self.jobs[op[0]][op[1]][0], until + work + 1)
        ups = list(
            zip(
                [0, *(b for _, b in windows)],
                [*(a for a, _ in windows), until + work + 1],
                strict=True,
            )
        )
        found = []
        for g, (up, off) in enumerate(ups):
            # Starts in up..off-1; they end in this up-time or in a later one, [on, out).
            first, down = up, 0
            for h, (on, out) in enumerate(ups[g:], g):
                last = min(off - 1, out - work - down)
                if h > g and self.restart:
                    last = off - 1 if out - on >= work else first - 1
                if first <= min(last, until):
                    end = on + work if h > g and self.restart else None
                    found.append(Piece(first, min(last, until), work + down, end))
                first = max(first, last + 1)
                if first >= off or h + 1 == len(ups):
                    break
                down += ups[h + 1][0] - out
        return found

    def end(self, op: Op, start: int) -> int:
        """Returns when an operation ends; never for a start while its machine is down."""
        machine = self.jobs[op[0]][op[1]][0]
        end = start + self.work(op)
        for w in itertools.count():
            window = self.window(machine, w)
            if window is None or window[0] >= max(end, start + 1):
                break
            down, up = window
            if down <= start < up:
                return NEVER
            if up > start:
                end = up + self.work(op) if self.restart else end + up - down
        return end

    def serial(self) -> Starts:
        """Returns the starts of one job after the other, valid in every mode."""
        time, starts = 0, {}
        for op in self.ops:
            machine = self.jobs[op[0]][op[1]][0]
            for w in itertools.count():
                window = self.window(machine, w)
                if window is None or window[0] > time:
                    break
                time = max(time, window[1])
            starts[op] = time
            time = self.end(op, time)
        return starts

    def starts_of(self, hint: Schedule) -> Starts:
        """Returns the starts of a schedule that is valid in this mode."""
        starts = {(j, i): start for j, i, _, start, _, _ in hint.ops.tolist()}
        if sorted(starts) != self.ops:
            raise ConfigError("the hint does not have one row for each operation.")
        if found := self.verify(self.schedule(starts)):
            raise ConfigError(f"the hint is no valid {self.mode} schedule: {found[0]}")
        return starts

    def schedule(self, starts: Starts) -> Schedule:
        """Returns the schedule that belongs to starts."""
        rows = []
        for j, i in self.ops:
            end = depart = self.end((j, i), starts[j, i])
            if self.mode != "jssp" and i + 1 < len(self.jobs[j]):
                depart = starts[j, i + 1]
            rows.append((j, i, self.jobs[j][i][0], starts[j, i], end, depart))
        ops = np.array(rows, np.int64)
        return Schedule(self.instance.name, self.mode, int(ops[:, 4].max()), ops)

    def verify(self, plan: Schedule) -> list[Violation]:
        """Returns what is wrong with a schedule."""
        return verify(self.instance, plan, None, self.trace, restart=self.restart)
