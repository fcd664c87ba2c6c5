import hashlib

import numpy as np
import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.recommend.generator import communities_of, planted

SHA256 = "46ddbb16f15c27f8e2beb5bf3c2b8914f9b20aed1c3d199d2f3f2e7cabb893ef"


def test_the_bytes_never_change() -> None:
    table = planted()
    digest = hashlib.sha256()
    for name in ("user", "item", "timestamp"):
        digest.update(table[name].astype("<i8").tobytes())
    assert digest.hexdigest() == SHA256


def test_pairs_are_distinct_and_users_have_one_plus_poisson_items() -> None:
    table = planted(num_users=4000, mean_items=20)
    keys = table["user"] * 500 + table["item"]
    assert (np.diff(keys) > 0).all()
    degree = np.bincount(table["user"], minlength=4000)
    assert degree.min() >= 1
    # 4000 draws of variance 20: standard error of the mean 0.07, of the variance about 0.45
    assert abs(degree.mean() - 21) < 0.35
    assert abs(degree.var() - 20) < 2.5


def test_most_items_come_from_the_own_community() -> None:
    table = planted(noise=0.1)
    own = communities_of(1000)[table["user"]] == communities_of(500)[table["item"]]
    assert 0.85 < own.mean() < 0.93
    quiet = planted(noise=0)
    assert (communities_of(1000)[quiet["user"]] == communities_of(500)[quiet["item"]]).all()


def test_low_ranks_are_more_popular() -> None:
    table = planted(num_users=3000, mean_items=3)
    count = np.bincount(table["item"] // 10, minlength=50)
    assert count[0] > 3 * count[9] > 3 * count[49]


def test_seeds_differ() -> None:
    a, b = planted(num_users=50), planted(num_users=50, seed=1)
    assert a["item"].tolist() != b["item"].tolist()


def test_leading_singular_vectors_separate_the_communities() -> None:
    table = planted(num_users=300, num_items=200, communities=3, mean_items=20)
    matrix = np.zeros((300, 200))
    matrix[table["user"], table["item"]] = 1
    left, right = matrix.sum(1, keepdims=True), matrix.sum(0, keepdims=True)
    matrix /= np.sqrt(left) * np.sqrt(np.maximum(right, 1))
    vectors = np.linalg.svd(matrix)[0][:, 1:3]
    label = communities_of(300, 3)
    centres = np.stack([vectors[label == c].mean(0) for c in range(3)])
    nearest = ((vectors[:, None] - centres) ** 2).sum(2).argmin(1)
    assert (nearest == label).mean() > 0.95


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_users_who_want_more_than_there_is_get_everything(noise: float) -> None:
    table = planted(num_users=5, num_items=12, communities=3, mean_items=60, noise=noise)
    expected = 4 if noise == 0 else 12
    assert np.bincount(table["user"]).tolist() == [expected] * 5


def test_one_user_one_item_one_community() -> None:
    table = planted(num_users=1, num_items=1, communities=1)
    assert (table["user"].tolist(), table["item"].tolist()) == ([0], [0])


@pytest.mark.parametrize(
    "wrong", [{"num_users": 0}, {"noise": 1.5}, {"communities": 501}, {"mean_items": -1}]
)
def test_arguments_out_of_range_are_named(wrong: dict[str, float]) -> None:
    name = "num_items" if "communities" in wrong else next(iter(wrong))
    with pytest.raises(ConfigError, match=f"planted: {name}"):
        planted(**wrong)  # type: ignore[arg-type]
