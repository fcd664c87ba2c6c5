"""Devices: what the loop runs on, chosen by name with an error that says what is there."""

from __future__ import annotations

import math
from typing import Any

import torch

from gnnlab.errors import ConfigError, did_you_mean

__all__ = ["open_fabric", "peak_memory_mb"]


def open_fabric(device: str, devices: int, precision: str) -> Any:
    """Returns a Lightning Fabric, launched when there are several processes.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        devices: number of processes.
        precision: "float32", "tf32" or "bf16".

    Raises:
        ConfigError: for a device that is unknown or not there.
    """
    from lightning_fabric import Fabric

    accelerator, _, index = device.partition(":")
    known = ("auto", "cpu", "cuda", "gpu", "mps")
    if accelerator not in known:
        raise ConfigError(f'unknown device "{device}".{did_you_mean(accelerator, known)}')
    if index and not (index.isdigit() and accelerator in ("cuda", "gpu")):
        raise ConfigError(f'device is "{device}"; only cuda takes a number, as in cuda:1.')
    absent = {"cuda": torch.cuda, "gpu": torch.cuda, "mps": torch.mps}.get(accelerator)
    if absent is not None and not absent.is_available():
        raise ConfigError(f'device is "{device}", but torch sees no GPU. Use --device cpu.')
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    fabric = Fabric(
        accelerator=accelerator,
        devices=[int(index)] if index else devices,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    if devices > 1:
        fabric.launch()
    return fabric


def peak_memory_mb(device: torch.device) -> float:
    """Returns the most memory in use so far: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
