"""Local search for a better schedule: simulated annealing over priorities of operations.

A solution is a number per operation, its rank: on the first open machine the waiting operation with
the smallest rank goes first. Where waiting is allowed an operation may also be reserved: its
machine stays idle while it is on its way and has the smaller rank. The compiled search gives the
same numbers.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gnnlab.tasks.dispatch.rollouts import GOLDEN, Dice
from gnnlab.tasks.dispatch.simulator import Simulator, Status

__all__ = ["anneal"]

_NEVER: int = 2**60
_SPREAD = 0.2  # how far below the other an operation goes


def anneal(
    shop: Simulator, evaluations: int, start: np.ndarray | None = None, seed: int = 0
) -> Simulator:
    """Returns the episode with the best schedule found, played to its end.

    A move takes a pair of operations that follow each other on a machine along the critical path,
    and gives the later one the smaller rank. Better and equal solutions are kept, worse ones with a
    probability that falls during the search.

    Args:
        shop: an episode with the instance, options and trace; it stays as it is.
        evaluations: episodes to play.
        start: (J, L) int64, start times of a schedule to begin from; None takes the best of four
            rules.
        seed: of the moves.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 1), (1, 4)]]))
        >>> anneal(shop, 50).makespan
        7
    """
    search = _Search(shop, Dice(seed * GOLDEN + 0x1234567887654321))
    used = search.begin(start)
    now = search.play()
    search.look()
    # Chosen on random shops of 10x10, 15x15 and 20x5: blocking wants more heat.
    hot = (0.01 if shop.options.mode == "jssp" else 0.1) * search.best
    cold = 0.1 * hot
    while used < evaluations and search.best > shop.first_bound:
        heat = hot * math.pow(cold / hot, used / evaluations)
        old = search.solution()
        search.change()
        span = search.play()
        if span <= now or (span < _NEVER and search.dice.unit() < math.exp((now - span) / heat)):
            now = span
            search.look()
            search.keep(span)
        else:
            search.rank, search.reserved = old
        used += 1
    search.rank, search.reserved = search.kept
    search.play()
    search.shop.options = shop.options
    return search.shop


class _Search:
    """A solution, the best one so far, and the episode that was played last.

    Moves look at the episode of the solution that was accepted last: `look` reads it.
    """

    def __init__(self, shop: Simulator, dice: Dice) -> None:
        options = replace(shop.options, auto_trivial=False)
        self.root = Simulator(shop.instance, shop.cuts or shop.trace, options, scale=shop.scale)
        self.shop, self.dice = self.root, dice
        self.longest: int = shop.instance.times.shape[1]
        self.cells = shop.num_jobs * self.longest
        self.waits = options.allow_wait
        self.rank, self.reserved = [0.0] * self.cells, [False] * self.cells
        self.before: list[int] = []  # operation before on the machine
        self.pairs: list[tuple[int, int]] = []
        self.best, self.kept = _NEVER, self.solution()

    def solution(self) -> tuple[list[float], list[bool]]:
        """Returns a copy of rank and reserved."""
        return list(self.rank), list(self.reserved)

    def keep(self, span: int) -> None:
        """Makes this the best solution if it is better."""
        if span < self.best:
            self.best, self.kept = span, self.solution()

    def begin(self, start: np.ndarray | None) -> int:
        """Takes a given schedule, or the best of four rules; returns the number of episodes."""
        if start is not None:
            whole = float(max(1, self.root.first_bound))
            self.rank = [s / whole for s in start.ravel().tolist()]
            self.reserved = [self.waits] * self.cells
            self.keep(self.play())
        else:
            for rule in range(4):
                self.rank = self.rule_ranks(rule)
                self.keep(self.play())
        self.rank, self.reserved = list(self.kept[0]), list(self.kept[1])
        return 1 if start is not None else 4

    def rule_ranks(self, rule: int) -> list[float]:
        """Returns ranks by a rule whose keys belong to operations."""
        rank = [0.0] * self.cells
        for j, times in enumerate(self.root.times):
            rest, total = sum(times), max(1, sum(times))
            for i, p in enumerate(times):
                rem = max(1, rest)
                rank[j * self.longest + i] = (
                    p / rem,
                    1 - rem / total * 0.5,
                    p / total * 4,
                    (total - rem + p) / (rem + total),
                )[rule]
                rest -= p
        return rank

    def play(self) -> int:
        """Plays an episode; returns its makespan, a very large number for a deadlock."""
        shop = self.shop = self.root.clone()
        while not shop.over:
            machines = shop.open_machines()
            jobs = shop.candidates(machines[0])
            ranks = [self.rank[self.place(j)] for j in jobs]
            if self.waits and self.should_wait(machines[0], min(ranks)) and self.can_wait(machines):
                shop.decline(machines[0])
            else:
                shop.play(jobs[ranks.index(min(ranks))])
        return shop.time if shop.done else _NEVER

    def look(self) -> None:
        """Reads from the episode just played what the next moves choose from."""
        self.before = [-1] * self.cells
        for started in self.shop.order:
            last = -1
            for j, i in started:
                place = j * self.longest + i
                self.before[place], last = last, place
        self.pairs = self.critical()

    def place(self, j: int) -> int:
        """Returns the place of a job's next operation."""
        return j * self.longest + self.shop.next_op[j]

    def should_wait(self, k: int, rank: float) -> bool:
        """Whether a reserved operation that is about to come to a machine goes before `rank`."""
        shop = self.shop
        return any(
            shop.status[j] == Status.PROC
            and shop.next_machine(j) == k
            and self.reserved[self.place(j)]
            and self.rank[self.place(j)] < rank
            for j in range(shop.num_jobs)
        )

    def can_wait(self, machines: list[int]) -> bool:
        """Whether something happens if the first open machine waits."""
        others_decide = self.shop.options.focus and len(machines) > 1
        return others_decide or self.shop.next_event() is not None

    def change(self) -> None:
        """Makes a small change of the solution."""
        pairs, dice = self.pairs, self.dice
        if pairs and dice.unit() < 0.9:
            first, second = pairs[dice.below(len(pairs))]
            self.rank[second] = self.rank[first] - _SPREAD * dice.unit()
            if self.waits:
                self.reserved[second] = dice.unit() < 0.7
            return
        o = dice.below(self.cells)
        u = self.before[o]
        if u < 0:
            return
        if self.waits and dice.next() & 1:
            self.reserved[o] = not self.reserved[o]
        else:
            self.rank[o], self.rank[u] = self.rank[u], self.rank[o]

    def critical(self) -> list[tuple[int, int]]:
        """Returns neighbours on machines along the way back from the last operation."""
        start, end, depart = map(self.flat, (self.shop.start, self.shop.end, self.shop.depart))
        lengths = [len(times) for times in self.root.times]
        lasts = [j * self.longest + length - 1 for j, length in enumerate(lengths)]
        o = max(lasts, key=end.__getitem__)  # the first of equals
        if end[o] < 0:
            return []
        pairs: list[tuple[int, int]] = []
        for _ in range(2 * self.cells):
            u = self.before[o]
            has_job_before = o % self.longest > 0
            by_job = has_job_before and end[o - 1] == start[o]
            if u >= 0 and u // self.longest != o // self.longest:
                by_machine = depart[u] == start[o]
                if by_machine or not by_job:
                    pairs.append((u, o))
                if by_job and (not by_machine or self.dice.next() & 1):
                    o -= 1
                else:
                    is_last = u % self.longest + 1 == lengths[u // self.longest]
                    stays = not (is_last or self.root.options.mode == "jssp")
                    o = u + 1 if stays and end[u] != depart[u] else u
            elif has_job_before:
                o -= 1
            else:
                break
            if len(pairs) >= self.cells:
                break
        return pairs

    def flat(self, rows: list[list[int]]) -> list[int]:
        """Returns numbers of operations by place, -1 where there is none."""
        return [v for row in rows for v in [*row, *[-1] * (self.longest - len(row))]]
