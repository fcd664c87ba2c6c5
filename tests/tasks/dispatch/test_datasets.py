"""The classical instances: names and groups, published values, fetching without a network."""

import os
from pathlib import Path

import pytest

from gnnlab.errors import DataError
from gnnlab.tasks.dispatch import Published, datasets, read_instance, write_instance
from gnnlab.tasks.dispatch.files import standard_text
from gnnlab.tasks.dispatch.generate import taillard_exact

DATA = Path(os.environ.get("GNNLAB_DATA", "nowhere"), "scheduling", "instances")

# as the public source has it: comments, aligned columns
FT06 = b"""#++++++++++++++
# Fisher and Thompson 6x6 instance, alternate name (mt06)
#
6  6
 2  1  0  3  1  6  3  7  5  3  4  6
 1  8  2  5  4 10  5 10  0 10  3  4
 2  5  3  4  5  8  0  9  1  1  4  7
 1  5  0  5  2  5  3  3  4  8  5  9
 2  9  1  3  4  5  5  4  0  3  3  1
 1  3  3  3  5  9  0 10  4  4  2  1
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no shared data."""
    monkeypatch.delenv("GNNLAB_DATA", raising=False)
    monkeypatch.setenv("GNNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_table_holds_the_published_values() -> None:
    # Fisher and Thompson 1963; ft10 was closed by Carlier and Pinson 1989, ft20 in 1975
    assert [datasets.published(n).upper_bound for n in ("ft06", "ft10", "ft20")] == [55, 930, 1165]
    # optima of Lawrence's first five, and the mean of Taillard's first ten (OR-Library)
    assert [datasets.published(f"la0{i}").best("jssp") for i in range(1, 6)] == [
        666,
        655,
        597,
        590,
        593,
    ]
    mean = sum(datasets.published(n).upper_bound for n in datasets.expand("ta01-10")) / 10
    assert mean == 1228.9
    assert datasets.published("ft10").best("bws") == 1068
    assert datasets.published("ft10").best("bns") is None


def test_every_row_of_the_table_is_consistent() -> None:
    rows = [datasets.published(n) for n in datasets.CLASSICAL]
    assert len(rows) == 152
    assert sum(r.optimal for r in rows) == 137
    for row in rows:
        assert isinstance(row, Published)
        assert row.lower_bound <= row.upper_bound <= row.blocking_upper_bound
        assert row.lower_bound <= row.blocking_lower_bound <= row.blocking_upper_bound
        assert len(row.sha256) == 64
    assert [r.name for r in rows if r.blocking_optimal][:4] == ["abz5", "abz6", "ft06", "ft10"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ft06", ["ft06"]),
        ("la01-03", ["la01", "la02", "la03"]),
        ("la09-la11", ["la09", "la10", "la11"]),
        ("abz5-6", ["abz5", "abz6"]),
        ("la01,la02 , la01", ["la01", "la02"]),
        ("yn*", ["yn1", "yn2", "yn3", "yn4"]),
        ("ta?9,yn1", [*(f"ta{i}9" for i in range(8)), "yn1"]),
        ("abz", ["abz5", "abz6", "abz7", "abz8", "abz9"]),
        ("la  20x5", ["la11", "la12", "la13", "la14", "la15"]),
        (["yn1", "ft20"], ["yn1", "ft20"]),
    ],
)
def test_groups_stand_for_names(text, names: list[str]) -> None:
    assert datasets.expand(text) == names


def test_taillards_sizes_are_groups_of_ten() -> None:
    sizes = ("15x15", "20x15", "20x20", "30x15", "30x20", "50x15", "50x20", "100x20")
    groups = [datasets.expand(f"ta {size}") for size in sizes]
    for ten, group in enumerate(groups):
        assert group == [f"ta{10 * ten + i:02d}" for i in range(1, 11)]
    assert datasets.expand("classical") == list(datasets.CLASSICAL)


@pytest.mark.parametrize(
    "text", ["", "la99", "la39-41", "la05-01", "la01-ta05", "xy", "ta 7x7", "ft06,,la01", "q*"]
)
def test_what_stands_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="stands for no classical instance"):
        datasets.expand(text)


def test_a_mistyped_name_is_guessed() -> None:
    with pytest.raises(DataError, match='Did you mean "ft06"'):
        datasets.published("ft6")
    with pytest.raises(DataError, match="Families: abz, ft, la, swv, ta, yn"):
        datasets.published("zzzzzz")


def test_an_absent_instance_says_where_it_was_looked_for(cache: Path) -> None:
    with pytest.raises(DataError, match=r"instances/ft06\.txt in .*cache.*JSPLIB.*GNNLAB_DATA"):
        datasets.find("ft06")


def test_fetching_keeps_the_normal_form_under_its_name(cache: Path) -> None:
    asked = []

    def download(address: str) -> bytes:
        asked.append(address)
        return FT06

    path = cache / "dispatch" / "instances" / "ft06.txt"
    assert datasets.fetch("ft06", download=download) == [path]
    assert asked == [f"{datasets.SOURCE}/ft06"]
    lines = [line for line in FT06.decode().splitlines() if not line.startswith("#")]
    assert path.read_text() == "".join(" ".join(line.split()) + "\n" for line in lines)
    assert datasets.find("ft06") == path
    assert datasets.load("ft06").num_operations == 36
    assert datasets.fetch("ft06", download=download) == [path]
    assert len(asked) == 1
    path.write_text("broken")
    assert datasets.fetch("ft06", download=download) == [path]
    assert len(asked) == 2
    assert [p.name for p in path.parent.iterdir()] == ["ft06.txt"]


def test_one_number_changed_is_refused_and_nothing_is_kept(cache: Path) -> None:
    with pytest.raises(DataError, match=r"not the ft06 that gnnlab knows.*Nothing was kept"):
        datasets.fetch("ft06", download=lambda _: FT06.replace(b"5  9\n", b"5  8\n", 1))
    with pytest.raises(DataError, match=r"holds no job shop: ft06, line 1: header"):
        datasets.fetch("ft06", download=lambda _: b"<html>not found</html>")
    with pytest.raises(DataError, match="holds no job shop"):
        datasets.fetch("ft06", download=lambda _: b"\xff\xfe\x00")
    assert not cache.exists()


def test_a_source_that_does_not_answer_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "SOURCE", tmp_path.as_uri())
    with pytest.raises(DataError, match=r"^cannot fetch file://.*ft06"):
        datasets.fetch("ft06")
    (tmp_path / "ft06").write_bytes(FT06)
    assert datasets.fetch("ft06")[0].is_file()


def test_shared_data_comes_before_the_cache_and_is_checked(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "scheduling" / "instances"
    folder.mkdir(parents=True)
    monkeypatch.setenv("GNNLAB_DATA", str(tmp_path / "data"))
    (folder / "ft06.txt").write_bytes(FT06)
    datasets.fetch("ft06", download=lambda _: FT06)
    assert datasets.find("ft06") == folder / "ft06.txt"
    assert datasets.load("ft06").name == "ft06"
    (folder / "ft06.txt").write_text("1 1\n0 5\n")
    with pytest.raises(DataError, match="is not the published ft06"):
        datasets.load("ft06")


def test_hashes_belong_to_the_instances_they_name(cache: Path) -> None:
    # Taillard 1993 publishes ta01 as two seeds: an origin that has no part in the table
    ta01 = standard_text(taillard_exact(15, 15, 840612802, 398197754)).encode()
    assert datasets.fetch("ta01", download=lambda _: ta01)[0].read_bytes() == ta01


@pytest.mark.skipif(not DATA.is_dir(), reason="needs GNNLAB_DATA with scheduling/instances")
def test_the_shipped_files_are_written_byte_for_byte(tmp_path: Path) -> None:
    for name in datasets.CLASSICAL:
        content = (DATA / f"{name}.txt").read_bytes()
        assert write_instance(
            read_instance(DATA / f"{name}.txt"), tmp_path / name
        ).read_bytes() == (content)
