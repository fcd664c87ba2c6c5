"""`Simulator`: a job shop that runs from decision to decision, exact to the unit of time.

It is written to be read: each step of an instant is one short method, in the order in which they
happen. The compiled simulator gives the same results bit for bit and is tested against this one.
"""

from __future__ import annotations

import copy
import math
import operator
from enum import IntEnum
from typing import Any

import numpy as np

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.bounds import machine_job_bound
from gnnlab.tasks.dispatch.illegal import IllegalAction, is_integer, why_illegal
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.processing import Begun, processing_end
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Cuts, Trace, WindowTrace

__all__ = ["Simulator", "Status"]

NOWHERE = -1
NOBODY = -1


class Status(IntEnum):
    """What a job does."""

    WAIT = 0
    """It is outside or in a buffer."""
    PROC = 1
    """It is on a machine that processes it, or is down in the middle of that."""
    BLOCKED = 2
    """It is finished on its machine and keeps it."""
    DONE = 3
    """Its last operation is complete and it has left."""


class Simulator:
    """One episode of a job shop: ask `legal`, choose with `step`, until it is `over`.

    An action is a job, which moves to the machine of its next operation and starts there, or the
    number of jobs, which means to wait. Everything that is no choice happens by itself:
    completions, shutdowns and repairs, and rotations of jobs that wait for each other's machines.

    Args:
        instance: the job shop, J jobs and M machines.
        trace: when machines are down; None is never.
        options: the rules of the game.
        cuts: interruptions of single operations, in place of a trace.
        scale: what rewards are divided by; None takes the instance's lower bound.

    Attributes:
        time: now, an integer.
        next_op: (J) the first operation of each job that has not started.
        location: (J) the machine a job is on, or -1.
        status: (J) what each job does.
        ready: (J) when the next operation became available.
        work_left: (J) processing time of the operations that have not started.
        occupant: (M) the job on each machine, or -1.
        down_until: (M) end of the shutdown of each machine, 0 while it is up.
        start, end, depart: for each job, times of its operations; -1 while not known. The end is
            known from the start on.
        order: (M) the operations (j, i) that each machine has started, in their order.
        done, deadlock, truncated: how the episode ended; none of them while it goes on.
        swaps: rotations of two or more jobs so far.
        steps: decisions so far, those taken by themselves included.
        first_bound: the lower bound of the instance: its longest job or busiest machine.
        initial_reward: the whole reward, where an episode is over without a decision.

    Raises:
        ConfigError: for a scale that is not positive, or a trace together with cuts.

    Example:
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]]))
        >>> while not shop.over:
        ...     reward = shop.step(shop.legal()[0])
        >>> shop.makespan, shop.swaps
        (5, 1)
    """

    def __init__(
        self,
        instance: JobShopInstance,
        trace: Trace | None = None,
        options: ShopOptions | None = None,
        *,
        cuts: Cuts | None = None,
        scale: float | None = None,
    ) -> None:
        if isinstance(trace, Cuts):
            trace, cuts = None, trace
        if trace is not None and cuts is not None:
            raise ConfigError("a shop takes a trace or cuts, not both.")
        self.instance = instance
        self.options = options or ShopOptions()
        self.trace: Trace = trace or WindowTrace([])
        self.cuts = cuts
        self.num_jobs = n = instance.num_jobs
        self.num_machines = instance.num_machines
        self.machines = [[k for k, _ in job] for job in instance.jobs()]
        self.times = [[p for _, p in job] for job in instance.jobs()]
        self.total = [sum(times) for times in self.times]
        self.max_steps = self.options.max_steps or 20 * instance.num_operations + 1000

        self.time = 0
        self.next_op = [0] * n
        self.location = [NOWHERE] * n
        self.status = [Status.WAIT] * n
        self.ready = [0] * n
        self.work_left = list(self.total)
        self.occupant = [NOBODY] * self.num_machines
        self.down_until = [0] * self.num_machines
        self.start = [[-1] * len(times) for times in self.times]
        self.end = [[-1] * len(times) for times in self.times]
        self.depart = [[-1] * len(times) for times in self.times]
        self.order: list[list[tuple[int, int]]] = [[] for _ in range(self.num_machines)]
        self.inside = 0
        self.declined: set[int] = set()
        self._window = [0] * self.num_machines

        self.done = self.deadlock = self.truncated = False
        self.swaps = self.steps = 0
        self._elapsed = self._waited = 0
        self.first_bound = self._bound = machine_job_bound(instance)
        self.scale = max(1, self.first_bound) if scale is None else scale
        if not self.scale > 0 or math.isinf(self.scale):
            raise ConfigError(f"scale is {scale}; it must be a positive number.")
        self._run_to_decision()
        self.initial_reward = self._reward() if self.over else 0.0

    # What an agent asks and does.

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.done or self.deadlock or self.truncated

    @property
    def makespan(self) -> float:
        """The time reached, an integer: at the end the makespan; infinite after a deadlock."""
        return math.inf if self.deadlock else self.time

    @property
    def info(self) -> dict[str, Any]:
        """Counters of the episode: swaps, steps, and whether it ended in a deadlock."""
        return {"swaps": self.swaps, "steps": self.steps, "deadlock": self.deadlock}

    def legal(self) -> list[int]:
        """Returns the legal actions in ascending order; none when the episode is over."""
        if self.over:
            return []
        machines = self.open_machines()
        asked = machines[:1] if self.options.focus else machines
        actions = sorted(j for k in asked for j in self.candidates(k))
        others_decide = self.options.focus and len(machines) > 1
        if self.options.allow_wait and (others_decide or self.next_event() is not None):
            actions.append(self.num_jobs)
        return actions

    def step(self, action: int) -> float:
        """Does an action, and what follows until the next decision.

        Args:
            action: a job, or the number of jobs to wait.

        Returns:
            The reward since the last decision.

        Raises:
            IllegalAction: saying why the action is not legal now.
        """
        if not is_integer(action) or operator.index(action) not in self.legal():
            raise IllegalAction(why_illegal(self, action))
        self._take(operator.index(action))
        self._run_to_decision()
        return self._reward()

    def play(self, action: int) -> None:
        """Does a legal action as `step` does, without its checks, reward and trivial actions."""
        self._take(action)
        self._settle()
        self._cut_off()

    def decline(self, k: int) -> None:
        """Leaves open machine `k` idle until the next event, as waiting does with `focus`."""
        self.steps += 1
        self.declined.add(k)
        self._settle()
        self._cut_off()

    def open_machines(self) -> list[int]:
        """Returns the machines to decide about now: up, empty, wanted, and not declined."""
        wanted = {self.next_machine(j) for j in range(self.num_jobs) if self.may_move(j)}
        return sorted(k for k in wanted if self._is_free(k) and k not in self.declined)

    def candidates(self, k: int) -> list[int]:
        """Returns the jobs that wait for machine `k` and may move to it once it is free."""
        jobs = range(self.num_jobs)
        return [j for j in jobs if self.may_move(j) and self.next_machine(j) == k]

    def waiting(self, k: int) -> list[int]:
        """Returns the jobs that wait for machine `k`, those that may not move yet included."""
        return [
            j
            for j in range(self.num_jobs)
            if self.status[j] in (Status.WAIT, Status.BLOCKED)
            and self.next_machine(j) == k != self.location[j]
        ]

    def next_machine(self, j: int, after: int = 0) -> int:
        """Returns the machine of job `j`'s next operation, or of one `after` it; -1 for none."""
        i = self.next_op[j] + after
        return self.machines[j][i] if i < len(self.machines[j]) else NOWHERE

    def schedule(self) -> Schedule:
        """Returns the operations that have started; jobs still on a machine depart now or later."""
        rows = []
        for j, starts in enumerate(self.start):
            for i, s in enumerate(starts[: self.next_op[j]]):
                c, d = self.end[j][i], self.depart[j][i]
                rows.append((j, i, self.machines[j][i], s, c, d if d >= 0 else max(c, self.time)))
        makespan = max((row[4] for row in rows), default=0)
        ops = np.array(rows, np.int64).reshape(-1, 6)
        return Schedule(self.instance.name, self.options.mode, makespan, ops)

    def clone(self) -> Simulator:
        """Returns an independent copy of the shop as it is now."""
        other = copy.copy(self)
        for name in ("next_op", "location", "status", "ready", "work_left", "occupant"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("down_until", "_window", "declined"):
            setattr(other, name, getattr(self, name).copy())
        for name in ("start", "end", "depart", "order"):
            setattr(other, name, [row.copy() for row in getattr(self, name)])
        return other

    def expected(self) -> Simulator:
        """Returns a copy in which shutdowns of now end as known and no others follow."""
        other = self.clone()
        other.trace = Begun(self.trace, self.time)
        for j in range(self.num_jobs):
            if self.status[j] == Status.PROC:
                other.end[j][self.next_op[j] - 1] = self.expected_end(j)
        other.cuts = None
        return other

    def expected_end(self, j: int) -> int:
        """Returns when job `j` is complete on its machine if no shutdown begins after now."""
        i = self.next_op[j] - 1
        return self._processing_end(j, i, self.start[j][i], known=self.time)

    def lower_bound(self) -> int:
        """Returns a bound on the makespan of all ways to go on: job by job, from machines' ends."""
        free_at = [self.time] * self.num_machines
        for j in range(self.num_jobs):
            if self.status[j] == Status.PROC:
                free_at[self.location[j]] = self.end[j][self.next_op[j] - 1]
        bound = self.first_bound
        for j, first in enumerate(self.next_op):
            end = self.end[j][first - 1] if first else 0
            for k, p in zip(self.machines[j][first:], self.times[j][first:], strict=True):
                end = max(end, free_at[k], self.time) + p
            bound = max(bound, end)
        return bound

    # One instant: what happens by itself between two decisions.

    def _run_to_decision(self) -> None:
        while True:
            self._settle()
            self._cut_off()
            if self.over or not self.options.auto_trivial:
                return
            actions = self.legal()
            if len(actions) > 1:
                return
            self._take(actions[0])

    def _cut_off(self) -> None:
        self.truncated = self.steps >= self.max_steps and not self.done and not self.deadlock

    def _settle(self) -> None:
        while True:
            self._complete_operations()
            self._update_shutdowns()
            if all(status == Status.DONE for status in self.status):
                self.done = True
                return
            if self._rotate():
                continue
            if self.open_machines():
                return
            if not self._advance():
                self.deadlock = True
                return

    def _complete_operations(self) -> None:
        for j in range(self.num_jobs):
            i = self.next_op[j] - 1
            if self.status[j] != Status.PROC or self.end[j][i] != self.time:
                continue
            k = self.location[j]
            self.ready[j] = self.time
            last, buffers = i == len(self.times[j]) - 1, self.options.mode == "jssp"
            if last or buffers:
                self.depart[j][i] = self.time
            if last or (buffers and self.next_machine(j) != k):
                self.status[j] = Status.DONE if last else Status.WAIT
                self.occupant[k] = NOBODY
                self.location[j] = NOWHERE
                self.inside -= last
            else:
                self.status[j] = Status.BLOCKED

    def _update_shutdowns(self) -> None:
        for k in range(self.num_machines):
            while (window := self.trace.window(k, self._window[k])) and window[1] <= self.time:
                self._window[k] += 1
            self.down_until[k] = window[1] if window and window[0] <= self.time else 0

    def _rotate(self) -> bool:
        """Moves the jobs of each cycle whose machines are all up; says whether any moved."""
        ready = [c for c in self.cycles() if not any(self.down_until[self.location[j]] for j in c)]
        for cycle in ready:
            self.swaps += len(cycle) > 1
            for j in cycle:
                self._start(j)
        return bool(ready)

    def cycles(self) -> list[list[int]]:
        """Returns the cycles of blocked jobs each of which waits for the next one's machine.

        A job whose next operation is on the machine it is on is a cycle of its own. Without swaps
        these are the only ones.
        """
        found = []
        seen: set[int] = set()
        for first in range(self.num_jobs):
            path: list[int] = []
            j = first
            while j != NOBODY and self.status[j] == Status.BLOCKED and j not in seen:
                seen.add(j)
                path.append(j)
                j = self.occupant[self.next_machine(j)]
            if j in path:
                cycle = path[path.index(j) :]
                if len(cycle) == 1 or self.options.mode != "bns":
                    found.append(cycle)
        return found

    def _advance(self) -> bool:
        """Goes to the next event; says whether there is one."""
        event = self.next_event()
        if event is None:
            if not self.declined:
                return False
            event = self.time  # others decided for these, in no time: they are asked again
        waiting = sum(status in (Status.WAIT, Status.BLOCKED) for status in self.status)
        self._elapsed += event - self.time
        self._waited += (event - self.time) * waiting
        self.time = event
        self.declined.clear()
        return True

    def next_event(self) -> int | None:
        """Returns the next completion, or repair of a machine that holds or lacks a waiting job.

        None is never. It knows how long shutdowns to come delay an operation; that of `expected`
        does not.
        """
        events = []
        for j, status in enumerate(self.status):
            if status == Status.PROC:
                events.append(self.end[j][self.next_op[j] - 1])
            elif status != Status.DONE:
                events.append(self.down_until[self.next_machine(j)])
                if status == Status.BLOCKED and not self.options.unload_when_down:
                    events.append(self.down_until[self.location[j]])
        return min((event for event in events if event > self.time), default=None)

    # Moves.

    def _take(self, action: int) -> None:
        self.steps += 1
        if action < self.num_jobs:
            self._start(action)
        elif self.options.focus:
            self.declined.add(self.open_machines()[0])
        else:
            self._advance()

    def _start(self, j: int) -> None:
        """Starts job `j`'s next operation now, wherever the job is."""
        i, old, new = self.next_op[j], self.location[j], self.next_machine(j)
        if old != NOWHERE:
            if self.depart[j][i - 1] < 0:
                self.depart[j][i - 1] = self.time
            if self.occupant[old] == j:
                self.occupant[old] = NOBODY
        self.occupant[new] = j
        self.location[j] = new
        self.status[j] = Status.PROC
        self.order[new].append((j, i))
        self.start[j][i] = self.time
        self.end[j][i] = self._processing_end(j, i, self.time)
        self.inside += i == 0
        self.next_op[j] += 1
        self.work_left[j] -= self.times[j][i]

    def _processing_end(self, j: int, i: int, start: int, known: float = math.inf) -> int:
        """Returns when operation (j, i) is complete if it starts at `start`.

        Shutdowns and cuts that begin later than `known` are left out.
        """
        k, p, restart = self.machines[j][i], self.times[j][i], self.options.restart
        if self.cuts is not None and self.cuts.after[j, i] >= 0:
            after, repair = int(self.cuts.after[j, i]), int(self.cuts.duration[j, i])
            if start + after <= known:
                return start + p + repair + (after if restart else 0)
        first = self._window[k] if known == math.inf else 0
        trace = self.trace if known == math.inf else Begun(self.trace, known)
        return processing_end(trace, k, start, p, restart, first)

    def may_move(self, j: int) -> bool:
        """Returns whether job `j` waits, and nothing but its next machine may stand in its way."""
        status = self.status[j]
        if status == Status.BLOCKED:
            return self.options.unload_when_down or not self.down_until[self.location[j]]
        limit = self.options.wip_limit
        return status == Status.WAIT and (
            limit is None or self.next_op[j] > 0 or self.inside < limit
        )

    def _is_free(self, k: int) -> bool:
        return self.occupant[k] == NOBODY and not self.down_until[k]

    def _reward(self) -> float:
        """Returns the reward since it was last asked for."""
        if self.options.reward == "elapsed":
            reward = -self._elapsed / self.scale
        elif self.options.reward == "waiting":
            reward = -self._waited / (self.num_jobs * self.scale)
        else:
            bound = self.lower_bound()
            reward = -(bound - self._bound) / self.scale
            self._bound = bound
        self._elapsed = self._waited = 0
        if self.deadlock:
            reward -= sum(self.total) / self.scale
        return reward
