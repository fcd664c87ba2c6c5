"""`Schedule`: when each operation starts, ends and leaves its machine; its files."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

import numpy as np

from gnnlab.errors import DataError

__all__ = ["MODES", "Mode", "Schedule"]

Mode = Literal["jssp", "bws", "bns"]
MODES: tuple[str, ...] = get_args(Mode)
FORMAT = "gnnlab.schedule/1"
_HEADER = ["job", "op", "machine", "start", "end", "depart"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A schedule as a table: one row (job, op, machine, start, end, depart) per operation.

    Nothing is checked here: `gnnlab.tasks.dispatch.verify` says whether a schedule is valid.

    Args:
        instance: name of the instance.
        mode: "jssp" (buffers between machines), "bws" (none, swaps allowed) or "bns" (no swaps).
        makespan: the stated makespan.
        ops: (N, 6) int64 with the columns above, sorted by job and operation.

    Example:
        >>> plan = Schedule("tiny", "jssp", 3, np.array([[0, 0, 0, 0, 3, 3]]))
        >>> plan.to_json()["ops"]
        [[0, 0, 0, 0, 3, 3]]
    """

    instance: str
    mode: Mode
    makespan: int
    ops: np.ndarray

    def __post_init__(self) -> None:
        ops = np.array(self.ops, np.int64).reshape(-1, 6)
        ops = ops[np.lexsort((ops[:, 1], ops[:, 0]))]
        ops.flags.writeable = False
        object.__setattr__(self, "ops", ops)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __repr__(self) -> str:
        return (
            f"Schedule({self.instance!r}, {self.mode}, makespan {self.makespan}, "
            f"{len(self.ops)} operations)"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form: format, instance, mode, makespan and the rows."""
        return {
            "format": FORMAT,
            "instance": self.instance,
            "mode": self.mode,
            "makespan": self.makespan,
            "ops": self.ops.tolist(),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "schedule") -> Schedule:
        """Reads the JSON form.

        Raises:
            DataError: saying what is missing or of the wrong kind.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f'{where}: no schedule: its "format" is not "{FORMAT}".')
        mode, makespan, rows = value.get("mode"), value.get("makespan"), value.get("ops")
        if mode not in MODES:
            raise DataError(f'{where}: mode is "{mode}"; known: {", ".join(MODES)}.')
        if not _is_integer(makespan):
            raise DataError(f"{where}: makespan is {makespan!r}, not an integer.")
        if not isinstance(rows, list):
            raise DataError(f'{where}: "ops" is not a list of rows.')
        for number, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != 6 or not all(map(_is_integer, row)):
                raise DataError(f"{where}: ops[{number}] is {row!r}, not six integers.")
        ops = np.array(rows, np.int64).reshape(-1, 6)
        return cls(str(value.get("instance", "")), mode, makespan, ops)

    def save(self, path: str | Path) -> Path:
        """Writes `.json`, or `.csv` with the header job,op,machine,start,end,depart."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(_HEADER)
                writer.writerows(self.ops.tolist())
        else:
            path.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path, mode: Mode | None = None) -> Schedule:
        """Reads what `save` wrote; a CSV does not hold its mode (None: "bws") nor its makespan.

        Raises:
            DataError: naming the file and what is wrong in it.
            FileNotFoundError: when there is no such file.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{path}: not a text file.") from None
        if path.suffix.lower() != ".csv":
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:  # ValueError: numbers without end
                raise DataError(f"{path}: not JSON: {error}.") from None
            return cls.from_json(value, str(path))
        return cls(path.stem, mode or "bws", *_read_csv(text, path))


def _read_csv(text: str, path: Path) -> tuple[int, np.ndarray]:
    """Returns the largest end and the rows."""
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise DataError(f"{path}: no table: {error}.") from None
    if not rows or [c.strip() for c in rows[0]] != _HEADER:
        raise DataError(f"{path}, line 1: expected the header {','.join(_HEADER)}.")
    numbers = []
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != 6:
            raise DataError(f"{path}, line {line}: expected six values, found {len(row)}.")
        try:
            values = [int(c) for c in row]
        except ValueError:
            raise DataError(f"{path}, line {line}: not an integer in {row}.") from None
        if not all(map(_is_integer, values)):
            raise DataError(f"{path}, line {line}: a number is too large.")
        numbers.append(values)
    ops = np.array(numbers, np.int64).reshape(-1, 6)
    return int(ops[:, 4].max(initial=0)), ops


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62
