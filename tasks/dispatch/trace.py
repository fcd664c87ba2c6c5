"""Shutdowns: when machines are down, drawn independently of what any schedule does.

A trace is part of the scenario, so that all rules and policies meet the same one. The windows of a
machine come from its own counter-based random stream (numpy's Philox with the key (seed, machine)):
two uniform numbers per window, the first for the up-time before it, the second for its duration.
They are therefore the same whatever the horizon, and are made only as far as they are asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from gnnlab.errors import ConfigError, DataError, did_you_mean
from gnnlab.tasks.dispatch.instance import JobShopInstance

__all__ = ["Cuts", "RandomTrace", "Shutdowns", "Trace", "WindowTrace"]

FORMAT = "gnnlab.trace/1"
NEVER = 2**60
Window = tuple[int, int]
_DURATIONS = ("uniform", "fixed", "geometric")
Duration = Literal["uniform", "fixed", "geometric"] | Callable[[float], int]


class Trace(Protocol):
    """What the simulator asks of a trace: the windows [a, b) of a machine, in order."""

    def window(self, machine: int, index: int) -> Window | None:
        """Returns the `index`-th window of a machine, None when there are no more."""
        ...


@dataclass(frozen=True)
class WindowTrace:
    """Given windows: a calendar of planned maintenance, or a trace read from a file.

    Args:
        windows: for each machine its windows [a, b), sorted, disjoint, with 0 <= a < b.
        seed: the seed they came from, if any.

    Raises:
        DataError: naming the machine and the window that is wrong.

    Example:
        >>> WindowTrace([[(2, 4)], []]).window(0, 0)
        (2, 4)
    """

    windows: Sequence[Sequence[Window]]
    seed: int | None = None

    def __post_init__(self) -> None:
        checked = []
        for k, machine in enumerate(self.windows):
            last = 0
            row = []
            for w, window in enumerate(machine):
                try:
                    a, b = (int(v) for v in window)
                    exact = [a, b] == list(window)
                except (TypeError, ValueError, OverflowError):
                    exact = False
                if not exact or a < last or b <= a or b >= NEVER:
                    raise DataError(
                        f"trace, machine {k}, window {w}: {window!r} is no window [a, b) of "
                        f"integers with {last} <= a < b."
                    )
                last = b
                row.append((a, b))
            checked.append(tuple(row))
        object.__setattr__(self, "windows", tuple(checked))

    def window(self, machine: int, index: int) -> Window | None:
        """Returns the `index`-th window of a machine, None when there are no more."""
        row = self.windows[machine] if machine < len(self.windows) else ()
        return row[index] if index < len(row) else None

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "format": FORMAT,
            "seed": self.seed,
            "windows": [list(map(list, m)) for m in self.windows],
        }

    @classmethod
    def load(cls, path: str | Path) -> WindowTrace:
        """Reads a trace file.

        Raises:
            DataError: naming the file and what is wrong in it.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:  # not text, not JSON, endless numbers
            raise DataError(f"{path}: not JSON: {error}.") from None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f'{path}: no trace: its "format" is not "{FORMAT}".')
        windows = value.get("windows")
        if not isinstance(windows, list) or not all(isinstance(m, list) for m in windows):
            raise DataError(f'{path}: "windows" is not a list of lists, one per machine.')
        seed = value.get("seed")
        if not (seed is None or (isinstance(seed, int) and not isinstance(seed, bool))):
            raise DataError(f'{path}: "seed" is {seed!r:.40}, neither an integer nor null.')
        try:
            return cls(windows, seed)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> Path:
        """Writes the trace as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json()) + "\n", encoding="utf-8")
        return path


@dataclass(frozen=True, kw_only=True)
class Shutdowns:
    """How machines fail: the options from which traces are drawn."""

    prob: float = 0.0
    """Probability that an up machine fails in a unit of time; 0 is never."""
    duration: Duration = "uniform"
    """uniform on low..high, fixed (low), geometric with mean (low + high) / 2, or a function of a
    uniform number in [0, 1) that returns 1 or more."""
    low: int = 10
    """Shortest repair."""
    high: int = 50
    """Longest repair."""

    def __post_init__(self) -> None:
        if not 0 <= self.prob < 1:
            raise ConfigError(f"shutdown probability is {self.prob}; it must be in [0, 1).")
        if not 1 <= self.low <= self.high:
            raise ConfigError(f"repairs take {self.low}..{self.high}; 1 <= low <= high must hold.")
        if not callable(self.duration) and self.duration not in _DURATIONS:
            raise ConfigError(
                f'unknown duration "{self.duration}".{did_you_mean(self.duration, _DURATIONS)}'
            )

    def draw(self, uniform: float) -> int:
        """Returns the duration that belongs to a uniform number in [0, 1)."""
        if callable(self.duration):
            return max(1, int(self.duration(uniform)))
        if self.duration == "fixed":
            return self.low
        if self.duration == "geometric":
            mean = (self.low + self.high) / 2
            return _geometric(uniform, 1 / mean)
        return self.low + int(uniform * (self.high - self.low + 1))


@dataclass
class RandomTrace:
    """Windows drawn from a seed, as far as they are asked for.

    Args:
        seed: 0 or more, below 2**63.
        shutdowns: probability and durations.

    Example:
        >>> trace = RandomTrace(7, Shutdowns(prob=0.01))
        >>> first = trace.window(0, 0)
        >>> first == RandomTrace(7, Shutdowns(prob=0.01)).window(0, 0)
        True
    """

    seed: int
    shutdowns: Shutdowns = Shutdowns()
    _streams: dict[int, tuple[np.random.Generator, list[Window]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"trace seed is {self.seed}; it must be in 0..2**63 - 1.")

    def window(self, machine: int, index: int) -> Window | None:
        """Returns the `index`-th window of a machine; None if it never fails."""
        if self.shutdowns.prob == 0:
            return None
        if machine not in self._streams:
            key = np.array([self.seed, machine], np.uint64)
            self._streams[machine] = (np.random.Generator(np.random.Philox(key=key)), [])
        stream, known = self._streams[machine]
        while len(known) <= index:
            up, long = stream.random(), stream.random()
            start = (known[-1][1] if known else 0) + _geometric(up, self.shutdowns.prob)
            known.append((start, start + self.shutdowns.draw(long)))
        return known[index]

    def until(self, num_machines: int, horizon: int) -> WindowTrace:
        """Returns the windows that begin before `horizon`, for a file or a picture."""
        rows = []
        for k in range(num_machines):
            row: list[Window] = []
            while (window := self.window(k, len(row))) is not None and window[0] < horizon:
                row.append(window)
            rows.append(row)
        return WindowTrace(rows, self.seed)


@dataclass(frozen=True)
class Cuts:
    """Interruptions of operations instead of machines: operation (j, i) is cut once, or never.

    Args:
        after: (J, L) int64, work done before the cut, in 0..p-1; -1 where there is none.
        duration: (J, L) int64, how long the repair takes.
    """

    after: np.ndarray
    duration: np.ndarray

    @classmethod
    def draw(
        cls, instance: JobShopInstance, prob: float, seed: int, shutdowns: Shutdowns | None = None
    ) -> Cuts:
        """Cuts each operation that takes time with probability `prob`; draws keyed by operation.

        Args:
            instance: the job shop.
            prob: probability of a cut, in [0, 1].
            seed: 0 or more.
            shutdowns: how long repairs take.
        """
        if not 0 <= prob <= 1:
            raise ConfigError(f"cut probability is {prob}; it must be in [0, 1].")
        if not 0 <= seed < 2**63:
            raise ConfigError(f"cut seed is {seed}; it must be in 0..2**63 - 1.")
        how = shutdowns or Shutdowns()
        after = np.full(instance.times.shape, -1, np.int64)
        duration = np.zeros_like(after)
        for j, length in enumerate(instance.lengths.tolist()):
            for i in range(length):
                key = np.array([seed, (j << 32) | i], np.uint64)
                draws = np.random.Generator(np.random.Philox(key=key)).random(3)
                p = int(instance.times[j, i])
                if p > 0 and draws[0] < prob:
                    after[j, i] = int(draws[1] * p)
                    duration[j, i] = how.draw(float(draws[2]))
        return cls(after, duration)

    def window(self, machine: int, index: int) -> Window | None:
        """Returns None: no machine fails by itself."""
        return None


def _geometric(uniform: float, prob: float) -> int:
    """Returns the trial of the first success, 1 or more, for a uniform number in [0, 1)."""
    if prob >= 1:
        return 1
    scale = math.log(1 - prob)
    if scale == 0:  # too small a probability to tell from 0
        return NEVER // 4
    return min(NEVER // 4, 1 + math.floor(math.log(1 - uniform) / scale))
