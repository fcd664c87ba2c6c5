"""`gnnlab bench dispatch`: what it measures agrees with other sources, and the page shows it."""

from __future__ import annotations

import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from gnnlab.bench import dispatch as text
from gnnlab.bench.page import write_page
from gnnlab.cli import main
from gnnlab.errors import ConfigError, DataError
from gnnlab.tasks.dispatch import (
    JobShopInstance,
    ShopOptions,
    bench,
    datasets,
    dispatch,
    parse_rule,
)
from gnnlab.tasks.dispatch._native import shop_library
from gnnlab.tasks.dispatch.bench import policies, rules, shutdowns, simulator
from gnnlab.tasks.dispatch.bench._common import gaps, rule_makespans

ENVIRONMENT = {
    "date": "2026-01-01",
    "python": "3.11.0",
    "versions": {"gnnlab": "0.1"},
    "processor": "a processor",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "kernels": "native",
    "git_commit": None,
}


def _on_this_machine():
    try:
        datasets.find("ft06")
    except DataError:
        return False
    return True


compiled = pytest.mark.skipif(shop_library() is None, reason="no compiled kernels")
classical = pytest.mark.skipif(not _on_this_machine(), reason="no classical instances")


# ---- paired comparisons -------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 30, 99, 1999])
def test_quantiles_are_those_of_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    for inside in (0.5, 0.95, 0.99):
        wanted = stats.t.ppf((1 + inside) / 2, freedom)
        assert shutdowns.student_quantile(freedom, inside) == pytest.approx(wanted, rel=1e-9)


def test_paired_gives_the_interval_of_scipys_paired_test():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    rule = rng.integers(900, 1100, (5, 20))
    policy = rule - rng.integers(-5, 20, (5, 20))
    found = bench.paired(policy, rule)
    wanted = stats.ttest_rel(rule.ravel(), policy.ravel()).confidence_interval(0.95)
    assert found["interval"] == pytest.approx((wanted.low, wanted.high))
    assert found["difference"] == pytest.approx(statistics.fmean((rule - policy).ravel()))
    assert found["pairs"] == found["win"] + found["tie"] + found["loss"] == 100
    assert found["win"] == np.count_nonzero(policy < rule)
    assert found["loss"] == np.count_nonzero(policy > rule)


def test_paired_wants_two_equal_shapes():
    with pytest.raises(DataError, match=r"shapes \(3,\) and \(2,\)"):
        bench.paired(np.ones(3), np.ones(2))
    with pytest.raises(DataError, match="at least two"):
        bench.paired(np.ones(1), np.ones(1))


# ---- rules --------------------------------------------------------------------------------------


@compiled
def test_batched_rules_with_limits_and_traces_are_those_of_the_python_simulator():
    shops = [
        JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)], [(0, 1), (1, 9)]]),
        JobShopInstance.from_jobs([[(1, 4), (0, 2)], [(1, 2), (0, 7)], [(0, 5), (1, 5)]]),
    ]
    limits = np.array([[1, 3], [2, 1]])
    traces = shutdowns.random_traces(0.1, 2, 2)
    found = rule_makespans(shops, "bws", ["SPT", "LWKR"], copies=2, traces=traces, limits=limits)
    for rule, makespans in found.items():
        for i, shop in enumerate(shops):
            for c in range(2):
                played = dispatch(shop, parse_rule(rule) @ int(limits[i, c]), traces[2 * i + c])
                assert makespans[i, c] == played.makespan


@compiled
def test_random_is_the_mean_over_its_seeds():
    shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)], [(0, 1), (1, 9)]])
    options = ShopOptions(mode="jssp")
    runs = [dispatch(shop, "RANDOM", options=options, seed=s).makespan for s in range(5)]
    found = rule_makespans([shop], "jssp", ["RANDOM"])["RANDOM"][0, 0]
    assert found == pytest.approx(statistics.fmean(runs))


@compiled
@classical
def test_quick_rules_agree_with_all_expected_figures():
    result = bench.run("rules", quick=True)
    parts = [*result["tables"], result["limits"]]
    assert [part["differences"] for part in parts] == [[]] * 4
    assert sum(part["compared"] for part in parts) == 2 * (2 * 13 * 2) + 13 + 3 * 3
    assert "All 52 expected figures agree." in text.table(result)
    free = result["limits"]["lines"]["best rule for each instance, no limit"]
    best = result["limits"]["lines"]["best rule for each instance, best limit"]
    assert all(best[column] <= free[column] for column in free)


@compiled
@classical
def test_a_figure_that_differs_is_named(monkeypatch):
    wrong = {"SPT": {"ft06": (88.0, 61.0)}, "RANDOM": {"ft06": (70.0, 30.0)}}
    table = rules._table("jssp", wrong, quick=False)
    assert table["compared"] == 2
    assert [(d["rule"], d["what"]) for d in table["differences"]] == [("SPT", "gap")]
    assert (
        text._agreement(table)
    ) == "**1 of 2 expected figures differ: SPT on ft06: 60.00, expected 61.0.**"


# ---- shutdowns ----------------------------------------------------------------------------------


@compiled
@classical
def test_quick_shutdowns_begin_at_the_exact_row_and_grow():
    result = bench.run("shutdowns", quick=True)
    (part,) = result["sets"]
    for rule, row in part["rows"].items():
        means = [cell["mean"] for cell in row.values()]
        assert means == sorted(means)
        if rule != "RANDOM" and row["0"]["expected"] is not None:
            assert means[0] == pytest.approx(row["0"]["expected"])
    assert part["mean absolute deviation"] < 3
    assert "best rule" in text.table(result)


# ---- exact and simulator ------------------------------------------------------------------------


@compiled
@classical
def test_quick_exact_proves_the_smallest_instance():
    pytest.importorskip("ortools")
    result = bench.run("exact", quick=True)
    found = [(r["mode"], s["makespan"], s["status"]) for r in result["rows"] for s in r["searches"]]
    assert found == [("jssp", 55, "optimal")] * 2 + [("bws", 63, "optimal")] * 2
    assert text.table(result).count("hit") == 2


@compiled
@classical
def test_quick_simulator_measures_ours_and_says_which_peers_are_absent():
    result = bench.run("simulator", quick=True)
    ours = [row for row in result["rows"] if row["who"] == "gnnlab"]
    assert all(row["per second"] > 1000 for row in ours)
    assert {row["mode"] for row in ours} == {"jssp", "bws"}
    for peer in ("JSSEnv", "job_shop_lib"):
        measured = any(row["who"] == peer for row in result["rows"])
        assert measured != (peer in result["skipped"])
    assert all(result["equal"].values())
    shown = text.table(result)
    assert all(f"Not measured: {peer}" in shown for peer in result["skipped"])


@compiled
def test_an_episode_of_steps_counts_every_operation():
    steps, seconds = simulator._stepper("jssp", "10x10", 3, features=True)()
    assert steps == 300
    assert seconds > 0


# ---- policies -----------------------------------------------------------------------------------


class _Spt:
    """A stand-in for a trained policy: SPT, or the best of so many random episodes."""

    def __init__(self, mode):
        self.config = SimpleNamespace(mode=mode)

    def makespans(self, instances, traces=None, samples=1, seed=0):
        rule = "SPT" if samples == 1 else "RANDOM"
        given = [None] * len(instances) if traces is None else traces
        return np.array(
            [
                min(
                    rule_makespans([i], self.config.mode, [rule], traces=[t], random_seeds=1)[rule][
                        0, 0
                    ]
                    for _ in range(samples)
                )
                for i, t in zip(instances, given, strict=True)
            ]
        )


@compiled
@classical
@pytest.mark.parametrize("mode", ["jssp", "bws"])
def test_a_policy_that_is_a_rule_gets_the_figures_of_the_rule(mode):
    result = policies.run(["here"], True, samples=(1, 2), loader=lambda folder: _Spt(mode))
    (run,) = result["runs"]
    group = "ta 15x15" if mode == "jssp" else "la01-05"
    assert run["rows"]["1"][group]["gap"] == pytest.approx(
        {"jssp": 25.9, "bws": 45.3}[mode], abs=0.05
    )
    assert run["lines"]["best rule"][group] <= run["rows"]["1"][group]["gap"]
    shown = text.table(result)
    assert "best of 2" in shown
    if mode == "jssp":
        assert "self-labelling, best of 512 (published)" in shown
        assert "shutdowns" not in run
        assert [goal["goal"] for goal in run["goals"]] == [14.0]
    else:
        without, with_some = run["shutdowns"]
        assert without["prob"] == 0
        assert without["pairs"] == 5
        assert without["mean"] == pytest.approx(1074.8)
        assert with_some["prob"] == 0.005
        instances = [datasets.load(name) for name in datasets.expand("la01-05")]
        again = shutdowns.rules_with_shutdowns(instances, 0.005, 2, ["SPT"])["SPT"]
        assert with_some["mean"] == pytest.approx(again.mean())
        assert with_some["pairs"] == 10


def test_no_policies_is_said():
    with pytest.raises(ConfigError, match="--runs FOLDER"):
        bench.run("policies")


# ---- command and page ---------------------------------------------------------------------------


def test_an_unknown_part_is_named_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "dispatch", "rule"])
    assert stop.value.code == 2
    assert 'Did you mean "rules"' in capsys.readouterr().err


@compiled
@classical
def test_the_command_writes_a_result_that_fills_the_page(tmp_path, capsys):
    out = tmp_path / "results" / "dispatch-rules.json"
    with pytest.raises(SystemExit) as stop:
        main(["bench", "dispatch", "rules", "--quick", "--quiet", "--out", str(out)])
    assert stop.value.code == 0
    assert "1546.1 (25.9)" in capsys.readouterr().out
    page = write_page(tmp_path / "results", tmp_path / "docs" / "page.md").read_text("utf-8")
    assert "## Dispatching by rules" in page
    assert "| SPT | 1546.1 (25.9) | 88.0 (60.0) |" in page
    assert r"LPT\*TWK" in page


def _exact_result():
    search = {"makespan": 937, "bound": 808, "status": "feasible", "seconds": 20.0, "gap": 0.75}
    row = {
        "instance": "ft10",
        "size": "10x10",
        "mode": "jssp",
        "hint": 1007,
        "best known": 930,
        "proof wanted": False,
        "searches": [search, {**search, "makespan": 930, "gap": 0.0}],
    }
    far = {**row, "instance": "abz5", "searches": [search, {**search, "gap": 5.25}]}
    return {
        "kind": "dispatch-exact",
        "name": "exact",
        "about": "a solver",
        "command": "gnnlab bench dispatch exact",
        "environment": ENVIRONMENT,
        "seconds": 21.0,
        "target": 5.0,
        "versions": {"OR-Tools": "9"},
        "rows": [row, far, {**row, "instance": "ft06", "proof wanted": True}],
    }


def _policies_result():
    pair = {
        "names": "la01-05",
        "prob": 0.01,
        "mean": 1480.0,
        "rule": "SPT",
        "rule mean": 1500.0,
        "FIFO mean": 1530.0,
        "pairs": 100,
        "difference": 20.0,
        "interval": [-1.0, 41.0],
        "percent": 1.33,
        "win": 60,
        "tie": 0,
        "loss": 40,
    }
    cell = {"mean": 1000.0, "gap": 24.0, "seconds": 0.01}
    run = {
        "run": "runs/blocking",
        "mode": "bws",
        "groups": ["la01-05"],
        "rows": {"1": {"la01-05": cell}, "64": {"la01-05": {**cell, "gap": 15.5}}},
        "lines": {"best rule": {"la01-05": 38.0}},
        "goals": [{"on": "la01-05", "samples": 64, "gap": 15.5, "goal": 15.0}],
        "shutdowns": [pair, {**pair, "prob": 0.001}],
    }
    return {
        "kind": "dispatch-policies",
        "name": "policies",
        "about": "trained policies",
        "command": "gnnlab bench dispatch policies --runs runs/blocking",
        "environment": ENVIRONMENT,
        "seconds": 3.0,
        "published": {},
        "runs": [run],
    }


def test_the_page_shows_targets_beside_figures_and_leaves_out_what_was_not_measured(tmp_path):
    for result in (_exact_result(), _policies_result()):
        path = tmp_path / f"{result['kind']}.json"
        path.write_text(json.dumps(result), "utf-8")
    page = write_page(tmp_path, tmp_path / "docs" / "page.md").read_text("utf-8")
    assert (
        "| ft10 | 10x10 | jssp | 1007 | 937, 930 | 808 | feasible | 20.0, 20.0 | 930 "
        "| 0.8, 0.0 | 5 % | hit |" in page
    )
    assert "| 0.8, 5.2 | 5 % | miss |" in page
    assert "| proof | miss |" in page
    assert "Mean gap of the 10x10 searches, jssp: 1.7 %, largest 5.2 %." in page
    assert "| best of 64 | 15.5 |" in page
    assert "| la01-05 | best of 64 | 15.5 | 15.0 | miss |" in page
    shorter = "| 1500.0 (SPT) | 1530.0 | 20.0 [-1.0, 41.0] | 1.3 | 60 / 0 / 40 |"
    assert f"| la01-05 | 0.01 | 1480.0 {shorter} hit |" in page
    assert f"| la01-05 | 0.001 | 1480.0 {shorter} miss |" in page
    assert "- also: OR-Tools 9" in page
    assert "- date 2026-01-01" in page
    assert page.index("## Dispatching by trained policies") < page.index("## Dispatching, exactly")
    assert "Dispatching by rules" not in page


def test_gaps_are_percent_above_the_best_known():
    shop = JobShopInstance("ft06", np.zeros((1, 1), int), np.ones((1, 1), int), np.ones(1, int), 1)
    assert gaps([shop], "jssp", np.array([66])) == pytest.approx([20.0])
    assert gaps([shop], "bws", np.array([66])) == pytest.approx([100 * 3 / 63])
