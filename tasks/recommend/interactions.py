"""Interactions: the distinct (user, item) pairs every part of this task works on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gnnlab.errors import DataError
from gnnlab.tasks.recommend.ids import IdMap

__all__ = ["Interactions"]


@dataclass(frozen=True, eq=False)
class Interactions:
    """Distinct pairs sorted by user, then item; make them with `Interactions.build`.

    Users and items without any pair are allowed: the sizes are those of the id maps.

    Example:
        >>> pairs, collapsed = Interactions.build(
        ...     np.array([1, 0, 1]), np.array([0, 2, 0]), IdMap([7, 8]), IdMap(["a", "b", "c"])
        ... )
        >>> pairs.user, pairs.item, collapsed
        (array([0, 1]), array([2, 0]), 1)
    """

    user: np.ndarray
    """Number of the user, [E] int64."""
    item: np.ndarray
    """Number of the item, [E] int64."""
    users: IdMap
    """Raw user ids."""
    items: IdMap
    """Raw item ids."""
    timestamp: np.ndarray | None = None
    """Time of each pair, [E] int64 or float64, when the split needs it."""
    weight: np.ndarray | None = None
    """Weight of each pair, [E] float64, when a column was named."""

    @classmethod
    def build(
        cls,
        user: np.ndarray,
        item: np.ndarray,
        users: IdMap,
        items: IdMap,
        timestamp: np.ndarray | None = None,
        weight: np.ndarray | None = None,
    ) -> tuple[Interactions, int]:
        """Sorts the pairs and collapses repeated ones: latest time, summed weight.

        Args:
            user: numbers of the users, [R] within 0..len(users)-1.
            item: numbers of the items, [R] within 0..len(items)-1.
            users: raw user ids.
            items: raw item ids.
            timestamp: [R] or None.
            weight: [R] or None.

        Returns:
            the interactions, and how many rows were repeats.

        Raises:
            DataError: when a number is out of range, lengths differ, or num_users * num_items does
                not fit into 64 bits.
        """
        user = np.asarray(user, dtype=np.int64)
        item = np.asarray(item, dtype=np.int64)
        for name, column in (("item", item), ("timestamp", timestamp), ("weight", weight)):
            if column is not None and len(column) != len(user):
                raise DataError(f"{len(user)} users but {len(column)} values of {name}.")
        for name, numbers, size in (("user", user, len(users)), ("item", item, len(items))):
            if numbers.size and (numbers.min() < 0 or numbers.max() >= size):
                wrong = int(numbers.min()) if numbers.min() < 0 else int(numbers.max())
                raise DataError(f"{name} number {wrong} is outside 0..{size - 1}.")
        if len(users) * len(items) >= 2**63:
            raise DataError(
                f"{len(users)} users times {len(items)} items exceed the 64-bit pair keys."
            )
        keys = user * len(items) + item
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.ones(keys.size, dtype=np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(first)
        if timestamp is not None and starts.size:
            timestamp = np.maximum.reduceat(np.asarray(timestamp)[order], starts)
        if weight is not None and starts.size:
            weight = np.add.reduceat(np.asarray(weight, dtype=np.float64)[order], starts)
        pairs = cls(user[order][starts], item[order][starts], users, items, timestamp, weight)
        return pairs, int(user.size - starts.size)

    @property
    def num_users(self) -> int:
        """Number of users, with and without pairs."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        """Number of items, with and without pairs."""
        return len(self.items)

    @property
    def num_pairs(self) -> int:
        """Number E of distinct pairs."""
        return int(self.user.size)

    @cached_property
    def keys(self) -> np.ndarray:
        """user * num_items + item, [E] int64, strictly increasing."""
        keys: np.ndarray = self.user * self.num_items + self.item
        return keys

    @cached_property
    def user_degree(self) -> np.ndarray:
        """Pairs of each user, [num_users] int64."""
        return np.bincount(self.user, minlength=self.num_users).astype(np.int64)

    @cached_property
    def item_degree(self) -> np.ndarray:
        """Pairs of each item, [num_items] int64."""
        return np.bincount(self.item, minlength=self.num_items).astype(np.int64)

    def csr(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (indptr [num_users + 1] int64, items [E] int64): user u owns indptr[u]..[u+1]."""
        indptr = np.zeros(self.num_users + 1, dtype=np.int64)
        np.cumsum(self.user_degree, out=indptr[1:])
        return indptr, self.item

    def take(self, which: np.ndarray) -> Interactions:
        """Returns the pairs where the boolean [E] array `which` is true, over the same id maps."""
        return Interactions(
            self.user[which],
            self.item[which],
            self.users,
            self.items,
            None if self.timestamp is None else self.timestamp[which],
            None if self.weight is None else self.weight[which],
        )

    def contains(self, other: Interactions) -> np.ndarray:
        """Returns for each pair of `other` whether it is here too, [other.num_pairs] bool."""
        self._check_maps(other)
        if not self.num_pairs:
            return np.zeros(other.num_pairs, dtype=np.bool_)
        place = np.minimum(np.searchsorted(self.keys, other.keys), self.num_pairs - 1)
        found: np.ndarray = self.keys[place] == other.keys
        return found

    def union(self, other: Interactions) -> Interactions:
        """Returns the pairs of both; times and weights stay only when both have them.

        Raises:
            DataError: when the two have different id maps, so that equal numbers would mean
                different users or items.
        """
        self._check_maps(other)
        timestamp = weight = None
        if self.timestamp is not None and other.timestamp is not None:
            timestamp = np.concatenate([self.timestamp, other.timestamp])
        if self.weight is not None and other.weight is not None:
            weight = np.concatenate([self.weight, other.weight])
        user = np.concatenate([self.user, other.user])
        item = np.concatenate([self.item, other.item])
        return Interactions.build(user, item, self.users, self.items, timestamp, weight)[0]

    def fingerprint(self) -> str:
        """Returns the sha256 of sizes, raw ids and pairs; equal only for the same data.

        Times and weights are left out: no model reads them.
        """
        digest = hashlib.sha256()
        digest.update(np.array([self.num_users, self.num_items], dtype="<i8").tobytes())
        for ids in (self.users, self.items):
            if ids.kind == "int":
                digest.update(ids.raw.astype("<i8").tobytes())
            else:
                digest.update("\0".join(ids.raw.tolist()).encode("utf-8", "surrogatepass"))
        digest.update(self.keys.astype("<i8").tobytes())
        return digest.hexdigest()

    def _check_maps(self, other: Interactions) -> None:
        if self.users != other.users or self.items != other.items:
            raise DataError(
                "the two parts number their users or items differently; read them together so "
                "that they share one id map."
            )
