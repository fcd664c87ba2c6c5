"""`JobPolicy`: reads an instance once as a graph, then decides by attention over its jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnlab import ops
from gnnlab.tasks.dispatch._native import GLOBAL_FEATURES, JOB_FEATURES
from gnnlab.tasks.dispatch.batched import JobView, Problems
from gnnlab.tasks.dispatch.guide import GUIDE_FACTS
from gnnlab.tasks.dispatch.lookahead import Lookahead

__all__ = ["JobPolicy", "OperationEncoder"]

_FACTS = 6
_TRUST = [1.0, 4.0]  # what a mean operation time behind the best action costs at first


@dataclass(frozen=True)
class _Operations:
    """Instances of one padded size as flat tensors: I instances, N = I * J * L places."""

    facts: Tensor  # (N, 6)
    machine: Tensor  # (N,) of all machines of all instances
    before: Tensor  # (N,) place of the job's previous operation, or N
    after: Tensor  # (N,) of its next one, or N
    group: Tensor  # (N,) instance
    exists: Tensor  # (N, 1) float
    num_machines: int
    num_instances: int


def _operations(problems: Problems, device: torch.device) -> _Operations:
    times = torch.from_numpy(np.where(problems.machines < 0, 0, problems.times)).float()
    lengths = torch.from_numpy(problems.lengths)
    count, _, longest = times.shape
    exists = torch.arange(longest) < lengths[..., None]
    place = torch.arange(times.numel()).view_as(times)
    group = torch.arange(count)[:, None, None].expand_as(place)
    machine = torch.from_numpy(problems.machines).clamp(min=0) + group * problems.num_machines
    load = ops.scatter(times.reshape(-1, 1), machine.reshape(-1), count * problems.num_machines)
    total = times.sum(2, keepdim=True)
    done = times.cumsum(2)
    whole = torch.maximum(total.amax((1, 2)), load.view(count, -1).amax(1)).clamp(min=1)
    whole = whole[:, None, None]
    mean = (times.sum((1, 2)) / lengths.sum(1)).clamp(min=1e-9)[:, None, None]
    position = torch.arange(longest) / lengths[..., None]
    machine_load = load.view(-1)[machine] / whole
    facts = torch.stack(
        [
            times / mean,
            done / total.clamp(min=1),
            (total - done) / whole,
            done / whole,
            machine_load,
            position,
        ],
        -1,
    )
    nowhere = times.numel()
    before = torch.where(place % longest > 0, place - 1, nowhere)
    after = torch.where((torch.arange(longest) + 1 < lengths[..., None]), place + 1, nowhere)
    return _Operations(
        (facts * exists[..., None]).view(-1, _FACTS).to(device),
        machine.reshape(-1).to(device),
        before.reshape(-1).to(device),
        after.reshape(-1).to(device),
        group.reshape(-1).to(device),
        exists.reshape(-1, 1).float().to(device),
        count * problems.num_machines,
        count,
    )


class OperationEncoder(nn.Module):
    r"""Graph layers over the operations of an instance: predecessor, successor, machine, all.

    $$ h_v' = h_v + W_2 \operatorname{relu}\big(W_1 [z_v, z_{pred(v)}, z_{succ(v)},
       \operatorname{mean}_{u \in M(v)} z_u, \operatorname{mean}_u z_u]\big), \quad
       z = \operatorname{LayerNorm}(h) $$

    M(v) are the operations on the machine of v, itself included.

    Args:
        dim: width F of the vectors.
        layers: how many layers.

    Shapes:
        returns: (I, J * L, F) for I instances padded to J jobs of L operations.
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.read = nn.Linear(_FACTS, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.mix = nn.ModuleList(nn.Linear(5 * dim, dim) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def forward(self, problems: Problems) -> Tensor:
        """Returns a vector per operation."""
        o = _operations(problems, self.read.weight.device)
        h = self.read(o.facts)
        share = ops.scatter(o.exists, o.machine, o.num_machines).clamp(min=1)
        whole = ops.scatter(o.exists, o.group, o.num_instances)
        for norm, mix, out in zip(self.norms, self.mix, self.out, strict=True):
            z = norm(h) * o.exists
            padded = functional.pad(z, (0, 0, 0, 1))
            machine = ops.scatter(z, o.machine, o.num_machines) / share
            everything = ops.scatter(z, o.group, o.num_instances) / whole
            near = [z, padded[o.before], padded[o.after], machine[o.machine], everything[o.group]]
            h = h + out(mix(torch.cat(near, -1)).relu())
        vectors: Tensor = h.view(o.num_instances, -1, h.shape[-1])
        return vectors


class _Block(nn.Module):
    """Attention over the jobs of a shop, and a small network per job; both add to their input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        count, jobs, dim = x.shape
        parts = self.qkv(self.first(x)).view(count, jobs, 3, self.heads, dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        weight = torch.softmax(q @ k.transpose(-1, -2) * (dim // self.heads) ** -0.5 + bias, -1)
        x = x + self.out((weight @ v).transpose(1, 2).reshape(count, jobs, dim))
        result: Tensor = x + self.down(self.up(self.second(x)).relu())
        return result


class JobPolicy(nn.Module):
    """Scores the jobs that a machine may take next, and waiting.

    The instance is read once as a graph of operations; each decision then adds what has happened
    since. Half of the attention heads look at all jobs in the shop, half only at those that want
    the same machine next. Nothing depends on the number of jobs or machines, nor on their order.

    Args:
        dim: width F of the vectors.
        layers: attention layers over jobs.
        encoder_layers: graph layers over operations.
        heads: attention heads, an even number.
        ahead: A, numbers per action that lookahead gives; 0 without one.
        guided: whether the noisy episodes of lookahead are played by a learned rule, whose weights
            `guide` (F,) float64 are kept here.

    Shapes:
        encode: (I, J * L, F).
        forward: logits (B, J + 1), -inf where an action is not legal; the last is WAIT.
    """

    def __init__(
        self,
        dim: int = 64,
        layers: int = 2,
        encoder_layers: int = 2,
        heads: int = 4,
        ahead: int = 0,
        guided: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = OperationEncoder(dim, encoder_layers)
        self.jobs = nn.Linear(JOB_FEATURES + 2 * ahead, dim)
        self.shop = nn.Linear(GLOBAL_FEATURES, dim)
        self.operation = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.score = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.wait = nn.Sequential(nn.Linear(2 * dim + 2 * ahead, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.trust = nn.Parameter(torch.tensor(_TRUST)) if ahead else None
        self.heads = heads
        self.guide: Tensor | None
        weights = torch.zeros(len(GUIDE_FACTS), dtype=torch.float64) if guided else None
        self.register_buffer("guide", weights)

    def informed(self, lookahead: Lookahead | None) -> Lookahead | None:
        """Returns lookahead whose noisy episodes the guide plays, if there is one."""
        if lookahead is None or self.guide is None:
            return lookahead
        return replace(lookahead, guide=tuple(self.guide.tolist()))

    def encode(self, problems: Problems) -> Tensor:
        """Returns what is known of each operation before anything has happened."""
        vectors: Tensor = self.operation(self.encoder(problems))
        return vectors

    def reading(self, problems: Problems) -> Callable[[JobView, Tensor], Tensor]:
        """Returns what gives the logits of decisions about these instances, for playing."""
        with torch.no_grad():
            vectors = self.encode(problems)

        def act(view: JobView, instance: Tensor) -> Tensor:
            device = vectors.device
            logits: Tensor = self(view.to(device), vectors, instance.to(device))
            return logits.cpu()

        return act

    def forward(self, view: JobView, vectors: Tensor, instance: Tensor) -> Tensor:
        """Returns the logits of the decisions.

        Args:
            view: B decisions.
            vectors: what `encode` returned.
            instance: (B,) int64, the instance of each decision.
        """
        jobs = view.op.shape[1]
        here = view.jobs[..., 1:4].sum(-1) > 0  # unfinished
        op = instance[:, None] * vectors.shape[1] + view.op.clamp(min=0)
        known = vectors.reshape(-1, vectors.shape[-1])[op] * (view.op >= 0)[..., None]
        ahead = torch.cat([view.ahead, view.ahead / (1 + view.ahead)], -1)  # far and near
        x = (
            self.jobs(torch.cat([view.jobs, ahead[:, :-1]], -1))
            + self.shop(view.shop)[:, None]
            + known
        )
        rivals = (view.machine[:, :, None] == view.machine[:, None, :]) & here[:, None, :]
        seen = torch.stack([here[:, None, :].expand(-1, jobs, -1), rivals], 1)
        bias = torch.where(seen, 0.0, -1e9).repeat_interleave(self.heads // 2, 1)
        for block in self.blocks:
            x = block(x, bias)
        x = self.norm(x)
        inside = here[..., None]
        mean = (x * inside).sum(1) / inside.sum(1).clamp(min=1)
        most = x.masked_fill(~inside, -1e9).amax(1)
        wait = self.wait(torch.cat([mean, most, ahead[:, -1]], -1))
        logits = torch.cat([self.score(x).squeeze(-1), wait], 1)
        if self.trust is not None:  # of mean and least makespan
            logits = logits - view.ahead[..., -2:] @ self.trust
        return logits.masked_fill(~view.mask, -torch.inf)
