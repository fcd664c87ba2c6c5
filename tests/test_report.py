"""Tables and the one-file report."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, strategies as st

from gnnlab import compare
from gnnlab.report import _ticks, html_report, line_chart, markdown_table, text_table

HOSTILE = "<script src=\"http://evil\">alert('&')</script>"


class Reader(HTMLParser):
    """Collects tags and text, and checks that tags are closed in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page(tmp_path, **changes):
    given = {
        "title": "Title",
        "facts": {"users": 3},
        "rows": [{"model": "a", "ndcg@20": 0.25}, {"model": "b", "ndcg@20": 0.5}],
        "columns": ["model", "ndcg@20"],
        "charts": {"loss": [("a", [1, 2, 3], [3.0, 2.0, 1.5])]},
    }
    file = html_report(tmp_path / "new" / "report.html", **{**given, **changes})
    return file.read_text(encoding="utf-8")


def assert_self_contained(text):
    reader = Reader(text)
    for tag, attributes in reader.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed")
        assert not {"src", "href", "srcset", "data", "onload"} & attributes.keys()
        for name, value in attributes.items():
            if name != "xmlns":  # a name, never loaded
                assert "://" not in (value or "")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return reader


def test_report_is_one_file_that_loads_nothing(tmp_path):
    reader = assert_self_contained(page(tmp_path, commands=["gnnlab train x"], notes=["Look."]))
    assert {"Title", "loss", "gnnlab train x", "Look.", "users", "3"} <= set(reader.text)


def test_hostile_names_are_shown_as_text(tmp_path):
    curves = {HOSTILE: [(HOSTILE, [1, 2], [1.0, 2.0])]}
    text = page(
        tmp_path,
        title=HOSTILE,
        facts={HOSTILE: HOSTILE},
        rows=[{HOSTILE: HOSTILE}],
        columns=[HOSTILE],
        charts=curves,
        notes=[HOSTILE],
        commands=[HOSTILE],
    )
    reader = assert_self_contained(text)
    assert "<script" not in text
    # <title>, h1, note, th, td, caption, two point titles, legend, fact name, fact, command
    assert sum(HOSTILE in part for part in reader.text) == 12


def test_braces_in_names_are_no_format_fields(tmp_path):
    assert "{body} {0} {{x}}" in page(tmp_path, title="{body} {0} {{x}}")


def test_best_value_of_a_metric_is_bold(tmp_path):
    text = page(tmp_path)
    assert "<b>0.5000</b>" in text
    assert "<b>0.2500</b>" not in text


def test_empty_charts_are_left_out(tmp_path):
    text = page(tmp_path, charts={"none": [("a", [], [])], "nan": [("a", [1], [math.nan])]})
    assert "<svg" not in text
    assert "<figcaption>" not in text


def test_chart_is_xml_and_draws_each_point_where_it_belongs():
    svg = line_chart([("a", [1, 2, 3], [0.0, 0.5, 1.0]), ("b", [1, 3], [1.0, 0.0])])
    root = ElementTree.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    width, height = map(float, root.get("viewBox").split()[2:])
    lines = root.findall(f"{space}polyline")
    points = [tuple(map(float, p.split(","))) for p in lines[0].get("points").split()]
    assert len(points) == 3
    assert len(lines[1].get("points").split()) == 2
    (x1, y1), (x2, y2), (x3, y3) = points
    assert x2 - x1 == pytest.approx(x3 - x2)  # epochs 1, 2, 3 and values 0, .5, 1 are on a line
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert 0 < x1 < x3 < width
    assert 0 < y3 < y1 < height
    titles = [t.text for t in root.iter(f"{space}title")]
    assert titles[0] == "a, epoch 1: 0"
    assert len(titles) == 5


def test_values_that_are_not_finite_are_left_out():
    root = ElementTree.fromstring(line_chart([("a", [1, 2, 3], [1.0, math.nan, math.inf])]))
    assert len([t for t in root.iter() if t.tag.endswith("circle")]) == 1


finite = st.floats(-1e15, 1e15, allow_subnormal=False)


@given(finite, finite)
def test_ticks_are_few_round_and_enclose_the_values(one, two):
    low, high = min(one, two), max(one, two)
    ticks = _ticks(low, high)
    span = max(high - low, abs(high) * 1e-9) or 1.0
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= high - 1e-6 * span


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.25, 0.5, 0.75, 1.0]),
        (0.1, 0.4, [0.1, 0.2, 0.3, 0.4]),
        (3, 17, [0, 5, 10, 15, 20]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0.0, 0.0, [0, 0.25]),
        (1e-14, 4e-14, [1e-14, 2e-14, 3e-14, 4e-14]),
    ],
)
def test_ticks_are_what_a_person_would_draw(low, high, expected):
    assert _ticks(low, high) == expected


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(allow_nan=True)), max_size=6))
@example([(1, 1.7976931345e308)])
@example([(1, 5e-324)])
def test_any_curve_draws_or_is_left_out(points):
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    svg = line_chart([("a", xs, ys)])
    if svg:
        assert not re.search(
            r"\b(nan|inf)\b", ElementTree.tostring(ElementTree.fromstring(svg)).decode()
        )


ROWS = [
    {"model": "ease", "ndcg": 0.5, "epochs": None},
    {"model": "a-long-name", "ndcg": 12.0, "epochs": 100},
]


def test_table_is_aligned_words_left_numbers_right():
    assert text_table(ROWS, ["model", "ndcg", "epochs"]).splitlines() == [
        "model           ndcg  epochs",
        "ease          0.5000       -",
        "a-long-name  12.0000     100",
    ]


def test_table_of_no_rows_is_its_head():
    assert text_table([], ["a", "b"]) == "a  b"


def test_markdown_table_has_the_same_cells():
    assert markdown_table(ROWS, ["model", "ndcg", "missing"]).splitlines() == [
        "| model | ndcg | missing |",
        "|---|---|---|",
        "| ease | 0.5000 | - |",
        "| a-long-name | 12.0000 | - |",
    ]


def test_comparison_says_when_a_trained_model_loses_and_its_page_is_whole(scripted, tmp_path):
    class Beside(scripted.Scripted):
        """Has a baseline that scores 0.9."""

        baselines = {"simple": {"scores": (0.9,)}}  # noqa: RUF012

    models = [{"name": "trained", "slope": 2.0}]
    common = {"epochs": 3, "eval_every": 1}
    found = compare(Beside, "x", models, common, out=tmp_path / "c", progress=False)
    assert found.warnings() == ["trained loses to simple here: test score 0.5000 against 0.9000."]
    assert [line["model"] for line in found.lines()] == ["simple *", "trained"]
    file = found.save(tmp_path / "c", title="Two")
    reader = assert_self_contained(file.read_text(encoding="utf-8"))
    assert "trained loses to simple here: test score 0.5000 against 0.9000." in reader.text
    assert (tmp_path / "c" / "comparison.json").is_file()
