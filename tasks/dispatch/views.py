"""Instances as arrays, and what a policy over jobs sees of episodes that are played together."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from gnnlab.tasks.dispatch.instance import JobShopInstance

__all__ = ["JobView", "Problems"]


@dataclass(frozen=True)
class Problems:
    """Instances as arrays, padded to a common size, without a Python object for each.

    Args:
        machines: (I, J, L) int64, -1 after a job's last operation.
        times: (I, J, L) int64.
        lengths: (I, J) int64.
        num_machines: M, the same for all.
    """

    machines: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    num_machines: int

    def __len__(self) -> int:
        return len(self.machines)

    def __getitem__(self, index: int) -> JobShopInstance:
        return JobShopInstance(
            f"random-{index}",
            self.machines[index],
            self.times[index],
            self.lengths[index],
            self.num_machines,
        )


@dataclass
class JobView:
    """What a policy over jobs sees of B episodes with up to J jobs.

    Args:
        jobs: (B, J, 39) float32.
        shop: (B, 24) float32.
        mask: (B, J + 1) bool, legal actions; the last is WAIT.
        op: (B, J) int64, place j * L + i of a job's next operation, -1 without one.
        machine: (B, J) int64, the machine of that operation, -1 without one.
        ahead: (B, J + 1, A) float32, what lookahead thinks of each legal action: how much later
            than the best action the episode ends, in mean operation times; A may be 0.
    """

    jobs: torch.Tensor
    shop: torch.Tensor
    mask: torch.Tensor
    op: torch.Tensor
    machine: torch.Tensor
    ahead: torch.Tensor

    def to(self, device: torch.device) -> JobView:
        """Returns the same on another device."""
        return JobView(*(getattr(self, f.name).to(device) for f in fields(self)))

    def at(self, chosen: torch.Tensor) -> JobView:
        """Returns the decisions that a mask or an index chooses."""
        return JobView(*(getattr(self, f.name)[chosen] for f in fields(self)))
