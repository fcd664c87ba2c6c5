"""Lists of what is there: tasks, layers, data sets, presets, and what is in a run folder."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

from gnnlab import checkpoint, config as options
from gnnlab.errors import ConfigError
from gnnlab.registry import list_tasks, working_tasks

__all__ = ["catalog", "describe_run"]


def catalog(what: str) -> list[dict[str, Any]]:
    """Returns rows about "tasks", "layers", "datasets" or "presets".

    A task that does not import is left out, with a warning that names its package.
    """
    rows: list[dict[str, Any]] = []
    if what == "layers":
        return _layers()
    where = list_tasks()
    for task in working_tasks():
        name = task.name
        if what == "tasks":
            rows.append(
                {
                    "name": name,
                    "about": _first_line(task),
                    "models": _choices(task.Config, "model"),
                    "monitor": task.monitor,
                    "where": where[name],
                }
            )
        elif what == "datasets":
            rows += [{"task": name, **row} for row in task.datasets()]
        elif what == "presets":
            rows += [
                {"task": name, "preset": preset, "sets": task.Config.implied({"preset": preset})}
                for preset in _choices(task.Config, "preset")
                if hasattr(task.Config, "implied")
            ]
        else:
            raise ConfigError(f'cannot list "{what}"; known: tasks, layers, datasets, presets.')
    return rows


def _layers() -> list[dict[str, Any]]:
    """Returns one row per class of `gnnlab.layers`, with what a convolution can be given."""
    from torch import nn

    import gnnlab.layers as layers

    rows = []
    for name in layers.__all__:
        layer = getattr(layers, name)
        if not inspect.isclass(layer) or layer is layers.Layer or not issubclass(layer, nn.Module):
            continue
        row: dict[str, Any] = {"name": name, "kind": layer.__module__.rpartition(".")[2]}
        if issubclass(layer, layers.Layer):
            row["kind"] = "convolution"
        row["takes"] = sorted(getattr(layer, "takes", ()))
        row["compiles"] = bool(getattr(layer, "compiles", True))
        rows.append({**row, "about": _first_line(layer)})
    return rows


def describe_run(folder: str | Path) -> dict[str, Any]:
    """Returns what a run or checkpoint folder says about itself."""
    found = checkpoint.locate(folder)
    about = checkpoint.read_about(found)
    root = Path(folder)
    result: dict[str, Any] = {
        "task": about["task"],
        "format": about["format"],
        "checkpoint": str(found),
        "spec": about["spec"],
        "config": about["config"],
    }
    for name in ("metrics", "env"):
        file = root / f"{name}.json"
        if file.is_file():
            result[name] = json.loads(file.read_text(encoding="utf-8"))
    return result


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _choices(cls: type, field: str) -> list[str]:
    """The values a Literal option can take."""
    import typing

    if field not in {f.name for f in dataclasses.fields(cls)}:
        return []
    hint = options.hints(cls)[field]
    parts = [hint, *typing.get_args(hint)]
    return [v for p in parts if typing.get_origin(p) is typing.Literal for v in typing.get_args(p)]
