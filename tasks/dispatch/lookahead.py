"""`Lookahead`: how actions are judged before a decision, by finishing the episode with rules.

`Plans` are the best of these episodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnlab.tasks.dispatch.rules import RULES

__all__ = ["NO_PLAN", "Lookahead", "Plans"]

NO_PLAN: int = 2**60
"""The makespan of a row without a plan."""


@dataclass(frozen=True)
class Lookahead:
    """How actions are judged before a decision: by finishing the episode with priority rules.

    Args:
        rules: names of the rules.
        rollouts: episodes per action finished by these rules with noise.
        noise: how often any candidate is taken instead of the rule's.
    """

    rules: tuple[str, ...] = ("SPT/TWKR", "FDD/MWKR", "SPT/TWK", "MWKR")
    rollouts: int = 8
    noise: float = 0.3

    @property
    def width(self) -> int:
        """A, numbers per action."""
        return len(self.rules) + 2

    @property
    def numbers(self) -> list[int]:
        """Numbers of the rules."""
        return [RULES.index(name) for name in self.rules]


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
        return cls(
            np.full(rows, NO_PLAN), np.full(rows, -1), np.full((rows, cells), -1, np.int32)
        )

    def follow(self, rows: np.ndarray, actions: np.ndarray) -> None:
        """Forgets the plans of rows that do something else."""
        self.spans[rows[self.next[rows] != actions]] = NO_PLAN
        self.next[rows] = -1
