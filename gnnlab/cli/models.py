"""The verbs whose flags depend on the task: train, predict, and each task's compare."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from gnnlab.cli.flags import flag, keyword_flags, option_flags, with_flags
from gnnlab.cli.output import Json, Quiet, print_json, say
from gnnlab.errors import ConfigError
from gnnlab.log import first_process
from gnnlab.registry import list_tasks, load_task, load_verb

__all__ = ["predict_command", "task_app", "train_app"]


def train_app(tokens: Sequence[str]) -> App:
    """`train --resume DIR`, and `train TASK` with the flags of that task."""
    app = App(name="train", help="Train a task's model, or go on with a run.")
    app.default(resume)
    if tokens[:1] == ["train"] and len(tokens) > 1 and not tokens[1].startswith("-"):
        load_task(tokens[1])  # says "did you mean" for a task that there is not
    for name in list_tasks():
        if list(tokens[:2]) == ["train", name]:
            app.command(_train_command(name), name=name)
        else:
            app.command(_named(f"Train {name}; its flags: gnnlab train {name} --help."), name=name)
    return app


def _train_command(name: str) -> Callable[..., int]:
    cls = load_task(name)

    def train(**given: Any) -> int:
        from gnnlab import config as options, experiment
        from gnnlab.train import TrainConfig

        source, out, file = (
            given.pop("data", None),
            given.pop("out", None),
            given.pop("config", None),
        )
        as_json = given.pop("json", False)
        quiet = given.pop("quiet", False) or not first_process()
        overwrite = given.pop("overwrite", False)
        where, written = "", {}
        if file is not None:
            written, where = options.read_toml(file), f" in {file}"
            if written.pop("task", name) != name:
                raise ConfigError(f'{file} is for another task, not "{name}".')
            source = source or written.pop("data", None)
            written.pop("data", None)
        if source is None:
            raise ConfigError('no data: pass --data FILE, or put data = "..." into the config.')
        values = {**written, **given}
        config, _ = options.merge([cls.Config, TrainConfig], values, where=where)
        read = cls.read(source, config)
        if not quiet:
            say(read.summary())
        folder = Path(out) if out else _new_folder(name, getattr(config, "model", ""))
        progress = False if quiet else None
        run, metrics = experiment.start(
            cls, source, values, data=read, out=folder, overwrite=overwrite, progress=progress
        )
        return _finish(cls, run, metrics, as_json=as_json, quiet=quiet)

    train.__doc__ = f"Train {name}: read the data, train, score, and write a run folder."
    own = [
        flag("data", str | None, "File, folder or name of the data.", None),
        flag("out", str | None, "Run folder; none makes one under runs/.", None),
        flag("config", str | None, "TOML file of options; flags are put over it.", None),
        flag("overwrite", bool, "Replace the run that --out holds.", False),
        flag("quiet", bool, "No progress on stderr.", False),
        flag("json", bool, "Print one JSON object and nothing else.", False),
    ]
    return with_flags(train, own + option_flags(cls))


def resume(
    *,
    resume: Path | None = None,
    epochs: int | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Go on with a run from its last checkpoint.

    Parameters
    ----------
    resume
        Run folder.
    epochs
        New total number of epochs.
    """
    from gnnlab import experiment

    if resume is None:
        raise ConfigError(
            "train what? gnnlab train TASK --data FILE, or gnnlab train --resume DIR. "
            f"Tasks: {', '.join(list_tasks())}."
        )
    quiet = quiet or not first_process()
    changes = {} if epochs is None else {"epochs": epochs}
    run, metrics = experiment.resume(resume, changes, progress=False if quiet else None)
    return _finish(type(run.best), run, metrics, as_json=json, quiet=quiet)


def _finish(cls: Any, run: Any, metrics: Mapping[str, Any], *, as_json: bool, quiet: bool) -> int:
    from gnnlab.report import text_table

    if not first_process():
        return 0
    if as_json:
        print_json({"out": str(run.folder), **metrics})
        return 0
    if run.epoch == 0:
        print(f"computed in {metrics['seconds']:.1f} s; this model needs no training")
    else:
        why = ", stopped early" if run.stopped_early else ""
        print(
            f"trained {run.epoch} epochs in {metrics['seconds']:.1f} s{why}; "
            f"epoch {run.best_epoch} kept"
        )
    rows = [
        {"split": s, **{m: metrics[s][m] for m in cls.headline}}
        for s in ("val", "test")
        if s in metrics
    ]
    if rows:
        print(text_table(rows, ["split", *cls.headline]))
    if not quiet:
        say(
            f"\nnext: gnnlab evaluate {run.folder}\n"
            f"      gnnlab predict {run.folder} --output predictions.csv"
        )
    return 0


def predict_command(tokens: Sequence[str]) -> Callable[..., int]:
    """`predict RUN`: its flags are the keywords of that task's `predict`."""
    flags: list[inspect.Parameter] = []
    words = [t for t in tokens[1:] if not t.startswith("-")]
    folder = next((w for w in words if Path(w).is_dir()), words[0] if words else None)
    if tokens[:1] == ["predict"] and folder is not None:
        from gnnlab import checkpoint

        cls = load_task(checkpoint.read_about(checkpoint.locate(folder))["task"])
        flags = keyword_flags(cls.predict)

    def predict(run: Path, /, **given: Any) -> int:
        from gnnlab import checkpoint

        source, output = given.pop("input", None), given.pop("output", None)
        which, as_json = given.pop("checkpoint", "best"), given.pop("json", False)
        task = checkpoint.load(run, which=which)
        query = {} if source is None else task.query(Path(source))
        prediction = task.predict(**{**query, **given})
        if output is not None:
            prediction.save(output)
        if as_json:
            columns = {k: v.tolist() for k, v in prediction.columns.items()}
            print_json({"output": output, "rows": len(prediction)} if output else columns)
        elif output is not None:
            print(f"{len(prediction)} rows written to {output}")
        elif not prediction.is_table:
            print(prediction)
            say("no table: pass --output FILE.npz for the arrays")
        else:
            from gnnlab.report import text_table

            rows = [
                dict(zip(prediction.columns, r, strict=True))
                for r in zip(*(c[:20].tolist() for c in prediction.columns.values()), strict=True)
            ]
            print(text_table(rows, list(prediction.columns)))
            if len(prediction) > 20:
                say(f"... {len(prediction) - 20} more rows: pass --output FILE")
        return 0

    predict.__doc__ = "Answer with a trained model; `predict RUN --help` shows its flags."
    run = inspect.Parameter(
        "run",
        inspect.Parameter.POSITIONAL_ONLY,
        annotation=Annotated[Path, Parameter(help="Run folder.")],
    )
    own = [
        flag("input", str | None, "File that says what to predict for; none is everything.", None),
        flag("output", str | None, "File to write: .csv, .parquet, .json or .npz.", None),
        flag("checkpoint", Literal["best", "last"], "Which weights.", "best"),
        flag("json", bool, "Print one JSON object and nothing else.", False),
    ]
    return with_flags(predict, [run, *own, *flags])


def task_app(app: App, tokens: Sequence[str]) -> None:
    """Mounts `gnnlab TASK compare` and the task's own verbs for each task."""
    for name in list_tasks():
        own = App(name=name, help=f"Verbs of the task {name}.")
        if tokens[:1] == [name]:
            own.command(_compare_command(name), name="compare")
            cls = load_task(name)
            for verb in cls.commands:
                own.command(load_verb(cls, verb), name=verb)
        app.command(own)


def _compare_command(name: str) -> Callable[..., int]:
    cls = load_task(name)

    def compare(**given: Any) -> int:
        from gnnlab.comparison import compare as run

        source, models, seeds = given.pop("data"), given.pop("models", ()), given.pop("seeds", 1)
        out, as_json = given.pop("out", None), given.pop("json", False)
        quiet = given.pop("quiet", False)
        names = [m for text in models for m in text.split(",")]
        found = run(
            cls, source, names, given, seeds=seeds, out=out, progress=False if quiet else None
        )
        if out is not None:
            found.save(out, title=f"{name}: {Path(source).name}")
        if as_json:
            print_json(found.to_json())
            return 0
        print(found.table())
        for warning in found.warnings():
            print(f"note: {warning}")
        if out is not None:
            print(f"report: {Path(out) / 'report.html'}")
        return 0

    compare.__doc__ = f"Train several {name} models and print them beside the simple ones."
    own = [
        flag("data", str, "File, folder or name of the data."),
        flag("models", tuple[str, ...], "Models, separated by commas or spaces.", ()),
        flag("seeds", int, "How often each trained model is trained.", 1),
        flag("out", str | None, "Folder for the report and the runs.", None),
        flag("quiet", bool, "No progress on stderr.", False),
        flag("json", bool, "Print one JSON object and nothing else.", False),
    ]
    flags = [f for f in option_flags(cls) if f.name != "model"]
    return with_flags(compare, own + flags)


def _named(text: str) -> Callable[[], int]:
    def stub() -> int:
        return 0

    stub.__doc__ = text
    return stub


def _new_folder(task: str, model: str) -> Path:
    import time

    stem = "-".join(p for p in (task, model, time.strftime("%Y%m%d-%H%M%S")) if p)
    return Path("runs") / stem
