"""gnnlab: graph neural networks for physics, recommendation and scheduling.

`import gnnlab` is light: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnlab import data as data
    from gnnlab.checkpoint import load as load
    from gnnlab.citation import cite as cite
    from gnnlab.comparison import compare as compare
    from gnnlab.errors import (
        CheckpointError as CheckpointError,
        ConfigError as ConfigError,
        DataError as DataError,
        GnnlabError as GnnlabError,
    )
    from gnnlab.graph import Graph as Graph, relabel as relabel
    from gnnlab.hetero import HeteroGraph as HeteroGraph
    from gnnlab.registry import (
        list_tasks as list_tasks,
        load_task as load_task,
        register as register,
    )
    from gnnlab.task import (
        Data as Data,
        Prediction as Prediction,
        Shard as Shard,
        Split as Split,
        Task as Task,
    )
    from gnnlab.train import Run as Run, TrainConfig as TrainConfig, fit as fit

_WHERE = {
    "CheckpointError": "gnnlab.errors",
    "ConfigError": "gnnlab.errors",
    "Data": "gnnlab.task",
    "DataError": "gnnlab.errors",
    "GnnlabError": "gnnlab.errors",
    "Graph": "gnnlab.graph",
    "HeteroGraph": "gnnlab.hetero",
    "Prediction": "gnnlab.task",
    "Run": "gnnlab.train",
    "Shard": "gnnlab.task",
    "Split": "gnnlab.task",
    "Task": "gnnlab.task",
    "TrainConfig": "gnnlab.train",
    "cite": "gnnlab.citation",
    "compare": "gnnlab.comparison",
    "fit": "gnnlab.train",
    "list_tasks": "gnnlab.registry",
    "load": "gnnlab.checkpoint",
    "load_task": "gnnlab.registry",
    "register": "gnnlab.registry",
    "relabel": "gnnlab.graph",
}

__all__ = [*sorted(_WHERE), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _WHERE:
        value = getattr(importlib.import_module(_WHERE[name]), name)
        globals()[name] = value
        return value
    if name == "data":  # so that gnnlab.data.HostFeatures needs no import of its own
        return importlib.import_module("gnnlab.data")
    raise AttributeError(f"module 'gnnlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("gnnlab")
    except metadata.PackageNotFoundError:
        return "0+source"
