"""Dispatching: decide which job a free machine takes next, in job shops with and without buffers."""

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
from gnnlab.tasks.dispatch.simulator import IllegalAction, Simulator, Status
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Shutdowns, WindowTrace

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
    "ShopOptions",
    "Shutdowns",
    "Simulator",
    "Status",
    "WindowTrace",
    "dispatch",
    "parse_rule",
]
