"""Dispatching: decide which job a free machine takes next, in job shops with and without buffers."""

from gnnlab.tasks.dispatch.gantt import gantt_layout
from gnnlab.tasks.dispatch.gantt_plot import plot_gantt, save_gantt
from gnnlab.tasks.dispatch.gantt_svg import gantt_html, gantt_svg
from gnnlab.tasks.dispatch.gantt_text import print_gantt
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
    "gantt_html",
    "gantt_layout",
    "gantt_svg",
    "plot_gantt",
    "print_gantt",
    "save_gantt",
]
