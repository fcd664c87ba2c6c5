"""What the machine can do, and what one call takes: bandwidth, clocks, peak memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "Call",
    "Times",
    "bandwidth",
    "clock_of",
    "measure",
    "peak_memory",
    "per_call",
    "version",
]


@dataclass(frozen=True)
class Call:
    """Something to time."""

    run: Callable[..., Any]
    """The timed part; gets what `before` returned, if there is a `before`."""
    before: Callable[[], Any] | None = None
    """Not timed, before every run: the forward pass of a backward pass, for instance."""
    finish: Callable[[Any], Any] | None = None
    """Not timed: brings a result into the form of ours before it is compared."""

    def timed(self, clock: Callable[[], float]) -> tuple[Any, float]:
        """Runs all three parts; returns the result and the milliseconds of the timed part."""
        given = () if self.before is None else (self.before(),)
        start = clock()
        result = self.run(*given)
        taken = (clock() - start) * 1e3
        return (result if self.finish is None else self.finish(result)), taken


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call."""

    median: float
    least: float


def clock_of(wall: bool) -> Callable[[], float]:
    """Returns the clock for several threads (wall time), or the CPU time of this one."""
    return time.perf_counter if wall else time.thread_time


def measure(
    calls: Mapping[str, Call],
    first: Mapping[str, float],
    *,
    wall: bool,
    repeats: int = 7,
    over: float = 2.0,
    least: int = 1,
) -> dict[str, Times]:
    """Times all calls in turn. The first call is ours; those far behind take fewer turns.

    Every call takes `least` turns; only calls within `over` times the two fastest take all.
    Slowness is judged anew at every turn by the fastest run so far, since a library may prepare
    things in its first.

    Args:
        calls: by name.
        first: milliseconds of a first run of each, which does not count.
        wall: wall time (several threads) instead of this thread's CPU time.
        repeats: turns; three times as many for calls under 1 ms.
        over: how many times slower than the two fastest a call may be and still take all turns.
        least: turns of every call.
    """
    clock = clock_of(wall)

    ours = next(iter(calls))
    best = dict(first)
    turns = repeats if min(best.values()) >= 1 else 3 * repeats
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns):
        pace = sorted(best.values())[:2][-1]
        for name, call in calls.items():
            if turn < least or name == ours or best[name] <= over * pace:
                taken[name].append(call.timed(clock)[1])
                best[name] = min(best[name], taken[name][-1])
    return {name: Times(statistics.median(t), min(t)) for name, t in taken.items()}


def per_call(run: Callable[[], Any], calls: int = 500, batches: int = 15) -> float:
    """Returns microseconds per call: the median of `batches` times `calls` calls in a row."""
    found = []
    for _ in range(batches):
        start = time.thread_time()
        for _ in range(calls):
            run()
        found.append((time.thread_time() - start) / calls * 1e6)
    return statistics.median(found)


def bandwidth(quick: bool, wall: bool) -> dict[str, float]:
    """Returns GB/s of copy, triad and read on arrays far larger than the caches.

    Bytes are those that the program names (a written line is counted once, without the read that
    the hardware makes first), as for the operators.
    """
    count = 1 << (23 if quick else 26)
    a, b, c = torch.zeros(count), torch.ones(count), torch.ones(count)
    jobs: dict[str, tuple[int, Callable[[], Any]]] = {
        "copy": (8, lambda: a.copy_(b)),
        "triad": (12, lambda: torch.add(b, c, alpha=3.0, out=a)),
        "read": (4, b.sum),
    }
    clock = clock_of(wall)
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(5):
        for name, (_, run) in jobs.items():
            start = clock()
            run()
            best[name] = min(best[name], clock() - start)
    return {name: round(jobs[name][0] * count / best[name] / 1e9, 2) for name in jobs}


def peak_memory(call: Call) -> float | None:
    """Returns the most MB (2^20 bytes) that one call adds to the process, its result included.

    Linux counts the pages: free heap is given back first, so that memory which is used again counts
    too. Elsewhere, or where the counter cannot be reset, None.
    """
    given = () if call.before is None else (call.before(),)
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
        kept = call.run(*given)  # alive until the peak is read
        peak = _status("VmHWM")
        del kept
    except (OSError, AttributeError):
        return None
    return round(max(peak - before, 0) / 1024, 2)


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise OSError(f"no {field} in /proc/self/status")
    return int(found[1])


def version(package: str) -> str | None:
    """Returns the version of an installed package, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
