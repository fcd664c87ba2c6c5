"""Columns as they were read, and the checks that turn them into ids, times and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnlab.errors import DataError, did_you_mean

__all__ = ["FALLBACKS", "Table", "null_mask", "numbers", "times"]

# Other names under which the default columns are found.
FALLBACKS: dict[str, tuple[str, ...]] = {
    "user": ("user_id", "userId", "uid"),
    "item": ("item_id", "itemId", "iid", "movieId"),
    "timestamp": ("time", "ts"),
    "rating": ("weight",),
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length with what messages need to point at a row."""

    name: str
    """What to call the table: a file name, or "the table"."""
    columns: Mapping[str, np.ndarray]
    """Column name -> [R] array of any type."""
    lines: np.ndarray | None = None
    """Line of each row in a text file, counted from 1, [R]."""

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        for name, column in self.columns.items():
            if column.ndim != 1:
                raise DataError(
                    f'{self.name}: column "{name}" must be one-dimensional, got {column.shape}.'
                )
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"{self.name}: columns have different lengths: {listed}.")

    @property
    def text(self) -> bool:
        """Whether values come from a text file, so that numbers are still to be parsed."""
        return self.lines is not None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def place(self, row: int) -> str:
        """Returns where a row is, for the beginning of a message."""
        if self.lines is not None:
            return f"{self.name}, line {self.lines[row]}"
        return f"{self.name}, row {row} (from 0)"

    def locate(self, wanted: str) -> str | None:
        """Returns the name of the column called `wanted` or one of its usual other names."""
        names = (wanted, *FALLBACKS.get(wanted, ()))
        return next((name for name in names if name in self.columns), None)

    def require(self, wanted: str, option: str) -> str:
        """Like `locate`, but a missing column is an error.

        Raises:
            DataError: naming the column, those present, and the option that names it.
        """
        found = self.locate(wanted)
        if found is None:
            present = ", ".join(self.columns) or "none"
            near = did_you_mean(wanted, self.columns)
            hint = near if near.startswith(" Did") else ""
            raise DataError(
                f'{self.name} has no column "{wanted}"; its columns are: {present}.{hint} '
                f"Name the column with {option}."
            )
        return found


def null_mask(values: np.ndarray) -> np.ndarray:
    """Returns where a value is missing: None, NaN, NaT, NA or an empty string, [R] bool."""
    kind = values.dtype.kind
    missing: np.ndarray = np.zeros(values.size, dtype=np.bool_)
    if kind == "f":
        missing = np.isnan(values)
    elif kind in "mM":
        missing = np.isnat(values)
    elif kind in "UT":
        missing = np.char.strip(values.astype(np.str_)) == ""
    elif kind == "S":
        missing = values == b""
    elif kind == "O":
        missing = np.fromiter(map(_is_null, values.tolist()), dtype=np.bool_, count=values.size)
    return missing


def _is_null(value: Any) -> bool:
    if value is None or value == "":
        return True
    if isinstance(value, str):
        return value.isspace()
    # pandas has its own missing values; their names are known without importing it
    return (isinstance(value, float) and value != value) or type(value).__name__ in _MISSING


_MISSING = ("NAType", "NaTType")


def numbers(values: np.ndarray) -> np.ndarray:
    """Returns values as float64, NaN where one is not a number.

    Example:
        >>> numbers(np.array(["1.5", "x"]))
        array([1.5, nan])
    """
    if values.dtype.kind in "iufb":
        return values.astype(np.float64)
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        return np.array([_number(value) for value in values.tolist()], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def times(table: Table, column: str, rows: np.ndarray, reason: str) -> np.ndarray:
    """Returns the times of the given rows as int64 or float64.

    Whole numbers stay exact. Dates, as numpy or pandas values or as ISO text, become microseconds
    since 1970.

    Args:
        table: where the column is.
        column: its name.
        rows: [R] the rows that count.
        reason: what needs times, for messages.

    Raises:
        DataError: naming the first row whose time is missing, not a time, or negative.
    """
    values = table.columns[column][rows]
    read = _whole(values)
    if read is None and values.dtype.kind in "OUT":
        read = _dates(values)
    if read is None:
        read = numbers(values)
    if read.dtype.kind == "M":
        wrong = np.isnat(read)
        read = read.astype("datetime64[us]").astype(np.int64)
        wrong |= read < 0
    else:
        wrong = ~np.isfinite(read) | (read < 0)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{table.place(int(rows[first]))}: {column} is {values[first]!s}, which is not a time "
            f"({int(wrong.sum())} such rows). {reason} needs the time of every row, 0 or more. "
            'Fix the rows, or use split="random", which does not read times.'
        )
    return read


def _whole(values: np.ndarray) -> np.ndarray | None:
    if values.dtype.kind == "M":
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind not in "OUT":
        return None
    listed = values.tolist()
    if all(isinstance(value, (str, int)) for value in listed):
        try:
            return np.array([int(value) for value in listed], dtype=np.int64)
        except (ValueError, OverflowError):
            return None
    return None


def _dates(values: np.ndarray) -> np.ndarray | None:
    listed: Sequence[Any] = values.tolist()
    # A column of numbers with a broken one is not a column of dates: "2020" would be a year.
    if not listed or not any(_looks_like_date(value) for value in listed[:100]):
        return None
    parsed = np.empty(len(listed), dtype="datetime64[us]")
    for row, value in enumerate(listed):
        try:
            text = value.removesuffix("Z") if isinstance(value, str) else value
            parsed[row] = np.datetime64(text, "us")
        except (ValueError, TypeError):
            parsed[row] = np.datetime64("NaT")
    return parsed


def _looks_like_date(value: Any) -> bool:
    if isinstance(value, str):
        return value[:4].isdigit() and value[4:5] == "-"
    return hasattr(value, "isoformat")
