"""Turns a call with an index of any shape into one call on rows."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.ops._arguments import check_index

__all__ = ["Layout", "wrapped"]


def wrapped(dim: int, src: Tensor) -> int:
    """Returns `dim` counted from the front; IndexError when `src` does not have it."""
    if not -src.dim() <= dim < src.dim():
        raise IndexError(f"dim {dim} does not exist in src of shape {tuple(src.shape)}")
    return dim % src.dim()


class Layout:
    """Where the rows of one call are, and how to put results back.

    torch-scatter wants one index per item and lets it broadcast. Dimensions along which the index
    does not vary (because it was broadcast, or expanded by the caller) are features of a row. The
    others multiply the number of rows: the index of the k-th combination is shifted by k times
    the number of destinations. Most calls have none of these, and then nothing is computed here.

    Args:
        src: the source, of any shape.
        index: one entry per position along `dim`, or any shape that broadcasts to `src`: new
            dimensions are added in front of a vector up to `dim`, and behind all others.
        dim: the dimension that is reduced.
        size: number of destinations; None for the largest index + 1.
    """

    def __init__(self, src: Tensor, index: Tensor, dim: int, size: int | None) -> None:
        self.dim = dim = wrapped(dim, src)
        if index.dtype not in (torch.int64, torch.int32):
            raise RuntimeError(f"index must be int64 or int32, got {index.dtype}")
        self.length = src.shape[dim]
        vector = index.dim() == 1 and index.shape[0] == self.length
        index = index if vector else _aligned(index, src, dim)
        if size is None:
            size = int(index.max()) + 1 if index.numel() else 0
        self.size = size
        varying = [] if vector else [d for d in range(src.dim()) if d != dim and index.shape[d] > 1]
        self.varying = [src.shape[d] for d in varying]
        constant = [d for d in range(src.dim()) if d != dim and d not in varying]
        self._order = [*varying, dim, *constant]
        self._ordered = self._order == sorted(self._order)
        self._back = [self._order.index(d) for d in range(src.dim())]
        if not vector:
            index = index.permute(self._order).reshape(*self.varying, self.length)
        if varying:
            check_index(index.reshape(-1), size)  # before shifts hide what is out of range
            count = math.prod(self.varying)
            shifts = torch.arange(count, device=index.device) * size
            index = index.long() + shifts.view(*self.varying, 1)
            self.rows = count * size
        else:
            self.rows = size
        self.index = index.reshape(-1)

    def take(self, src: Tensor) -> Tensor:
        """Returns a tensor of the shape of src, or of the result, as rows."""
        if not self._ordered:
            src = src.permute(self._order)
        if not self.varying:
            return src
        first = len(self.varying)
        return src.reshape(math.prod(src.shape[: first + 1]), *src.shape[first + 1 :])

    def put(self, out: Tensor) -> Tensor:
        """Returns rows, one per destination, in the order of dimensions of src."""
        return self._unfold(out, self.size)

    def put_entries(self, out: Tensor) -> Tensor:
        """Returns rows, one per entry of `index`, in the shape of src."""
        return self._unfold(out, self.length)

    def put_arg(self, arg: Tensor) -> Tensor:
        """Returns positions among all rows as positions along `dim`, src.size(dim) for none."""
        if self.varying:
            none = arg == self.index.shape[0]
            arg = (arg % max(self.length, 1)).masked_fill(none, self.length)
        return self.put(arg)

    def _unfold(self, out: Tensor, size: int) -> Tensor:
        if self.varying:
            out = out.reshape(*self.varying, size, *out.shape[1:])
        return out if self._ordered else out.permute(self._back)

    def reduce(self, src: Tensor, reduce: Literal["sum", "mean", "max", "min", "mul"]) -> Tensor:
        """Returns the reduction of src, fresh, in torch-scatter's shape."""
        return self.put(ops.scatter(self.take(src), self.index, self.rows, reduce=reduce))

    def extreme(self, src: Tensor, reduce: Literal["max", "min"]) -> tuple[Tensor, Tensor]:
        """Returns max or min of src and the positions along `dim`."""
        out, arg = ops.scatter_arg(self.take(src), self.index, self.rows, reduce=reduce)
        return self.put(out), self.put_arg(arg)

    def counts(self, src: Tensor) -> Tensor:
        """Returns how many entries each destination has, in a shape that fits the result."""
        ones = torch.ones(self.index.shape[0], dtype=torch.int64, device=src.device)
        counts = ops.scatter(ones, self.index, self.rows)
        features = src.dim() - 1 - len(self.varying)
        return self.put(counts.view(self.rows, *[1] * features))

    def spread(self, rows: Tensor) -> Tensor:
        """Returns the row of each entry's destination."""
        return ops.gather(rows, self.index)


def _aligned(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """Returns the index with as many dimensions as src; those it does not vary along have size 1.

    Along `dim` it has the size of src.
    """
    if index.dim() == 1:
        index = index[(None,) * dim]
    if index.dim() > src.dim():
        raise RuntimeError(
            f"index of shape {tuple(index.shape)} has more dimensions than src of shape "
            f"{tuple(src.shape)}"
        )
    index = index[(..., *[None] * (src.dim() - index.dim()))]
    index.expand(src.shape)  # RuntimeError with torch's words when they do not fit
    for d in range(src.dim()):
        if d != dim and index.shape[d] > 1 and index.stride(d) == 0:
            index = index.narrow(d, 0, 1)
    return index.expand([src.shape[d] if d == dim else -1 for d in range(src.dim())])
