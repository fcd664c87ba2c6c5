"""The operators of `_kernels.Kernels` in CUDA, for a GPU and for its emulation on the CPU."""

from __future__ import annotations

import functools

from gnnlab.ops._gpu import attention, edges, rows
from gnnlab.ops._gpu._cuda import CudaLauncher
from gnnlab.ops._gpu._emulator import Emulator
from gnnlab.ops._gpu._source import Unit

__all__ = ["GpuKernels", "cuda_kernels", "emulated_kernels", "variants"]


class GpuKernels(edges.Edges, attention.Attention):
    """All operators.

    Args:
        launcher: what starts kernels: a CudaLauncher, or an Emulator for CPU tensors.
    """


@functools.cache
def cuda_kernels() -> GpuKernels:
    """Returns the kernels for NVIDIA GPUs; OSError says what is missing."""
    return GpuKernels(CudaLauncher())


@functools.cache
def emulated_kernels() -> GpuKernels:
    """Returns the same kernels for CPU tensors; OSError says what is missing."""
    return GpuKernels(Emulator())


def variants() -> list[Unit]:
    """Returns the compilations that tests and `gnnlab kernels build` make.

    Kernels that depend on the number or width of heads are represented by usual ones; others are
    compiled when they are first used.
    """
    return [*rows.VARIANTS, *edges.VARIANTS, *attention.VARIANTS]
