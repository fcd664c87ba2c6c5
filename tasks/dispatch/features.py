"""What a policy sees of a shop: numbers of operations and of machines, about 0 to 1.

They speak of the present only: a shutdown that has not begun shows nowhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnlab.tasks.dispatch.simulator import Simulator, Status

__all__ = [
    "EDGE_TYPES",
    "MACHINE_FEATURES",
    "OPERATION_FEATURES",
    "graph_arrays",
    "machine_features",
    "operation_features",
]

MOST_CLIQUE_JOBS = 30

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

EDGE_TYPES = {
    "pred": ("op", "op"),  # an operation to the next of its job
    "succ": ("op", "op"),  # and back
    "disj": ("op", "op"),  # operations of other jobs on the machine, none of them started
    "mach_next": ("op", "op"),  # the one that occupies a machine to those that wait for it
    "block": ("op", "op"),  # the same, if it will leave by starting its job's next operation
    "block_rev": ("op", "op"),  # and back
    "op_machine": ("op", "machine"),
    "machine_op": ("machine", "op"),
}
"""Types of edges of the dynamic disjunctive graph, with the types of their two ends."""


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


def graph_arrays(
    shop: Simulator,
    *,
    drop_done: bool = True,
    machine_nodes: bool = True,
    disjunctive: str = "auto",
    delete_down: bool = False,
    repair_known: bool = True,
) -> dict[str, Any]:
    """Returns the dynamic disjunctive graph of a shop; `BatchedShop.graph` gives the same, faster.

    Args:
        shop: the shop at a decision.
        drop_done: whether operations that have departed are no nodes; otherwise their features
            are 0.
        machine_nodes: whether machines are nodes.
        disjunctive: "clique" links operations that a machine has yet to order pair by pair, "star"
            by the machine alone, "auto" takes cliques up to 30 jobs.
        delete_down: whether edges of types disj, mach_next, block and block_rev of a machine that
            is down are left out.
        repair_known: whether the time to a repair may be seen.

    Returns:
        x_op (N, 16) and x_machine (M, 8) float32; op_job and op_machine (N,), candidate (J,) the
        node of each job's next operation or -1, and edge_index, a dict of (2, E) for each of
        `EDGE_TYPES`, int64.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]]))
        >>> graph_arrays(shop)["edge_index"]["disj"].tolist()
        [[0, 3, 1, 2], [3, 0, 2, 1]]
    """
    node: dict[tuple[int, int], int] = {}
    for j, times in enumerate(shop.times):
        done = shop.next_op[j] - (shop.status[j] in (Status.PROC, Status.BLOCKED))
        for i in range(done if drop_done else 0, len(times)):
            node[j, i] = len(node)
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in EDGE_TYPES}
    for (j, i), v in node.items():
        if (j, i + 1) in node:
            pairs["pred"].append((v, v + 1))
            pairs["succ"].append((v + 1, v))
        if machine_nodes:
            pairs["op_machine"].append((v, shop.machines[j][i]))
            pairs["machine_op"].append((shop.machines[j][i], v))
    is_clique = disjunctive == "clique" or (
        disjunctive == "auto" and (not machine_nodes or shop.num_jobs <= MOST_CLIQUE_JOBS)
    )
    for k in range(shop.num_machines):
        if delete_down and shop.down_until[k]:
            continue
        if is_clique:
            todo = [op for op in node if op[1] >= shop.next_op[op[0]] and _machine(shop, op) == k]
            pairs["disj"] += [(node[a], node[b]) for a in todo for b in todo if a[0] != b[0]]
        j = shop.occupant[k]
        for other in shop.waiting(k) if j >= 0 else ():
            pair = node[j, shop.next_op[j] - 1], node[other, shop.next_op[other]]
            pairs["mach_next"].append(pair)
            if shop.options.mode != "jssp" and shop.next_machine(j) >= 0:
                pairs["block"].append(pair)
                pairs["block_rev"].append(pair[::-1])
    jobs, ops = np.array(list(node), np.int64).reshape(-1, 2).T
    machines = machine_features(shop, repair_known)
    following = [node.get((j, i), -1) for j, i in enumerate(shop.next_op)]
    return {
        "x_op": operation_features(shop, repair_known)[jobs, ops],
        "x_machine": machines if machine_nodes else machines[:0],
        "op_job": jobs,
        "op_machine": shop.instance.machines[jobs, ops],
        "candidate": np.array(following, np.int64),
        "edge_index": {k: np.array(v, np.int64).reshape(-1, 2).T for k, v in pairs.items()},
    }


def _machine(shop: Simulator, op: tuple[int, int]) -> int:
    return shop.machines[op[0]][op[1]]


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
