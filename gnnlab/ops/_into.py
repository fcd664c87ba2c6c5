"""Gather into memory that the caller owns, for tables whose rows pass through a buffer."""

from __future__ import annotations

import torch
from torch import Tensor, get_num_threads

from gnnlab.ops._library import cpu_library

__all__ = ["gather_into"]


def gather_into(x: Tensor, index: Tensor, out: Tensor) -> None:
    """Writes ``x[index]`` into `out`, on the CPU.

    Args:
        x: (N, W) with unit inner stride.
        index: (n,) int32 or int64.
        out: (n, W) contiguous, of the dtype of `x`.

    Raises:
        IndexError: if an index is outside 0..N-1.
    """
    index = index.contiguous()
    library = cpu_library(x)
    if library is None:
        torch.index_select(x, 0, index, out=out)
        return
    size = x.element_size()
    library.check(
        library.gather(
            x.data_ptr(),
            x.stride(0) * size,
            index.data_ptr(),
            index.element_size(),
            index.shape[0],
            x.shape[0],
            x.shape[1] * size,
            out.data_ptr(),
            get_num_threads(),
        )
    )
