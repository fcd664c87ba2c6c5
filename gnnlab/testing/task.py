"""`check_task`: the certificate of a task."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab import checkpoint, config as options
from gnnlab.errors import ConfigError, GnnlabError
from gnnlab.registry import load_verb
from gnnlab.task import Data, Prediction, Split, Task
from gnnlab.train import TrainConfig, fit

__all__ = ["check_task"]


def check_task(
    cls: type[Task],
    source: Any,
    values: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
    epochs: int = 4,
) -> None:
    """Checks that a task keeps the promises that the loop, the commands and its users rely on.

    It trains a few short runs on `source`, so pass something small.

    Args:
        cls: the task class.
        source: data for `cls.read`.
        values: options that make the run small.
        query: keywords for `predict`.
        epochs: even number of epochs of the runs.

    Raises:
        AssertionError: saying which promise is broken.

    Example:
        >>> from gnnlab.tasks import Recommend
        >>> check_task(Recommend, "synthetic", {"model": "bpr-mf", "dim": 4}, query={"k": 3})
    """
    _check_declaration(cls)
    config, base = options.merge([cls.Config, TrainConfig], values or {})
    data = cls.read(source, config)
    _check_data(cls, data)
    train = dataclasses.replace(base, epochs=epochs, eval_every=1, patience=None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        whole = _fit(cls, config, data, train, root / "whole")
        weights = _weights(whole)
        _check_evaluate(cls, whole, data)
        _check_predict(whole, query or {}, root)
        _check_repeats(cls, config, data, train, weights)
        _check_blind_to_test(cls, config, data, train, weights)
        if whole.trainable:
            _check_log(root / "whole", epochs)
            _check_resume(cls, config, data, train, root / "halves", weights)
        _check_checkpoint(cls, whole, data, root / "saved", query or {})


def _check_declaration(cls: type[Task]) -> None:
    for name in ("name", "Config", "monitor", "mode", "headline"):
        _hold(hasattr(cls, name), f"{cls.__name__} has no class attribute {name}.")
    _hold(
        cls.name.isidentifier() and cls.name == cls.name.lower(),
        f'the name "{cls.name}" is not one lowercase word.',
    )
    _hold(cls.mode in ("max", "min"), f'mode is "{cls.mode}", not "max" or "min".')
    _hold(cls.monitor in cls.headline, f"headline does not show {cls.monitor}.")
    _hold(bool((cls.__doc__ or "").strip()), f"{cls.__name__} has no docstring.")
    params = getattr(cls.Config, "__dataclass_params__", None)
    _hold(params is not None and params.frozen, f"{cls.__name__}.Config is no frozen dataclass.")
    docs = options.describe(cls.Config)
    missing = [name for name in options.hints(cls.Config) if not docs.get(name)]
    _hold(not missing, f"options without a doc line under them: {', '.join(missing)}.")
    shared = options.hints(cls.Config).keys() & options.hints(TrainConfig).keys()
    _hold(not shared, f"options that the loop has already: {', '.join(sorted(shared))}.")
    for verb in cls.commands:
        try:
            found = load_verb(cls, verb)
        except ConfigError as error:
            raise AssertionError(str(error)) from error
        _hold(bool((found.__doc__ or "").strip()), f'the verb "{verb}" has no docstring.')
    try:
        options.build(cls.Config, {"no_such_option": 1})
    except ConfigError:
        pass
    else:
        raise AssertionError("an unknown option was accepted.")


def _check_data(cls: type[Task], data: Any) -> None:
    _hold(isinstance(data, Data), f"read returned {type(data).__name__}, not Data.")
    data.validate()
    again = json.loads(json.dumps(dict(data.spec)))
    _hold(again == dict(data.spec), "Data.spec does not survive JSON (tuples, keys of numbers).")
    _hold(
        data.test is not None or data.val is not None, "read gave neither a val nor a test split."
    )


def _check_log(folder: Path, epochs: int) -> None:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    _hold(
        [r["epoch"] for r in records] == list(range(1, epochs + 1)),
        "log.jsonl does not hold one record per epoch.",
    )
    _hold(
        all(math.isfinite(v) for r in records for v in r["train"].values()),
        "a training loss is not finite.",
    )


def _check_repeats(
    cls: type[Task], config: Any, data: Data, train: TrainConfig, weights: dict[str, Tensor]
) -> None:
    again = _weights(_fit(cls, config, data, train, None))
    _same(weights, again, "the same seed gave other weights; take all randomness from `generator`")


def _check_resume(
    cls: type[Task],
    config: Any,
    data: Data,
    train: TrainConfig,
    folder: Path,
    weights: dict[str, Tensor],
) -> None:
    half = dataclasses.replace(train, epochs=train.epochs // 2)
    _fit(cls, config, data, half, folder)
    resumed = _build(cls, config, data, train)
    torch.manual_seed(987)  # a resumed process is in no particular random state
    fit(resumed, data, train, out=folder, resume=True, progress=False)
    _same(weights, _weights(resumed), "a resumed run differs from the uninterrupted one")


def _check_blind_to_test(
    cls: type[Task], config: Any, data: Data, train: TrainConfig, weights: dict[str, Tensor]
) -> None:
    if data.test is None:
        return
    blind = dataclasses.replace(data, test=None)
    kept = (data.test.history, data.test.target)
    try:  # a task that stashed its data at `read` finds the test split empty
        _refill(data.test, None, None)
        found = _weights(_fit(cls, config, blind, train, None))
    except Exception as error:
        raise AssertionError(
            f"training without the test split fails, so training looks at it: {error}"
        ) from error
    finally:
        _refill(data.test, *kept)
    what = "training without the test split gave other weights, so training looks at it"
    _same(weights, found, what)


def _refill(split: Split, history: Any, target: Any) -> None:
    object.__setattr__(split, "history", history)
    object.__setattr__(split, "target", target)


def _check_evaluate(cls: type[Task], task: Task, data: Data) -> None:
    split = data.test or data.val
    if split is None:
        return
    before = _weights(task)
    first = task.evaluate(split)
    _same(before, _weights(task), "evaluate changed the state of the task")
    second = task.evaluate(split)
    _hold(_equal(first, second), f"evaluate twice gave {first} and then {second}.")
    _hold(
        all(isinstance(v, (int, float)) for v in first.values()),
        "evaluate returned something else than plain numbers.",
    )
    for name in cls.headline:
        _hold(name in first, f"evaluate does not return {name}.")


def _check_checkpoint(
    cls: type[Task], task: Task, data: Data, folder: Path, query: Mapping[str, Any]
) -> None:
    task.save_pretrained(folder)
    for file in folder.iterdir():
        _hold(file.suffix in (".json", ".safetensors"), f"{file.name} is no safe file format.")
    loaded = cls.from_pretrained(folder)
    _same(_weights(task), _weights(loaded), "a loaded checkpoint has other weights")
    first = task.predict(**query)
    try:
        second = loaded.predict(**query)
    except Exception as error:
        raise AssertionError(f"a loaded checkpoint does not predict: {error}") from error
    _hold(list(first.columns) == list(second.columns), "a loaded checkpoint has other columns.")
    for name, column in first.columns.items():
        _hold(
            np.array_equal(column, second.columns[name]),
            f"a loaded checkpoint predicts another {name}.",
        )
    split = data.test or data.val
    if split is not None:
        live, stored = task.evaluate(split), loaded.evaluate(split)
        _hold(_equal(live, stored), f"the live model scores {live}, the loaded one {stored}.")
    other = json.loads((folder / "task.json").read_text())
    other["format"] = checkpoint.FORMAT + 1
    (folder / "task.json").write_text(json.dumps(other))
    try:
        cls.from_pretrained(folder)
    except GnnlabError:
        return
    raise AssertionError("a checkpoint of a future format was loaded.")


def _check_predict(task: Task, query: Mapping[str, Any], root: Path) -> None:
    before = _weights(task)
    prediction = task.predict(**query)
    _hold(isinstance(prediction, Prediction), "predict did not return a Prediction.")
    _same(before, _weights(task), "predict changed the state of the task")
    prediction.save(root / "prediction.npz")
    if prediction.is_table:
        prediction.save(root / "prediction.csv")


def _build(cls: type[Task], config: Any, data: Data, train: TrainConfig) -> Task:
    torch.manual_seed(train.seed)
    return cls(config, data.spec)


def _fit(cls: type[Task], config: Any, data: Data, train: TrainConfig, out: Path | None) -> Task:
    return fit(_build(cls, config, data, train), data, train, out=out, progress=False).best


def _weights(task: Task) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in task.state_dict().items()}


def _same(first: dict[str, Tensor], second: dict[str, Tensor], what: str) -> None:
    _hold(first.keys() == second.keys(), f"{what}: other tensors.")
    for name, tensor in first.items():
        _hold(
            tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]),
            f"{what} (tensor {name}).",
        )


def _equal(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    return first.keys() == second.keys() and all(
        v == second[k] or (math.isnan(v) and math.isnan(second[k])) for k, v in first.items()
    )


def _hold(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)
