import itertools
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import networkx
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import (
    RandomTrace,
    Schedule,
    Shutdowns,
    WindowTrace,
    gantt_html,
    gantt_layout,
    gantt_svg,
    plot_gantt,
    print_gantt,
    save_gantt,
)
from gnnlab.tasks.dispatch.gantt import job_color, nice_ticks, text_color
from gnnlab.tasks.dispatch.schedule import Mode

SVG = "{http://www.w3.org/2000/svg}"


def plan(rows: list[list[int]], mode: Mode = "bws", name: str = "hand") -> Schedule:
    return Schedule(name, mode, max(row[4] for row in rows), np.array(rows))


# Two jobs that swap machines at 3; in the second, machine 1 is down on [3, 6) and the swap waits.
SWAP = plan([[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]])
LATE = plan([[0, 0, 0, 0, 3, 6], [0, 1, 1, 6, 8, 8], [1, 0, 1, 0, 3, 6], [1, 1, 0, 6, 8, 8]])
DOWN = WindowTrace([[(7, 20)], [(3, 6), (8, 9)]])


def ties(rows: list[list[int]], mode: Mode = "bws") -> list[tuple[int, tuple[int, ...]]]:
    return [(tie.time, tie.machines) for tie in gantt_layout(plan(rows, mode)).ties]


def big(num_jobs: int, num_machines: int) -> Schedule:
    """Every job visits the machines in order; each stay is 7 of work and 3 of blocking."""
    rows = [
        [j, k, k, 10 * (j + k), 10 * (j + k) + 7, 10 * (j + k) + 10 - 3 * (k == num_machines - 1)]
        for j, k in itertools.product(range(num_jobs), range(num_machines))
    ]
    return plan(rows, name=f"{num_jobs}x{num_machines}")


def test_bars_of_the_hand_case_are_where_the_schedule_says() -> None:
    layout = gantt_layout(SWAP)
    assert layout.row_labels == ["M0", "M1"]
    assert [tuple(bar) for bar in layout.bars] == [
        (0, 0, 0, 0, 0, 3, 3),
        (1, 0, 1, 1, 3, 5, 5),
        (1, 1, 0, 1, 0, 3, 3),
        (0, 1, 1, 0, 3, 5, 5),
    ]
    assert [bar.label for bar in layout.bars] == ["0.0", "0.1", "1.0", "1.1"]
    assert (layout.makespan, layout.horizon, layout.title) == (5, 5, "hand (bws)")


def test_a_swap_ties_the_rows_of_its_machines_or_jobs() -> None:
    assert [tuple(tie) for tie in gantt_layout(SWAP).ties] == [(3, (0, 1), (0, 1), (0, 1), 0)]
    jobs = plan([[2, 0, 0, 0, 3, 3], [2, 1, 1, 3, 5, 5], [7, 0, 1, 0, 3, 3], [7, 1, 0, 3, 5, 5]])
    layout = gantt_layout(jobs, by="job")
    assert layout.row_labels == ["J2", "J7"]
    assert [tuple(tie) for tie in layout.ties] == [(3, (0, 1), (0, 1), (2, 7), 0)]


def test_shutdowns_are_cut_to_the_makespan() -> None:
    downs = gantt_layout(LATE, DOWN).downs
    assert [tuple(down) for down in downs] == [(0, 0, 7, 8), (1, 1, 3, 6)]


def test_rows_of_jobs_show_the_shutdowns_of_the_machine_they_are_on() -> None:
    downs = gantt_layout(LATE, DOWN, by="job").downs
    # Job 1 blocks machine 1 while it is down, and is on machine 0 from 6 on.
    assert [tuple(down) for down in downs] == [(1, 1, 3, 6), (1, 0, 7, 8)]


def test_random_traces_are_asked_only_as_far_as_the_chart_goes() -> None:
    trace = RandomTrace(3, Shutdowns(prob=0.3, low=1, high=3))
    downs = gantt_layout(LATE, trace).downs
    assert downs
    assert all(0 < down.start < down.stop <= 8 for down in downs)
    expected = RandomTrace(3, Shutdowns(prob=0.3, low=1, high=3)).until(2, 8).windows
    assert [(d.machine, d.start) for d in downs] == [
        (k, a) for k, row in enumerate(expected) for a, _ in row
    ]


def test_a_rotation_of_three_is_one_swap() -> None:
    rows = [row for j in range(3) for row in ([j, 0, j, 0, 1, 1], [j, 1, (j + 1) % 3, 1, 2, 2])]
    assert ties(rows) == [(1, (0, 1, 2))]


def test_two_swaps_at_once_get_lines_side_by_side() -> None:
    targets = [2, 3, 0, 1]
    rows = [row for j in range(4) for row in ([j, 0, j, 0, 1, 1], [j, 1, targets[j], 1, 2, 2])]
    assert [(t.machines, t.lane) for t in gantt_layout(plan(rows)).ties] == [
        ((0, 2), 0),
        ((1, 3), 1),
    ]


def test_a_chain_of_moves_into_a_free_machine_is_no_swap() -> None:
    rows = [row for j in range(3) for row in ([j, 0, j, 0, 1, 1], [j, 1, j + 1, 1, 2, 2])]
    assert ties(rows) == []


def test_jobs_that_leave_through_buffers_do_not_swap() -> None:
    assert ties(SWAP.ops.tolist(), "jssp") == []
    # A gap between departure and start, too, is no exchange.
    assert (
        ties([[0, 0, 0, 0, 3, 3], [0, 1, 1, 4, 6, 6], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]) == []
    )


def test_passing_an_empty_machine_in_no_time_makes_no_swap_of_a_chain() -> None:
    # Job 0: machine 0, no time on machine 1, machine 2. Job 1 goes from machine 2 to machine 0:
    # after job 0 has moved to machine 1, job 1 can move to machine 0, and then job 0 to machine 2.
    rows = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 3, 3], [0, 2, 2, 3, 5, 5]]
    assert ties([*rows, [1, 0, 2, 0, 3, 3], [1, 1, 0, 3, 4, 4]]) == []


def test_a_job_that_came_at_the_same_instant_can_swap() -> None:
    # Job 1 reaches machine 1 at 3, needs no time there and wants machine 0; job 0 wants machine 1.
    rows = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5]]
    rows += [[1, 0, 2, 0, 3, 3], [1, 1, 1, 3, 3, 3], [1, 2, 0, 3, 4, 4]]
    assert ties(rows) == [(3, (0, 1))]


def test_two_operations_in_a_row_on_a_machine_are_one_stay() -> None:
    # Job 0 works twice on machine 0, the second time for no time, before it swaps with job 1.
    rows = [[0, 0, 0, 0, 3, 3], [0, 1, 0, 3, 3, 3], [0, 2, 1, 3, 5, 5]]
    assert ties([*rows, [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]) == [(3, (0, 1))]


@given(st.permutations(range(7)), st.sets(st.integers(0, 6)))
@settings(deadline=None, max_examples=100)
def test_swaps_are_the_cycles_of_the_moves(targets: list[int], staying: set[int]) -> None:
    rows, graph = [], networkx.DiGraph()
    for j, target in enumerate(targets):
        rows.append([j, 0, j, 0, 1, 1])
        if j not in staying and target != j:
            rows.append([j, 1, target, 1, 2, 2])
            graph.add_edge(j, target)
    expected = sorted(tuple(sorted(cycle)) for cycle in networkx.simple_cycles(graph))
    assert sorted(machines for _, machines in ties(rows)) == expected


def test_operations_that_have_not_started_are_left_out() -> None:
    rows = [[0, 0, 0, 0, 3, -1], [0, 1, 1, -1, -1, -1], [1, 0, 1, 0, 4, -1]]
    layout = gantt_layout(Schedule("cut", "bns", 0, np.array(rows)))
    assert [(bar.label, bar.end, bar.depart) for bar in layout.bars] == [
        ("0.0", 3, 3),
        ("1.0", 4, 4),
    ]
    assert layout.horizon == 4


def test_a_schedule_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    empty = Schedule("", "bws", 0, np.zeros((0, 6), np.int64))
    ElementTree.fromstring(gantt_svg(empty, DOWN))
    assert print_gantt(empty, DOWN).startswith("bws, makespan 0\n")
    assert save_gantt(empty, tmp_path / "a.png", DOWN).stat().st_size > 0


def test_unknown_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'unknown rows "machines"\. Did you mean "machine"\?'):
        gantt_layout(SWAP, by="machines")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("horizon", "most", "step"),
    [(5, 5, 1), (5, 4, 2), (930, 10, 100), (930, 9, 200), (1001, 2, 1000), (1, 1, 1), (99, 0, 100)],
)
def test_ticks_are_round_numbers(horizon: int, most: int, step: int) -> None:
    assert nice_ticks(horizon, most) == list(range(0, horizon + 1, step))


def lab(color: str) -> np.ndarray:
    """CIE L*a*b* (D65) of "#rrggbb", after the formulas of CIE 15."""
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    x, y, z = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_hundred_jobs_have_colours_that_differ() -> None:
    colors = np.array([lab(job_color(j)) for j in range(100)])
    apart = np.linalg.norm(colors[:, None] - colors, axis=2) + 1e3 * np.eye(100)
    assert apart.min() > 7  # 2.3 is just noticeable
    assert apart[:10, :10].min() > 25
    assert (np.hypot(colors[:, 1], colors[:, 2]) > 8).all()  # none is a grey
    assert job_color(100) == job_color(0)


def test_labels_read_on_every_colour() -> None:
    for j in range(100):
        light = ((lab(job_color(j))[0] + 16) / 116) ** 3
        contrast = 1.05 / (light + 0.05) if text_color(j) == "#ffffff" else (light + 0.05) / 0.05
        assert contrast >= 4.5, j


def test_svg_has_a_bar_per_operation_and_says_its_times() -> None:
    root = ElementTree.fromstring(gantt_svg(LATE, DOWN))
    operations = [g for g in root.iter(f"{SVG}g") if g.get("class", "").startswith("op ")]
    assert [g.get("class") for g in operations] == ["op j0", "op j0", "op j1", "op j1"]
    assert [len(g.findall(f"{SVG}rect")) for g in operations] == [2, 1, 2, 1]
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == [
        "job 0, operation 0, machine 0: 0-3, blocked until 6",
        "job 0, operation 1, machine 1: 6-8",
        "job 1, operation 0, machine 1: 0-3, blocked until 6",
        "job 1, operation 1, machine 0: 6-8",
        "machine 0 down 7-8",
        "machine 1 down 3-6",
        "swap at 6: jobs 0, 1 on machines 0, 1",
    ]


def test_svg_places_bars_in_proportion_to_time() -> None:
    root = ElementTree.fromstring(gantt_svg(LATE, width=900))
    places = []
    for group in root.iter(f"{SVG}g"):
        if group.get("class", "").startswith("op "):
            rect = group.find(f"{SVG}rect")
            assert rect is not None
            places.append((float(rect.get("x", 0)), float(rect.get("width", 0)), rect.get("y")))
    (x0, three, top), (x6, two, bottom), *_ = places
    assert three / two == pytest.approx(3 / 2, rel=1e-3)
    assert x6 - x0 == pytest.approx(2 * three, rel=1e-3)
    assert top != bottom
    assert places[2] == (x0, three, bottom)
    assert places[3] == (x6, two, top)


def test_svg_escapes_names_and_drops_what_xml_cannot_hold() -> None:
    name = "a<b>&\"'</svg>\x00\ud800"
    schedule = Schedule(name, "bws", 5, SWAP.ops)
    root = ElementTree.fromstring(gantt_svg(schedule))
    heading = next(text for text in root.iter(f"{SVG}text") if text.get("class") == "title")
    assert heading.text == "a<b>&\"'</svg>\ufffd\ufffd (bws)"
    assert "<b>" not in gantt_html(schedule)
    assert "<i>" not in gantt_html(schedule, title="<i>")


def test_html_and_svg_ask_for_nothing_from_outside() -> None:
    for text in (gantt_svg(LATE, DOWN), gantt_html(LATE, DOWN)):
        assert "<script" not in text
        assert "@import" not in text
        assert "href" not in text
        assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
        assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#gantt-h0", "#gantt-h1"}
        assert "prefers-color-scheme:dark" in text


@pytest.mark.parametrize("by", ["machine", "job"])
def test_a_hundred_jobs_on_twenty_machines_stay_small(by: str) -> None:
    text = gantt_svg(big(100, 20), by=by)  # type: ignore[arg-type]
    assert len(text) < 1_000_000
    root = ElementTree.fromstring(text)
    assert sum(g.get("class", "").startswith("op ") for g in root.iter(f"{SVG}g")) == 2000
    assert float(root.get("height", 0)) >= 12 * (100 if by == "job" else 20)
    if by == "job":
        assert not [text for text in root.iter(f"{SVG}text") if text.get("class") == "label"]


def test_text_chart_of_the_hand_case() -> None:
    # 19 columns for 8 units of time make 2 columns each.
    expected = """\
hand (bws), makespan 8
M0   |000000------11!!|
M1   |111111!!!!!!0000|
swap |            ^   |
      0   2   4   6   8"""
    assert print_gantt(LATE, DOWN, width=26) == expected


def test_text_chart_of_jobs_with_buffers_has_no_line_of_swaps() -> None:
    schedule = plan([[0, 0, 1, 2, 4, 4], [10, 0, 0, 0, 1, 1]], "jssp")
    expected = """\
hand (jssp), makespan 4
J0  |        00000000|
J10 |aaaa            |
     0   1   2   3   4"""
    assert print_gantt(schedule, width=22, by="job") == expected


def test_text_chart_shows_short_operations_where_there_is_room() -> None:
    # 16 columns for 160: operation 0.0 misses every middle; 1.0 takes no time and finds no room.
    schedule = plan([[0, 0, 0, 0, 2, 60], [0, 1, 1, 60, 160, 160], [1, 0, 1, 75, 75, 75]])
    expected = """\
hand (bws), makespan 160
M0 |0-----          |
M1 |      0000000000|
    0         100"""
    assert print_gantt(schedule, width=21) == expected


@pytest.mark.parametrize("width", [20, 37, 100])
def test_text_charts_keep_to_their_width(width: int) -> None:
    lines = print_gantt(big(30, 8), width=width).splitlines()[1:]
    assert max(map(len, lines)) <= width
    assert {len(line) for line in lines[:-1]} == {width}
    with pytest.raises(ConfigError, match="width 19"):
        print_gantt(SWAP, width=19)


def test_figures_have_a_patch_per_part_and_leave_pyplot_alone() -> None:
    figure, axes = plot_gantt(LATE, DOWN)
    assert len(axes.patches) == 4 + 2 * 2 + 2  # bars, tint and hatch of blocked parts, shutdowns
    widths = [patch.get_width() for patch in axes.patches[:4]]
    assert widths == [3, 2, 3, 2]
    assert sum(bool(patch.get_hatch()) for patch in axes.patches) == 2
    assert [label.get_text() for label in axes.get_yticklabels()] == ["M0", "M1"]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["processing", "blocked", "machine down", "swap", "J0", "J1"]
    assert {"0.0", "0.1", "1.0", "1.1", "makespan 8"} <= {text.get_text() for text in axes.texts}
    again, other = plot_gantt(SWAP, by="job", ax=figure.add_subplot(2, 1, 2))
    assert again is figure
    assert other is not axes


def test_pyplot_is_never_imported_nor_matplotlib_for_svg(tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
from gnnlab.tasks.dispatch import Schedule, save_gantt
plan = Schedule("$x_", "bws", 3, np.array([[0, 0, 0, 0, 2, 3], [0, 1, 1, 3, 3, 3]]))
for name in ("a.svg", "a.html"):
    save_gantt(plan, {str(tmp_path)!r} + "/new/" + name)
assert "matplotlib" not in sys.modules
save_gantt(plan, {str(tmp_path)!r} + "/new/a.PNG", title="$bad")
save_gantt(plan, {str(tmp_path)!r} + "/new/a.pdf", by="job")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    begins = {path.name: path.read_bytes()[:4] for path in (tmp_path / "new").iterdir()}
    assert begins == {"a.svg": b"<svg", "a.html": b"<!DO", "a.PNG": b"\x89PNG", "a.pdf": b"%PDF"}


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'ends in "\.svgz".*Did you mean "\.svg"\?'):
        save_gantt(SWAP, tmp_path / "new" / "a.svgz")
    assert not (tmp_path / "new").exists()
