import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from gnnlab.tasks.recommend.sampling import NegativeSampler


def _sampler(owned: list[list[int]], num_items: int) -> NegativeSampler:
    keys = sorted(u * num_items + i for u, items in enumerate(owned) for i in items)
    return NegativeSampler(torch.tensor(keys, dtype=torch.int64), len(owned), num_items)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_negatives_are_uniform_over_what_the_user_lacks() -> None:
    owned = [[0, 1, 2], [], [5], list(range(0, 12, 2)), [11, 3]]
    sampler = _sampler(owned, 12)
    users = torch.arange(5).repeat(12_000)
    items, valid = sampler.draw(users, _generator())
    assert valid.all()
    for user, own in enumerate(owned):
        count = np.bincount(items[users == user].numpy(), minlength=12)
        assert count[own].sum() == 0
        assert chisquare(np.delete(count, own)).pvalue > 1e-4


@given(
    st.integers(1, 9).flatmap(
        lambda m: st.tuples(
            st.just(m), st.lists(st.sets(st.integers(0, m - 1)), min_size=1, max_size=6)
        )
    )
)
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:.*have every item")
def test_no_draw_is_an_item_of_the_user(case: tuple[int, list[set[int]]]) -> None:
    num_items, owned = case
    sampler = _sampler([sorted(own) for own in owned], num_items)
    users = torch.arange(len(owned)).repeat(40)
    items, valid = sampler.draw(users, _generator())
    for user, item, good in zip(users.tolist(), items.tolist(), valid.tolist(), strict=True):
        assert good == (len(owned[user]) < num_items)
        assert 0 <= item < num_items
        assert not good or item not in owned[user]


def test_a_user_with_all_but_one_item_always_gets_that_item() -> None:
    sampler = _sampler([[i for i in range(5000) if i != 3117]], 5000)
    items, valid = sampler.draw(torch.zeros(1000, dtype=torch.int64), _generator())
    assert valid.all()
    assert (items == 3117).all()


def test_a_user_with_every_item_is_marked_with_one_warning() -> None:
    sampler = _sampler([[0, 1], [0]], 2)
    with pytest.warns(UserWarning, match="1 of the users in this draw have every item"):
        items, valid = sampler.draw(torch.tensor([0, 1, 0]), _generator())
    assert valid.tolist() == [False, True, False]
    assert items[1] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler.draw(torch.tensor([0, 1, 0]), _generator())


def test_same_generator_same_draw() -> None:
    sampler = _sampler([[0], [1], [2]], 50)
    users = torch.arange(3).repeat(20)
    first = sampler.draw(users, _generator(7))[0]
    assert torch.equal(first, sampler.draw(users, _generator(7))[0])
    assert not torch.equal(first, sampler.draw(users, _generator(8))[0])


def test_keys_beyond_32_bits_work() -> None:
    num_users, num_items = 3_000_000, 2_000_000
    last = (num_users - 1) * num_items
    sampler = NegativeSampler(torch.tensor([last, last + num_items - 1]), num_users, num_items)
    items, valid = sampler.draw(torch.full((1000,), num_users - 1), _generator())
    assert valid.all()
    assert items.min() > 0
    assert items.max() < num_items - 1
    assert items.max() > num_items * 0.9


def test_drawing_by_user_takes_users_then_items_uniformly() -> None:
    sampler = _sampler([[0, 3, 4], [], [2]], 5)
    users, items = sampler.draw_by_user(24_000, _generator())
    pairs = np.bincount((users * 5 + items).numpy(), minlength=15)
    assert pairs.sum() == pairs[[0, 3, 4, 12]].sum()
    expected = np.array([4000, 4000, 4000, 12_000])
    assert chisquare(pairs[[0, 3, 4, 12]], expected).pvalue > 1e-4


def test_no_pairs_no_positives_but_any_negative() -> None:
    sampler = _sampler([[], []], 3)
    users, items = sampler.draw_by_user(5, _generator())
    assert users.numel() == items.numel() == 0
    drawn, valid = sampler.draw(torch.tensor([0, 1]), _generator())
    assert valid.all()
    assert drawn.max() < 3


@pytest.mark.parametrize("keys", [[1, 0], [1, 1], [-1, 0], [0, 6]])
def test_keys_that_are_not_sorted_distinct_and_in_range_are_refused(keys: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct keys in ascending order"):
        NegativeSampler(torch.tensor(keys), 2, 3)
    with pytest.raises(ValueError, match=r"shape \(E,\) and type int64"):
        NegativeSampler(torch.tensor([keys]), 2, 3)


def test_no_draw_of_a_million_is_a_training_pair() -> None:
    keys = torch.unique(torch.randint(0, 10**9, (10**6,), generator=_generator()))
    users = torch.randint(0, 10**5, (10**6,), generator=_generator())
    items, valid = NegativeSampler(keys, 10**5, 10**4).draw(users, _generator())
    assert bool(valid.all())
    assert not bool(torch.isin(users * 10**4 + items, keys).any())
