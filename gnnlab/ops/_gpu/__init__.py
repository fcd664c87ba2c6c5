"""The operators of `_kernels.Kernels` in CUDA, for a GPU and for its emulation on the CPU."""

from __future__ import annotations

from gnnlab.ops._gpu.attention import Attention
from gnnlab.ops._gpu.edges import Edges

__all__ = ["GpuKernels"]


class GpuKernels(Edges, Attention):
    """All operators.

    Args:
        launcher: what starts kernels: a CudaLauncher, or an Emulator for CPU tensors.
    """
