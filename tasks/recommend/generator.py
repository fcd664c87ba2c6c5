"""Synthetic interactions with planted communities, for tests and tutorials.

The same arguments give the same bytes on every platform and numpy version. For that, all randomness
is the raw output of the PCG64 bit generator (the one stream numpy promises never to change), and
everything else is exact or correctly rounded: integers, + and *, and the decimal module in place of
exp and pow, whose last bit differs from one C library to another.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from gnnlab.errors import ConfigError

__all__ = ["communities_of", "planted"]

_YEAR = 365 * 24 * 3600
_START = 1_600_000_000  # s since 1970, 13 September 2020
_ROUNDS = 64


def planted(
    num_users: int = 1000,
    num_items: int = 500,
    communities: int = 10,
    mean_items: float = 20,
    noise: float = 0.1,
    popularity: float = 0.8,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws interactions of users who mostly like the items of their own community.

    A user draws 1 + Poisson(mean_items) distinct items one after the other: with probability
    1 - noise from the own community, else from all items; within a community the chance of an item
    falls with its rank as rank**-popularity. Times are uniform over one year.

    Args:
        num_users: number of users.
        num_items: number of items, at least one per community.
        communities: number of communities.
        mean_items: mean of the Poisson number, at most 500.
        noise: share of draws from all items.
        popularity: exponent; 0 makes all items of a community alike.
        seed: same seed, same bytes.

    Shapes:
        returns: "user", "item" and "timestamp" (s since 1970), each [E] int64, sorted by user and
            item.

    Raises:
        ConfigError: when an argument is out of range.

    Example:
        >>> table = planted(num_users=3, num_items=20, communities=2, mean_items=4)
        >>> sorted(table)
        ['item', 'timestamp', 'user']
    """
    for name, value, good in (
        ("num_users", num_users, num_users >= 1),
        ("communities", communities, communities >= 1),
        ("num_items", num_items, num_items >= communities),
        ("mean_items", mean_items, 0 <= mean_items <= 500),
        ("noise", noise, 0 <= noise <= 1),
        ("popularity", popularity, popularity >= 0),
    ):
        if not good:
            raise ConfigError(f"planted: {name} is {value}, which is out of range.")
    bits = np.random.PCG64(seed)
    own = communities_of(num_users, communities)
    table = _cumulative(num_items, communities, popularity)
    sizes = np.bincount(communities_of(num_items, communities), minlength=communities)

    reachable = sizes[own] if noise == 0 else np.full(num_users, num_items)
    wanted = np.minimum(1 + _poisson(_uniform(bits, num_users), mean_items), reachable)
    keys = np.zeros(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        missing = wanted - np.bincount(keys // num_items, minlength=num_users)
        user = np.repeat(np.arange(num_users), missing)
        if not user.size:
            break
        item = _draw(bits, table, own[user], communities, num_items, noise)
        # a repeated draw vanishes here and is made up for in the next round
        keys = np.union1d(keys, user * num_items + item)
    keys = _fill(bits, keys, wanted, own, communities, num_items, noise)
    time = _START + (bits.random_raw(keys.size) % np.uint64(_YEAR)).astype(np.int64)
    return {"user": keys // num_items, "item": keys % num_items, "timestamp": time}


def communities_of(count: int, communities: int = 10) -> np.ndarray:
    """Returns the community of each of the first `count` users, or items: dealt out in turn.

    Example:
        >>> communities_of(5, 2)
        array([0, 1, 0, 1, 0])
    """
    return np.arange(count, dtype=np.int64) % communities


def _uniform(bits: np.random.PCG64, size: int) -> np.ndarray:
    """Uniform [0, 1) float64 from the upper 53 of 64 raw bits; exact arithmetic."""
    return (bits.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _poisson(uniform: np.ndarray, mean: float) -> np.ndarray:
    """Inverts the Poisson distribution function, tabulated in decimal arithmetic."""
    with localcontext() as context:
        context.prec = 40
        rate = Decimal(mean)
        mass = (-rate).exp()
        total = mass
        table = [float(total)]
        while total < 1 - Decimal(10) ** -18:
            mass = mass * rate / len(table)
            total += mass
            table.append(float(total))
    count: np.ndarray = np.searchsorted(np.array(table), uniform, side="right")
    drawn: np.ndarray = np.minimum(count, len(table) - 1)
    return drawn


def _cumulative(num_items: int, communities: int, popularity: float) -> np.ndarray:
    """Running sums of rank**-popularity over the ranks of the largest community."""
    ranks = -(-num_items // communities)
    with localcontext() as context:
        context.prec = 28
        exponent = -Decimal(popularity)
        weights = [float(Decimal(rank) ** exponent) for rank in range(1, ranks + 1)]
    return np.cumsum(np.array(weights))


def _draw(
    bits: np.random.PCG64,
    table: np.ndarray,
    own: np.ndarray,
    communities: int,
    num_items: int,
    noise: float,
) -> np.ndarray:
    """One item for each community in `own`, repeats allowed. Item i has rank i // communities."""
    noisy = _uniform(bits, own.size) < noise
    anywhere = (bits.random_raw(own.size) % np.uint64(communities)).astype(np.int64)
    community = np.where(noisy, anywhere, own)
    ranks = -(-(num_items - community) // communities)
    rank = np.searchsorted(table, _uniform(bits, own.size) * table[ranks - 1], side="right")
    item: np.ndarray = np.minimum(rank, ranks - 1) * communities + community
    return item


def _fill(
    bits: np.random.PCG64,
    keys: np.ndarray,
    wanted: np.ndarray,
    own: np.ndarray,
    communities: int,
    num_items: int,
    noise: float,
) -> np.ndarray:
    """Completes the few users who want nearly every item: uniform among what they lack."""
    missing = wanted - np.bincount(keys // num_items, minlength=wanted.size)
    for user in np.flatnonzero(missing):
        start, stop = np.searchsorted(keys, [user * num_items, (user + 1) * num_items])
        pool = np.arange(num_items) if noise else np.arange(own[user], num_items, communities)
        pool = np.setdiff1d(pool, keys[start:stop] % num_items)
        chosen = pool[np.argsort(bits.random_raw(pool.size), kind="stable")[: missing[user]]]
        keys = np.union1d(keys, user * num_items + chosen)
    return keys
