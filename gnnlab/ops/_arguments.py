"""Checks of operator arguments and the row layout that kernels read; shared by all operators."""

from __future__ import annotations

import ctypes
from typing import Literal

import torch
from torch import Tensor

from gnnlab.ops._library import cpu_library, is_traced

__all__ = [
    "Reduce",
    "as_float64",
    "check_floating",
    "check_index",
    "check_reduce",
    "check_reducible",
    "flat_width",
    "index_vector",
    "rows_in_place",
]


Reduce = Literal["sum", "mean", "max", "min", "mul"]


def index_vector(index: Tensor, name: str = "index") -> Tensor:
    """Returns `index` contiguous, after checking that it is a vector of int32 or int64."""
    if type(index) is Tensor and index.dtype is torch.int64 and index.dim() == 1:
        return index if index.is_contiguous() else index.contiguous()  # the usual case, at once
    if not isinstance(index, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(index).__name__}")
    if index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 or int32, got {index.dtype}")
    if index.dim() != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(index.shape)}")
    return index.contiguous()


def check_reduce(
    reduce: str, known: tuple[str, ...] = ("sum", "mean", "max", "min", "mul")
) -> None:
    """Raises ValueError unless `reduce` is one of the known words."""
    if reduce not in known:
        raise ValueError(f'unknown reduce "{reduce}". Known: {", ".join(known)}.')


def check_reducible(x: Tensor, reduce: str, name: str) -> None:
    """Raises ValueError for dtypes that cannot be reduced this way without losing meaning."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    dtype = x.dtype
    if dtype is torch.float32:  # the usual case, at once
        return
    if dtype == torch.bool or dtype.is_complex:
        raise ValueError(f"{name} must hold real numbers, got {dtype}")
    if reduce in ("mean", "std") and not dtype.is_floating_point:
        raise ValueError(f'reduce="{reduce}" needs a floating-point {name}, got {dtype}')


def check_floating(x: Tensor, name: str) -> None:
    """Raises ValueError unless `x` is a tensor of floating-point numbers."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise ValueError(f"{name} must hold floating-point numbers, got {x.dtype}")


def as_float64(x: Tensor, accumulate: str) -> Tensor:
    """Returns `x` in float64, after checking what the user asked for."""
    if accumulate != "float64":
        raise ValueError(f'accumulate must be "float64" or None, got {accumulate!r}')
    check_floating(x, "x")
    return x.double()


def check_index(index: Tensor, bound: int) -> bool:
    """Raises IndexError for the first entry outside [0, bound); returns whether it is sorted.

    Tensors on other devices are not looked at (that would wait for the device), nor are tensors
    that torch.compile or torch.func traces; False is then returned.
    """
    library = cpu_library(index)
    if library is not None:
        flag = ctypes.c_int(0)
        library.check(
            library.check_index(
                index.data_ptr(), index.element_size(), index.numel(), bound, ctypes.byref(flag)
            )
        )
        return bool(flag.value)
    if is_traced(index) or not index.is_cpu or index.numel() == 0:
        return index.numel() == 0
    low, high = index.aminmax()
    if int(low) < 0 or int(high) >= bound:
        position = int(((index < 0) | (index >= bound)).nonzero()[0, 0])
        value = int(index[position])
        raise IndexError(f"index {value} at position {position} is out of range [0, {bound})")
    return bool((index[1:] >= index[:-1]).all())


def flat_width(x: Tensor) -> int:
    """Returns how many items a row of `x` has; 1 for a vector."""
    width = 1
    for size in x.shape[1:]:
        width *= size
    return width


def rows_in_place(x: Tensor) -> tuple[Tensor, int]:
    """Returns `x` in a layout whose rows lie unbroken in memory, and the distance between rows."""
    shape = x.shape
    if x.is_contiguous():
        return x, shape[1] if len(shape) == 2 else flat_width(x)
    if x.dim() == 1 or (x.dim() == 2 and x.stride(1) == 1):
        return x, x.stride(0)
    return x.contiguous(), flat_width(x)
