"""The graph systems, one folder each; all behind `gnnlab.Task`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnlab.tasks.dispatch.task import Dispatch as Dispatch
    from gnnlab.tasks.recommend import Recommend as Recommend

__all__ = ["Dispatch", "Recommend"]


def __getattr__(name: str) -> Any:
    if name == "Dispatch":
        from gnnlab.tasks.dispatch.task import Dispatch

        return Dispatch
    if name == "Recommend":
        from gnnlab.tasks.recommend import Recommend

        return Recommend
    raise AttributeError(f"module 'gnnlab.tasks' has no attribute {name!r}")
