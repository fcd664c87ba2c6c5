"""What a policy sees of a shop: numbers of operations and of machines, about 0 to 1.

They speak of the present only: a shutdown that has not begun shows nowhere.
"""

from __future__ import annotations

import numpy as np

from gnnlab.tasks.dispatch.simulator import Simulator, Status

__all__ = ["MACHINE_FEATURES", "OPERATION_FEATURES", "machine_features", "operation_features"]

OPERATION_FEATURES = (
    "not started",
    "in process",
    "blocking",
    "time / longest time",
    "share of the job's time up to its end",
    "share of the job's operations after it",
    "waiting time / bound, at most 1",
    "remaining time in process / longest time",
    "candidate",
    "remaining time of the job / bound",
    "earliest start from now / bound",
    "machine is down",
    "time to the repair / bound",
    "job is inside",
    "next machine of the job is occupied",
    "in a rotation that waits for a repair",
)
"""Columns of `operation_features`."""

MACHINE_FEATURES = (
    "processing",
    "blocked",
    "down",
    "time to the repair / bound",
    "time of operations not started / bound",
    "waiting jobs / jobs",
    "remaining time in process / bound",
    "jobs inside / jobs",
)
"""Columns of `machine_features`."""


def operation_features(shop: Simulator, repair_known: bool = True) -> np.ndarray:
    """Returns the numbers of every operation that has not departed.

    Args:
        shop: the shop at a decision.
        repair_known: whether the time to the repair of a machine that is down may be seen.

    Returns:
        (J, L, 16) float32 with the columns `OPERATION_FEATURES`; 0 where a job has departed or has
        no such operation.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3)]]))
        >>> operation_features(shop)[:, :, 9].tolist()  # of 5
        [[1.0, 1.0], [0.6000000238418579, 0.0]]
    """
    bound = max(1, shop.first_bound)
    longest = max(1, *(max(times) for times in shop.times))
    works, ends = _processing(shop, repair_known)
    free_at = [shop.time if j < 0 else ends[j] for j in shop.occupant]
    legal = set(shop.legal())
    rotating = {j for cycle in shop.cycles() for j in cycle}
    rows = np.zeros((*shop.instance.times.shape, len(OPERATION_FEATURES)))
    for j, times in enumerate(shop.times):
        status, next_op, length, total = shop.status[j], shop.next_op[j], len(times), shop.total[j]
        if status == Status.DONE:
            continue
        wanted = shop.next_machine(j)
        end = ends[j]
        for i in range(next_op if status == Status.WAIT else next_op - 1, length):
            k, p = shop.machines[j][i], times[i]
            started = i < next_op
            waiting = i == next_op and status != Status.PROC
            start = max(end, free_at[k])
            end = end if started else start + p
            rows[j, i] = (
                not started,
                started and status == Status.PROC,
                started and status == Status.BLOCKED,
                p / longest,
                sum(times[: i + 1]) / total if total else 1,
                (length - i - 1) / length,
                min(1, (shop.time - shop.ready[j]) / bound) if waiting else 0,
                works[j] / longest if started else 0,
                waiting and j in legal,
                shop.work_left[j] / bound,
                0 if started else (start - shop.time) / bound,
                shop.down_until[k] > 0,
                _repair(shop, k) / bound if repair_known else 0,
                next_op > 0,
                wanted >= 0 and shop.occupant[wanted] >= 0,
                j in rotating,
            )
    return rows.astype(np.float32)


def machine_features(shop: Simulator, repair_known: bool = True) -> np.ndarray:
    """Returns the numbers of every machine.

    Args:
        shop: the shop at a decision.
        repair_known: whether the time to the repair of a machine that is down may be seen.

    Returns:
        (M, 8) float32 with the columns `MACHINE_FEATURES`.
    """
    bound = max(1, shop.first_bound)
    works, _ = _processing(shop, repair_known)
    work = [0] * shop.num_machines
    queue = [0] * shop.num_machines
    for j, first in enumerate(shop.next_op):
        for k, p in zip(shop.machines[j][first:], shop.times[j][first:], strict=True):
            work[k] += p
        if shop.status[j] in (Status.WAIT, Status.BLOCKED):
            queue[shop.next_machine(j)] += 1
    rows = []
    for k, j in enumerate(shop.occupant):
        processing = j >= 0 and shop.status[j] == Status.PROC
        rows.append(
            (
                processing,
                j >= 0 and not processing,
                shop.down_until[k] > 0,
                _repair(shop, k) / bound if repair_known else 0,
                work[k] / bound,
                queue[k] / shop.num_jobs,
                works[j] / bound if processing else 0,
                shop.inside / shop.num_jobs,
            )
        )
    return np.array(rows, np.float32)


def _repair(shop: Simulator, k: int) -> int:
    return max(0, shop.down_until[k] - shop.time)


def _processing(shop: Simulator, repair_known: bool) -> tuple[list[int], list[int]]:
    """Returns the processing time each job still needs where it is, and when it is complete.

    As far as is known: without further shutdowns, and, unless `repair_known`, as if machines that
    are down were repaired now.
    """
    works, ends = [0] * shop.num_jobs, [shop.time] * shop.num_jobs
    for j, status in enumerate(shop.status):
        if status != Status.PROC:
            continue
        i = shop.next_op[j] - 1
        end = shop.expected_end(j)
        works[j] = end - max(shop.time, shop.down_until[shop.location[j]])
        if shop.cuts is not None and 0 <= shop.cuts.after[j, i] <= shop.time - shop.start[j][i]:
            lost = shop.options.restart
            left = shop.times[j][i] - (0 if lost else int(shop.cuts.after[j, i]))
            works[j] = min(works[j], left)
        ends[j] = end if repair_known else shop.time + works[j]
    return works, ends
