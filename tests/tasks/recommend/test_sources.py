import gzip
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnnlab.errors import DataError, MissingExtraError
from gnnlab.task import Data
from gnnlab.tasks.recommend import datasets
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.data import read

Write = Callable[[str, str], Path]
SMALL = {"user": [1, 1, 2, 2], "item": [10, 11, 10, 12]}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writer(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return writer


def _read(source: Any, **options: Any) -> Data:
    return read(source, RecommendConfig(**{"split": "none", **options}))


def _raw_pairs(data: Data, split: str = "train") -> list[tuple[Any, Any]]:
    pairs = data.split(split).target
    return list(
        zip(
            pairs.users.decode(pairs.user).tolist(),
            pairs.items.decode(pairs.item).tolist(),
            strict=True,
        )
    )


def _quiet(source: Any, **options: Any) -> Data:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return _read(source, **options)


# ---- the kinds of source ------------------------------------------------------------------------

EXPECTED = [(1, 10), (1, 11), (2, 10), (2, 12)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "user,item\n1,10\n1,11\n2,10\n2,12\n"),
        ("a.csv", "\ufeffuser,item\r\n1,10\r\n1,11\r\n\r\n2,10\r\n2,12"),
        ("a.tsv", "item_id\tuser_id\n10\t1\n11\t1\n10\t2\n12\t2\n"),
        ("a.txt", 'userId;movieId;rating\n1;"10";3\n 1 ;11;4\n2; 10;5\n2;12;1\n'),
        ("a.inter", "user_id:token\titem_id:token\n1\t10\n1\t11\n2\t10\n2\t12\n"),
    ],
)
def test_text_files_are_read(write: Write, name: str, text: str) -> None:
    assert _raw_pairs(_quiet(write(name, text))) == EXPECTED


def test_a_separator_of_several_characters_can_be_given(write: Write) -> None:
    path = write("ratings.txt", "user::item::rating\n1::10::5\n2::12::3\n")
    assert _raw_pairs(_quiet(path, delimiter="::")) == [(1, 10), (2, 12)]


def test_gzip_files_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    whole = gzip.compress(b"user,item\n" + b"1,10\n2,12\n" * 50)
    path.write_bytes(whole)
    assert _raw_pairs(_read(path)) == [(1, 10), (2, 12)]
    for broken in (whole[:-12], b"user,item\n1,2\n"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"a\.csv\.gz is not a complete gzip file"):
            _read(path)


@pytest.mark.parametrize(
    "source",
    [
        {name: np.array(column) for name, column in SMALL.items()},
        SMALL,
        (np.array(SMALL["user"]), torch.tensor(SMALL["item"])),
        [SMALL["user"], SMALL["item"]],
        torch.tensor([SMALL["user"], SMALL["item"]]),
        np.array([SMALL["user"], SMALL["item"]], dtype=np.int32),
    ],
)
def test_arrays_and_tensors_are_read(source: Any) -> None:
    assert _raw_pairs(_quiet(source)) == EXPECTED


def test_three_arrays_bring_times() -> None:
    data = _read((SMALL["user"], SMALL["item"], [4, 3, 2, 1]), split="temporal-global",
                 test_ratio=0.25, val_ratio=0)  # fmt: skip
    assert _raw_pairs(data, "test") == [(1, 10)]


def test_scipy_matrices_keep_their_shape() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    data = _quiet(sparse.csr_matrix(np.array([[0, 1, 0], [2, 0, 0], [0, 0, 0]])))
    assert (data.spec["num_users"], data.spec["num_items"]) == (3, 3)
    assert _raw_pairs(data) == [(0, 1), (1, 0)]


def test_data_frames_of_any_column_type_are_read() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"user": ["b", "a", "a"], "item": [1, 2, 3], "note": [None] * 3})
    expected = [("a", 2), ("a", 3), ("b", 1)]
    assert _raw_pairs(_quiet(frame)) == expected
    frame["user"] = frame["user"].astype("category")
    frame["item"] = frame["item"].astype("Int64")
    assert _raw_pairs(_quiet(frame)) == expected
    frame["timestamp"] = pandas.to_datetime(["2021-01-03", "2021-01-01", "2021-01-02"], utc=True)
    cut = _read(frame, split="temporal-global", test_ratio=0.4, val_ratio=0)
    assert _raw_pairs(cut, "test") == [("b", 1)]


def test_arrow_tables_and_parquet_files_are_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    large = 2**53 + 1  # would change if it passed through a float
    table = arrow.table(
        {
            "user": arrow.array(["b", "a", "a"]).dictionary_encode(),
            "item": arrow.array([large, None, 3]),
        }
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    for source in (table, tmp_path / "a.parquet"):
        with pytest.warns(UserWarning, match="dropped 1 rows"):
            assert _raw_pairs(_read(source)) == [("a", 3), ("b", large)]
    (tmp_path / "b.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"b\.parquet is not a readable Parquet file"):
        _read(tmp_path / "b.parquet")


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gnnlab\[recommend\]'"):
        _read(tmp_path / "a.parquet")


def test_npz_files_with_a_split_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, shape=[4, 5], train_user=[0, 1, 1], train_item=[0, 0, 2],
             valid_user=[0], valid_item=[2], test_user=[2, 1], test_item=[4, 1])  # fmt: skip
    data = _quiet(path, val_ratio=0.5)
    assert (data.spec["num_users"], data.spec["num_items"]) == (4, 5)
    assert _raw_pairs(data, "val") == [(0, 2)]
    assert _raw_pairs(data, "test") == [(1, 1), (2, 4)]
    assert data.split("test").history is data.train.target
    assert data.facts["test users without history"] == 1
    assert data.facts["test items unseen in train"] == 2
    both = _quiet(path, mask="train+valid").split("test").history
    assert both.num_pairs == 4
    assert data.split("val").history is data.train.target


def test_given_splits_have_no_validation_part_unless_asked() -> None:
    source = {"train_user": [0] * 10, "train_item": list(range(10)), "test_user": [0],
              "test_item": [10]}  # fmt: skip
    assert _quiet(source).val is None
    data = _quiet(source, val_ratio=0.2)
    assert data.split("val").target.num_pairs == 2
    assert data.spec["num_train"] == 8


def test_an_unreadable_npz_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(DataError, match=r"a\.npz is not a readable npz file"):
        _read(path)
    np.savez(path, user=np.array([1, "a"], dtype=object))  # would need pickle
    with pytest.raises(DataError, match=r"a\.npz is not a readable npz file"):
        _read(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (5, "cannot read interactions from a int"),
        (torch.zeros(3, 4, dtype=torch.int64), r"an edge_index has shape \(2, E\)"),
        (torch.zeros(2, 4), r"an edge_index has shape \(2, E\) and integers"),
        (torch.tensor([[0, -1], [0, 0]]), "edge_index holds -1"),
        (([1], [1], [1], [1]), "got 4 values"),
        (([1, 2], [1]), "different lengths: user 2, item 1"),
        ({"user": np.zeros((2, 2)), "item": np.zeros((2, 2))}, "must be one-dimensional"),
        ({"user": [1], "item": [1], "shape": [3]}, "shape must hold two counts"),
        ({"user": [1], "item": [3], "shape": [3, 2]}, r"item id 3 is outside 0\.\.1"),
        ({"user": ["a"], "item": [1], "shape": [3, 2]}, "but their ids are strings"),
    ],
)
def test_sources_that_make_no_sense_are_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(source)


# ---- files that are not what they seem ----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv is empty: no interactions"),
        ("\n\n", r"a\.csv is empty: no interactions"),
        ("user,item\n", r"a\.csv: no interactions"),
        ("user,item\n1,2\n1\n", r"a\.csv, line 3: 1 fields, but the first line names 2 columns"),
        ("user,item\n\n1,2,3\n", r"a\.csv, line 3: 3 fields"),
        ('user,item\n1,2\n"1,3\n', r"a\.csv, line 3: unexpected end of data"),
        ("user,user,item\n1,1,2\n", 'column "user" occurs twice'),
        ("usr,item\n1,2\n", 'a.csv has no column "user"; its columns are: usr, item'),
        ("1,2\n3,4\n", "its columns are: 1, 2.*Name the column with user_col"),
    ],
)
def test_broken_text_files_name_file_and_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(write("a.csv", text))


def test_files_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("user,item\nJosé,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.csv is not UTF-8 text .*0xe9"):
        _read(path)
    path.write_bytes(b"ab\0\0\1\2")
    with pytest.raises(DataError, match=r"a\.csv is a binary file"):
        _read(path)


def test_folders_and_missing_and_unknown_files_are_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; give the file"):
        _read(tmp_path)
    with pytest.raises(DataError, match=r"there is no file .*ratings\.csv"):
        _read(tmp_path / "ratings.csv")
    with pytest.raises(DataError, match=r'cannot read files ending in "\.xlsx"\. Known: \.csv'):
        _read(write("a.xlsx", "x"))


def test_a_large_text_file_loses_no_pair(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = np.stack([generator.integers(0, 6000, 200_000), generator.integers(0, 3000, 200_000)], 1)
    path = tmp_path / "large.csv"
    np.savetxt(path, rows, fmt="%d", delimiter=",", header="user,item", comments="")
    data = _read(path)
    assert data.spec["num_train"] == len(np.unique(rows, axis=0))


# ---- named data sets ----------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("GNNLAB_DATA", raising=False)
    monkeypatch.setenv("GNNLAB_CACHE", str(tmp_path))
    return tmp_path


def test_an_absent_data_set_says_where_it_was_sought_and_where_it_is(empty_cache: Path) -> None:
    with pytest.raises(DataError, match=r'"gowalla" is not on this machine') as caught:
        _read("gowalla")
    assert str(empty_cache / "recommend") in str(caught.value)
    assert "github.com/gusye1234/LightGCN-PyTorch" in str(caught.value)


def test_a_misspelt_data_set_is_corrected(empty_cache: Path) -> None:
    with pytest.raises(DataError, match=r'no file or data set "gowala"\. Did you mean "gowalla"'):
        _read("gowala")


def test_another_split_under_a_known_name_is_refused(empty_cache: Path) -> None:
    folder = empty_cache / "recommend"
    folder.mkdir()
    np.savez(folder / "lastfm.npz", shape=[3, 3], train_user=[0], train_item=[0],
             test_user=[1], test_item=[1])  # fmt: skip
    with pytest.raises(DataError, match='is not the data set "lastfm"'):
        _read("lastfm")


@pytest.mark.parametrize("name", sorted(datasets.DATASETS))
def test_named_data_sets_have_their_documented_counts(name: str) -> None:
    folder = Path(os.environ.get("GNNLAB_DATA", "")) / "recommendation"
    if not (folder / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not under $GNNLAB_DATA/recommendation")
    facts = datasets.DATASETS[name]
    data = _quiet(name)
    assert (data.spec["num_users"], data.spec["num_items"]) == (facts.users, facts.items)
    assert data.spec["num_train"] == facts.train
    assert (data.split("test").target.num_pairs if facts.test else 0) == facts.test
    assert "sha256 verified" in data.facts["source"]
    assert data.facts["duplicates collapsed"] == 0
