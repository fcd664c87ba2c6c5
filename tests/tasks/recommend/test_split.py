import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gnnlab.errors import ConfigError
from gnnlab.tasks.recommend.split import leave_one_out, random_per_user, temporal_global


def _rows(degrees: list[int]) -> tuple[np.ndarray, np.ndarray]:
    user = np.repeat(np.arange(len(degrees)), degrees)
    item = np.concatenate([np.arange(d) for d in degrees]) if degrees else user
    return user, item


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(0, 99), st.integers(0, 5))
@settings(deadline=None)
def test_every_user_gives_the_floor_of_the_share(
    degrees: list[int], percent: int, seed: int
) -> None:
    user, item = _rows(degrees)
    held = random_per_user(user, item, percent / 100, seed)
    for number, degree in enumerate(degrees):
        expected = percent * degree // 100  # exact, in whole numbers
        if percent and degree >= 5:
            expected = max(expected, 1)
        assert held[user == number].sum() == min(expected, degree - 1)


@given(st.permutations(list(range(30))), st.integers(0, 3))
@settings(deadline=None)
def test_the_order_of_the_rows_does_not_matter(order: list[int], seed: int) -> None:
    user, item = _rows([12, 3, 10, 5])
    time = (item * 7 + user) % 5
    for rule in (
        lambda u, i, t: random_per_user(u, i, 0.3, seed),
        lambda u, i, t: leave_one_out(u, i, t)[0],
        lambda u, i, t: leave_one_out(u, i, t)[1],
        lambda u, i, t: temporal_global(t, 0.3),
    ):
        straight = rule(user, item, time)
        assert rule(user[order], item[order], time[order]).tolist() == straight[order].tolist()


def test_random_cuts_differ_between_seeds_and_streams() -> None:
    user, item = _rows([200])
    base = random_per_user(user, item, 0.5, 0)
    assert (base != random_per_user(user, item, 0.5, 1)).any()
    assert (base != random_per_user(user, item, 0.5, 0, stream=1)).any()
    assert (base == random_per_user(user, item, 0.5, 0)).all()


def test_each_item_is_held_out_equally_often() -> None:
    user, item = _rows([10])
    times = sum(random_per_user(user, item, 0.2, seed).astype(int) for seed in range(2000))
    # 2000 draws of chance 0.2: standard deviation 18
    assert np.abs(times - 400).max() < 90


def test_the_last_item_by_time_is_left_out_and_ties_go_by_item() -> None:
    user = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    item = np.array([5, 6, 7, 8, 0, 1, 4, 3, 2])
    time = np.array([9, 1, 9, 2, 5, 6, 1, 1, 1])
    before, last = leave_one_out(user, item, time)
    assert item[last].tolist() == [7, 4]
    assert item[before].tolist() == [5, 3]
    assert not (before | last)[user == 1].any()


def test_equal_times_never_straddle_the_global_cut() -> None:
    time = np.array([1, 2, 3, 3, 3, 3, 4, 5, 6, 7])
    # position ceil(0.5 * 10) = 5 holds time 3, so all rows of time 3 are held out
    assert temporal_global(time, 0.5).tolist() == [False] * 2 + [True] * 8


@pytest.mark.parametrize("percent", range(1, 100, 7))
def test_distinct_times_give_the_exact_share(percent: int) -> None:
    held = temporal_global(np.arange(100), percent / 100)
    assert held.sum() == percent


def test_nothing_is_held_out_of_nothing_or_by_share_zero() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert random_per_user(none, none, 0.2, 0).size == 0
    assert temporal_global(none, 0.2).size == 0
    assert [mask.size for mask in leave_one_out(none, none, none)] == [0, 0]
    user, item = _rows([9, 9])
    assert not random_per_user(user, item, 0, 0).any()
    assert not temporal_global(item, 0).any()


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_share_outside_zero_to_one_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="held-out share"):
        temporal_global(np.arange(3), ratio)
