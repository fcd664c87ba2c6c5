"""`ShopOptions`: the rules of the game that a schedule, a simulator and a verifier agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.schedule import MODES, Mode

__all__ = ["REWARDS", "Reward", "ShopOptions"]

Reward = Literal["elapsed", "waiting", "delta_lb"]
REWARDS = ("elapsed", "waiting", "delta_lb")


@dataclass(frozen=True, kw_only=True)
class ShopOptions:
    """How a shop works and what an agent may do in it."""

    mode: Mode = "bws"
    """bws: no buffers, swaps allowed; bns: no buffers, no swaps; jssp: buffers without limit."""
    restart: bool = False
    """Whether work that a shutdown cuts is lost; otherwise it goes on after the repair."""
    unload_when_down: bool = True
    """Whether a finished job may leave a machine that is down."""
    wip_limit: int | None = None
    """A job from outside may enter only while fewer jobs than this are inside; none is no limit."""
    allow_wait: bool = False
    """Whether leaving open machines idle until the next event is an action."""
    focus: bool = False
    """Whether a decision is about the first open machine only; otherwise about all of them."""
    auto_trivial: bool = False
    """Whether a decision with a single legal action is taken without asking."""
    reward: Reward = "elapsed"
    """elapsed time, time that jobs spend waiting, or growth of the lower bound."""
    max_steps: int | None = None
    """Decisions after which an episode is cut off; none is 20 per operation and 1000 more."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f'unknown mode "{self.mode}".{did_you_mean(self.mode, MODES)}')
        if self.reward not in REWARDS:
            raise ConfigError(
                f'unknown reward "{self.reward}".{did_you_mean(self.reward, REWARDS)}'
            )
        for name in ("wip_limit", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more, or none.")
