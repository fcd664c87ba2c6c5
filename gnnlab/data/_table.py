"""The table of rows: what is accepted, how it lies in memory, and tables in files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import DataError

__all__ = ["Table", "read_table"]

# Rows are only copied, so one integer type per item size serves every dtype, float8 included.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


@dataclass(frozen=True)
class Table:
    """A checked table, and its rows as words of the item's size."""

    tensor: Tensor
    """As the user gave it; the reference keeps the memory alive."""
    words: Tensor
    """(N, W): the same memory."""

    @classmethod
    def of(cls, x: Any) -> Table:
        """Checks `x`; TypeError or ValueError says what to do instead."""
        if not isinstance(x, Tensor):
            hint = "; use torch.from_numpy(x)" if isinstance(x, np.ndarray) else ""
            raise TypeError(f"the table must be a tensor, got {type(x).__name__}{hint}")
        if x.layout != torch.strided or x.is_quantized:
            raise ValueError(f"the table must be dense, got layout {x.layout}; use x.to_dense()")
        if not x.is_cpu:
            raise ValueError(
                f"the table must be in host memory, got {x.device}. "
                "Index a tensor on a device directly, or pass x.cpu()."
            )
        if x.dim() < 2:
            raise ValueError(
                f"the table must have rows, got shape {tuple(x.shape)}; use x.reshape(-1, 1)"
            )
        if x.requires_grad:
            raise ValueError("the table cannot be trained, but requires grad; pass x.detach()")
        if x.is_conj() or x.is_neg():
            raise ValueError("the table is a lazy conjugate; pass x.resolve_conj().resolve_neg()")
        return cls(x, _words(x.detach()))

    @property
    def num_rows(self) -> int:
        """N."""
        return self.words.shape[0]

    @property
    def row_bytes(self) -> int:
        """Length of a row."""
        return self.words.shape[1] * self.words.element_size()

    @property
    def stride_bytes(self) -> int:
        """From one row to the next."""
        return self.words.stride(0) * self.words.element_size()

    @property
    def span_bytes(self) -> int:
        """From the first byte of the first row to the last byte of the last row."""
        if self.num_rows == 0 or self.row_bytes == 0:
            return 0
        return (self.num_rows - 1) * self.stride_bytes + self.row_bytes

    def shaped(self, words: Tensor) -> Tensor:
        """Returns rows of words (n, W) as rows of the table (n, *F), the same memory."""
        return words.view(self.tensor.dtype).view(words.shape[0], *self.tensor.shape[1:])


def _words(x: Tensor) -> Tensor:
    width = math.prod(x.shape[1:])
    unbroken, expected = True, 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        unbroken &= size == 1 or stride == expected
        expected *= size
    if x.numel() and not unbroken:
        raise ValueError(
            f"rows of the table must lie unbroken in memory, but strides are {x.stride()} "
            f"for shape {tuple(x.shape)}; pass x.contiguous(), which makes a copy"
        )
    step = x.stride(0) if x.shape[0] > 1 and x.numel() else width
    return x.as_strided((x.shape[0], width), (step, 1)).view(_WORDS[x.element_size()])


def read_table(
    path: str | os.PathLike[str],
    *,
    mmap: bool = True,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Returns the table in a .npy file, or in a raw file of given shape and dtype.

    With `mmap` the pages come from the file when they are read. They are never written back.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if (shape is None) != (dtype is None):
        raise ValueError("a raw file needs both shape and dtype; a .npy file needs neither")
    with open(path, "rb") as file:
        if shape is None or dtype is None:
            sizes, kind = _npy_header(file, path)
        else:
            sizes, kind = _raw_shape(shape, path), _raw_dtype(dtype)
            if file.read(6) == b"\x93NUMPY":
                raise DataError(f"{path} is a .npy file: leave out shape and dtype")
            file.seek(0)
        begin = file.tell()
    length = math.prod(sizes) * kind.itemsize
    found = path.stat().st_size - begin
    if found < length or (shape is not None and found > length):
        what = "is truncated" if found < length else "is longer than that"
        raise DataError(
            f"{path} {what}: shape {sizes} of {kind} needs {length} bytes, the file has {found}"
        )
    if length == 0:
        return torch.empty(sizes, dtype=kind)
    if mmap:  # mode "c": private pages, so torch may have them as writable memory
        data: Any = np.memmap(path, dtype=np.uint8, mode="c", offset=begin, shape=(length,))
    else:
        data = np.fromfile(path, dtype=np.uint8, offset=begin, count=length)
    return torch.from_numpy(data.view(np.ndarray)).view(kind).view(sizes)


def _raw_shape(shape: Sequence[int], path: Path) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    if len(sizes) < 2 or min(sizes) < 0:
        raise ValueError(f"shape of {path} must be (N, ...) with sizes of 0 or more, got {sizes}")
    return sizes


def _raw_dtype(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype must be a torch dtype such as torch.float16, got {dtype!r}")
    return dtype


def _npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], torch.dtype]:
    """Returns shape and dtype, with the file at its first row."""
    form = np.lib.format
    try:
        version = form.read_magic(file)
        read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[version]
        shape, by_column, kind = read(file)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path} is not a .npy file that can be read ({error}). Write it with numpy.save(path, "
            "array); for a raw file pass shape and dtype."
        ) from error
    if len(shape) < 2:
        raise DataError(f"{path} has shape {shape}, but a table has rows: (N, F)")
    if by_column:
        raise DataError(
            f"{path} is in Fortran order, so its rows are scattered over the file. "
            "Write it with numpy.save(path, numpy.ascontiguousarray(array))."
        )
    try:
        if not kind.isnative:
            raise TypeError("the order of its bytes is not that of this machine")
        return shape, torch.from_numpy(np.empty(0, dtype=kind)).dtype
    except TypeError as error:
        raise DataError(f"{path} holds {kind}, which torch cannot read: {error}") from error
