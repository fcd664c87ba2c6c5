"""The text formats of job shops: each reader turns lines into jobs and says what is wrong where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from gnnlab.tasks.dispatch.instance import (
    MAX_OPERATIONS,
    InstanceError,
    JobShopInstance,
    one_based_hint,
)

__all__ = ["TEXT_READERS", "TEXT_WRITERS", "Job", "Line", "Rules", "build", "lines_of"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LONGEST = 18  # digits: what fits in 64 bits whatever the digits are
_END = "-1"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a reader lets pass."""

    strict: bool = True
    """Whether every job visits every machine exactly once, and nothing follows the last job."""
    machine_base: int = 0
    """The first machine number, in formats that leave it open."""
    time_scale: Fraction | None = None
    """Times are multiplied by it and must then be integers; none takes integers as they are."""


@dataclass(frozen=True)
class Line:
    """A line that holds data: its place for messages, and its words."""

    place: str
    words: list[str]

    def error(self, text: str) -> InstanceError:
        """Returns the error that begins with the place of this line."""
        return InstanceError(f"{self.place}: {text}")

    def integer(self, word: str) -> int:
        """Returns a word as an integer."""
        if not _INTEGER.fullmatch(word):
            raise self.error(f"{_short(word)} is not an integer.")
        if len(word) > _LONGEST:
            raise self.error(f"{_short(word)} is too large.")
        return int(word)

    def time(self, word: str, rules: Rules) -> int:
        """Returns a word as a processing time, scaled."""
        if rules.time_scale is None:
            if not _INTEGER.fullmatch(word) and _NUMBER.fullmatch(word):
                raise self.error(f"{_short(word)} is not an integer. Pass time_scale= to scale it.")
            return self.integer(word)
        if not _NUMBER.fullmatch(word):
            raise self.error(f"{_short(word)} is not an integer, nor any number.")
        if len(word) > 2 * _LONGEST:
            raise self.error(f"{_short(word)} has too many digits.")
        value = Fraction(word) * rules.time_scale
        if value.denominator != 1:
            raise self.error(f"{_short(word)} times {rules.time_scale} is not an integer.")
        if abs(value) >= 10**_LONGEST:
            raise self.error(f"{_short(word)} is too large.")
        return int(value)

    def pairs(self, words: list[str], rules: Rules) -> Job:
        """Returns words `machine time machine time ...` as a job."""
        if len(words) % 2:
            raise self.error(f"odd number of values: {len(words)}, expected machine and time.")
        return Job(
            self,
            [self.integer(w) - rules.machine_base for w in words[::2]],
            [self.time(w, rules) for w in words[1::2]],
        )


@dataclass
class Job:
    """A job as read, not checked yet; `line` is where it stands."""

    line: Line
    machines: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


def lines_of(text: str, where: str) -> list[Line]:
    """Splits a text into its lines of data; comments and empty lines are left out.

    Args:
        text: the whole text.
        where: the file, for messages.

    Raises:
        InstanceError: when nothing is left.
    """
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            found.append(Line(f"{where}, line {number}", words))
    if not found:
        raise InstanceError(f"{where}: no data: it is empty or holds comments only.")
    return found


def header(line: Line, more: int = 0) -> tuple[int, int]:
    """Returns the number of jobs and of machines, with which a file begins.

    Args:
        line: the line.
        more: how many other words may follow.

    Raises:
        InstanceError: for anything but two integers from 1, or too many operations.
    """
    words = line.words
    good = 2 <= len(words) <= 2 + more and all(_INTEGER.fullmatch(w) for w in words[:2])
    if not good or min(line.integer(w) for w in words[:2]) < 1:
        raise line.error(
            f"header: expected the numbers of jobs and machines, both 1 or more, "
            f"found {_short(' '.join(words[:8]))}."
        )
    n, m = int(words[0]), int(words[1])
    if n * m > MAX_OPERATIONS:
        raise line.error(f"too large: {n} jobs of {m} operations; at most {MAX_OPERATIONS} fit.")
    return n, m


def build(
    name: str, jobs: list[Job], num_machines: int, *, strict: bool = False, base: int = 0
) -> JobShopInstance:
    """Checks jobs as read and makes the instance.

    Args:
        name: its name.
        jobs: machines from 0 and times; not empty.
        num_machines: M.
        strict: whether each job must visit each of the M machines exactly once.
        base: what was subtracted from the machine numbers of the file.

    Raises:
        InstanceError: naming the place.
    """
    for job in jobs:
        if strict and len(job.machines) != num_machines:
            raise job.line.error(
                f"expected {num_machines} operations, found {len(job.machines)}. "
                "Pass strict=False for jobs of any length."
            )
        wrong = [k for k in job.machines if not 0 <= k < num_machines]
        if wrong:
            used = np.array([k for other in jobs for k in other.machines])
            raise job.line.error(
                f"machine index out of range: {wrong[0] + base} is not in "
                f"{base}..{num_machines - 1 + base}."
                f"{one_based_hint(used, num_machines) if base == 0 else ''}"
            )
        if min(job.times, default=0) < 0:
            raise job.line.error(f"negative time {min(job.times)}.")
        if strict and len(set(job.machines)) < len(job.machines):
            twice = next(k for i, k in enumerate(job.machines) if k in job.machines[:i])
            raise job.line.error(
                f"duplicate machine {twice + base}. Pass strict=False for jobs that come back."
            )
    pairs = [list(zip(job.machines, job.times, strict=True)) for job in jobs]
    try:
        return JobShopInstance.from_jobs(pairs, num_machines, name)
    except InstanceError as error:
        raise jobs[0].line.error(str(error)) from None


def read_standard(lines: list[Line], name: str, rules: Rules) -> list[JobShopInstance]:
    """Reads `n m` and n lines of machine and time pairs."""
    n, m = header(lines[0])
    rows = _job_lines(lines, n, rules)
    if all(row.words[-2:] == [_END, _END] for row in rows):
        raise rows[0].error(
            'machine index out of range: -1. Jobs that end in -1 -1 need format="dct".'
        )
    jobs = [row.pairs(row.words, rules) for row in rows]
    return [build(name, jobs, m, strict=rules.strict, base=rules.machine_base)]


def read_dct(lines: list[Line], name: str, rules: Rules) -> list[JobShopInstance]:
    """Reads `n m` and n jobs of any length, each a line of pairs closed by `-1 -1`."""
    n, m = header(lines[0])
    jobs = []
    for row in _job_lines(lines, n, rules):
        if row.words[-2:] != [_END, _END]:
            raise row.error(f"the job ends in {_short(' '.join(row.words[-2:]))}, not in -1 -1.")
        job = row.pairs(row.words[:-2], rules)
        if not job.machines:
            raise row.error("the job has no operation before -1 -1.")
        jobs.append(job)
    return [build(name, jobs, m, base=rules.machine_base)]


def read_fjs(lines: list[Line], name: str, rules: Rules) -> list[JobShopInstance]:
    """Reads flexible job shops in which every operation has a single machine, counted from 1."""
    if len(lines[0].words) == 3 and not _NUMBER.fullmatch(lines[0].words[2]):
        raise lines[0].error(f"header: {_short(lines[0].words[2])} is no average of alternatives.")
    n, m = header(lines[0], more=1)
    jobs = []
    for row in _job_lines(lines, n, rules):
        job, words = Job(row), iter(row.words)
        try:
            for _ in range(row.integer(next(words))):
                if (alternatives := row.integer(next(words))) != 1:
                    raise row.error(
                        f"an operation has {alternatives} machines to choose from: flexible job "
                        "shops are not supported yet."
                    )
                job.machines.append(row.integer(next(words)) - 1)
                job.times.append(row.time(next(words), rules))
        except StopIteration:
            raise row.error(
                f"expected {row.words[0]} operations, found {len(job.times)}."
            ) from None
        if left := list(words):
            raise row.error(f"{len(left)} values after operation {len(job.times)}.")
        if not job.machines:
            raise row.error("the job has no operation.")
        jobs.append(job)
    return [build(name, jobs, m, base=1)]


def read_taillard(lines: list[Line], name: str, rules: Rules) -> list[JobShopInstance]:
    """Reads one instance or several: sizes, `Times` and n lines, `Machines` and n lines from 1."""
    blocks: list[tuple[list[Job], int]] = []
    left = iter(lines)
    first = next(left, None)
    while first is not None:
        while not _INTEGER.fullmatch(first.words[0]):
            after = next(left, None)
            if after is None:
                raise first.error("header: no line with the numbers of jobs and machines follows.")
            first = after
        n, m = header(first, more=4)
        times = _block(left, "Times", n, first)
        machines = _block(left, "Machines", n, times[-1])
        jobs = []
        for upper, row in zip(times, machines, strict=True):
            if len(upper.words) != len(row.words):
                raise row.error(
                    f"expected {len(upper.words)} operations, found {len(row.words)}: times and "
                    "machines differ."
                )
            if rules.strict and len(upper.words) != m:
                raise upper.error(f"expected {m} operations, found {len(upper.words)}.")
            jobs.append(
                Job(
                    row,
                    [row.integer(w) - 1 for w in row.words],
                    [_not_negative(upper, w, rules) for w in upper.words],
                )
            )
        blocks.append((jobs, m))
        first = next(left, None)
        if first is not None and rules.strict and _INTEGER.fullmatch(first.words[0]):
            raise first.error(f"unexpected data after job {n}.")
    names = [name] if len(blocks) == 1 else [f"{name}-{i}" for i in range(len(blocks))]
    return [
        build(title, jobs, m, strict=rules.strict, base=1)
        for title, (jobs, m) in zip(names, blocks, strict=True)
    ]


def _not_negative(line: Line, word: str, rules: Rules) -> int:
    time = line.time(word, rules)
    if time < 0:
        raise line.error(f"negative time {time}.")
    return time


def _block(left: Iterator[Line], title: str, n: int, first: Line) -> list[Line]:
    """Returns the n lines below a title, from which `left` goes on."""
    line = next(left, None)
    if line is None or title.lower() not in " ".join(line.words).lower():
        raise (line or first).error(f'expected the line "{title}" here or below.')
    found: list[Line] = []
    for _ in range(n):
        row = next(left, None)
        if row is None or row.words[0][0] not in "+-.0123456789":
            raise (row or (found or [line])[-1]).error(
                f'expected {n} job lines, found {len(found)} below "{title}".'
            )
        found.append(row)
    return found


def _job_lines(lines: list[Line], n: int, rules: Rules) -> list[Line]:
    rows = lines[1 : n + 1]
    if len(rows) < n:
        raise lines[-1].error(f"expected {n} job lines, found {len(rows)}.")
    if len(lines) > n + 1 and rules.strict:
        raise lines[n + 1].error(
            f"unexpected data after job {n}: {_short(' '.join(lines[n + 1].words[:8]))}."
        )
    return rows


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def write_standard(instance: JobShopInstance) -> str:
    """Returns `n m` and one line of pairs per job, machines from 0."""
    rows = [" ".join(f"{k} {p}" for k, p in job) for job in instance.jobs()]
    return "\n".join([f"{instance.num_jobs} {instance.num_machines}", *rows]) + "\n"


def write_dct(instance: JobShopInstance) -> str:
    """Returns the standard form with -1 -1 at the end of each job."""
    first, *rows = write_standard(instance).splitlines()
    return "\n".join([first, *(f"{row} {_END} {_END}" for row in rows)]) + "\n"


def write_taillard(instance: JobShopInstance) -> str:
    """Returns the table of times and that of machines, from 1."""
    jobs = instance.jobs()
    return "\n".join(
        [
            "Nb of jobs, Nb of Machines",
            f"{instance.num_jobs} {instance.num_machines}",
            "Times",
            *(" ".join(str(p) for _, p in job) for job in jobs),
            "Machines",
            *(" ".join(str(k + 1) for k, _ in job) for job in jobs),
            "",
        ]
    )


def write_fjs(instance: JobShopInstance) -> str:
    """Returns a flexible job shop with one machine per operation, from 1."""
    rows = [
        " ".join([str(len(job)), *(f"1 {k + 1} {p}" for k, p in job)]) for job in instance.jobs()
    ]
    return "\n".join([f"{instance.num_jobs} {instance.num_machines} 1", *rows]) + "\n"


TextReader = Callable[[list[Line], str, Rules], list[JobShopInstance]]
TEXT_READERS: dict[str, TextReader] = {
    "standard": read_standard,
    "taillard": read_taillard,
    "dct": read_dct,
    "fjs": read_fjs,
}
TEXT_WRITERS: dict[str, Callable[[JobShopInstance], str]] = {
    "standard": write_standard,
    "taillard": write_taillard,
    "dct": write_dct,
    "fjs": write_fjs,
}
