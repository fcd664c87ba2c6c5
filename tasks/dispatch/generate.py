"""Random job shops: for training, and Taillard's published generator to the digit."""

from __future__ import annotations

import math

import numpy as np

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.instance import MAX_OPERATIONS, JobShopInstance

__all__ = ["general", "random_batch", "taillard", "taillard_exact", "two_set"]

_MODULUS = 2**31 - 1


def random_batch(
    rng: np.random.Generator, count: int, n: int, m: int, low: int = 1, high: int = 99
) -> tuple[np.ndarray, np.ndarray]:
    """Draws job shops in which every job visits all machines in a random order.

    Args:
        rng: the source of random numbers.
        count: B, how many job shops.
        n: J, jobs of each.
        m: M, machines of each.
        low: shortest time.
        high: longest time, inclusive.

    Returns:
        machines and times, both (B, J, M) int64.

    Example:
        >>> machines, times = random_batch(np.random.default_rng(0), 64, 6, 4)
        >>> machines.shape, bool((np.sort(machines, 2) == np.arange(4)).all())
        ((64, 6, 4), True)
    """
    _check(n, m, low, high)
    if count < 1:
        raise ConfigError(f"count is {count}; it must be 1 or more.")
    machines = rng.random((count, n, m)).argsort(2)
    times = rng.integers(low, high, (count, n, m), endpoint=True)
    return machines.astype(np.int64), times


def taillard(n: int, m: int, low: int = 1, high: int = 99, seed: int = 0) -> JobShopInstance:
    """Draws a job shop as Taillard did: uniform times, a random order of all machines per job.

    Args:
        n: J, jobs.
        m: M, machines.
        low: shortest time.
        high: longest time, inclusive.
        seed: the same seed gives the same job shop.

    Example:
        >>> taillard(6, 4, seed=3)
        JobShopInstance('taillard-6x4-3', 6 jobs, 4 machines, 24 operations)
    """
    machines, times = random_batch(_rng(seed), 1, n, m, low, high)
    return _square(f"taillard-{n}x{m}-{seed}", machines[0], times[0])


def two_set(n: int, m: int, low: int = 1, high: int = 99, seed: int = 0) -> JobShopInstance:
    """Draws a job shop in which every job visits the first half of the machines before the rest.

    Args:
        n: J, jobs.
        m: M, machines; the first m // 2 are the first half.
        low: shortest time.
        high: longest time, inclusive.
        seed: the same seed gives the same job shop.

    Example:
        >>> bool((two_set(5, 4).machines[:, :2] < 2).all())
        True
    """
    _check(n, m, low, high)
    rng = _rng(seed)
    machines = (rng.random((n, m)) + (np.arange(m) >= m // 2)).argsort(1)
    times = rng.integers(low, high, (n, m), endpoint=True)
    return _square(f"two-set-{n}x{m}-{seed}", machines, times)


def general(
    n: int,
    lengths: tuple[int, int],
    m: int,
    recirculation: bool = True,
    *,
    low: int = 1,
    high: int = 99,
    seed: int = 0,
) -> JobShopInstance:
    """Draws a job shop whose jobs differ in length.

    Args:
        n: J, jobs.
        lengths: fewest and most operations of a job, inclusive.
        m: M, machines.
        recirculation: whether a job may come back to a machine.
        low: shortest time, 0 or more.
        high: longest time, inclusive.
        seed: the same seed gives the same job shop.

    Raises:
        ConfigError: without recirculation, for jobs longer than there are machines.

    Example:
        >>> general(3, (1, 4), 2, seed=1).num_machines
        2
    """
    _check(n, m, low, high)
    shortest, longest = lengths
    if not 1 <= shortest <= longest or n * longest > MAX_OPERATIONS:
        raise ConfigError(f"lengths are {lengths}; 1 <= fewest <= most must hold, of {n} jobs.")
    if not recirculation and longest > m:
        raise ConfigError(
            f"jobs of {longest} operations come back to one of {m} machines; pass "
            "recirculation=True."
        )
    rng = _rng(seed)
    count = rng.integers(shortest, longest, n, endpoint=True)
    if recirculation:
        machines = rng.integers(0, m, (n, longest))
    else:
        machines = rng.random((n, m)).argsort(1)[:, :longest]
    times = rng.integers(low, high, (n, longest), endpoint=True)
    width = int(count.max())
    return JobShopInstance(
        f"general-{n}x{m}-{seed}", machines[:, :width], times[:, :width], count, m
    )


def taillard_exact(n: int, m: int, time_seed: int, machine_seed: int) -> JobShopInstance:
    """Repeats Taillard's generator (EJOR 64, 1993), for instances published as two seeds.

    Args:
        n: J, jobs.
        m: M, machines.
        time_seed: in 1..2**31 - 2.
        machine_seed: in 1..2**31 - 2.

    Example:
        >>> taillard_exact(15, 15, 840612802, 398197754).times[0, :4]  # ta01
        array([94, 66, 10, 53])
    """
    _check(n, m, 1, 99)
    for seed in (time_seed, machine_seed):
        if not 1 <= seed < _MODULUS:
            raise ConfigError(f"seed is {seed}; it must be in 1..{_MODULUS - 1}.")
    draw = _Lehmer(time_seed)
    times = np.array([[draw.uniform(1, 99) for _ in range(m)] for _ in range(n)], np.int64)
    draw = _Lehmer(machine_seed)
    machines = np.tile(np.arange(m), (n, 1))
    for row in machines:
        for i in range(m):
            other = draw.uniform(i + 1, m) - 1
            row[i], row[other] = row[other], row[i]
    return _square(f"taillard-{n}x{m}-{time_seed}-{machine_seed}", machines, times)


class _Lehmer:
    """The minimal standard generator of Park and Miller: x <- 16807 x mod 2**31 - 1."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def uniform(self, low: int, high: int) -> int:
        """Returns an integer in low..high."""
        self.state = 16807 * self.state % _MODULUS
        return math.floor(low + self.state / _MODULUS * (high - low + 1))


def _check(n: int, m: int, low: int, high: int) -> None:
    if n < 1 or m < 1 or n * m > MAX_OPERATIONS:
        raise ConfigError(
            f"{n} jobs on {m} machines: both must be 1 or more, of {MAX_OPERATIONS} operations "
            "at most."
        )
    if not 0 <= low <= high < 2**31:
        raise ConfigError(f"times are {low}..{high}; 0 <= low <= high < 2**31 must hold.")


def _rng(seed: int) -> np.random.Generator:
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more.")
    return np.random.default_rng(seed)


def _square(name: str, machines: np.ndarray, times: np.ndarray) -> JobShopInstance:
    n, m = machines.shape
    return JobShopInstance(name, machines, times, np.full(n, m), m)
