"""A one-machine shop by PPO: order the jobs so that the weighted completion time is least.

Smith's rule (largest weight per time first) is optimal, so the gap to it is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from gnnlab import Data, Prediction, Split, Task


@dataclass(frozen=True, kw_only=True)
class ShopConfig:
    """Options."""

    lr: float = 0.05
    """Learning rate."""
    inner_epochs: int = 2
    """Passes over the collected experience."""
    clip: float = 0.2
    """PPO's clip range."""
    jobs: int = 5
    """Jobs per instance."""


def smith_cost(times, weights):
    """Optimal cost (B,) by Smith's rule."""
    order = (weights / times).argsort(1, descending=True)
    return (weights.gather(1, order) * times.gather(1, order).cumsum(1)).sum(1)


class ToyShop(Task):
    """A linear policy over (time, weight, weight per time), trained by clipped PPO."""

    name = "toyshop"
    Config = ShopConfig
    monitor = "gap"
    mode = "min"
    shardable = False
    headline = ("cost", "gap")
    commands: ClassVar[Mapping[str, str]] = {"smith": "gnnlab_toys.verbs:smith"}

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.policy = nn.Linear(3, 1)

    @classmethod
    def read(cls, source, config):
        generator = torch.Generator().manual_seed(int(source))

        def split(name, count):
            draw = torch.rand(2, count, config.jobs, generator=generator) * 9 + 1
            instances = {"times": draw[0], "weights": draw[1]}
            return Split(name=name, history=instances, target=smith_cost(draw[0], draw[1]))

        return Data(
            train=split("train", 64),
            val=split("val", 32),
            test=split("test", 32),
            spec={"jobs": config.jobs},
        )

    def logits(self, times, weights, done):
        """Log probabilities (B, J) over the jobs left."""
        features = torch.stack([times / 10, weights / 10, weights / times], -1)
        scores = self.policy(features).squeeze(-1).masked_fill(done, -torch.inf)
        return scores.log_softmax(-1)

    @torch.no_grad()
    def rollout(self, instances, generator=None):
        """Plays every instance to the end; greedy without a generator. Returns steps and cost."""
        times, weights = instances["times"], instances["weights"]
        done = torch.zeros_like(times, dtype=torch.bool)
        clock, cost, steps = torch.zeros(len(times)), torch.zeros(len(times)), []
        for _ in range(times.shape[1]):
            logp = self.logits(times, weights, done)
            if generator is None:
                action = logp.argmax(1)
            else:
                action = torch.multinomial(logp.exp(), 1, generator=generator).squeeze(1)
            chosen = action[:, None]
            steps.append(
                {"done": done.clone(), "action": action, "logp": logp.gather(1, chosen).squeeze(1)}
            )
            clock = clock + times.gather(1, chosen).squeeze(1)
            cost = cost + clock * weights.gather(1, chosen).squeeze(1)
            done = done.scatter(1, chosen, True)
        return steps, cost

    def batches(self, split, *, generator, shard):
        times, weights = split.history["times"], split.history["weights"]
        steps, cost = self.rollout(split.history, generator)
        _, greedy = self.rollout(split.history)
        advantage = (greedy - cost) / greedy  # self-critical baseline
        count = len(steps)
        rows = {
            "times": times.repeat(count, 1),
            "weights": weights.repeat(count, 1),
            "advantage": advantage.repeat(count),
            **{k: torch.cat([s[k] for s in steps]) for k in ("done", "action", "logp")},
        }
        for _ in range(self.config.inner_epochs):
            order = torch.randperm(len(rows["action"]), generator=generator)
            for part in order.split(80):
                yield {k: v[part] for k, v in rows.items()}

    def loss(self, batch):
        logp = self.logits(batch["times"], batch["weights"], batch["done"])
        chosen = logp.gather(1, batch["action"][:, None]).squeeze(1)
        ratio = (chosen - batch["logp"]).exp()
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        gain = torch.minimum(ratio * batch["advantage"], clipped * batch["advantage"]).mean()
        kept = logp.masked_fill(batch["done"], 0)
        entropy = -(kept.exp() * kept).masked_fill(batch["done"], 0).sum(1).mean()
        return {"loss": -gain - 0.001 * entropy, "entropy": entropy.detach()}

    def evaluate(self, split):
        _, cost = self.rollout(split.history)
        return {"cost": float(cost.mean()), "gap": float((cost / split.target - 1).mean())}

    def predict(self, *, seed: int = 0) -> Prediction:
        """Schedules one random instance.

        Args:
            seed: of the instance.
        """
        generator = torch.Generator().manual_seed(seed)
        draw = torch.rand(2, 1, self.spec["jobs"], generator=generator) * 9 + 1
        steps, _ = self.rollout({"times": draw[0], "weights": draw[1]})
        return Prediction(
            {"position": range(1, len(steps) + 1), "job": [int(s["action"]) for s in steps]}
        )
