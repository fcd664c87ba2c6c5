"""What a Gantt chart shows, as plain data: bars, shutdowns, swaps. The writers only draw it.

`gantt_svg` writes SVG and HTML, `gantt_text` text for terminals, `gantt_plot` matplotlib figures.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.schedule import Mode, Schedule
from gnnlab.tasks.dispatch.trace import Trace

__all__ = ["Bar", "By", "Down", "GanttLayout", "Tie", "gantt_layout", "job_color"]

By = Literal["machine", "job"]

# The first seven are Okabe and Ito's; each next one is the colour farthest (in OKLab) from all
# before it, the first ten also as seen without red or green cones. Neither greys nor near-whites.
_COLORS = """
E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 781E00 96F0F0 5A2D69 005A00 FFB4FF 69D25A
B42D69 874BC3 78693C 003CA5 FFC3A5 A587FF 004B5A 969600 69FFA5 96C3A5 FF8778 7887B4 A53C00
B49678 008700 5A78F0 B4C3F0 007869 695A87 87004B E14B69 5A4B1E F087F0 A56969 872D87 5A3CA5
00E1C3 C3C300 C34BA5 D2A5B4 C3E1A5 69A5A5 3CB44B 0096E1 A5782D 2DC396 783C4B 3C5AD2 A569D2
1EE1FF FF78B4 F0C35A C3A5FF 1E5A87 69873C 96B45A A5002D 3C8796 4B690F A596D2 D2B487 965A96
D27869 FF780F D269D2 00FFE1 A5E169 6996FF C33C3C E1D2FF FFA5C3 D2872D FFA569 964B5A 6969B4
690F87 879669 2D5A3C 4B1E96 4BC3C3 A53CA5 F06987 E15AA5 3C3C87 A587A5 87D2E1 D296D2 00A5C3
5A9600 B45A2D 87E1A5 E19669 96B4FF 4B5AA5 962D5A B4C378 874B00
"""
_PALETTE = _COLORS.split()


class Bar(NamedTuple):
    """An operation: processed in [start, end), then blocking its machine in [end, depart)."""

    row: int
    """Row of the chart, from 0."""
    job: int
    """Number of the job."""
    op: int
    """Number of the operation in its job."""
    machine: int
    """Number of the machine."""
    start: int
    """Start of processing."""
    end: int
    """End of processing, shutdowns in between included."""
    depart: int
    """When the job leaves; `end` where nothing blocks."""

    @property
    def label(self) -> str:
        """Job and operation, as "j.i"."""
        return f"{self.job}.{self.op}"


class Down(NamedTuple):
    """A shutdown of a machine in [start, stop), cut to what the row shows."""

    row: int
    """Row of the chart, from 0."""
    machine: int
    """Number of the machine."""
    start: int
    """Its first moment in the chart."""
    stop: int
    """Its end, or the end of the chart."""


class Tie(NamedTuple):
    """A swap: jobs that take each other's machines at the same instant."""

    time: int
    """When."""
    rows: tuple[int, ...]
    """Rows of the chart that take part, ascending."""
    machines: tuple[int, ...]
    """Numbers of the machines, ascending."""
    jobs: tuple[int, ...]
    """Numbers of the jobs, ascending."""
    lane: int
    """Counts the swaps of one instant from 0, so that their lines can be drawn side by side."""


@dataclass(frozen=True)
class GanttLayout:
    """A chart before it is drawn; times are those of the schedule."""

    title: str
    """Instance and mode."""
    by: By
    """What a row is."""
    rows: tuple[int, ...]
    """Number of the machine or of the job of each row."""
    bars: tuple[Bar, ...]
    """One per operation, by job and operation."""
    downs: tuple[Down, ...]
    """Shutdowns before the end of the chart."""
    ties: tuple[Tie, ...]
    """Swaps, by time; none in a shop with buffers."""
    makespan: int
    """The makespan that the schedule states."""
    horizon: int
    """End of the time axis, 1 or more."""

    @property
    def row_labels(self) -> list[str]:
        """ "M3" for machines, "J3" for jobs."""
        return [f"{'M' if self.by == 'machine' else 'J'}{number}" for number in self.rows]

    @property
    def jobs(self) -> list[int]:
        """Numbers of the jobs that occur, ascending."""
        return sorted({bar.job for bar in self.bars})

    @property
    def longest_row(self) -> int:
        """Operations of the row that has most."""
        return max(Counter(bar.row for bar in self.bars).values(), default=0)

    @property
    def caption(self) -> str:
        """The makespan in words."""
        return f"makespan {self.makespan}"


def gantt_layout(schedule: Schedule, trace: Trace | None = None, by: By = "machine") -> GanttLayout:
    """Works out what a Gantt chart of a schedule shows.

    Rows are the machines 0, 1, ... up to the last one used, or the jobs that occur. Operations
    with a negative start are taken as not started and left out. A row of a job shows the shutdowns
    of the machine that it is on.

    Args:
        schedule: a schedule; it may be incomplete.
        trace: the shutdowns it met; None draws none.
        by: "machine" or "job": what a row is.

    Raises:
        ConfigError: if `by` is neither.

    Example:
        >>> import numpy as np
        >>> rows = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
        >>> layout = gantt_layout(Schedule("tiny", "bws", 5, np.array(rows)))
        >>> layout.row_labels, layout.bars[1].label, layout.ties[0].time
        (['M0', 'M1'], '0.1', 3)
    """
    if by not in ("machine", "job"):
        raise ConfigError(f'unknown rows "{by}".{did_you_mean(by, ("machine", "job"))}')
    ops = [op for op in schedule.ops.tolist() if op[3] >= 0]
    which = 2 if by == "machine" else 0
    used = sorted({op[which] for op in ops})
    rows = range(used[-1] + 1) if used and by == "machine" else used
    row_of = {number: row for row, number in enumerate(rows)}
    bars = []
    for j, i, k, start, end, depart in ops:
        end = max(start, end)
        bars.append(Bar(row_of[(j, k)[by == "machine"]], j, i, k, start, end, max(end, depart)))
    horizon = max([1, schedule.makespan, *(bar.depart for bar in bars)])
    return GanttLayout(
        title=f"{schedule.instance} ({schedule.mode})" if schedule.instance else schedule.mode,
        by=by,
        rows=tuple(rows),
        bars=tuple(bars),
        downs=tuple(_downs(bars, len(rows), by, trace, horizon)) if trace is not None else (),
        ties=tuple(_ties(bars, schedule.mode, by, row_of)),
        makespan=schedule.makespan,
        horizon=horizon,
    )


def job_color(job: int) -> str:
    """Returns the colour of a job as "#rrggbb"; the same in every chart, different for 100 jobs.

    Args:
        job: its number; colours begin again at 100.

    Example:
        >>> job_color(0)
        '#e69f00'
    """
    return "#" + _PALETTE[job % len(_PALETTE)].lower()


def text_color(job: int) -> str:
    """Returns black or white, whichever reads better on the colour of a job."""
    red, green, blue = (int(job_color(job)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return "#000000" if bright > 0.18 else "#ffffff"


def nice_ticks(horizon: int, most: int) -> list[int]:
    """Returns 0 and the multiples of 1, 2 or 5 times a power of ten up to `horizon`.

    Args:
        horizon: end of the axis, 1 or more.
        most: how many ticks there may be after 0.

    Example:
        >>> nice_ticks(930, 10)
        [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    """
    smallest = horizon / max(1, most)
    power = 10 ** max(0, math.floor(math.log10(smallest)))
    step = next(f * power for f in (1, 2, 5, 10, 20) if f * power >= smallest)
    return list(range(0, horizon + 1, step))


def windows_before(trace: Trace, machine: int, horizon: int) -> Iterator[tuple[int, int]]:
    """Yields the windows of a machine that begin before `horizon`, cut there."""
    index = 0
    while (window := trace.window(machine, index)) is not None and window[0] < horizon:
        yield window[0], min(window[1], horizon)
        index += 1


def _downs(bars: list[Bar], num_rows: int, by: By, trace: Trace, horizon: int) -> Iterator[Down]:
    if by == "machine":
        for row in range(num_rows):
            for a, b in windows_before(trace, row, horizon):
                yield Down(row, row, a, b)
        return
    known = {k: list(windows_before(trace, k, horizon)) for k in {bar.machine for bar in bars}}
    for bar in bars:
        for a, b in known[bar.machine]:
            start, stop = max(a, bar.start), min(b, bar.depart)
            if start < stop:
                yield Down(bar.row, bar.machine, start, stop)


class _Move(NamedTuple):
    """A job leaves one machine and enters another; `since` and `until` bound the two stays."""

    job: int
    source: int
    target: int
    since: int
    until: int


def _ties(bars: list[Bar], mode: Mode, by: By, row_of: dict[int, int]) -> Iterator[Tie]:
    if mode == "jssp":
        return
    for time, moves in sorted(_moves(bars).items()):
        for lane, cycle in enumerate(_cycles(time, moves)):
            machines = tuple(sorted({move.source for move in cycle}))
            jobs = tuple(sorted({move.job for move in cycle}))
            rows = tuple(row_of[n] for n in (machines if by == "machine" else jobs))
            yield Tie(time, rows, machines, jobs, lane)


def _moves(bars: list[Bar]) -> dict[int, list[_Move]]:
    """Returns the moves without a gap in between, by time; operations in a row are one stay."""
    stays: list[list[int]] = []  # job, machine, start, departure, number of the last operation
    for bar in bars:
        last = stays[-1] if stays else [-1] * 5
        if last[:2] == [bar.job, bar.machine] and last[4] == bar.op - 1:
            last[3:] = bar.depart, bar.op
        else:
            stays.append([bar.job, bar.machine, bar.start, bar.depart, bar.op])
    first = {(bar.job, bar.op): bar.start for bar in bars}
    moves = defaultdict(list)
    for old, new in pairwise(stays):
        if old[0] == new[0] and first.get((old[0], old[4] + 1)) == new[2] == old[3]:
            moves[new[2]].append(_Move(old[0], old[1], new[1], old[2], new[3]))
    return moves


def _cycles(time: int, moves: list[_Move]) -> list[list[_Move]]:
    """Returns the groups of moves of an instant of which none can be made before the others.

    A move needs another one first if that one frees the machine it enters: because it was held
    until then, or in passing (a stay of no length) by a job that cannot come later.
    """
    leaving = defaultdict(list)
    for number, move in enumerate(moves):
        leaving[move.source].append(number)
    needs = [
        [
            y
            for y in leaving[move.target]
            if moves[y].job != move.job and (moves[y].since < time or move.until > time)
        ]
        for move in moves
    ]
    reach = [_reachable(needs, x) for x in range(len(moves))]
    groups = {tuple(y for y in sorted(reach[x]) if x in reach[y]) for x in range(len(moves))}
    return [[moves[x] for x in group] for group in sorted(groups) if group]


def _reachable(needs: list[list[int]], start: int) -> set[int]:
    seen: set[int] = set()
    todo = list(needs[start])
    while todo:
        number = todo.pop()
        if number not in seen:
            seen.add(number)
            todo += needs[number]
    return seen
