"""Several models of one task on the same data, always beside the task's simple baselines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnlab import config as options
from gnnlab.errors import BudgetError, ConfigError
from gnnlab.experiment import environment, start, write_json
from gnnlab.registry import load_task
from gnnlab.report import Curve, html_report, text_table
from gnnlab.task import Data, Task
from gnnlab.train import TrainConfig

__all__ = ["Comparison", "compare"]


@dataclass
class Comparison:
    """The outcome of `compare`: one row per model."""

    task: type[Task]
    """The task class."""
    facts: dict[str, Any]
    """Facts of the data."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Per model: name, baseline, options, one record per seed, and the test metrics' means."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Baseline that needs more memory than allowed -> why."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions and machine."""

    @property
    def columns(self) -> list[str]:
        """Columns of the table."""
        return ["model", *self.task.headline, "best epoch", "seconds"]

    def lines(self) -> list[dict[str, Any]]:
        """Returns the rows of the table, best first by the monitored metric."""
        sign = -1 if self.task.mode == "max" else 1
        lines = []
        for row in sorted(self.rows, key=lambda r: sign * r["test"][self.task.monitor]):
            line: dict[str, Any] = {"model": row["model"] + (" *" if row["baseline"] else "")}
            for metric in self.task.headline:
                spread = row["spread"].get(metric)
                value = row["test"][metric]
                line[metric] = value if spread is None else f"{value:.4f} ± {spread:.4f}"
            epochs = [s["best_epoch"] for s in row["seeds"]]
            line["best epoch"] = None if epochs[0] == 0 else ", ".join(map(str, epochs))
            line["seconds"] = round(sum(s["seconds"] for s in row["seeds"]), 1)
            lines.append(line)
        return lines

    def table(self) -> str:
        """Returns the table as text; baselines carry a star."""
        return text_table(self.lines(), self.columns) + "\n* a model without training"

    def warnings(self) -> list[str]:
        """Returns a sentence for each baseline left out and each trained model that one beats."""
        metric, sign = self.task.monitor, 1 if self.task.mode == "max" else -1
        simple = [r for r in self.rows if r["baseline"]]
        found = [f"{name} is left out: {why}" for name, why in self.skipped.items()]
        for row in self.rows:
            ahead = [s for s in simple if sign * s["test"][metric] > sign * row["test"][metric]]
            if not row["baseline"] and ahead:
                best = max(ahead, key=lambda r: sign * r["test"][metric])
                found.append(
                    f"{row['model']} loses to {best['model']} here: test {metric} "
                    f"{row['test'][metric]:.4f} against {best['test'][metric]:.4f}."
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain values."""
        return {
            "task": self.task.name,
            "facts": {k: str(v) for k, v in self.facts.items()},
            "environment": self.environment,
            "warnings": self.warnings(),
            "rows": [{k: v for k, v in row.items() if k != "history"} for row in self.rows],
        }

    def charts(self) -> dict[str, list[Curve]]:
        """Returns the learning curves of the first seed of every trained model."""
        charts: dict[str, list[Curve]] = {}
        for row in self.rows:
            history = row["history"]
            for title, group, key in (
                ("training loss", "train", "loss"),
                (f"validation {self.task.monitor}", "val", self.task.monitor),
            ):
                points = [(h["epoch"], h[group][key]) for h in history if key in h.get(group, {})]
                if points:
                    xs, ys = zip(*points, strict=True)
                    charts.setdefault(title, []).append((row["model"], xs, ys))
        return charts

    def save(self, folder: str | Path, *, title: str, commands: Sequence[str] = ()) -> Path:
        """Writes `comparison.json` and the self-contained `report.html`; returns the latter."""
        root = Path(folder)
        write_json(root / "comparison.json", self.to_json())
        about = {
            **self.facts,
            **{k: self.environment[k] for k in ("date", "processor", "kernels")},
            "versions": ", ".join(f"{k} {v}" for k, v in self.environment["versions"].items()),
        }
        return html_report(
            root / "report.html",
            title=title,
            facts=about,
            rows=self.lines(),
            columns=self.columns,
            charts=self.charts(),
            notes=self.warnings(),
            commands=commands,
        )


def compare(
    task: str | type[Task],
    source: Any,
    models: Sequence[str | Mapping[str, Any]],
    values: Mapping[str, Any] | None = None,
    *,
    seeds: int = 1,
    out: str | Path | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Trains and tests several models on the same splits, with the task's baselines beside them.

    The data is read once, with the options of the first model; every model, baselines included,
    learns from the same training part.

    Args:
        task: name or class.
        source: data, see the task's `read`.
        models: names of models, or mappings of options ("name" labels the row).
        values: options common to all of them.
        seeds: how often each trained model is trained, with seeds s, s+1, ...
        out: folder for the run of each model.
        progress: see `fit`.

    Raises:
        ConfigError: for an unknown model or option, or no model at all.

    Example:
        >>> found = compare("recommend", "synthetic", ["bpr-mf"], {"epochs": 1, "dim": 8})
        >>> [row["model"] for row in found.rows]
        ['popularity', 'itemknn', 'ease', 'bpr-mf']
    """
    cls = load_task(task) if isinstance(task, str) else task
    common = dict(values or {})
    wanted = {name: {**common, **given} for name, given in cls.baselines.items()}
    for model in models:
        if isinstance(model, str):
            wanted.setdefault(model, {**common, "model": model})
        else:
            given = {k: v for k, v in model.items() if k != "name"}
            wanted[str(model.get("name", given.get("model")))] = {**common, **given}
    trained = [n for n in wanted if n not in cls.baselines] or list(wanted)
    if not trained:
        raise ConfigError(f'task "{cls.name}" has no baselines: name at least one model.')
    configs = {n: options.merge([cls.Config, TrainConfig], v) for n, v in wanted.items()}
    data = cls.read(source, configs[trained[0]][0])
    result = Comparison(cls, dict(data.facts), environment=environment())
    for name, given in wanted.items():
        first = configs[name][1].seed
        repeats = 1 if name in cls.baselines else seeds
        seeds_of_row = range(first, first + repeats)
        try:
            row = _row(cls, source, data, name, given, seeds_of_row, out, progress)
        except BudgetError as error:
            if name not in cls.baselines:
                raise
            result.skipped[name] = str(error)
        else:
            result.rows.append(row)
    return result


def _row(
    cls: type[Task],
    source: Any,
    data: Data,
    name: str,
    given: Mapping[str, Any],
    seeds: range,
    out: str | Path | None,
    progress: bool | None,
) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    for seed in seeds:
        folder = (
            None if out is None else Path(out) / (name if len(seeds) == 1 else f"{name}-{seed}")
        )
        run, metrics = start(
            cls,
            source,
            {**given, "seed": seed},
            data=data,
            out=folder,
            overwrite=True,
            progress=progress,
        )
        records.append({"seed": seed, **metrics})
        history = history or run.history
    tests = [r["test"] for r in records]
    mean = {k: statistics.fmean(t[k] for t in tests) for k in tests[0]}
    spread = {k: statistics.stdev(t[k] for t in tests) for k in tests[0]} if len(tests) > 1 else {}
    return {
        "model": name,
        "baseline": name in cls.baselines,
        "options": dict(given),
        "test": mean,
        "spread": spread,
        "seeds": records,
        "history": history,
    }
