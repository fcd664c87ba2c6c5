"""Job shops as JSON: a name, their sizes, and a list of operations.

The keys are instance, jobs, machines and data, rows of job, operation, machine and duration.

This is the form of github.com/ScheduleOpt/benchmarks; jobs, operations and machines count from 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeGuard

from gnnlab.tasks.dispatch._formats import Job, Line, Rules, build
from gnnlab.tasks.dispatch.instance import MAX_OPERATIONS, InstanceError, JobShopInstance

__all__ = ["read_json", "to_json"]


def read_json(text: str, path: Path, rules: Rules) -> JobShopInstance:
    """Reads the text of a file.

    Raises:
        InstanceError: naming the file, the place in it and what is wrong there.
    """
    if not text.strip():
        raise InstanceError(f"{path}: no data: it is empty.")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InstanceError(f"{path}, line {error.lineno}: not JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"{path}: not JSON: {error}.") from None
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise InstanceError(f'{path}: no job shop: it has no list "data" of operations.')
    n, m = value.get("jobs"), value.get("machines")
    if not (_whole(n) and _whole(m) and n >= 1 and m >= 1):
        raise InstanceError(
            f'{path}: header: "jobs" is {n!r:.40} and "machines" {m!r:.40}; expected integers '
            "of 1 or more."
        )
    if n * m > MAX_OPERATIONS or len(value["data"]) > MAX_OPERATIONS:
        raise InstanceError(f"{path}: too large: {n} jobs of {m} operations.")
    if len(value["data"]) < n:
        raise InstanceError(
            f"{path}: expected {n} job lines, found operations of {len(value['data'])} at most."
        )
    jobs = _jobs_of(value["data"], n, path, rules)
    name = value.get("instance")
    name = name if isinstance(name, str) and name else path.stem
    return build(name, jobs, m, strict=rules.strict, base=rules.machine_base)


def _jobs_of(data: list[Any], n: int, path: Path, rules: Rules) -> list[Job]:
    """Sorts rows {job, operation, machine, duration} into jobs."""
    found: list[dict[int, tuple[int, int]]] = [{} for _ in range(n)]
    for number, row in enumerate(data):
        line = Line(f"{path}, data[{number}]", [])
        if not isinstance(row, dict):
            raise line.error(f"{row!r:.40} is no operation.")
        for key in ("job", "operation", "machine", "duration"):
            if key not in row:
                raise line.error(f'"{key}" is missing.')
            if key != "duration" and not _whole(row[key]):
                raise line.error(f"{key} {row[key]!r:.40} is not an integer.")
        job, operation = row["job"], row["operation"]
        if not 0 <= job < n:
            raise line.error(f"job {job} is not in 0..{n - 1}.")
        if operation in found[job]:
            raise line.error(f"operation {operation} of job {job} is there twice.")
        time = row["duration"]
        if isinstance(time, bool) or not isinstance(time, (int, float)):
            raise line.error(f"duration {time!r:.40} is not an integer.")
        word = str(time) if isinstance(time, float) or _whole(time) else "9" * 40
        found[job][operation] = (row["machine"] - rules.machine_base, line.time(word, rules))
    jobs = []
    for j, operations in enumerate(found):
        line = Line(f"{path}, job {j}", [])
        if sorted(operations) != list(range(len(operations))):
            raise line.error(f"its operations are {sorted(operations)[:8]}, not 0, 1, 2, ...")
        if not operations:
            raise line.error(f"expected {n} job lines, found none of this job.")
        rows = [operations[i] for i in range(len(operations))]
        jobs.append(Job(line, [k for k, _ in rows], [p for _, p in rows]))
    return jobs


def to_json(instance: JobShopInstance) -> dict[str, Any]:
    """Returns the JSON form of a job shop."""
    return {
        "instance": instance.name,
        "jobs": instance.num_jobs,
        "machines": instance.num_machines,
        "data": [
            {"job": j, "operation": i, "machine": k, "duration": p}
            for j, job in enumerate(instance.jobs())
            for i, (k, p) in enumerate(job)
        ],
    }


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18
