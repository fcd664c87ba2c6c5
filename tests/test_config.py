"""Options: coercion, suggestions, files, and which source wins."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, strategies as st

from gnnlab import TrainConfig, config as options
from gnnlab.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Options of a part."""

    dim: int = 8
    """Width."""
    rates: tuple[float, ...] = (0.1, 0.2)
    """Rates
    on two lines."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """One of every kind."""

    count: int = 1
    """How many."""
    rate: float = 0.5
    """How fast."""
    flag: bool = False
    """Whether."""
    text: str = "a"
    kind: Literal["mean", "sum"] = "sum"
    """Which."""
    power: Literal[1, 2] = 2
    """Exponent."""
    limit: int | None = None
    """At most."""
    choice: Literal["mean", "sum"] | None = None
    """Which, or none."""
    sizes: tuple[int, ...] = (1, 2)
    """Sizes."""
    names: tuple[str, ...] = ()
    """Names."""
    inner: Inner = field(default_factory=Inner)
    """A part."""


GOOD = [
    ("count", 3, 3),
    ("count", "3", 3),
    ("count", 3.0, 3),
    ("rate", 1, 1.0),
    ("rate", "1e-3", 1e-3),
    ("rate", math.inf, math.inf),
    ("flag", True, True),
    ("flag", "true", True),
    ("flag", "false", False),
    ("text", "none", "none"),
    ("kind", "mean", "mean"),
    ("power", 1, 1),
    ("limit", None, None),
    ("limit", "none", None),
    ("limit", "7", 7),
    ("choice", "none", None),
    ("choice", "mean", "mean"),
    ("sizes", [3, "4"], (3, 4)),
    ("sizes", "3,4", (3, 4)),
    ("sizes", 3, (3,)),
    ("names", "a,b", ("a", "b")),
    ("names", [], ()),
    ("inner", {"dim": "4"}, Inner(dim=4)),
    ("inner", Inner(dim=5), Inner(dim=5)),
]


@pytest.mark.parametrize(("key", "given", "expected"), GOOD)
def test_value_is_read_as_the_type_of_its_field(key, given, expected):
    found = getattr(options.build(Outer, {key: given}), key)
    assert found == expected
    assert type(found) is type(expected)


BAD = [
    ("count", "three", "count is 'three'; expected a whole number."),
    ("count", 3.5, "count is 3.5; expected a whole number."),
    ("count", True, "count is True; expected a whole number."),
    ("count", math.inf, "count is inf; expected a whole number."),
    ("count", None, "count is None; expected a whole number."),
    ("rate", "fast", "rate is 'fast'; expected a number."),
    ("rate", "nan", "rate is 'nan'; expected a number."),
    ("rate", math.nan, "rate is nan; expected a number."),
    ("rate", 10**400, "; expected a number."),
    ("flag", 1, "flag is 1; expected true or false."),
    ("flag", "yes", "flag is 'yes'; expected true or false."),
    ("text", 5, "text is 5; expected text."),
    ("kind", "meen", 'kind is "meen", which it cannot be. Did you mean "mean"?'),
    ("kind", "zzz", 'kind is "zzz", which it cannot be. Known: mean, sum.'),
    ("choice", "meen", 'choice is "meen", which it cannot be. Did you mean "mean"?'),
    ("limit", "x", "limit is 'x'; expected a whole number or none."),
    ("sizes", [1, "x"], "sizes is 'x'; expected a whole number."),
    ("inner", 3, "inner is 3; expected Inner."),
    ("inner", {"dmi": 3}, 'unknown key "dmi" under inner. Did you mean "dim"?'),
    ("cuont", 3, 'unknown key "cuont". Did you mean "count"?'),
]


@pytest.mark.parametrize(("key", "given", "sentence"), BAD)
def test_wrong_value_is_refused_with_what_was_expected(key, given, sentence):
    with pytest.raises(ConfigError) as error:
        options.build(Outer, {key: given})
    assert str(error.value).endswith(sentence)


def test_place_is_named():
    with pytest.raises(ConfigError, match=r'^unknown key "cuont" in my\.toml\. Did you mean'):
        options.build(Outer, {"cuont": 1}, where=" in my.toml")
    with pytest.raises(ConfigError, match=r"^count is 'x' in my\.toml; expected a whole number"):
        options.build(Outer, {"count": "x"}, where=" in my.toml")
    with pytest.raises(ConfigError, match=r'^unknown key "dmi" under inner in my\.toml\.'):
        options.build(Outer, {"inner": {"dmi": 1}}, where=" in my.toml")


def test_known_words_are_listed_when_none_is_near():
    assert did_you_mean("zzz", ["b", "a"]) == " Known: a, b."
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("lightgc", ["ease", "lightgcn"]) == ' Did you mean "lightgcn"?'


names = st.text("abcdefgh ü\"'\\\n", max_size=6)


@given(
    st.builds(
        Outer,
        count=st.integers(-(2**60), 2**60),
        rate=st.floats(allow_nan=False),
        flag=st.booleans(),
        text=names,
        kind=st.sampled_from(["mean", "sum"]),
        limit=st.none() | st.integers(0, 9),
        choice=st.none() | st.sampled_from(["mean", "sum"]),
        sizes=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        names=st.lists(names, max_size=3).map(tuple),
        inner=st.builds(Inner, dim=st.integers(1, 9), rates=st.just((0.5,))),
    )
)
def test_toml_and_json_give_back_what_was_written(tmp_path_factory, config):
    values = {name: getattr(config, name) for name in options.hints(Outer)}
    file = tmp_path_factory.getbasetemp() / "round.toml"
    options.write_toml(file, values)
    assert options.build(Outer, options.read_toml(file)) == config
    assert options.build(Outer, json.loads(json.dumps(options.plain(values)))) == config


def test_none_is_the_word_none_in_a_file(tmp_path):
    options.write_toml(tmp_path / "a.toml", {"limit": None, "sizes": (1, 2)})
    assert (tmp_path / "a.toml").read_text().splitlines()[0] == 'limit = "none"'
    assert options.read_toml(tmp_path / "a.toml") == {"limit": "none", "sizes": [1, 2]}


@pytest.mark.parametrize("content", [b"a = ", b"= 3", b"a = 1\na = 2", b"a = '\xff'"])
def test_malformed_toml_is_named(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml is not readable TOML: "):
        options.read_toml(tmp_path / "bad.toml")


def test_missing_toml_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file: .*gone\.toml\."):
        options.read_toml(tmp_path / "gone.toml")


def test_doc_lines_are_those_under_the_fields():
    found = options.describe(Outer)
    assert found["count"] == "How many."
    assert "text" not in found  # it has none, and does not borrow the next one
    assert options.describe(Inner)["rates"] == "Rates on two lines."
    assert options.describe(TrainConfig).keys() == options.hints(TrainConfig).keys()


def test_doc_lines_of_a_class_without_source_are_none():
    scope: dict = {"dataclass": dataclass}
    exec("@dataclass\nclass Made:\n    dim: int = 1\n    'Width.'\n", scope)
    assert options.describe(scope["Made"]) == {}


def test_merge_gives_each_class_its_own_fields():
    outer, train = options.merge([Outer, TrainConfig], {"count": 4, "epochs": "5"})
    assert (outer.count, train.epochs) == (4, 5)
    with pytest.raises(
        ConfigError, match=r'unknown key "epoch" in a\.toml\. Did you mean "epochs"'
    ):
        options.merge([Outer, TrainConfig], {"epoch": 5}, where=" in a.toml")


# ---- which source wins, through the command line -------------------------------------------------

ROWS = [
    # file, flags, expected epochs, expected slope
    ("", ["--epochs", "1"], 1, 1.0),
    ("", ["--preset", "short"], 2, 3.0),
    ('preset = "short"', [], 2, 3.0),
    ('preset = "short"\nepochs = 3', [], 3, 3.0),
    ('preset = "short"\nslope = 2.0', [], 2, 2.0),
    ("epochs = 3", ["--preset", "short"], 3, 3.0),
    ("epochs = 3", ["--epochs", "4"], 4, 1.0),
    ('preset = "short"\nepochs = 3\nslope = 2.0', ["--epochs", "4"], 4, 2.0),
    ('preset = "short"', ["--preset", "long"], 5, 3.0),
    ("epochs = 3", ["--preset", "long", "--slope", "4"], 3, 4.0),
]


@pytest.mark.parametrize(("file", "flags", "epochs", "slope"), ROWS)
def test_command_line_beats_file_beats_preset_beats_default(
    scripted, cli, file, flags, epochs, slope
):
    Path("my.toml").write_text(f'data = "x"\n{file}\n')
    answer = cli("train", "scripted", "--config", "my.toml", "--out", "run", "--json", *flags)
    assert (answer.code, json.loads(answer.out)["epoch"]) == (0, epochs)
    written = options.read_toml("run/config.toml")
    assert (written["epochs"], written["slope"], written["data"]) == (epochs, slope, "x")
    assert json.loads(cli("info", "run", "--json").out)["config"]["slope"] == slope


def test_written_config_makes_the_same_run_again(scripted, cli):
    words = ["--data", "x", "--preset", "long", "--scores", "0.1", "0.9", "--out", "a"]
    assert cli("train", "scripted", *words).code == 0
    assert cli("train", "scripted", "--config", "a/config.toml", "--out", "b").code == 0
    assert Path("a/config.toml").read_text() == Path("b/config.toml").read_text()


def test_default_of_epochs_is_used_when_nobody_says_more(scripted, cli):
    answer = cli("train", "scripted", "--data", "x", "--patience", "1", "--out", "run", "--json")
    assert answer.code == 0
    written = options.read_toml("run/config.toml")
    assert (written["epochs"], written["slope"]) == (TrainConfig().epochs, 1.0)


def test_config_of_another_task_is_refused(scripted, cli):
    Path("my.toml").write_text('task = "counted"\ndata = "x"\n')
    answer = cli("train", "scripted", "--config", "my.toml")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == 'ConfigError: my.toml is for another task, not "scripted".\n'


def test_unknown_key_in_a_file_names_the_file(scripted, cli):
    Path("my.toml").write_text('data = "x"\nsloep = 3\n')
    answer = cli("train", "scripted", "--config", "my.toml")
    assert answer.code == 2
    assert answer.err == 'ConfigError: unknown key "sloep" in my.toml. Did you mean "slope"?\n'
