"""The steps of neighbour sampling, on compiled kernels or in plain torch: the same samples."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gnnlab.ops import reference_sample as reference
from gnnlab.ops._arguments import check_index
from gnnlab.ops._edges import Order
from gnnlab.ops._library import Library, cpu_library

__all__ = ["Drawn", "Numbers", "draw", "edges_at", "numbers"]

Drawn = tuple[Tensor, Tensor, Tensor]
"""Where the neighbours of each node begin, (n + 1,) int64; the places and the neighbours, (S,)."""


def draw(
    order: Order, nodes: Tensor, k: int, replace: bool, seed: int, hop: int, base: int = 0
) -> Drawn:
    """Draws neighbours of nodes (n,) int64; the first of them begins at `base`."""
    seed &= 2**64 - 1
    library = cpu_library(nodes)
    if library is not None:
        return _draw_compiled(library, order, nodes, k, replace, seed, hop, base)
    check_index(nodes, order.num_rows)
    start = order.indptr[nodes]
    degree = order.indptr[nodes + 1] - start
    indptr = torch.full((len(nodes) + 1,), base, dtype=torch.int64, device=nodes.device)
    indptr[1:] += reference.count(degree, k, replace).cumsum(0)
    place = reference.draw(start, degree, nodes, k, replace, seed, hop)
    assert order.col is not None  # plans always have it
    return indptr, place.to(order.place_dtype), order.col[place]


def _draw_compiled(
    library: Library,
    order: Order,
    nodes: Tensor,
    k: int,
    replace: bool,
    seed: int,
    hop: int,
    base: int,
) -> Drawn:
    rows, size = order.address or order.locate(), nodes.shape[0]
    indptr = torch.empty(size + 1, dtype=torch.int64)
    indptr[0] = base
    library.check(library.sample_count(rows, nodes.data_ptr(), size, k, replace, indptr.data_ptr()))
    place = torch.empty(int(indptr[-1]) - base, dtype=order.place_dtype)
    neighbour = torch.empty_like(place)
    library.check(
        library.sample_draw(
            rows,
            nodes.data_ptr(),
            size,
            k,
            replace,
            seed,
            hop,
            indptr.data_ptr(),
            place.data_ptr(),
            neighbour.data_ptr(),
            torch.get_num_threads(),
        )
    )
    return indptr, place, neighbour


def edges_at(order: Order, place: Tensor) -> Tensor:
    """Returns the caller's edge at each place (S,), int64."""
    return place.long() if order.perm is None else order.perm.index_select(0, place).long()


class Numbers(Protocol):
    """Numbers nodes in the order in which they are first met."""

    def add(self, ids: Tensor) -> Tensor:
        """Returns the number of each id, in the dtype of `ids`; new ids get the next numbers.

        `ids` may be overwritten.
        """

    def nodes(self, begin: int = 0) -> Tensor:
        """Returns the nodes from number `begin` on, int64; later additions leave it as it is."""

    def __len__(self) -> int: ...

    def close(self) -> None:
        """Gives memory back."""


def numbers(order: Order, ids: Tensor) -> Numbers:
    """Returns an empty list of numbers for nodes of a graph, on the device of `ids`."""
    library = cpu_library(ids)
    return _Plain(ids) if library is None else _Table(library, order)


class _Plain:
    """In plain torch."""

    def __init__(self, ids: Tensor) -> None:
        self._nodes = ids.new_empty(0, dtype=torch.int64)

    def add(self, ids: Tensor) -> Tensor:
        self._nodes, found = reference.number(self._nodes, ids.long())
        return found.to(ids.dtype)

    def nodes(self, begin: int = 0) -> Tensor:
        return self._nodes[begin:]

    def __len__(self) -> int:
        return self._nodes.shape[0]

    def close(self) -> None:
        pass


@dataclass
class _Slots:
    """Memory of a table, and the number below which its entries belong to earlier lists."""

    items: Tensor
    hashed: bool
    base: int = 0


class _Table:
    """With a table in memory that the next list uses again: see cuda/cpu/sample.cpp.

    Free tables wait in a list of the order; taking from it and giving back are atomic, so that
    threads can sample one graph together.
    """

    def __init__(self, library: Library, order: Order) -> None:
        self._library, self._dtype = library, order.place_dtype
        self._num_nodes = order.num_rows
        self._free: list[_Slots] = order.facts.setdefault("sample tables", [])
        self._slots: _Slots | None = None
        self._count = ctypes.c_int64(0)
        self._nodes = torch.empty(1, dtype=torch.int64)

    def add(self, ids: Tensor) -> Tensor:
        ids = ids.to(self._dtype).contiguous()
        # A call appends before it knows how many are new: room for the most there can be.
        most = min(self._num_nodes, len(self) + ids.shape[0])
        if self._nodes.shape[0] < most:
            grown = torch.empty(most, dtype=torch.int64)
            grown[: len(self)] = self.nodes()
            self._nodes = grown
        slots = self._slots = self._with_room(most)
        self._number(slots, ids)
        return ids

    def _number(self, slots: _Slots, ids: Tensor) -> None:
        self._library.check(
            self._library.sample_number(
                slots.items.data_ptr(),
                slots.items.shape[0] // (2 if slots.hashed else 1),
                slots.hashed,
                slots.base,
                ids.data_ptr(),
                ids.element_size(),
                ids.shape[0],
                self._nodes.data_ptr(),
                ctypes.byref(self._count),
            )
        )

    def _with_room(self, most: int) -> _Slots:
        """Returns a table for `most` nodes that holds what the present one holds."""
        slots = 1 << max(2 * most - 1, 15).bit_length()
        hashed = 2 * slots < self._num_nodes  # else an array over all nodes is no larger
        size = 2 * slots if hashed else max(self._num_nodes, 1)
        present = self._slots
        if present is not None and (not present.hashed or present.items.shape[0] >= size):
            return present
        taken = self._take(size, hashed)
        if len(self):
            again = self.nodes().to(self._dtype, copy=True)  # numbers are written over it
            self._count = ctypes.c_int64(0)
            self._number(taken, again)
        return taken

    def _take(self, size: int, hashed: bool) -> _Slots:
        """Returns a free table if one fits, else a new one."""
        try:
            found = self._free.pop()
        except IndexError:
            found = None
        # An array over all nodes always fits, also where a small hash table would do.
        if found is not None and (not found.hashed or found.items.shape[0] >= size):
            return found
        return _Slots(torch.empty(size, dtype=self._dtype), hashed)

    def nodes(self, begin: int = 0) -> Tensor:
        return self._nodes[begin : len(self)]

    def __len__(self) -> int:
        return self._count.value

    def close(self) -> None:
        slots, self._slots = self._slots, None
        if slots is None:
            return
        slots.base += len(self)
        if slots.base > torch.iinfo(self._dtype).max - self._num_nodes:
            slots.base = 0  # the next list begins with a clean table
        self._free.append(slots)
