"""Cells and lines that several parts of the dispatching results share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Block", "deviations", "figure", "lines_table"]

Block = str | list[Mapping[str, Any]] | list[dict[str, Any]]
"""A paragraph, or the rows of a table."""


def figure(value: float | None) -> str:
    """Returns a figure with one digit, or a dash."""
    return "-" if value is None else f"{value:.1f}"


def lines_table(
    title: str, lines: Mapping[str, Mapping[str, float]], columns: Sequence[str]
) -> list[Mapping[str, Any]]:
    """Returns rows of figures, dashes where there are none."""
    return [
        {title: name, **{column: figure(line.get(column)) for column in columns}}
        for name, line in lines.items()
    ]


def deviations(part: Mapping[str, Any]) -> str:
    """Returns how far means with shutdowns are from the expected ones."""
    return (
        f"with shutdowns the means are {part['mean deviation']:+.1f} % from the expected ones on "
        f"average ({part['mean absolute deviation']:.1f} % without sign, at most "
        f"{part['largest deviation']:.1f} %; wanted: a few percent)."
    )
