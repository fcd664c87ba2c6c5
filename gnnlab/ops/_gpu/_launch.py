"""What kernels are started with: the same for a GPU and for the emulator."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu._source import Unit, unit

__all__ = [
    "TYPE_NAMES",
    "Argument",
    "Launcher",
    "Provider",
    "RawRows",
    "Unit",
    "index_name",
    "pack",
    "row_stride",
    "row_width",
    "unit",
]

TYPE_NAMES = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.bfloat16: "bf16",
    torch.float16: "f16",
    torch.int32: "i32",
    torch.int64: "i64",
}
"""Dtypes with kernels, and what gl.cuh calls them."""


class RawRows(NamedTuple):
    """Memory that is no tensor of this device, such as pinned host memory."""

    pointer: int
    num_bytes: int


Argument = Tensor | RawRows | int | float | None


class Launcher(Protocol):
    """Starts kernels and makes their results' memory."""

    name: str

    def launch(
        self,
        code: Unit,
        kernel: str,
        grid: int | tuple[int, int],
        block: int,
        shared: int,
        *args: Argument,
    ) -> None:
        """Starts `kernel` of the compiled `code`; an empty grid starts nothing.

        The device is that of the first tensor among `args`, the stream torch's current one. Each
        argument fills 8 bytes of the kernel's struct: tensors their address, None a null pointer,
        int an i64, float an f64.
        """

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Returns uninitialised memory."""


class Provider:
    """Base of the operator families: holds the launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.name = launcher.name


def pack(args: Sequence[Argument]) -> bytes:
    """Returns the struct that a kernel takes."""
    layout, values = [], []
    for arg in args:
        if isinstance(arg, float):
            layout.append("d")
            values.append(arg)
            continue
        if isinstance(arg, int):
            layout.append("q")
            values.append(arg)
            continue
        layout.append("Q")
        if isinstance(arg, Tensor):
            values.append(arg.data_ptr())
        else:
            values.append(0 if arg is None else arg.pointer)
    return struct.pack("<" + "".join(layout), *values)


def index_name(order: Order) -> str:
    """Returns what gl.cuh calls the type of `col`, `perm` and args."""
    return TYPE_NAMES[order.place_dtype]


def row_width(x: Tensor) -> int:
    """Returns the number of items in a row of x (N, *F), also when there are no rows."""
    width = 1
    for size in x.shape[1:]:
        width *= size
    return width


def row_stride(x: Tensor) -> int:
    """Returns the distance between rows of x (N, *F) in items."""
    return x.stride(0) if x.dim() and x.shape[0] > 1 else row_width(x)
