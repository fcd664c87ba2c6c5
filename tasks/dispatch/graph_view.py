"""`GraphView`: the dynamic disjunctive graphs of many episodes as one graph."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import ConfigError, did_you_mean, needs
from gnnlab.tasks.dispatch import _native
from gnnlab.tasks.dispatch.features import EDGE_TYPES

if TYPE_CHECKING:
    from gnnlab.tasks.dispatch.batched import BatchedShop

__all__ = ["Disjunctive", "GraphView", "graph_view"]

Disjunctive = Literal["auto", "clique", "star"]

_KINDS = {name: (source, name, target) for name, (source, target) in EDGE_TYPES.items()}


@dataclass(frozen=True)
class GraphView:
    """The graphs of B episodes, one after the other: N operations and M machines in all.

    Operations go by episode, job and place in the job; machines by episode and number. Ids of nodes
    count through all episodes.

    Args:
        x_op: (N, 16) float32 with the columns `OPERATION_FEATURES`.
        x_machine: (M, 8) float32 with the columns `MACHINE_FEATURES`.
        op_row: (N,) int64, the episode an operation belongs to, 0..B-1.
        machine_row: (M,) int64, that of a machine.
        op_job: (N,) int64, its job.
        op_machine: (N,) int64, the number of its machine in its shop.
        op_twin: (N,) int64, the first operation of the same job on the same machine that has not
            started: itself, unless a job comes back to a machine.
        candidate: (B, J + 1) int64, the node of each job's next operation, or -1; the last column,
            WAIT, is -1.
        mask: (B, J + 1) bool, legal actions; the last is WAIT.
        time: (B,) int64.
        edge_index: (2, E) int64 by type, the keys of `EDGE_TYPES`.
        ptr: (B + 1, 10) int64, where the operations, the machines and the edges of each type of an
            episode begin.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> from gnnlab.tasks.dispatch.batched import BatchedShop
        >>> one = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> view = BatchedShop([one, one]).graph()
        >>> view.x_op.shape, view.edge_index["disj"].shape, view.candidate.tolist()
        (torch.Size([8, 16]), torch.Size([2, 8]), [[0, 2, -1], [4, 6, -1]])
        >>> view.take(torch.tensor([1])).candidate.tolist()
        [[0, 2, -1]]
    """

    x_op: Tensor
    x_machine: Tensor
    op_row: Tensor
    machine_row: Tensor
    op_job: Tensor
    op_machine: Tensor
    op_twin: Tensor
    candidate: Tensor
    mask: Tensor
    time: Tensor
    edge_index: dict[str, Tensor]
    ptr: Tensor

    def __len__(self) -> int:
        return len(self.time)

    def to(self, device: torch.device | str) -> GraphView:
        """Returns the graphs on another device."""
        edges = {name: index.to(device) for name, index in self.edge_index.items()}
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "edge_index"}
        return GraphView(**{k: v.to(device) for k, v in moved.items()}, edge_index=edges)

    def take(self, rows: Tensor) -> GraphView:
        """Returns the graphs of some episodes, in this order.

        Args:
            rows: (C,) int64; the same one may come twice.
        """
        ptr, start = _places(self.ptr[rows + 1] - self.ptr[rows]), self.ptr[rows]
        ops, of_op = _ragged(start[:, 0], ptr[:, 0])
        machines, of_machine = _ragged(start[:, 1], ptr[:, 1])
        shift = ptr[:-1, :2] - start[:, :2]
        edges = {}
        for at, (name, ends) in enumerate(EDGE_TYPES.items(), 2):
            picked, of_edge = _ragged(start[:, at], ptr[:, at])
            moves = shift[of_edge]
            edges[name] = self.edge_index[name][:, picked] + torch.stack(
                [moves[:, int(end == "machine")] for end in ends]
            )
        candidate = self.candidate[rows]
        return GraphView(
            x_op=self.x_op[ops],
            x_machine=self.x_machine[machines],
            op_row=of_op,
            machine_row=of_machine,
            op_job=self.op_job[ops],
            op_machine=self.op_machine[ops],
            op_twin=self.op_twin[ops] + shift[of_op, 0],
            candidate=torch.where(candidate >= 0, candidate + shift[:, :1], -1),
            mask=self.mask[rows],
            time=self.time[rows],
            edge_index=edges,
            ptr=ptr,
        )

    @classmethod
    def join(cls, views: Sequence[GraphView]) -> GraphView:
        """Returns the episodes of all views, one view after the other."""
        sizes = torch.stack([view.ptr[-1] for view in views])
        first = _places(sizes)
        base = _places(torch.tensor([[len(view)] for view in views], device=sizes.device))[:, 0]

        def cat(name: str, shift: Tensor | None = None) -> Tensor:
            parts = [getattr(view, name) for view in views]
            if shift is None:
                return torch.cat(parts)
            moved = zip(parts, shift.tolist(), strict=False)
            return torch.cat([torch.where(part >= 0, part + by, part) for part, by in moved])

        edges = {}
        for name, ends in EDGE_TYPES.items():
            columns = [int(end == "machine") for end in ends]
            moved = zip(views, first[:-1, columns], strict=True)
            edges[name] = torch.cat([v.edge_index[name] + by[:, None] for v, by in moved], 1)
        ptr = [v.ptr[:-1] + by for v, by in zip(views, first[:-1], strict=True)]
        return cls(
            **{name: cat(name) for name in ("x_op", "x_machine", "op_job", "op_machine")},
            **{name: cat(name) for name in ("mask", "time")},
            op_row=cat("op_row", base),
            machine_row=cat("machine_row", base),
            op_twin=cat("op_twin", first[:, 0]),
            candidate=cat("candidate", first[:, 0]),
            edge_index=edges,
            ptr=torch.cat([*ptr, first[-1:]]),
        )

    def to_pyg(self) -> Any:
        """Returns the graph of a single episode as a PyG `HeteroData`.

        Node types are "op" and "machine", with `x`, `job` and `machine`; the candidates, the mask
        and the time are attributes of the whole.

        Raises:
            ConfigError: for a view of several episodes.
            MissingExtraError: without torch_geometric.
        """
        self._needs_one("GraphView.to_pyg")
        data = needs("torch_geometric.data", "GraphView.to_pyg", "pyg").HeteroData()
        data["op"].x, data["op"].job, data["op"].machine = self.x_op, self.op_job, self.op_machine
        data["machine"].x = self.x_machine
        for name, kind in _KINDS.items():
            data[kind].edge_index = self.edge_index[name]
        data.candidate, data.mask, data.time = self.candidate, self.mask, self.time
        return data

    def to_dgl(self) -> Any:
        """Returns the graph of a single episode as a DGL heterograph, with `x` on its nodes.

        Raises:
            ConfigError: for a view of several episodes.
            MissingExtraError: without dgl.
        """
        self._needs_one("GraphView.to_dgl")
        dgl = needs("dgl", "GraphView.to_dgl", "dgl")
        ends = {kind: tuple(self.edge_index[name].unbind(0)) for name, kind in _KINDS.items()}
        sizes = {"op": len(self.x_op), "machine": len(self.x_machine)}
        made = dgl.heterograph(ends, num_nodes_dict=sizes)
        made.nodes["op"].data.update(x=self.x_op, job=self.op_job, machine=self.op_machine)
        made.nodes["machine"].data["x"] = self.x_machine
        return made

    def _needs_one(self, who: str) -> None:
        if len(self) != 1:
            raise ConfigError(f"{who} takes one episode, and this view has {len(self)}; use take.")


def graph_view(
    shop: BatchedShop,
    rows: np.ndarray,
    *,
    drop_done: bool,
    machine_nodes: bool,
    disjunctive: Disjunctive,
    delete_down: bool,
    repair_known: bool,
) -> GraphView:
    """Builds what `BatchedShop.graph` returns."""
    names = ("auto", "clique", "star")
    if disjunctive not in names:
        hint = did_you_mean(disjunctive, names)
        raise ConfigError(f'unknown disjunctive "{disjunctive}".{hint}')
    if disjunctive == "star" and not machine_nodes:
        raise ConfigError('disjunctive="star" needs machine_nodes=True.')
    flags = (0 if drop_done else 1) | (0 if machine_nodes else 2)
    flags |= (0, 4, 8)[names.index(disjunctive if machine_nodes else "clique")]
    flags |= (16 if delete_down else 0) | (0 if repair_known else 32)
    count = len(rows)
    ptr = torch.empty(count + 1, 2 + len(EDGE_TYPES), dtype=torch.int64)
    shop._call("graph_sizes", rows, count, flags, ptr.data_ptr(), shop.threads)
    ops, machines, *edges = ptr[-1].tolist()
    width = shop.num_jobs + 1
    integers = [ops, machines, ops, ops, ops, (count, width), count]
    x_op = torch.empty(ops, _native.OP_FEATURES)
    x_machine = torch.empty(machines, _native.MACHINE_FEATURES)
    parts = [torch.empty(size, dtype=torch.int64) for size in integers]
    mask = torch.empty(count, width, dtype=torch.bool)
    links = [torch.empty(2, size, dtype=torch.int64) for size in edges]
    tensors = (x_op, x_machine, *parts, mask, *links)
    out = (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
    shop._call("graph", rows, count, flags, ptr.data_ptr(), ctypes.addressof(out), shop.threads)
    op_row, machine_row, op_job, op_machine, op_twin, candidate, time = parts
    edge_index = dict(zip(EDGE_TYPES, links, strict=True))
    return GraphView(
        x_op=x_op,
        x_machine=x_machine,
        op_row=op_row,
        machine_row=machine_row,
        op_job=op_job,
        op_machine=op_machine,
        op_twin=op_twin,
        candidate=candidate,
        mask=mask,
        time=time,
        edge_index=edge_index,
        ptr=ptr,
    )


def _places(sizes: Tensor) -> Tensor:
    """Returns where each of the pieces of these sizes begins, and where the last ends."""
    return torch.cat([torch.zeros_like(sizes[:1]), sizes.cumsum(0)])


def _ragged(start: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the items of pieces that begin at `start`, and the piece of each."""
    piece = torch.repeat_interleave(ptr.diff())
    return torch.arange(len(piece), device=ptr.device) + (start - ptr[:-1])[piece], piece
