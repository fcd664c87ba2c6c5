"""Shutdowns: reproducible windows, their statistics, keyed cuts, and trace files."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from gnnlab.errors import ConfigError, DataError
from gnnlab.tasks.dispatch import Cuts, JobShopInstance, RandomTrace, Shutdowns, WindowTrace

OFTEN = Shutdowns(prob=0.01)


def windows(trace: RandomTrace, machine: int, count: int) -> list:
    return [trace.window(machine, i) for i in range(count)]


def test_windows_do_not_depend_on_the_horizon_nor_on_the_order_of_questions() -> None:
    far = RandomTrace(3, OFTEN)
    late = far.window(1, 40)
    near = RandomTrace(3, OFTEN)
    one_by_one = windows(near, 1, 41)
    assert one_by_one[40] == late
    assert windows(far, 1, 41) == one_by_one
    short, long = (RandomTrace(3, OFTEN).until(2, h) for h in (500, 5000))
    for k in range(2):
        assert short.windows[k] == tuple(w for w in long.windows[k] if w[0] < 500)
        assert [short.window(k, i) for i in range(len(short.windows[k]))] == windows(
            near, k, len(short.windows[k])
        )


def test_machines_and_seeds_have_streams_of_their_own() -> None:
    first = windows(RandomTrace(3, OFTEN), 0, 5)
    assert first != windows(RandomTrace(3, OFTEN), 1, 5)
    assert first != windows(RandomTrace(4, OFTEN), 0, 5)
    # the number of machines that are asked about changes nothing
    assert RandomTrace(3, OFTEN).until(9, 999).windows[:2] == (
        RandomTrace(3, OFTEN).until(2, 999).windows
    )


def test_windows_are_the_formula_of_two_uniform_numbers_each() -> None:
    draws = np.random.Generator(np.random.Philox(key=np.array([8, 2], np.uint64))).random(6)
    start, expected = 0, []
    for u, v in draws.reshape(3, 2):
        start += 1 + math.floor(math.log(1 - u) / math.log(1 - 0.01))
        expected.append((start, start + 10 + int(41 * v)))
        start = expected[-1][1]
    assert windows(RandomTrace(8, OFTEN), 2, 3) == expected


@pytest.mark.parametrize("prob", [0.001, 0.01, 0.2])
def test_up_times_and_durations_have_the_stated_means(prob: float) -> None:
    n = 4000
    found = windows(RandomTrace(1, Shutdowns(prob=prob)), 0, n)
    ends = np.array([(0, 0), *found])
    up, down = ends[1:, 0] - ends[:-1, 1], ends[1:, 1] - ends[1:, 0]
    assert up.min() >= 1
    # geometric: mean 1/q, standard deviation sqrt(1 - q)/q; five standard errors
    assert abs(up.mean() - 1 / prob) < 5 * math.sqrt(1 - prob) / prob / math.sqrt(n)
    # uniform on 10..50: mean 30, standard deviation sqrt((41**2 - 1)/12)
    assert (down.min(), down.max()) == (10, 50)
    assert abs(down.mean() - 30) < 5 * math.sqrt((41**2 - 1) / 12 / n)
    availability = up.sum() / ends[-1, 1]
    assert availability == pytest.approx((1 / prob) / (1 / prob + 30), abs=0.02)


def test_the_first_up_time_is_memoryless_too() -> None:
    first = np.array([RandomTrace(s, OFTEN).window(0, 0)[0] for s in range(1000)])
    # a machine that fails with probability q per tick is still up after t ticks with (1-q)**t
    for t in (10, 50, 100):
        share = (1 - 0.01) ** t
        assert abs((first > t).mean() - share) < 5 * math.sqrt(share * (1 - share) / 1000)


def test_durations_may_be_fixed_geometric_or_a_function() -> None:
    fixed = Shutdowns(prob=0.1, duration="fixed", low=7, high=9)
    assert {b - a for a, b in windows(RandomTrace(1, fixed), 0, 20)} == {7}
    drawn = Shutdowns(prob=0.1, duration="geometric")
    long = np.array([b - a for a, b in windows(RandomTrace(1, drawn), 0, 4000)])
    assert long.min() >= 1
    assert abs(long.mean() - 30) < 5 * math.sqrt(30 * 29 / 4000)
    own = Shutdowns(prob=0.1, duration=lambda u: 100 + int(u > 0.5))
    assert {b - a for a, b in windows(RandomTrace(1, own), 0, 50)} == {100, 101}
    tick = Shutdowns(prob=0.1, duration="geometric", low=1, high=1)
    assert {b - a for a, b in windows(RandomTrace(1, tick), 0, 20)} == {1}


def test_probability_zero_never_fails() -> None:
    assert RandomTrace(1).window(0, 0) is None
    assert RandomTrace(1).until(2, 10**9).windows == ((), ())
    hardly = RandomTrace(1, Shutdowns(prob=1e-300))
    assert hardly.until(2, 10**15).windows == ((), ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"prob": -0.1},
        {"prob": 1.0},
        {"prob": math.nan},
        {"low": 0},
        {"low": 60},
        {"duration": "unifrm"},
    ],
)
def test_impossible_shutdowns_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        Shutdowns(**wrong)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_outside_its_range_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="trace seed is"):
        RandomTrace(seed, OFTEN)


SQUARE = JobShopInstance.from_jobs([[(k, 20 + j) for k in range(10)] for j in range(60)])


def test_cuts_have_the_stated_share_and_fall_within_the_work() -> None:
    cuts = Cuts.draw(SQUARE, 0.3, seed=5)
    cut = cuts.after >= 0
    # 600 draws
    assert abs(cut.mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / 600)
    assert (cuts.after < SQUARE.times).all()
    assert (cuts.duration[~cut] == 0).all()
    assert cuts.duration[cut].min() >= 10
    assert cuts.duration[cut].max() <= 50
    assert (Cuts.draw(SQUARE, 0, seed=5).after == -1).all()
    assert (Cuts.draw(SQUARE, 1, seed=5).after >= 0).all()
    assert cuts.window(0, 0) is None


def test_the_cut_of_an_operation_depends_on_its_place_alone() -> None:
    cuts = Cuts.draw(SQUARE, 0.3, seed=5)
    jobs = SQUARE.jobs()
    fewer = Cuts.draw(JobShopInstance.from_jobs(jobs[:7], 10), 0.3, seed=5)
    assert (fewer.after == cuts.after[:7]).all()
    assert (fewer.duration == cuts.duration[:7]).all()
    # other machines and another job's times change nothing
    moved = [[(9 - k, p) for k, p in job] for job in jobs]
    moved[0] = [(k, 99) for k, _ in moved[0]]
    other = Cuts.draw(JobShopInstance.from_jobs(moved, 10), 0.3, seed=5)
    assert (other.after[1:] == cuts.after[1:]).all()
    assert ((other.after >= 0) == (cuts.after >= 0)).all()
    more = Cuts.draw(SQUARE, 0.6, seed=5)
    assert (more.after[cuts.after >= 0] == cuts.after[cuts.after >= 0]).all()
    assert (Cuts.draw(SQUARE, 0.3, seed=6).after != cuts.after).any()


def test_operations_without_time_are_not_cut() -> None:
    shop = JobShopInstance.from_jobs([[(0, 0), (0, 1)], [(0, 0)]])
    assert Cuts.draw(shop, 1, seed=0).after.tolist() == [[-1, 0], [-1, -1]]
    with pytest.raises(ConfigError, match="cut probability is 2"):
        Cuts.draw(shop, 2, seed=0)
    with pytest.raises(ConfigError, match="cut seed is -1"):
        Cuts.draw(shop, 0.5, seed=-1)


def test_a_trace_file_is_read_back(tmp_path: Path) -> None:
    trace = RandomTrace(3, OFTEN).until(3, 2000)
    assert trace.windows[0]
    path = trace.save(tmp_path / "new" / "trace.json")
    assert WindowTrace.load(path) == trace
    value = json.loads(path.read_text())
    assert value["format"] == "gnnlab.trace/1"
    assert value["seed"] == 3
    assert trace.window(9, 0) is None


@pytest.mark.parametrize(
    "row",
    [
        [(5, 5)],
        [(-1, 5)],
        [(5, 9), (8, 12)],
        [(5, 9), (1, 3)],
        [(1,)],
        [(1, 2, 3)],
        [(0.5, 2)],
        [("1", "2")],
        [None],
        [7],
        [(1, math.inf)],
        [(1, math.nan)],
        [(1, 10**30)],
    ],
)
def test_what_is_no_window_is_named_with_its_machine(row: list) -> None:
    with pytest.raises(DataError, match=rf"machine 1, window {len(row) - 1}: "):
        WindowTrace([[], row])


def test_windows_may_touch() -> None:
    assert WindowTrace([[(0, 2), (2, 3)]]).window(0, 1) == (2, 3)


GOOD = '{"format": "gnnlab.trace/1", "seed": 1, "windows": [[[2, 4]], []]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"seed": ' + "1" * 5000 + "}", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[]", "no trace"),
        ("{}", "no trace"),
        (GOOD.replace("trace/1", "trace/2"), "no trace"),
        (GOOD.replace('"windows"', '"window"'), '"windows" is not a list'),
        (GOOD.replace("[[[2, 4]], []]", "[1]"), '"windows" is not a list of lists'),
        (GOOD.replace("[2, 4]", "[4, 2]"), "machine 0, window 0"),
        (GOOD.replace("[2, 4]", '"24"'), "machine 0, window 0"),
        (GOOD.replace("[2, 4]", "[2, NaN]"), "machine 0, window 0"),
        (GOOD.replace("[2, 4]", "[2, null]"), "machine 0, window 0"),
        (GOOD.replace("[2, 4]", "{}"), "machine 0, window 0"),
        (GOOD.replace('"seed": 1', '"seed": "x"'), '"seed" is'),
    ],
)
def test_a_broken_trace_file_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=rf"trace\.json: .*{message}"):
        WindowTrace.load(path)


def test_a_missing_trace_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        WindowTrace.load(tmp_path / "none.json")


def test_flipped_bytes_give_data_errors_or_valid_traces(tmp_path: Path) -> None:
    rng, path = random.Random(2), tmp_path / "trace.json"
    for _ in range(300):
        content = bytearray(GOOD.encode())
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            trace = WindowTrace.load(path)
        except DataError:
            continue
        for row in trace.windows:
            flat = [v for window in row for v in window]
            assert flat == sorted(flat)
