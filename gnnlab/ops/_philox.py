"""Philox4x32-10 in plain torch: the random numbers of dropout and sampling.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["philox_block"]

_LOW = 0xFFFFFFFF


def philox_block(
    item: Tensor, c2: Tensor, c3: Tensor, seed: int | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the four words of each counter (low half of item, high half, c2, c3), in int64.

    The key is `seed`, an int or an int64 tensor without dimensions, on any device.
    """
    c0, c1 = item & _LOW, (item >> 32) & _LOW
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the high and low 32 bits of a product of 32-bit numbers held in int64."""
    half = 0xFFFF
    low = a * (b & half)  # below 2^48
    high = a * (b >> 16)
    middle = (low >> 16) + (high & half)
    return (high >> 16) + (middle >> 16), ((middle & half) << 16) | (low & half)
