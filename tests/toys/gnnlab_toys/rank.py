"""Ranking: two groups of users, each taking items of its own group."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from gnnlab import Data, Prediction, Split, Task


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Options."""

    lr: float = 0.05
    """Learning rate."""
    dim: int = 4
    """Width of the vectors."""


class ToyRank(Task):
    """Matrix factorisation with a pairwise loss."""

    name = "toyrank"
    Config = RankConfig
    monitor = "recall@5"
    mode = "max"
    headline = ("recall@5",)

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.users = nn.Parameter(torch.randn(spec["num_users"], config.dim) * 0.1)
        self.items = nn.Parameter(torch.randn(spec["num_items"], config.dim) * 0.1)
        self.register_buffer("seen", torch.zeros(0, dtype=torch.bool))

    @classmethod
    def read(cls, source, config):
        generator = torch.Generator().manual_seed(int(source))
        users, items = 20, 20
        group = torch.arange(users)[:, None] % 2 == torch.arange(items)[None] % 2
        draw = torch.rand(users, items, generator=generator)
        train, val, test = (
            group & (draw >= a) & (draw < b) for a, b in ((0, 0.6), (0.6, 0.8), (0.8, 1))
        )
        return Data(
            train=Split(name="train", history=train, target=train),
            val=Split(name="val", history=train, target=val),
            test=Split(name="test", history=train | val, target=test),
            spec={"num_users": users, "num_items": items},
        )

    def prepare(self, train):
        self.seen = train.history

    def batches(self, split, *, generator, shard):
        user, pos = split.target.nonzero(as_tuple=True)
        order = torch.randperm(len(user), generator=generator)[shard.index :: shard.count]
        neg = torch.randint(split.target.shape[1], (len(user),), generator=generator)
        for part in order.split(16):
            yield {"user": user[part], "pos": pos[part], "neg": neg[part]}

    def loss(self, batch):
        user = self.users[batch["user"]]
        gap = (user * (self.items[batch["pos"]] - self.items[batch["neg"]])).sum(1)
        return {"loss": nn.functional.softplus(-gap).mean()}

    @torch.no_grad()
    def evaluate(self, split):
        scores = (self.users @ self.items.T).masked_fill(split.history, -torch.inf)
        top = torch.zeros_like(split.target).scatter_(1, scores.topk(5).indices, True)
        wanted = split.target.sum(1)
        recall = (top & split.target).sum(1)[wanted > 0] / wanted[wanted > 0]
        return {"recall@5": float(recall.mean())}

    @torch.no_grad()
    def predict(self, *, k: int = 3) -> Prediction:
        """Returns the k best unseen items of every user.

        Args:
            k: length of the lists.
        """
        best = (self.users @ self.items.T).masked_fill(self.seen, -torch.inf).topk(k)
        rows = torch.arange(len(self.users)).repeat_interleave(k)
        return Prediction(
            {
                "user": rows.numpy(),
                "item": best.indices.flatten().numpy(),
                "score": best.values.flatten().numpy(),
            }
        )
