"""`Plans`: what lookahead remembers of the episodes it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["NO_PLAN", "Plans"]

NO_PLAN: int = 2**60
"""The makespan of a row without a plan."""


@dataclass(frozen=True)
class Plans:
    """The best episode that lookahead has seen of each row, for as long as the row follows it.

    Args:
        spans: (rows,) int64, makespans; `NO_PLAN` without one.
        next: (rows,) int64, the action that the plan takes now, -1 when it was not asked.
        before: (rows, cells) int32, per operation j * L + i the one before it on its machine, -1
            for the first.
    """

    spans: np.ndarray
    next: np.ndarray
    before: np.ndarray

    @classmethod
    def none(cls, rows: int, cells: int) -> Plans:
        """Returns no plans yet."""
        return cls(np.full(rows, NO_PLAN), np.full(rows, -1), np.full((rows, cells), -1, np.int32))

    def follow(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """Forgets the plans of rows that do something else."""
        self.spans[rows[self.next[rows] != actions]] = NO_PLAN
        self.next[rows] = -1
