"""Gantt charts as matplotlib figures, and files of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gnnlab.errors import ConfigError, did_you_mean, needs
from gnnlab.tasks.dispatch.gantt import By, GanttLayout, gantt_layout, job_color, text_color
from gnnlab.tasks.dispatch.gantt_svg import gantt_html, gantt_svg
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Trace

__all__ = ["plot_gantt", "save_gantt"]

_SUFFIXES = (".svg", ".html", ".png", ".pdf")
_HEIGHT = 0.76


def save_gantt(
    schedule: Schedule,
    path: str | Path,
    trace: Trace | None = None,
    by: By = "machine",
    title: str | None = None,
) -> Path:
    """Writes a Gantt chart: `.svg` and `.html` need no other package, `.png` and `.pdf` matplotlib.

    Args:
        schedule: what to draw.
        path: the file to write; its folder is made if need be.
        trace: the shutdowns it met; None draws none.
        by: "machine" or "job": what a row is.
        title: the heading; None is instance and mode.

    Returns:
        The path.

    Raises:
        ConfigError: for another suffix or an unknown `by`.
        MissingExtraError: if matplotlib is needed and absent.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigError(
            f'{path}: cannot draw into a file that ends in "{path.suffix}".'
            f"{did_you_mean(suffix, _SUFFIXES)}"
        )
    if suffix in (".svg", ".html"):
        write = gantt_svg if suffix == ".svg" else gantt_html
        text = write(schedule, trace, by, title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path
    figure, axes = plot_gantt(schedule, trace, by)
    if title is not None:
        axes.set_title(title, loc="left", parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def plot_gantt(
    schedule: Schedule, trace: Trace | None = None, by: By = "machine", ax: Any = None
) -> tuple[Any, Any]:
    """Draws a Gantt chart with matplotlib, without touching pyplot.

    Args:
        schedule: what to draw.
        trace: the shutdowns it met; None draws none.
        by: "machine" or "job": what a row is.
        ax: axes to draw into; None makes a new figure, as high as its rows need.

    Returns:
        The figure and the axes.

    Raises:
        ConfigError: for an unknown `by`.
        MissingExtraError: if matplotlib is absent.

    Example:
        >>> import numpy as np
        >>> plan = Schedule("tiny", "jssp", 3, np.array([[0, 0, 0, 0, 3, 3]]))
        >>> figure, axes = plot_gantt(plan)
        >>> axes.get_title("left")
        'tiny (jssp)'
    """
    layout = gantt_layout(schedule, trace, by)
    figures = needs("matplotlib.figure", "plot_gantt", "viz")
    if ax is None:
        wide = max(12, min(40, 0.24 * layout.longest_row))
        inches = 1.5 + max(0.14, min(0.4, 8 / max(1, len(layout.rows)))) * len(layout.rows)
        fig = figures.Figure(figsize=(wide, inches), layout="constrained")
        needs("matplotlib.backends.backend_agg", "plot_gantt", "viz").FigureCanvasAgg(fig)
        ax = fig.add_subplot()
    _draw_bars(layout, ax)
    _draw_ties(layout, ax)
    _draw_frame(layout, ax)
    _draw_legend(layout, ax)
    _draw_labels(layout, ax)
    return ax.figure, ax


def _draw_bars(layout: GanttLayout, ax: Any) -> None:
    bars, downs = layout.bars, layout.downs
    colors = [job_color(bar.job) for bar in bars]
    ax.barh(
        [bar.row for bar in bars],
        [bar.end - bar.start for bar in bars],
        left=[bar.start for bar in bars],
        height=_HEIGHT,
        color=colors,
        edgecolor="#24292f",
        linewidth=0.3,
        zorder=2,
    )
    blocked = [bar for bar in bars if bar.depart > bar.end]
    for alpha, extra in ((0.22, {}), (None, {"hatch": "////", "fill": False})):
        ax.barh(
            [bar.row for bar in blocked],
            [bar.depart - bar.end for bar in blocked],
            left=[bar.end for bar in blocked],
            height=_HEIGHT,
            color=[job_color(bar.job) for bar in blocked],
            edgecolor=[job_color(bar.job) for bar in blocked],
            alpha=alpha,
            linewidth=0.3,
            zorder=2,
            **extra,
        )
    ax.barh(
        [down.row for down in downs],
        [down.stop - down.start for down in downs],
        left=[down.start for down in downs],
        height=1.0,
        color="#6e7781",
        alpha=0.72,
        linewidth=0,
        zorder=3,
    )


def _draw_ties(layout: GanttLayout, ax: Any) -> None:
    many = len(layout.ties) > 60 * ax.figure.get_figwidth() / 12
    width, size, alpha = (0.6, 1.5, 0.5) if many else (1.5, 4, 1)
    for tie in layout.ties:
        x = [tie.time + tie.lane * layout.horizon / 250] * len(tie.rows)
        if not many:
            ax.plot(x, tie.rows, color="white", linewidth=3.5, alpha=0.75, zorder=4)
        ax.plot(
            x,
            tie.rows,
            color="#111111",
            linewidth=width,
            marker="o",
            markersize=size,
            markerfacecolor="white",
            markeredgewidth=width,
            alpha=alpha,
            zorder=5,
        )


def _draw_frame(layout: GanttLayout, ax: Any) -> None:
    ax.axvline(layout.makespan, color="#c1121f", linestyle="--", linewidth=1.2, zorder=4)
    ax.annotate(
        layout.caption,
        (layout.makespan, 1),
        xycoords=ax.get_xaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color="#c1121f",
    )
    ax.set_title(layout.title, loc="left", parse_math=False)
    ax.set_xlim(0, layout.horizon * 1.01)
    ax.set_ylim(max(1, len(layout.rows)) - 0.5, -0.5)
    small = 5.5 if len(layout.rows) > 40 else None
    ax.set_yticks(range(len(layout.rows)), layout.row_labels, fontsize=small)
    ax.set_xlabel("time")
    ax.grid(axis="x", color="#d0d7de", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _draw_legend(layout: GanttLayout, ax: Any) -> None:
    patch = needs("matplotlib.patches", "plot_gantt", "viz").Patch
    line = needs("matplotlib.lines", "plot_gantt", "viz").Line2D
    handles = []
    jobs = layout.jobs
    if jobs:
        handles.append(patch(facecolor=job_color(jobs[0]), label="processing"))
    blocking = [bar.job for bar in layout.bars if bar.depart > bar.end]
    if blocking:
        color = job_color(min(blocking))
        handles.append(
            patch(facecolor=color + "38", edgecolor=color, hatch="////", label="blocked")
        )
    if layout.downs:
        handles.append(patch(facecolor="#6e7781", alpha=0.72, label="machine down"))
    if layout.ties:
        handles.append(
            line([], [], color="#111111", marker="o", markerfacecolor="white", label="swap")
        )
    if 1 < len(jobs) <= 30:
        handles += [patch(facecolor=job_color(job), label=f"J{job}") for job in jobs]
    if handles:
        shift = needs("matplotlib.transforms", "plot_gantt", "viz").ScaledTranslation
        ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            bbox_transform=ax.transAxes + shift(0, -0.42, ax.figure.dpi_scale_trans),
            ncols=min(len(handles), 12),
            frameon=False,
            fontsize=8,
        )


def _draw_labels(layout: GanttLayout, ax: Any) -> None:
    """Writes "j.i" where it fits, going by the size of the axes now."""
    fig = ax.figure
    box = ax.get_window_extent()
    across = box.width / fig.dpi * 72 / (layout.horizon * 1.01)  # points per unit of time
    if box.height / fig.dpi * 72 / max(1, len(layout.rows)) < 14:
        return
    for bar in layout.bars:
        if (bar.end - bar.start) * across >= 4.3 * len(bar.label) + 2:
            ax.text(
                (bar.start + bar.end) / 2,
                bar.row,
                bar.label,
                ha="center",
                va="center_baseline",
                fontsize=8,
                color=text_color(bar.job),
                clip_on=True,
                zorder=6,
            )
