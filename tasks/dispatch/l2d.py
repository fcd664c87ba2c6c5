"""`L2DPolicy`: the network of L2D (Zhang et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gnnlab.errors import CheckpointError, ConfigError
from gnnlab.layers import GINConv
from gnnlab.ops import EdgePlan
from gnnlab.tasks.dispatch.l2d_shop import L2DShop, L2DView

__all__ = ["L2DPolicy"]


class L2DPolicy(nn.Module):
    r"""L2D's policy and critic: a graph isomorphism network over the schedule so far.

    Messages go from an operation to the next of its job and to the next on its machine. Each of K
    updates sums them and the node itself, applies two linear maps, normalises, and rectifies:

    $$ h' = \mathrm{relu}\,\mathrm{norm}\,\mathrm{MLP}\bigl(h + \textstyle\sum_{\mathrm{pred}} h
       \bigr) $$

    The actor rates a job by its next operation and the mean of the graph; the critic reads the
    mean.

    Args:
        hidden: size of states.
        layers: K.
        norm: "graph" normalises over the nodes of each schedule, so that batches do not matter;
            "batch_train" over the whole batch at all times, as the authors' code does.

    Shapes:
        view: B partial schedules of J jobs.
        returns: logits (B, J), -inf for finished jobs, and values (B,).

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = L2DShop([JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])])
        >>> policy = L2DPolicy()
        >>> logits, values = policy(policy.observe(shop))
        >>> logits.shape, values.shape
        (torch.Size([1, 2]), torch.Size([1]))

    Reference: Zhang et al., NeurIPS 2020, arXiv:2010.12367. Differs from it in: the normalisation,
    unless `norm="batch_train"`.
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 2,
        *,
        norm: Literal["graph", "batch_train"] = "graph",
    ) -> None:
        super().__init__()
        if norm not in ("graph", "batch_train"):
            raise ConfigError(f'unknown norm "{norm}": graph or batch_train.')
        sizes = [2] + [hidden] * (layers - 1)
        self.blocks = nn.ModuleList(_Block(size, hidden, norm == "graph") for size in sizes)
        self.actor = nn.Sequential(nn.Linear(2 * hidden, 32), nn.Tanh(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(hidden, 32), nn.Tanh(), nn.Linear(32, 1))

    def load_original(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the weights of the authors' network.

        Args:
            state: the state dict of a file such as their `SavedNetwork/6_6_1_99.pth`.

        Raises:
            CheckpointError: if the weights are of another network.
        """
        names = {"actor": "actor.linears", "critic": "critic.linears"}
        found = {}
        for k in range(len(self.blocks)):
            inside = f"feature_extract.mlps.{k}."
            names[f"blocks.{k}.conv.net"] = inside + "linears.0"
            names[f"blocks.{k}.lin"] = inside + "linears.1"
            names[f"blocks.{k}.inner"] = inside + "batch_norms.0"
            names[f"blocks.{k}.outer"] = f"feature_extract.batch_norms.{k}"
        for name, own in self.state_dict().items():
            part, _, kind = name.rpartition(".")
            if part.startswith(("actor", "critic")):  # maps 0 and 2 of the sequence
                head, _, index = part.partition(".")
                theirs = f"{names[head]}.{int(index) // 2}.{kind}"
            elif part in names:
                theirs = f"{names[part]}.{kind}"
            else:
                continue  # the fixed eps of a convolution
            if theirs not in state or state[theirs].shape != own.shape:
                raise CheckpointError(
                    f'L2DPolicy.load_original: expected "{theirs}" of shape {tuple(own.shape)}.'
                )
            found[name] = state[theirs]
        self.load_state_dict(found, strict=False)

    def observe(self, shop: L2DShop, rows: np.ndarray | None = None) -> L2DView:
        """Returns what the policy needs to see of rows of a shop."""
        return shop.view(rows)

    def forward(self, view: L2DView) -> tuple[Tensor, Tensor]:
        """Returns logits (B, J) and values (B,)."""
        graphs, nodes, _ = view.x.shape
        plan, h = _plan(view), view.x.flatten(0, 1)
        for block in self.blocks:
            h = block(h, plan, graphs)
        h = h.view(graphs, nodes, -1)
        mean = h.mean(1)
        at = torch.arange(graphs, device=h.device)[:, None]
        jobs = h[at, view.candidate]
        rated = torch.cat([jobs, mean[:, None].expand_as(jobs)], 2)
        logits = self.actor(rated).squeeze(2).masked_fill(~view.mask, -math.inf)
        return logits, self.critic(mean).squeeze(1)


class _Block(nn.Module):
    """One update: sums, two linear maps with a norm between them, and a norm after them."""

    def __init__(self, in_dim: int, hidden: int, per_graph: bool) -> None:
        super().__init__()
        self.conv = GINConv(nn.Linear(in_dim, hidden))
        self.lin = nn.Linear(hidden, hidden)
        self.inner, self.outer = _Norm(hidden, per_graph), _Norm(hidden, per_graph)

    def forward(self, h: Tensor, plan: EdgePlan, graphs: int) -> Tensor:
        h = self.inner(self.conv(h, plan), graphs).relu()
        out: Tensor = self.outer(self.lin(h), graphs).relu()
        return out


class _Norm(nn.Module):
    """Batch normalisation by the statistics of what it is given: of each graph, or of all."""

    def __init__(self, dim: int, per_graph: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.per_graph = per_graph

    def forward(self, x: Tensor, graphs: int) -> Tensor:
        groups = x.view(graphs if self.per_graph else 1, -1, x.shape[1])
        var, mean = torch.var_mean(groups, 1, correction=0, keepdim=True)
        y = (groups - mean) * (var + 1e-5).rsqrt()
        return y.view_as(x) * self.weight + self.bias


def _plan(view: L2DView) -> EdgePlan:
    """Returns the edges from operations to those after them, in the job and on the machine."""
    graphs, nodes = view.before.shape
    ids = torch.arange(graphs * nodes, device=view.before.device)
    later = ids[ids % view.length != 0]
    before = view.before + (nodes * torch.arange(graphs, device=ids.device))[:, None]
    has = (view.before >= 0).flatten()
    source = torch.cat([later - 1, before.flatten()[has]])
    return EdgePlan(torch.stack([source, torch.cat([later, ids[has]])]), len(ids), len(ids))
