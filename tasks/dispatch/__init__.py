"""Dispatching: decides which job a free machine takes next, with or without buffers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gnnlab.tasks.dispatch.amcc import amcc
from gnnlab.tasks.dispatch.bounds import machine_job_bound, one_machine_bound, serial_bound
from gnnlab.tasks.dispatch.datasets import Published, published
from gnnlab.tasks.dispatch.exact import ExactResult, solve_exact
from gnnlab.tasks.dispatch.files import (
    read_instance,
    read_instances,
    read_matrix_pair,
    write_instance,
    write_matrix_pair,
)
from gnnlab.tasks.dispatch.gantt import gantt_layout
from gnnlab.tasks.dispatch.gantt_plot import plot_gantt, save_gantt
from gnnlab.tasks.dispatch.gantt_svg import gantt_html, gantt_svg
from gnnlab.tasks.dispatch.gantt_text import print_gantt
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
from gnnlab.tasks.dispatch.verifier import Violation, verify

if TYPE_CHECKING:
    from gnnlab.tasks.dispatch.environment import ShopEnv as ShopEnv
    from gnnlab.tasks.dispatch.graph_view import GraphView as GraphView
    from gnnlab.tasks.dispatch.isb import IsbPolicy as IsbPolicy
    from gnnlab.tasks.dispatch.l2d import L2DPolicy as L2DPolicy
    from gnnlab.tasks.dispatch.l2d_shop import L2DShop as L2DShop
    from gnnlab.tasks.dispatch.ppo import PPO as PPO, PPOConfig as PPOConfig

_LATER = {  # need torch, or the extra gnnlab[dispatch]
    "GraphView": "graph_view",
    "IsbPolicy": "isb",
    "L2DPolicy": "l2d",
    "L2DShop": "l2d_shop",
    "PPO": "ppo",
    "PPOConfig": "ppo",
    "ShopEnv": "environment",
}

__all__ = [
    "PPO",
    "RULES",
    "CompositeRule",
    "Cuts",
    "ExactResult",
    "GraphView",
    "IllegalAction",
    "InstanceError",
    "IsbPolicy",
    "JobShopInstance",
    "KeyRule",
    "L2DPolicy",
    "L2DShop",
    "PPOConfig",
    "PilotRule",
    "Published",
    "RandomRule",
    "RandomTrace",
    "Rule",
    "Schedule",
    "ShopEnv",
    "ShopOptions",
    "Shutdowns",
    "Simulator",
    "Status",
    "Violation",
    "WindowTrace",
    "amcc",
    "dispatch",
    "gantt_html",
    "gantt_layout",
    "gantt_svg",
    "machine_job_bound",
    "one_machine_bound",
    "parse_rule",
    "plot_gantt",
    "print_gantt",
    "published",
    "read_instance",
    "read_instances",
    "read_matrix_pair",
    "save_gantt",
    "serial_bound",
    "solve_exact",
    "verify",
    "write_instance",
    "write_matrix_pair",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
