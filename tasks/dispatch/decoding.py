"""From logits to schedules: episodes played by a policy, greedily or by sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from gnnlab.tasks.dispatch.batched import BatchedShop, JobView
from gnnlab.tasks.dispatch.lookahead import Lookahead

__all__ = ["Decisions", "Policy", "play"]

Policy = Callable[[JobView, Tensor], Tensor]
"""(view, instance (B,)) -> logits (B, J + 1)."""


@dataclass
class Decisions:
    """What was seen and done in all decisions of a batch of episodes."""

    rows: list[np.ndarray] = field(default_factory=list)
    """Per step: the rows that decided."""
    views: list[JobView] = field(default_factory=list)
    """Per step: what they saw."""
    actions: list[Tensor] = field(default_factory=list)
    """Per step: what they did."""

    def of(self, rows: np.ndarray) -> tuple[JobView, Tensor, Tensor]:
        """Returns view, rows (D,) and actions (D,) of the decisions of some rows."""
        chosen = [torch.from_numpy(np.isin(r, rows)) for r in self.rows]
        steps = [s for s, c in enumerate(chosen) if bool(c.any())]
        if not steps:
            raise ValueError("none of these rows decided anything")
        view = JobView(
            *(
                torch.cat([getattr(self.views[s], f.name)[chosen[s]] for s in steps])
                for f in fields(JobView)
            )
        )
        row = torch.cat([torch.from_numpy(self.rows[s])[chosen[s]] for s in steps])
        return view, row, torch.cat([self.actions[s][chosen[s]] for s in steps])


@torch.no_grad()
def play(
    policy: Policy,
    shop: BatchedShop,
    *,
    lookahead: Lookahead | None = None,
    generator: torch.Generator | None = None,
    keep: Decisions | None = None,
) -> np.ndarray:
    """Plays all episodes of a shop to their end.

    Args:
        policy: gives the logits of decisions.
        shop: the episodes, just begun.
        lookahead: how actions are judged before each decision, if the policy wants that.
        generator: draws actions by their probability; None takes the likeliest.
        keep: where the decisions are written down.

    Returns:
        Makespans (rows,) int64; -1 after a deadlock.
    """
    rows = np.arange(shop.num_rows)
    while True:
        view = shop.view(rows, lookahead)
        live = view.mask.any(1)
        if not bool(live.all()):
            rows, view = rows[live.numpy()], view.at(live)
            if len(rows) == 0:
                return shop.makespans()
        logits = policy(view, torch.from_numpy(rows // shop.copies))
        if generator is not None:
            noise = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
            logits = logits - torch.log(-torch.log(noise))
        action = logits.argmax(1)
        if keep is not None:
            keep.rows.append(rows)
            keep.views.append(view)
            keep.actions.append(action)
        shop.step(action.numpy(), rows)
