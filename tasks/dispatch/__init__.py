"""Dispatching: decide which job a free machine takes next, in shops with and without buffers."""

from gnnlab.tasks.dispatch.amcc import amcc
from gnnlab.tasks.dispatch.exact import ExactResult, solve_exact
from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Shutdowns, WindowTrace
from gnnlab.tasks.dispatch.verifier import Violation, verify

__all__ = [
    "Cuts",
    "ExactResult",
    "InstanceError",
    "JobShopInstance",
    "RandomTrace",
    "Schedule",
    "ShopOptions",
    "Shutdowns",
    "Violation",
    "WindowTrace",
    "amcc",
    "solve_exact",
    "verify",
]
