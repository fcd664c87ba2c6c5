"""The ways from the table to the caller: read in place, mapped for the device, or staged."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gnnlab.data._cache import HotRows
from gnnlab.data._device import Device
from gnnlab.data._staging import CHUNK_BYTES, StagingRing
from gnnlab.data._table import Table
from gnnlab.ops import gather
from gnnlab.ops._into import gather_into

__all__ = ["CpuTransport", "DeviceTransport", "MappedTransport", "StagedTransport", "Transport"]


class Transport(Protocol):
    """Fetches rows; ids were checked before, and are contiguous."""

    name: str
    """ "cpu", "mapped" or "staged"."""
    ids_device: torch.device
    """Where ids are read."""

    def fetch(self, ids: Tensor, cache: HotRows | None) -> Tensor:
        """Returns the rows (n, *F)."""

    def close(self) -> None:
        """Waits for the device and gives all memory back."""


class CpuTransport:
    """Reads rows where they are."""

    name = "cpu"
    ids_device = torch.device("cpu")

    def __init__(self, table: Table, dtype: torch.dtype) -> None:
        self._table, self._dtype = table, dtype

    def fetch(self, ids: Tensor, cache: HotRows | None) -> Tensor:
        """See `Transport`."""
        table = self._table
        if self._dtype == table.tensor.dtype:
            return table.shaped(gather(table.words, ids))
        # Converted chunk by chunk, so that what is not yet converted stays in the CPU's cache.
        out = torch.empty((ids.shape[0], *table.tensor.shape[1:]), dtype=self._dtype)
        step = max(1, CHUNK_BYTES // max(table.row_bytes, 1))
        buffer = table.words.new_empty((min(step, ids.shape[0]), table.words.shape[1]))
        for begin in range(0, ids.shape[0], step):
            part = ids[begin : begin + step]
            rows = buffer[: part.shape[0]]
            gather_into(table.words, part, rows)
            out[begin : begin + part.shape[0]].copy_(table.shaped(rows))
        return out

    def close(self) -> None:
        """See `Transport`."""


class DeviceTransport(ABC):
    """What the two ways to a device share: the output, and conversion on the device."""

    name: str
    ids_device: torch.device

    def __init__(self, device: Device, table: Table, dtype: torch.dtype) -> None:
        self.device, self.table, self._dtype = device, table, dtype

    def fetch(self, ids: Tensor, cache: HotRows | None) -> Tensor:
        """See `Transport`."""
        rows = self.table.shaped(self.load(ids, cache))
        if rows.dtype == self._dtype:
            return rows
        out = torch.empty_like(rows, dtype=self._dtype)
        self.device.enqueue(partial(out.copy_, rows))
        return out

    def load(self, ids: Tensor, cache: HotRows | None) -> Tensor:
        """Returns rows of words (n, W) on the device."""
        table = self.table
        shape = (ids.shape[0], table.words.shape[1])
        out = torch.empty(shape, dtype=table.words.dtype, device=self.device.device)
        if out.numel():
            self._fill(ids.to(self.ids_device), out, cache)
        return out

    @abstractmethod
    def _fill(self, ids: Tensor, out: Tensor, cache: HotRows | None) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """See `Transport`."""


class StagedTransport(DeviceTransport):
    """The CPU gathers into pinned memory, the device copies from there."""

    name = "staged"
    ids_device = torch.device("cpu")

    def __init__(self, device: Device, table: Table, dtype: torch.dtype) -> None:
        super().__init__(device, table, dtype)
        self.ring = StagingRing(device, table)

    def _fill(self, ids: Tensor, out: Tensor, cache: HotRows | None) -> None:
        if cache is None:
            self.ring.send(ids, out)
            return
        slots = cache.slots.index_select(0, ids)
        hit, miss = (slots >= 0).nonzero().flatten(), (slots < 0).nonzero().flatten()
        if hit.shape[0] == 0:
            self.ring.send(ids, out)
            return
        where = out.device
        place, slot = hit.to(where), slots[hit].to(where)
        if miss.shape[0]:
            rows = out.new_empty((miss.shape[0], out.shape[1]))
            self.ring.send(ids[miss], rows)
            self.device.enqueue(partial(out.index_copy_, 0, miss.to(where), rows))
        self.device.enqueue(_copy_hits(out, place, cache.rows, slot))

    def close(self) -> None:
        """See `Transport`."""
        self.device.synchronize()
        self.ring.close()


def _copy_hits(out: Tensor, place: Tensor, rows: Tensor, slot: Tensor) -> Callable[[], Tensor]:
    return lambda: out.index_copy_(0, place, rows.index_select(0, slot))


_spans: dict[int, tuple[int, int]] = {}  # memory mapped by this process: number -> begin, end
_numbers = itertools.count()


class MappedTransport(DeviceTransport):
    """A kernel reads the rows out of host memory; nothing is copied twice.

    Raises RuntimeError when another one has mapped the memory, PinningError when it cannot be.
    """

    name = "mapped"

    def __init__(self, device: Device, table: Table, dtype: torch.dtype) -> None:
        super().__init__(device, table, dtype)
        self.ids_device = device.device
        self._pointer = begin = table.words.data_ptr()
        self._registered: int | None = None
        self._number = -1
        end = begin + table.span_bytes
        if begin == end:
            return
        if any(begin < b and a < end for a, b in _spans.values()):
            raise RuntimeError(
                "this table, or a part of it, is already registered by another HostFeatures. "
                "Use that one, or close() it first."
            )
        if not device.is_pinned(table.tensor):
            device.register(begin, table.span_bytes)
            self._registered = begin
        self._number = next(_numbers)
        _spans[self._number] = begin, end
        try:
            self._pointer = device.device_pointer(begin)
        except BaseException:
            self.close()
            raise

    def _fill(self, ids: Tensor, out: Tensor, cache: HotRows | None) -> None:
        table = self.table
        self.device.gather_rows(
            self._pointer,
            table.stride_bytes,
            table.row_bytes,
            ids,
            out,
            None if cache is None else cache.slots,
            None if cache is None else cache.rows,
            table.num_rows,
        )

    def close(self) -> None:
        """See `Transport`."""
        self.device.synchronize()
        _spans.pop(self._number, None)
        if self._registered is not None:
            self.device.unregister(self._registered)
            self._registered = None
