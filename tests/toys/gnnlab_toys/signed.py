"""A signed stream with memory: some nodes are trusted, some are not; predict each sign in time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from gnnlab import Data, Prediction, Split, Task


@dataclass(frozen=True, kw_only=True)
class SignedConfig:
    """Options."""

    lr: float = 0.1
    """Learning rate."""
    keep: float = 0.8
    """How much of a node's memory outlives an event."""
    batch: int = 25
    """Events per batch; they do not see one another."""


def auc(score, label):
    """Probability that a positive scores above a negative (ties count half)."""
    gap = score[label][:, None] - score[~label][None]
    return float((gap > 0).float().mean() + (gap == 0).float().mean() / 2)


class ToySigned(Task):
    """Memory is a running mean of received signs; a linear decoder reads it before each update."""

    name = "toysigned"
    Config = SignedConfig
    monitor = "auc"
    mode = "max"
    shardable = False
    headline = ("auc",)

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.decoder = nn.Linear(2, 1)
        nn.init.zeros_(self.decoder.weight)
        self.register_buffer("memory", torch.zeros(spec["num_nodes"]))

    @classmethod
    def read(cls, source, config):
        generator = torch.Generator().manual_seed(int(source))
        nodes, events = 30, 600
        trusted = torch.rand(nodes, generator=generator) < 0.5
        source_node = torch.randint(nodes, (events,), generator=generator)
        target_node = torch.randint(nodes, (events,), generator=generator)
        honest = torch.rand(events, generator=generator) < 0.9
        sign = trusted[target_node] == honest
        stream = torch.stack([source_node, target_node, sign.long()], 1)  # in order of time
        a, b = 400, 500
        return Data(
            train=Split(name="train", history=stream[:0], target=stream[:a]),
            val=Split(name="val", history=stream[:a], target=stream[a:b]),
            test=Split(name="test", history=stream[:b], target=stream[b:]),
            spec={"num_nodes": nodes},
        )

    def logit(self, events, memory):
        """Logits (B,) of a positive sign, from memories of earlier batches only."""
        both = torch.stack([memory[events[:, 0]], memory[events[:, 1]]], 1)
        return self.decoder(both).squeeze(1)

    def observe(self, events, memory):
        """The memory after the events, the mean of a node's events in the batch."""
        sign = events[:, 2].float() * 2 - 1
        total = torch.zeros_like(memory).index_add_(0, events[:, 1], sign)
        count = torch.zeros_like(memory).index_add_(0, events[:, 1], torch.ones_like(sign))
        new = self.config.keep * memory + (1 - self.config.keep) * total / count.clamp(min=1)
        return torch.where(count > 0, new, memory)

    def batches(self, split, *, generator, shard):
        self.memory.zero_()
        for part in split.target.split(self.config.batch):
            yield {"events": part}

    def loss(self, batch):
        events = batch["events"]
        logit = self.logit(events, self.memory)
        with torch.no_grad():  # after the prediction, never before
            self.memory.copy_(self.observe(events, self.memory))
        target = events[:, 2].float()
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logit, target)}

    @torch.no_grad()
    def evaluate(self, split):
        memory = torch.zeros_like(self.memory)
        for part in split.history.split(self.config.batch):
            memory = self.observe(part, memory)
        scores = []
        for part in split.target.split(self.config.batch):
            scores.append(self.logit(part, memory))
            memory = self.observe(part, memory)
        return {"auc": auc(torch.cat(scores), split.target[:, 2].bool())}

    @torch.no_grad()
    def predict(self, *, pairs: int = 4) -> Prediction:
        """Scores the first pairs (0, 1), (0, 2), ...

        Args:
            pairs: how many.
        """
        events = torch.stack(
            [torch.zeros(pairs), torch.arange(1, pairs + 1), torch.zeros(pairs)], 1
        )
        score = self.logit(events.long(), self.memory)
        return Prediction({"u": [0] * pairs, "v": range(1, pairs + 1), "score": score.numpy()})
