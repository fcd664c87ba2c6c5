"""Conformance suites for layers and tasks: ours run in the tests, third parties run the same."""

from gnnlab.testing.layer import check_layer
from gnnlab.testing.task import check_task

__all__ = ["check_layer", "check_task"]
