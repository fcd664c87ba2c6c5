"""Tables for terminals and pages, and a report that is one HTML file with nothing outside it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Curve", "html_report", "line_chart", "markdown_table", "text_table"]

Curve = tuple[str, Sequence[float], Sequence[float]]
"""Name, x values, y values."""

# Okabe and Ito's palette, told apart also by colour-blind readers.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")


def text_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Returns an aligned table; numbers to the right, floats with four digits.

    Example:
        >>> print(text_table([{"model": "ease", "ndcg@20": 0.5}], ["model", "ndcg@20"]))
        model  ndcg@20
        ease    0.5000
    """
    cells = [list(columns), *([_cell(row.get(c), c) for c in columns] for row in rows)]
    right = [any(isinstance(row.get(c), (int, float)) for row in rows) for c in columns]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Returns the same table in Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|"]
    lines += [f"| {' | '.join(_cell(row.get(c), c) for c in columns)} |" for row in rows]
    return "\n".join(lines)


def html_report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    charts: Mapping[str, Sequence[Curve]],
    notes: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Writes a self-contained page: a table, learning curves as inline SVG, facts and commands.

    Args:
        path: the file.
        title: heading.
        facts: facts of the data and the run.
        rows: table rows.
        columns: table columns, in order; the best value of each float column is set in bold.
        charts: heading -> curves.
        notes: sentences above the table (warnings).
        commands: shell lines shown at the end.
    """
    best = {
        c: max((r[c] for r in rows if isinstance(r.get(c), float)), default=math.nan)
        for c in columns
        if "@" in c
    }
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(_td(row.get(c), c, best.get(c)) for c in columns) + "</tr>" for row in rows
    )
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    parts.append(
        f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )
    drawn = {
        name: line_chart([c for c in curves if len(c[1]) > 0]) for name, curves in charts.items()
    }
    parts.append('<div class="charts">')
    parts += [
        f"<figure><figcaption>{html.escape(n)}</figcaption>{svg}</figure>"
        for n, svg in drawn.items()
        if svg
    ]
    parts.append("</div><h2>Data and run</h2><table>")
    parts += [
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>"
        for k, v in facts.items()
    ]
    parts.append("</table>")
    if commands:
        parts.append("<h2>On your own file</h2><pre>" + html.escape("\n".join(commands)) + "</pre>")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_PAGE.format(title=html.escape(title), body="\n".join(parts)), "utf-8")
    return target


def line_chart(curves: Sequence[Curve], *, width: int = 560, height: int = 300) -> str:
    """Returns an SVG line chart with axes, a legend, and the values as hover titles."""
    left, right, top, bottom = 58, 130, 12, 34
    xs = [x for _, x_values, _ in curves for x in x_values]
    ys = [y for _, _, y_values in curves for y in y_values if _drawable(y)]
    if not xs or not ys:
        return ""
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y_ticks = _ticks(min(ys), max(ys))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def px(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" xmlns="http://www.w3.org/2000/svg">']
    for tick in y_ticks:
        y = py(tick)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text x="{left - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{tick:.4g}</text>'
        )
    parts += [
        f'<text x="{px(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle">'
        f"{int(tick)}</text>"
        for tick in _ticks(x_low, x_high)
        if x_low <= tick <= x_high and tick == int(tick)
    ]
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle}" y="{height - 4}" text-anchor="middle">epoch</text>')
    for index, (name, x_values, y_values) in enumerate(curves):
        color = _COLORS[index % len(_COLORS)]
        points = [(x, y) for x, y in zip(x_values, y_values, strict=True) if _drawable(y)]
        line = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{line}"/>')
        parts += [
            f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5" fill="{color}">'
            f"<title>{html.escape(name)}, epoch {x:g}: {y:.4g}</title></circle>"
            for x, y in points
        ]
        row = top + 12 + 18 * index
        parts.append(
            f'<line x1="{width - right + 12}" x2="{width - right + 30}" y1="{row - 4}" '
            f'y2="{row - 4}" stroke="{color}" stroke-width="3"/>'
            f'<text x="{width - right + 36}" y="{row}">{html.escape(name)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _drawable(y: float) -> bool:
    """Whether a value can stand on an axis: not those at the ends of what a double can hold."""
    return y == 0 or 1e-100 < abs(y) < 1e100


def _ticks(low: float, high: float) -> list[float]:
    """Five or so round numbers that enclose low and high."""
    span = max(high - low, abs(high) * 1e-9) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if m * step >= span / 4)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _cell(value: Any, column: str) -> str:
    if value is None:
        return "-"
    digits = 1 if column == "seconds" else 4
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _td(value: Any, column: str, best: float | None) -> str:
    kind = ' class="number"' if isinstance(value, (int, float)) else ""
    text = html.escape(_cell(value, column))
    return f"<td{kind}>{f'<b>{text}</b>' if best is not None and value == best else text}</td>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }}
.results th:not(:first-child), td.number {{ text-align: right;
  font-variant-numeric: tabular-nums; }}
.note {{ border-left: 4px solid #d55e00; padding: .3rem .8rem; background: #d55e0018; }}
.charts {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; flex: 1 1 480px; }} figcaption {{ font-weight: 600; }}
svg {{ width: 100%; height: auto; }} svg text {{ font: 12px system-ui, sans-serif;
  fill: currentColor; }}
svg .grid {{ stroke: var(--line); }}
pre {{ background: #8882; padding: 1rem; overflow-x: auto; }}
</style></head><body>
{body}
</body></html>
"""
