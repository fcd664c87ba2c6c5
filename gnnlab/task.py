"""The one interface that every kind of graph system passes through.

A task says how its data is read, how it is cut into batches, what its loss is, how it is judged and
what it predicts. Everything else (the loop, checkpoints, the command line, reports, conformance
tests) is written once, against this page. `docs/design/task.md` walks four very different tasks
through it.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.errors import ConfigError, DataError
from gnnlab.prediction import Prediction

__all__ = ["Data", "Prediction", "Shard", "Split", "Task"]

SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of the data: what the model may look at, and what it must produce.

    For the training split both are usually the same object. For validation and test, `history` is
    everything known before the question is asked and `target` is the answer sheet: only
    `Task.evaluate` reads it.
    """

    name: SplitName
    """Which part this is."""
    history: Any
    """What the model may look at (seen interactions, first frames, instances, earlier events)."""
    target: Any
    """What it must produce (held-out interactions, trajectories, best makespans, next events)."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Validated data of a task: up to three splits and a few small facts."""

    train: Split
    """What the model learns from."""
    val: Split | None = None
    """What chooses the epoch and the options; None when there is no validation part."""
    test: Split | None = None
    """What is reported, and never used to choose anything."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON-able facts that size the model (num_users, node_dim, ...); saved with it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts for people: counts, rows dropped, how the split was made."""

    def __post_init__(self) -> None:
        self.validate()

    def split(self, name: str) -> Split:
        """Returns the split called `name`; DataError when the data has none."""
        if name not in ("train", "val", "test"):
            raise ConfigError(f'unknown split "{name}". Known: train, val, test.')
        found: Split | None = getattr(self, name)
        if found is None:
            raise DataError(f'this data has no "{name}" split.')
        return found

    def validate(self) -> None:
        """Checks what no task may get wrong: names of the splits and a JSON-able spec."""
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if part is not None and part.name != name:
                raise DataError(f'the {name} split calls itself "{part.name}".')
        try:
            json.dumps(dict(self.spec))
        except TypeError as error:
            raise DataError(f"Data.spec must hold small JSON-able facts: {error}.") from None

    def summary(self) -> str:
        """Returns the facts as lines of text, aligned, for a terminal."""
        width = max((len(str(k)) for k in self.facts), default=0)
        return "\n".join(f"{k!s:<{width}}  {v}" for k, v in self.facts.items())


@dataclass(frozen=True)
class Shard:
    """Which part of the training batches this process takes: every `count`-th, from `index`."""

    index: int = 0
    """Rank of this process, 0-based."""
    count: int = 1
    """Number of processes."""


class Task(nn.Module, ABC):
    """A graph system: data, model, loss, protocol and predictions behind one interface.

    A task is a module: its parameters are trained, and its *state dict is the whole model*. What
    `prepare` computes and inference needs (a similarity matrix, id maps, the normaliser) is kept in
    persistent buffers, so that a checkpoint predicts without the training data. A buffer whose size
    is known only after `prepare` starts as an empty tensor.

    Subclasses are final. They set the class attributes and write five methods: `read`, `batches`,
    `loss`, `evaluate`, `predict`; `gnnlab.testing.check_task` certifies the result.
    """

    name: ClassVar[str]
    """Registry name, one short lowercase noun."""
    Config: ClassVar[type]
    """Frozen keyword-only dataclass of every option, defaults of the published method."""
    monitor: ClassVar[str]
    """The metric that picks the best checkpoint, for example "ndcg@20"."""
    mode: ClassVar[Literal["max", "min"]]
    """Whether a larger or a smaller `monitor` is better."""
    shardable: ClassVar[bool] = True
    """Whether training batches may be dealt out over processes."""
    headline: ClassVar[tuple[str, ...]] = ()
    """The metrics that tables show; check_task wants `monitor` among them."""
    baselines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Row name -> config values of the simple models that every comparison prints alongside."""
    demo: ClassVar[Mapping[str, Any]] = {}
    """What `gnnlab demo` compares: "source", "models" and "values", and the "commands" that it then
    suggests; empty takes no part."""
    commands: ClassVar[Mapping[str, str]] = {}
    """Verb -> "module:function": what `gnnlab TASK` can do beside `compare`. The function's typed
    arguments become flags, its numpydoc docstring their help, and it returns the exit code; its
    module is imported only for `gnnlab TASK ...`."""
    divergence_advice: ClassVar[str] = "Lower the learning rate."
    """What to try when the loss is not finite; printed with the error."""
    citation: ClassVar[str] = ""
    """BibTeX of the method."""

    def __init__(self, config: Any, spec: Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(config, type(self).Config):
            raise ConfigError(
                f"{type(self).__name__} expected a {type(self).Config.__name__}, "
                f"got {type(config).__name__}."
            )
        self.config: Any = config
        self.spec = dict(spec)

    # ---- the five methods -------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def read(cls, source: Any, config: Any) -> Data:
        """Turns a path, a dataset name or in-memory objects into validated data.

        Raises:
            DataError: naming the place and the value that is wrong.
        """

    @abstractmethod
    def batches(
        self, split: Split, *, generator: torch.Generator, shard: Shard
    ) -> Iterator[Mapping[str, Any]]:
        """Yields one epoch of batches; all ordering, sampling and experience collection is here.

        It is a lazy generator that runs between optimiser steps, so it may use the current weights
        (a policy collecting its own experience). All randomness comes from `generator`, whose state
        is part of the checkpoint.
        """

    @abstractmethod
    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns scalars; "loss" is optimised, the other entries are logged."""

    @abstractmethod
    def evaluate(self, split: Split) -> dict[str, float]:
        """Scores `split` by the task's own protocol: a pure function of weights and split."""

    @abstractmethod
    def predict(self, *args: Any, **query: Any) -> Prediction:
        """Answers a user's question. Subclasses name their keywords, which become flags.

        The open signature lets a type checker accept any keyword-only one in a subclass.
        """

    # ---- optional hooks ---------------------------------------------------------------------

    def prepare(self, train: Split) -> None:
        """Runs once before the loop: closed-form models do all their work here.

        The default does nothing. It must be deterministic given torch's global seed; when training
        resumes it runs again and the saved state is loaded over it.
        """

    def optimizer(self) -> torch.optim.Optimizer:
        """Returns the optimiser; the default is Adam at `config.lr`."""
        return torch.optim.Adam(self.parameters(), lr=getattr(self.config, "lr", 1e-3))

    def lr_factor(self, step: int) -> float:
        """Returns what the learning rate is multiplied by at the 0-based optimiser step `step`.

        A pure function instead of a scheduler object: there is no state that a checkpoint could
        lose. The default keeps the rate.
        """
        return 1.0

    def query(self, source: Path) -> dict[str, Any]:
        """Reads the file given to `gnnlab predict --input` into keywords of `predict`."""
        raise ConfigError(f'task "{self.name}" predicts without --input.')

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:
        """Returns a row per data set that `read` knows by name; "name" and "where" at least."""
        return []

    @classmethod
    def fetch(cls, name: str) -> str:
        """Downloads a public data set into the user's cache, checks it, and returns its path."""
        raise ConfigError(f'task "{cls.name}" fetches no data sets.')

    # ---- what the house adds ----------------------------------------------------------------

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Calls `loss`, so that wrappers that hook `forward` (data parallelism) see every step."""
        return self.loss(batch)

    @property
    def trainable(self) -> bool:
        """Whether there is anything for the loop to do."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def save_pretrained(self, path: str | Path) -> Path:
        """Writes the model (safetensors + JSON, no pickle) into the folder `path`, atomically."""
        from gnnlab import checkpoint

        return checkpoint.save(self, path)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Task:
        """Loads what `save_pretrained` or a run wrote; CheckpointError for another task."""
        from gnnlab import checkpoint

        return checkpoint.load(path, cls)

    def config_dict(self) -> dict[str, Any]:
        """Returns the resolved configuration as plain values."""
        return dataclasses.asdict(self.config)
