"""From logits to schedules: episodes played by a policy, greedily or by sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from gnnlab.tasks.dispatch.batched import BatchedShop, JobView
from gnnlab.tasks.dispatch.lookahead import Lookahead

__all__ = ["Decisions", "Policy", "play", "replay", "scheduled"]

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
    logs: list[Tensor] = field(default_factory=list)
    """Per step: the logarithm of the probability with which they did it."""

    def add(self, rows: np.ndarray, view: JobView, action: Tensor, log: Tensor) -> None:
        """Writes down a step."""
        self.rows.append(rows)
        self.views.append(view)
        self.actions.append(action)
        self.logs.append(log)

    def of(self, rows: np.ndarray) -> tuple[JobView, Tensor, Tensor, Tensor]:
        """Returns view, rows (D,), actions (D,) and logs (D,) of the decisions of some rows."""
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
        action, log = (
            torch.cat([part[s][chosen[s]] for s in steps]) for part in (self.actions, self.logs)
        )
        return view, row, action, log


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
        noisy = logits
        if generator is not None:
            noise = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
            noisy = logits - torch.log(-torch.log(noise))
        action = noisy.argmax(1)
        if keep is not None:
            log = torch.log_softmax(logits, 1).gather(1, action[:, None])[:, 0]
            keep.add(rows, view, action, log)
        shop.step(action.numpy(), rows)


def scheduled(
    shop: BatchedShop, view: JobView, rows: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what given schedules do now, (B,) int64, and whether they can be followed, (B,) bool.

    Where a schedule starts nothing now and waiting is not allowed, it is the first legal action.

    Args:
        shop: the episodes.
        view: what is seen of them.
        rows: (B,) which rows.
        starts: (rows, J * L) int64, start time of each operation.
    """
    mask, wait = view.mask.numpy(), shop.num_jobs
    now = shop.states(rows)[:, 0]
    begins = np.take_along_axis(starts[rows], view.op.clamp(min=0).numpy(), 1)
    begin_now = mask[:, :wait] & (begins == now[:, None])
    action = np.where(begin_now.any(1), begin_now.argmax(1), wait)
    lost = (action == wait) & ~mask[:, wait]
    action[lost] = mask[lost, :wait].argmax(1)
    return action, ~lost


def replay(shop: BatchedShop, starts: np.ndarray, lookahead: Lookahead | None = None) -> Decisions:
    """Takes the decisions of given schedules, and writes down what a policy would have seen.

    Where a schedule cannot be followed (it starts an operation at a time without a decision), the
    first legal action is taken.

    Args:
        shop: the episodes, just begun.
        starts: (rows, J * L) int64, start time of each operation.
        lookahead: as for `play`.
    """
    rows, seen = np.arange(shop.num_rows), Decisions()
    while True:
        view = shop.view(rows, lookahead)
        live = view.mask.any(1)
        if not bool(live.all()):
            rows, view = rows[live.numpy()], view.at(live)
            if len(rows) == 0:
                return seen
        action, _ = scheduled(shop, view, rows, starts)
        chosen = torch.from_numpy(action)
        seen.add(rows, view, chosen, torch.zeros(len(rows)))
        shop.step(action, rows)
