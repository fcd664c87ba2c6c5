"""Constraint programming for a fixed time: what is proved, and how far the rest is away."""

from __future__ import annotations

import sys
from typing import Any

from gnnlab.errors import needs
from gnnlab.tasks.dispatch._solving import good_schedule
from gnnlab.tasks.dispatch.bench._common import best_known, head, instances_of
from gnnlab.tasks.dispatch.exact import solve_exact
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Mode

__all__ = ["GAP", "run"]

GAP = 5.0
"""Most percent above the best known makespan that 10 x 10 should end at."""
_PROVED: list[tuple[str, Mode]] = [("ft06", "jssp"), ("ft06", "bws"), ("la01", "bws")]
_SQUARE = "la16-20, ft10, abz5"


def run(
    quick: bool = False,
    *,
    seconds: float = 20,
    workers: int = 2,
    seeds: int = 2,
    progress: bool = False,
) -> dict[str, Any]:
    """Solves small instances and 10 x 10 ones with and without buffers, from a quick search.

    Args:
        quick: the 6 x 6 instance only.
        seconds: time limit of each search.
        workers: threads of the solver.
        seeds: searches of each; with several workers and a time limit none repeats exactly.
        progress: whether to say on stderr what is being solved.

    Raises:
        MissingExtraError: when OR-Tools is not installed.
        DataError: when the instances are not on this machine.
    """
    solver = needs("ortools", "gnnlab bench dispatch exact", "dispatch")
    about = (
        f"CP-SAT, {seconds:g} s of wall time and {workers} workers, {seeds} "
        "searches with different seeds, from the best rule improved by a second of local search"
    )
    result = head("exact", about, quick)
    result |= {"seconds limit": seconds, "workers": workers, "target": GAP}
    result["versions"] = {"OR-Tools": str(solver.__version__)}
    jobs = _PROVED[:2] if quick else list(_PROVED)
    if not quick:
        modes: tuple[Mode, Mode] = ("jssp", "bws")
        jobs += [(i.name, mode) for mode in modes for i in instances_of(_SQUARE)]
    result["rows"] = []
    for name, mode in jobs:
        if progress:
            print(f"{name}, {mode}", file=sys.stderr)
        result["rows"].append(_row(instances_of(name)[0], mode, seconds, workers, seeds))
    return result


def _row(
    instance: JobShopInstance, mode: Mode, seconds: float, workers: int, seeds: int
) -> dict[str, Any]:
    hint = good_schedule(instance, ShopOptions(mode=mode))
    best = int(best_known([instance], mode)[0])
    searches = []
    for seed in range(seeds):
        solved = solve_exact(
            instance, mode=mode, seconds=seconds, workers=workers, seed=seed, hint=hint
        )
        searches.append(
            {
                "makespan": solved.makespan,
                "bound": solved.bound,
                "status": solved.status,
                "seconds": round(solved.seconds, 2),
                "gap": None if solved.makespan is None else 100 * (solved.makespan / best - 1),
            }
        )
    return {
        "instance": instance.name,
        "size": f"{instance.num_jobs}x{instance.num_machines}",
        "mode": mode,
        "hint": None if hint is None else hint.makespan,
        "best known": best,
        "proof wanted": (instance.name, mode) in _PROVED,
        "searches": searches,
    }
