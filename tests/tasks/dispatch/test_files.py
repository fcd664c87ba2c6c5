"""Job-shop files: every format, every kind of bad input, and ten thousand broken files."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import (
    InstanceError,
    JobShopInstance,
    read_instance,
    read_instances,
    read_matrix_pair,
    write_instance,
    write_matrix_pair,
)
from gnnlab.tasks.dispatch.files import parse_instances

# Fisher and Thompson 1963, written down by hand
FT06 = """6 6
2 1 0 3 1 6 3 7 5 3 4 6
1 8 2 5 4 10 5 10 0 10 3 4
2 5 3 4 5 8 0 9 1 1 4 7
1 5 0 5 2 5 3 3 4 8 5 9
2 9 1 3 4 5 5 4 0 3 3 1
1 3 3 3 5 9 0 10 4 4 2 1
"""
SMALL = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
GENERAL = JobShopInstance.from_jobs([[(0, 3), (1, 0), (0, 4)], [(2, 1)]], 4)


@pytest.fixture
def put(tmp_path: Path):
    """Writes a file and returns its path."""

    def put(content: str | bytes, name: str = "shop.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


def jobs(instance: JobShopInstance) -> list:
    return instance.jobs()


def test_the_standard_form_is_read_as_machine_and_time_pairs(put) -> None:
    shop = read_instance(put(FT06, "ft06.txt"))
    assert (shop.name, shop.num_jobs, shop.num_machines) == ("ft06", 6, 6)
    assert jobs(shop)[0] == [(2, 1), (0, 3), (1, 6), (3, 7), (5, 3), (4, 6)]
    assert shop.is_square
    assert not shop.has_zero_times


@pytest.mark.parametrize(
    "text",
    [
        "# ft\n#+++\n\n2 2\n0 3 1 2\n\n1 3 0 2\n# end\n",
        "2 2\r\n0 3 1 2\r\n1 3 0 2\r\n",
        "\ufeff2 2\n0 3 1 2\n1 3 0 2",
        "  2\t 2 \n\t0  3\t\t1 2  \n 1 3 0 2\n\n\n",
        "2 2\n0 3 1 2\n  # between\n1 +3 0 2\n",
    ],
)
def test_comments_blanks_line_ends_and_the_byte_order_mark_do_not_matter(put, text: str) -> None:
    assert read_instance(put(text)) == SMALL


BAD = {
    "": "no data",
    "\n  \n# only a comment\n": "no data",
    "2\n0 3 1 2\n1 3 0 2\n": "line 1: header",
    "2 2 2\n0 3 1 2\n1 3 0 2\n": "line 1: header",
    "x y\n0 3 1 2\n1 3 0 2\n": "line 1: header",
    "2.0 2\n0 3 1 2\n1 3 0 2\n": "line 1: header",
    "0 2\n": "line 1: header",
    "2 -1\n": "line 1: header",
    "\n# c\n2 0\n": "line 3: header",
    "2 2\n0 3 1 2\n": "line 2: expected 2 job lines, found 1",
    "2 2\n": "line 1: expected 2 job lines, found 0",
    "2 2\n0 3 1 2\n1 3 0 2\n\n7 7\n": "line 5: unexpected data after job 2",
    "2 2\n0 3 1 2\n1 3 0\n": "line 3: odd number of values",
    "2 2\n0 3\n1 3 0 2\n": "line 2: expected 2 operations, found 1",
    "2 2\n0 3 1 2 0 1\n1 3 0 2\n": "line 2: expected 2 operations, found 3",
    "2 2\n0 3 -1 2\n1 3 0 2\n": "line 2: machine index out of range: -1 is not in 0..1.$",
    "2 2\n0 3 1 2\n1 3 2 2\n": "line 3: machine index out of range: 2 is not in 0..1.$",
    "2 2\n1 3 2 2\n2 3 1 2\n": "line 2: .*out of range.*looks 1-based; pass machine_base=1",
    "2 2\n0 3 1 2\n1 3 1 2\n": "line 3: duplicate machine 1",
    "2 2\n0 3 1 2\n1 -3 0 2\n": "line 3: negative time -3",
    "2 2\n0 3.5 1 2\n1 3 0 2\n": "line 2: '3.5' is not an integer.*time_scale",
    "2 2\n0 NaN 1 2\n1 3 0 2\n": "line 2: 'NaN' is not an integer",
    "2 2\n0 3 x 2\n1 3 0 2\n": "line 2: 'x' is not an integer",
    "2 2\n0 3 1_0 2\n1 3 0 2\n": "line 2: '1_0' is not an integer",
    "2 2\n0 3 1 \u0662\n1 3 0 2\n": "line 2: .* is not an integer",
    "3000 3000\n": "line 1: too large: 3000 jobs of 3000 operations",
    "1 5000001\n": "line 1: too large",
    "9999999999999999 1\n": "line 1: too large",
    f"{'9' * 5000} 1\n": "line 1: .* is too large",
    f"2 2\n0 {'9' * 5000} 1 2\n1 3 0 2\n": "line 2: .* is too large",
    "1 1\n0 9007199254740993\n": "line 2: .*more than 2\\*\\*53",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_named_with_its_file_and_line(put, text: str) -> None:
    with pytest.raises(InstanceError, match=f"shop.txt.*{BAD[text]}") as caught:
        read_instance(put(text))
    assert len(str(caught.value)) < 400
    assert isinstance(caught.value, ValueError)


def test_zero_times_are_accepted(put) -> None:
    assert read_instance(put("1 2\n0 0 1 5\n")).has_zero_times


def test_without_strict_jobs_may_differ_come_back_and_be_followed(put) -> None:
    text = "2 4\n0 3 1 0 0 4\n2 1\nthe end\n"
    assert read_instance(put(text), strict=False) == GENERAL
    with pytest.raises(InstanceError, match="unexpected data"):
        read_instance(put(text))
    with pytest.raises(InstanceError, match="odd number of values"):
        read_instance(put("1 2\n0 3 1\n"), strict=False)


def test_machines_may_count_from_one(put) -> None:
    path = put("2 2\n1 3 2 2\n2 3 1 2\n")
    assert read_instance(path, machine_base=1) == SMALL
    with pytest.raises(InstanceError, match=r"line 2: .*out of range: 0 is not in 1\.\.2\.$"):
        read_instance(put("1 2\n0 3 1 2\n"), machine_base=1)


def test_times_that_are_not_whole_are_scaled_exactly_or_refused(put) -> None:
    path = put("1 2\n0 0.3 1 1e1\n")
    assert jobs(read_instance(path, time_scale=10)) == [[(0, 3), (1, 100)]]
    with pytest.raises(InstanceError, match=r"line 2: '0\.3' times 5 is not an integer"):
        read_instance(path, time_scale=5)
    with pytest.raises(InstanceError, match="line 2: 'nan' is not an integer"):
        read_instance(put("1 2\n0 nan 1 2\n"), time_scale=10)
    with pytest.raises(InstanceError, match="line 2: '1e999' is too large"):
        read_instance(put("1 2\n0 1e999 1 2\n"), time_scale=10)
    tenth = read_instance(put("1 2\n0 30 1 20\n"), time_scale=0.1)
    assert jobs(tenth) == [[(0, 3), (1, 2)]]
    with pytest.raises(ConfigError, match="time_scale is -1"):
        read_instance(path, time_scale=-1)


def test_a_missing_file_stays_a_missing_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_instance(tmp_path / "none.txt")
    with pytest.raises(InstanceError, match="cannot be read"):
        read_instance(tmp_path)


def test_an_unknown_format_is_refused_with_a_guess(put) -> None:
    with pytest.raises(ConfigError, match='Did you mean "taillard"'):
        read_instance(put(FT06), "tailard")
    with pytest.raises(ConfigError, match='unknown format "xml"'):
        write_instance(SMALL, "nowhere/x", "xml")


TAILLARD = """Nb of jobs, Nb of Machines, Time seed, Machine seed, Upper bound, Lower bound
          2          2           840612802   398197754        5        5
Times
 3 2
 3 2
Machines
 1 2
 2 1
"""


def test_a_taillard_file_is_recognised_and_counts_machines_from_one(put) -> None:
    assert read_instance(put(TAILLARD)) == SMALL
    assert read_instance(put("2 2\nTimes\n3 2\n3 2\nMachines\n1 2\n2 1\n")) == SMALL


def test_a_taillard_file_of_several_instances_is_read_as_a_list(put) -> None:
    path = put(TAILLARD + TAILLARD.replace(" 3 2", " 7 8"))
    first, second = read_instances(path)
    assert first == SMALL
    assert jobs(second) == [[(0, 7), (1, 8)], [(1, 7), (0, 8)]]
    assert (first.name, second.name) == ("shop-0", "shop-1")
    with pytest.raises(InstanceError, match=r"holds 2 instances.*read_instances"):
        read_instance(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Machines\n 1 2\n 2 1\n", "", 'line 5: expected the line "Machines"'),
        (" 2 1\n", "", "line 7: expected 2 job lines, found 1"),
        (" 2 1\n", " 2 1\n 1 2\n", "line 9: unexpected data after job 2"),
        ("Times\n 3 2\n", "Times\n", "line 5: expected 2 job lines, found 1"),
        (" 2 1\n", " 2 1 1\n", "line 8: expected 2 operations, found 3"),
        (" 2 1\n", " 2 0\n", r"line 8: machine index out of range: 0 is not in 1\.\.2"),
        (" 2 1\n", " 2 2\n", "line 8: duplicate machine 2"),
        ("Times\n 3 2\n", "Times\n 3 -2\n", "line 4: negative time -2"),
        ("Times\n 3 2\n", "Times\n 3 2.5\n", r"line 4: '2\.5' is not an integer"),
        ("          2          2 ", "          2          0 ", "line 2: header"),
    ],
)
def test_a_broken_taillard_file_is_named_with_its_line(put, old, new, message) -> None:
    with pytest.raises(InstanceError, match=f"shop.txt, {message}"):
        read_instance(put(TAILLARD.replace(old, new)))


def test_two_matrices_make_an_instance(put) -> None:
    times, machines = put("3 2\n3 2\n", "times.txt"), put("1\t2\n2\t1\n", "shop.txt")
    shop = read_matrix_pair(times, machines)
    assert (shop, shop.name) == (SMALL, "shop")
    for content, message in [
        ("1 2\n", "shop.txt, line 1: expected 2 job lines, found 1"),
        ("1 2\n2\n", "shop.txt, line 2: expected 2 operations, found 1"),
        ("1 2\n2 3\n", "shop.txt, line 2: machine index out of range"),
        ("1 2\n2 2\n", "shop.txt, line 2: duplicate machine 2"),
    ]:
        with pytest.raises(InstanceError, match=message):
            read_matrix_pair(times, put(content, "shop.txt"))
    with pytest.raises(InstanceError, match=r"times\.txt, line 2: negative time"):
        read_matrix_pair(put("3 2\n3 -2\n", "times.txt"), put("1 2\n2 1\n", "shop.txt"))


def test_reentrant_jobs_end_in_minus_one(put) -> None:
    text = "2 4\n0 3 1 0 0 4 -1 -1\n2 1 -1 -1\n"
    assert read_instance(put(text, "shop.dct")) == GENERAL
    assert read_instance(put(text), "dct") == GENERAL
    with pytest.raises(InstanceError, match="line 3: the job ends in '2 1', not in -1 -1"):
        read_instance(put("2 4\n0 3 -1 -1\n2 1\n", "shop.dct"))
    with pytest.raises(InstanceError, match="line 2: the job has no operation"):
        read_instance(put("1 4\n-1 -1\n", "shop.dct"))
    with pytest.raises(InstanceError, match=r'line 2: machine index out of range.*format="dct"'):
        read_instance(put(text), strict=False)


def rows(*values: tuple) -> list[dict]:
    keys = ("job", "operation", "machine", "duration")
    return [dict(zip(keys, value, strict=True)) for value in values]


GOOD = rows((0, 1, 1, 2), (0, 0, 0, 3), (1, 0, 1, 3), (1, 1, 0, 2))


def test_json_rows_may_stand_in_any_order(put) -> None:
    value = {"instance": "tiny", "family": "x", "jobs": 2, "machines": 2, "data": GOOD}
    shop = read_instance(put(json.dumps(value), "any.json"))
    assert (shop, shop.name) == (SMALL, "tiny")
    assert read_instance(put("  " + json.dumps(value), "any.txt")) == SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": 0}, "header"),
        ({"jobs": "2"}, "header"),
        ({"machines": True}, "header"),
        ({"jobs": 10**15}, "too large"),
        ({"jobs": 4000, "machines": 4000}, "too large"),
        ({"jobs": 9}, "expected 9 job lines"),
        ({"jobs": 3}, "job 2: expected 3 job lines"),
        ({"data": None}, 'no list "data"'),
        ({"data": [1, 2, 3]}, r"data\[0\]: 1 is no operation"),
        ({"data": [*GOOD, {"job": 0}]}, r'data\[4\]: "operation" is missing'),
        ({"data": [*GOOD, GOOD[0]]}, r"data\[4\]: operation 1 of job 0 is there twice"),
        ({"data": rows((0, 0, 0, 3), (1, 5, 0, 2))}, r"job 1: its operations are \[5\]"),
        ({"data": rows((0, 0, 0, 3), (7, 0, 0, 2))}, r"data\[1\]: job 7 is not in 0\.\.1"),
        ({"data": rows((0, 0, "a", 3), (1, 0, 0, 2))}, "machine 'a' is not an integer"),
        ({"data": rows((0, 0, 0, 3.5), (1, 0, 0, 2))}, r"data\[0\]: '3\.5' is not an integer"),
        ({"data": rows((0, 0, 0, None), (1, 0, 0, 2))}, "duration None is not an integer"),
        ({"data": rows((0, 0, 0, float("nan")), (1, 0, 0, 2))}, "'nan' is not an integer"),
        ({"data": rows((0, 0, 0, 10**30), (1, 0, 0, 2))}, "too large"),
        ({"data": GOOD[:3]}, "job 1: expected 2 operations, found 1"),
    ],
)
def test_broken_json_is_named_with_its_place(put, change: dict, message: str) -> None:
    value = {"instance": "tiny", "jobs": 2, "machines": 2, "data": GOOD, **change}
    with pytest.raises(InstanceError, match=f"shop.json.*{message}"):
        read_instance(put(json.dumps(value), "shop.json"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '{"jobs": ' + "1" * 5000 + "}", "[" * 100_000, '{"data": []}']
)
def test_what_is_not_json_is_refused(put, text: str) -> None:
    with pytest.raises(InstanceError, match=r"shop\.json"):
        read_instance(put(text, "shop.json"))


def test_an_array_file_holds_times_and_machines_from_one(tmp_path: Path) -> None:
    times, machines = [[3, 2], [3, 2]], [[1, 2], [2, 1]]
    path = tmp_path / "pair.npy"
    np.save(path, np.array([[times, machines], [machines, machines]]))
    first, second = read_instances(path)
    assert (first, first.name) == (SMALL, "pair-0")
    assert jobs(second) == [[(0, 1), (1, 2)], [(1, 2), (0, 1)]]
    with pytest.raises(InstanceError, match="holds 2 instances"):
        read_instance(path)
    np.save(path, np.array([times, machines], np.float32))
    assert read_instance(path) == SMALL


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2)), "header"),
        (np.zeros((1, 3, 2, 2)), "header"),
        (np.zeros((0, 2, 2, 2)), "header"),
        (np.zeros((2, 3000, 3000), np.int8), "too large"),
        (np.full((1, 2, 1, 1), 1.5), "is not an integer"),
        (np.full((1, 2, 1, 1), np.nan), "is not an integer"),
        (np.full((1, 2, 1, 1), 2), "machine index out of range: 2 is not in 1..1"),
        (np.ones((1, 2, 1, 2), int), "duplicate machine 1"),
        (np.full((1, 2, 1, 1), "a"), "not an integer array"),
        (np.full((1, 2, 1, 1), None, object), "no npy file of numbers"),
    ],
)
def test_a_wrong_array_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "shop.npy", array, allow_pickle=True)
    with pytest.raises(InstanceError, match=f"shop.npy.*{message}"):
        read_instance(tmp_path / "shop.npy")


def test_flexible_shops_are_read_only_when_nothing_is_left_to_choose(put) -> None:
    assert read_instance(put("2 2 1\n2 1 1 3 1 2 2 \n2  1\t2 3 1 1 2\n", "shop.fjs")) == SMALL
    for text, message in [
        ("1 2 1.5\n1 2 1 3 2 4\n", "line 2: .*flexible job shops are not supported yet"),
        ("1 2\n2 1 1 3\n", "line 2: expected 2 operations, found 1"),
        ("1 2\n1 1 1 3 9\n", "line 2: 1 values after operation 1"),
        ("1 2\n1 1 0 3\n", r"line 2: machine index out of range: 0 is not in 1\.\.2"),
        ("1 2\n0\n", "line 2: the job has no operation"),
        ("1 2 x\n1 1 1 3\n", "line 1: header"),
        ("2 2\n1 1 1 3\n", "expected 2 job lines, found 1"),
    ]:
        with pytest.raises(InstanceError, match=message):
            read_instance(put(text, "shop.fjs"))


@pytest.mark.parametrize("format", ["standard", "taillard", "dct", "fjs", "json", "npy"])
def test_what_is_written_is_read_back(tmp_path: Path, put, format: str) -> None:
    ft06 = read_instance(put(FT06))
    path = write_instance(ft06, tmp_path / "new" / f"ft06.{format}", format)
    again = read_instance(path, format)
    assert again == ft06
    assert read_instance(path) == ft06 or format in ("fjs", "dct")
    if format == "standard":
        assert path.read_bytes() == FT06.encode()


@pytest.mark.parametrize("format", ["standard", "taillard", "dct", "fjs", "json"])
def test_jobs_of_any_length_are_written_and_read_back(tmp_path: Path, format: str) -> None:
    path = write_instance(GENERAL, tmp_path / "shop", format)
    assert read_instance(path, format, strict=False) == GENERAL


def test_formats_of_square_tables_refuse_other_jobs(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r'exactly 4 operations.*format="standard"'):
        write_instance(GENERAL, tmp_path / "shop.npy", "auto")
    with pytest.raises(InstanceError, match="exactly 4 operations"):
        write_matrix_pair(GENERAL, tmp_path / "times", tmp_path / "machines")
    assert not list(tmp_path.iterdir())
    write_matrix_pair(SMALL, tmp_path / "times", tmp_path / "machines")
    assert (tmp_path / "machines").read_text() == "1 2\n2 1\n"
    assert read_matrix_pair(tmp_path / "times", tmp_path / "machines") == SMALL


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Flips, drops, inserts or doubles bytes, or shuffles, drops or doubles lines."""
    for _ in range(rng.randint(1, 4)):
        data = bytearray(content)
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randint(1, 9)]
        elif kind == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 3)))
        elif kind == 3:
            data[at:at] = rng.choice([b"-", b" 9", b"99999999", b"e9", b".5", b"#", b"\n", b"nan"])
        else:
            lines = bytes(data).split(b"\n")
            if kind == 4:
                rng.shuffle(lines)
            else:
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            data = bytearray(b"\n".join(lines))
        content = bytes(data)
    return content


def check(shop: JobShopInstance) -> None:
    """Checks by hand what an instance promises."""
    for job in shop.jobs():
        assert job
        assert all(0 <= k < shop.num_machines and p >= 0 for k, p in job)


@pytest.mark.parametrize("strict", [True, False])
def test_ten_thousand_broken_files_are_refused_or_read_as_valid_job_shops(
    strict: bool,
) -> None:
    rng = random.Random(6)
    refused = read = 0
    for _ in range(5000):
        content = mutate(FT06.encode(), rng)
        try:
            (shop,) = parse_instances(content, "ft06.txt", strict=strict)
        except InstanceError as error:
            refused += str(error).startswith("ft06.txt")
        else:
            check(shop)
            read += 1
    assert refused + read == 5000  # every refusal names the file
    assert min(refused, read) > 100


@pytest.mark.parametrize("format", ["taillard", "dct", "fjs", "json", "npy"])
def test_broken_files_of_other_formats_are_refused_or_read(tmp_path: Path, format: str) -> None:
    rng = random.Random(7)
    good = write_instance(SMALL, tmp_path / "shop", format).read_bytes()
    refused = read = 0
    for _ in range(600):
        try:
            found = parse_instances(mutate(good, rng), "shop", format, strict=False)
        except InstanceError as error:
            refused += str(error).startswith("shop")
        else:
            for shop in found:
                check(shop)
            read += 1
    assert refused + read == 600
    assert refused > 100


@pytest.mark.parametrize("format", ["auto", "standard", "taillard", "dct", "fjs", "json", "npy"])
@pytest.mark.parametrize("seed", range(10))
def test_garbage_is_refused(put, format: str, seed: int) -> None:
    content = random.Random(seed).randbytes(10**seed % 9973)
    with pytest.raises(InstanceError):
        read_instance(put(content), format)
    magic = b"\x93NUMPY\x01\x00\x10\x00" + content
    with pytest.raises(InstanceError):
        read_instance(put(magic, "x.npy"))
