"""A moving mesh: heat on a ring, learned from noisy one-step pairs, judged on rollouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from gnnlab import Data, Graph, Prediction, Split, Task, ops


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Options."""

    lr: float = 0.02
    """Learning rate."""
    noise: float = 0.01
    """Standard deviation of the training noise."""
    nodes: int = 12
    """Nodes of the ring."""


def simulate(start, steps, k=0.1):
    """Frames (T, N) of x' = x + k * (left + right - 2 x), written with rolls: no graph in it."""
    frames = [start]
    for _ in range(steps):
        x = frames[-1]
        frames.append(x + k * (x.roll(1, -1) + x.roll(-1, -1) - 2 * x))
    return torch.stack(frames)


class ToyMesh(Task):
    """Learns a x + b * (sum of neighbours) + x."""

    name = "toymesh"
    Config = MeshConfig
    monitor = "rollout_rmse"
    mode = "min"
    headline = ("one_step_rmse", "rollout_rmse")

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.weights = nn.Parameter(torch.zeros(2))
        n = spec["num_nodes"]
        ring = torch.arange(n)
        edges = torch.stack([torch.cat([ring, ring]), torch.cat([ring.roll(1), ring.roll(-1)])])
        self.mesh = Graph(edges, n)

    @classmethod
    def read(cls, source, config):
        generator = torch.Generator().manual_seed(int(source))
        runs = [simulate(torch.randn(config.nodes, generator=generator), 20) for _ in range(6)]
        parts = [torch.stack(runs[i : i + 2]) for i in (0, 2, 4)]  # (2, T, N) each
        train, val, test = (
            Split(name=name, history=part[:, 0], target=part)
            for name, part in zip(("train", "val", "test"), parts, strict=True)
        )
        return Data(train=train, val=val, test=test, spec={"num_nodes": config.nodes})

    def step(self, x):
        """One frame on: x (B, N) -> (B, N)."""
        around = ops.spmm(self.mesh.plan, x.T.contiguous()).T
        return x + self.weights[0] * x + self.weights[1] * around

    def batches(self, split, *, generator, shard):
        now, then = split.target[:, :-1].flatten(0, 1), split.target[:, 1:].flatten(0, 1)
        order = torch.randperm(len(now), generator=generator)[shard.index :: shard.count]
        noise = torch.randn(now.shape, generator=generator) * self.config.noise
        for part in order.split(10):
            yield {"now": (now + noise)[part], "then": then[part]}

    def loss(self, batch):
        return {"loss": (self.step(batch["now"]) - batch["then"]).square().mean()}

    @torch.no_grad()
    def rollout(self, start, steps):
        """Frames (B, T, N) from the first one."""
        frames = [start]
        for _ in range(steps):
            frames.append(self.step(frames[-1]))
        return torch.stack(frames, 1)

    @torch.no_grad()
    def evaluate(self, split):
        truth = split.target
        one = self.step(truth[:, :-1].flatten(0, 1)) - truth[:, 1:].flatten(0, 1)
        full = self.rollout(split.history, truth.shape[1] - 1) - truth
        return {
            "one_step_rmse": float(one.square().mean().sqrt()),
            "rollout_rmse": float(full.square().mean().sqrt()),
        }

    def predict(self, *, steps: int = 5) -> Prediction:
        """Rolls out a single bump.

        Args:
            steps: number of frames.
        """
        start = torch.zeros(1, self.spec["num_nodes"])
        start[0, 0] = 1
        return Prediction({"trajectory": self.rollout(start, steps)[0].numpy()})
