import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from gnnlab import metrics
from gnnlab.errors import DataError
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.data import read
from gnnlab.tasks.recommend.ids import IdMap
from gnnlab.tasks.recommend.interactions import Interactions
from gnnlab.tasks.recommend.ranking import evaluate_ranking, owned_pairs, rank_all, top_k

SCORES = st.sampled_from([-math.inf, -2.0, -1e-45, -0.0, 0.0, 1e-45, 0.5, 3.0, 3e38, math.inf])


def _oracle(row: list[float], k: int) -> list[int]:
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    kept = [i for i in order if row[i] > -math.inf][:k]
    return kept + [-1] * (k - len(kept))


def _interactions(pairs: list[tuple[int, int]], n: int, m: int) -> Interactions:
    users, items = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    return Interactions.build(users, items, IdMap(np.arange(n)), IdMap(np.arange(m)))[0]


@given(
    st.integers(1, 12).flatmap(
        lambda m: st.lists(st.lists(SCORES, min_size=m, max_size=m), min_size=1, max_size=5)
    ),
    st.integers(1, 15),
    st.sampled_from([torch.float32, torch.float64]),
)
@settings(deadline=None, max_examples=300)
def test_lists_follow_score_then_item(rows: list[list[float]], k: int, dtype: torch.dtype) -> None:
    items, scores = top_k(torch.tensor(rows, dtype=dtype), k)
    table = torch.tensor(rows, dtype=dtype).tolist()
    for row, listed, best in zip(table, items.tolist(), scores.tolist(), strict=True):
        assert listed == _oracle(row, k)
        assert best == [row[i] if i >= 0 else -math.inf for i in listed]


@pytest.mark.parametrize("levels", [1, 2, 7, 40, 10_000])
def test_heavy_ties_over_many_items_match_a_plain_sort(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(0, levels, (40, 700), generator=generator).float()
    scores[torch.rand(40, 700, generator=generator) < 0.3] = -torch.inf
    items, _ = top_k(scores, 25)
    assert items.tolist() == [_oracle(row, 25) for row in scores.tolist()]


def test_half_precision_scores_are_ranked_like_the_numbers_they_are() -> None:
    items, scores = top_k(torch.tensor([[1.0, 2.0, 2.0, 3.0]], dtype=torch.bfloat16), 3)
    assert items.tolist() == [[3, 1, 2]]
    assert scores.dtype == torch.float32


def test_lists_longer_than_the_items_are_filled() -> None:
    items, scores = top_k(torch.tensor([[2.0, -torch.inf, 5.0]]), 5)
    assert items.tolist() == [[2, 0, -1, -1, -1]]
    assert scores.tolist() == [[5.0, 2.0] + [-math.inf] * 3]


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_no_users_or_no_items_give_empty_lists(shape: tuple[int, int]) -> None:
    items, scores = top_k(torch.zeros(shape), 2)
    assert items.shape == scores.shape == (shape[0], 2)
    assert (items == -1).all()


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    scores = torch.zeros(4, 9)
    scores[2, 6] = math.nan
    with pytest.raises(ValueError, match="item 6 in row 2 is NaN"):
        top_k(scores, 3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        top_k(torch.zeros(1, 2), 0)
    with pytest.raises(ValueError, match=r"expected float scores of shape \(B, I\)"):
        top_k(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="k=3 needs ranked lists"):
        metrics.precision(torch.zeros(1, 2, dtype=torch.bool), 3)


def test_the_hand_example_of_the_specification() -> None:
    table = torch.tensor([[9.0, 3, 3, 1, 2, 0]])
    means, per_user = evaluate_ranking(
        lambda users: table[users],
        _interactions([(0, 0)], 1, 6),
        _interactions([(0, 2), (0, 4), (0, 5)], 1, 6),
        (2, 3, 8),
        10**6,
    )
    expected = {
        "recall@2": 1 / 3,
        "precision@2": 1 / 2,
        "ndcg@2": 0.386853,
        "mrr@2": 0.5,
        "map@2": 0.25,
        "hitrate@2": 1.0,
        "coverage@2": 2 / 6,
        "recall@3": 2 / 3,
        "ndcg@3": 0.530721,
        "recall@8": 1.0,
        "precision@8": 3 / 8,
        "coverage@8": 5 / 6,
        "users": 1.0,
    }
    assert {name: means[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert per_user["user"].tolist() == [0]
    assert per_user["ndcg@2"].tolist() == pytest.approx([0.386853], abs=1e-6)


def _plain(ranked: list[int], targets: set[int], k: int) -> dict[str, float]:
    """The definitions once more, for one user, item by item."""
    top = ranked[:k]
    ranks = [r for r, item in enumerate(top, start=1) if item in targets]
    best = sum(1 / math.log2(r + 1) for r in range(1, min(k, len(targets)) + 1))
    precisions = [(n + 1) / r for n, r in enumerate(ranks)]
    return {
        f"recall@{k}": len(ranks) / len(targets),
        f"precision@{k}": len(ranks) / k,
        f"hitrate@{k}": float(bool(ranks)),
        f"mrr@{k}": 1 / ranks[0] if ranks else 0.0,
        f"map@{k}": sum(precisions) / min(k, len(targets)),
        f"ndcg@{k}": sum(1 / math.log2(r + 1) for r in ranks) / best,
    }


@pytest.mark.parametrize("budget", [1, 5_000, 10**8])
def test_every_metric_matches_its_definition_for_any_memory_budget(budget: int) -> None:
    generator = np.random.default_rng(3)
    n, m, ks = 60, 25, (1, 5, 30)
    table = generator.integers(0, 6, (n, m)).astype(np.float32)
    owner = generator.random((n, m))
    owner[:7] = 1.0  # users without any pair
    owner[7:9] = np.where(owner[7:9] < 0.5, 0.3, 1.0)  # targets and no history
    history = _interactions(list(zip(*np.nonzero(owner < 0.25), strict=True)), n, m)
    hidden = (owner >= 0.25) & (owner < 0.45)
    target = _interactions(list(zip(*np.nonzero(hidden), strict=True)), n, m)
    means, per_user = evaluate_ranking(
        lambda users: torch.from_numpy(table)[users], history, target, ks, budget
    )
    asked = np.flatnonzero(hidden.any(1))
    assert per_user["user"].tolist() == asked.tolist()
    assert means["users"] == len(asked)
    for place, user in enumerate(asked):
        row = [-math.inf if owner[user, i] < 0.25 else float(table[user, i]) for i in range(m)]
        ranked = [i for i in _oracle(row, m) if i >= 0]
        for k in ks:
            for name, value in _plain(ranked, set(np.flatnonzero(hidden[user])), k).items():
                assert per_user[name][place] == pytest.approx(value, abs=1e-12)
    for name in per_user:
        if name != "user":
            assert means[name] == pytest.approx(per_user[name].mean())


def test_the_scores_of_the_model_are_left_as_they_were() -> None:
    table = torch.arange(6.0).repeat(3, 1)
    shared = table[0].expand(3, -1)  # one row in memory, as popularity would return it
    indptr, seen = torch.tensor([0, 1, 1, 3]), torch.tensor([5, 4, 5])
    items, _ = rank_all(
        lambda users: shared[: len(users)], torch.arange(3), indptr, seen, 2, budget_bytes=10**6
    )
    assert items.tolist() == [[4, 3], [5, 4], [3, 2]]
    assert torch.equal(shared[0], torch.arange(6.0))


def test_users_without_history_are_written_as_minus_one() -> None:
    rows, items = owned_pairs(
        torch.tensor([0, 2, 2, 3]), torch.tensor([5, 6, 7]), torch.tensor([-1, 2, 1, 0])
    )
    assert (rows.tolist(), items.tolist()) == ([1, 3, 3], [7, 5, 6])


def test_blocks_stay_within_the_budget() -> None:
    sizes: list[int] = []

    def score(users: Tensor) -> Tensor:
        sizes.append(len(users))
        return torch.zeros(len(users), 1000)

    none = torch.zeros(501, dtype=torch.int64)
    rank_all(score, torch.arange(500), none, none[:0], 3, budget_bytes=32_000 * 64)
    assert max(sizes) == 64
    assert sum(sizes) == 501  # one more: the first user tells the width


def test_evaluation_needs_targets_matching_maps_and_full_rows() -> None:
    history, target = _interactions([(0, 0)], 2, 3), _interactions([(1, 1)], 2, 3)
    nothing = target.take(np.array([False]))
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate_ranking(lambda u: torch.zeros(len(u), 3), history, nothing, (1,), 100)
    other = _interactions([(0, 0)], 3, 3)
    with pytest.raises(DataError, match="differently"):
        evaluate_ranking(lambda u: torch.zeros(len(u), 3), other, target, (1,), 100)
    with pytest.raises(ValueError, match=r"gave shape \(1, 2\) for 1 users and 3 items"):
        evaluate_ranking(lambda u: torch.zeros(len(u), 2), history, target, (1,), 100)


POPULARITY = {
    "lastfm": (1858, 0.036702, 0.021058),
    "ml-1m": (6022, 0.116084, 0.117600),
    "sparse-yelp": (30627, 0.022788, 0.010762),
}


@pytest.mark.parametrize(
    "name", ["lastfm", "ml-1m", pytest.param("sparse-yelp", marks=pytest.mark.slow)]
)
def test_popularity_reaches_its_published_number(name: str) -> None:
    root = os.environ.get("GNNLAB_DATA", "")
    if not (Path(root) / "recommendation" / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is not under $GNNLAB_DATA/recommendation")
    data = read(name, RecommendConfig())
    split = data.split("test")
    degree = torch.from_numpy(split.history.item_degree).float()
    means, _ = evaluate_ranking(
        lambda users: degree.expand(len(users), -1), split.history, split.target, (20,), 10**9
    )
    users, recall, ndcg = POPULARITY[name]
    assert means["users"] == users
    assert means["recall@20"] == pytest.approx(recall, abs=1e-6)
    assert means["ndcg@20"] == pytest.approx(ndcg, abs=1e-6)
