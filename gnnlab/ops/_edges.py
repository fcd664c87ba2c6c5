"""The parts of an EdgePlan: edges grouped by one end, and what it shares with its transpose."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from gnnlab.ops import reference
from gnnlab.ops._arguments import check_index
from gnnlab.ops._library import kernels_for

__all__ = ["Edges", "Order", "join", "starts", "validated"]


class Order(NamedTuple):
    """Edges grouped by one of their ends: row i holds places indptr[i] .. indptr[i + 1]."""

    indptr: Tensor
    col: Tensor  # the other end of the edge at each place
    perm: Tensor | None  # which of the caller's edges lies at each place; None: the same one

    def to(self, device: torch.device) -> Order:
        """Returns it on `device`."""
        perm = None if self.perm is None else self.perm.to(device)
        return Order(self.indptr.to(device), self.col.to(device), perm)


@dataclass(eq=False)
class Edges:
    """What a plan and its transpose share. Index 0 is about sources, 1 about destinations."""

    edge_index: Tensor | None  # None until someone asks, for plans made from CSR
    sizes: tuple[int, int]
    num_edges: int
    device: torch.device
    is_sorted: list[bool | None]
    orders: list[Order | None]
    derived: dict[Hashable, Any]

    def row(self, end: int) -> Tensor:
        """Returns one end of every edge, in the caller's order."""
        if self.edge_index is None:
            by_dst = cast(Order, self.orders[1])
            dst = reference.rows_of(by_dst.indptr, self.num_edges).to(by_dst.col.dtype)
            self.edge_index = torch.stack((by_dst.col, dst))
        return self.edge_index[end]

    def order(self, end: int) -> Order:
        """Returns the edges grouped by `end`, sorting them at the first call."""
        found = self.orders[end]
        if found is None:
            found = self.orders[end] = self._sort(end)
        return found

    def _sort(self, end: int) -> Order:
        key, other = self.row(end), self.row(1 - end)
        num_keys, num_other = self.sizes[end], self.sizes[1 - end]
        small = max(num_keys, num_other, self.num_edges) < 2**31
        dtype = torch.int32 if small else torch.int64
        if self.is_sorted[end] is None:
            self.is_sorted[end] = check_index(key, num_keys)
        same_order = bool(self.is_sorted[end])
        library = kernels_for(key)
        if library is None:
            check_index(other, num_other)
            indptr, col, order = reference.sort_edges(key, other, num_keys)
            return Order(indptr, col.to(dtype), None if same_order else order.to(dtype))
        indptr = torch.empty(num_keys + 1, dtype=torch.int64)
        col = torch.empty(self.num_edges, dtype=dtype)
        perm = None if same_order else torch.empty_like(col)
        library.check(
            library.plan_build(
                key.data_ptr(),
                other.data_ptr(),
                key.element_size(),
                self.num_edges,
                num_keys,
                num_other,
                indptr.data_ptr(),
                col.data_ptr(),
                None if perm is None else perm.data_ptr(),
                col.element_size(),
                torch.get_num_threads(),
            )
        )
        return Order(indptr, col, perm)


def validated(index: Tensor, bound: int) -> bool | None:
    """Checks an index vector on any device; returns whether it is sorted, None if not looked at."""
    if index.is_cpu:
        return check_index(index, bound)
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= bound):
        check_index(index.cpu(), bound)
    return bool((index[1:] >= index[:-1]).all())


def starts(sizes: Sequence[int], repeats: Sequence[int], device: torch.device) -> Tensor:
    """Returns the number of items before each graph, repeated as often as `repeats` says."""
    count = torch.tensor(sizes, dtype=torch.int64)
    return (count.cumsum(0) - count).repeat_interleave(torch.tensor(repeats)).to(device)


def join(
    orders: Sequence[Order],
    sizes: Sequence[tuple[int, int]],
    num_edges: Sequence[int],
    end: int,
    largest: int,
) -> Order:
    """Concatenates what single graphs have sorted by `end`."""
    device = orders[0].indptr.device
    dtype = torch.int32 if largest < 2**31 else torch.int64
    rows, others = [size[end] for size in sizes], [size[1 - end] for size in sizes]
    indptr = torch.cat([o.indptr[:-1] for o in orders]) + starts(num_edges, rows, device)
    indptr = torch.cat([indptr, indptr.new_tensor([sum(num_edges)])])
    col = torch.cat([o.col.long() for o in orders]) + starts(others, num_edges, device)
    if all(o.perm is None for o in orders):
        return Order(indptr, col.to(dtype), None)
    perms = [
        torch.arange(n, device=device) if o.perm is None else o.perm.long()
        for o, n in zip(orders, num_edges, strict=True)
    ]
    perm = torch.cat(perms) + starts(num_edges, num_edges, device)
    return Order(indptr, col.to(dtype), perm.to(dtype))
