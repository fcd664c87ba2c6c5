"""Rows of a feature table that stays in host memory, delivered to the device that asks."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from gnnlab.data._cache import Counts, HotRows, capacity, check_score, parse_bytes
from gnnlab.data._device import Device, Event
from gnnlab.data._open import open_device, open_transport, release, result_dtype
from gnnlab.data._prefetch import Prefetch
from gnnlab.data._stats import FeatureStats, Meter
from gnnlab.data._table import Table, read_table
from gnnlab.data._transport import DeviceTransport
from gnnlab.ops._arguments import check_index, index_vector

__all__ = ["HostFeatures"]


class HostFeatures:
    """A table of rows in host memory; ``feats[ids]`` gives rows on the device.

    On a GPU a kernel reads the wanted rows straight out of the table, which is pinned in place
    (no copy, no staging). Where memory cannot be pinned, or there is no kernel, the CPU gathers
    into pinned buffers that are copied while it goes on, and a warning says why. Rows that are
    asked for most can be kept on the GPU.

    Args:
        table: the rows, on the CPU, of any dtype; kept by reference, never copied. Memory from
            ``share_memory_()`` works too; each process makes its own HostFeatures of it.
        device: where rows are wanted: "cpu", "cuda", "cuda:1".
        cache: GPU memory for hot rows and their lookup table (4 bytes for each row of `table`): a
            number of bytes, "4GB", "1.5GiB". On the CPU rows are read in place and there is none.
        degree: (N,) numbers that say how often each row will be asked for; the highest are cached.
            Neighbour sampling asks for a node about as often as its degree.
        warmup: how many rows to count requests for before the most wanted are cached; 0 means only
            when `rebuild` is called. Default: 0 with `degree`, else N.
        out_dtype: floating-point dtype to convert to on the way; the table keeps its own.
        pin: whether to pin the table in place; False always stages.
        check_ids: whether wrong ids raise. For ids on a GPU the check waits for the device; without
            it their rows are filled with NaN (-1 for integers) when the table is pinned.

    Shapes:
        table: (N, *F), each row unbroken in memory.

    Raises:
        ValueError: if an argument has a wrong value or `table` a wrong layout.
        TypeError: if an argument has a wrong type.
        RuntimeError: if there is no such device, or the memory is registered already.

    Example:
        >>> import gnnlab.data, torch
        >>> feats = gnnlab.data.HostFeatures(torch.arange(6.0).reshape(3, 2), cache="1MB")
        >>> feats[torch.tensor([2, 0])]
        tensor([[4., 5.],
                [0., 1.]])

    Use it from one thread at a time, or from several: requests wait for one another.
    """

    _lock: threading.RLock
    _threads: ThreadPoolExecutor | None

    def __init__(
        self,
        table: Tensor,
        device: str | torch.device | Device = "cpu",
        *,
        cache: int | str | None = None,
        degree: Tensor | None = None,
        warmup: int | None = None,
        out_dtype: torch.dtype | None = None,
        pin: bool = True,
        check_ids: bool = True,
    ) -> None:
        self._table = Table.of(table)
        self._dtype = result_dtype(table, out_dtype)
        budget = parse_bytes(cache)
        score = None if degree is None else check_score(degree, len(self))
        if warmup is not None and (not isinstance(warmup, int) or warmup < 0):
            raise ValueError(f"warmup must be a number of rows, 0 or more, got {warmup!r}")
        self._device = open_device(device)
        self._capacity = 0 if self._device is None else capacity(budget, self._table)
        self._check_ids = check_ids
        self._transport = open_transport(self._device, self._table, self._dtype, pin)
        self._finalizer = weakref.finalize(self, release, self._transport, os.getpid())
        self._meter = Meter(self._table.row_bytes)
        self._hot: HotRows | None = None
        self._counts: Counts | None = None
        self._enter_process()
        if score is not None and self._capacity:
            self._cache_rows(score)
        self._warmup = (len(self) if degree is None else 0) if warmup is None else warmup

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device | Device = "cpu",
        *,
        mmap: bool = True,
        shape: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        pin: bool | None = None,
        cache: int | str | None = None,
        degree: Tensor | None = None,
        warmup: int | None = None,
        out_dtype: torch.dtype | None = None,
        check_ids: bool = True,
    ) -> HostFeatures:
        """Opens a table in a file; with `mmap` only the rows that are asked for are read.

        Args:
            path: a .npy file, or raw rows one after the other.
            device: as for the class, and so all arguments not named here.
            mmap: whether the table stays in the file; otherwise it is read into memory.
            shape: of a raw file: (N, ...).
            dtype: of a raw file.
            pin: whether to pin the table; not together with `mmap`, for it would be loaded whole.

        Raises:
            DataError: if the file is missing, truncated, or no table that can be read.

        Example:
            >>> import numpy, torch, gnnlab.data
            >>> numpy.save("x.npy", numpy.eye(3, dtype="float32"))
            >>> gnnlab.data.HostFeatures.from_file("x.npy")[torch.tensor([1])]
            tensor([[0., 1., 0.]])
        """
        if mmap and pin:
            raise ValueError("pin=True would load the whole file; pass mmap=False as well")
        return cls(
            read_table(path, mmap=mmap, shape=shape, dtype=dtype),
            device,
            cache=cache,
            degree=degree,
            warmup=warmup,
            out_dtype=out_dtype,
            pin=not mmap if pin is None else pin,
            check_ids=check_ids,
        )

    # ---- rows ------------------------------------------------------------------------------------

    def __getitem__(self, ids: Tensor) -> Tensor:
        """Returns the rows (n, *F) of ids (n,), int32 or int64, on any device.

        Raises IndexError for an id outside 0..N-1, RuntimeError after `close`.
        """
        return self._fetch(self._checked(ids))[0]

    def prefetch(self, ids: Tensor) -> Prefetch:
        """Begins to fetch rows and returns at once; ``.wait()`` of the result gives them.

        On a GPU the work goes into a stream of its own; where the CPU takes part, into a thread.
        Errors in `ids` are raised here.
        """
        ids = self._checked(ids).clone()  # the caller may write into them meanwhile
        device = self._device
        if device is None:
            return Prefetch(self._pool().submit(self._fetch, ids), None)
        begin = device.record()

        def work() -> tuple[Tensor, Event | None]:
            with device.aside(begin, ids):
                return self._fetch(ids)

        if self._transport.name == "staged":
            return Prefetch(self._pool().submit(work), device)
        future: Future[tuple[Tensor, Event | None]] = Future()
        future.set_result(work())
        return Prefetch(future, device)

    def to_device(self) -> Tensor:
        """Returns the whole table on the device, converted; on the CPU perhaps the table itself."""
        self._enter()
        where = "cpu" if self._device is None else self._device.device
        return self._table.tensor.detach().to(where, self._dtype)

    def _checked(self, ids: Tensor) -> Tensor:
        self._enter()
        ids = index_vector(ids, "ids")
        if not self._check_ids:
            return ids
        if ids.is_cpu:
            check_index(ids, len(self))
        elif ids.numel():
            low, high = torch.stack(ids.aminmax()).tolist()
            if low < 0 or high >= len(self):
                check_index(ids.cpu(), len(self))
        return ids

    def _fetch(self, ids: Tensor) -> tuple[Tensor, Event | None]:
        with self._lock:
            device = self._device
            if device is None:
                begin = time.perf_counter()
                rows = self._transport.fetch(ids, None)
                self._meter.add(ids.shape[0], time.perf_counter() - begin)
                return rows, None
            ids = ids.to(self._transport.ids_device)
            start, hot = device.record(), self._hot
            hits = None if hot is None else hot.hits(ids)
            rows = self._transport.fetch(ids, hot)
            end = device.record()
            self._meter.add_open(ids.shape[0], hits, start, end)
            if self._warmup and self._capacity:
                self._count(ids)
                if self._counts is not None and self._counts.total >= self._warmup:
                    self.rebuild()
            return rows, end

    # ---- cache -----------------------------------------------------------------------------------

    def observe(self, ids: Tensor) -> None:
        """Counts requests for the rows `ids` without fetching them, for the next `rebuild`."""
        ids = self._checked(ids)
        with self._lock:
            self._count(ids)

    def _count(self, ids: Tensor) -> None:
        if self._counts is None:
            self._counts = Counts(len(self), self._transport.ids_device)
        self._counts.add(ids)

    def rebuild(self) -> None:
        """Caches the rows that were asked for most, and ends the warm-up.

        Counted are the rows given to `observe` and those fetched during the warm-up; the counts
        begin anew afterwards. Waits for the device.

        Raises:
            RuntimeError: if nothing was counted.
        """
        self._enter()
        with self._lock:
            if self._counts is None or self._counts.total == 0:
                raise RuntimeError(
                    "nothing was counted yet: call observe(ids) first, or fetch rows with warmup=n"
                )
            score, self._counts, self._warmup = self._counts.score.cpu().long(), None, 0
            if self._capacity:
                self._cache_rows(score)

    def _cache_rows(self, score: Tensor) -> None:
        transport, device = self._transport, self._device
        if not isinstance(transport, DeviceTransport) or device is None:
            return
        device.synchronize()  # no stream may still read the old rows, whose memory now goes
        self._hot = None
        self._hot = HotRows.build(
            score,
            self._capacity,
            self._table,
            transport.ids_device,
            lambda ids: transport.load(ids, None),
        )
        device.synchronize()  # any stream may read the new ones

    # ---- facts -----------------------------------------------------------------------------------

    @property
    def table(self) -> Tensor:
        """The table as it was given."""
        return self._table.tensor

    @property
    def shape(self) -> torch.Size:
        """Of the table: (N, *F)."""
        return self._table.tensor.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows that come out."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Where rows come out."""
        return torch.device("cpu") if self._device is None else self._device.device

    @property
    def transport(self) -> str:
        """How rows travel: "cpu" (read in place), "mapped" (zero-copy) or "staged"."""
        return self._transport.name

    @property
    def cached_rows(self) -> int:
        """How many rows the cache holds now."""
        return 0 if self._hot is None else self._hot.rows.shape[0]

    @property
    def expected_hit_rate(self) -> float:
        """Share of requests the cache serves if they follow what it was made by."""
        return 0.0 if self._hot is None else self._hot.expected_hit_rate

    def stats(self, *, reset: bool = False) -> FeatureStats:
        """Returns what was fetched so far, and starts from zero if asked; waits for the device."""
        with self._lock:
            found = self._meter.read()
            if reset:
                self._meter.reset()
            return found

    def __len__(self) -> int:
        return self._table.num_rows

    def __repr__(self) -> str:
        state = f"transport={self.transport}, cached_rows={self.cached_rows}"
        if not self._finalizer.alive:
            state = "closed"
        return f"HostFeatures({tuple(self.shape)}, {self.dtype}, device={self.device}, {state})"

    # ---- life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finishes what is under way and gives pinned memory back; the table itself stays.

        Rows that came out stay valid. May be called twice. Happens by itself when the object goes.
        """
        pool, self._threads = self._threads, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=True)
        self._finalizer()
        self._hot = self._counts = None

    def __enter__(self) -> HostFeatures:
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError(
            "HostFeatures cannot be sent to another process. Send its table after "
            "table.share_memory_(), and make a HostFeatures there."
        )

    def _enter(self) -> None:
        if not self._finalizer.alive:
            raise RuntimeError("this HostFeatures is closed")
        if self._pid != os.getpid():
            if self._device is not None:
                raise RuntimeError(
                    "this HostFeatures was made before a fork, and a GPU cannot be used across "
                    "one. Make a HostFeatures of the same table in each process."
                )
            self._enter_process()

    def _enter_process(self) -> None:
        """Threads, and locks they hold, do not survive a fork."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._threads = None

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="gnnlab-prefetch")
        return self._threads
