r"""The guide: a learned priority rule, cheap enough to finish episodes in lookahead.

The next job of a machine is drawn from a softmax over a weighted sum of facts about the candidates,

$$ P(j) = \frac{e^{w \cdot f_j}}{\sum_i e^{w \cdot f_i}} $$

and `fit_guide` finds the weights. The compiled simulator draws the same jobs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gnnlab.tasks.dispatch._inverse import Inverse
from gnnlab.tasks.dispatch.simulator import Simulator, Status

__all__ = ["GUIDE_FACTS", "draw", "guide_facts"]

GUIDE_FACTS = (
    "time of the next operation / unit",
    "time not started / bound",
    "time of the next operation / time not started",
    "(time started + that) / (time of the job + that)",
    "time since it became ready / 4 units",
    "never started",
    "if so: jobs inside / machines",
    "has no operation after the next",
    "jobs that wait for the machine it is on / jobs",
    "time of operations not started there / bound",
    "time of the operation after the next / unit",
    "waiting jobs at its machine / jobs",
    "time of the waiting operations there / 10 units",
    "time of operations not started there / bound, after the next",
    "that machine is blocked",
    "that machine is blocked, and the job never started",
    "the job that blocks it wants this machine",
    "that machine is in process",
    "if so: how much longer than the next operation / unit, 0 or more",
    "the same if the job never started",
)
"""What the guide knows of a candidate; all but the first ten are 0 before a last operation."""


def guide_facts(shop: Simulator) -> tuple[list[int], list[list[float]]]:
    """Returns the jobs that may take the first open machine now, and the facts about each.

    Args:
        shop: the shop at a decision.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 1)]]))
        >>> jobs, facts = guide_facts(shop)
        >>> jobs, [row[GUIDE_FACTS.index("never started")] for row in facts]
        ([0, 1], [True, True])
    """
    k = shop.open_machines()[0]
    jobs = shop.candidates(k)
    about = _Machines(shop)
    return jobs, [_facts(shop, j, k, about) for j in jobs]


def draw(shop: Simulator, weights: Sequence[float], unit: float) -> int:
    """Returns the job that the guide puts on the first open machine.

    Args:
        shop: the shop at a decision between two or more candidates.
        weights: (F,).
        unit: a random number in [0, 1).
    """
    jobs, facts = guide_facts(shop)
    scores = []
    for row in facts:
        score = 0.0
        for weight, fact in zip(weights, row, strict=True):
            score += weight * fact
        scores.append(score)
    most, total = max(scores), 0.0
    parts = [math.exp(score - most) for score in scores]
    for part in parts:  # in this order: `sum` rounds otherwise
        total += part
    left, found = unit * total, jobs[-1]
    for j, part in zip(jobs, parts, strict=True):
        left -= part
        if left < 0:
            found = j
            break
    return found


class _Machines:
    """Sums over machines that several candidates need, and what times are divided by."""

    def __init__(self, shop: Simulator) -> None:
        self.unit, self.whole, self.jobs, machines = Inverse.of(shop)
        self.inside = shop.inside * machines
        self.load = [0] * shop.num_machines
        self.queued = [0] * shop.num_machines
        self.work = [0] * shop.num_machines
        for j, i in enumerate(shop.next_op):
            for k, p in zip(shop.machines[j][i:], shop.times[j][i:], strict=True):
                self.load[k] += p
        for k in range(shop.num_machines):
            waiting = shop.waiting(k)
            self.queued[k] = len(waiting)
            self.work[k] = sum(shop.times[j][shop.next_op[j]] for j in waiting)


def _facts(shop: Simulator, j: int, k: int, about: _Machines) -> list[float]:
    i, times, here = shop.next_op[j], shop.times[j], shop.location[j]
    p, rest, total = times[i], max(1, shop.work_left[j]), max(1, shop.total[j])
    is_outside, is_last = i == 0, i + 1 == len(times)
    facts: list[float] = [
        p * about.unit,
        rest * about.whole,
        p / rest,
        (total - rest + p) / (total + p),
        (shop.time - shop.ready[j]) * (0.25 * about.unit),
        is_outside,
        about.inside if is_outside else 0,
        is_last,
        about.queued[here] * about.jobs if here >= 0 else 0,
        about.load[here] * about.whole if here >= 0 else 0,
    ]
    if is_last:
        return [*facts, *[0.0] * (len(GUIDE_FACTS) - len(facts))]
    n = shop.next_machine(j, 1)
    other = shop.occupant[n]
    is_blocked = other >= 0 and shop.status[other] == Status.BLOCKED
    in_process = other >= 0 and not is_blocked
    late = 0.0
    if in_process:
        end = shop.end[other][shop.next_op[other] - 1]
        late = max(0.0, (end - shop.time) * about.unit - facts[0])
    wants = shop.next_machine(other) if is_blocked else -1
    return [
        *facts,
        times[i + 1] * about.unit,
        about.queued[n] * about.jobs,
        about.work[n] * (0.1 * about.unit),
        about.load[n] * about.whole,
        is_blocked,
        is_outside and is_blocked,
        is_blocked and wants == k != n,
        in_process,
        late,
        late if is_outside else 0,
    ]
