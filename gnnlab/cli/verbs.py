"""The verbs that are the same for every task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gnnlab.cli.output import Json, Quiet, print_json, say, short
from gnnlab.registry import load_task, working_tasks

__all__ = ["data", "demo", "doctor", "evaluate", "info", "list_"]


def list_(
    what: Literal["tasks", "datasets", "presets", "layers"] = "tasks", /, *, json: Json = False
) -> int:
    """List what there is.

    Parameters
    ----------
    what
        tasks, layers, datasets or presets.
    """
    from gnnlab.catalog import catalog
    from gnnlab.report import text_table

    rows = catalog(what)
    if json:
        print_json({what: rows})
    elif rows:
        print(text_table([{k: short(v) for k, v in r.items()} for r in rows], list(rows[0])))
    return 0


def evaluate(
    run: Path,
    /,
    *,
    split: Literal["train", "val", "test"] = "test",
    data: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    json: Json = False,
) -> int:
    """Score a run's model on one split of its data.

    Parameters
    ----------
    run
        Run folder.
    split
        Which part of the data.
    data
        Other data than the run was trained on.
    checkpoint
        Which weights.
    """
    from gnnlab import experiment

    metrics = experiment.evaluate(run, split, source=data, which=checkpoint)
    if json:
        print_json(metrics)
    else:
        width = max(map(len, metrics))
        for name, value in metrics.items():
            print(f"{name:<{width}}  {value:.6g}")
    return 0


def info(run: Path, /, *, json: Json = False) -> int:
    """Say what a run or checkpoint is, how it was made, and how well it did.

    Parameters
    ----------
    run
        Run or checkpoint folder.
    """
    from gnnlab.catalog import describe_run

    about = describe_run(run)
    if json:
        print_json(about)
    else:
        for section, values in about.items():
            if isinstance(values, dict):
                print(f"{section}:")
                for key, value in values.items():
                    print(f"  {key}: {short(value)}")
            else:
                print(f"{section}: {values}")
    return 0


def doctor(*, require: Literal["cpu", "cuda"] | None = None, json: Json = False) -> int:
    """Check the installation: versions, kernels, devices, tasks, and a one-second self-test.

    Parameters
    ----------
    require
        Fail unless compiled kernels for this device are loaded.
    """
    from gnnlab.doctor import examine

    found = examine()
    if json:
        print_json(found)
    else:
        for key, value in found.items():
            print(f"{key:<14} {short(value)}")
    if not found["self_test"].startswith("passed"):
        return 1
    if require is not None and found["backend"] != require:
        say(
            f"doctor: kernels for {require} are required, but the backend is "
            f"{found['backend']} ({short(found['kernels'])})."
        )
        return 1
    return 0


def data(
    source: str | None = None,
    /,
    *,
    task: str = "recommend",
    fetch: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Show known data sets and where they are, or read one and say what is in it.

    Parameters
    ----------
    source
        A data set's name or a file; none lists the known ones.
    task
        The task that reads it.
    fetch
        First download the data set from its public source into the cache folder.
    """
    if source is None:
        return list_("datasets", json=json)
    cls = load_task(task)
    if fetch:
        say(f"fetched {cls.fetch(source)}")
    found = cls.read(source, cls.Config())
    if json:
        print_json({"facts": {k: str(v) for k, v in found.facts.items()}, "spec": found.spec})
    else:
        print(found.summary())
    return 0


def demo(*, out: Path = Path("gnnlab-demo"), json: Json = False, quiet: Quiet = False) -> int:
    """Train graph models on generated data, compare them with simple ones, write a report.

    Parameters
    ----------
    out
        Folder of the report and the runs.
    """
    from gnnlab.comparison import compare

    results = {}
    for cls in working_tasks():
        if not cls.demo:
            continue
        name = cls.name
        if not quiet:
            say(
                f"{name}: comparing {len(cls.demo['models'])} trained models with "
                f"{len(cls.baselines)} simple ones on generated data"
            )
        found = compare(
            cls,
            cls.demo["source"],
            cls.demo["models"],
            cls.demo["values"],
            out=out / name,
            progress=False if quiet else None,
        )
        commands = cls.demo.get("commands") or [
            f"gnnlab {name} compare --data your-file.csv --out my-comparison",
            f"gnnlab train {name} --data your-file.csv --out my-run",
            "gnnlab predict my-run --output predictions.csv",
        ]
        page = found.save(out / name, title=f"gnnlab {name} demo", commands=commands)
        results[name] = {**found.to_json(), "report": str(page)}
        if not json:
            print(found.table())
            for warning in found.warnings():
                print(f"note: {warning}")
            print(f"\nreport: {page}\n\nthe same on your own file:")
            print("\n".join(f"  {c}" for c in commands))
    if json:
        print_json(results)
    return 0
