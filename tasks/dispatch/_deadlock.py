"""What a deadlock was: when it came, and which jobs wait for one another."""

from __future__ import annotations

from dataclasses import dataclass

from gnnlab.tasks.dispatch.simulator import Simulator


@dataclass(frozen=True)
class Deadlock:
    """Jobs that hold the machines that others of them need next."""

    time: int
    jobs: tuple[int, ...]
    holds: tuple[int, ...]
    wants: tuple[int, ...]

    def __str__(self) -> str:
        waits = ", ".join(
            f"job {j} on machine {k} waits for machine {wanted}"
            for j, k, wanted in zip(self.jobs, self.holds, self.wants, strict=True)
        )
        return f"deadlock at time {self.time}: {waits}"


def deadlock_of(shop: Simulator) -> Deadlock:
    """Returns the first cycle of jobs that wait for one another in a shop that is stuck."""
    for first in range(shop.num_jobs):
        path: list[int] = []
        j = first
        while j >= 0 and j not in path and shop.location[j] >= 0:
            path.append(j)
            j = shop.occupant[shop.next_machine(j)]
        if j in path:
            jobs = path[path.index(j) :]
            holds = tuple(shop.location[i] for i in jobs)
            return Deadlock(shop.time, tuple(jobs), holds, tuple(map(shop.next_machine, jobs)))
    return Deadlock(shop.time, (), (), ())
