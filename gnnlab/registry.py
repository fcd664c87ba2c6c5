"""Which tasks exist: the entry-point group "gnnlab.tasks", ours and third parties' alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from gnnlab.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from gnnlab.task import Task

__all__ = ["broken_tasks", "list_tasks", "load_task", "load_verb", "register", "working_tasks"]

GROUP = "gnnlab.tasks"
_registered: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Makes a Task class known in this process, without packaging; usable as a decorator.

    Raises:
        ConfigError: when the name is taken by another class.
    """
    known = _registered.get(task.name)
    if known not in (None, task) or (known is None and task.name in _entry_points()):
        raise ConfigError(f'the task name "{task.name}" is taken.')
    _registered[task.name] = task
    return task


def list_tasks() -> dict[str, str]:
    """Returns task name -> "module:Class", sorted by name; imports none of them.

    Example:
        >>> "recommend" in list_tasks()
        True
    """
    found = {name: point.value for name, point in _entry_points().items()}
    found.update({n: f"{t.__module__}:{t.__qualname__}" for n, t in _registered.items()})
    return dict(sorted(found.items()))


def load_task(name: str) -> type[Task]:
    """Imports and returns the Task class called `name`.

    Raises:
        ConfigError: for an unknown name (with the nearest known one), or a plug-in that does not
            import, naming its package.
    """
    if name in _registered:
        return _registered[name]
    points = _entry_points()
    if name not in points:
        raise ConfigError(f'unknown task "{name}".{did_you_mean(name, list_tasks())}')
    point = points[name]
    try:
        task: type[Task] = point.load()
    except Exception as error:
        raise ConfigError(
            f'the task "{name}" of package {_package(point)} does not import: '
            f"{type(error).__name__}: {error}"
        ) from error
    if getattr(task, "name", None) != name:
        raise ConfigError(
            f'package {_package(point)} registers "{name}", but {point.value} calls itself '
            f'"{getattr(task, "name", None)}".'
        )
    return task


def load_verb(task: type[Task], verb: str) -> Callable[..., int]:
    """Imports and returns the function behind a verb of `Task.commands`.

    Raises:
        ConfigError: when its "module:function" does not load, or the house has a verb of that name.
    """
    target = task.commands[verb]
    if verb == "compare":
        raise ConfigError(f'the verb "compare" of the task "{task.name}" is taken by the house.')
    module, _, function = target.partition(":")
    try:
        found: Callable[..., int] = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'the verb "{verb}" of the task "{task.name}" does not load from "{target}": {error}'
        ) from error
    return found


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    points = [*metadata.entry_points(group=GROUP), *_of_the_source_tree()]
    for point in points:
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            warnings.warn(
                f'two packages register the task "{point.name}": {_package(known)} (used) and '
                f"{_package(point)}.",
                stacklevel=3,
            )
    return found


def _of_the_source_tree() -> list[metadata.EntryPoint]:
    """The entry points of a checkout that was never installed, read from its pyproject.toml."""
    try:
        metadata.version("gnnlab")
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parent.parent / "pyproject.toml"
        if project.is_file():
            from gnnlab.config import read_toml

            table = read_toml(project)["project"]["entry-points"][GROUP]
            return [metadata.EntryPoint(name, value, GROUP) for name, value in table.items()]
    return []


def _package(point: metadata.EntryPoint) -> str:
    dist = getattr(point, "dist", None)
    return f"{dist.name} {dist.version}" if dist is not None else point.value.split(":")[0]


def working_tasks() -> Iterator[type[Task]]:
    """Yields every Task class; one that does not import is a warning naming its package."""
    for name in list_tasks():
        try:
            task = load_task(name)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        yield task


def broken_tasks() -> dict[str, str]:
    """Returns task name -> why it does not load, for `gnnlab doctor`; loads every task."""
    broken = {}
    for name in list_tasks():
        try:
            load_task(name)
        except ConfigError as error:
            broken[name] = str(error)
    return broken
