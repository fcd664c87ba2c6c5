"""Dispatching: decides which job a free machine takes next, with or without buffers."""

from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Shutdowns, WindowTrace

__all__ = [
    "Cuts",
    "InstanceError",
    "JobShopInstance",
    "RandomTrace",
    "Schedule",
    "ShopOptions",
    "Shutdowns",
    "WindowTrace",
]
