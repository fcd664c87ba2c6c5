"""Playing episodes with a policy: what it needs to offer, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Actor", "Rollout", "Shop", "View", "collect", "device_of", "play"]


class View(Protocol):
    """What a policy sees of B episodes."""

    mask: Tensor
    """(B, A) bool, legal actions."""

    def take(self, rows: Tensor) -> Any:
        """Returns the view of some of the episodes."""

    @classmethod
    def join(cls, views: list[Any]) -> Any:
        """Returns the episodes of all views."""

    def to(self, device: Any) -> Any:
        """Returns the view on another device."""


class Shop(Protocol):
    """Episodes that are played together: `BatchedShop` and `L2DShop` are such."""

    num_rows: int
    copies: int

    def masks(self) -> np.ndarray:
        """Returns (rows, A) bool: legal actions, none in an episode that is over."""

    def step(self, actions: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Acts in some rows; returns rewards, and flags that are not 0 where a row is over."""


class Actor(Protocol):
    """A policy with its critic: `IsbPolicy` and `L2DPolicy` are such."""

    def observe(self, shop: Any, rows: np.ndarray) -> Any:
        """Returns the view of rows of a shop."""

    def __call__(self, view: Any) -> tuple[Tensor, Tensor]:
        """Returns logits (B, A), -inf where an action is not legal, and values (B,)."""


@dataclass(frozen=True)
class Rollout:
    """D decisions of a batch of episodes, in the order of their steps.

    Args:
        view: what was seen, one episode's graph per decision.
        action: (D,) int64.
        log_prob: (D,) of the actions.
        value: (D,) what the critic said.
        reward: (D,) from this decision to the next.
        row: (D,) int64, the episode, 0..R-1.
        step: (D,) int64, the decision's number in its episode.
        total: (R,) sum of each episode's rewards.
    """

    view: Any
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    row: Tensor
    step: Tensor
    total: Tensor


@torch.no_grad()
def collect(policy: Actor, shop: Shop, generator: torch.Generator) -> Rollout:
    """Plays all rows of a shop to their end, drawing actions from the policy."""
    device = device_of(policy)
    rows = np.flatnonzero(shop.masks().any(1))
    total = torch.zeros(shop.num_rows, dtype=torch.float64)
    views: list[Any] = []
    parts = []
    while len(rows):
        view = policy.observe(shop, rows)
        logits, worth = policy(view.to(device))
        log_probs = logits.log_softmax(1).cpu()
        action = torch.multinomial(log_probs.exp(), 1, generator=generator)
        rewards, flags = shop.step(action.squeeze(1).numpy(), rows)
        gained = torch.from_numpy(rewards)
        where = torch.from_numpy(rows)
        total[where] += gained
        taken = log_probs.gather(1, action).squeeze(1)
        number = torch.full_like(where, len(views))
        views.append(view)
        parts.append((action.squeeze(1), taken, worth.cpu(), gained.to(taken.dtype), where, number))
        rows = rows[flags == 0]
    if not views:
        none = torch.zeros(0)
        index = none.long()
        return Rollout(None, index, none, none, none, index, index, total)
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    action, log_prob, value, reward, row, step = joined
    view = type(views[0]).join(views)
    return Rollout(view, action, log_prob, value, reward, row, step, total)


@torch.no_grad()
def play(policy: Actor, shop: Shop, *, generator: torch.Generator | None = None) -> None:
    """Plays all rows of a shop to their end.

    Args:
        policy: rates the actions.
        shop: episodes, some of which may have begun.
        generator: draws actions by their chance; None takes the best.
    """
    device = device_of(policy)
    rows = np.flatnonzero(shop.masks().any(1))
    while len(rows):
        logits, _ = policy(policy.observe(shop, rows).to(device))
        if generator is None:
            action = logits.argmax(1)
        else:
            action = torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator).squeeze(1)
        _, flags = shop.step(action.cpu().numpy(), rows)
        rows = rows[flags == 0]


def device_of(policy: Any) -> torch.device:
    """Returns where the parameters of a policy lie."""
    return next((p.device for p in policy.parameters()), torch.device("cpu"))
