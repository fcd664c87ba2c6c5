"""What a policy over jobs sees of a shop: numbers of jobs and of the shop, and the legal actions.

They speak of the present only: a shutdown that has not begun shows nowhere. Times are divided by
the mean time of an operation ("unit") or by the lower bound of the instance ("bound"), so that
sizes and units of an instance do not matter. The compiled simulator gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnlab.tasks.dispatch._inverse import Inverse
from gnnlab.tasks.dispatch.simulator import Simulator, Status

__all__ = ["JOB_COLUMNS", "MACHINE_FACTS", "SHOP_COLUMNS", "job_features"]

MACHINE_FACTS = (
    "remaining time in process / unit",
    "blocked",
    "down",
    "time to the repair / unit",
    "waiting jobs / jobs",
    "time of the waiting operations / 10 units",
    "time of operations not started / bound",
    "slack of that up to the bound of now / bound",
    "up and empty",
    "blocked jobs ahead / machines",
    "remaining time in process at their end / unit",
    "they end in a cycle",
)
"""What is told of a machine: blocked jobs ahead are its occupant, the one that waits for, ..."""

JOB_COLUMNS = (
    "legal",
    "outside, or never started",
    "waiting inside",
    "in process",
    "remaining time in process / unit",
    "time since it became ready / 4 units",
    "slack up to the bound of now / bound",
    "time of operations not started / bound",
    "share of its operations not started",
    "share of its time not started",
    "time of the next operation / unit",
    "that / time not started",
    "(time started + that) / (time of the job + that)",
    *(f"next machine: {fact}" for fact in MACHINE_FACTS),
    "has an operation after the next",
    "time of it / unit",
    *(f"machine of it: {fact}" for fact in MACHINE_FACTS),
)
"""Columns of the jobs."""

SHOP_COLUMNS = (
    "now / bound of now",
    "jobs inside / jobs",
    "jobs inside / machines",
    "finished jobs / jobs",
    "open machines / machines",
    "blocked machines / machines",
    "down machines / machines",
    "share of all time not started",
    "growth of the bound / bound",
    "time to the next event / unit",
    "(jobs - machines) / (jobs + machines)",
    "waiting jobs / jobs",
    *(f"first open machine: {fact}" for fact in MACHINE_FACTS),
)
"""Columns of the shop."""


def job_features(
    shop: Simulator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns what a policy over jobs sees of one shop.

    Args:
        shop: the shop at a decision.

    Returns:
        jobs, (J, 39) float32 with the columns `JOB_COLUMNS`, 0 for finished jobs and where there is
        no next operation; shop, (24,) float32 with the columns `SHOP_COLUMNS`; mask, (J + 1,) bool,
        legal actions, the last is WAIT; op, (J,) int64, place j * L + i of the next operation in
        the instance, -1 without one; machine, (J,) int64, its machine, -1 without one.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3)]]))
        >>> jobs, _, mask, _, _ = job_features(shop)
        >>> jobs[:, JOB_COLUMNS.index("share of its time not started")].tolist(), mask.tolist()
        ([1.0, 1.0], [True, True, False])
    """
    now = _now(shop)
    mask = np.zeros(shop.num_jobs + 1, bool)
    mask[shop.legal()] = True
    jobs = np.zeros((shop.num_jobs, len(JOB_COLUMNS)), np.float32)
    op, machine = np.full((2, shop.num_jobs), -1, np.int64)
    for j, i in enumerate(shop.next_op):
        if shop.status[j] == Status.DONE:
            continue
        facts = _job(shop, j, now, bool(mask[j]))
        jobs[j, : len(facts)] = facts
        if i < len(shop.times[j]):
            op[j] = j * shop.instance.times.shape[1] + i
            machine[j] = shop.next_machine(j)
    facts = _shop(shop, now)
    whole = np.zeros(len(SHOP_COLUMNS), np.float32)
    whole[: len(facts)] = facts
    return jobs, whole, mask, op, machine


@dataclass(frozen=True)
class _Now:
    """What is needed for many columns."""

    unit: float  # as in Inverse, and so are the next three
    whole: float
    jobs: float
    machines: float
    bound: int  # lower bound of the makespan from now on, without shutdowns to come
    paths: list[int]  # (J) earliest end of each job
    left: list[int]  # (M) remaining time in process
    load: list[int]  # (M) time of operations not started
    waiting: list[list[int]]  # (M) jobs that wait


def _now(shop: Simulator) -> _Now:
    left = [_left(shop, k) for k in range(shop.num_machines)]
    load = [0] * shop.num_machines
    paths = []
    for j, first in enumerate(shop.next_op):
        end = shop.time
        if shop.status[j] == Status.DONE:
            end = shop.end[j][-1]
        elif shop.status[j] == Status.PROC:
            end += left[shop.location[j]]
        for k, p in zip(shop.machines[j][first:], shop.times[j][first:], strict=True):
            load[k] += p
            end = max(end, shop.time + left[k]) + p
        paths.append(end)
    return _Now(
        *Inverse.of(shop),
        bound=max(shop.first_bound, *paths),
        paths=paths,
        left=left,
        load=load,
        waiting=[shop.waiting(k) for k in range(shop.num_machines)],
    )


def _left(shop: Simulator, k: int) -> int:
    """Returns the processing time that the operation on machine `k` still needs, as seen now."""
    j = shop.occupant[k]
    if j < 0 or shop.status[j] != Status.PROC:
        return 0
    goes_on = max(shop.time, shop.down_until[k])
    i = shop.next_op[j] - 1
    if shop.cuts is not None and shop.cuts.after[j, i] >= 0:
        cut = shop.start[j][i] + int(shop.cuts.after[j, i])
        repaired = cut + int(shop.cuts.duration[j, i])
        if cut <= shop.time < repaired:
            goes_on = repaired
    return shop.expected_end(j) - goes_on


def _chain(shop: Simulator, k: int, left: list[int]) -> tuple[int, int, bool]:
    """Returns the blocked jobs ahead of one that wants machine `k`, and how they end.

    That is: their number, the remaining time of the job in process that the last one waits for, and
    whether they wait for each other.
    """
    length = 0
    while (j := shop.occupant[k]) >= 0:
        if shop.status[j] == Status.PROC:
            return length, left[k], False
        length += 1
        if length > shop.num_machines:
            return length, 0, True
        if shop.next_machine(j) == k:  # goes on where it is
            break
        k = shop.next_machine(j)
    return length, 0, False


def _machine(shop: Simulator, k: int, now: _Now) -> list[float]:
    j, down, left, load = shop.occupant[k], shop.down_until[k], now.left[k], now.load[k]
    queue = now.waiting[k]
    work = sum(shop.times[other][shop.next_op[other]] for other in queue)
    ahead, last, in_cycle = _chain(shop, k, now.left)
    return [
        left * now.unit,
        j >= 0 and shop.status[j] == Status.BLOCKED,
        down > 0,
        (down - shop.time) * now.unit if down else 0,
        len(queue) * now.jobs,
        work * (0.1 * now.unit),
        load * now.whole,
        (now.bound - shop.time - left - load) * now.whole,
        j < 0 and not down,
        ahead * now.machines,
        last * now.unit,
        in_cycle,
    ]


def _job(shop: Simulator, j: int, now: _Now, is_legal: bool) -> list[float]:
    i, times, status, rest = shop.next_op[j], shop.times[j], shop.status[j], shop.work_left[j]
    in_process, total = status == Status.PROC, max(1, shop.total[j])
    facts = [
        is_legal,
        status == Status.WAIT and i == 0,
        status == Status.BLOCKED or (status == Status.WAIT and i > 0),
        in_process,
        now.left[shop.location[j]] * now.unit if in_process else 0,
        0 if in_process else (shop.time - shop.ready[j]) * (0.25 * now.unit),
        (now.bound - now.paths[j]) * now.whole,
        rest * now.whole,
        (len(times) - i) / len(times),
        rest / total,
    ]
    if i == len(times):
        return facts
    p, rest = times[i], max(1, rest)
    facts += [p * now.unit, p / rest, (total - rest + p) / (total + p)]
    facts += _machine(shop, shop.next_machine(j), now)
    if i + 1 == len(times):
        return facts
    return [*facts, 1, times[i + 1] * now.unit, *_machine(shop, shop.next_machine(j, 1), now)]


def _shop(shop: Simulator, now: _Now) -> list[float]:
    jobs, machines = shop.num_jobs, shop.num_machines
    open_machines = shop.open_machines()
    event = shop.expected().next_event()
    facts: list[float] = [
        shop.time / max(1, now.bound),
        shop.inside * now.jobs,
        shop.inside * now.machines,
        shop.status.count(Status.DONE) * now.jobs,
        len(open_machines) * now.machines,
        shop.status.count(Status.BLOCKED) * now.machines,
        sum(until > 0 for until in shop.down_until) * now.machines,
        sum(now.load) / max(1, sum(shop.total)),
        (now.bound - shop.first_bound) * now.whole,
        (event - shop.time) * now.unit if event is not None else 0,
        (jobs - machines) / (jobs + machines),
        sum(map(len, now.waiting)) * now.jobs,
    ]
    return facts + _machine(shop, open_machines[0], now) if open_machines else facts
