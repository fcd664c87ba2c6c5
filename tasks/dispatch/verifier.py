"""`verify`: whether a schedule keeps all rules of its shop. Shares no code with any simulator."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gnnlab.errors import ConfigError, DataError, did_you_mean
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import MODES, Mode, Schedule
from gnnlab.tasks.dispatch.trace import Cuts, Trace

__all__ = ["Violation", "verify"]

Code = Literal[
    "MISSING", "DUPLICATE", "MACHINE", "NEGATIVE", "DOWN_START", "END",
    "PRECEDENCE", "DEPART", "OVERLAP", "SWAP_ORDER", "MAKESPAN",
]  # fmt: skip
MAX_WINDOWS = 5_000_000
MAX_SEARCH = 10_000


@dataclass(frozen=True)
class Violation:
    """One rule that a schedule breaks.

    Args:
        code: MISSING, DUPLICATE, MACHINE, NEGATIVE, DOWN_START, END, PRECEDENCE, DEPART, OVERLAP,
            SWAP_ORDER or MAKESPAN.
        job: the job it is about, None for the whole schedule.
        op: the operation of that job.
        machine: the machine it is about.
        text: a sentence with the values.
    """

    code: Code
    job: int | None
    op: int | None
    machine: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class _Row(NamedTuple):
    job: int
    op: int
    machine: int
    start: int
    end: int
    depart: int


class _Stay(NamedTuple):
    """The time [start, depart) that a job is on a machine, from its operation `op` on."""

    machine: int
    start: int
    depart: int
    job: int
    op: int


class _Chain(NamedTuple):
    """The stays that a job begins at one instant, and the machine it comes from at it."""

    job: int
    op: int
    origin: int | None
    machines: tuple[int, ...]
    rests: bool  # still on the last machine after the instant


Rows = dict[tuple[int, int], _Row]


def verify(
    instance: JobShopInstance,
    schedule: Schedule,
    mode: Mode | None = None,
    trace: Trace | None = None,
    *,
    cuts: Cuts | None = None,
    restart: bool = False,
    unload_when_down: bool = True,
) -> list[Violation]:
    """Returns every rule that a schedule breaks; an empty list means that it is valid.

    Operations of one job that follow one another on one machine are one stay when there are no
    buffers. A stay of no length may touch other stays, but not lie strictly inside one.

    Args:
        instance: the job shop.
        schedule: any table of operations.
        mode: "jssp", "bws" or "bns"; None takes the schedule's own.
        trace: when machines are down; None is never. `Cuts` may stand here too.
        cuts: interruptions of operations, in place of a trace.
        restart: whether work that an interruption cuts is lost.
        unload_when_down: whether a finished job may leave a machine that is down. False looks at
            the moves to another machine in "bws" and "bns"; the end of a job is no such move.

    Raises:
        ConfigError: for an unknown mode, or a trace together with cuts.
        DataError: when the schedule's times lie beyond 5,000,000 windows of the trace, or the
            cuts belong to an instance of another shape.

    Example:
        >>> shop = JobShopInstance.from_jobs([[(0, 3)]])
        >>> late = Schedule("late", "bws", 3, [[0, 0, 0, 1, 4, 4]])
        >>> print(verify(shop, late)[0])
        MAKESPAN: the stated makespan is 3, but the last operation ends at 4.
    """
    mode = schedule.mode if mode is None else mode
    if mode not in MODES:
        raise ConfigError(f'unknown mode "{mode}".{did_you_mean(mode, MODES)}')
    if isinstance(trace, Cuts) and cuts is None:
        trace, cuts = None, trace
    if cuts is not None and trace is not None:
        raise ConfigError("give a trace of shutdowns or cuts of operations, not both.")
    if cuts is not None and cuts.after.shape != instance.times.shape:
        raise DataError(
            f"the cuts are {cuts.after.shape}, but {instance.name} is {instance.times.shape}."
        )
    found: list[Violation] = []
    rows = _rows(instance, schedule, found)
    calendars = _calendars(rows.values(), trace)
    for row in rows.values():
        _check_times(row, instance, calendars[row.machine], cuts, restart, found)
    checked = calendars if not unload_when_down and mode != "jssp" else None
    _check_jobs(rows, instance, mode, checked, found)
    stays = _stays(rows, mode)
    _check_overlap(stays, found)
    if mode == "bns":
        _check_swaps(stays, instance, found)
    last = max((row.end for row in rows.values()), default=0)
    if schedule.makespan != last:
        text = f"the stated makespan is {schedule.makespan}, but the last operation ends at {last}."
        found.append(Violation("MAKESPAN", None, None, None, text))
    return found


def _rows(instance: JobShopInstance, schedule: Schedule, found: list[Violation]) -> Rows:
    """Returns the first row of each operation, on the machine that the instance says."""
    jobs = instance.jobs()
    rows: Rows = {}
    for j, i, k, *times in schedule.ops.tolist():
        place = f"job {j}, operation {i}"
        if not (0 <= j < len(jobs) and 0 <= i < len(jobs[j])):
            found.append(Violation("MACHINE", j, i, k, f"{place}: there is no such operation."))
        elif (j, i) in rows:
            found.append(Violation("DUPLICATE", j, i, k, f"{place}: more than one row."))
        else:
            machine = jobs[j][i][0]
            rows[j, i] = _Row(j, i, machine, *times)
            if k != machine:
                text = f"{place}: on machine {k}, but needs machine {machine}."
                found.append(Violation("MACHINE", j, i, k, text))
    for j, job in enumerate(jobs):
        for i, (machine, _) in enumerate(job):
            if (j, i) not in rows:
                text = f"job {j}, operation {i}: no row."
                found.append(Violation("MISSING", j, i, machine, text))
    return dict(sorted(rows.items()))


class _Calendar:
    """The windows of one machine that begin up to a time."""

    def __init__(self, trace: Trace | None, machine: int, until: int) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        while trace is not None and (window := trace.window(machine, len(self.starts))):
            if window[0] > until:
                break
            if len(self.starts) == MAX_WINDOWS:
                raise DataError(
                    f"machine {machine}: the schedule reaches time {until}, beyond the first "
                    f"{MAX_WINDOWS} shutdowns of the trace. Check its times."
                )
            self.starts.append(window[0])
            self.ends.append(window[1])

    def down(self, time: int) -> tuple[int, int] | None:
        """Returns the window that holds a time."""
        w = bisect_right(self.starts, time) - 1
        return (self.starts[w], self.ends[w]) if w >= 0 and time < self.ends[w] else None

    def finish(self, start: int, work: int, restart: bool) -> int:
        """Returns when work that begins at `start` is done; late windows may be unknown."""
        if work == 0:
            return start
        window = self.down(start)
        start = window[1] if window else start
        end = start + work
        for w in range(bisect_right(self.ends, start), len(self.starts)):
            if self.starts[w] >= end:
                break
            end = self.ends[w] + work if restart else end + self.ends[w] - self.starts[w]
        return end


def _calendars(rows: Iterable[_Row], trace: Trace | None) -> dict[int, _Calendar]:
    until: dict[int, int] = defaultdict(int)
    for row in rows:
        until[row.machine] = max(until[row.machine], row.start, row.end, row.depart)
    return {k: _Calendar(trace, k, time) for k, time in until.items()}


def _check_times(
    row: _Row,
    instance: JobShopInstance,
    calendar: _Calendar,
    cuts: Cuts | None,
    restart: bool,
    found: list[Violation],
) -> None:
    """Checks an operation by itself: NEGATIVE, DOWN_START, END."""
    j, i, k, start, end, _ = row
    place = f"job {j}, operation {i}"
    if start < 0:
        found.append(Violation("NEGATIVE", j, i, k, f"{place}: starts at {start}, before 0."))
    if window := calendar.down(start):
        text = f"{place}: starts at {start}, while machine {k} is down {_window(window)}."
        found.append(Violation("DOWN_START", j, i, k, text))
    work = int(instance.times[j, i])
    if cuts is not None and cuts.after[j, i] >= 0:
        done = int(cuts.after[j, i]) if restart else 0
        right = start + done + int(cuts.duration[j, i]) + work
    else:
        right = calendar.finish(start, work, restart)
    if end != right:
        later = " or later" if calendar.starts and right > end else ""
        text = f"{place}: ends at {end}; from {start} on it ends at {right}{later}."
        found.append(Violation("END", j, i, k, text))


def _check_jobs(
    rows: Rows,
    instance: JobShopInstance,
    mode: Mode,
    calendars: dict[int, _Calendar] | None,
    found: list[Violation],
) -> None:
    """Checks what ties an operation to the next of its job: PRECEDENCE, DEPART."""
    lengths = instance.lengths.tolist()
    for (j, i), row in rows.items():
        k, place = row.machine, f"job {j}, operation {i}"
        after = rows.get((j, i + 1))
        if after is not None and after.start < row.end:
            text = (
                f"job {j}, operation {i + 1}: starts at {after.start}, before operation {i} "
                f"ends at {row.end}."
            )
            found.append(Violation("PRECEDENCE", j, i + 1, after.machine, text))
        right, why = row.end, "when it ends"
        if mode != "jssp" and i + 1 < lengths[j]:
            if after is None:
                continue
            right, why = after.start, "when the next operation starts"
        if row.depart != right:
            text = f"{place}: leaves at {row.depart}, but must leave at {right}, {why}."
            found.append(Violation("DEPART", j, i, k, text))
        if calendars is None or after is None or after.machine == k:
            continue
        if window := calendars[k].down(row.depart):
            text = f"{place}: leaves at {row.depart}, while machine {k} is down {_window(window)}."
            found.append(Violation("DEPART", j, i, k, text))


def _stays(rows: Rows, mode: Mode) -> list[_Stay]:
    """Returns the stays, job by job in order of operations."""
    stays: list[_Stay] = []
    last = None
    for row in rows.values():
        joined = last is not None and last[:3] == (row.job, row.op - 1, row.machine)
        if joined and mode != "jssp":
            stays[-1] = stays[-1]._replace(depart=row.depart)
        else:
            stays.append(_Stay(row.machine, row.start, row.depart, row.job, row.op))
        last = row
    return stays


def _check_overlap(stays: list[_Stay], found: list[Violation]) -> None:
    # Sorted so, an empty stay comes before one that begins with it, and whatever still lasts
    # at a start has begun before it.
    longest: _Stay | None = None
    for stay in sorted(stays):
        if longest is None or stay.machine != longest.machine:
            longest = stay
            continue
        if longest.depart > stay.start:
            text = (
                f"job {stay.job}, operation {stay.op}: enters machine {stay.machine} at "
                f"{stay.start}, but job {longest.job} is there in "
                f"[{longest.start}, {longest.depart})."
            )
            found.append(Violation("OVERLAP", stay.job, stay.op, stay.machine, text))
        if stay.depart > longest.depart:
            longest = stay


def _check_swaps(stays: list[_Stay], instance: JobShopInstance, found: list[Violation]) -> None:
    """Checks that the moves of each instant can be made one after another."""
    instants: dict[int, list[_Chain]] = defaultdict(list)
    at = 0
    while at < len(stays):
        first, end = stays[at], at + 1
        while end < len(stays) and stays[end].job == first.job and stays[end].start == first.start:
            end += 1
        before = stays[at - 1] if at and stays[at - 1].job == first.job else None
        origin = before.machine if before is not None and before.depart == first.start else None
        machines = tuple(stay.machine for stay in stays[at:end])
        rests = stays[end - 1].depart > first.start
        instants[first.start].append(_Chain(first.job, first.op, origin, machines, rests))
        at = end
    for time, chains in sorted(instants.items()):
        if stuck := _stuck(chains):
            chain = stuck[0]
            text = (
                f"at {time} jobs {', '.join(str(c.job) for c in stuck)} wait for one another's "
                "machines, and swaps are not allowed."
            )
            found.append(Violation("SWAP_ORDER", chain.job, chain.op, chain.machines[0], text))


def _stuck(chains: list[_Chain]) -> list[_Chain]:
    """Returns the chains that no order of moves completes, [] if there is an order.

    Only stays of no length leave a choice; then orders are searched, at most 10,000 states.
    """
    seen: set[tuple[int, ...]] = set()
    states = [[0] * len(chains)]
    best: list[_Chain] = chains
    while states and len(seen) < MAX_SEARCH:
        steps = states.pop()
        _complete(chains, steps)
        left = [c for c, chain in enumerate(chains) if steps[c] < len(chain.machines)]
        if not left:
            return []
        best = min(best, [chains[c] for c in left], key=len)
        if tuple(steps) in seen:
            continue
        seen.add(tuple(steps))
        held = {_holds(chains[c], steps[c]) for c in left}
        # The last step of a chain is never taken here: it would complete the chain.
        states.extend(
            [*steps[:c], steps[c] + 1, *steps[c + 1 :]]
            for c in left
            if steps[c] + 1 < len(chains[c].machines) and chains[c].machines[steps[c]] not in held
        )
    return best


def _complete(chains: list[_Chain], steps: list[int]) -> None:
    """Completes every chain that can be completed at once: this never stands in another's way."""
    queue = deque(c for c, chain in enumerate(chains) if steps[c] < len(chain.machines))
    holder = {_holds(chains[c], steps[c]): c for c in queue}
    passes = Counter(k for c in queue for k in _passes(chains[c], steps[c]))
    waiting: dict[int | None, list[int]] = defaultdict(list)
    while queue:
        c = queue.popleft()
        chain = chains[c]
        ahead, own = chain.machines[steps[c] :], _passes(chain, steps[c])
        last = ahead[-1]
        blocked = next((k for k in ahead if holder.get(k, c) != c), None)
        if blocked is None and chain.rests and passes[last] > own.count(last):
            blocked = last
        if blocked is not None:
            waiting[blocked].append(c)
            continue
        passes.subtract(own)
        freed = {_holds(chain, steps[c]), *ahead}
        holder.pop(_holds(chain, steps[c]), None)
        steps[c] = len(chain.machines)
        for k in freed:
            queue.extend(waiting.pop(k, ()))


def _holds(chain: _Chain, step: int) -> int | None:
    return chain.machines[step - 1] if step else chain.origin


def _passes(chain: _Chain, step: int) -> tuple[int, ...]:
    """Returns the machines that a chain still passes without resting on them."""
    return chain.machines[step : len(chain.machines) - chain.rests]


def _window(window: tuple[int, int]) -> str:
    return f"in [{window[0]}, {window[1]})"
