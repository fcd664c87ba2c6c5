import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnnlab.errors import DataError
from gnnlab.task import Data
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.data import read, read_users
from gnnlab.tasks.recommend.ids import IdMap

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


# ---- values -------------------------------------------------------------------------------------


def test_an_empty_table_is_an_error() -> None:
    with pytest.raises(DataError, match="the mapping: no interactions"):
        _read({"user": [], "item": []})


def test_a_missing_column_is_named_with_those_present() -> None:
    with pytest.raises(
        DataError, match=r'no column "itm"; its columns are: user, item\. Did you mean "item"'
    ):
        _read(SMALL, item_col="itm")


@pytest.mark.parametrize(
    "source",
    [
        {"user": [1, None, 2], "item": [5, 6, 7]},
        {"user": np.array([1.0, np.nan, 2.0]), "item": [5, 6, 7]},
        {"user": [1, 9, 2], "item": ["5", "", "7"]},
    ],
)
def test_rows_without_ids_are_dropped_with_a_count_or_refused(source: Any) -> None:
    with pytest.warns(UserWarning, match="dropped 1 rows whose user or item id is empty"):
        data = _read(source)
    assert data.spec["num_train"] == 2
    assert data.facts["rows dropped (empty id)"] == 1
    with pytest.raises(DataError, match=r"row 1 \(from 0\): (user|item) id is empty"):
        _read(source, on_null="error")


def test_empty_ids_in_files_name_the_line(write: Write) -> None:
    path = write("ratings.csv", "user,item\n1,2\n,3\n  ,4\n")
    with pytest.raises(DataError, match=r"ratings\.csv, line 3: user id is empty \(2 such rows\)"):
        _read(path, on_null="error")
    with pytest.warns(UserWarning, match="dropped 2 rows"):
        assert _raw_pairs(_read(path)) == [(1, 2)]
    only = write("b.csv", "user,item\n,3\n")
    with pytest.raises(DataError, match="no interactions left after dropping 1 rows"):
        _read(only)


@pytest.mark.parametrize("bad", ["", "yesterday", "-5", "nan", "inf"])
@pytest.mark.parametrize("split", ["temporal-global", "leave-one-out"])
def test_bad_times_matter_only_to_splits_by_time(write: Write, bad: str, split: str) -> None:
    rows = "".join(f"1,{i},{i}\n" for i in range(8))
    path = write("a.csv", f"user,item,timestamp\n{rows}2,1,{bad}\n2,2,{bad}\n")
    message = rf"a\.csv, line 10: timestamp is {bad}, which is not a time \(2 such rows\)"
    with pytest.raises(DataError, match=message):
        _read(path, split=split)
    assert _read(path, split="random").spec["num_users"] == 2


@pytest.mark.parametrize(
    "bad", [np.array([3, 2, -1, 4]), np.array([3.0, 2.0, np.nan, 4.0]),
            np.array(["2020", "2021", "NaT", "2022"], dtype="datetime64[s]")]
)  # fmt: skip
def test_bad_times_in_arrays_name_the_row(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"row 2 \(from 0\): timestamp is .* \(1 such rows\)"):
        _read({**SMALL, "timestamp": bad}, split="temporal-global")


def test_a_split_by_time_needs_a_time_column() -> None:
    with pytest.raises(DataError, match=r'no column "timestamp".*Name the column with time_col'):
        _read(SMALL, split="temporal-global")


def test_dates_as_text_are_times(write: Write) -> None:
    path = write(
        "a.csv", "user,item,time\n1,1,2021-03-01T10:00:00Z\n1,2,2020-01-01\n2,1,2019-05-05\n"
    )
    data = _read(path, split="temporal-global", test_ratio=0.3, val_ratio=0)
    assert _raw_pairs(data, "test") == [(1, 1)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_weights_name_the_first_row(bad: float) -> None:
    source = {**SMALL, "plays": np.array([1.0, 2.0, bad, bad])}
    with pytest.raises(DataError, match=r"row 2 \(from 0\): plays is .* \(2 such rows\)"):
        _read(source, weight_col="plays")
    assert _read(source).spec["num_train"] == 4


def test_weights_that_are_no_numbers_name_the_line(write: Write) -> None:
    with pytest.raises(DataError, match=r"a\.csv, line 3: plays is many"):
        _read(write("a.csv", "user,item,plays\n1,2,3\n1,3,many\n"), weight_col="plays")


def test_low_ratings_are_removed_and_counted() -> None:
    source = {**SMALL, "rating": [5, 3, 4, 2]}
    data = _read(source, min_rating=4)
    assert _raw_pairs(data) == [(1, 10), (2, 10)]
    assert data.facts["rows dropped (rating < 4)"] == 2
    with pytest.raises(DataError, match="no interactions left: min_rating=6 removes all"):
        _read(source, min_rating=6)
    with pytest.raises(DataError, match='no column "rating"'):
        _read(SMALL, min_rating=4)


def test_repeated_pairs_are_collapsed_and_counted() -> None:
    data = _quiet({"user": [1, 1, 1], "item": [2, 2, 3], "w": [1.0, 2.0, 4.0]}, weight_col="w")
    assert data.spec["num_train"] == 2
    assert data.facts["duplicates collapsed"] == 1
    assert data.train.target.weight.tolist() == [3.0, 4.0]


def test_mixed_id_types_are_refused_with_an_example() -> None:
    with pytest.raises(DataError, match=r'column "user": user ids mix types: 1 \(int\) and "1"'):
        _read({"user": [1, "1"], "item": [1, 2]})
    with pytest.raises(DataError, match="item ids are integers in one part and strings in another"):
        _read({"train_user": [1], "train_item": [1], "test_user": [1], "test_item": ["1"]})


def test_text_ids_become_integers_only_when_nothing_is_lost(write: Write) -> None:
    data = _read(write("a.csv", "user,item\n007,5\n12,6\n"))
    assert (data.spec["id_kind_user"], data.spec["id_kind_item"]) == ("string", "int")
    assert _raw_pairs(data) == [("007", 5), ("12", 6)]


def test_strings_in_memory_stay_strings() -> None:
    assert _raw_pairs(_read({"user": ["1"], "item": ["2"]})) == [("1", "2")]


# ---- splits -------------------------------------------------------------------------------------


def test_pairs_in_train_and_test_are_removed_from_test() -> None:
    source = {"train_user": [1, 1], "train_item": [1, 2], "test_user": [1, 1], "test_item": [2, 3]}
    with pytest.warns(UserWarning, match="removed 1 pairs from test that are also in train"):
        data = _read(source)
    assert _raw_pairs(data, "test") == [(1, 3)]


def test_pairs_in_validation_and_test_are_removed_from_validation() -> None:
    source = {"train_user": [1], "train_item": [1], "valid_user": [1, 1], "valid_item": [2, 3],
              "test_user": [1], "test_item": [3]}  # fmt: skip
    with pytest.warns(UserWarning, match="removed 1 pairs from val that are also in test"):
        data = _read(source)
    assert (_raw_pairs(data, "val"), _raw_pairs(data, "test")) == ([(1, 2)], [(1, 3)])


def test_users_and_items_of_test_alone_are_kept_and_counted() -> None:
    data = _quiet({"train_user": [1], "train_item": [1], "test_user": [2, 1], "test_item": [1, 9]})
    assert (data.spec["num_users"], data.spec["num_items"]) == (2, 2)
    assert data.facts["test users without history"] == 1
    assert data.facts["test items unseen in train"] == 1


def test_ids_in_range_without_interactions_are_kept() -> None:
    data = _quiet({"user": [0, 4], "item": [1, 1], "shape": [9, 3]})
    assert (data.spec["num_users"], data.spec["num_items"]) == (9, 3)
    assert data.facts["users without train pairs"] == 7
    from_one = _quiet({"user": [1, 3], "item": [1, 2], "shape": [3, 3]})
    assert from_one.train.target.users.raw.tolist() == [1, 2, 3]


def test_ids_need_not_be_contiguous() -> None:
    data = _quiet({"user": [10**15, -4], "item": [7, 1_000_000]})
    assert _raw_pairs(data) == [(-4, 1_000_000), (10**15, 7)]


def test_more_pairs_than_32_bits_can_number_are_fine() -> None:
    data = _quiet({"user": [99_999], "item": [99_998], "shape": [100_000, 100_000]})
    assert data.train.target.keys.tolist() == [99_999 * 100_000 + 99_998]


@pytest.mark.parametrize("split", ["random", "leave-one-out", "temporal-global", "none"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_user_or_one_item_can_be_split(split: str) -> None:
    for user, item in (([0] * 6, list(range(6))), (list(range(6)), [0] * 6)):
        data = _read({"user": user, "item": item, "time": list(range(6))}, split=split)
        assert data.spec["num_train"] >= 1
    single = {"user": [0], "item": [0], "time": [0]}
    if split == "temporal-global":
        with pytest.raises(DataError, match="no training interactions"):
            _read(single, split=split)
    else:
        assert _read(single, split=split).spec["num_train"] == 1


def test_a_split_without_test_pairs_is_warned_about() -> None:
    with pytest.warns(UserWarning, match='split="random" leaves no test pairs'):
        assert _read(SMALL, split="random").test is None


def test_equal_times_leave_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match=r"falls on the earliest time \(3\)"):
        _read({**SMALL, "timestamp": [3, 3, 3, 3]}, split="temporal-global")


def test_the_parts_of_a_split_cover_the_data_once() -> None:
    for split in ("random", "leave-one-out", "temporal-global"):
        data = read("synthetic", RecommendConfig(split=split))
        parts = [data.split(name).target for name in ("train", "val", "test")]
        keys = np.concatenate([part.keys for part in parts])
        assert len(np.unique(keys)) == len(keys) == 21241
        assert data.split("val").history is data.train.target
        assert "temporal-global" in data.facts["split"]


def test_the_order_of_the_rows_does_not_change_the_data() -> None:
    generator = np.random.default_rng(0)
    columns = {name: generator.integers(0, 40, 600) for name in ("user", "item", "timestamp")}
    order = generator.permutation(600)
    for split in ("random", "leave-one-out", "temporal-global"):
        straight = _read(columns, split=split)
        mixed = _read({name: column[order] for name, column in columns.items()}, split=split)
        assert straight.spec == mixed.spec
        assert _raw_pairs(straight, "test") == _raw_pairs(mixed, "test")


# ---- users to answer for ------------------------------------------------------------------------


def test_user_lists_take_the_kind_of_the_known_ids(write: Write) -> None:
    path = write("users.csv", "user_id\n12\n7\n12\n")
    assert read_users(path, RecommendConfig()).tolist() == [12, 7, 12]
    strings = read_users(path, RecommendConfig(), IdMap(["12", "x"]))
    assert strings.tolist() == ["12", "7", "12"]
    with pytest.raises(DataError, match=r"users\.csv, line 3: user id is empty"):
        read_users(write("users.csv", 'user,x\n1,1\n"",1\n'), RecommendConfig())
