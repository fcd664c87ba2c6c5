"""Starts kernels on NVIDIA GPUs through the driver's C interface, on torch's streams."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnnlab.ops._gpu._compile import Compiler, compiler
from gnnlab.ops._gpu._launch import Argument, Unit, pack

__all__ = ["CudaLauncher", "Driver", "find_driver"]

_MAX_SHARED_ATTRIBUTE = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_FREE_SHARED = 48 * 1024  # bytes of shared memory that a kernel has without asking

_POINTER, _UNSIGNED = ctypes.c_void_p, ctypes.c_uint
_SIGNATURES: dict[str, list[Any]] = {
    "cuDriverGetVersion": [ctypes.POINTER(ctypes.c_int)],
    "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    "cuModuleLoadData": [ctypes.POINTER(_POINTER), ctypes.c_char_p],
    "cuModuleGetFunction": [ctypes.POINTER(_POINTER), _POINTER, ctypes.c_char_p],
    "cuFuncSetAttribute": [_POINTER, ctypes.c_int, ctypes.c_int],
    "cuLaunchKernel": [_POINTER, *[_UNSIGNED] * 7, _POINTER, ctypes.POINTER(_POINTER), _POINTER],
}


class Driver:
    """The CUDA driver's library."""

    def __init__(self, name: str) -> None:
        self._library = ctypes.CDLL(name)
        for function, argtypes in _SIGNATURES.items():
            getattr(self._library, function).argtypes = argtypes
        self.launch_kernel = self._library.cuLaunchKernel

    @property
    def version(self) -> tuple[int, int]:
        """The newest CUDA that it runs."""
        number = ctypes.c_int()
        self.check(self._library.cuDriverGetVersion(ctypes.byref(number)))
        return number.value // 1000, number.value % 1000 // 10

    def load(self, image: bytes) -> ctypes.c_void_p:
        """Loads machine code into the current context; returns the module."""
        module = ctypes.c_void_p()
        self.check(self._library.cuModuleLoadData(ctypes.byref(module), image))
        return module

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        """Returns a kernel of a module."""
        found = ctypes.c_void_p()
        self.check(self._library.cuModuleGetFunction(ctypes.byref(found), module, name.encode()))
        return found

    def allow_shared(self, function: ctypes.c_void_p, size: int) -> None:
        """Lets a kernel use more shared memory than 48 KiB."""
        self.check(self._library.cuFuncSetAttribute(function, _MAX_SHARED_ATTRIBUTE, size))

    def check(self, status: int) -> None:
        """Raises RuntimeError for a status other than 0."""
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise RuntimeError(f"CUDA driver: {reason} ({status})")


@functools.cache
def find_driver() -> Driver:
    """Returns the driver; OSError if there is none."""
    errors = []
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            return Driver(name)
        except (OSError, AttributeError) as error:
            errors.append(str(error))
    raise OSError(f"the CUDA driver was not found ({errors[0]})")


class CudaLauncher:
    """A Launcher for tensors on NVIDIA GPUs.

    Kernels are compiled and loaded at their first use on each device. Loading is not allowed while
    a CUDA graph is captured: as with torch's own operators, run once before the capture.

    Raises:
        OSError: if there is no driver or no NVRTC.
    """

    name = "cuda"

    def __init__(self, driver: Driver | None = None, compiles: Compiler | None = None) -> None:
        self.driver = find_driver() if driver is None else driver
        self.compiler = compiler() if compiles is None else compiles
        self._functions: dict[tuple[int, Unit, str], ctypes.c_void_p] = {}
        self._modules: dict[tuple[int, Unit], ctypes.c_void_p] = {}
        self._shared: dict[tuple[int, Unit, str], int] = {}

    def launch(
        self,
        code: Unit,
        kernel: str,
        grid: int | tuple[int, int],
        block: int,
        shared: int,
        *args: Argument,
    ) -> None:
        """See Launcher. Does not wait."""
        x, y = grid if isinstance(grid, tuple) else (grid, 1)
        if x * y == 0:
            return
        device = next(arg.device for arg in args if isinstance(arg, Tensor)).index
        if device == torch.cuda.current_device():
            self._launch(device, code, kernel, x, y, block, shared, args)
            return
        with torch.cuda.device(device):
            self._launch(device, code, kernel, x, y, block, shared, args)

    def _launch(
        self,
        device: int,
        code: Unit,
        kernel: str,
        x: int,
        y: int,
        block: int,
        shared: int,
        args: Sequence[Argument],
    ) -> None:
        key = (device, code, kernel)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._load(device, code, kernel)
        if shared > _FREE_SHARED and self._shared.get(key, 0) < shared:
            self.driver.allow_shared(function, shared)
            self._shared[key] = shared
        packed = pack(args)
        struct = ctypes.create_string_buffer(packed, len(packed))
        params = (ctypes.c_void_p * 1)(ctypes.addressof(struct))  # copied before the call returns
        stream = torch.cuda.current_stream(device).cuda_stream
        status = self.driver.launch_kernel(
            function, x, y, 1, block, 1, 1, shared, stream, params, None
        )
        if status:
            self.driver.check(status)

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Returns uninitialised memory."""
        return torch.empty(tuple(shape), dtype=dtype, device=device)

    def _load(self, device: int, code: Unit, kernel: str) -> ctypes.c_void_p:
        module = self._modules.get((device, code))
        if module is None:
            major, minor = torch.cuda.get_device_capability(device)
            arch = self.compiler.arch_name(10 * major + minor)
            module = self.driver.load(self.compiler.compile(code, arch))
            self._modules[device, code] = module
        return self.driver.function(module, kernel)
