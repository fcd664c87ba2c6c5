import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gnnlab.errors import DataError
from gnnlab.tasks.recommend.ids import IdMap, as_ids
from gnnlab.tasks.recommend.interactions import Interactions

TEXTS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)


def test_ids_are_numbered_in_sorted_order_whatever_the_row_order() -> None:
    rows = np.array([30, -5, 7, 30])
    assert IdMap(rows).raw.tolist() == IdMap(rows[::-1]).raw.tolist() == [-5, 7, 30]


def test_strings_are_sorted_by_code_point() -> None:
    assert IdMap(["é", "b", "B", "10", "9"]).raw.tolist() == ["10", "9", "B", "b", "é"]


def test_unknown_ids_get_minus_one() -> None:
    ids = IdMap([3, 5])
    assert ids.encode([5, 4, 3, 99, -1]).tolist() == [1, -1, 0, -1, -1]
    assert IdMap(["a", "b"]).encode(["bb", "b", "a"]).tolist() == [-1, 1, 0]
    assert IdMap(np.zeros(0, np.int64)).encode([1]).tolist() == [-1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_survive_encode_and_decode(values: list[int]) -> None:
    ids = IdMap(values)
    assert ids.decode(ids.encode(values)).tolist() == values
    assert IdMap.from_tensors(ids.to_tensors()) == ids


@given(st.lists(TEXTS, min_size=1))
@settings(deadline=None)
def test_strings_survive_encode_decode_and_tensors(values: list[str]) -> None:
    ids = IdMap(values)
    assert ids.decode(ids.encode(values)).tolist() == values
    assert IdMap.from_tensors(ids.to_tensors()) == ids


def test_tensors_always_have_the_same_names_and_types() -> None:
    for ids in (IdMap([1, 2]), IdMap(["a", "bé"]), IdMap(np.zeros(0, np.int64))):
        tensors = ids.to_tensors()
        assert list(tensors) == ["ints", "bytes", "offsets"]
        assert tensors["bytes"].dtype == torch.uint8
        assert IdMap.from_tensors(tensors) == ids


def test_decode_refuses_the_padding_of_short_lists() -> None:
    with pytest.raises(IndexError, match=r"no id has number -1; valid numbers are 0\.\.1"):
        IdMap([4, 5]).decode([0, -1])


def test_mixed_types_are_refused_with_an_example() -> None:
    with pytest.raises(DataError, match=r'user ids mix types: 1 \(int\) and "1" \(str\)'):
        IdMap(np.array([1, "1"], dtype=object))


def test_a_number_is_not_looked_up_among_strings() -> None:
    with pytest.raises(DataError, match="item ids of this data are strings, got the int 1"):
        IdMap(["1", "2"]).encode([1], what="item")
    with pytest.raises(DataError, match='ids of this data are ints, got the string "1"'):
        IdMap([1, 2]).encode(["1"])


def test_padded_numbers_stay_strings() -> None:
    assert as_ids(["007", "8"], parse=True).tolist() == ["007", "8"]
    assert as_ids(["7", "-8"], parse=True).tolist() == [7, -8]
    assert as_ids(["7", "+8"], parse=True).tolist() == ["7", "+8"]
    assert as_ids(["7", str(2**63)], parse=True).dtype.kind == "U"
    assert as_ids(["7", "8"]).tolist() == ["7", "8"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1.5]), "1.5 is not a whole number"),
        (np.array([np.inf]), "inf is not a whole number"),
        (np.array([True]), "of type bool"),
        (np.array([[1]]), "one-dimensional"),
        (np.array([2**63], dtype=np.uint64), "64 signed bits"),
        ([2**70], "64 signed bits"),
        (np.array([b"a", None], dtype=object), "mix types"),
        ([{1}], "of type set"),
        (["x" * 5000], "5000 characters"),
    ],
)
def test_values_that_cannot_be_ids_are_named(values: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_ids(values)


def test_whole_floats_count_as_integers() -> None:
    assert as_ids(np.array([3.0, 4.0])).dtype == np.int64


def _pairs(user: list[int], item: list[int], n: int = 3, m: int = 4) -> Interactions:
    ids = IdMap(np.arange(n)), IdMap(np.arange(m))
    return Interactions.build(np.array(user), np.array(item), *ids)[0]


def test_repeated_pairs_keep_the_latest_time_and_the_summed_weight() -> None:
    pairs, collapsed = Interactions.build(
        np.array([1, 0, 1, 1]),
        np.array([2, 3, 2, 2]),
        IdMap([0, 1]),
        IdMap(np.arange(4)),
        np.array([5, 1, 9, 7]),
        np.array([1.0, 2.0, 0.5, 0.25]),
    )
    assert collapsed == 2
    assert (pairs.user.tolist(), pairs.item.tolist()) == ([0, 1], [3, 2])
    assert pairs.timestamp is not None
    assert pairs.weight is not None
    assert (pairs.timestamp.tolist(), pairs.weight.tolist()) == ([1, 9], [2.0, 1.75])


def test_rows_of_the_csr_belong_to_the_users() -> None:
    indptr, items = _pairs([2, 0, 2], [1, 3, 0]).csr()
    assert (indptr.tolist(), items.tolist()) == ([0, 1, 1, 3], [3, 0, 1])


def test_union_holds_the_pairs_of_both() -> None:
    both = _pairs([0, 1], [0, 1]).union(_pairs([1, 2], [1, 2]))
    assert both.keys.tolist() == [0, 5, 10]


def test_parts_with_different_id_maps_are_refused() -> None:
    with pytest.raises(DataError, match="number their users or items differently"):
        _pairs([0], [0]).union(_pairs([0], [0], n=2))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"item number 4 is outside 0\.\.3"):
        _pairs([0], [4])


def test_the_fingerprint_sees_pairs_sizes_and_ids_but_not_row_order() -> None:
    base = _pairs([0, 1], [2, 3]).fingerprint()
    assert base == _pairs([1, 0], [3, 2]).fingerprint()
    assert base != _pairs([0, 1], [2, 2]).fingerprint()
    assert base != _pairs([0, 1], [2, 3], n=4).fingerprint()
    renamed = Interactions.build(
        np.array([0, 1]), np.array([2, 3]), IdMap([7, 8, 9]), IdMap(np.arange(4))
    )[0]
    assert base != renamed.fingerprint()
