"""A ring of staging memory: rows are gathered into it and leave for the device on their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from gnnlab.data._device import Device, Event
from gnnlab.data._table import Table
from gnnlab.ops._into import gather_into

__all__ = ["BUFFERS", "BUFFER_BYTES", "CHUNK_BYTES", "StagingRing"]

CHUNK_BYTES = 4 << 20
BUFFER_BYTES = 64 << 20
BUFFERS = 2


@dataclass
class _Piece:
    """One chunk of a buffer, and the mark after which the device no longer reads it."""

    rows: Tensor
    sent: Event | None = None


class StagingRing:
    """Buffers cut into chunks that are used in turn.

    While the device copies one chunk the CPU gathers the next. A chunk is used again only after
    the event behind its last copy. Buffers are made when they are first needed.
    """

    def __init__(
        self,
        device: Device,
        table: Table,
        chunk_bytes: int = CHUNK_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
        buffers: int = BUFFERS,
    ) -> None:
        self._device, self._table = device, table
        self.chunk_rows = max(1, chunk_bytes // max(table.row_bytes, 1))
        piece = self.chunk_rows * table.row_bytes
        self._per_buffer = max(1, buffer_bytes // max(piece, 1))
        self.num_pieces = self._per_buffer * buffers
        self._pieces: list[_Piece] = []
        self._next = 0

    def send(self, ids: Tensor, out: Tensor) -> None:
        """Brings the rows `ids` (n,), which lie in range, into `out` (n, W) on the device."""
        for begin in range(0, ids.shape[0], self.chunk_rows):
            part = ids[begin : begin + self.chunk_rows]
            piece = self._take()
            rows = piece.rows[: part.shape[0]]
            gather_into(self._table.words, part, rows)
            target = out[begin : begin + part.shape[0]]
            self._device.enqueue(partial(target.copy_, rows, non_blocking=True))
            piece.sent = self._device.record()

    def _take(self) -> _Piece:
        if self._next == len(self._pieces):
            self._add_buffer()
        piece = self._pieces[self._next]
        self._next = (self._next + 1) % self.num_pieces
        if piece.sent is not None:
            piece.sent.synchronize()
            piece.sent = None
        return piece

    def _add_buffer(self) -> None:
        words = self._table.words
        size = self.chunk_rows * self._table.row_bytes
        buffer = self._device.staging_buffer(size * self._per_buffer).view(words.dtype)
        for chunk in buffer.view(self._per_buffer, self.chunk_rows, words.shape[1]):
            self._pieces.append(_Piece(chunk))

    def close(self) -> None:
        """Lets the memory go; nothing may be under way."""
        self._pieces.clear()
        self._next = 0
