"""`gnnlab dispatch solve`, `verify`, `convert` and `gantt`.

Each returns the exit code: 0 good, 1 no valid schedule. Wrong input is an error of `gnnlab.errors`,
which the command line turns into a sentence and the code 2.
"""

from __future__ import annotations

import hashlib
import json as jsons
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gnnlab.errors import ConfigError, GnnlabError, did_you_mean, needs
from gnnlab.tasks.dispatch._arguments import Reading, Scenario
from gnnlab.tasks.dispatch._solving import Means, NoScheduleError, Solution, find
from gnnlab.tasks.dispatch.datasets import CLASSICAL, published
from gnnlab.tasks.dispatch.files import standard_text, write_instance
from gnnlab.tasks.dispatch.gantt import gantt_layout
from gnnlab.tasks.dispatch.gantt_plot import save_gantt
from gnnlab.tasks.dispatch.gantt_text import print_gantt
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Trace
from gnnlab.tasks.dispatch.verifier import verify as violations

__all__ = ["convert", "gantt", "solve", "verify"]

_PICTURES = (".svg", ".html", ".png", ".pdf")
_MODES = {
    "jssp": "buffers without limit",
    "bws": "no buffers, swaps allowed",
    "bns": "no buffers, no swaps",
}
_READING, _SCENARIO = Reading(), Scenario()


def solve(
    file: str,
    /,
    *,
    rule: str | None = None,
    policy: Path | None = None,
    exact: float | None = None,
    samples: int = 1,
    search: int = 0,
    wip_limit: int | None = None,
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    csv: Path | None = None,
    gantt: Path | None = None,
    text: Annotated[bool, Parameter(negative="")] = False,
    scenario: Scenario = _SCENARIO,
    reading: Reading = _READING,
) -> int:
    """Schedule a job shop, by the best of all priority rules unless told otherwise.

    Parameters
    ----------
    file
        File of the job shop, or the name of a classical one such as ft06.
    rule
        Priority rule: SPT, MWKR, ...; also SPT@5 (at most 5 jobs inside) and PILOT(SPT).
    policy
        Run folder of a trained policy.
    exact
        Seconds for the exact solver; needs gnnlab[dispatch].
    samples
        Schedules to draw from the policy, of which the best is kept; 1 is the likeliest one.
    search
        Episodes of local search from there; it knows the shutdowns to come.
    wip_limit
        Lets in a new job only while fewer jobs than this are inside.
    json
        JSON file of the schedule; - prints it, and nothing else.
    csv
        CSV file of the schedule.
    gantt
        Picture to draw: .svg, .html, .png or .pdf.
    text
        Whether to draw a picture in the terminal.
    """
    _check_outputs(json, csv, gantt, text)
    instance = reading.read(file)
    trace = scenario.windows(instance)
    means = Means(
        rule=rule,
        policy=policy,
        exact=exact,
        samples=samples,
        search=search,
        wip_limit=wip_limit,
        seed=scenario.seed,
    )
    try:
        found = find(instance, scenario.mode, trace, means)
    except NoScheduleError as error:
        print(f"{error}{_advice(str(error))}", file=sys.stderr)
        return 1
    plan = found.schedule
    _check_found(instance, found, trace)
    written = _write(plan, trace, json, csv, gantt)
    if json == "-":
        print(jsons.dumps(plan.to_json()))
        return 0
    print(_summary(instance, found, trace, scenario))
    if text:
        print(f"\n{print_gantt(plan, trace)}\n")
    for path in written:
        print(f"written      {path}")
    return 0


def verify(
    file: str,
    schedule: Path,
    /,
    *,
    scenario: Scenario = _SCENARIO,
    reading: Reading = _READING,
) -> int:
    """Say whether a schedule is valid, or print every rule that it breaks, one a line.

    Parameters
    ----------
    file
        File of the job shop, or the name of a classical one such as ft06.
    schedule
        JSON or CSV file of the schedule.
    """
    instance, plan, trace = _both(file, schedule, scenario, reading)
    found = violations(instance, plan, plan.mode, trace)
    for violation in found:
        print(violation)
    if found:
        return 1
    print(f"valid: {len(plan.ops)} operations, mode {plan.mode}, makespan {plan.makespan}")
    return 0


def convert(
    file: str,
    out: Path,
    /,
    *,
    to: Literal["auto", "standard", "taillard", "dct", "fjs", "json", "npy"] = "auto",
    reading: Reading = _READING,
) -> int:
    """Write a job shop in another format.

    Parameters
    ----------
    file
        File of the job shop, or the name of a classical one such as ft06.
    out
        The file to write.
    to
        Format of OUT; auto goes by its suffix, and is standard otherwise.
    """
    instance = reading.read(file)
    write_instance(instance, out, to)
    print(f"{out}: {_size(instance)}")
    if not instance.is_square:
        print(
            "note: not every job visits every machine exactly once; read it with --no-strict.",
            file=sys.stderr,
        )
    return 0


def gantt(
    file: str,
    schedule: Path,
    /,
    *,
    out: Path | None = None,
    by: Literal["machine", "job"] = "machine",
    scenario: Scenario = _SCENARIO,
    reading: Reading = _READING,
) -> int:
    """Draw the Gantt chart of a valid schedule.

    Parameters
    ----------
    file
        File of the job shop, or the name of a classical one such as ft06.
    schedule
        JSON or CSV file of the schedule.
    out
        Picture to write: .svg, .html, .png or .pdf; none draws in the terminal.
    by
        What a row is.
    """
    _check_picture(out)
    instance, plan, trace = _both(file, schedule, scenario, reading)
    if found := violations(instance, plan, plan.mode, trace):
        print(f"{schedule}: not drawn, for it breaks rules:", file=sys.stderr)
        print(*found, sep="\n", file=sys.stderr)
        return 1
    if out is None:
        print(print_gantt(plan, trace, by=by))
    else:
        print(f"written {save_gantt(plan, out, trace, by)}")
    return 0


def _both(
    file: str, schedule: Path, scenario: Scenario, reading: Reading
) -> tuple[JobShopInstance, Schedule, Trace | None]:
    """Reads an instance and its schedule, which takes the scenario's mode if that has one."""
    instance = reading.read(file)
    if not schedule.exists():
        raise FileNotFoundError(f"no such file: {schedule}")
    plan = Schedule.load(schedule, scenario.mode)
    mode = scenario.mode or plan.mode
    plan = Schedule(plan.instance, mode, plan.makespan, plan.ops)
    return instance, plan, scenario.windows(instance)


def _check_outputs(json: str | None, csv: Path | None, gantt: Path | None, text: bool) -> None:
    """Raises before any work is done for files that could not be written."""
    if json == "-" and text:
        raise ConfigError("--json - prints JSON and nothing else; leave out --text.")
    if json not in (None, "-") and Path(json).suffix.lower() != ".json":
        raise ConfigError(f"--json {json}: the name must end in .json, or be - to print it.")
    if csv is not None and csv.suffix.lower() != ".csv":
        raise ConfigError(f"--csv {csv}: the name must end in .csv.")
    _check_picture(gantt)


def _check_picture(path: Path | None) -> None:
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix not in _PICTURES:
        raise ConfigError(
            f'{path}: cannot draw into a file that ends in "{path.suffix}".'
            f"{did_you_mean(suffix, _PICTURES)}"
        )
    if suffix in (".png", ".pdf"):
        needs("matplotlib.figure", f"a {suffix} picture", "viz")


def _check_found(instance: JobShopInstance, found: Solution, trace: Trace | None) -> None:
    broken = violations(
        instance,
        found.schedule,
        found.options.mode,
        trace,
        restart=found.options.restart,
        unload_when_down=found.options.unload_when_down,
    )
    if broken:
        raise GnnlabError(
            f"{instance.name}, {found.how}: the schedule breaks {len(broken)} rules, first "
            f"{broken[0]} Please report this with the instance."
        )


def _write(
    plan: Schedule, trace: Trace | None, json: str | None, csv: Path | None, gantt: Path | None
) -> list[Path]:
    written = [plan.save(path) for path in (json, csv) if path not in (None, "-")]
    if gantt is not None:
        written.append(save_gantt(plan, gantt, trace))
    return written


def _summary(
    instance: JobShopInstance, found: Solution, trace: Trace | None, scenario: Scenario
) -> str:
    plan, mode = found.schedule, found.options.mode
    layout = gantt_layout(plan, trace)
    lines = {
        "instance": f"{instance.name}: {_size(instance)}",
        "mode": f"{mode}: {_MODES[mode]}",
        "solved by": found.how,
        "makespan": str(plan.makespan),
        "lower bound": f"{found.bound} ({_above(plan.makespan, found.bound)})",
    }
    known = _best_known(instance, mode) if trace is None else None
    if known is not None:
        lines["best known"] = f"{known} ({_above(plan.makespan, known)})"
    if mode == "bws":
        lines["swaps"] = str(len(layout.ties))
    if trace is not None:
        source = scenario.trace or f"probability {scenario.shutdown:g}, seed {scenario.seed}"
        lines["shutdowns"] = f"{len(layout.downs)} before the end ({source})"
    lines["verified"] = f"every start, end and departure of {len(plan.ops)} operations"
    return "\n".join(f"{name:<12} {text}" for name, text in lines.items())


def _size(instance: JobShopInstance) -> str:
    return (
        f"{instance.num_jobs} jobs, {instance.num_machines} machines, "
        f"{instance.num_operations} operations"
    )


def _above(makespan: int, bound: int) -> str:
    if makespan == bound:
        return "reached"
    return f"makespan is {100 * (makespan / max(1, bound) - 1):.1f} % above"


def _best_known(instance: JobShopInstance, mode: str) -> int | None:
    """Returns the best known makespan of a classical instance, told by its content."""
    if instance.name not in CLASSICAL:
        return None
    about = published(instance.name)
    same = hashlib.sha256(standard_text(instance).encode()).hexdigest() == about.sha256
    return about.best(mode) if same else None


def _advice(text: str) -> str:
    if "deadlock" not in text:
        return ""
    return (
        " If jobs can change places, use --mode bws; else try another rule, --wip-limit or --exact."
    )
