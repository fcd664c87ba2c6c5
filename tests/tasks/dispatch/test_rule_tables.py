"""Known makespans of priority rules on public instances: mean (mean gap to the best in %)."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from gnnlab.tasks.dispatch import (
    JobShopInstance,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    dispatch,
)

FOLDER = Path(os.environ.get("GNNLAB_DATA", "")) / "scheduling"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "bounds.json").exists(), reason="no scheduling/bounds.json under $GNNLAB_DATA"
)

# ta01-10 15x15, ta11-20 20x15, ta21-30 20x20, ta31-40 30x15, ta41-50 30x20, ft06, ft10, la01-40
BUFFERS = """
FIFO       1522.8 (23.9)  1793.3 (31.4)  2059.9 (27.4)  2347.7 (31.2)  2553.5 (31.2)    65.0 (18.2)  1184.0 (27.3)  1310.6 (18.9)
LIFO       1666.4 (35.6)  1909.6 (40.0)  2209.8 (36.6)  2522.2 (41.1)  2898.2 (48.8)    68.0 (23.6)  1393.0 (49.8)  1428.8 (28.7)
SPT        1546.1 (25.9)  1813.5 (32.8)  2067.0 (27.8)  2419.3 (35.3)  2619.1 (34.5)    88.0 (60.0)  1074.0 (15.5)  1329.6 (20.0)
LPT        1734.7 (41.2)  1994.3 (46.2)  2278.0 (40.9)  2664.7 (49.1)  2926.2 (50.3)    77.0 (40.0)  1295.0 (39.2)  1461.9 (32.0)
MWKR       1464.3 (19.2)  1683.6 (23.4)  1969.8 (21.8)  2214.8 (23.9)  2439.0 (25.2)    61.0 (10.9)  1108.0 (19.1)  1242.7 (12.6)
LWKR       1814.7 (47.7)  2007.2 (47.0)  2388.3 (47.7)  2679.3 (49.9)  3098.9 (59.2)    83.0 (50.9)  1334.0 (43.4)  1497.1 (35.8)
MOPNR      1481.3 (20.5)  1686.7 (23.6)  1968.3 (21.7)  2195.8 (22.8)  2433.6 (25.0)     59.0 (7.3)  1163.0 (25.1)  1253.5 (13.9)
LOPNR      1732.8 (40.9)  2067.8 (51.4)  2269.6 (40.4)  2781.3 (55.7)  3056.2 (57.1)    68.0 (23.6)  1352.0 (45.4)  1478.3 (33.1)
FDD/MWKR   1447.0 (17.7)  1655.5 (21.3)  1940.2 (19.9)  2175.0 (21.7)  2415.6 (24.1)    67.0 (21.8)  1097.0 (18.0)  1231.9 (11.5)
SPT/TWK    1549.1 (26.0)  1765.0 (29.4)  1997.2 (23.5)  2337.0 (30.6)  2553.3 (31.1)    77.0 (40.0)  1057.0 (13.7)  1303.3 (17.3)
SPT/TWKR   1432.7 (16.6)  1601.1 (17.3)  1913.2 (18.3)  2078.7 (16.3)  2316.9 (19.0)    68.0 (23.6)   1007.0 (8.3)   1200.4 (8.9)
LPT*TWK    1700.9 (38.4)  2038.6 (49.4)  2295.4 (41.9)  2676.5 (49.8)  2945.9 (51.4)    75.0 (36.4)  1376.0 (48.0)  1463.5 (31.7)
WINQ       1611.8 (31.2)  1827.4 (33.9)  2173.2 (34.4)  2375.6 (32.7)  2815.5 (44.6)    69.0 (25.5)  1214.0 (30.5)  1372.8 (24.9)
"""  # noqa: E501
# la01-05 10x5, la06-10 15x5, la16-20 10x10, ft06, ft10, abz5-6
BLOCKING = """
FIFO       1041.8 (40.9)  1698.8 (58.8)  1501.6 (47.0)    75.0 (19.0)  1780.0 (66.7)  1925.5 (47.0)
LIFO       1106.4 (49.1)  1607.8 (50.1)  1589.8 (55.9)    80.0 (27.0)  1605.0 (50.3)  2010.5 (55.9)
SPT        1074.8 (45.3)  1642.6 (53.4)  1544.2 (50.6)    79.0 (25.4)  1340.0 (25.5)  1856.0 (41.4)
LPT        1031.2 (38.6)  1667.2 (55.4)  1564.4 (52.6)    81.0 (28.6)  1881.0 (76.1)  2053.0 (56.2)
MWKR       1073.0 (44.9)  1486.4 (38.8)  1566.6 (53.0)    75.0 (19.0)  1796.0 (68.2)  2025.5 (56.3)
LWKR       1080.0 (45.2)  1528.8 (42.7)  1626.4 (58.6)    82.0 (30.2)  1659.0 (55.3)  1934.0 (48.2)
MOPNR      1052.6 (42.3)  1697.6 (58.7)  1552.4 (52.3)    75.0 (19.0)  1831.0 (71.4)  1996.5 (54.3)
LOPNR      1070.0 (44.3)  1555.8 (45.1)  1589.8 (55.7)    77.0 (22.2)  1536.0 (43.8)  1943.0 (49.2)
FDD/MWKR   1023.4 (38.0)  1661.8 (55.1)  1530.6 (49.5)    73.0 (15.9)  1513.0 (41.7)  1958.0 (49.7)
SPT/TWK    1050.4 (41.6)  1548.0 (44.3)  1513.8 (47.6)    79.0 (25.4)  1340.0 (25.5)  1856.0 (41.4)
SPT/TWKR   1052.8 (41.9)  1557.6 (45.3)  1583.8 (55.5)    73.0 (15.9)  1240.0 (16.1)  1876.5 (44.1)
LPT*TWK    1106.0 (48.5)  1583.8 (47.7)  1450.4 (41.8)    81.0 (28.6)  1761.0 (64.9)  1973.5 (50.8)
WINQ       1067.8 (44.2)  1599.6 (49.5)  1537.0 (50.3)    91.0 (44.4)  1515.0 (41.9)  1846.5 (40.5)
"""
# gaps only: la11-15 20x5, la21-25 15x10, la26-30 20x10, la31-35 30x10, la36-40 15x15, ta01-10
BLOCKING_LARGE = """
FIFO        49.7   64.5   51.7   66.9   57.5   67.1
LIFO        46.0   56.4   48.3   56.8   67.0   75.8
SPT         46.7   58.9   60.7   63.2   60.1   68.4
LPT         53.4   66.4   66.4   67.7   61.9   73.7
MWKR        42.7   57.2   57.8   64.2   63.3   68.6
LWKR        48.3   55.6   59.1   57.2   62.0   74.9
MOPNR       49.7   66.1   58.3   60.0   68.2   70.8
LOPNR       44.6   58.9   49.9   54.4   67.3   71.3
FDD/MWKR    50.3   63.0   67.0   67.0   60.7   72.7
SPT/TWK     40.3   59.6   50.7   57.1   67.4   62.2
SPT/TWKR    42.0   60.0   58.7   65.6   65.3   67.1
LPT*TWK     48.6   70.0   61.0   65.4   67.0   77.4
WINQ        44.1   59.2   62.3   68.4   60.5   74.9
"""
# gaps of the best limit of jobs inside, 1..min(n, m + 3), for each instance:
# la01-05, la06-10, la11-15, la16-20, la21-25, la26-30, la31-35, la36-40, ft06, ft10, ft20
LIMITED = """
SPT      40.2 44.5 43.6 38.1 43.4 39.4 42.4 39.0 25.4 25.5 28.6
SPT/TWKR 34.9 39.0 40.2 37.9 42.3 44.4 44.7 41.2 15.9 16.1 33.4
MWKR     36.9 38.7 38.7 40.8 39.2 44.3 46.9 42.4 19.0 57.3 36.6
"""


def _names(family: str, first: int, last: int) -> list[str]:
    return [f"{family}{i:02}" for i in range(first, last + 1)]


def _read(name: str) -> JobShopInstance:
    lines = (FOLDER / "instances" / f"{name}.txt").read_text().splitlines()
    rows = [[int(word) for word in line.split()] for line in lines if not line.startswith("#")]
    jobs = [list(zip(row[::2], row[1::2], strict=True)) for row in rows[1:]]
    return JobShopInstance.from_jobs(jobs, rows[0][1], name)


def _table(text: str) -> dict[str, list[str]]:
    """Returns the cells of each rule, such as "1522.8 (23.9)" or "49.7"."""
    return {
        line.split()[0]: re.findall(r"\d+\.\d(?: \(\d+\.\d\))?", line.split(maxsplit=1)[1])
        for line in text.strip().splitlines()
    }


def _cell(names: list[str], spans: list[float], mode: str, gap_only: bool = False) -> str:
    bounds = json.loads((FOLDER / "bounds.json").read_text())
    field = "upper_bound" if mode == "jssp" else "blocking_swap_upper_bound"
    gaps = [100 * (span / bounds[name][field] - 1) for name, span in zip(names, spans, strict=True)]
    gap = f"{np.mean(gaps):.1f}"
    return gap if gap_only else f"{np.mean(spans):.1f} ({gap})"


def _spans(names: list[str], rule: str, mode: str) -> list[float]:
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    return [dispatch(_read(name), rule, options=options).makespan for name in names]


@pytest.mark.parametrize("rule", _table(BUFFERS))
def test_rules_with_buffers_reach_the_known_makespans_of_ft06_and_ft10(rule: str) -> None:
    cells = [_cell([name], _spans([name], rule, "jssp"), "jssp") for name in ("ft06", "ft10")]
    assert cells == _table(BUFFERS)[rule][5:7]


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
    assert _spans(_names("ta", 1, 3), rule, "jssp") == spans


@pytest.mark.parametrize("rule", _table(BLOCKING))
def test_rules_without_buffers_reach_the_known_makespans(rule: str) -> None:
    sets = [_names("la", 1, 5), ["ft06"], ["ft10"]]
    cells = [_cell(names, _spans(names, rule, "bws"), "bws") for names in sets]
    known = _table(BLOCKING)[rule]
    assert cells == [known[0], known[3], known[4]]


@pytest.mark.slow
@pytest.mark.parametrize("rule", _table(BUFFERS))
def test_rules_with_buffers_reach_all_known_makespans(rule: str) -> None:
    sets = [_names("ta", a, a + 9) for a in (1, 11, 21, 31, 41)]
    sets += [["ft06"], ["ft10"], _names("la", 1, 40)]
    cells = [_cell(names, _spans(names, rule, "jssp"), "jssp") for names in sets]
    assert cells == _table(BUFFERS)[rule]


@pytest.mark.slow
@pytest.mark.parametrize("rule", _table(BLOCKING))
def test_rules_without_buffers_reach_all_known_makespans(rule: str) -> None:
    sets = [*(_names("la", a, a + 4) for a in (1, 6, 16)), ["ft06"], ["ft10"], ["abz5", "abz6"]]
    cells = [_cell(names, _spans(names, rule, "bws"), "bws") for names in sets]
    assert cells == _table(BLOCKING)[rule]
    large = [*(_names("la", a, a + 4) for a in (11, 21, 26, 31, 36)), _names("ta", 1, 10)]
    gaps = [_cell(names, _spans(names, rule, "bws"), "bws", gap_only=True) for names in large]
    assert gaps == _table(BLOCKING_LARGE)[rule]


@pytest.mark.slow
@pytest.mark.parametrize("rule", _table(LIMITED))
def test_the_best_limit_of_jobs_inside_reaches_the_known_gaps(rule: str) -> None:
    sets = [_names("la", a, a + 4) for a in range(1, 41, 5)] + [["ft06"], ["ft10"], ["ft20"]]
    gaps = []
    for names in sets:
        best = []
        for instance in map(_read, names):
            limits = range(1, min(instance.num_jobs, instance.num_machines + 3) + 1)
            best.append(min(dispatch(instance, f"{rule}@{w}").makespan for w in limits))
        gaps.append(_cell(names, best, "bws", gap_only=True))
    assert gaps == _table(LIMITED)[rule]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prob", "known"), [(0.001, 1084.8), (0.002, 1133.6), (0.005, 1287.0), (0.02, 1973.0)]
)
def test_shutdowns_lengthen_schedules_as_measured_elsewhere(prob: float, known: float) -> None:
    """FIFO without buffers on la01-05, mean of 20 traces of another random stream."""
    spans = [
        dispatch(_read(name), "FIFO", RandomTrace(seed, Shutdowns(prob=prob))).makespan
        for name in _names("la", 1, 5)
        for seed in range(20)
    ]
    assert np.mean(spans) == pytest.approx(known, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "known"), [("jssp", 1358.8), ("bws", 1598.35)])
def test_the_random_rule_is_as_good_as_measured_elsewhere(mode: str, known: float) -> None:
    names = _names("la", 1, 40) if mode == "jssp" else _names("la", 6, 10) + _names("la", 16, 20)
    options = ShopOptions(mode=mode)  # type: ignore[arg-type]
    spans = [
        dispatch(_read(name), "RANDOM", options=options, seed=seed).makespan
        for name in names
        for seed in range(5)
    ]
    assert np.mean(spans) == pytest.approx(known, rel=0.02)
