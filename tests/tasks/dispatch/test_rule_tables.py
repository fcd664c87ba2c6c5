"""Known makespans of priority rules on public instances: the cells of `bench._expected`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from gnnlab.tasks.dispatch import (
    JobShopInstance,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    datasets,
    dispatch,
)
from gnnlab.tasks.dispatch.bench import _expected
from gnnlab.tasks.dispatch.bench._expected import BUFFERS, LIMITED, NO_BUFFERS, NO_BUFFERS_GAPS

FOLDER = Path(os.environ.get("GNNLAB_DATA", "")) / "scheduling"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "bounds.json").exists(), reason="no scheduling/bounds.json under $GNNLAB_DATA"
)


def _read(name: str) -> JobShopInstance:
    lines = (FOLDER / "instances" / f"{name}.txt").read_text().splitlines()
    rows = [[int(word) for word in line.split()] for line in lines if not line.startswith("#")]
    jobs = [list(zip(row[::2], row[1::2], strict=True)) for row in rows[1:]]
    return JobShopInstance.from_jobs(jobs, rows[0][1], name)


def _rules(table: _expected.Cells) -> list[str]:
    return [rule for rule in table if rule != "RANDOM"]


def _cell(names: list[str], spans: list[float], mode: str) -> tuple[float, float]:
    """Returns mean makespan and mean gap, with one digit as they are printed."""
    bounds = json.loads((FOLDER / "bounds.json").read_text())
    field = "upper_bound" if mode == "jssp" else "blocking_swap_upper_bound"
    gaps = [100 * (span / bounds[name][field] - 1) for name, span in zip(names, spans, strict=True)]
    return float(f"{np.mean(spans):.1f}"), float(f"{np.mean(gaps):.1f}")


def _spans(names: list[str], rule: str, mode: str) -> list[float]:
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    return [dispatch(_read(name), rule, options=options).makespan for name in names]


@pytest.mark.parametrize("rule", _rules(BUFFERS))
def test_rules_with_buffers_reach_the_known_makespans_of_ft06_and_ft10(rule: str) -> None:
    for name in ("ft06", "ft10"):
        assert _cell([name], _spans([name], rule, "jssp"), "jssp") == BUFFERS[rule][name]


@pytest.mark.parametrize(
    ("rule", "spans"),
    [
        ("SPT", [1462, 1446, 1495]),
        ("MWKR", [1491, 1440, 1426]),
        ("MOPNR", [1438, 1452, 1418]),
        ("FDD/MWKR", [1433, 1413, 1423]),
    ],
)
def test_rules_reach_the_known_makespans_of_ta01_to_ta03(rule: str, spans: list[int]) -> None:
    assert _spans(["ta01", "ta02", "ta03"], rule, "jssp") == spans


@pytest.mark.parametrize("rule", _rules(NO_BUFFERS))
@pytest.mark.parametrize("column", ["la01-05", "ft06", "ft10"])
def test_rules_without_buffers_reach_the_known_makespans(rule: str, column: str) -> None:
    names = datasets.expand(column)
    assert _cell(names, _spans(names, rule, "bws"), "bws") == NO_BUFFERS[rule][column]


@pytest.mark.slow
@pytest.mark.parametrize("rule", _rules(BUFFERS))
def test_rules_with_buffers_reach_all_known_makespans(rule: str) -> None:
    for column, known in BUFFERS[rule].items():
        names = datasets.expand(column)
        assert _cell(names, _spans(names, rule, "jssp"), "jssp") == known, column


@pytest.mark.slow
@pytest.mark.parametrize("rule", _rules(NO_BUFFERS))
def test_rules_without_buffers_reach_all_known_makespans(rule: str) -> None:
    for column, known in (NO_BUFFERS[rule] | NO_BUFFERS_GAPS[rule]).items():
        names = datasets.expand(column)
        assert _cell(names, _spans(names, rule, "bws"), "bws")[-len(known) :] == known, column


@pytest.mark.slow
@pytest.mark.parametrize("rule", LIMITED)
def test_the_best_limit_of_jobs_inside_reaches_the_known_gaps(rule: str) -> None:
    for column, known in LIMITED[rule].items():
        names, best = datasets.expand(column), []
        for instance in map(_read, names):
            limits = range(1, min(instance.num_jobs, instance.num_machines + 3) + 1)
            best.append(min(dispatch(instance, f"{rule}@{w}").makespan for w in limits))
        assert _cell(names, best, "bws")[1:] == known, column


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prob", "known"), [(0.001, 1084.8), (0.002, 1133.6), (0.005, 1287.0), (0.02, 1973.0)]
)
def test_shutdowns_lengthen_schedules_as_measured_elsewhere(prob: float, known: float) -> None:
    """FIFO without buffers on la01-05, mean of 20 traces of another random stream."""
    spans = [
        dispatch(_read(name), "FIFO", RandomTrace(seed, Shutdowns(prob=prob))).makespan
        for name in datasets.expand("la01-05")
        for seed in range(20)
    ]
    assert np.mean(spans) == pytest.approx(known, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "known"), [("jssp", 1358.8), ("bws", 1598.35)])
def test_the_random_rule_is_as_good_as_measured_elsewhere(mode: str, known: float) -> None:
    names = datasets.expand("la01-40" if mode == "jssp" else "la06-10,la16-20")
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    spans = [
        dispatch(_read(name), "RANDOM", options=options, seed=seed).makespan
        for name in names
        for seed in range(5)
    ]
    assert np.mean(spans) == pytest.approx(known, rel=0.02)
