"""Checks of operator arguments and the row layout that kernels read; shared by all operators."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from gnnlab.ops._library import cpu_library, is_traced

__all__ = [
    "check_index",
    "check_reduce",
    "check_sum_dtype",
    "flat_width",
    "index_vector",
    "rows_in_place",
]


def index_vector(index: Tensor, name: str = "index") -> Tensor:
    """Returns `index` contiguous, after checking that it is a vector of int32 or int64."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(index).__name__}")
    if index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"{name} must be int64 or int32, got {index.dtype}")
    if index.dim() != 1:
        raise ValueError(f"{name} must have one dimension, got shape {tuple(index.shape)}")
    return index.contiguous()


def check_reduce(reduce: str, known: tuple[str, ...] = ("sum", "mean")) -> None:
    """Raises ValueError unless `reduce` is one of the known words."""
    if reduce not in known:
        raise ValueError(f'unknown reduce "{reduce}". Known: {", ".join(known)}.')


def check_sum_dtype(x: Tensor, reduce: str, name: str) -> None:
    """Raises ValueError for dtypes that cannot be summed, or averaged, without losing meaning."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.dtype == torch.bool or x.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}")
    if reduce == "mean" and not x.is_floating_point():
        raise ValueError(f'reduce="mean" needs a floating-point {name}, got {x.dtype}')


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
    if x.is_contiguous():
        return x, flat_width(x)
    if x.dim() == 1 or (x.dim() == 2 and x.stride(1) == 1):
        return x, x.stride(0)
    return x.contiguous(), flat_width(x)
