"""Dispatching: decide which job a free machine takes next, in job shops with and without buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnlab.tasks.dispatch.illegal import IllegalAction
from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rules import (
    RULES,
    CompositeRule,
    KeyRule,
    PilotRule,
    RandomRule,
    Rule,
    dispatch,
    parse_rule,
)
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.simulator import Simulator, Status
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Shutdowns, WindowTrace

if TYPE_CHECKING:
    from gnnlab.tasks.dispatch.environment import ShopEnv

__all__ = [
    "RULES",
    "CompositeRule",
    "Cuts",
    "IllegalAction",
    "InstanceError",
    "JobShopInstance",
    "KeyRule",
    "PilotRule",
    "RandomRule",
    "RandomTrace",
    "Rule",
    "Schedule",
    "ShopEnv",
    "ShopOptions",
    "Shutdowns",
    "Simulator",
    "Status",
    "WindowTrace",
    "dispatch",
    "parse_rule",
]


def __getattr__(name: str) -> Any:
    if name == "ShopEnv":  # needs an optional package
        from gnnlab.tasks.dispatch.environment import ShopEnv

        return ShopEnv
    raise AttributeError(f"module 'gnnlab.tasks.dispatch' has no attribute {name!r}")
