"""Makespans by priority rules, for whoever compares with them."""

from __future__ import annotations

import numpy as np

from gnnlab.errors import GnnlabError
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.rules import RULES

__all__ = ["rule_spans"]

_TRUNCATED = 4


def rule_spans(shop: BatchedShop, rule: str, seeds: np.ndarray | None = None) -> np.ndarray:
    """Plays all episodes of a shop, from their beginning, by a rule of `RULES`.

    Args:
        shop: R episodes.
        rule: its name.
        seeds: (R,) uint64, of RANDOM.

    Returns:
        (R,) float64 makespans, infinite after a deadlock.
    """
    shop.reset()
    shop.run_rules([(RULES.index(rule), 1.0)], seeds=seeds)
    states = shop.states()
    if np.any(states[:, 2] & _TRUNCATED):
        raise GnnlabError(f"{rule}: an episode was cut off; this is a bug.")
    found: np.ndarray = np.where(states[:, 1] < 0, np.inf, states[:, 1])
    return found
