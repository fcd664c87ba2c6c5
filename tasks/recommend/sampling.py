"""Random negatives: items a user does not have, drawn for all pairs of an epoch at once."""

from __future__ import annotations

import warnings
from typing import final

import torch
from torch import Tensor

__all__ = ["NegativeSampler"]

_LARGE = 2**62


@final
class NegativeSampler:
    r"""Draws uniformly from the items each user lacks, by one binary search per draw.

    If $s_0 < s_1 < \dots$ are the items of a user, $s_j - j$ items below $s_j$ are missing, and the
    r-th missing item is $r + \#\{j : s_j - j \le r\}$. Counting that set is a binary search in
    one sorted array over all users. Unlike redrawing collisions this takes the same time for users
    who have nearly everything, and it never waits for the device.

    Args:
        keys: user * num_items + item of the training pairs, [E] int64, strictly increasing.
        num_users: number of users.
        num_items: number of items.

    Raises:
        ValueError: if `keys` is not sorted, not distinct, or refers to a user or item out of range.

    Example:
        >>> sampler = NegativeSampler(torch.tensor([0, 2, 3]), num_users=2, num_items=3)
        >>> items, valid = sampler.draw(torch.tensor([0, 1]), torch.Generator().manual_seed(0))
        >>> int(items[0]), valid.tolist()
        (1, [True, True])
    """

    def __init__(self, keys: Tensor, num_users: int, num_items: int) -> None:
        if keys.ndim != 1 or keys.dtype != torch.int64:
            raise ValueError(
                f"NegativeSampler expected keys of shape (E,) and type int64, got "
                f"{tuple(keys.shape)} of {keys.dtype}."
            )
        if num_users * (num_items + 1) >= 2**63:
            raise ValueError(f"{num_users} users times {num_items} items exceed 64-bit keys.")
        if keys.numel() and (
            bool((keys[1:] <= keys[:-1]).any())
            or int(keys[0]) < 0
            or int(keys[-1]) >= num_users * num_items
        ):
            raise ValueError("NegativeSampler expected distinct keys in ascending order, in range.")
        self.num_users = num_users
        self.num_items = num_items
        bounds = torch.arange(num_users + 1, device=keys.device) * num_items
        self._indptr = torch.searchsorted(keys, bounds)
        self._degree = self._indptr.diff()
        user = torch.div(keys, max(num_items, 1), rounding_mode="floor")
        self._item = keys - user * num_items
        position = torch.arange(keys.numel(), device=keys.device) - self._indptr[user]
        self._gaps = user * (num_items + 1) + self._item - position
        self._active = torch.nonzero(self._degree).squeeze(1)
        self._some_full = bool((self._degree >= num_items).any())
        self._warned = False

    def draw(self, users: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns one missing item for every entry of `users`.

        Args:
            users: [B] int64, repeats allowed.
            generator: where the randomness comes from, on any device.

        Shapes:
            returns: items [B] int64, valid [B] bool. A user who has every item gets item 0 and
                valid False, with one warning.
        """
        start = self._indptr[users]
        missing = self.num_items - self._degree[users]
        valid = missing > 0
        rank = self._integers(users.numel(), generator) % missing.clamp(min=1)
        query = users * (self.num_items + 1) + rank
        below = torch.searchsorted(self._gaps, query, right=True) - start
        items = torch.where(valid, rank + below, 0)
        if self._some_full and not self._warned and not bool(valid.all()):
            self._warned = True
            full = torch.unique(users[~valid])
            warnings.warn(
                f"{full.numel()} of the users in this draw have every item, so they have no "
                "negative; their pairs are skipped.",
                stacklevel=2,
            )
        return items, valid

    def draw_by_user(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns `num` training pairs: a uniform user among those with items, then one item of it.

        This is how LightGCN's code samples; users with few items weigh more than in a pass over
        all pairs.

        Shapes:
            returns: users [num] int64, items [num] int64; both empty when there are no pairs.
        """
        if not self._active.numel():
            empty = self._active.new_zeros(0)
            return empty, empty
        users = self._active[self._integers(num, generator) % self._active.numel()]
        offset = self._integers(num, generator) % self._degree[users]
        return users, self._item[self._indptr[users] + offset]

    def _integers(self, size: int, generator: torch.Generator) -> Tensor:
        # The remainder of so large a number favours no item by more than one part in 2^62 / m.
        drawn = torch.randint(_LARGE, (size,), generator=generator, device=generator.device)
        return drawn.to(self._gaps.device)
