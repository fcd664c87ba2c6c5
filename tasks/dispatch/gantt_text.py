"""Gantt charts of letters, for terminals and logs."""

from __future__ import annotations

import string

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.gantt import By, GanttLayout, gantt_layout, nice_ticks
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Trace

__all__ = ["print_gantt"]

_JOBS = string.digits + string.ascii_lowercase + string.ascii_uppercase
_BLOCKED, _DOWN, _SWAP = "-", "!", "^"


def print_gantt(
    schedule: Schedule, trace: Trace | None = None, width: int = 100, by: By = "machine"
) -> str:
    """Returns a Gantt chart as text, one line per machine.

    Jobs are 0-9, a-z, A-Z, then #; "-" is the blocked part of the job before it, "!" a shutdown
    (also over a job), "^" in the last line a swap. A column shows what happens in its middle;
    operations that miss every middle are shown at their start if there is room.

    Args:
        schedule: what to draw.
        trace: the shutdowns it met; None draws none.
        width: characters of a line, 20 or more.
        by: "machine" or "job": what a line is.

    Raises:
        ConfigError: for a width below 20, or an unknown `by`.

    Example:
        >>> import numpy as np
        >>> rows = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
        >>> print(print_gantt(Schedule("tiny", "bws", 5, np.array(rows)), width=20))
        tiny (bws), makespan 5
        M0   |0000001111|
        M1   |1111110000|
        swap |      ^   |
              0   2   4
    """
    if width < 20:
        raise ConfigError(f"a chart of width {width} shows nothing; it must be 20 or more.")
    layout = gantt_layout(schedule, trace, by)
    labels = layout.row_labels
    indent = max(4 if layout.ties else 0, *map(len, labels), 1)
    columns = width - indent - 3
    if layout.horizon <= columns:
        columns -= columns % layout.horizon
    lines = [f"{layout.title}, {layout.caption}"]
    lines += [
        f"{label:<{indent}} |{cells}|"
        for label, cells in zip(labels, _cells(layout, columns), strict=True)
    ]
    if layout.ties:
        swaps = [" "] * columns
        for tie in layout.ties:
            swaps[min(columns - 1, tie.time * columns // layout.horizon)] = _SWAP
        lines.append(f"{'swap':<{indent}} |{''.join(swaps)}|")
    lines.append(" " * (indent + 2) + _axis(layout.horizon, columns))
    return "\n".join(lines)


def _cells(layout: GanttLayout, columns: int) -> list[str]:
    """Returns a line of cells per row."""
    lines = [[" "] * columns for _ in layout.rows]

    def span(start: int, stop: int) -> slice:
        """Columns with their middle, (2c + 1) / (2 columns) of the horizon, in [start, stop)."""
        ends = (
            (2 * t * columns + layout.horizon - 1) // (2 * layout.horizon) for t in (start, stop)
        )
        return slice(*ends)

    def fill(row: int, where: slice, letter: str) -> None:
        lines[row][where] = letter * (where.stop - where.start)

    letters = [_JOBS[bar.job] if bar.job < len(_JOBS) else "#" for bar in layout.bars]
    for bar, letter in zip(layout.bars, letters, strict=True):
        fill(bar.row, span(bar.start, bar.end), letter)
        fill(bar.row, span(bar.end, bar.depart), _BLOCKED)
    for bar, letter in zip(layout.bars, letters, strict=True):
        here = min(columns - 1, bar.start * columns // layout.horizon)
        where = span(bar.start, bar.end)
        if where.start == where.stop and lines[bar.row][here] in (" ", _BLOCKED):
            lines[bar.row][here] = letter
    for down in layout.downs:
        fill(down.row, span(down.start, down.stop), _DOWN)
    return ["".join(line) for line in lines]


def _axis(horizon: int, columns: int) -> str:
    """Returns a line of times, each beginning at its column."""
    line = ""
    for tick in nice_ticks(horizon, max(1, columns // (len(str(horizon)) + 2))):
        place = tick * columns // horizon
        fits = place + len(str(tick)) <= columns + 1
        if not line or (place > len(line) and fits):
            line = line.ljust(place) + str(tick)
    return line
