"""`JobShopInstance`: jobs, their operations, and the machines they need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnlab.errors import DataError

__all__ = ["InstanceError", "JobShopInstance"]

MAX_OPERATIONS = 5_000_000
MAX_TOTAL_TIME = 2**53


class InstanceError(DataError):
    """An instance is not what its format asks for; names the file, the line and the value."""


@dataclass(frozen=True, eq=False)
class JobShopInstance:
    """A job shop: job j passes operations (j, 0), (j, 1), ... in order, each on one machine.

    The arrays are checked and copied when the instance is made, and cannot be written to.

    Args:
        name: what results call it.
        machines: (J, L) int64, machine of each operation from 0; -1 after a job's last one.
        times: (J, L) int64, processing times, 0 or more; -1 after a job's last operation.
        lengths: (J,) int64, operations of each job, 1 or more.
        num_machines: M.

    Raises:
        InstanceError: for a machine outside 0..M-1, a negative time, more than 5,000,000
            operations, or times that add up to more than 2**53.

    Example:
        >>> shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> shop.num_jobs, shop.num_machines, shop.num_operations
        (2, 2, 4)
    """

    name: str
    machines: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    num_machines: int

    def __post_init__(self) -> None:
        for field in ("machines", "times", "lengths"):
            object.__setattr__(self, field, _integers(getattr(self, field), field))
        self._check()
        for array in (self.machines, self.times, self.lengths):
            array.flags.writeable = False

    @classmethod
    def from_jobs(
        cls,
        jobs: Sequence[Sequence[tuple[int, int]]],
        num_machines: int | None = None,
        name: str = "instance",
    ) -> JobShopInstance:
        """Makes an instance from lists of (machine, time) pairs, one list per job.

        Args:
            jobs: the pairs of each job in processing order.
            num_machines: M; None takes the largest machine that occurs.
            name: what results call it.
        """
        if not jobs or not all(jobs):
            raise InstanceError(f"{name}: an instance needs a job, and every job an operation.")
        longest = max(map(len, jobs))
        if len(jobs) * longest > MAX_OPERATIONS:
            raise InstanceError(
                f"{name}: too large: {len(jobs)} jobs of up to {longest} operations."
            )
        machines = np.full((len(jobs), longest), -1, np.int64)
        times = machines.copy()
        for j, job in enumerate(jobs):
            try:
                pairs = np.asarray(job)
            except (ValueError, OverflowError):
                pairs = np.zeros(0)
            if pairs.ndim != 2 or pairs.shape[1] != 2:
                raise InstanceError(f"{name}, job {j}: expected pairs of machine and time.")
            machines[j, : len(job)], times[j, : len(job)] = _integers(pairs, f"job {j}").T
        lengths = np.array([len(job) for job in jobs], np.int64)
        if num_machines is None:
            num_machines = int(machines.max()) + 1
        return cls(name, machines, times, lengths, num_machines)

    @property
    def num_jobs(self) -> int:
        """J."""
        return len(self.lengths)

    @property
    def num_operations(self) -> int:
        """Operations of all jobs."""
        return int(self.lengths.sum())

    @property
    def exists(self) -> np.ndarray:
        """(J, L) bool: which places of the arrays hold an operation."""
        return np.arange(self.machines.shape[1]) < self.lengths[:, None]

    @property
    def has_zero_times(self) -> bool:
        """Whether some operation takes no time."""
        return bool((self.times[self.exists] == 0).any())

    @property
    def is_square(self) -> bool:
        """Whether every job visits every machine exactly once."""
        shape = self.machines.shape[1] == self.num_machines and bool(
            (self.lengths == self.num_machines).all()
        )
        return shape and bool((np.sort(self.machines, 1) == np.arange(self.num_machines)).all())

    @property
    def total_time(self) -> int:
        """Sum of all processing times: no schedule without idling needs longer."""
        return int(self.times[self.exists].sum())

    def jobs(self) -> list[list[tuple[int, int]]]:
        """Returns the (machine, time) pairs of each job, as `from_jobs` takes them."""
        return [
            list(zip(self.machines[j, :k].tolist(), self.times[j, :k].tolist(), strict=True))
            for j, k in enumerate(self.lengths.tolist())
        ]

    def digest(self) -> str:
        """Returns the SHA-256 of the content (not of the name), as hexadecimal digits."""
        text = repr((self.num_machines, self.jobs()))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobShopInstance):
            return NotImplemented
        return self.num_machines == other.num_machines and self.jobs() == other.jobs()

    def __hash__(self) -> int:
        return hash((self.num_machines, self.lengths.tobytes(), self.times.tobytes()))

    def __repr__(self) -> str:
        return (
            f"JobShopInstance({self.name!r}, {self.num_jobs} jobs, {self.num_machines} machines, "
            f"{self.num_operations} operations)"
        )

    def _check(self) -> None:
        name, shape = self.name, self.machines.shape
        if self.machines.ndim != 2 or self.times.shape != shape or self.lengths.shape != shape[:1]:
            raise InstanceError(
                f"{name}: expected machines and times (J, L) and lengths (J,), got "
                f"{shape}, {self.times.shape} and {self.lengths.shape}."
            )
        if shape[0] < 1 or self.num_machines < 1:
            raise InstanceError(
                f"{name}: header: needs 1 job and 1 machine or more, "
                f"got {shape[0]} and {self.num_machines}."
            )
        if self.machines.size > MAX_OPERATIONS:
            raise InstanceError(f"{name}: too large: {self.machines.size} operations.")
        if (self.lengths < 1).any() or (self.lengths > shape[1]).any():
            j = int(np.flatnonzero((self.lengths < 1) | (self.lengths > shape[1]))[0])
            raise InstanceError(f"{name}, job {j}: has {self.lengths[j]} operations.")
        exists = self.exists
        wrong = exists & ((self.machines < 0) | (self.machines >= self.num_machines))
        if wrong.any():
            used = self.machines[exists]
            raise InstanceError(
                f"{name}, {_place(wrong)}: machine index out of range: {self.machines[wrong][0]} "
                f"is not in 0..{self.num_machines - 1}."
                f"{one_based_hint(used, self.num_machines)}"
            )
        wrong = exists & (self.times < 0)
        if wrong.any():
            raise InstanceError(f"{name}, {_place(wrong)}: negative time {self.times[wrong][0]}.")
        times = self.times[exists]
        rough = float(times.sum(dtype=np.float64))  # a sum of integers might overflow
        if rough > 2 * MAX_TOTAL_TIME or int(times.sum()) > MAX_TOTAL_TIME:
            raise InstanceError(f"{name}: the times add up to more than 2**53.")
        self.machines[~exists] = -1
        self.times[~exists] = -1


def one_based_hint(machines: np.ndarray, num_machines: int) -> str:
    """Returns a hint for the user when machine numbers look counted from 1, else ""."""
    if machines.min() >= 1 and machines.max() <= num_machines:
        return " It looks 1-based; pass machine_base=1."
    return ""


def _place(wrong: np.ndarray) -> str:
    j, i = np.argwhere(wrong)[0]
    return f"job {j}, operation {i}"


def _integers(value: Any, what: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind in "iu" or array.size == 0:
        return np.array(array, np.int64)
    try:
        with np.errstate(invalid="ignore"):
            exact = array.astype(np.int64)
        if array.dtype.kind in ("f", "O") and (exact == array).all():
            return exact
    except (TypeError, ValueError, OverflowError):
        pass
    raise InstanceError(f"{what}: not an integer array.")
