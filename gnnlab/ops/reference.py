"""Every operator in a few lines of plain torch: its definition, its fallback and its oracle.

These functions are differentiable by torch itself, work on any device and dtype, and take indices
that have been checked already. Half-precision values are summed in float32 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["count", "gather", "scatter", "segment", "sort_edges", "spmm"]

_HALF = (torch.bfloat16, torch.float16)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Copies rows: ``out[e] = x[index[e]]``."""
    return x.index_select(0, index)


def scatter(src: Tensor, index: Tensor, dim_size: int, reduce: str = "sum") -> Tensor:
    """Adds rows: ``out[index[e]] += src[e]``; "mean" divides by how many rows came."""
    wide = src.float() if src.dtype in _HALF else src
    out = wide.new_zeros((dim_size, *src.shape[1:])).index_add(0, index, wide)
    if reduce == "mean":
        out = out / count(index, dim_size).clamp(min=1).to(out.dtype).view(
            -1, *[1] * (src.dim() - 1)
        )
    return out.to(src.dtype)


def scatter_items(src: Tensor, index: Tensor, dim_size: int, reduce: str, dim: int) -> Tensor:
    """Adds single items: `index` has the shape of `src`, and moves each item along `dim`."""
    wide = src.float() if src.dtype in _HALF else src
    shape = [*src.shape]
    shape[dim] = dim_size
    index = index.long()
    out = wide.new_zeros(shape).scatter_add(dim, index, wide)
    if reduce == "mean":
        count = wide.new_zeros(shape).scatter_add(dim, index, torch.ones_like(wide))
        out = out / count.clamp(min=1)
    return out.to(src.dtype)


def segment(src: Tensor, indptr: Tensor, reduce: str = "sum") -> Tensor:
    """Sums consecutive rows: ``out[i] = src[indptr[i] : indptr[i + 1]].sum(0)``."""
    return scatter(src, rows_of(indptr, src.shape[0]), indptr.shape[0] - 1, reduce)


def spmm(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    x: Tensor,
    weight: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Sums weighted neighbours: ``out[i] = sum of weight[e] * x[src[e]]`` over edges with dst i."""
    messages = gather(x.float() if x.dtype in _HALF else x, src)
    if weight is not None:
        weight = weight.to(messages.dtype)
        messages = messages * weight.view(*weight.shape, *[1] * (x.dim() - weight.dim()))
    return scatter(messages, dst, num_dst, reduce).to(x.dtype)


def count(index: Tensor, size: int) -> Tensor:
    """Counts how often each of 0..size-1 occurs; int64."""
    ones = torch.ones_like(index, dtype=torch.int64)
    return ones.new_zeros(size).index_add(0, index, ones)


def rows_of(indptr: Tensor, num_edges: int) -> Tensor:
    """Returns the row of each edge: row i repeated ``indptr[i + 1] - indptr[i]`` times."""
    rows = torch.arange(indptr.shape[0] - 1, device=indptr.device)
    return rows.repeat_interleave(indptr.diff(), output_size=num_edges)


def sort_edges(key: Tensor, other: Tensor, num_keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sorts edges by `key`, keeping the order inside a row; returns indptr, other sorted, order."""
    order = key.sort(stable=True).indices
    indptr = torch.cat([order.new_zeros(1), count(key, num_keys).cumsum(0)])
    return indptr, other[order], order
