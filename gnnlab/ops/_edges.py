"""The parts of an EdgePlan: edges grouped by one end, and what it shares with its transpose."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from gnnlab.ops import reference
from gnnlab.ops._arguments import check_index
from gnnlab.ops._library import cpu_library, is_traced, may_keep

__all__ = ["Edges", "Order", "group_edges", "join", "sort_edges", "starts", "validated"]


class _Rows(ctypes.Structure):
    """`gnnlab_rows` of the C interface."""

    _fields_: ClassVar = [
        ("indptr", ctypes.c_void_p),
        ("col", ctypes.c_void_p),
        ("perm", ctypes.c_void_p),
        ("num_rows", ctypes.c_int64),
        ("num_edges", ctypes.c_int64),
        ("index_bytes", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class Order:
    """Edges grouped by one of their ends: row i holds places indptr[i] .. indptr[i + 1].

    `col` is the other end of the edge at each place, or None when place k reads row k; `perm` says
    which of the caller's edges lies at each place, or is None when it is the same one.
    """

    __slots__ = ("_rows", "address", "col", "facts", "indptr", "num_edges", "num_rows", "perm")

    def __init__(
        self, indptr: Tensor, col: Tensor | None, perm: Tensor | None, num_edges: int
    ) -> None:
        self.indptr, self.col, self.perm = indptr, col, perm
        self.num_rows: int = indptr.shape[0] - 1
        self.num_edges = num_edges
        self.facts: dict[Hashable, Any] = {}  # what kernels derive from the edges, made once
        self.address: int = 0  # of the C struct; 0 until a CPU kernel wants it

    def locate(self) -> int:
        """Returns the address of the C struct that describes this order, made once."""
        if not self.address:
            if not self.indptr.is_cpu:
                raise ValueError(
                    f"the edges are on {self.indptr.device}, but the features are on the CPU; "
                    "move one of them with .to(...)"
                )
            col, perm = self.col, self.perm
            rows = _Rows(
                self.indptr.data_ptr(),
                None if col is None else col.data_ptr(),
                None if perm is None else perm.data_ptr(),
                self.num_rows,
                self.num_edges,
                self.place_dtype.itemsize,
                0,
            )
            # One of two threads that come together wins, and nobody keeps the other's address.
            rows = self._rows = self.facts.setdefault("struct", rows)
            self.address = ctypes.addressof(rows)
        return self.address

    @property
    def place_dtype(self) -> torch.dtype:
        """The dtype of places: int32 where it holds the number of edges."""
        for index in (self.col, self.perm):
            if index is not None:
                return index.dtype
        return torch.int32 if self.num_edges < 2**31 - 1 else torch.int64

    def rows(self) -> Tensor:
        """Returns the row of each edge in the caller's order, (E,) int64 or int32."""
        found = self.facts.get("rows")
        if found is None:
            found = reference.rows_of(self.indptr, self.num_edges)
            if self.perm is not None:
                found = torch.empty_like(found).scatter_(0, self.perm.long(), found)
            if may_keep():
                self.facts["rows"] = found
        return cast(Tensor, found)

    def reading(self) -> Order:
        """Returns the order for rows of a tensor per edge: place k reads the caller's edge."""
        if self.perm is None and self.col is None:
            return self
        found = self.facts.get("reading")
        if found is None:
            found = self.facts["reading"] = Order(self.indptr, self.perm, None, self.num_edges)
        return cast(Order, found)

    def edges_at(self, places: Tensor) -> Tensor:
        """Returns the caller's edge at each place, int64; E stays E."""
        places = places.long()
        if self.perm is None:
            return places
        perm = torch.cat([self.perm, self.perm.new_tensor([self.num_edges])])
        return perm[places].long()

    def places_of(self, edges: Tensor) -> Tensor:
        """Returns the place of each of the caller's edges, int64; E stays E."""
        if self.perm is None:
            return edges
        count = self.num_edges
        place = torch.arange(count + 1, device=edges.device)
        return place.scatter(0, self.perm.long(), place[:count].clone())[edges]

    def others(self) -> Tensor:
        """Returns the other end of each edge in the caller's order, (E,)."""
        if self.col is None:
            return torch.arange(self.num_edges, device=self.indptr.device)
        if self.perm is None:
            return self.col
        return torch.empty_like(self.col).scatter_(0, self.perm.long(), self.col)

    def to(self, device: torch.device) -> Order:
        """Returns it on `device`."""
        col, perm = (None if t is None else t.to(device) for t in (self.col, self.perm))
        return Order(self.indptr.to(device), col, perm, self.num_edges)

    def __reduce__(self) -> tuple[Any, ...]:
        return Order, (self.indptr, self.col, self.perm, self.num_edges)


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
        if self.edge_index is not None:
            return self.edge_index[end]
        order = cast(Order, self.orders[1])  # made from CSR, or from the tensors of a traced call
        src = order.others()
        both = torch.stack((src, order.rows().to(src.dtype)))
        if may_keep():
            self.edge_index = both
        return both[end]

    def order(self, end: int) -> Order:
        """Returns the edges grouped by `end`, sorting them at the first call."""
        found = self.orders[end]
        if found is None:
            found = self._sort(end)
            if may_keep():
                self.orders[end] = found
        return found

    def _sort(self, end: int) -> Order:
        key, other = self.row(end), self.row(1 - end)
        num_keys, num_other = self.sizes[end], self.sizes[1 - end]
        if self.is_sorted[end] is None and not is_traced(key):
            self.is_sorted[end] = check_index(key, num_keys)
        want_perm = not self.is_sorted[end]
        order = Order(*group_edges(key, other, num_keys, num_other, want_perm), self.num_edges)
        if may_keep():
            order.facts["rows"] = key
        return order


def group_edges(
    key: Tensor, other: Tensor, num_keys: int, num_other: int, want_perm: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Calls `sort_edges`, through torch's dispatcher when someone looks on."""
    if is_traced(key):
        found = torch.ops.gnnlab.sort_edges(key, other, num_keys, num_other)
        return cast("tuple[Tensor, Tensor, Tensor]", found)
    return sort_edges(key, other, num_keys, num_other, want_perm)


def sort_edges(
    key: Tensor, other: Tensor, num_keys: int, num_other: int, want_perm: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Groups edges by `key`, keeping their order inside a row: indptr, col = other[perm], perm."""
    num_edges = key.shape[0]
    small = max(num_keys, num_other, num_edges) < 2**31 - 1
    dtype = torch.int32 if small else torch.int64
    library = cpu_library(key)
    if library is None:
        check_index(key, num_keys)
        check_index(other, num_other)
        indptr, col, order = reference.sort_edges(key, other, num_keys)
        return indptr, col.to(dtype), order.to(dtype) if want_perm else None
    indptr = torch.empty(num_keys + 1, dtype=torch.int64)
    col = torch.empty(num_edges, dtype=dtype)
    perm = torch.empty_like(col) if want_perm else None
    library.check(
        library.plan_build(
            key.data_ptr(),
            other.data_ptr(),
            key.element_size(),
            num_edges,
            num_keys,
            num_other,
            indptr.data_ptr(),
            col.data_ptr(),
            None if perm is None else perm.data_ptr(),
            col.element_size(),
            torch.get_num_threads(),
        )
    )
    return indptr, col, perm


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
    dtype = torch.int32 if largest < 2**31 - 1 else torch.int64
    rows, others = [size[end] for size in sizes], [size[1 - end] for size in sizes]
    indptr = torch.cat([o.indptr[:-1] for o in orders]) + starts(num_edges, rows, device)
    indptr = torch.cat([indptr, indptr.new_tensor([sum(num_edges)])])
    col = torch.cat([cast(Tensor, o.col).long() for o in orders]) + starts(
        others, num_edges, device
    )
    if all(o.perm is None for o in orders):
        return Order(indptr, col.to(dtype), None, sum(num_edges))
    perms = [
        torch.arange(n, device=device) if o.perm is None else o.perm.long()
        for o, n in zip(orders, num_edges, strict=True)
    ]
    perm = torch.cat(perms) + starts(num_edges, num_edges, device)
    return Order(indptr, col.to(dtype), perm.to(dtype), sum(num_edges))
