"""`gnnlab bench ops`: equality comes first, absent peers are named, targets are counted."""

from __future__ import annotations

import json
import math
import time
import xml.dom.minidom

import numpy as np
import pytest
import torch

from gnnlab.bench import ops as bench, peers
from gnnlab.bench._backward import backward
from gnnlab.bench._cases import forward
from gnnlab.bench._machine import Call, measure, peak_memory
from gnnlab.bench._setting import Setting, some
from gnnlab.bench.graphs import BenchGraph, all_graphs, mostly_empty, power_law, star
from gnnlab.bench.page import write_page
from gnnlab.bench.plot import svg
from gnnlab.bench.targets import TARGETS, summary
from gnnlab.cli import main
from gnnlab.errors import ConfigError

TINY = BenchGraph("t tiny", torch.tensor([[0, 2, 1, 2, 0], [1, 0, 1, 1, 3]]), 3, 4)


@pytest.fixture(scope="module")
def quick():
    """One run on the smallest graph against torch and numpy, and the seconds it took."""
    start = time.perf_counter()
    result = bench.run(quick=True, compare="torch,numpy", graphs=["d"])
    return result, time.perf_counter() - start


# ---- graphs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", all_graphs())
def test_graphs_are_the_same_every_time_and_in_range(name):
    first, second = (all_graphs(quick=True)[name]() for _ in range(2))
    assert torch.equal(first.edge_index, second.edge_index)
    assert first.edge_index.is_contiguous()
    for row, size in zip(first.edge_index, (first.num_src, first.num_dst), strict=True):
        assert row.min() >= 0
        assert row.max() < size


def test_hard_graphs_are_hard():
    assert star(7).edge_index[1].tolist() == [0] * 7
    graph = mostly_empty(1_000, 5_000)
    assert (graph.edge_index[1].bincount(minlength=1_000) == 0).float().mean() > 0.89
    degrees = power_law(1_000, 20_000).edge_index[1].bincount(minlength=1_000)
    assert degrees.max() > 8 * degrees.float().mean()


# ---- formulas ------------------------------------------------------------------------------------


def test_formulas_agree_with_sums_by_hand():
    s = Setting(TINY)
    x = torch.tensor([[1.0], [10.0], [100.0]])
    terms = s.terms(x, some(1))
    assert s.reduce(terms).ravel().tolist() == [100, 111, 0, 1]
    assert s.reduce(terms, "mean").ravel().tolist() == [100, 37, 0, 1]
    assert s.reduce(terms, "max").ravel().tolist() == [100, 100, 0, 1]
    assert s.to_sources(np.array([[1.0], [2.0], [4.0], [8.0], [16.0]])).ravel().tolist() == [
        17,
        4,
        10,
    ]
    share = s.softmax(torch.zeros(5, 1)).ravel()
    assert share == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3, 1])


def test_all_of_the_gradient_of_a_tied_maximum_goes_to_the_first_edge():
    s = Setting(TINY)
    x = torch.tensor([[5.0], [1.0], [5.0]])  # edges 0 (source 0) and 3 (source 2) tie in row 1
    grad = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    assert s.max_gradient(x, grad, some(1)).ravel().tolist() == [10, 0, 1]


def test_columns_that_are_compared_hold_the_ends():
    assert some(1).tolist() == [0]
    assert {0, 255} < set(some(256))
    assert len(some(0)) == 0


# ---- cases and peers -----------------------------------------------------------------------------


def cases(setting, width=3):
    yield from forward(setting, (width,))
    yield from backward(setting, (width,))


def test_every_target_has_a_case():
    found = {case.op for case in cases(Setting(TINY))}
    assert set(TARGETS) <= found


def differs(case, call):
    result, _ = call.timed(time.thread_time)
    return bench.difference(np.asarray(case.pick(result)), np.asarray(case.want()), case.tolerance)


def installed(name):
    _, missing = peers.families((name,))
    return pytest.param(
        name, marks=pytest.mark.skipif(bool(missing), reason=str(missing.get(name)))
    )


@pytest.mark.parametrize("name", [installed(name) for name in peers.FAMILIES])
def test_every_method_of_a_peer_belongs_to_a_case_and_gives_the_right_result(name):
    classes, _ = peers.families((name,))
    setting = Setting(all_graphs(quick=True)["empty"]())
    family = classes[name](setting)
    methods = {m for m in vars(classes[name]) if not m.startswith("_") and m != "name"}
    used = set()
    for case in cases(setting, 5):
        calls, reason = peers.calls_of(family, case)
        assert reason is None, f"{case.op}: {reason}"
        used |= {case.method} & methods
        for label, call in calls.items():
            assert differs(case, call) == "", f"{case.op}: {label}"
    assert used == methods


def test_absent_peer_is_skipped_with_a_reason(monkeypatch):
    absent = ("gnnlab.bench.peers._dgl", "no_such_module", "no-such-package")
    monkeypatch.setitem(peers.FAMILIES, "dgl", absent)
    result = bench.run(quick=True, compare="dgl", graphs=["d"], only="spmm mean")
    assert result["skipped"] == {"dgl": "no-such-package is not installed"}
    assert [row["ratio"] for row in result["rows"]] == [None]
    assert "skipped dgl: no-such-package is not installed" in bench.table(result)


def test_peer_that_breaks_at_import_is_skipped_with_its_error(monkeypatch):
    broken = ("gnnlab.bench.peers._dgl", "no_such_module", "torch")
    monkeypatch.setitem(peers.FAMILIES, "dgl", broken)
    found, missing = peers.families(("dgl",))
    assert found == {}
    assert "cannot be imported: No module named 'no_such_module'" in missing["dgl"]


class Liar:
    """A peer that is fast and wrong, refuses one case and fails at another."""

    name = "torch"

    def __init__(self, setting):
        self.setting = setting

    def spmm_sum(self, case):
        return {"liar": lambda: case.inputs["x"].new_zeros(self.setting.m, 64)}

    def spmm_mean(self, case):
        raise peers.Refused("no means here")

    def spmm_max(self, case):
        def fail():
            raise RuntimeError("not implemented for 'Float'")

        return {"failing": fail}


def test_wrong_peer_is_an_error_and_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "families", lambda names: ({"torch": Liar}, {}))
    result = bench.run(quick=True, compare="torch", graphs=["d"], only="spmm")
    name = "64 on d small graphs"
    assert list(result["errors"]) == [f"liar, spmm sum {name}"]
    assert "another result" in result["errors"][f"liar, spmm sum {name}"]
    assert result["skipped"][f"torch, spmm mean {name}"] == "no means here"
    assert "not implemented" in result["skipped"][f"failing, spmm max {name}"]
    assert all(row["peers"] == {} for row in result["rows"])


def test_wrong_peer_ends_the_command_with_1(monkeypatch, capsys):
    monkeypatch.setattr(bench, "families", lambda names: ({"torch": Liar}, {}))
    words = ["bench", "ops", "--quick", "--compare", "torch", "--graphs", "d", "--quiet", "--only"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "spmm sum"])
    assert stop.value.code == 1
    assert "ERROR liar, spmm sum 64" in capsys.readouterr().out


def test_wrong_result_of_ours_ends_the_run(monkeypatch):
    monkeypatch.setattr(bench.ops, "segment", lambda src, indptr, reduce: src[: len(indptr) - 1])
    with pytest.raises(RuntimeError, match="segment sum 64 on d small graphs: gnnlab gives"):
        bench.run(quick=True, compare="torch", graphs=["d"], only="segment sum")


def test_not_a_number_is_a_difference():
    case = next(c for c in cases(Setting(TINY)) if c.op == "spmm sum")
    call = Call(lambda: torch.full((4, 3), math.nan))
    assert "12 of 12 values" in differs(case, call)


# ---- the whole -----------------------------------------------------------------------------------


def test_quick_run_of_one_graph_takes_seconds_and_covers_all_targets(quick):
    result, seconds = quick
    assert seconds < 10
    assert result["errors"] == {}
    rows = {row["op"]: row for row in result["rows"]}
    left = {op for op in TARGETS if op not in rows} - set(result["skipped"])
    assert not left
    assert rows["spmm sum"]["ratio"] == pytest.approx(
        min(rows["spmm sum"]["peers"].values()) / rows["spmm sum"]["ms"], rel=1e-3
    )
    size = 8 * 6401 + 4 * 19200 + 64 * 4 * (19200 + 6400)
    assert rows["spmm sum"]["gb_s"] == pytest.approx(size / rows["spmm sum"]["ms"] / 1e6, rel=1e-3)


def test_result_file_table_page_and_picture(quick, tmp_path):
    result, _ = quick
    bench.write(tmp_path / "ops.json", result)
    assert json.loads((tmp_path / "ops.json").read_text("utf-8")) == json.loads(json.dumps(result))
    text = bench.table(result)
    assert "geometric mean over operators" in text
    assert "call on 4 nodes, spmm:" in text
    page = write_page(tmp_path, tmp_path / "docs" / "page.md").read_text("utf-8")
    assert page.index("| operator | least |") < page.index("### Graph d small graphs")
    drawn = (tmp_path / "docs" / "images" / "ops.svg").read_text("utf-8")
    assert drawn == svg(json.loads(json.dumps(result)))
    words = {
        node.firstChild.data
        for node in xml.dom.minidom.parseString(drawn).getElementsByTagName("text")
    }
    assert set(TARGETS) - set(result["skipped"]) <= words


def test_summary_counts_hits_by_least_and_mean():
    ratios = {"a power-law": 1.3, "b mesh": 1.9, "star": 0.1}
    rows = [
        {"op": "spmm sum", "graph": graph, "width": "64", "ratio": ratio, "plain": 10.0}
        for graph, ratio in ratios.items()
    ]
    line = summary(rows)[0]
    assert (line["least"], line["on"], line["hit"], line["odd"]) == (1.3, "a power-law", False, 0.1)
    assert line["mean"] == pytest.approx(math.sqrt(1.3 * 1.9))  # 1.57 misses 1.6
    assert line["plain"] == pytest.approx(10)
    rows[1]["ratio"] = 2.0
    assert summary(rows)[0]["hit"]
    rows.append({"op": "spmm sum", "graph": "b mesh", "width": "1", "ratio": 0.5})
    assert summary(rows)[0]["least"] == 1.3
    assert summary(rows)[0]["F=1"] == pytest.approx(0.5)


def spin(taken, name, ms):
    """A call that computes for some milliseconds and counts how often it ran."""

    def run():
        taken[name] = taken.get(name, 0) + 1
        end = time.thread_time() + ms / 1e3
        while time.thread_time() < end:
            pass

    return Call(run)


def test_slow_calls_take_few_turns_and_ours_takes_all():
    taken = {}
    first = {"ours": 3, "fast": 2, "slow": 12, "hopeless": 60}
    calls = {name: spin(taken, name, ms) for name, ms in first.items()}
    times = measure(calls, first, wall=False)
    assert taken == {"ours": 7, "fast": 7, "slow": 1, "hopeless": 1}
    assert 12 <= times["slow"].median < 24
    assert times["ours"].least >= 3
    taken.clear()
    measure({"ours": spin(taken, "ours", 60), "fast": spin(taken, "fast", 2)}, first, wall=False)
    assert taken["ours"] == 7


def test_slow_first_run_is_forgiven():
    taken = {}
    first = {"ours": 2, "fast": 2, "lazy": 1000}
    times = measure({name: spin(taken, name, 2) for name in first}, first, wall=False)
    assert taken == {"ours": 7, "fast": 7, "lazy": 7}
    assert times["lazy"].median < 10


def test_peak_memory_sees_what_was_freed_again():
    def run():
        torch.ones(16 << 20)  # 64 MB that no result holds
        return torch.ones(8 << 20)

    peak = peak_memory(Call(run))
    if peak is None:
        pytest.skip("the system does not count pages")
    assert 60 < peak < 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "cake"], 'unknown peers "cake". Known: torch'),
        (["--graphs", "z"], 'unknown graphs "z". Known: a, b'),
        (["--threads", "many"], '--threads takes positive numbers, got "many"'),
        (["--widths", "0"], '--widths takes positive numbers, got "0"'),
    ],
)
def test_wrong_options_are_named(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "ops", *words])
    assert stop.value.code != 0
    assert message in capsys.readouterr().err


def test_unknown_peer_is_a_config_error():
    with pytest.raises(ConfigError, match="cake"):
        bench.run(compare="cake")
