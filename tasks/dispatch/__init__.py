"""Dispatching: decides which job a free machine takes next, with or without buffers."""

from gnnlab.tasks.dispatch.bounds import machine_job_bound, one_machine_bound, serial_bound
from gnnlab.tasks.dispatch.datasets import Published, published
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
from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, RandomTrace, Shutdowns, WindowTrace

__all__ = [
    "Cuts",
    "InstanceError",
    "JobShopInstance",
    "Published",
    "RandomTrace",
    "Schedule",
    "ShopOptions",
    "Shutdowns",
    "WindowTrace",
    "gantt_html",
    "gantt_layout",
    "gantt_svg",
    "machine_job_bound",
    "one_machine_bound",
    "plot_gantt",
    "print_gantt",
    "published",
    "read_instance",
    "read_instances",
    "read_matrix_pair",
    "save_gantt",
    "serial_bound",
    "write_instance",
    "write_matrix_pair",
]
