"""Writes `docs/benchmarks.md`, and the table in the README, from the committed result files.

The pages hold no figure that is not in a file of `docs/results`, and the same files give the same
bytes: a test writes them again and compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnlab.bench import _layers_page, accuracy, dispatch, neighbors
from gnnlab.bench._ops_page import IMAGE, section
from gnnlab.bench._sampling_page import section as sampling_section
from gnnlab.bench.plot import draw
from gnnlab.bench.recommend import EXPERIMENTS
from gnnlab.errors import DataError
from gnnlab.report import markdown_table

__all__ = ["read_results", "readme_table", "write_page"]

Result = Mapping[str, Any]

_INTRO = """# Benchmarks

*Written by `gnnlab bench docs` from the files in `docs/results`; do not edit this page.*

Recommendation is scored by full ranking: every user with test items, all items but those of the
user's training part, ties by ascending item number, plain mean over users. Options and epochs are
chosen on a validation part of the training data; no choice looks at the test part.
{device}
"""
_EXACT = """Models with a closed form, trained on the whole training part, against the numbers that
an independent implementation of the same definitions gave:"""
_COMPARED = """Trained models and the simple ones beside them, all on the same {train} training
pairs ({val} pairs are held out for validation). A star marks a model without training; ± is the
standard deviation over {seeds}; seconds are wall time of training and scoring, all seeds
together."""
_ACCURACY = """Node classes on Cora, public split; options are the best of a short list by the
validation accuracy of three seeds that are not used again, and every run keeps the epoch that is
best on validation. Graph classes on MUTAG: ten stratified folds; "GIN, fixed" is one recipe for
all, tried first; "GIN" takes options and epochs that are best inside the other nine folds, by
three-fold validation. "Wanted" are published levels; ± is the standard deviation over runs."""
_NEXT = """## Where to go next

[Choose a model](guides/choose-a-model.md) draws the consequences.
[Contributing](contributing.md#add-an-experiment) says how to add an experiment.
"""
_OPEN, _CLOSE = "<!-- results -->", "<!-- /results -->"
_METRICS = ("recall@10", "recall@20", "recall@40", "ndcg@10", "ndcg@20", "ndcg@40")
_MONITOR = "ndcg@20"


def write_page(results: str | Path, out: str | Path) -> Path:
    """Writes the benchmark page with its picture, and the results table of the README.

    Args:
        results: folder of JSON files written by `gnnlab bench`.
        out: the page; the picture goes to `images` beside it. `README.md` is looked for in the
            folder above, and is left alone when it is not there or has no place for the table.

    Returns:
        `out`.

    Raises:
        DataError: for a file that no benchmark of gnnlab wrote.
    """
    found = read_results(results)
    page = Path(out)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(_page(found), encoding="utf-8")
    for result in found:
        if result["kind"] == "ops":
            draw(result, page.parent / IMAGE)
    readme = page.resolve().parent.parent / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        before, opened, rest = text.partition(_OPEN)
        _, closed, after = rest.partition(_CLOSE)
        if opened and closed:
            table = readme_table(found)
            inside = f"\n{table}\n" if table else "\n"
            readme.write_text(f"{before}{_OPEN}{inside}{_CLOSE}{after}", encoding="utf-8")
    return page


def read_results(folder: str | Path) -> list[Result]:
    """Reads all result files of a folder, recommendation first, then in order of their names.

    Raises:
        DataError: for a file that no benchmark of gnnlab wrote.
    """
    found: list[tuple[int, str, Result]] = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}.") from None
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind not in _SECTIONS:
            raise DataError(f'{path} is of kind "{kind}". Known: {", ".join(_SECTIONS)}.')
        found.append((list(_SECTIONS).index(kind), path.name, value))
    return [value for *_, value in sorted(found, key=lambda f: f[:2])]


def readme_table(results: Sequence[Result]) -> str:
    """Returns one line per data set: Recall@20 / NDCG@20 of each model, best NDCG@20 in bold."""
    compared = [r for r in results if r["kind"] == "recommend" and "comparison" in r]
    if not compared:
        return ""
    models = list(dict.fromkeys(row["model"] for r in compared for row in _rows(r)))
    lines = []
    for result in compared:
        rows = {row["model"]: row for row in _rows(result)}
        best = max(row["test"][_MONITOR] for row in rows.values())
        line: dict[str, Any] = {"data set": result["name"]}
        for model in models:
            if model not in rows:
                line[model] = None
                continue
            test = rows[model]["test"]
            cell = f"{test['recall@20']:.4f} / {test[_MONITOR]:.4f}"
            line[model] = f"**{cell}**" if test[_MONITOR] == best else cell
        lines.append(line)
    caption = "Recall@20 / NDCG@20, best NDCG@20 in bold; trained models are means over seeds."
    return f"{caption}\n\n{markdown_table(lines, ['data set', *models])}\n"


def _page(results: Sequence[Result]) -> str:
    devices = {r["environment"]["device"] for r in results} - {"cpu"}
    device = "Not measured on a GPU: every figure below is from a processor."
    if devices:
        device = f"Devices: {', '.join(sorted(devices))}; sections say which."
    parts = [_INTRO.format(device=device)]
    if not results:
        parts.append("There are no results yet.\n")
    parts += [_SECTIONS[result["kind"]](result) for result in results]
    return "\n".join([*parts, _NEXT])


# ---- recommendation --------------------------------------------------------------------------


def _recommend(result: Result) -> str:
    parts = [f"## {result['name']}", _sentence(result["about"]), _made_by(result)]
    if result["exact"]:
        parts += [_EXACT, _exact_table(result["exact"])]
        worst = max(float(row["largest deviation"]) for row in result["exact"])
        parts.append(f"Largest deviation over all rows and metrics: {worst:.1e}.")
    experiment = EXPERIMENTS.get(result["name"])
    if experiment is not None and experiment.remark:
        parts.append(experiment.remark)
    if "comparison" in result:
        comparison = result["comparison"]
        facts, seeds = comparison["facts"], max(len(row["seeds"]) for row in comparison["rows"])
        parts.append(
            _COMPARED.format(
                train=facts["train pairs"],
                val=facts["val pairs"],
                seeds="one seed, so there is none" if seeds == 1 else f"{seeds} seeds",
            )
        )
        parts.append(_compared_table(result))
        parts += [f"**{warning}**" for warning in comparison["warnings"]]
        parts.append(_tried(result))
        parts.append(f"Data: {facts['source']}; split: {facts['split']}.")
    return "\n\n".join(parts) + "\n"


def _exact_table(rows: Sequence[Result]) -> str:
    columns = ["model"]
    for metric in ("recall@20", _MONITOR):
        columns += [metric, f"expected {metric}"]
    return markdown_table(rows, [*columns, "largest deviation", "seconds"])


def _compared_table(result: Result) -> str:
    lines = []
    for row in sorted(_rows(result), key=lambda r: -r["test"][_MONITOR]):
        line: dict[str, Any] = {"model": row["model"] + (" *" if row["baseline"] else "")}
        for metric in _METRICS:
            if metric in row["test"]:
                spread = row["spread"].get(metric)
                text = f"{row['test'][metric]:.4f}"
                line[metric] = text if spread is None else f"{text} ± {spread:.4f}"
        epochs = [seed["best_epoch"] for seed in row["seeds"]]
        line["best epoch"] = None if row["baseline"] else ", ".join(map(str, epochs))
        line["seconds"] = f"{sum(seed['seconds'] for seed in row['seeds']):.1f}"
        lines.append(line)
    shown = [m for m in _METRICS if any(m in line for line in lines)]
    return markdown_table(lines, ["model", *shown, "best epoch", "seconds"]).replace("*", r"\*")


def _tried(result: Result) -> str:
    """The candidates of each model with their validation scores."""
    rows = [
        {
            "model": entry["model"],
            "options": ", ".join(f"{k} {v}" for k, v in entry["options"].items()) or "defaults",
            f"validation {_MONITOR}": entry.get("validation", "only candidate"),
            "best epoch": entry.get("best_epoch"),
        }
        for entry in result["tried"]
    ]
    columns = ["model", "options", f"validation {_MONITOR}", "best epoch"]
    return f"Options tried, the best on validation taken:\n\n{markdown_table(rows, columns)}"


def _rows(result: Result) -> list[Result]:
    rows: list[Result] = result["comparison"]["rows"]
    return rows


# ---- nodes of several types ------------------------------------------------------------------


def _imdb(result: Result) -> str:
    lines = [
        {"model": f"{r['model']} (given)", "test %": f"{r['test']:.1f}"} for r in result["floors"]
    ]
    for row in result["rows"]:
        line = {"model": row["model"]}
        for part, column in (("val", "validation %"), ("test", "test %")):
            spread = row[f"{part} spread"]
            line[column] = f"{row[part]:.1f}" + ("" if spread is None else f" ± {spread:.1f}")
        lines.append({**line, "seconds per run": f"{row['seconds'] / row['seeds']:.1f}"})
    seeds = max(row["seeds"] for row in result["rows"])
    best = max(result["rows"], key=lambda row: float(row["val"]))
    about = (
        f"{_sentence(result['about'])} Mean over {seeds} seeds ± standard deviation. Rows marked "
        '"given" are what the description of the data reports. Options were chosen by the mean '
        f"validation accuracy, the epoch by the validation loss. Best on validation: "
        f"{best['model']}, {best['test']:.1f} % of the test films."
    )
    columns = ["model", "validation %", "test %", "seconds per run"]
    parts = ["## Films", about, _made_by(result), markdown_table(lines, columns), _options(result)]
    return "\n\n".join(parts) + "\n"


def _options(result: Result) -> str:
    lines = [
        f"- {row['model']}: "
        + ", ".join(f"{k} {v}" for k, v in row["options"].items() if k != "model")
        for row in result["rows"]
    ]
    return "Options:\n\n" + "\n".join(lines)


# ---- operators -------------------------------------------------------------------------------


def _ops(result: Result) -> str:
    return section(result, _made_by(result))


# ---- layers ----------------------------------------------------------------------------------


def _layers(result: Result) -> str:
    return _layers_page.section(result, _made_by(result))


def _accuracy(result: Result) -> str:
    rows = accuracy.cells(result["rows"])
    tried = [
        {
            "model": row["model"],
            "options": ", ".join(f"{k} {v:g}" for k, v in entry.items() if k != "validation"),
            "validation accuracy, %": f"{entry['validation']:.2f}",
        }
        for row in result["rows"]
        for entry in row["tried"]
    ]
    parts = ["## Layers at work", _ACCURACY, _made_by(result), markdown_table(rows, list(rows[0]))]
    if tried:
        parts += [
            "Options tried, the best on validation taken:",
            markdown_table(tried, list(tried[0])),
        ]
    return "\n\n".join(parts) + "\n"


# ---- samplers ---------------------------------------------------------------------------------


def _sampling(result: Result) -> str:
    return sampling_section(result, _made_by(result))


# ---- neighbour searches -----------------------------------------------------------------------


def _neighbors(result: Result) -> str:
    return neighbors.section(result, _made_by(result))


# ---- dispatching -------------------------------------------------------------------------------


def _dispatch(result: Result) -> str:
    return dispatch.section(result, _made_by(result))


# ---- start-up --------------------------------------------------------------------------------


def _startup(result: Result) -> str:
    rows = [
        {
            "what": row["what"],
            "seconds": f"{row['measured']:.2f}",
            "wanted below": f"{row['target']:.2f}",
        }
        for row in result["rows"]
    ]
    about = f"{_sentence(result['about'])} Rounds: {result['repeats']}."
    return (
        "\n\n".join(["## Start-up", about, _made_by(result), markdown_table(rows, list(rows[0]))])
        + "\n"
    )


# ---- all -------------------------------------------------------------------------------------


def _made_by(result: Result) -> str:
    """Command, date, machine and versions."""
    env = result["environment"]
    versions = ", ".join(f"{name} {v}" for name, v in env["versions"].items())
    lines = [
        f"- command: `{result['command']}`" + _took(result),
        f"- date {env['date']}, commit {env['git_commit'] or 'unknown'}",
        f"- {env['processor']}, {env['cores']} cores, threads: {env['threads']}, "
        f"device {env['device']}, kernels {env['kernels']}",
        f"- Python {env['python']}, {versions}",
    ]
    return "\n".join(lines)


def _took(result: Result) -> str:
    return f" ({result['seconds']:.0f} s)" if "seconds" in result else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


_SECTIONS = {
    "recommend": _recommend,
    **dict.fromkeys(dispatch.KINDS, _dispatch),
    "accuracy": _accuracy,
    "imdb": _imdb,
    "layers": _layers,
    "neighbors": _neighbors,
    "ops": _ops,
    "sampling": _sampling,
    "startup": _startup,
}
