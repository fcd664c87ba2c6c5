"""The models against formulas written out densely, and against solvers that share no code."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from gnnlab import Graph, fit
from gnnlab.errors import ConfigError, DataError
from gnnlab.experiment import start
from gnnlab.tasks.recommend import Recommend, RecommendConfig
from gnnlab.tasks.recommend.closed_form import ItemItemModel
from gnnlab.tasks.recommend.contrast import weighted_logsumexp
from gnnlab.tasks.recommend.generator import communities_of, planted
from gnnlab.tasks.recommend.model import VectorModel, low_rank_view
from gnnlab.testing import check_task

DATA = os.environ.get("GNNLAB_DATA")
needs_data = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "recommendation").is_dir(),
    reason="real data is absent: set GNNLAB_DATA",
)
# user 5 and item 4 are isolated; items 0 and 1 are shared by many
USERS = torch.tensor([0, 0, 1, 1, 2, 3, 3, 4, 4])
ITEMS = torch.tensor([0, 1, 0, 2, 1, 0, 3, 1, 2])
NUM_USERS, NUM_ITEMS = 6, 5


def small_graph() -> Graph:
    return Graph(torch.stack([ITEMS, USERS]), (NUM_ITEMS, NUM_USERS))


def dense_adjacency() -> torch.Tensor:
    r = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.float64)
    r[USERS, ITEMS] = 1
    scale = (r.sum(1)[:, None] * r.sum(0)[None]).clamp(min=1).sqrt()
    return r / scale


def dense_lightgcl(model: VectorModel, batch: dict) -> torch.Tensor:
    """Sections "forward" and "loss" of the released LightGCL, with dense matrices and loops."""
    c = model.config
    a = dense_adjacency()
    u, s, v = torch.linalg.svd(a)
    low = (u[:, : c.svd_rank] * s[: c.svd_rank]) @ v[: c.svd_rank]
    eu, ei = [model.user_table], [model.item_table]
    gu, gi = [model.user_table], [model.item_table]
    for _ in range(c.layers):
        gu.append(low @ ei[-1])
        gi.append(low.T @ eu[-1])
        eu, ei = [*eu, a @ ei[-1]], [*ei, a.T @ eu[-1]]
    eu, ei, gu, gi = (sum(layers) for layers in (eu, ei, gu, gi))
    user, pos, neg = batch["user"], batch["pos"], batch["neg"]
    bpr = torch.stack(
        [
            torch.log1p(torch.exp(eu[k] @ ei[n] - eu[k] @ ei[p]))
            for k, p, n in zip(user, pos, neg, strict=True)
        ]
    ).mean()
    repel, attract = 0.0, 0.0
    pool = torch.cat([pos, neg])
    for ids, g, e in ((user, gu, eu), (pool, gi, ei)):
        for k in ids:
            repel = repel + torch.log(torch.exp(g[k] @ e.T / c.tau).sum()) / len(ids)
            attract = attract + (g[k] @ e[k] / c.tau).clamp(-c.clamp, c.clamp) / len(ids)
    l2 = model.user_table.square().sum() + model.item_table.square().sum()
    return bpr + c.lambda1 * (repel - attract) + c.lambda2 * l2


def small_lightgcl(**changes) -> VectorModel:
    torch.manual_seed(3)
    options = {"dim": 4, "svd_rank": 2, "tau": 0.7, "lambda2": 1e-3, **changes}
    model = VectorModel(RecommendConfig(**options), NUM_USERS, NUM_ITEMS)
    with torch.no_grad():
        for table in (model.user_table, model.item_table):
            table.normal_()
    model.prepare(small_graph())
    return model.double()


BATCHES = {
    "distinct": {"user": [0, 1, 3], "pos": [0, 2, 3], "neg": [2, 1, 4]},
    "repeated": {"user": [0, 0, 3, 5], "pos": [1, 1, 0, 1], "neg": [1, 2, 2, 4]},
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("budget", ["1GB", "8KB"])
def test_lightgcl_loss_and_gradient_equal_the_dense_formulas(name, budget):
    batch = {k: torch.tensor(v) for k, v in BATCHES[name].items()}
    model = small_lightgcl(memory_budget=budget)
    terms = model.loss(batch, small_graph())
    found = torch.autograd.grad(terms["loss"], [model.user_table, model.item_table])
    expected_loss = dense_lightgcl(model, batch)
    expected = torch.autograd.grad(expected_loss, [model.user_table, model.item_table])
    # the low-rank view is computed in single precision
    torch.testing.assert_close(terms["loss"], expected_loss, rtol=1e-5, atol=1e-6)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BATCHES)
def test_lightgcl_gradient_equals_finite_differences(name):
    batch = {k: torch.tensor(v) for k, v in BATCHES[name].items()}
    model, graph = small_lightgcl(clamp=None), small_graph()

    def loss(users, items):
        state = {"user_table": users, "item_table": items}
        return torch.func.functional_call(model, state, (batch, graph))

    model.forward = lambda b, g: model.loss(b, g)["loss"]
    tables = (
        model.user_table.detach().clone().requires_grad_(),
        model.item_table.detach().clone().requires_grad_(),
    )
    assert torch.autograd.gradcheck(loss, tables, atol=1e-7)


def test_lightgcn_loss_equals_the_dense_formula():
    batch = {k: torch.tensor(v) for k, v in BATCHES["repeated"].items()}
    config = RecommendConfig(model="lightgcn", dim=4, layers=3, lambda2=0.01)
    model = VectorModel(config, NUM_USERS, NUM_ITEMS).double()
    a = dense_adjacency()
    eu, ei = [model.user_table], [model.item_table]
    for _ in range(3):
        eu, ei = [*eu, a @ ei[-1]], [*ei, a.T @ eu[-1]]
    users, items = sum(eu) / 4, sum(ei) / 4
    u, p, n = batch["user"], batch["pos"], batch["neg"]
    gap = (users[u] * items[p]).sum(1) - (users[u] * items[n]).sum(1)
    ego = (model.user_table[u] ** 2).sum() + (model.item_table[p] ** 2).sum()
    ego = ego + (model.item_table[n] ** 2).sum()
    expected = -torch.log(torch.sigmoid(gap)).mean() + 0.01 * 0.5 * ego / len(u)
    torch.testing.assert_close(model.loss(batch, small_graph())["loss"], expected)
    torch.testing.assert_close(model.vectors(small_graph())[0], users)


@pytest.mark.parametrize("keys", [1, 7, 50])
@pytest.mark.parametrize("budget", [64, 4096, 1 << 20])
def test_blockwise_logsumexp_equals_the_dense_one(keys, budget):
    torch.manual_seed(0)
    x = torch.randn(23, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(50, 5, dtype=torch.float64, requires_grad=True)
    w = torch.rand(23, dtype=torch.float64)
    found = weighted_logsumexp(x, y, w, 0.3, budget=budget, key_block=keys)
    expected = (w * torch.logsumexp(x @ y.T / 0.3, 1)).sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for a, b in zip(
        torch.autograd.grad(found, (x, y)), torch.autograd.grad(expected, (x, y)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keys", [2, 100])
def test_logsumexp_does_not_overflow(keys):
    x = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    y = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    found = weighted_logsumexp(x, y, torch.ones(2), 1.0, key_block=keys)
    assert found.item() == pytest.approx(2e4)
    found.backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(y.grad).all()


def test_edge_dropout_keeps_the_expectation_and_never_reaches_the_scores():
    torch.manual_seed(0)
    config = RecommendConfig(model="lightgcn", dim=2, layers=1, edge_dropout=0.5)
    model = VectorModel(config, NUM_USERS, NUM_ITEMS).train()
    graph = small_graph()
    still = model.vectors(graph)[0]
    torch.testing.assert_close(still, model.vectors(graph)[0], rtol=0, atol=0)
    draws = torch.stack([model._propagate(graph, edge_dropout=0.5)[0][1] for _ in range(4000)])
    assert not torch.equal(draws[0], draws[1])
    exact = dense_adjacency().float() @ model.item_table
    torch.testing.assert_close(draws.mean(0), exact, atol=0.02, rtol=0)
    batch = {k: torch.tensor(v) for k, v in BATCHES["distinct"].items()}
    noisy = {model.loss(batch, graph)["loss"].item() for _ in range(5)}
    assert len(noisy) > 1
    assert len({model.eval().loss(batch, graph)["loss"].item() for _ in range(5)}) == 1


def test_low_rank_view_is_the_truncated_svd_of_the_normalised_adjacency():
    torch.manual_seed(0)
    left, values, right = low_rank_view(small_graph(), 3)
    u, s, v = torch.linalg.svd(dense_adjacency())
    torch.testing.assert_close(values.double(), s[:3], atol=1e-5, rtol=0)
    product = (left * values) @ right.T
    torch.testing.assert_close(product.double(), (u[:, :3] * s[:3]) @ v[:3], atol=1e-5, rtol=0)
    assert float(values.max()) == pytest.approx(1, abs=1e-5)
    assert not left[5].any()
    assert not right[4].any()


def test_a_rank_above_the_smaller_side_is_clipped_with_a_warning():
    with pytest.warns(UserWarning, match="svd_rank 9 is clipped to 5"):
        assert low_rank_view(small_graph(), 9)[1].shape == (5,)


def test_an_empty_adjacency_has_an_empty_view():
    empty = Graph(torch.empty(2, 0, dtype=torch.int64), (4, 3))
    left, values, right = low_rank_view(empty, 2)
    assert not ((left * values) @ right.T).any()


def test_singular_vectors_separate_planted_communities():
    table = planted(num_users=300, num_items=120, communities=2, noise=0.05, seed=1)
    edges = torch.tensor(np.stack([table["item"], table["user"]]))
    torch.manual_seed(0)
    left, _, _ = low_rank_view(Graph(edges.unique(dim=1), (120, 300)), 2)
    side = (left[:, 1] > 0).numpy()
    agree = (side == (communities_of(300, 2) == 0)).mean()
    assert max(agree, 1 - agree) > 0.95


def dense_pairs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((40, 12)) < 0.3).astype(float)


def item_model(r: np.ndarray, **options) -> tuple[ItemItemModel, Graph]:
    users, items = (torch.from_numpy(i) for i in r.nonzero())
    graph = Graph(torch.stack([items, users]), (r.shape[1], r.shape[0]))
    model = ItemItemModel(RecommendConfig(**options), *r.shape)
    model.prepare(graph)
    return model, graph


def test_ease_equals_one_ridge_regression_per_item():
    r, ridge = dense_pairs(), 3.0
    expected = np.zeros((12, 12))
    for item in range(12):
        others = [i for i in range(12) if i != item]
        x = r[:, others]
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(11), x.T @ r[:, item])
        expected[others, item] = weights
    model, graph = item_model(r, model="ease", ease_lambda=ridge)
    found = model.score(torch.arange(40), graph).numpy()
    np.testing.assert_allclose(found, r @ expected, atol=1e-5)


@pytest.mark.parametrize("neighbors", [None, 3])
@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
@pytest.mark.parametrize("budget", ["1GB", "300B"])
def test_itemknn_equals_brute_force(neighbors, shrinkage, budget):
    r = dense_pairs()
    common, degree = r.T @ r, r.sum(0)
    similarity = common / (np.sqrt(np.outer(degree, degree)) + shrinkage)
    np.fill_diagonal(similarity, 0)
    expected = np.zeros((40, 12))
    for item in range(12):
        near = sorted(range(12), key=lambda j: (-similarity[item, j], j))[: neighbors or 12]
        for user in range(40):
            expected[user, item] = sum(similarity[item, j] for j in near if r[user, j])
    model, graph = item_model(
        r, model="itemknn", knn_neighbors=neighbors, knn_shrinkage=shrinkage, memory_budget=budget
    )
    assert (len(model.table) > 0) == (neighbors is None and budget == "1GB")
    found = model.score(torch.arange(40), graph).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_cosines_are_ties_also_when_their_roundings_differ():
    # items 1 and 2 are equally near to item 0: 1/sqrt(1*8) == 3/sqrt(9*8)
    degrees = {0: range(8), 1: [7], 2: [0, 1, 2, *range(20, 26)]}
    r = np.zeros((30, 3))
    for item, users in degrees.items():
        r[list(users), item] = 1
    model, _ = item_model(r, model="itemknn", knn_neighbors=1, knn_shrinkage=0.0)
    assert model.neighbor[0] == 1


def test_ease_over_the_budget_says_how_much_it_needs():
    with pytest.raises(ConfigError, match=r"ease needs .* GB .* over memory_budget=1KB"):
        item_model(dense_pairs(), model="ease", memory_budget="1KB")


@pytest.mark.parametrize(
    "model", ["lightgcl", "lightgcn", "bpr-mf", "itemknn", "ease", "popularity"]
)
def test_every_model_keeps_the_promises_of_a_task(model):
    table = planted(num_users=60, num_items=30, communities=3, mean_items=8)
    values = {"model": model, "dim": 8, "batch_size": 64, "edge_dropout": 0.1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_task(Recommend, table, values, query={"k": 5})


@pytest.mark.parametrize("model", ["lightgcn", "lightgcl"])
def test_trained_models_beat_popularity_twice_on_planted_data(model):
    values = {
        "model": model,
        "epochs": 12,
        "batch_size": 512,
        "lr": 0.01,
        "patience": None,
        "tau": 1.0,
        "lambda1": 0.005,
    }
    run, metrics = start("recommend", "synthetic", values, progress=False)
    _, simple = start("recommend", "synthetic", {"model": "popularity"})
    assert metrics["test"]["recall@20"] > 2 * simple["test"]["recall@20"]
    assert run.history[1]["train"]["bpr"] < run.history[0]["train"]["bpr"]


def test_permuted_ids_permute_the_scores():
    model, graph = small_lightgcl(), small_graph()
    up, ip = torch.randperm(NUM_USERS), torch.randperm(NUM_ITEMS)
    other = VectorModel(model.config, NUM_USERS, NUM_ITEMS).double().eval()
    with torch.no_grad():
        other.user_table[up] = model.user_table
        other.item_table[ip] = model.item_table
    moved = Graph(torch.stack([ip[ITEMS], up[USERS]]), (NUM_ITEMS, NUM_USERS))
    here = model.eval().score(torch.arange(NUM_USERS), graph)
    there = other.score(torch.arange(NUM_USERS), moved)
    torch.testing.assert_close(there[up][:, ip], here)


SHOP = {
    "user": ["ann", "ann", "ann", "bob", "bob", "eve", "eve", "eve"],
    "item": ["tea", "jam", "nut", "tea", "jam", "tea", "fig", "nut"],
}


def shop(model="itemknn", **options) -> Recommend:
    config = RecommendConfig(model=model, split="none", dim=4, **options)
    data = Recommend.read(SHOP, config)
    torch.manual_seed(0)
    return fit(Recommend(config, data.spec), data, epochs=2, progress=False).best


def test_predict_leaves_out_what_the_user_had():
    found = shop().predict(users=["bob", "ann"], k=2)
    assert found["user_id"].tolist() == ["bob", "bob", "ann"]
    assert set(found["item_id"][:2]) == {"nut", "fig"}
    assert found["item_id"][2] == "fig"
    assert found["rank"].tolist() == [1, 2, 1]
    assert len(shop().predict(users=["ann"], k=9, filter_seen=False)) == 4


def test_predict_respects_candidates_and_exclusions():
    assert shop().predict(users=["bob"], candidates=["fig"])["item_id"].tolist() == ["fig"]
    assert shop().predict(users=["bob"], exclude=["fig"])["item_id"].tolist() == ["nut"]
    with pytest.raises(DataError, match=r"exclude names items .*: rum"):
        shop().predict(users=["bob"], exclude=["rum"])


def test_unknown_users_are_an_error_popular_or_left_out():
    with pytest.raises(DataError, match="1 users are not in the training data: zoe"):
        shop().predict(users=["zoe"])
    popular = shop().predict(users=["zoe", "bob"], k=1, on_unknown="popular")
    assert popular["item_id"][0] == "tea"
    assert popular["fallback"].tolist() == [True, False]
    assert len(shop().predict(users=["zoe", "bob"], k=1, on_unknown="skip")) == 1


def test_k_below_one_is_an_error():
    with pytest.raises(ConfigError, match="k is 0"):
        shop().predict(k=0)


@pytest.mark.parametrize("model", ["lightgcl", "lightgcn", "itemknn", "ease"])
@pytest.mark.parametrize(
    "table",
    [
        {"user": [1, 1, 1], "item": [1, 2, 3]},
        {"user": [1, 2, 3], "item": [1, 1, 2]},
    ],
)
def test_one_user_or_nearly_one_item_trains(model, table):
    config = RecommendConfig(model=model, split="none", dim=2)
    data = Recommend.read(table, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = Recommend(config, data.spec)
        if model.startswith("light") and len(set(table["user"])) == 1:
            with pytest.raises(DataError, match="every user has every item"):
                fit(task, data, epochs=1, progress=False)
            return
        run = fit(task, data, epochs=1, progress=False)
    assert all(torch.isfinite(p).all() for p in run.best.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("svd_rank", 0),
        ("tau", 0.0),
        ("edge_dropout", 1.0),
        ("edge_dropout", -0.1),
        ("layers", -1),
        ("batch_size", 0),
        ("ks", (0,)),
        ("model", "lightgc"),
        ("split", "tempral"),
        ("memory_budget", "lots"),
    ],
)
def test_impossible_options_are_refused_with_their_value(field, value):
    shown = value[0] if isinstance(value, tuple) else value
    with pytest.raises(ConfigError, match=f"{field}.*{shown}"):
        RecommendConfig(**{field: value})


def test_a_model_or_preset_brings_its_published_defaults_below_what_is_given():
    config = RecommendConfig(model="lightgcn", preset="yelp", layers=1)
    assert (config.layers, config.sampler, config.batch_size) == (1, "user", 2048)
    assert (config.lambda2, config.tau) == (1e-7, 0.2)
    assert RecommendConfig(preset="small").batch_size == "auto"


def test_list_lengths_are_sorted_and_made_unique():
    assert RecommendConfig(ks=(50, 5, 50)).ks == (5, 20, 50)  # 20 picks the best epoch


def test_few_steps_per_epoch_are_warned_about():
    with pytest.warns(UserWarning, match=r"only .* steps of 4096 .*batch-size auto would take 256"):
        start("recommend", "synthetic", {"epochs": 1, "dim": 4, "split": "none"}, progress=False)


def test_a_non_finite_loss_names_the_term_and_keeps_the_last_state(tmp_path):
    from gnnlab.errors import TrainingError

    values = {"model": "lightgcl", "dim": 4, "lr": 1e30, "epochs": 5, "batch_size": 1024}
    with pytest.raises(TrainingError, match=r"loss is .* at epoch .*term .*Raise tau"):
        start("recommend", "synthetic", values, out=tmp_path / "run", progress=False)


@needs_data
@pytest.mark.parametrize("data", ["lastfm", "ml-1m"])
def test_closed_form_models_reach_the_published_table(data):
    from gnnlab.bench.recommend import _METRICS, EXPERIMENTS, _exact

    for row in EXPERIMENTS[data].exact:
        found = _exact(EXPERIMENTS[data], row)
        for metric in _METRICS:
            # The 50-neighbour row of lastfm depends on how ties between cosines are rounded; by the
            # tie rule it lies up to 3.0e-4 from the table (see docs/benchmarks.md).
            tolerance = 3.1e-4 if (data, row) == ("lastfm", "itemknn, 50 neighbours") else 2e-4
            assert found[metric] == pytest.approx(found[f"expected {metric}"], abs=tolerance), row


def test_a_baseline_over_the_budget_is_left_out_of_a_comparison_with_its_reason():
    from gnnlab import compare

    table = planted(num_users=60, num_items=30, communities=3, mean_items=8)
    found = compare("recommend", table, ["itemknn"], {"memory_budget": "10KB"}, progress=False)
    assert [row["model"] for row in found.rows] == ["popularity", "itemknn"]
    assert "ease is left out: ease needs" in found.warnings()[0]
