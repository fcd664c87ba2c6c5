"""The documentation does what it says: code runs, commands exist, every public name has a page."""

from __future__ import annotations

import contextlib
import csv
import doctest
import importlib
import inspect
import io
import os
import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import gnnlab
from gnnlab import registry
from gnnlab.bench.page import read_results, readme_table, write_page
from gnnlab.cli import _app, main
from gnnlab.config import read_toml
from gnnlab.errors import DataError
from gnnlab.tasks import Recommend

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [p for p in PAGES if not {"_build", "jupyter_execute"} & set(p.parts)]
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.md"))  # executed by the build of the pages

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


def ids(paths):
    return [p.relative_to(ROOT).as_posix() for p in paths]


# ---- code on pages -------------------------------------------------------------------------------


def commands(text):
    """The gnnlab commands of a shell block: chains are cut, continued lines joined."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if words[:1] == ["gnnlab"]:
                yield words[1:]


def parse(words):
    """Asserts that the command and its flags exist; does not run it."""
    try:
        _app(words).parse_args(words, exit_on_error=False, print_error=False)
    except Exception as error:
        pytest.fail(f"gnnlab {' '.join(words)}: {error}")


# Too slow to run here, or in need of data that is not in the repository.
ONLY_PARSED = ("demo", "bench")


def run(words):
    if words[0] in ONLY_PARSED or "--help" in words:
        words = [w for w in words if w != "--help"]
        return parse(words) if words else None
    if words[0] == "train" and "--resume" not in words and "--epochs" not in words:
        words = [*words, "--epochs", "4"]
    if words[1:2] == ["compare"] and "--epochs" not in words:
        words = [*words, "--epochs", "4"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stop:
            code = stop.code
    assert code == 0, f"gnnlab {' '.join(words)}: {err.getvalue()}"


run_python = PythonEvaluator()


def evaluate_python(example):
    """Runs a block, or appends it to the file that its first line names."""
    file = re.match(r"# (\w+\.py)\b", example.parsed)
    if file is None:
        return run_python(example)
    with open(file[1], "a", encoding="utf-8") as opened:
        opened.write(example.parsed)
    return None


def evaluate_shell(example):
    for words in commands(example.parsed):
        run(words)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of; tasks registered here are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fill", raising=False)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    draw = np.random.default_rng(0)
    with open("ratings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item", "rating"])
        for user in range(30):
            for item in draw.choice(20, size=8, replace=False):
                writer.writerow([f"u{user}", f"i{item}", draw.integers(1, 6)])
    Path("shop.txt").write_text("2 2\n0 3 1 2\n1 3 0 2\n")
    Path("my.toml").write_text('data = "ratings.csv"\nmodel = "lightgcl"\npreset = "small"\n')
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p not in NOTEBOOKS],
    ids=ids(p for p in PAGES if p not in NOTEBOOKS),
)
def test_code_of_the_page_runs(page, workplace):
    parsers = [CodeBlockParser("python", evaluate_python), CodeBlockParser("sh", evaluate_shell)]
    document = Sybil(parsers=parsers, path=str(ROOT)).parse(page)
    with contextlib.redirect_stdout(io.StringIO()):
        for example in document.examples():
            example.evaluate()


def test_toml_of_the_quickstart_is_a_configuration(workplace):
    block = re.search(r"```toml\n(.*?)```", (DOCS / "quickstart.md").read_text("utf-8"), re.DOTALL)
    Path("my.toml").write_text(block[1], encoding="utf-8")
    run(["train", "recommend", "--config", "my.toml", "--epochs", "2", "--out", "run"])


@pytest.mark.parametrize("page", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_commands_of_the_tutorial_exist(page):
    cells = re.findall(
        r"```\{code-cell\}[^\n]*\n%%bash[^\n]*\n(.*?)```", page.read_text("utf-8"), re.S
    )
    found = [words for cell in cells for words in commands(cell)]
    assert found
    for words in found:
        if words[0] == "train":  # the flags of `predict` need a run
            parse(words)


def test_words_in_code_that_begin_with_gnnlab_are_commands():
    known = {"train", "evaluate", "predict", "info", "list", "doctor", "data", "demo", "bench"}
    known |= {"kernels"}
    known |= set(gnnlab.list_tasks()) | {"fill", "TASK"}
    for page in PAGES:
        for verb in re.findall(r"`gnnlab (\w+)", page.read_text(encoding="utf-8")):
            assert verb in known, f"{page}: gnnlab {verb}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "results"], ids=ids(PAGES))
def test_page_says_where_to_go_next(page):
    if page in (ROOT / "README.md", DOCS / "index.md", DOCS / "api" / "index.md"):
        pytest.skip("a list of links itself")
    end = page.read_text(encoding="utf-8")[-900:]
    assert re.search(r"^(## Where to go next|Next: )", end, re.MULTILINE), page


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)\s]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page} links to {target}"


# ---- docstrings ----------------------------------------------------------------------------------


def modules():
    """Every module of gnnlab; private ones are those with an underscore on the way."""
    top = Path(gnnlab.__file__).parent
    for folder, _, files in os.walk(top, followlinks=True):
        for file in files:
            if file.endswith(".py") and file != "__main__.py":
                path = Path(folder, file).relative_to(top.parent).with_suffix("")
                yield ".".join(path.parts).removesuffix(".__init__")


MODULES = sorted(modules())


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, workplace):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in finder.find(module, name):
            runner.run(test, out=report.write, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, report.getvalue()


# ---- the API pages -------------------------------------------------------------------------------


def documented():
    """(module, name) on each page: what autodoc takes from __all__, less what the page excludes."""
    for page in sorted((DOCS / "api").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        pattern = r"automodule:: (\S+)\n(?:   :exclude-members: (.*)\n)?"
        for module, excluded in re.findall(pattern, text):
            skip = {name.strip() for name in excluded.split(",")}
            for name in importlib.import_module(module).__all__:
                if name not in skip and name != "__version__":
                    yield page.name, module, name


def public():
    """(identity, name) of every name in the __all__ of a module without an underscore."""
    for module in MODULES:
        if any(part.startswith("_") for part in module.split(".")):
            continue
        if module.startswith("gnnlab.cli."):  # inner files of the command line
            continue
        loaded = importlib.import_module(module)
        for name in getattr(loaded, "__all__", ()):
            if name != "__version__":
                yield module, name


def identity(module, name):
    thing = getattr(importlib.import_module(module), name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    home = importlib.import_module(module)
    for part in [m for m in MODULES if m.startswith(f"{module}.")]:  # re-exported data
        if name in getattr(importlib.import_module(part), "__all__", ()):
            return f"{part}.{name}"
    return f"{home.__name__}.{name}"


def test_every_public_name_is_on_exactly_one_api_page():
    where: dict[str, list[str]] = {}
    for page, module, name in documented():
        where.setdefault(identity(module, name), []).append(f"{page} ({module}.{name})")
    wanted = {identity(module, name): f"{module}.{name}" for module, name in public()}
    missing = sorted(label for key, label in wanted.items() if key not in where)
    assert not missing, f"on no page of docs/api: {missing}"
    twice = {key: pages for key, pages in where.items() if len(pages) > 1}
    assert not twice, f"on several places: {twice}"


# ---- generated and kept pages --------------------------------------------------------------------


def test_benchmark_page_and_readme_are_what_the_results_give(tmp_path):
    shutil.copy(ROOT / "README.md", tmp_path)
    page = write_page(DOCS / "results", tmp_path / "docs" / "benchmarks.md")
    hint = "run `gnnlab bench docs` and commit what it wrote"
    assert page.read_text("utf-8") == (DOCS / "benchmarks.md").read_text("utf-8"), hint
    for image in (tmp_path / "docs" / "images").glob("*"):
        assert image.read_bytes() == (DOCS / "images" / image.name).read_bytes(), hint
    assert (tmp_path / "README.md").read_text("utf-8") == (ROOT / "README.md").read_text("utf-8"), (
        hint
    )


def test_benchmark_page_names_a_file_that_is_none_of_ours(tmp_path):
    (tmp_path / "x.json").write_text('{"kind": "cake"}')
    with pytest.raises(DataError, match=r'x\.json is of kind "cake"'):
        write_page(tmp_path, tmp_path / "docs" / "page.md")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_page(tmp_path, tmp_path / "docs" / "page.md")


def test_page_without_results_says_so(tmp_path):
    page = write_page(tmp_path, tmp_path / "docs" / "page.md")
    assert "no results yet" in page.read_text("utf-8")
    assert readme_table(read_results(tmp_path)) == ""


def test_page_shows_operators(tmp_path):
    import json

    from gnnlab.bench import ops
    from gnnlab.experiment import environment

    speeds = {"copy": 12.0, "triad": 13.0, "read": 14.0}
    row = {"op": "gather", "graph": "b mesh", "width": "64", "ms": 1.5, "gb_s": 10.0}
    peers = {"index_select": 3.0, "numpy.take": 4.0}
    result = {
        "kind": "ops",
        "command": "gnnlab bench ops",
        "environment": environment(),
        "machine": {
            "isa": "v3",
            "backend": "cpu",
            "threads": 1,
            "clock": "CPU time",
            "gb_s": speeds,
            "versions": {"dgl": "1.1.3"},
        },
        "skipped": {"pyg": "torch-geometric is not installed"},
        "errors": {"liar, gather 64 on b mesh": "another result"},
        "overhead": [{"call": "spmm", "us": 4.0, "target": 4.5}],
        "scaling": None,
        "rows": [{**row, "of_triad": 0.8, "peers": peers, "best": "index_select", "ratio": 2.0}],
    }
    assert "gather    2.00   b mesh    2.00  1 / 1.3  hit" in ops.table(result)
    ops.write(tmp_path / "ops.json", json.loads(json.dumps(result)))
    text = write_page(tmp_path, tmp_path / "docs" / "page.md").read_text("utf-8")
    assert "| gather | 2.00 | b mesh | 2.00 | 1 / 1.3 | hit |" in text
    assert "| gather | 64 | 1.500 | 10.0 | 0.80 | index_select | 3.000 | 2.00 | - | - |" in text
    assert "copies 12.0 GB/s" in text
    assert "call on 4 nodes, spmm: 4.00 us, target 4.5: hit" in text
    assert "- pyg: torch-geometric is not installed" in text
    assert "- liar, gather 64 on b mesh: another result" in text
    assert (tmp_path / "docs" / "images" / "ops.svg").is_file()


def test_changelog_has_the_version_of_the_project():
    version = read_toml(ROOT / "pyproject.toml")["project"]["version"]
    text = (DOCS / "changelog.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}\b", text, re.MULTILINE)
    assert re.search(r"^## Unreleased$", text, re.MULTILINE)


# ---- the table of bad input ----------------------------------------------------------------------

HEAD = "user,item,rating,timestamp\n"
BAD = {
    "no interactions": (HEAD, {}),
    'has no column "item"': ("user,thing\na,b\n", {}),
    "occurs twice in the first line": ("user,item,item\na,b,c\n", {}),
    "2 fields, but the first line names 3 columns": ("user,item,x\na,b\n", {}),
    "is not UTF-8 text": (b"user,item\n\xff,b\n", {}),
    "Weights are finite numbers, 0 or more": (HEAD + "a,b,-1,5\n", {"min_rating": 1.0}),
    "which is not a time": (HEAD + "a,b,1,soon\n", {"split": "temporal-global"}),
    "removes all of them": (HEAD + "a,b,1,5\n", {"min_rating": 4.0}),
}


@pytest.mark.parametrize("phrase", BAD)
def test_bad_input_ends_as_the_guide_says(phrase, tmp_path):
    assert f"`{phrase}`" in (DOCS / "guides" / "own-data.md").read_text(encoding="utf-8")
    content, options = BAD[phrase]
    file = tmp_path / "bad.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=re.escape(phrase)):
        Recommend.read(file, Recommend.Config(**options))


def test_other_outcomes_are_as_the_guide_says(tmp_path):
    text = (DOCS / "guides" / "own-data.md").read_text(encoding="utf-8")
    config = Recommend.Config(model="popularity", split="none")
    phrases = {
        "ids mix types": lambda: Recommend.read({"user": [1, "1"], "item": [1, 2]}, config),
        "cannot read files ending in": lambda: Recommend.read(tmp_path / "x.pdf", config),
        "there is no file": lambda: Recommend.read(tmp_path / "y.csv", config),
        "are not in the training data": lambda: trained.predict(users=["zoe"]),
    }
    (tmp_path / "x.pdf").write_text("x")
    data = Recommend.read({"user": ["a", "b"], "item": [1, 2]}, config)
    trained = gnnlab.fit(Recommend(config, data.spec), data).best
    for phrase, call in phrases.items():
        assert f"`{phrase}`" in text
        with pytest.raises(DataError, match=phrase):
            call()
    given = {"train_user": [1, 2], "train_item": [1, 2], "test_user": [1, 2], "test_item": [1, 1]}
    with pytest.warns(UserWarning, match="that are also in train"):
        Recommend.read(given, config)
    with pytest.warns(UserWarning, match="dropped 1 rows"):
        Recommend.read({"user": ["a", ""], "item": [1, 2]}, config)
