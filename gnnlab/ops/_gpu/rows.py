"""Row copies and reductions on the GPU: gather.cu, rows.cu and arg.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnlab.ops._gpu._launch import Provider, RawRows, Unit, row_stride, unit

__all__ = ["VARIANTS", "Rows"]

BLOCK = 256
_WORDS = ((16, "w16"), (8, "u64"), (4, "u32"), (2, "u16"), (1, "u8"))

VARIANTS: list[Unit] = [
    unit("gather", W=word, I=index) for _, word in _WORDS for index in ("i32", "i64")
]


class Rows(Provider):
    """gather, scatter and the reductions."""

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """See Kernels.gather. A row of a wrong index is filled with NaN, or -1."""
        out = self.launcher.empty((index.shape[0], *x.shape[1:]), x.dtype, x.device)
        item = x.element_size()
        row_bytes = item * (x.numel() // x.shape[0] if x.shape[0] else _width(x))
        span = RawRows(x.data_ptr(), 0)
        self._gather(x, span, row_stride(x) * item, row_bytes, x.shape[0], index, out, None, None)
        return out

    def gather_rows(
        self,
        pointer: int,
        stride_bytes: int,
        row_bytes: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None = None,
        cache: Tensor | None = None,
        *,
        num_rows: int | None = None,
    ) -> None:
        """Copies rows out of memory that the device can read, such as pinned host memory.

        Args:
            pointer: address of row 0, as the device sees it.
            stride_bytes: from one row to the next.
            row_bytes: length of a row.
            index: rows wanted, (n,) int32 or int64 on the device.
            out: filled with them, (n, ...) contiguous.
            slots: (N,) int32 on the device: where a row lies in `cache`, -1 when it is not there.
            cache: rows kept on the device, rows with unit inner stride.
            num_rows: number of rows N; then wrong indices are noticed and their rows of `out`
                filled with NaN (or -1). Without it, or `slots`, they must be right.
        """
        if num_rows is None:
            num_rows = 2**62 // max(stride_bytes, 1) if slots is None else slots.shape[0]
        length = (num_rows - 1) * stride_bytes + row_bytes if num_rows else 0
        rows = RawRows(pointer, length)
        self._gather(None, rows, stride_bytes, row_bytes, num_rows, index, out, slots, cache)

    def _gather(
        self,
        x: Tensor | None,
        rows: RawRows,
        stride: int,
        row_bytes: int,
        num_rows: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None,
        cache: Tensor | None,
    ) -> None:
        count = index.shape[0]
        if count == 0 or row_bytes == 0:
            return
        cache_stride = 0 if cache is None else row_stride(cache) * cache.element_size()
        bits = rows.pointer | stride | row_bytes | out.data_ptr() | cache_stride
        bits |= 0 if cache is None else cache.data_ptr()
        size, word = next((s, w) for s, w in _WORDS if bits % s == 0)
        words = row_bytes // size
        lanes = 1 << (words - 1).bit_length()
        kernel = "gather_wide" if lanes > 32 else f"gather_few_{lanes}"
        per_block = BLOCK // 32 if lanes > 32 else 4 * BLOCK // lanes
        self.launcher.launch(
            unit("gather", W=word, I="i64" if index.dtype == torch.int64 else "i32"),
            kernel,
            min(-(-count // per_block), 2**31 - 1),
            BLOCK,
            0,
            *(rows if x is None else x, stride, index, count, num_rows, words, out),
            *(slots, cache, cache_stride),
        )


def _width(x: Tensor) -> int:
    width = 1
    for size in x.shape[1:]:
        width *= size
    return width
