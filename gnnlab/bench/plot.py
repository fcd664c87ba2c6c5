"""Draws the result of `gnnlab bench ops` as one SVG file: peers' ratios and our memory rates."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnlab.bench.peers import PLAIN
from gnnlab.bench.targets import TARGETS, counts, geometric_mean

__all__ = ["draw", "svg"]

# Okabe and Ito's palette, told apart also by colour-blind readers.
_FAMILIES = {
    "torch, MKL": "#0072b2",
    "numpy, scipy": "#56b4e9",
    "PyG": "#d55e00",
    "torch_scatter": "#cc79a7",
    "DGL": "#009e73",
    "plain PyG": "#e69f00",
}
_ROW, _TOP, _LEFT, _WIDE, _GAP, _RATES = 19, 74, 230, 400, 36, 230
_LOW, _HIGH = 0.25, 128.0
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.small{font-size:11px;fill:#555}"
    ".grid{stroke:#ddd}.one{stroke:#222}.limit{stroke:#888;stroke-dasharray:4 3}"
    ".target{stroke:#222;stroke-width:2}"
)


def draw(result: Mapping[str, Any], path: str | Path) -> Path:
    """Writes `svg(result)` to a file.

    Args:
        result: what `gnnlab.bench.ops.run` returned.
        path: the file, by custom ending in .svg.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(svg(result), encoding="utf-8")
    return target


def svg(result: Mapping[str, Any]) -> str:
    """Returns the picture: on the left ratios on a log axis, on the right GB/s of our operators.

    Each dot is one library, the fastest of its calls: the geometric mean of its time over ours on
    graphs a to d at F = 64. A black bar is the target. Dots on the right are geometric means of
    `bytes_gather` per second, lines reach from the slowest to the fastest graph, and the dashed
    lines are what copying, a triad and reading reach on the same machine.

    Example:
        >>> from gnnlab.bench.plot import svg
        >>> svg({"rows": [], "machine": {"gb_s": {"copy": 12.0}}})[:4]
        '<svg'
    """
    rows = [row for row in result["rows"] if counts(row)]
    names = list(dict.fromkeys(row["op"] for row in rows))
    height = _TOP + _ROW * len(names) + 40
    width = _LEFT + _WIDE + _GAP + _RATES + 24
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(rows),
        *_ratio_axis(height),
    ]
    speeds = result["machine"]["gb_s"]
    rates = [row["gb_s"] for row in rows if row.get("gb_s")]
    top = max([*rates, *speeds.values()], default=1.0) * 1.05
    parts += _rate_axis(speeds, top, height)
    for index, op in enumerate(names):
        mine = [row for row in rows if row["op"] == op]
        y = _TOP + _ROW * index + _ROW / 2
        parts.append(_text(_LEFT - 10, y + 4, op, "end"))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - 24}" y1="{y}" y2="{y}"/>')
        parts += _ratios(op, mine, y)
        parts += _rates(op, mine, y, top)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _family(label: str) -> str:
    """Returns whose call it is, by the label."""
    if label.startswith(PLAIN):
        return "plain PyG"
    for start in ("PyG", "DGL", "torch_scatter"):
        if label.startswith(start):
            return start
    return "numpy, scipy" if label.startswith(("numpy", "scipy")) else "torch, MKL"


def _ratios(op: str, rows: Sequence[Mapping[str, Any]], y: float) -> list[str]:
    found: dict[str, list[float]] = {}
    for row in rows:
        least: dict[str, float] = {}
        for label, ms in row["peers"].items():
            family = _family(label)
            least[family] = min(least.get(family, math.inf), ms / row["ms"])
        for family, ratio in least.items():
            found.setdefault(family, []).append(ratio)
    parts = []
    if op in TARGETS:
        x = _ratio_x(TARGETS[op][1])
        parts.append(f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 7}" y2="{y + 7}"/>')
    for family, ratios in found.items():
        mean = geometric_mean(ratios)
        title = f"{op}: {family} takes {mean:.2f} times as long ({len(ratios)} graphs)"
        parts.append(_dot(_ratio_x(mean), y, _FAMILIES[family], title))
    return parts


def _rates(op: str, rows: Sequence[Mapping[str, Any]], y: float, top: float) -> list[str]:
    rates = [row["gb_s"] for row in rows if row.get("gb_s")]
    if not rates:
        return []
    low, high, mean = (_rate_x(v, top) for v in (min(rates), max(rates), geometric_mean(rates)))
    title = f"{op}: {geometric_mean(rates):.1f} GB/s, {min(rates):.1f} to {max(rates):.1f}"
    line = f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#0072b2" '
    return [f'{line}stroke-width="3" stroke-opacity="0.4"/>', _dot(mean, y, "#0072b2", title)]


def _ratio_axis(height: float) -> list[str]:
    parts = [
        _text(_LEFT, _TOP - 28, "peer's time / ours (log axis); black bar: target of the best")
    ]
    tick = _LOW
    while tick <= _HIGH:
        x, style = _ratio_x(tick), "one" if tick == 1 else "grid"
        parts.append(
            f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 34}"/>'
        )
        parts.append(_text(x, _TOP - 11, f"{tick:g}", "middle", "small"))
        tick *= 2
    return parts


def _rate_axis(speeds: Mapping[str, float], top: float, height: float) -> list[str]:
    parts = [_text(_rate_x(0, top), _TOP - 28, "ours, GB/s; dashed: the machine")]
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000) if top / s <= 6)
    for tick in range(0, int(top) + 1, step):
        x = _rate_x(tick, top)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 34}"/>'
        )
        parts.append(_text(x, _TOP - 11, f"{tick}", "middle", "small"))
    for value in speeds.values():
        x = _rate_x(value, top)
        parts.append(
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 34}"/>'
        )
    words = ", ".join(f"{name} {value:.1f}" for name, value in speeds.items())
    return [*parts, _text(_rate_x(0, top), height - 14, words, "start", "small")]


def _legend(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    present = {_family(label) for row in rows for label in row["peers"]}
    parts, x = [], float(_LEFT)
    for family, color in _FAMILIES.items():
        if family in present:
            parts += [_dot(x + 5, 20, color, family), _text(x + 14, 24, family)]
            x += 40 + 7 * len(family)
    return parts


def _ratio_x(ratio: float) -> float:
    share = math.log(min(max(ratio, _LOW), _HIGH) / _LOW) / math.log(_HIGH / _LOW)
    return _LEFT + share * _WIDE


def _rate_x(value: float, top: float) -> float:
    return _LEFT + _WIDE + _GAP + value / top * _RATES


def _dot(x: float, y: float, color: str, title: str) -> str:
    text = html.escape(title)
    return f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{color}"><title>{text}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}"{kind}>{html.escape(text)}</text>'
