"""From a task's name and a data source to a run folder, and back: what the commands call.

A run folder holds `config.toml`, `env.json`, `log.jsonl`, `metrics.json`, `report.html` and
`checkpoints/{best,last}/`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from gnnlab import checkpoint, config as options, ops
from gnnlab.errors import CheckpointError, ConfigError, DataError
from gnnlab.log import first_process
from gnnlab.registry import load_task
from gnnlab.task import Data, Task
from gnnlab.train import Run, TrainConfig, fit

__all__ = ["environment", "evaluate", "read_run", "resume", "start", "write_json"]


def start(
    task: str | type[Task],
    source: Any,
    values: Mapping[str, Any] | None = None,
    *,
    data: Data | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> tuple[Run, dict[str, Any]]:
    """Reads the data, builds the task from its seed, trains it and scores its best weights.

    Args:
        task: name or class.
        source: what the task's `read` takes; a path or name when the run shall be resumable.
        values: options of the task and of TrainConfig in one flat mapping.
        data: the data of `source` when it was read before.
        out: run folder; None writes nothing.
        overwrite: allow `out` to hold another run already, which is replaced.
        progress: see `fit`.

    Returns:
        The run, and its metrics: {"val": ..., "test": ..., "seconds": ..., ...}.

    Raises:
        ConfigError: for wrong options or an `out` that is taken.
        DataError: for wrong data.

    Example:
        >>> run, metrics = start("recommend", "synthetic", {"model": "popularity"})
        >>> 0 < metrics["test"]["recall@20"] < 1
        True
    """
    cls = load_task(task) if isinstance(task, str) else task
    config, train_config = options.merge([cls.Config, TrainConfig], values or {})
    folder = Path(out) if out is not None else None
    if folder is not None and first_process():
        _claim(folder, overwrite)
    data = data or cls.read(source, config)
    built = _build(cls, config, data, train_config)
    if folder is not None and first_process():
        _write_config(folder, cls, source, config, train_config)
        write_json(folder / "env.json", environment())
    return _train(built, data, train_config, folder, False, progress)


def resume(
    folder: str | Path, changes: Mapping[str, Any] | None = None, *, progress: bool | None = None
) -> tuple[Run, dict[str, Any]]:
    """Goes on with the run in `folder` from its last checkpoint, as if it had never stopped.

    Args:
        folder: a run folder.
        changes: options of TrainConfig to change, for example {"epochs": 200}.
        progress: see `fit`.
    """
    cls, config, train_config, source = read_run(folder)
    values = {**_values(train_config), **(changes or {})}
    train_config = options.build(TrainConfig, values)
    data = cls.read(source, config)
    _same_data(data, Path(folder))
    built = _build(cls, config, data, train_config)
    if first_process():
        _write_config(Path(folder), cls, source, config, train_config)
    return _train(built, data, train_config, Path(folder), True, progress)


def evaluate(
    folder: str | Path, split: str = "test", *, source: Any = None, which: str = "best"
) -> dict[str, float]:
    """Scores a run's checkpoint on one split of its data.

    Args:
        folder: a run folder, or a checkpoint folder together with `source`.
        split: "train", "val" or "test".
        source: other data than the run's own.
        which: "best" or "last".

    Raises:
        DataError: when the data no longer is what the model was trained on.
    """
    task = checkpoint.load(folder, which=which)
    if source is None:
        source = read_run(folder)[3]
    data = type(task).read(source, task.config)
    _same_spec(data, task.spec)
    with torch.no_grad():
        return task.evaluate(data.split(split))


def read_run(folder: str | Path) -> tuple[type[Task], Any, TrainConfig, Any]:
    """Returns (task class, its config, TrainConfig, data source) of a run folder."""
    path = Path(folder) / "config.toml"
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a run folder (it has no config.toml).")
    values = options.read_toml(path)
    try:
        cls, source = load_task(values.pop("task")), values.pop("data")
    except KeyError as error:
        raise CheckpointError(f"{path} does not say its {error}.") from None
    if source == "":
        raise CheckpointError(f"{folder} was trained on data in memory; pass the data again.")
    config, train_config = options.merge([cls.Config, TrainConfig], values, where=f" in {path}")
    return cls, config, train_config, source


def environment() -> dict[str, Any]:
    """Returns versions, machine and kernel backend: what a reader needs to judge a figure."""
    versions = {}
    for name in ("gnnlab", "torch", "numpy", "lightning-fabric", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "source"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "kernels": ops.backend(),
        "git_commit": _git_commit(),
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _build(cls: type[Task], config: Any, data: Data, train_config: TrainConfig) -> Task:
    torch.manual_seed(train_config.seed)
    return cls(config, data.spec)


def _train(
    task: Task,
    data: Data,
    config: TrainConfig,
    folder: Path | None,
    again: bool,
    progress: bool | None,
) -> tuple[Run, dict[str, Any]]:
    began = time.perf_counter()
    run = fit(task, data, config, out=folder, resume=again, progress=progress)
    metrics: dict[str, Any] = {
        "task": task.name,
        "epoch": run.epoch,
        "best_epoch": run.best_epoch,
        "stopped_early": run.stopped_early,
        "seconds": time.perf_counter() - began,
    }
    with torch.no_grad():
        for split in (data.val, data.test):
            if split is not None:
                metrics[split.name] = run.best.evaluate(split)
    if folder is not None and first_process():
        write_json(folder / "metrics.json", metrics)
    return run, metrics


def _claim(folder: Path, overwrite: bool) -> None:
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; --out names a folder.")
    if (folder / "config.toml").exists():
        if not overwrite:
            raise ConfigError(
                f"{folder} holds a run already. Go on with it: gnnlab train --resume {folder}; "
                "or name another --out; or replace it with --overwrite."
            )
        import shutil

        for name in ("checkpoints", "tensorboard"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("config.toml", "log.jsonl", "metrics.json", "report.html"):
            (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def _same_data(data: Data, folder: Path) -> None:
    try:
        stored = checkpoint.read_about(checkpoint.locate(folder, "last"))["spec"]
    except CheckpointError:
        return  # stopped before its first checkpoint: nothing to compare with
    _same_spec(data, stored)


def _same_spec(data: Data, stored: Mapping[str, Any]) -> None:
    for key, value in stored.items():
        now = data.spec.get(key)
        if json.dumps(now) != json.dumps(value):
            raise DataError(
                f"the data has changed since the model was trained: {key} was {value!r} and is "
                f"now {now!r}. Train again, or restore the file."
            )


def _write_config(
    folder: Path, cls: type[Task], source: Any, config: Any, train_config: TrainConfig
) -> None:
    about = {"task": cls.name, "data": _portable(source)}
    partial = folder / "config.partial"
    options.write_toml(partial, {**about, **_values(config), **_values(train_config)})
    os.replace(partial, folder / "config.toml")


def _values(config: Any) -> dict[str, Any]:
    cls: type = type(config)
    return {key: getattr(config, key) for key in options.hints(cls)}


def _portable(source: Any) -> str:
    if isinstance(source, (str, Path)):
        path = Path(source)
        return str(path.resolve()) if path.exists() else str(source)
    return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _git_commit() -> str | None:
    where = Path(__file__).resolve().parent.parent
    if not (where / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
