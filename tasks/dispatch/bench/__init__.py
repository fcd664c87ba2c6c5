"""Measurements of the dispatching task: `gnnlab bench dispatch`.

Each part returns a JSON-able result; `gnnlab.bench.dispatch` turns results into text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.bench.shutdowns import paired

__all__ = ["PARTS", "paired", "run"]

PARTS = ("rules", "exact", "simulator", "shutdowns", "learning", "policies")


def run(
    part: str,
    quick: bool = False,
    *,
    runs: Sequence[str] = (),
    samples: Sequence[int] = (1, 64),
    progress: bool = False,
) -> dict[str, Any]:
    """Runs one part and returns its result.

    Args:
        part: one of `PARTS`.
        quick: little of everything: seconds.
        runs: run folders, for policies.
        samples: schedules per instance of which the best counts, for policies; 1 is greedy.
        progress: whether to say on stderr what is being measured.

    Raises:
        ConfigError: for an unknown part.
        DataError: when the classical instances are not on this machine.
        MissingExtraError: for exact, when OR-Tools is not installed.
        RuntimeError: without compiled kernels.
    """
    if part not in PARTS:
        raise ConfigError(f'unknown part "{part}".{did_you_mean(part, PARTS)}')
    began = time.perf_counter()
    result = _measure(part, quick, runs, samples, progress)
    result["seconds"] = round(time.perf_counter() - began, 1)
    return result


def _measure(
    part: str, quick: bool, runs: Sequence[str], samples: Sequence[int], progress: bool
) -> dict[str, Any]:
    from gnnlab.tasks.dispatch.bench import exact, learning, policies, rules, shutdowns, simulator

    if part == "policies":
        return policies.run(runs, quick, samples=samples, progress=progress)
    if part == "exact":
        return exact.run(quick, progress=progress)
    if part == "learning":
        return learning.run(quick)
    if part == "simulator":
        return simulator.run(quick, progress=progress)
    return rules.run(quick) if part == "rules" else shutdowns.run(quick)
