"""`Inverse`: what facts about a shop are measured in."""

from __future__ import annotations

from typing import NamedTuple

from gnnlab.tasks.dispatch.simulator import Simulator

__all__ = ["Inverse"]


class Inverse(NamedTuple):
    """One over what numbers are divided by: products are faster than quotients in C++."""

    unit: float
    """1 / mean time of an operation."""
    whole: float
    """1 / lower bound of the instance."""
    jobs: float
    """1 / jobs."""
    machines: float
    """1 / machines."""

    @classmethod
    def of(cls, shop: Simulator) -> Inverse:
        """Returns that of a shop."""
        total = sum(shop.total)
        return cls(
            1 / (total / shop.instance.num_operations) if total else 1.0,
            1 / max(1, shop.first_bound),
            1 / shop.num_jobs,
            1 / shop.num_machines,
        )
