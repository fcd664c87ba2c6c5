"""Chooses device and transport by what the user asked for and what the machine allows."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor

from gnnlab.data._device import CudaDevice, Device, PinningError
from gnnlab.data._table import Table
from gnnlab.data._transport import CpuTransport, MappedTransport, StagedTransport, Transport

__all__ = ["open_device", "open_transport", "release", "result_dtype"]


def release(transport: Transport, pid: int) -> None:
    if pid == os.getpid():
        transport.close()


def result_dtype(table: Tensor, out_dtype: torch.dtype | None) -> torch.dtype:
    if out_dtype is None:
        return table.dtype
    if not isinstance(out_dtype, torch.dtype) or not out_dtype.is_floating_point:
        raise ValueError(f"out_dtype must be a floating-point torch dtype, got {out_dtype!r}")
    if table.dtype == torch.bool or table.is_complex():
        raise ValueError(f"a table of {table.dtype} cannot be converted; leave out out_dtype")
    return out_dtype


def open_device(device: str | torch.device | Device) -> Device | None:
    """Returns None for the CPU."""
    if isinstance(device, Device):
        return device
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}') from error
    if wanted.type == "cpu":
        return None
    if wanted.type != "cuda":
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}')
    if not torch.cuda.is_available():
        raise RuntimeError(f'torch finds no GPU for device="{wanted}"; pass device="cpu"')
    return CudaDevice(wanted)


def open_transport(device: Device | None, table: Table, dtype: torch.dtype, pin: bool) -> Transport:
    if device is None:
        return CpuTransport(table, dtype)
    if pin:
        try:
            if not device.can_gather_rows():
                raise PinningError("there is no compiled kernel for this device")
            return MappedTransport(device, table, dtype)
        except PinningError as error:
            warnings.warn(
                f"HostFeatures stages rows instead of reading them in place: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
    return StagedTransport(device, table, dtype)
