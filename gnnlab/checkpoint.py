"""Saving and loading without pickle: safetensors for tensors, JSON for everything else.

A checkpoint is a folder:

* `model.safetensors`: the state dict of the task,
* `task.json`: task name, config, spec and format version,
* `trainer.safetensors`, `trainer.json`: optimiser and loop state; only what training resumes from.

A folder is written under another name and renamed, so it exists whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gnnlab import config as options
from gnnlab.errors import CheckpointError, GnnlabError
from gnnlab.registry import load_task

if TYPE_CHECKING:
    from gnnlab.task import Task

__all__ = [
    "FORMAT",
    "TrainerState",
    "load",
    "load_trainer",
    "locate",
    "read_about",
    "read_tensors",
    "save",
]

FORMAT = 1
_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}  # format n -> n + 1


@dataclass
class TrainerState:
    """What the loop needs beside the weights to go on as if it had never stopped."""

    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-able: epoch, step, best value, optimiser settings."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Optimiser moments and random states."""


def save(task: Task, path: str | Path, trainer: TrainerState | None = None) -> Path:
    """Writes a checkpoint folder atomically, replacing what is there.

    Args:
        task: the task; its whole state dict is stored.
        path: the folder.
        trainer: the state of the loop, for checkpoints that training resumes from.
    """
    from safetensors.torch import save_file

    target = Path(path)
    _settle(target)
    fresh, old = _beside(target, "new"), _beside(target, "old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in task.state_dict().items()}
    save_file(state, fresh / "model.safetensors")
    about = {
        "format": FORMAT,
        "task": task.name,
        "config": options.plain(task.config_dict()),
        "spec": task.spec,
    }
    _write_json(fresh / "task.json", about)
    if trainer is not None:
        save_file(
            {k: v.contiguous() for k, v in trainer.tensors.items()}, fresh / "trainer.safetensors"
        )
        _write_json(fresh / "trainer.json", trainer.facts)
    for file in fresh.iterdir():
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())
    # A full folder cannot be replaced in one step. Between these two renames `.new` is complete,
    # and `_settle` finishes the move after a crash.
    if target.exists():
        os.replace(target, old)
    os.replace(fresh, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def locate(path: str | Path, which: str = "best") -> Path:
    """Returns the checkpoint folder meant by `path`: the folder itself, or a run's best or last.

    Raises:
        CheckpointError: when there is none.
    """
    root = Path(path)
    for folder in (root, root / "checkpoints" / which, root / "checkpoints" / "last"):
        _settle(folder)
        if (folder / "task.json").is_file():
            return folder
    if not root.exists():
        raise CheckpointError(f"no such folder: {root}.")
    raise CheckpointError(f"{root} holds no checkpoint (no task.json in it or its checkpoints/).")


def load(
    path: str | Path, cls: type[Task] | None = None, *, which: str = "best", device: str = "cpu"
) -> Task:
    """Builds the task stored at `path` and loads its weights.

    Args:
        path: a checkpoint folder or a run folder.
        cls: the expected Task class; any when None.
        which: "best" or "last", for a run folder.
        device: where to put it.

    Raises:
        CheckpointError: when the folder is not a checkpoint, is of another task, or is newer than
            this gnnlab.
    """
    folder = locate(path, which)
    about = read_about(folder)
    if cls is None:
        cls = load_task(about["task"])
    elif about["task"] != cls.name:
        raise CheckpointError(
            f'{path} was saved by task "{about["task"]}" (format {about["format"]}), not '
            f'"{cls.name}". Load it with gnnlab.load("{path}").'
        )
    try:
        config: Any = options.build(
            cls.Config, about["config"], where=f" in {folder / 'task.json'}"
        )
        task = cls(config, about["spec"])
    except (GnnlabError, RuntimeError, KeyError) as error:
        raise CheckpointError(f'{folder} does not fit task "{cls.name}": {error}') from error
    load_weights(task, folder)
    return task.to(device).eval()


def load_weights(task: Task, folder: Path) -> None:
    """Loads the state dict of `folder` into `task`, resizing buffers that `prepare` sizes."""
    state = read_tensors(folder / "model.safetensors")
    _resize_buffers(task, state)
    try:
        task.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f'{folder} does not fit task "{task.name}": {error}') from error


def load_trainer(folder: Path) -> TrainerState:
    """Reads the loop state of a checkpoint; CheckpointError when it holds none."""
    file = folder / "trainer.json"
    if not file.is_file():
        raise CheckpointError(f"{folder} holds a model but no training state to resume from.")
    return TrainerState(_read_json(file), read_tensors(folder / "trainer.safetensors"))


def pack_optimizer(optimizer: torch.optim.Optimizer) -> TrainerState:
    """Splits an optimiser's state dict into JSON-able facts and tensors."""
    state = optimizer.state_dict()
    packed = TrainerState({"groups": state["param_groups"], "scalars": {}})
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                packed.tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().clone()
            else:
                packed.facts["scalars"].setdefault(str(index), {})[key] = value
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: TrainerState) -> None:
    """Restores what `pack_optimizer` took."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in packed.tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    for index, entries in packed.facts["scalars"].items():
        state.setdefault(int(index), {}).update(entries)
    optimizer.load_state_dict({"state": state, "param_groups": packed.facts["groups"]})


def read_about(folder: Path) -> dict[str, Any]:
    """Reads `task.json`, upgraded to this format; CheckpointError when that cannot be."""
    about = _read_json(folder / "task.json")
    version = about.get("format")
    if not isinstance(version, int) or "task" not in about:
        raise CheckpointError(f"{folder / 'task.json'} is not a gnnlab checkpoint.")
    if version > FORMAT:
        raise CheckpointError(
            f"{folder} has checkpoint format {version}; this gnnlab reads up to {FORMAT}. "
            "Install a newer gnnlab."
        )
    while version < FORMAT:
        if version not in _UPGRADES:
            raise CheckpointError(f"{folder} has checkpoint format {version}, which is unknown.")
        about, version = _UPGRADES[version](about), version + 1
    return about


def _resize_buffers(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, buffer in list(module.named_buffers()):
        stored = state.get(name)
        if stored is not None and (stored.shape, stored.dtype) != (buffer.shape, buffer.dtype):
            owner_name, _, leaf = name.rpartition(".")
            owner = module.get_submodule(owner_name)
            setattr(owner, leaf, torch.empty_like(stored, device=buffer.device))


def _beside(target: Path, tag: str) -> Path:
    return target.with_name(f".{target.name}.{tag}")


def _settle(target: Path) -> None:
    """Finishes a replacement that a crash cut between its two renames."""
    if not target.exists():
        for tag in ("new", "old"):
            candidate = _beside(target, tag)
            if _beside(target, "old").exists() and candidate.exists():
                os.replace(candidate, target)
                return


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Reads a safetensors file; CheckpointError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is missing or damaged: {error}.") from None
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is missing or damaged: {error}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} does not hold a JSON object.")
    return value


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, allow_nan=True), encoding="utf-8")
