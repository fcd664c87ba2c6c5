"""Hot rows kept on the device: how many fit, which ones, and how often they will be asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gnnlab.data._table import Table

__all__ = ["Counts", "HotRows", "capacity", "check_score", "hit_rate", "hottest", "parse_bytes"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?\s*", re.IGNORECASE)

SLOT_BYTES = 4  # the lookup table is int32


def parse_bytes(size: int | str | None) -> int:
    """Returns how many bytes `size` names: 4096, "512MB" (10^6), "1.5GiB" (2^30); None is 0."""
    if size is None:
        return 0
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        if match:
            return int(float(match[1]) * _UNITS[match[2].upper()])
    elif isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    raise ValueError(
        f"cache must be a number of bytes, 0 or more, or a size such as "
        f'"512MB" or "1.5GiB", got {size!r}'
    )


def capacity(budget: int, table: Table) -> int:
    """Returns how many rows fit into `budget` bytes beside their lookup table."""
    if not budget or table.span_bytes == 0:
        return 0
    lookup = SLOT_BYTES * table.num_rows
    rows = min((budget - lookup) // table.row_bytes, table.num_rows)
    if rows < 1:
        raise ValueError(
            f"a cache of {budget} bytes holds no row: the lookup table of {table.num_rows} rows "
            f"takes {lookup} bytes and each row {table.row_bytes}. Give more, or cache=None."
        )
    return rows


def check_score(score: Tensor, num_rows: int, name: str = "degree") -> Tensor:
    """Returns `score` (N,) on the CPU after checking that it can rank rows."""
    if not isinstance(score, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(score).__name__}")
    if score.shape != (num_rows,):
        raise ValueError(f"{name} must have shape ({num_rows},), got {tuple(score.shape)}")
    if score.dtype == torch.bool or score.is_complex():
        raise ValueError(f"{name} must hold numbers, got {score.dtype}")
    score = score.detach().cpu()
    score = score.double() if score.is_floating_point() else score.long()
    wrong = ~torch.isfinite(score) | (score < 0)
    if wrong.any():
        place = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"{name} must be finite and 0 or more, got {score[place].item()} at position {place}"
        )
    return score


def hottest(score: Tensor, count: int) -> Tensor:
    """Returns the ids of the `count` highest scores, ascending; of equal scores the lowest ids."""
    size = score.shape[0]
    if count >= size:
        return torch.arange(size)
    least = score.kthvalue(size - count + 1).values
    above = (score > least).nonzero().flatten()
    ties = (score == least).nonzero().flatten()[: count - above.shape[0]]
    return torch.cat([above, ties]).sort().values


def hit_rate(score: Tensor, ids: Tensor) -> float:
    """Returns the share of requests that `ids` serve when each row is asked for as its score."""
    total = float(score.sum())
    if total == 0:
        return ids.shape[0] / max(score.shape[0], 1)
    return float(score[ids].sum()) / total


@dataclass(frozen=True)
class HotRows:
    """The cache: rows on the device, and where each row of the table lies in it."""

    slots: Tensor
    """(N,) int32, where the transport reads ids: the place in `rows`, -1 for the table."""
    rows: Tensor
    """(C, W) words on the device."""
    expected_hit_rate: float
    """By the scores that chose them."""

    @classmethod
    def build(
        cls,
        score: Tensor,
        count: int,
        table: Table,
        slots_device: torch.device,
        load: Callable[[Tensor], Tensor],
    ) -> HotRows:
        """Chooses `count` rows and has them loaded: ids (C,) int64 to words on the device."""
        ids = hottest(score, count)
        slots = torch.full((table.num_rows,), -1, dtype=torch.int32)
        slots[ids] = torch.arange(ids.shape[0], dtype=torch.int32)
        return cls(slots.to(slots_device), load(ids), hit_rate(score, ids))

    def hits(self, ids: Tensor) -> Tensor:
        """Returns how many of `ids` are cached, where `slots` is, without waiting."""
        return (self.slots.index_select(0, ids) >= 0).sum()


class Counts:
    """How often each row was asked for."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.score = torch.zeros(num_rows, dtype=torch.int32, device=device)
        self.total = 0

    def add(self, ids: Tensor) -> None:
        """Counts ids, wherever they are."""
        ids = ids.to(self.score.device)
        one = torch.ones(1, dtype=torch.int32, device=ids.device)
        self.score.index_add_(0, ids, one.expand(ids.shape[0]))
        self.total += ids.shape[0]
