"""What feature access needs from a device; the tests put a device of their own in its place."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from gnnlab.ops._library import kernels_for

__all__ = ["CudaDevice", "Device", "Event", "PinningError"]


class PinningError(RuntimeError):
    """Host memory could not be mapped for the device; the text says why."""


class Event(Protocol):
    """A mark in the device's stream of work, such as a torch.cuda.Event."""

    def query(self) -> bool:
        """Whether the device has come this far."""

    def synchronize(self) -> None:
        """Waits until it has."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from this mark to a later one."""


@runtime_checkable
class Device(Protocol):
    """A device that works on its own while the caller goes on."""

    device: torch.device
    """Where its tensors live."""

    def staging_buffer(self, num_bytes: int) -> Tensor:
        """Returns host memory that copies can leave from on their own, uint8."""

    def enqueue(self, work: Callable[[], Any]) -> None:
        """Runs torch calls that put work into the current stream."""

    def record(self) -> Event:
        """Marks the current place in the current stream."""

    def aside(self, after: Event, *used: Tensor) -> contextlib.AbstractContextManager[Any]:
        """Makes a second stream the current one, beginning `after` that mark.

        `used`: tensors of the first stream that are read in it.
        """

    def join(self, end: Event, made: Tensor) -> None:
        """Lets the current stream wait for `end`, and use a tensor made in the second stream."""

    def synchronize(self) -> None:
        """Waits for everything."""

    def is_pinned(self, x: Tensor) -> bool:
        """Whether the memory of `x` can be read by the device as it is."""

    def register(self, pointer: int, num_bytes: int) -> None:
        """Makes host memory readable for the device; PinningError says why it cannot be."""

    def unregister(self, pointer: int) -> None:
        """Takes `register` back."""

    def device_pointer(self, pointer: int) -> int:
        """Returns the address by which the device knows registered memory."""

    def can_gather_rows(self) -> bool:
        """Whether there is a kernel for `gather_rows`."""

    def gather_rows(
        self,
        pointer: int,
        stride_bytes: int,
        row_bytes: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None,
        cache: Tensor | None,
        num_rows: int,
    ) -> None:
        """Enqueues out[i] = cache[slots[index[i]]], or the row in host memory if the slot is -1."""


_cuda: Any = torch.cuda  # parts of it have no types
_PORTABLE, _MAPPED = 1, 2  # flags of cudaHostRegister


class CudaDevice:
    """A GPU, through torch's streams and events."""

    def __init__(self, device: torch.device) -> None:
        index = _cuda.current_device() if device.index is None else device.index
        if index >= _cuda.device_count():
            raise ValueError(
                f"there is no cuda:{index}; this machine has {_cuda.device_count()} GPUs"
            )
        self.device = torch.device("cuda", index)
        self._side: Any = None

    def staging_buffer(self, num_bytes: int) -> Tensor:
        """See `Device`."""
        try:
            return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            text = str(error).splitlines()[0]
            warnings.warn(
                f"no pinned memory for staging ({text}): copies to {self.device} will wait",
                RuntimeWarning,
                stacklevel=2,
            )
            return torch.empty(num_bytes, dtype=torch.uint8)

    def enqueue(self, work: Callable[[], Any]) -> None:
        """See `Device`."""
        with _cuda.device(self.device):
            work()

    def record(self) -> Event:
        """See `Device`."""
        event = _cuda.Event(enable_timing=True)
        event.record(_cuda.current_stream(self.device))
        return cast(Event, event)

    @contextlib.contextmanager
    def aside(self, after: Any, *used: Tensor) -> Iterator[None]:
        """See `Device`."""
        if self._side is None:
            self._side = _cuda.Stream(self.device)
        self._side.wait_event(after)
        for tensor in used:
            if tensor.is_cuda:
                tensor.record_stream(self._side)
        with _cuda.stream(self._side):
            yield

    def join(self, end: Any, made: Tensor) -> None:
        """See `Device`."""
        current = _cuda.current_stream(self.device)
        current.wait_event(end)
        made.record_stream(current)

    def synchronize(self) -> None:
        """See `Device`."""
        _cuda.synchronize(self.device)

    def is_pinned(self, x: Tensor) -> bool:
        """See `Device`."""
        return x.is_pinned()

    def register(self, pointer: int, num_bytes: int) -> None:
        """See `Device`."""
        runtime = _cuda.cudart()
        with _cuda.device(self.device):
            status = runtime.cudaHostRegister(pointer, num_bytes, _PORTABLE | _MAPPED)
            if int(status) == 0:
                return
            # The runtime remembers the failure and would blame torch's next kernel for it.
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device=self.device)
        reason = runtime.cudaGetErrorString(status)
        raise PinningError(f"cudaHostRegister of {num_bytes} bytes failed: {reason}")

    def unregister(self, pointer: int) -> None:
        """See `Device`."""
        with _cuda.device(self.device):
            _cuda.cudart().cudaHostUnregister(pointer)

    def device_pointer(self, pointer: int) -> int:
        """See `Device`."""
        if torch.version.hip is not None:
            return pointer
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        found = ctypes.c_uint64(0)
        try:
            ask = ctypes.CDLL(name).cuMemHostGetDevicePointer_v2
        except (OSError, AttributeError) as error:
            raise PinningError(f"the CUDA driver does not answer: {error}") from error
        with _cuda.device(self.device):
            status = ask(ctypes.byref(found), ctypes.c_void_p(pointer), ctypes.c_uint(0))
        if status:
            raise PinningError(f"the memory has no address on the device (CUDA error {status})")
        return found.value

    def can_gather_rows(self) -> bool:
        """See `Device`."""
        return hasattr(self._kernels(), "gather_rows")

    def gather_rows(
        self,
        pointer: int,
        stride_bytes: int,
        row_bytes: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None,
        cache: Tensor | None,
        num_rows: int,
    ) -> None:
        """See `Device`."""
        with _cuda.device(self.device):
            self._kernels().gather_rows(
                pointer, stride_bytes, row_bytes, index, out, slots, cache, num_rows=num_rows
            )

    def _kernels(self) -> Any:
        """The one place where the kernels of the GPU are met."""
        return kernels_for(torch.empty(0, device=self.device))
