"""Gantt charts as SVG and HTML that need nothing else: no script, no font, no other file.

Hovering over an operation tells its times and dims the other jobs (plain CSS); colours follow the
reader's light or dark theme.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.gantt import (
    Bar,
    By,
    GanttLayout,
    gantt_layout,
    job_color,
    nice_ticks,
    text_color,
)
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Trace

__all__ = ["gantt_html", "gantt_svg"]

_STYLE = """
.gantt{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.gantt .bg{fill:#ffffff}
.gantt text{fill:#24292f;font-size:12px}
.gantt .title{font-size:15px;font-weight:600}
.gantt .lane{fill:#f3f4f6}
.gantt .grid{stroke:#d0d7de;stroke-width:1}
.gantt .down{fill:#6e7781;fill-opacity:.72}
.gantt .tie{stroke:#111111;stroke-width:2;fill:none}
.gantt .halo{stroke:#ffffff;stroke-width:4;stroke-opacity:.75}
.gantt .dot{fill:#ffffff;stroke:#111111;stroke-width:1.5}
.gantt .many .tie{stroke-width:1;stroke-opacity:.4}
.gantt .many .dot{stroke-width:.7}
.gantt .end{stroke:#c1121f;stroke-width:1.5;stroke-dasharray:5 3}
.gantt .end-label{fill:#c1121f;font-weight:600}
.gantt .label{font-size:11px;text-anchor:middle;pointer-events:none}
.gantt .bar{stroke:#24292f;stroke-width:.5;stroke-opacity:.55}
.gantt .op:hover rect{stroke-width:2;stroke-opacity:1}
@media (prefers-color-scheme:dark){
.gantt .bg{fill:#0d1117}
.gantt text{fill:#e6edf3}
.gantt .lane{fill:#161b22}
.gantt .grid{stroke:#30363d}
.gantt .down{fill:#9aa4ae}
.gantt .tie{stroke:#ffffff}
.gantt .halo{stroke:#0d1117}
.gantt .dot{fill:#0d1117;stroke:#ffffff}
.gantt .end{stroke:#ff7b72}
.gantt .end-label{fill:#ff7b72}
.gantt .bar{stroke:#e6edf3;stroke-opacity:.4}
.gantt .op:hover rect{stroke-opacity:1}
}
"""
_TOP, _BOTTOM, _CHARACTER = 46, 24, 6.4


def gantt_svg(
    schedule: Schedule,
    trace: Trace | None = None,
    by: By = "machine",
    title: str | None = None,
    width: int | None = None,
) -> str:
    """Returns a Gantt chart as a complete SVG document.

    Args:
        schedule: what to draw.
        trace: the shutdowns it met; None draws none.
        by: "machine" or "job": what a row is.
        title: the heading; None is instance and mode.
        width: of the picture, in pixels, 200 or more; None is 1200, more for long rows.

    Raises:
        ConfigError: for an unknown `by` or a width below 200.

    Example:
        >>> import numpy as np
        >>> rows = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
        >>> gantt_svg(Schedule("tiny", "bws", 5, np.array(rows))).count('class="op ')
        4
    """
    if width is not None and width < 200:
        raise ConfigError(f"a picture {width} pixels wide shows nothing; it must be 200 or more.")
    return _Drawing(gantt_layout(schedule, trace, by), title, width).document()


def gantt_html(
    schedule: Schedule,
    trace: Trace | None = None,
    by: By = "machine",
    title: str | None = None,
    width: int | None = None,
) -> str:
    """Returns a Gantt chart as a complete HTML page around the SVG of `gantt_svg`.

    Args:
        schedule: what to draw.
        trace: the shutdowns it met; None draws none.
        by: "machine" or "job": what a row is.
        title: the heading; None is instance and mode.
        width: of the picture, in pixels, 200 or more; None is 1200, more for long rows.

    Raises:
        ConfigError: for an unknown `by` or a width below 200.

    Example:
        >>> import numpy as np
        >>> plan = Schedule("tiny", "jssp", 3, np.array([[0, 0, 0, 0, 3, 3]]))
        >>> gantt_html(plan).splitlines()[0]
        '<!DOCTYPE html>'
    """
    picture = gantt_svg(schedule, trace, by, title, width)
    heading = _text(gantt_layout(schedule, None, by).title if title is None else title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{heading}</title>\n<style>body{{margin:12px;background:#ffffff}}"
        "div{overflow-x:auto}"
        "@media (prefers-color-scheme:dark){body{background:#0d1117}}</style>\n</head>\n"
        f"<body>\n<div>\n{picture}</div>\n</body>\n</html>\n"
    )


class _Drawing:
    """Places a layout on a picture; all measures are pixels."""

    def __init__(self, layout: GanttLayout, title: str | None, width: int | None) -> None:
        self.layout = layout
        self.width = width or max(1200, min(4000, 24 * layout.longest_row))
        self.title = layout.title if title is None else title
        self.pitch = max(12.0, min(34.0, 640 / max(1, len(layout.rows))))
        self.left = 14 + _CHARACTER * 1.2 * max([2, *map(len, layout.row_labels)])
        self.plot = self.width - self.left - 24
        self.base = _TOP + self.pitch * len(layout.rows)
        self.legend, bottom = self._legend(self.base + _BOTTOM + 14)
        self.height = bottom + 16

    def document(self) -> str:
        heading = _text(self.title)
        size = f"{self.width} {_number(self.height)}"
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="gantt" viewBox="0 0 {size}" '
            f'width="{self.width}" height="{_number(self.height)}" role="img" '
            f'aria-label="{heading}, {self.layout.caption}">',
            f"<style>{_STYLE}{self._job_rules()}</style>",
            f"<defs>{''.join(map(_hatch, self._blocking_jobs()))}</defs>",
            '<rect class="bg" width="100%" height="100%"/>',
            f'<text class="title" x="12" y="21">{heading}</text>',
            *self._frame(),
            *(self._bar(bar) for bar in self.layout.bars),
            *self._downs(),
            *self._ties(),
            *self._labels(),
            *self._end(),
            *self.legend,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def x(self, time: float) -> float:
        return self.left + self.plot * time / self.layout.horizon

    def y(self, row: int) -> float:
        """Top of the bars of a row; `thick` is their height."""
        return _TOP + self.pitch * row + self.pitch * 0.12

    @property
    def thick(self) -> float:
        return self.pitch * 0.76

    def _blocking_jobs(self) -> list[int]:
        return sorted({bar.job for bar in self.layout.bars if bar.depart > bar.end})

    def _job_rules(self) -> str:
        jobs = self.layout.jobs
        fills = (f".gantt .j{j} .bar{{fill:{job_color(j)}}}\n" for j in jobs)
        dims = (
            f".gantt:has(.j{j}:hover) .op:not(.j{j}){{opacity:.25}}\n"
            for j in jobs
            if len(jobs) > 1
        )
        return "".join([*fills, *dims])

    def _frame(self) -> Iterator[str]:
        """The lanes of the rows, their names, and the time axis."""
        for row, label in enumerate(self.layout.row_labels):
            top = _TOP + self.pitch * row
            if row % 2 == 0:
                yield _rect("lane", self.left, top, self.plot, self.pitch)
            yield (
                f'<text x="{_number(self.left - 7)}" y="{_number(top + self.pitch / 2 + 4)}" '
                f'text-anchor="end"{_small(self.pitch)}>{label}</text>'
            )
        most = int(self.plot / (_CHARACTER * (len(str(self.layout.horizon)) + 4)))
        for tick in nice_ticks(self.layout.horizon, most):
            x = self.x(tick)
            yield _line("grid", x, _TOP, x, self.base + 4)
            yield (
                f'<text x="{_number(x)}" y="{_number(self.base + 18)}" '
                f'text-anchor="middle">{tick}</text>'
            )

    def _bar(self, bar: Bar) -> str:
        x, y, end = self.x(bar.start), self.y(bar.row), self.x(bar.end)
        words = f"job {bar.job}, operation {bar.op}, machine {bar.machine}: {bar.start}-{bar.end}"
        parts = _rect("bar", x, y, max(end - x, 0.6), self.thick)
        if bar.depart > bar.end:
            words += f", blocked until {bar.depart}"
            parts += _rect(
                f'bar blocked" style="fill:url(#gantt-h{bar.job})',
                *(end, y, self.x(bar.depart) - end, self.thick),
            )
        return f'<g class="op j{bar.job}"><title>{words}</title>{parts}</g>'

    def _downs(self) -> Iterator[str]:
        for down in self.layout.downs:
            x, top = self.x(down.start), _TOP + self.pitch * down.row
            words = f"machine {down.machine} down {down.start}-{down.stop}"
            part = _rect("down", x, top, self.x(down.stop) - x, self.pitch)
            yield f"<g><title>{words}</title>{part}</g>"

    def _labels(self) -> Iterator[str]:
        if self.thick < 12:
            return
        for bar in self.layout.bars:
            if self.x(bar.end) - self.x(bar.start) >= _CHARACTER * len(bar.label) + 4:
                x = self.x((bar.start + bar.end) / 2)
                y = self.y(bar.row) + self.thick / 2 + 4
                yield (
                    f'<text class="label" x="{_number(x)}" y="{_number(y)}" '
                    f'style="fill:{text_color(bar.job)}">{bar.label}</text>'
                )

    def _ties(self) -> Iterator[str]:
        many = 18 * len(self.layout.ties) > self.plot
        radius = min(1.8 if many else 3.5, self.pitch / 5)
        for tie in self.layout.ties:
            x = self.x(tie.time) + 5 * tie.lane
            ys = [_TOP + self.pitch * (row + 0.5) for row in tie.rows]
            words = (
                f"swap at {tie.time}: jobs {', '.join(map(str, tie.jobs))} "
                f"on machines {', '.join(map(str, tie.machines))}"
            )
            dots = "".join(
                f'<circle class="dot" cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"/>'
                for y in ys
            )
            line = _line("tie", x, ys[0], x, ys[-1])
            if not many:
                line = _line("halo", x, ys[0], x, ys[-1]) + line
            yield f'<g class="swap{" many" if many else ""}"><title>{words}</title>{line}{dots}</g>'

    def _end(self) -> Iterator[str]:
        x = self.x(self.layout.makespan)
        yield _line("end", x, _TOP - 8, x, self.base + 4)
        yield (
            f'<text class="end-label" x="{_number(min(x + 4, self.width - 20))}" y="{_TOP - 12}" '
            f'text-anchor="end">{self.layout.caption}</text>'
        )

    def _legend(self, y: float) -> tuple[list[str], float]:
        """Returns the legend, from height `y` on, and the height of its last line."""
        lines, x = [], self.left
        for swatch, wide, words in self._legend_entries():
            step = wide + 18 + _CHARACTER * 1.1 * len(words)
            if x + step > self.width - 12 and x > self.left:
                x, y = self.left, y + 20
            lines.append(
                f'<g transform="translate({_number(x)} {_number(y)})">{swatch}'
                f'<text x="{wide + 6}" y="10.5">{words}</text></g>'
            )
            x += step
        return lines, y + 14

    def _legend_entries(self) -> Iterator[tuple[str, int, str]]:
        """Yields picture, width and words: of what occurs, then of the jobs unless they are many.

        The job swatches belong to their jobs: hovering over them shows where the job is.
        """
        jobs, blocking = self.layout.jobs, self._blocking_jobs()
        if jobs:
            yield _rect(f'bar" style="fill:{job_color(jobs[0])}', 0, 0, 22, 12), 22, "processing"
        if blocking:
            style = f"fill:url(#gantt-h{blocking[0]})"
            yield _rect(f'bar" style="{style}', 0, 0, 22, 12), 22, "blocked"
        if self.layout.downs:
            yield _rect("down", 0, 0, 22, 12), 22, "machine down"
        if self.layout.ties:
            dot = '<circle class="dot" cx="11" cy="{}" r="3"/>'
            line = _line("tie", 11, 0, 11, 12)
            yield line + dot.format(0) + dot.format(12), 22, "swap"
        if 1 < len(jobs) <= 30:
            for j in jobs:
                yield f'<g class="j{j}">{_rect("bar", 0, 0, 12, 12)}</g>', 12, f"J{j}"


def _hatch(job: int) -> str:
    color = job_color(job)
    return (
        f'<pattern id="gantt-h{job}" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="6" height="6" fill="{color}" '
        f'fill-opacity=".22"/><rect width="2.2" height="6" fill="{color}"/></pattern>\n'
    )


def _rect(name: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{name}" x="{_number(x)}" y="{_number(y)}" '
        f'width="{_number(width)}" height="{_number(height)}"/>'
    )


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="{name}" x1="{_number(x1)}" y1="{_number(y1)}" '
        f'x2="{_number(x2)}" y2="{_number(y2)}"/>'
    )


def _small(pitch: float) -> str:
    return f' style="font-size:{_number(pitch * 0.8)}px"' if pitch < 15 else ""


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    """Escapes text, and replaces the characters that XML cannot hold."""
    return escape(re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))
