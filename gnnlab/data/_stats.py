"""What was fetched, from where and how fast."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from torch import Tensor

from gnnlab.data._device import Event

__all__ = ["FeatureStats", "Meter"]


@dataclass(frozen=True)
class FeatureStats:
    """What a `HostFeatures` has done so far.

    Example:
        >>> import gnnlab.data, torch
        >>> feats = gnnlab.data.HostFeatures(torch.zeros(10, 4))
        >>> _ = feats[torch.tensor([1, 1, 2])]
        >>> feats.stats().rows, feats.stats().bytes_moved
        (3, 48)
    """

    rows: int
    """How many rows were asked for."""
    hits: int
    """How many of them were in the cache on the device."""
    misses: int
    """How many of them were read from the table."""
    bytes_moved: int
    """Bytes read from the table: misses times the length of a row."""
    seconds: float
    """Time that it took; on a GPU by its own clock, from first to last piece of each request."""

    @property
    def hit_rate(self) -> float:
        """hits / rows; 0 before the first row."""
        return self.hits / self.rows if self.rows else 0.0

    @property
    def gb_per_s(self) -> float:
        """10^9 bytes moved in a second; 0 before the first row."""
        return self.bytes_moved / self.seconds / 1e9 if self.seconds > 0 else 0.0


class Meter:
    """Adds requests up; what the device has not finished waits in a queue, not the caller."""

    def __init__(self, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self.reset()

    def reset(self) -> None:
        """Starts from zero."""
        self._rows = self._hits = 0
        self._seconds = 0.0
        self._open: deque[tuple[Tensor | None, Event, Event]] = deque()

    def add(self, rows: int, seconds: float) -> None:
        """Counts a request that is over."""
        self._rows += rows
        self._seconds += seconds

    def add_open(self, rows: int, hits: Tensor | None, begin: Event, end: Event) -> None:
        """Counts a request that the device still works on."""
        self._rows += rows
        self._open.append((hits, begin, end))
        while self._open and self._open[0][2].query():
            self._settle()

    def _settle(self) -> None:
        hits, begin, end = self._open.popleft()
        self._hits += 0 if hits is None else int(hits)
        self._seconds += begin.elapsed_time(end) / 1e3

    def read(self) -> FeatureStats:
        """Waits for what is still under way."""
        while self._open:
            self._open[0][2].synchronize()
            self._settle()
        misses = self._rows - self._hits
        return FeatureStats(self._rows, self._hits, misses, misses * self.row_bytes, self._seconds)
