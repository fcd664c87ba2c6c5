"""Tasks of which every number is known in advance: the weight is the number of the epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from gnnlab import Data, Prediction, Split, Task


@dataclass(frozen=True, kw_only=True)
class ScriptedConfig:
    """Options."""

    lr: float = 1.0
    """Learning rate; the weight grows by it in every epoch."""
    slope: float = 1.0
    """Factor of the loss."""
    scores: tuple[float, ...] = (0.1, 0.5, 0.3, 0.4, 0.2, 0.6)
    """What evaluation says after each epoch; -1 stands for NaN."""
    preset: Literal["short", "long"] | None = None
    """A set of weaker defaults."""
    nan_at: int = 0
    """Step whose loss is not a number."""
    spoil_at: int = 0
    """Step whose loss is finite and whose gradient is not."""
    interrupt_at: int = 0
    """Step at which the user presses Ctrl-C."""

    @classmethod
    def implied(cls, values):
        table = {"short": {"epochs": 2, "slope": 3.0}, "long": {"epochs": 5, "slope": 3.0}}
        return table.get(values.get("preset"), {})


class _Base(Task):
    Config = ScriptedConfig
    monitor = "score"
    headline = ("score",)

    @classmethod
    def read(cls, source, config):
        train, val, test = (Split(name=n, history=n, target=n) for n in ("train", "val", "test"))
        if source == "noval":
            return Data(train=train, test=test, spec={"size": 1})
        return Data(train=train, val=val, test=test, spec={"size": 1}, facts={"source": source})

    def predict(self, *, rows: int = 2) -> Prediction:
        """Repeats the weight.

        Args:
            rows: how often.
        """
        return Prediction({"row": range(rows), "weight": [float(self.weight)] * rows})


class _Trained(_Base):
    """Two steps of plain gradient descent an epoch; the weight ends at `epoch * lr * slope`."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.weight = nn.Parameter(torch.zeros(()))

    def optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=self.config.lr)

    @property
    def steps(self):
        done = 2 * float(self.weight.detach()) / (self.config.lr * self.config.slope)
        return -9 if math.isnan(done) else round(done)

    def batches(self, split, *, generator, shard):
        assert split.name == "train"
        yield from ({}, {})

    def loss(self, batch):
        step = self.steps + 1
        loss = -0.5 * self.config.slope * self.weight
        if step == self.config.nan_at:
            loss = loss * math.nan
        if step == self.config.spoil_at:
            loss = loss + (self.weight * 0).sqrt()
        if step == self.config.interrupt_at:
            raise KeyboardInterrupt
        return {"loss": loss}

    def evaluate(self, split):
        epoch = self.steps // 2
        score = self.config.scores[min(epoch, len(self.config.scores)) - 1]
        return {"score": math.nan if score == -1 else score}


class Scripted(_Trained):
    """A larger score is better."""

    name = "scripted"
    mode = "max"


class ScriptedMin(_Trained):
    """A smaller score is better."""

    name = "scriptedmin"
    mode = "min"


class Counted(_Base):
    """Closed form: nothing to train."""

    name = "counted"
    mode = "max"
    baselines: ClassVar = {"count": {}}

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.register_buffer("weight", torch.zeros(0))

    def prepare(self, train):
        self.weight = torch.tensor(7.0)

    def batches(self, split, *, generator, shard):
        raise AssertionError("a task without parameters has no training batches")

    def loss(self, batch):
        raise AssertionError("a task without parameters has no loss")

    def evaluate(self, split):
        return {"score": float(self.weight)}
