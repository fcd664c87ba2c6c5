"""Every operator in a few lines of plain torch: its definition, its fallback and its oracle.

These functions are differentiable by torch itself, work on any device and dtype, and take indices
that have been checked already. Edges are in the caller's order: `src` and `dst` hold the two ends
of each. Half-precision values are computed in float32 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "arg_of",
    "count",
    "edge_softmax",
    "gather",
    "rows_of",
    "scatter",
    "scatter_arg",
    "scatter_items",
    "sddmm",
    "segment",
    "segment_logsumexp",
    "sort_edges",
    "spmm",
    "spmm_arg",
    "spmm_multi",
]

_HALF = (torch.bfloat16, torch.float16)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in _HALF else x


def _over(index: Tensor, x: Tensor) -> Tensor:
    """Returns a vector per row in the shape of `x`, for torch's operators on single items."""
    return index.long().view(-1, *[1] * (x.dim() - 1)).expand_as(x)


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Copies rows: ``out[e] = x[index[e]]``."""
    return x.index_select(0, index)


def scatter(src: Tensor, index: Tensor, dim_size: int, reduce: str = "sum") -> Tensor:
    """Reduces rows: ``out[index[e]]`` is the sum, mean, max, min or product of ``src[e]``.

    "mean" divides by how many rows came. A row that nothing reaches is 0, for "mul" 1.
    """
    if reduce in ("max", "min"):
        return scatter_arg(src, index, dim_size, reduce)[0]
    wide = _wide(src)
    shape = (dim_size, *src.shape[1:])
    if reduce == "mul":
        ones = torch.ones(shape, dtype=wide.dtype, device=src.device)
        return ones.scatter_reduce(0, _over(index, wide), wide, "prod").to(src.dtype)
    out = wide.new_zeros(shape).index_add(0, index, wide)
    if reduce == "mean":
        out = out / _over(count(index, dim_size).clamp(min=1), out).to(out.dtype)
    return out.to(src.dtype)


def arg_of(src: Tensor, index: Tensor, dim_size: int, reduce: str) -> Tensor:
    """Returns which row of `src` holds the max or min of each item: int64, E where none came.

    The first NaN wins over every number, and the lowest row among equals.
    """
    shape = (dim_size, *src.shape[1:])
    src, at = src.detach(), _over(index, src)
    kind = "amax" if reduce == "max" else "amin"
    best = src.new_zeros(shape).scatter_reduce(0, at, src, kind, include_self=False)
    mine = best.gather(0, at) if src.numel() else src
    won = (src == mine) | (src.isnan() & mine.isnan())
    num_edges = src.shape[0]
    edge = torch.arange(num_edges, device=src.device)
    edge = _over(edge, src).masked_fill(~won, num_edges)
    none = torch.full(shape, num_edges, dtype=torch.int64, device=src.device)
    return none.scatter_reduce(0, at, edge, "amin")


def scatter_arg(src: Tensor, index: Tensor, dim_size: int, reduce: str) -> tuple[Tensor, Tensor]:
    """Returns max or min as `scatter` does, and where each item came from (`arg_of`)."""
    arg = arg_of(src, index, dim_size, reduce)
    padded = torch.cat([src, src.new_zeros(1, *src.shape[1:])])
    return padded.gather(0, arg), arg


def scatter_items(src: Tensor, index: Tensor, dim_size: int, reduce: str, dim: int) -> Tensor:
    """Reduces single items: `index` has the shape of `src`, and moves each item along `dim`."""
    wide, index = _wide(src), index.long()
    shape = [*src.shape]
    shape[dim] = dim_size
    if reduce in ("sum", "mean"):
        out = wide.new_zeros(shape).scatter_add(dim, index, wide)
        if reduce == "mean":
            number = wide.new_zeros(shape).scatter_add(dim, index, torch.ones_like(wide))
            out = out / number.clamp(min=1)
    elif reduce == "mul":
        out = wide.new_ones(shape).scatter_reduce(dim, index, wide, "prod")
    else:
        kind = "amax" if reduce == "max" else "amin"
        out = wide.new_zeros(shape).scatter_reduce(dim, index, wide, kind, include_self=False)
    return out.to(src.dtype)


def segment(src: Tensor, indptr: Tensor, reduce: str = "sum") -> Tensor:
    """Reduces consecutive rows: ``out[i]`` comes from ``src[indptr[i] : indptr[i + 1]]``."""
    return scatter(src, rows_of(indptr, src.shape[0]), indptr.shape[0] - 1, reduce)


def _messages(src: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    messages = gather(_wide(x), src)
    if weight is None:
        return messages
    weight = weight.to(messages.dtype)
    return messages * weight.view(*weight.shape, *[1] * (x.dim() - weight.dim()))


def spmm(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    x: Tensor,
    weight: Tensor | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces weighted neighbours: ``out[i]`` from ``weight[e] * x[src[e]]`` over e with dst i."""
    return scatter(_messages(src, x, weight), dst, num_dst, reduce).to(x.dtype)


def spmm_arg(
    src: Tensor, dst: Tensor, num_dst: int, x: Tensor, weight: Tensor | None, reduce: str
) -> tuple[Tensor, Tensor]:
    """Returns max or min as `spmm` does, and the edge that each item came by."""
    out, arg = scatter_arg(_messages(src, x, weight), dst, num_dst, reduce)
    return out.to(x.dtype), arg


def spmm_multi(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    x: Tensor,
    weight: Tensor | None,
    reduce: tuple[str, ...],
) -> list[Tensor]:
    """Returns several of sum, mean, max, min and std (population) of weighted neighbours."""
    messages = _messages(src, x, weight)
    found = []
    for name in reduce:
        if name == "std":
            away = messages - gather(scatter(messages, dst, num_dst, "mean"), dst)
            found.append(scatter(away.square(), dst, num_dst, "mean").sqrt().to(x.dtype))
        else:
            found.append(scatter(messages, dst, num_dst, name).to(x.dtype))
    return found


def sddmm(src: Tensor, dst: Tensor, a: Tensor, b: Tensor, op: str) -> Tensor:
    """Combines the two ends of each edge: ``a[dst[e]] op b[src[e]]``; "dot" sums over the last."""
    left, right = gather(_wide(a), dst), gather(_wide(b), src)
    if op == "dot":
        out = (left * right).sum(-1)
    elif op == "add":
        out = left + right
    elif op == "sub":
        out = left - right
    elif op == "mul":
        out = left * right
    else:
        out = left / right
    return out.to(b.dtype)


def edge_softmax(src: Tensor, index: Tensor, size: int, log: bool = False) -> Tensor:
    """Normalises exponentials over the entries that share an index: softmax or its logarithm."""
    wide = _wide(src)
    largest = gather(scatter(wide.detach(), index, size, "max"), index)
    shifted = wide - largest.masked_fill(largest.isinf() & (largest > 0), 0.0)
    if log:
        total = gather(scatter(shifted.exp(), index, size), index)
        return (shifted - total.log()).to(src.dtype)
    powers = shifted.exp()
    return (powers / gather(scatter(powers, index, size), index)).to(src.dtype)


def segment_logsumexp(src: Tensor, index: Tensor, size: int) -> Tensor:
    """Returns the logarithm of the sum of exponentials, -inf where no entry came."""
    wide = _wide(src)
    largest = scatter(wide.detach(), index, size, "max")
    largest = largest.masked_fill(largest.isinf(), 0.0)
    total = scatter((wide - gather(largest, index)).exp(), index, size)
    return (total.log() + largest).to(src.dtype)


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
