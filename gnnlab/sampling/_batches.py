"""What loaders share: the order of an epoch, seeds of batches, rows of a batch, the thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from gnnlab.data import HostFeatures

__all__ = ["Rows", "ahead", "fetch", "mix", "order_of", "with_rows"]

Batch = TypeVar("Batch")
Rows = Callable[[], Tensor | None]
"""Gives the rows of a batch when they are needed."""

_MASK = 2**64 - 1


def mix(*numbers: int) -> int:
    """Returns 64 bits that depend on all the numbers and their order.

    Source: the finalizer of SplitMix64; Steele et al., OOPSLA 2014, doi:10.1145/2660193.2660195.
    """
    state = 0
    for value in numbers:
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def order_of(count: int, shuffle: bool, seed: int, epoch: int) -> Tensor:
    """Returns the order of `count` items in an epoch: (count,) int64."""
    if not shuffle:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, epoch) >> 1))


def with_rows(
    features: Tensor | HostFeatures | None, name: str, num_nodes: int
) -> HostFeatures | None:
    """Returns a table of one row per node, after checking it."""
    if features is None:
        return None
    if isinstance(features, Tensor):
        if features.requires_grad:
            raise ValueError(
                f"{name} need a gradient, but rows are fetched ahead, apart from the network. "
                "Leave them out and index them by batch.nodes"
            )
        if not features.is_cpu:
            raise ValueError(
                f"{name} must be on the CPU or a HostFeatures, got {features.device}. On the "
                "device already they need no loader: leave them out and index them by batch.nodes"
            )
        features = HostFeatures(features)
    if not isinstance(features, HostFeatures):
        raise TypeError(f"{name} must be a tensor or HostFeatures, got {type(features).__name__}")
    if len(features) != num_nodes:
        raise ValueError(f"{name} have {len(features)} rows, but the graph has {num_nodes} nodes")
    return features


def fetch(features: HostFeatures | None, ids: Tensor) -> Rows:
    """Begins to fetch rows; on the CPU they are there when this returns."""
    if features is None:
        return lambda: None
    if features.transport == "cpu":
        rows = features[ids]
        return lambda: rows
    return features.prefetch(ids).wait  # the consumer's stream waits, not this thread's


def ahead(make: Callable[[int], Batch], count: int, depth: int) -> Generator[Batch]:
    """Yields make(0), make(1), ..., made by a thread that is up to `depth` batches ahead.

    An error of `make` is raised here, after the batches before it. The thread ends with the
    iterator: when it is exhausted, closed, or let go of.
    """
    if depth == 0:
        for i in range(count):
            yield make(i)
        return
    made: SimpleQueue[tuple[Batch | None, BaseException | None]] = SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        for i in range(count):
            room.acquire()
            if stopped.is_set():
                return
            try:
                batch = make(i)
            except BaseException as error:  # the consumer decides what to do about it
                made.put((None, error))
                return
            made.put((batch, None))

    # A daemon: an iterator that is alive when the program ends must not keep it from ending.
    thread = threading.Thread(target=work, name="gnnlab-loader", daemon=True)
    thread.start()
    try:
        for _ in range(count):
            batch, error = made.get()
            room.release()
            if error is not None:
                raise error
            yield batch  # type: ignore[misc]
            del batch
    finally:
        stopped.set()
        room.release()
        thread.join()
