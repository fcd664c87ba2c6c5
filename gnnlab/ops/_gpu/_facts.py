"""Facts about an Order that kernels need, computed once per Order and kept on it.

None of them waits for the device, but the first look at `chunks_of`; what is made while a CUDA
graph is captured belongs to that graph and is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch
from torch import Tensor

from gnnlab.ops._edges import Order

__all__ = ["CHUNK", "chunks_of", "kept", "rows_of", "sources_of"]

CHUNK = 1024
"""Rows with more edges are reduced in chunks of this many; rows.cuh says the same."""

Fact = TypeVar("Fact")


def chunks_of(order: Order) -> tuple[Tensor | None, int]:
    """Returns where each row's chunks begin, (M + 1,) int64, and how many chunks there are.

    Rows of up to CHUNK edges have none. The number is exact where the Order can keep it, an upper
    bound during capture; without any chunk the answer is (None, 0).
    """
    if order.num_edges <= CHUNK:
        return None, 0
    return kept(order, "chunks", lambda: _count_chunks(order))


def _count_chunks(order: Order) -> tuple[Tensor | None, int]:
    degree = order.indptr.diff()
    chunks = torch.where(degree > CHUNK, (degree + (CHUNK - 1)) // CHUNK, 0)
    offsets = torch.cat([chunks.new_zeros(1), chunks.cumsum(0)])
    if _is_captured(order):
        return (
            offsets,
            2 * order.num_edges // CHUNK,
        )  # a long row has less than 2 / CHUNK chunks per edge
    count = int(offsets[-1])
    return (offsets, count) if count else (None, 0)


def rows_of(order: Order) -> Tensor:
    """Returns the row of each place: (E,), dtype of `col`."""

    def build() -> Tensor:
        device = order.indptr.device
        rows = torch.arange(order.num_rows, dtype=order.place_dtype, device=device)
        return rows.repeat_interleave(order.indptr.diff(), output_size=order.num_edges)

    return kept(order, "rows", build)


def sources_of(order: Order, num_src: int) -> tuple[Tensor, Tensor | None]:
    """Returns the places that read each source row: (N + 1,) int64 and (E,), ascending.

    None for the places stands for 0, 1, 2, ...
    """

    def build() -> tuple[Tensor, Tensor | None]:
        device = order.indptr.device
        if order.col is None:
            starts = torch.arange(num_src + 1, device=device).clamp(max=order.num_edges)
            return starts, None
        sources, places = torch.sort(order.col, stable=True)
        wanted = torch.arange(num_src + 1, dtype=sources.dtype, device=device)
        return torch.searchsorted(sources, wanted), places.to(order.col.dtype)

    return kept(order, ("sources", num_src), build)


def kept(order: Order, key: Hashable, build: Callable[[], Fact]) -> Fact:
    """Returns ``build()``, computed once per Order and key."""
    key = ("gpu", key)
    if key in order.facts:
        return cast(Fact, order.facts[key])
    fact = build()
    if not _is_captured(order):
        order.facts[key] = fact
    return fact


def _is_captured(order: Order) -> bool:
    return order.indptr.is_cuda and torch.cuda.is_current_stream_capturing()
