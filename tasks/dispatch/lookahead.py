"""`Lookahead`: how actions are judged before a decision, by finishing the episode with rules."""

from __future__ import annotations

from dataclasses import dataclass

from gnnlab.tasks.dispatch.rules import RULES

__all__ = ["Lookahead"]


@dataclass(frozen=True)
class Lookahead:
    """How actions are judged before a decision: by finishing the episode with priority rules.

    Args:
        rules: names of the rules.
        rollouts: episodes per action finished by these rules with noise.
        noise: how often any candidate is taken instead of the rule's.
        guide: (F,) weights of a guide that plays these episodes instead, without other noise.
    """

    rules: tuple[str, ...] = ("SPT/TWKR", "FDD/MWKR", "SPT/TWK", "MWKR")
    rollouts: int = 8
    noise: float = 0.3
    guide: tuple[float, ...] | None = None

    @property
    def width(self) -> int:
        """A, numbers per action."""
        return len(self.rules) + 2

    @property
    def numbers(self) -> list[int]:
        """Numbers of the rules."""
        return [RULES.index(name) for name in self.rules]
