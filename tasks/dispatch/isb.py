"""`IsbPolicy`: a policy and its critic on the dynamic disjunctive graph of a shop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gnnlab.layers import MLP
from gnnlab.ops import scatter
from gnnlab.tasks.dispatch._native import MACHINE_FEATURES, OP_FEATURES

if TYPE_CHECKING:
    import numpy as np

    from gnnlab.tasks.dispatch.batched import BatchedShop
    from gnnlab.tasks.dispatch.graph_view import GraphView

__all__ = ["IsbPolicy", "orthogonal"]

DOWN = 11  # column "machine is down" of an operation


class IsbPolicy(nn.Module):
    r"""Chooses the next job of an interrupting, swap-allowed, blocking job shop by a graph network.

    Each layer updates an operation from the operations before and after it in its job, those of
    other jobs that its machine has yet to start, and the whole graph:

    $$ h' = \mathrm{LN}\, f_n\bigl[\mathrm{relu}\, f_p(\textstyle\sum_{\mathrm{pred}} h),\;
       \mathrm{relu}\, f_s(\sum_{\mathrm{succ}} h),\; \mathrm{relu}\, f_d(D),\;
       \mathrm{relu}\, G,\; h,\; x\bigr] $$

    with D and G sums over disjunctive neighbours and all operations. The extended form takes means
    for D and G, so that sizes of shops do not matter, and adds messages from the operation that
    blocks a machine, from those that it blocks, and between operations and machines, which have
    states of their own.

    The actor rates each legal job by its next operation, the machine of that, and the mean of the
    graph; WAIT by the mean alone. The critic reads mean and maximum. The number of parameters does
    not depend on the size of a shop.

    Args:
        dim: size of states and of hidden layers.
        layers: K.
        extended: whether the extended form is used.
        delete_down: whether a machine that is down loses its disjunctive and blocking edges.

    Shapes:
        view: B episodes with up to J jobs.
        returns: logits (B, J + 1), -inf where an action is not legal, and values (B,).

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> from gnnlab.tasks.dispatch.batched import BatchedShop
        >>> shop = BatchedShop([JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])])
        >>> policy = IsbPolicy()
        >>> logits, values = policy(policy.observe(shop))
        >>> logits.shape, values.shape
        (torch.Size([1, 3]), torch.Size([1]))

    Reference: Wong et al. 2023, arXiv:2302.02506, in the form of Park et al. 2021,
    arXiv:2106.01086. Differs from them in: the extended form, layer norm, machine states, sizes.
    """

    def __init__(
        self, dim: int = 64, layers: int = 3, *, extended: bool = True, delete_down: bool = False
    ) -> None:
        super().__init__()
        if dim < 1 or layers < 1:
            raise ValueError(f"IsbPolicy: dim is {dim} and layers {layers}; both must be 1 or more")
        self.extended, self.delete_down = extended, delete_down
        sizes = [(OP_FEATURES, MACHINE_FEATURES)] + [(dim, dim)] * (layers - 1)
        self.layers = nn.ModuleList(_Layer(ops, ms, dim, extended) for ops, ms in sizes)
        self.machine_encoder = None if extended else _mlp(MACHINE_FEATURES, dim, dim)
        self.actor = _mlp(3 * dim, dim, 1)
        self.waiter = _mlp(dim, dim, 1)
        self.critic = _mlp(2 * dim, dim, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws orthogonal weights anew, small ones for the actor's last map; biases are 0."""
        orthogonal(self, math.sqrt(2))
        orthogonal(self.actor.lins[-1], 0.01)
        orthogonal(self.waiter.lins[-1], 0.01)
        orthogonal(self.critic.lins[-1], 1.0)

    def observe(self, shop: BatchedShop, rows: np.ndarray | None = None) -> GraphView:
        """Returns what the policy needs to see of rows of a shop."""
        return shop.graph(rows, disjunctive="star", delete_down=self.delete_down)

    def forward(self, view: GraphView) -> tuple[Tensor, Tensor]:
        """Returns logits (B, J + 1) and values (B,)."""
        groups = _groups(view, self.delete_down)
        h, machines = view.x_op, view.x_machine
        for layer in self.layers:
            h, machines = layer(view, groups, h, machines)
        if self.machine_encoder is not None:
            machines = self.machine_encoder(view.x_machine)
        mean = scatter(h, view.op_row, len(view), reduce="mean")
        most = scatter(h, view.op_row, len(view), reduce="max")
        value = self.critic(torch.cat([mean, most], 1)).squeeze(1)

        rows, jobs = view.mask[:, :-1].nonzero(as_tuple=True)
        node = view.candidate[rows, jobs]
        rated = torch.cat([h[node], machines[groups.machine[node]], mean[rows]], 1)
        logits = h.new_full(view.mask.shape, -math.inf)
        logits[rows, jobs] = self.actor(rated).squeeze(1)
        waits = view.mask[:, -1]
        if waits.any():
            logits[waits, -1] = self.waiter(mean[waits]).squeeze(1)
        return logits, value


@dataclass(frozen=True)
class _Groups:
    """Who shares a machine: what replaces cliques of disjunctive edges."""

    machine: Tensor  # (N,) node of each operation's machine
    weight: Tensor  # (N, 1) 1 where an operation has disjunctive edges if others are there
    count: Tensor  # (N, 1) its disjunctive neighbours
    twin: Tensor | None  # (N,) set where a job comes back to a machine


def _groups(view: GraphView, delete_down: bool) -> _Groups:
    machine = view.ptr[view.op_row, 1] + view.op_machine
    weight = view.x_op[:, :1]
    if delete_down:
        weight = weight * (1 - view.x_op[:, DOWN : DOWN + 1])
    nodes = torch.arange(len(machine), device=machine.device)
    twin = None if torch.equal(view.op_twin, nodes) else view.op_twin
    mine = weight if twin is None else scatter(weight, twin, len(twin))[twin]
    count = weight * (scatter(weight, machine, len(view.x_machine))[machine] - mine)
    return _Groups(machine, weight, count, twin)


def disjunctive_sum(groups: _Groups, h: Tensor, num_machines: int) -> Tensor:
    """Returns the sum over disjunctive neighbours, (N, F), without their edges."""
    weighted = groups.weight * h
    mine = weighted
    if groups.twin is not None:
        mine = scatter(weighted, groups.twin, len(h))[groups.twin]
    total = scatter(weighted, groups.machine, num_machines)
    return groups.weight * (total[groups.machine] - mine)


class _Layer(nn.Module):
    """One update of the states of operations and, in the extended form, of machines."""

    def __init__(self, in_dim: int, machine_dim: int, dim: int, extended: bool) -> None:
        super().__init__()
        self.pred, self.succ, self.disj = (_mlp(in_dim, dim, dim) for _ in range(3))
        self.extended = extended
        parts = 3 * dim + 2 * in_dim + OP_FEATURES
        if extended:
            self.block, self.block_rev = (_mlp(in_dim, dim, dim) for _ in range(2))
            self.from_machine = _mlp(machine_dim, dim, dim)
            self.to_machine = _mlp(in_dim, dim, dim)
            self.machine = _mlp(dim + machine_dim + MACHINE_FEATURES, dim, dim, layer_norm=True)
            parts += 3 * dim
        self.op = _mlp(parts, dim, dim, layer_norm=True)

    def forward(
        self, view: GraphView, groups: _Groups, h: Tensor, machines: Tensor
    ) -> tuple[Tensor, Tensor]:
        disj = disjunctive_sum(groups, h, len(machines))
        if self.extended:
            disj = disj / groups.count.clamp(min=1)
        whole = scatter(h, view.op_row, len(view), reduce="mean" if self.extended else "sum")
        parts = [
            self.pred(_neighbours(view, "pred", h)).relu(),
            self.succ(_neighbours(view, "succ", h)).relu(),
            self.disj(disj).relu(),
            whole.relu()[view.op_row],
            h,
            view.x_op,
        ]
        if not self.extended:
            return self.op(torch.cat(parts, 1)), machines
        parts += [
            _few_neighbours(self.block, view, "block", h),
            _few_neighbours(self.block_rev, view, "block_rev", h),
            self.from_machine(machines).relu()[groups.machine],
        ]
        mine = scatter(h, groups.machine, len(machines), reduce="mean")
        of_machine = [self.to_machine(mine).relu(), machines, view.x_machine]
        return self.op(torch.cat(parts, 1)), self.machine(torch.cat(of_machine, 1))


def _neighbours(view: GraphView, name: str, h: Tensor) -> Tensor:
    source, target = view.edge_index[name]
    return scatter(h[source], target, len(h))


def _few_neighbours(net: MLP, view: GraphView, name: str, h: Tensor) -> Tensor:
    """Returns relu(net(mean of neighbours)) where most operations have none: `net` sees 0 once."""
    source, target = view.edge_index[name]
    nodes, place = target.unique(return_inverse=True)
    means = scatter(h[source], place, len(nodes), reduce="mean")
    out: Tensor = net(torch.cat([h.new_zeros(1, h.shape[1]), means])).relu()
    none, some = out[:1], out[1:]
    return none.expand(len(h), -1).index_copy(0, nodes, some)


def _mlp(in_dim: int, hidden: int, out_dim: int, layer_norm: bool = False) -> MLP:
    return MLP(in_dim, out_dim, hidden=hidden, num_hidden=1, layer_norm=layer_norm)


def orthogonal(module: nn.Module, gain: float) -> None:
    """Draws orthogonal weights for all linear maps of a module; biases become 0."""
    for lin in module.modules():
        if isinstance(lin, nn.Linear):
            nn.init.orthogonal_(lin.weight, gain)
            if lin.bias is not None:
                nn.init.zeros_(lin.bias)
