"""Remembers how index tensors sort, for as long as they live and are not written to."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gnnlab.ops import EdgePlan
from gnnlab.ops._arguments import check_index
from gnnlab.ops._edges import Order, sort_edges

__all__ = ["Memory", "group"]

Fact = TypeVar("Fact")


class _Entry(NamedTuple):
    owner: weakref.ref[Tensor]
    version: int
    fact: Any


class Memory:
    """Orders and plans of index tensors, the least recently used forgotten first.

    A view such as ``edge_index[1]`` is a new tensor at every call. So what is remembered is the
    tensor it is a view of, weakly, with the place, shape and strides of the view. torch counts
    the writes to a tensor and all of its views together; after a write nothing is found. Writes
    that torch does not count (through NumPy or ``.data``) are not seen.

    Args:
        size: how many facts are kept.
    """

    def __init__(self, size: int = 32) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.RLock()  # an owner may die, and call back, while it is held

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._entries.clear()

    def order(self, index: Tensor, size: int) -> Order:
        """Returns the entries of a vector grouped by value; IndexError outside 0..size-1."""
        return self._recall(index, ("order", size), lambda: group(index, size))

    def plan(self, edge_index: Tensor, num_src: int, num_dst: int) -> EdgePlan:
        """Returns the plan of (2, E) edges; IndexError when they do not fit."""

        def build() -> EdgePlan:
            # A copy, for the plan sorts when it needs to, which may be after a write.
            return EdgePlan(edge_index.to(torch.int32, copy=True), num_src, num_dst)

        return self._recall(edge_index, ("plan", num_src, num_dst), build)

    def _recall(self, index: Tensor, kind: Hashable, build: Callable[[], Fact]) -> Fact:
        base = index._base
        owner = index if base is None else base
        if owner.is_inference():  # its writes are not counted
            return build()
        key = (
            id(owner), index.data_ptr(), index.dtype, index.shape, index.stride(), kind
        )  # fmt: skip
        version = index._version
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found.owner() is owner and found.version == version:
                self._entries.move_to_end(key)
                fact: Fact = found.fact
                return fact
        fact = build()
        with self._lock:
            reference = weakref.ref(owner, lambda dead: self._forget(key, dead))
            self._entries[key] = _Entry(reference, version, fact)
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return fact

    def _forget(self, key: Hashable, dead: weakref.ref[Tensor]) -> None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found.owner is dead:  # not that of a later tensor
                del self._entries[key]


def group(index: Tensor, size: int) -> Order:
    """Returns the entries of a vector grouped by value, with a copy of the vector."""
    index = index.contiguous()
    ascending = check_index(index, size)
    indptr, rows, perm = sort_edges(index, index, size, size, not ascending)
    order = Order(indptr, None, perm, index.shape[0])
    # A copy: what an operator keeps for its gradient must not change when the index does, and
    # must not keep the index alive.
    order.facts["rows"] = rows if ascending else index.to(rows.dtype, copy=True)
    return order
