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
    "attention",
    "count",
    "edge_softmax",
    "gat",
    "gather",
    "gatv2",
    "keep_mask",
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


def gat(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    x: Tensor,
    a_src: Tensor,
    a_dst: Tensor,
    edge: Tensor | None,
    slope: float,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Attends by the sum of two ends' scores, as GAT does; see `gat_aggregate`."""
    scores = gather(_wide(a_src), src) + gather(_wide(a_dst), dst)
    if edge is not None:
        scores = scores + edge
    share = edge_softmax(torch.nn.functional.leaky_relu(scores, slope), dst, num_dst)
    if dropout > 0:
        keep = keep_mask(share.shape[0], share.shape[1], dropout, seed, share.device)
        share = share * keep / (1 - dropout)
    return scatter(share[..., None] * gather(_wide(x), src), dst, num_dst).to(x.dtype)


def gatv2(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    x_src: Tensor,
    x_dst: Tensor,
    att: Tensor,
    edge: Tensor | None,
    slope: float,
) -> Tensor:
    """Attends by a vector on the activated sum of two ends, as GATv2 does."""
    values = gather(_wide(x_src), src)
    both = values + gather(_wide(x_dst), dst)
    if edge is not None:
        both = both + edge
    scores = (torch.nn.functional.leaky_relu(both, slope) * att).sum(-1)
    share = edge_softmax(scores, dst, num_dst)
    return scatter(share[..., None] * values, dst, num_dst).to(x_src.dtype)


def attention(
    src: Tensor,
    dst: Tensor,
    num_dst: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """Attends by scaled products of queries and keys, as a graph transformer does."""
    scores = scale * (gather(_wide(q), dst) * gather(_wide(k), src)).sum(-1)
    if bias is not None:
        scores = scores + bias
    share = edge_softmax(scores, dst, num_dst)
    return scatter(share[..., None] * gather(_wide(v), src), dst, num_dst).to(v.dtype)


def keep_mask(
    num_edges: int, heads: int, dropout: float, seed: int, device: torch.device | None = None
) -> Tensor:
    """Returns which of (E, H) survive dropout: Philox4x32-10 of edge and head, keyed by the seed.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    low = 0xFFFFFFFF
    edge = torch.arange(num_edges, dtype=torch.int64, device=device)[:, None].expand(-1, heads)
    head = torch.arange(heads, dtype=torch.int64, device=device)[None].expand(num_edges, -1)
    c0, c1, c2, c3 = edge & low, edge >> 32, head, torch.zeros_like(head)
    k0, k1 = seed & low, (seed >> 32) & low
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0 >= int(dropout * 2**32)


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the high and low 32 bits of a product of 32-bit numbers held in int64."""
    half = 0xFFFF
    low = a * (b & half)  # below 2^48
    high = a * (b >> 16)
    middle = (low >> 16) + (high & half)
    return (high >> 16) + (middle >> 16), ((middle & half) << 16) | (low & half)


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
