"""`Engine`: what plays the episodes of a `BatchedShop`, compiled or plain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gnnlab.tasks.dispatch._plans import Plans

__all__ = ["Engine", "Seen"]

Seen = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""jobs, shop, mask, op, machine as in `JobView`, as arrays."""


class Engine(Protocol):
    """Rows of episodes. Arguments have been checked: rows (B,) and actions int64, seeds uint64."""

    def reset(self) -> None:
        """Begins all episodes again."""

    def step(self, rows: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes one decision per row; returns rewards and flags."""

    def run_rules(
        self, rows: np.ndarray, mix: Sequence[tuple[int, float]], seeds: np.ndarray
    ) -> None:
        """Plays rows to their end by a weighted sum of priority rules."""

    def search(
        self, rows: np.ndarray, evaluations: int, start: np.ndarray | None, seeds: np.ndarray
    ) -> None:
        """Looks for better schedules, and leaves each row at the end of its best one."""

    def values(
        self,
        rows: np.ndarray,
        rules: Sequence[int],
        rollouts: int,
        noise: float,
        seeds: np.ndarray,
        plans: Plans | None = None,
        guide: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns what legal actions lead to, (B, J + 1, R + 2) int64; plans are kept up."""

    def view(self, rows: np.ndarray) -> Seen:
        """Returns what a policy over jobs sees."""

    def guide_facts(self, rows: np.ndarray) -> np.ndarray:
        """Returns what the guide looks at, (B, J, F) float64; 0 for other jobs than candidates."""

    def masks(self, rows: np.ndarray) -> np.ndarray:
        """Returns legal actions, (B, J + 1) bool."""

    def states(self, rows: np.ndarray) -> np.ndarray:
        """Returns time, makespan, flags, steps, swaps and bound, (B, 6) int64."""

    def times(self, row: int) -> np.ndarray:
        """Returns start, end and departure of a row's operations, (J, L, 3) int64."""

    def copy_row(self, to: int, source: int) -> None:
        """Makes a row a clone of another one."""
