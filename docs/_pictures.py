"""Draws what a layer aggregates as a small SVG, from the words of its `picture`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

INK, PALE, BLUE, ORANGE, GREEN = "#222222", "#b9b9b9", "#0072b2", "#d55e00", "#009e73"
WIDTH, HEIGHT, CENTRE, RADIUS = 340, 200, (130.0, 104.0), 13.0
NEAR = [(52.0, 44.0), (208.0, 40.0), (40.0, 132.0), (140.0, 184.0)]  # the neighbours j
FAR = [(118.0, 20.0), (226.0, 150.0)]  # theirs
LINKS = [(0, 1), (1, 3)]  # far node k leads to neighbour j

WORDS = {
    "sum": "sum over neighbours",
    "mean": "mean over neighbours",
    "max": "maximum over neighbours, number by number",
    "statistics": "several statistics of neighbours",
    "loop": "the node counts as its own neighbour",
    "root": "the node itself has a map of its own",
    "degrees": "weights from degrees",
    "hops": "several steps",
    "attention": "weights learned from both ends",
    "gate": "a gate per number, from both ends",
    "network": "a network on each edge",
    "edges": "edges have features",
    "types": "a map per type of edge",
    "signs": "positive and negative edges apart",
    "nearest": "neighbours are the nearest in feature space",
    "contact": "mesh edges and contact edges",
    "time": "edges carry times",
    "edge state": "edges are updated too",
}


def svg(name: str, words: Sequence[str]) -> str:
    """Returns the picture.

    Args:
        name: of the layer.
        words: keys of `WORDS`.

    Raises:
        KeyError: for a word that cannot be drawn.
    """
    legend = [WORDS[word] for word in words]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 250} {HEIGHT + 12}" '
        f'width="{WIDTH + 250}" role="img" aria-label="{name}: {"; ".join(legend)}">',
        "<style>text{font:13px sans-serif;fill:#222}.s{font-size:11px}</style>",
        f'<rect width="{WIDTH + 250}" height="{HEIGHT + 12}" fill="#ffffff" rx="6"/>',
    ]
    parts += _far(words)
    for k, at in enumerate(NEAR):
        parts += _edge(k, at, words)
    if "nearest" in words:
        parts.append(
            f'<circle cx="{CENTRE[0]}" cy="{CENTRE[1]}" r="99" fill="none" stroke="{PALE}" '
            'stroke-dasharray="5 4"/>'
        )
    if "loop" in words or "root" in words:
        parts += _loop("loop" in words)
    for k, at in enumerate(NEAR):
        parts.append(_node(at, f"j{'₁₂₃₄'[k]}", "#ffffff", INK))
    parts.append(_node(CENTRE, "i", BLUE, BLUE, "#ffffff"))
    reduce = next((w for w in ("sum", "mean", "max", "statistics") if w in words), None)
    symbol = {"sum": "Σ", "mean": "mean", "max": "max", "statistics": "Σ max σ"}.get(reduce or "")
    if symbol:
        x, y = CENTRE
        parts.append(f'<text x="{x + 20}" y="{y + 34}" font-weight="bold">{symbol}</text>')
    for line, text in enumerate(legend):
        y = 34 + 21 * line
        parts.append(f'<circle cx="284" cy="{y - 4}" r="3" fill="{BLUE}"/>')
        parts.append(f'<text x="294" y="{y}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])


def write(name: str, words: Sequence[str], folder: Path) -> Path:
    """Writes the picture as `folder/name.svg`, only if it has changed."""
    folder.mkdir(parents=True, exist_ok=True)
    path, text = folder / f"{name}.svg", svg(name, words)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def _edge(k: int, at: tuple[float, float], words: Sequence[str]) -> list[str]:
    """The arrow from neighbour k to the centre, with what it carries."""
    colour, width, dash = INK, 2.0, ""
    if "attention" in words or "gate" in words:
        width = (1.2, 5.0, 2.4, 3.6)[k]
    elif "degrees" in words:
        width = (1.4, 1.4, 2.4, 4.0)[k]
    if "types" in words or "contact" in words:
        colour = (BLUE, ORANGE, BLUE, ORANGE)[k]
    if "contact" in words and k % 2:
        dash = ' stroke-dasharray="7 4"'
    if "signs" in words:
        colour = (GREEN, ORANGE, GREEN, ORANGE)[k]
    start, end = _between(at, CENTRE)
    parts = [_arrow(start, end, colour, width, dash)]
    both = "network" in words and "edges" in words
    middle = _along(start, end, 0.64 if both else 0.5)
    label = None
    if "signs" in words:
        label = "−" if k % 2 else "+"
    elif "attention" in words:
        label = "α"
    elif "degrees" in words:
        label = "1/√dᵢdⱼ" if k == 1 else None
    elif "gate" in words:
        label = "σ"
    elif "time" in words:
        label = f"t{'₁₂₃₄'[k]}"
    if "network" in words:
        x, y = middle
        parts.append(
            f'<rect x="{x - 13}" y="{y - 9}" width="26" height="18" rx="3" fill="#ffffff" '
            f'stroke="{colour}"/><text class="s" x="{x}" y="{y + 4}" '
            'text-anchor="middle">net</text>'
        )
    elif label:
        parts.append(_tag(middle, label))
    if "edges" in words or "edge state" in words:
        x, y = _along(start, end, 0.14 if both else 0.25)
        parts.append(
            f'<rect x="{x - 8}" y="{y - 8}" width="16" height="16" fill="{ORANGE}" '
            f'transform="rotate(45 {x} {y})"/><text class="s" x="{x}" y="{y + 4}" '
            'text-anchor="middle" style="fill:#ffffff">e</text>'
        )
    return parts


def _far(words: Sequence[str]) -> list[str]:
    """Nodes two steps away: pale unless the layer goes that far."""
    colour = INK if "hops" in words else PALE
    parts = []
    for at, (_, near) in zip(FAR, LINKS, strict=True):
        parts.append(_arrow(*_between(at, NEAR[near]), colour, 1.5, ""))
    return parts + [_node(at, "", "#ffffff", colour) for at in FAR]


def _loop(is_edge: bool) -> list[str]:
    x, y = CENTRE
    dash = "" if is_edge else ' stroke-dasharray="3 3"'
    return [
        f'<path d="M {x + 14} {y - 5} C {x + 66} {y - 30}, {x + 66} {y + 34}, {x + 15} {y + 5}" '
        f'fill="none" stroke="{BLUE}" stroke-width="2"{dash}/>',
        _head((x + 15, y + 5), math.atan2(-0.35, -1), BLUE),
    ]


def _along(a: tuple[float, float], b: tuple[float, float], share: float) -> tuple[float, float]:
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


def _between(
    a: tuple[float, float], b: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """End points of the line from rim to rim."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    far = math.hypot(dx, dy)
    ux, uy = dx / far * (RADIUS + 2), dy / far * (RADIUS + 2)
    return (a[0] + ux, a[1] + uy), (b[0] - ux, b[1] - uy)


def _arrow(
    a: tuple[float, float], b: tuple[float, float], colour: str, width: float, dash: str
) -> str:
    angle = math.atan2(b[1] - a[1], b[0] - a[0])
    end = (b[0] - 7 * math.cos(angle), b[1] - 7 * math.sin(angle))
    return (
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width}"{dash}/>' + _head(b, angle, colour)
    )


def _head(at: tuple[float, float], angle: float, colour: str) -> str:
    points = []
    for far, turn in ((0, 0), (11, 2.75), (11, -2.75)):
        x, y = at[0] + far * math.cos(angle + turn), at[1] + far * math.sin(angle + turn)
        points.append(f"{x:.1f},{y:.1f}")
    return f'<polygon points="{" ".join(points)}" fill="{colour}"/>'


def _node(at: tuple[float, float], text: str, fill: str, stroke: str, ink: str = INK) -> str:
    x, y = at
    return (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="1.5"/><text x="{x}" y="{y + 4}" text-anchor="middle" '
        f'style="fill:{ink}">{text}</text>'
    )


def _tag(at: tuple[float, float], text: str) -> str:
    wide = 6 + 7 * len(text)
    return (
        f'<rect x="{at[0] - wide / 2}" y="{at[1] - 9}" width="{wide}" height="17" fill="#ffffff" '
        f'rx="3"/><text class="s" x="{at[0]}" y="{at[1] + 4}" text-anchor="middle">{text}</text>'
    )
