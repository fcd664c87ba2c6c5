"""Bounds of the makespan that need no search; they hold with and without buffers."""

from __future__ import annotations

import heapq

import numpy as np

from gnnlab.tasks.dispatch.instance import JobShopInstance

__all__ = ["machine_job_bound", "one_machine_bound", "serial_bound"]


def machine_job_bound(instance: JobShopInstance) -> int:
    """Returns the larger of the longest job and the busiest machine: no schedule is shorter.

    A machine needs the time of all its operations, and before them at least the shortest head (work
    of the same job before), after them at least the shortest tail. Shutdowns only add to it.

    Args:
        instance: the job shop.

    Returns:
        the bound, in the unit of the times.

    Example:
        >>> machine_job_bound(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 4), (1, 1)]]))
        8
    """
    machines, times, heads, tails = _flat(instance)
    m = instance.num_machines
    never = np.iinfo(np.int64).max
    head, tail, work = np.full(m, never), np.full(m, never), np.zeros(m, np.int64)
    np.minimum.at(head, machines, heads)
    np.minimum.at(tail, machines, tails)
    np.add.at(work, machines, times)
    used = head < never
    longest = int((heads + times + tails).max())
    return max(longest, int((head[used] + work[used] + tail[used]).max()))


def one_machine_bound(instance: JobShopInstance) -> int:
    """Returns the largest bound of a single machine, with preemption: no schedule is shorter.

    For each machine, its operations get their heads as release times, and the operation with the
    longest tail goes first, interrupting others (Jackson's rule, optimal for this relaxation). It
    is never below `machine_job_bound` and takes N log N steps.

    Args:
        instance: the job shop.

    Returns:
        the bound, in the unit of the times.

    Example:
        >>> one_machine_bound(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 4), (1, 1)]]))
        8
    """
    machines, times, heads, tails = _flat(instance)
    bound = 0
    for k in np.unique(machines):
        mine = machines == k
        bound = max(bound, _preemptive(heads[mine], times[mine], tails[mine]))
    return bound


def serial_bound(instance: JobShopInstance) -> int:
    """Returns the sum of all times: without shutdowns, one job after the other takes this long.

    Args:
        instance: the job shop.

    Example:
        >>> serial_bound(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 4), (1, 1)]]))
        10
    """
    return instance.total_time


def _flat(instance: JobShopInstance) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns machine, time, head and tail of every operation, each (N,) int64."""
    exists = instance.exists
    times = np.where(exists, instance.times, 0)
    ends = times.cumsum(1)
    tails = ends[:, -1:] - ends
    return (
        instance.machines[exists],
        times[exists],
        (ends - times)[exists],
        tails[exists],
    )


def _preemptive(heads: np.ndarray, times: np.ndarray, tails: np.ndarray) -> int:
    """Returns the makespan of Jackson's preemptive schedule on one machine."""
    order = np.argsort(heads, kind="stable")
    arrivals = list(
        zip(heads[order].tolist(), times[order].tolist(), tails[order].tolist(), strict=True)
    )
    waiting: list[tuple[int, int]] = []
    now = longest = index = 0
    while waiting or index < len(arrivals):
        if not waiting:
            now = max(now, arrivals[index][0])
        while index < len(arrivals) and arrivals[index][0] <= now:
            _, time, tail = arrivals[index]
            heapq.heappush(waiting, (-tail, time))
            index += 1
        tail, left = heapq.heappop(waiting)
        stop = arrivals[index][0] if index < len(arrivals) else now + left
        if now + left <= stop:
            now += left
            longest = max(longest, now - tail)
        else:
            heapq.heappush(waiting, (tail, left - (stop - now)))
            now = stop
    return longest
