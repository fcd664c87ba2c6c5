"""`amcc`: a greedy heuristic on the alternative graph, for shops with and without buffers."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import Mode, Schedule

__all__ = ["amcc"]

MAX_NODES = 5000
MAX_UNDO = 50
Op = tuple[int, int]


def amcc(
    instance: JobShopInstance,
    *,
    mode: Mode = "bws",
    fallback: Schedule | None = None,
    backtracks: int = 1000,
) -> Schedule | None:
    """Avoids, again and again, the order of two operations that would make the longest path.

    For each two jobs on a machine, either one goes first: a pair of arcs, of which one must be
    chosen. AMCC ("avoid maximum current completion time") finds the arc, of all open pairs, that
    would close the longest path from start to end, and chooses its mate; then every arc whose mate
    would close a cycle of positive length. Of two such arcs it takes the one with the shorter mate,
    then the one of the lower operations.

    Args:
        instance: the job shop, with at most 5,000 operations (memory grows with their square).
        mode: "bws" or "jssp".
        fallback: what to return when the choices lead into a dead end, which only "bws" has.
        backtracks: how many choices may be taken back on dead ends; 0 is the published heuristic,
            which without buffers seldom ends with a schedule. At most the last 50 choices can.

    Returns:
        A schedule in which every operation starts as early as the chosen orders allow, or
        `fallback`.

    Raises:
        ConfigError: for another mode or a larger instance.

    Example:
        >>> shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> amcc(shop).makespan
        5

    Reference: Mascis and Pacciarelli, European Journal of Operational Research 143(3), 2002.
    """
    if mode not in ("bws", "jssp"):
        raise ConfigError(f'amcc has no mode "{mode}".{did_you_mean(mode, ("bws", "jssp"))}')
    if instance.num_operations > MAX_NODES:
        raise ConfigError(
            f"{instance.name} has {instance.num_operations} operations; amcc takes at most "
            f"{MAX_NODES}. Use a priority rule."
        )
    graph = _Graph(instance, mode)
    pairs = _Pairs(instance, mode, graph)
    undo: deque[tuple[np.ndarray, np.ndarray, int, int]] = deque(maxlen=MAX_UNDO)
    possible = pairs.choose_implied(graph)
    while possible and pairs.open.any():
        pair, side = pairs.greedy(graph)
        if backtracks > 0:
            undo.append((graph.longest.copy(), pairs.open.copy(), pair, 1 - side))
        possible = pairs.choose(graph, pair, side)
        while not possible and undo and backtracks > 0:
            backtracks -= 1
            graph.longest, pairs.open, pair, side = undo.pop()
            possible = pairs.choose(graph, pair, side)
    if not possible:
        return fallback
    return _schedule(instance, mode, graph)


class _Graph:
    """Longest paths between all nodes: one per operation, then the start, then the end.

    Times are float64, which is exact up to 2**53, so that -inf can mean "no path".
    """

    def __init__(self, instance: JobShopInstance, mode: Mode) -> None:
        self.jobs = instance.jobs()
        ops = [(j, i) for j, job in enumerate(self.jobs) for i in range(len(job))]
        self.node: dict[Op, int] = {op: n for n, op in enumerate(ops)}
        self.source, self.sink = len(ops), len(ops) + 1
        self.longest = np.full((len(ops) + 2,) * 2, -np.inf)
        np.fill_diagonal(self.longest, 0)
        for job in range(len(self.jobs)):
            self._add_job(job)

    def _add_job(self, j: int) -> None:
        done = np.cumsum([0, *(p for _, p in self.jobs[j])])
        first = self.node[j, 0]
        size = len(self.jobs[j])
        block = np.where(np.tri(size, dtype=bool).T, done[None, :-1] - done[:-1, None], -np.inf)
        self.longest[first : first + size, first : first + size] = block
        self.longest[first : first + size, self.sink] = done[-1] - done[:-1]
        self.longest[self.source, first : first + size] = done[:-1]
        through = self.longest[self.source, self.sink]
        self.longest[self.source, self.sink] = max(through, done[-1])

    def add(self, tail: int, head: int, weight: int) -> None:
        """Adds an arc that closes no cycle of positive length; a path then uses it once at most."""
        before = np.flatnonzero(self.longest[:, tail] > -np.inf)
        after = np.flatnonzero(self.longest[head] > -np.inf)
        through = self.longest[before, tail][:, None] + weight + self.longest[head, after]
        block = np.ix_(before, after)
        self.longest[block] = np.maximum(self.longest[block], through)


@dataclass
class _Pairs:
    """The pairs of arcs, (P, 2, 3) int64: tail, head, weight of each of the two arcs."""

    arcs: np.ndarray
    open: np.ndarray

    def __init__(self, instance: JobShopInstance, mode: Mode, graph: _Graph) -> None:
        arcs = []
        for row in _stays(graph.jobs, mode).values():
            leave = [_leave(graph, mode, stay) for stay in row]
            enter = [graph.node[j, first] for j, first, _ in row]
            for u, v in itertools.combinations(range(len(row)), 2):
                if row[u][0] != row[v][0]:
                    (a, p), (b, q) = leave[u], leave[v]
                    arcs.append([[a, enter[v], p], [b, enter[u], q]])
        self.arcs = np.array(arcs, np.int64).reshape(-1, 2, 3)
        self.open = np.ones(len(self.arcs), bool)

    def choose(self, graph: _Graph, pair: int, side: int) -> bool:
        """Chooses one arc of a pair, and what it implies; False on a dead end."""
        self._add(graph, pair, side)
        return self.choose_implied(graph)

    def _add(self, graph: _Graph, pair: int, side: int) -> None:
        self.open[pair] = False
        graph.add(*self.arcs[pair, side].tolist())

    def choose_implied(self, graph: _Graph) -> bool:
        """Chooses arcs whose mates would close a positive cycle; False on a dead end."""
        while True:
            at = np.flatnonzero(self.open)
            tail, head, weight = np.moveaxis(self.arcs[at], 2, 0)
            closes = graph.longest[head, tail] + weight > 0
            if closes.all(1).any():
                return False
            forced = closes.any(1)
            if not forced.any():
                return True
            n = int(forced.argmax())
            self._add(graph, int(at[n]), int(closes[n, 0]))

    def greedy(self, graph: _Graph) -> tuple[int, int]:
        """Returns the pair that has the arc with the longest path, and the other side."""
        at = np.flatnonzero(self.open)
        tail, head, weight = np.moveaxis(self.arcs[at], 2, 0)
        length = graph.longest[graph.source, tail] + weight + graph.longest[head, graph.sink]
        order = np.lexsort((head.ravel(), tail.ravel(), length[:, ::-1].ravel(), -length.ravel()))
        pair, side = divmod(int(order[0]), 2)
        return int(at[pair]), 1 - side


def _stays(jobs: list[list[Op]], mode: Mode) -> dict[int, list[tuple[int, int, int]]]:
    """Returns, per machine, (job, first operation, last operation) of each stay on it."""
    stays: dict[int, list[tuple[int, int, int]]] = {}
    for j, job in enumerate(jobs):
        for i, (k, _) in enumerate(job):
            row = stays.setdefault(k, [])
            if mode == "bws" and i and job[i - 1][0] == k:
                row[-1] = (j, row[-1][1], i)
            else:
                row.append((j, i, i))
    return stays


def _leave(graph: _Graph, mode: Mode, stay: tuple[int, int, int]) -> tuple[int, int]:
    """Returns the node and the time after it when a stay ends."""
    j, _, last = stay
    if mode == "bws" and last + 1 < len(graph.jobs[j]):
        return graph.node[j, last + 1], 0
    return graph.node[j, last], graph.jobs[j][last][1]


def _schedule(instance: JobShopInstance, mode: Mode, graph: _Graph) -> Schedule:
    start = graph.longest[graph.source].astype(np.int64, copy=True)[:-2]
    rows = []
    for (j, i), n in graph.node.items():
        k, p = graph.jobs[j][i]
        end = int(start[n]) + p
        inside = mode == "bws" and i + 1 < len(graph.jobs[j])
        rows.append((j, i, k, int(start[n]), end, int(start[n + 1]) if inside else end))
    ops = np.array(rows, np.int64)
    return Schedule(instance.name, mode, int(ops[:, 4].max()), ops)
