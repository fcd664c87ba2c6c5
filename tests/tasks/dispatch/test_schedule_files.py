"""Schedules as JSON and CSV: round trips, and what is wrong in broken files."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from gnnlab.errors import DataError
from gnnlab.tasks.dispatch import Schedule

ROWS = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
PLAN = Schedule("tiny", "bws", 5, np.array(ROWS[::-1]))
GOOD = {"format": "gnnlab.schedule/1", "instance": "tiny", "mode": "bws", "makespan": 5}
HEADER = "job,op,machine,start,end,depart\n"


def test_rows_are_sorted_by_job_and_operation() -> None:
    assert PLAN.ops.tolist() == ROWS


def test_json_holds_the_documented_keys_and_is_read_back(tmp_path: Path) -> None:
    path = PLAN.save(tmp_path / "new" / "plan.json")
    assert json.loads(path.read_text()) == {**GOOD, "ops": ROWS}
    assert Schedule.load(path) == PLAN


def test_csv_holds_the_documented_header_and_is_read_back(tmp_path: Path) -> None:
    path = PLAN.save(tmp_path / "tiny.csv")
    assert path.read_bytes().startswith(HEADER.encode() + b"0,0,0,0,3,3\n0,1,1,3,5,5\n")
    assert Schedule.load(path) == PLAN
    assert Schedule.load(path, mode="jssp").mode == "jssp"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "gnnlab.trace/1"}, 'its "format" is not'),
        ({"mode": "fast"}, 'mode is "fast"'),
        ({"mode": ["bws"]}, "mode is"),
        ({"makespan": None}, "makespan is None"),
        ({"makespan": 5.0}, r"makespan is 5\.0"),
        ({"makespan": True}, "makespan is True"),
        ({"makespan": 10**30}, "makespan is 1000"),
        ({"ops": None}, '"ops" is not a list'),
        ({"ops": {}}, '"ops" is not a list'),
        ({"ops": [ROWS[0], [1, 2]]}, r"ops\[1\] is \[1, 2\], not six integers"),
        ({"ops": [[0, 0, 0, 0, 3, "3"]]}, r"ops\[0\]"),
        ({"ops": [[0, 0, 0, 0, 3, 3.5]]}, r"ops\[0\]"),
        ({"ops": [[0, 0, 0, 0, 3, 10**30]]}, r"ops\[0\]"),
        ({"ops": [None]}, r"ops\[0\]"),
    ],
)
def test_wrong_json_is_named_with_its_place(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**GOOD, "ops": ROWS, **change}))
    with pytest.raises(DataError, match=rf"plan\.json: .*{message}"):
        Schedule.load(path)


@pytest.mark.parametrize("key", ["format", "mode", "makespan", "ops"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    value = {**GOOD, "ops": ROWS}
    del value[key]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=rf"plan\.json: .*{key}"):
        Schedule.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"makespan": ' + b"1" * 5000]
)
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("plan.json", "plan.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            Schedule.load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: expected the header"),
        ("job,op\n", "line 1: expected the header"),
        (HEADER + "0,0,0,0,3\n", "line 2: expected six values, found 5"),
        (HEADER + "\n0,0,0,0,3,x\n", "line 3: not an integer"),
        (HEADER + "0,0,0,0,3,3.5\n", "line 2: not an integer"),
        (HEADER + "0,0,0,0,3," + "9" * 30 + "\n", "line 2: a number is too large"),
        (HEADER + "0,0,0,0,3," + "9" * 5000 + "\n", "line 2: not an integer"),
        (HEADER + '"' + "0" * 200_000, "no table"),
    ],
)
def test_wrong_csv_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "plan.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"plan\.csv.*{message}"):
        Schedule.load(path)


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Schedule.load(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["plan.json", "plan.csv"])
def test_flipped_bytes_give_data_errors_or_schedules(tmp_path: Path, name: str) -> None:
    rng, path = random.Random(4), tmp_path / name
    good = PLAN.save(path).read_bytes()
    for _ in range(300):
        content = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            plan = Schedule.load(path)
        except DataError:
            continue
        assert plan.ops.shape[1] == 6
