"""The compiled dynamic disjunctive graph against the plain one, and against cases by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from gnnlab.errors import ConfigError
from gnnlab.ops import backend
from gnnlab.tasks.dispatch import (
    Cuts,
    JobShopInstance,
    RandomTrace,
    ShopOptions,
    Shutdowns,
    Simulator,
    WindowTrace,
)
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.features import EDGE_TYPES, graph_arrays
from gnnlab.tasks.dispatch.graph_view import GraphView

compiled = pytest.mark.skipif(backend() != "cpu", reason="needs the compiled kernels")
SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])


def _random_instance(rng: np.random.Generator) -> JobShopInstance:
    """Up to 6 jobs and machines, recirculation, stays on a machine, and times of zero."""
    m = int(rng.integers(1, 7))
    jobs = []
    for _ in range(int(rng.integers(1, 7))):
        length = int(rng.integers(1, 7))
        times = rng.integers(0 if rng.random() < 0.4 else 1, 9, length)
        jobs.append(list(zip(rng.integers(0, m, length), times, strict=True)))
    return JobShopInstance.from_jobs(jobs, m)


def _random_choices(rng: np.random.Generator) -> dict[str, Any]:
    machine_nodes = bool(rng.random() < 0.7)
    kinds = ["auto", "clique", "star"][: 3 if machine_nodes else 2]
    flags = {n: bool(rng.random() < 0.5) for n in ("drop_done", "delete_down", "repair_known")}
    return {**flags, "machine_nodes": machine_nodes, "disjunctive": kinds[rng.integers(len(kinds))]}


def _random_shop(rng: np.random.Generator) -> tuple[JobShopInstance, ShopOptions, Any]:
    instance = _random_instance(rng)
    kind = rng.integers(4)
    how = Shutdowns(prob=float(rng.choice([0.05, 0.1, 0.3])), duration="uniform", low=1, high=8)
    seed = int(rng.integers(2**62))
    trace = [None, Cuts.draw(instance, 0.5, seed, how), RandomTrace(seed, how)][min(kind, 2)]
    options = ShopOptions(
        mode=("jssp", "bws", "bns")[rng.integers(3)],
        **{n: bool(rng.random() < 0.5) for n in ("restart", "unload_when_down", "allow_wait")},
        **{n: bool(rng.random() < 0.5) for n in ("focus", "auto_trivial")},
        wip_limit=int(rng.integers(1, 5)) if rng.random() < 0.3 else None,
    )
    return instance, options, trace


def _sorted(pairs: Any) -> list[tuple[int, int]]:
    return sorted(map(tuple, np.asarray(pairs).T.tolist()))


def _compare(view: GraphView, plain: Simulator, choices: dict[str, Any]) -> None:
    """The view has one episode, that of the simulator."""
    expected = graph_arrays(plain, **choices)
    for name in ("x_op", "x_machine", "op_job", "op_machine"):
        assert np.array_equal(getattr(view, name).numpy(), expected[name]), name  # bit for bit
    for name in EDGE_TYPES:
        assert _sorted(view.edge_index[name]) == _sorted(expected["edge_index"][name]), name
    n = plain.num_jobs
    assert view.candidate[0, :n].tolist() == expected["candidate"].tolist()
    assert (view.candidate[0, n:] == -1).all()
    legal = [n if a == view.mask.shape[1] - 1 else a for a in view.mask[0].nonzero()[:, 0].tolist()]
    assert legal == plain.legal()
    assert view.time.tolist() == [plain.time]
    twins: dict[tuple[int, int], int] = {}
    for v, key in enumerate(zip(view.op_job.tolist(), view.op_machine.tolist(), strict=True)):
        started = choices["drop_done"] and view.x_op[v, 0] == 0
        if not started and view.x_op[v, 0] == 1:
            assert view.op_twin[v] == twins.setdefault(key, v)
        else:
            assert view.op_twin[v] == v


@compiled
@pytest.mark.parametrize("seed", range(6))
def test_graphs_of_random_episodes_are_those_of_the_plain_simulator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        instance, options, trace = _random_shop(rng)
        is_cut = isinstance(trace, Cuts)
        plain = Simulator(
            instance, None if is_cut else trace, options, cuts=trace if is_cut else None
        )
        batch = BatchedShop([instance], options, traces=trace, threads=1)
        while not plain.done:
            choices = _random_choices(rng)
            _compare(batch.graph(**choices), plain, choices)
            if plain.over:
                break
            action = int(rng.choice(plain.legal()))
            plain.step(action)
            batch.step(np.array([action]))


@compiled
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_holds_the_graphs_of_its_episodes_and_gives_them_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = ShopOptions(allow_wait=True)
    how = Shutdowns(prob=0.1, low=1, high=8)
    instances = [_random_instance(rng) for _ in range(5)]
    traces = [RandomTrace(int(rng.integers(2**62)), how) for _ in range(10)]
    batch = BatchedShop(instances, options, copies=2, traces=traces)
    plains = [Simulator(instances[r // 2], traces[r], options) for r in range(10)]
    choices = {"drop_done": True, "machine_nodes": True, "disjunctive": "clique"}
    views = []
    for _ in range(12):
        rows = rng.permutation([r for r in range(10) if not plains[r].over])
        if not len(rows):
            break
        view = batch.graph(rows)
        views.append(view)
        for i, r in enumerate(rows):
            _compare(view.take(torch.tensor([i])), plains[r], choices)
        chosen = [int(rng.choice(plains[r].legal())) for r in rows]
        for r, action in zip(rows, chosen, strict=True):
            plains[r].step(action)
        batch.step(np.array(chosen), rows)
    joined, at = GraphView.join(views), 0
    for view in views:
        part = joined.take(torch.arange(at, at + len(view)))
        at += len(view)
        _assert_same(part, view)
    assert joined.op_row.unique_consecutive().tolist() == sorted(set(joined.op_row.tolist()))
    _assert_same(joined.take(torch.arange(len(joined))), joined)


def _assert_same(a: GraphView, b: GraphView) -> None:
    for name in vars(a):
        if name != "edge_index":
            assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name in EDGE_TYPES:
        assert torch.equal(a.edge_index[name], b.edge_index[name]), name


def _edges(shop: Simulator, **choices: Any) -> dict[str, list[tuple[int, int]]]:
    return {k: _sorted(v) for k, v in graph_arrays(shop, **choices)["edge_index"].items()}


def test_edges_of_a_shop_at_the_start_are_those_found_by_hand() -> None:
    edges = _edges(Simulator(SWAP))
    assert edges["pred"] == [(0, 1), (2, 3)]
    assert edges["succ"] == [(1, 0), (3, 2)]
    assert edges["disj"] == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert edges["op_machine"] == [(0, 0), (1, 1), (2, 1), (3, 0)]
    assert edges["machine_op"] == [(0, 0), (0, 3), (1, 1), (1, 2)]
    assert edges["mach_next"] == edges["block"] == edges["block_rev"] == []


def test_the_departure_of_an_occupant_releases_those_that_wait() -> None:
    jobs = [[(0, 3), (1, 2)], [(0, 4)], [(2, 1), (0, 1)], [(3, 1)], [(3, 1)]]
    for mode, blocks in (("bws", True), ("jssp", False)):
        shop = Simulator(JobShopInstance.from_jobs(jobs), options=ShopOptions(mode=mode))
        shop.step(0)
        # Nodes: 0, 1 of job 0, on machine 0; 2 waits for it; 3, 4 of job 2; 5, 6 for machine 3.
        edges = _edges(shop)
        assert edges["mach_next"] == [(0, 2)]
        assert edges["block"] == ([(0, 2)] if blocks else [])
        assert edges["block_rev"] == ([(2, 0)] if blocks else [])
        assert edges["disj"] == [(2, 4), (4, 2), (5, 6), (6, 5)]  # 0 has started
    shop = Simulator(JobShopInstance.from_jobs([[(0, 3)], [(0, 4)], [(0, 1)]]))
    shop.step(1)
    assert shop.time == 4  # job 1 has left: nobody occupies the machine
    assert graph_arrays(shop)["op_job"].tolist() == [0, 2]
    assert graph_arrays(shop, drop_done=False)["op_job"].tolist() == [0, 1, 2]


def test_edges_of_a_machine_that_is_down_can_be_left_out() -> None:
    jobs = [[(0, 3), (1, 2)], [(0, 4), (1, 1)], [(1, 5)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), WindowTrace([[(0, 5)], []]))
    assert shop.legal() == [2]
    assert _edges(shop)["disj"] == [
        *[(0, 2), (1, 3), (1, 4), (2, 0), (3, 1), (3, 4), (4, 1), (4, 3)]
    ]
    assert _edges(shop, delete_down=True)["disj"] == [
        *[(1, 3), (1, 4), (3, 1), (3, 4), (4, 1), (4, 3)]
    ]


@compiled
def test_a_graph_becomes_one_of_pyg() -> None:
    pytest.importorskip("torch_geometric")
    view = BatchedShop([SWAP]).graph()
    data = view.to_pyg()
    assert data["op", "disj", "op"].edge_index.equal(view.edge_index["disj"])
    assert data["op"].x.equal(view.x_op)
    assert data["machine"].num_nodes == 2
    data.validate()


@compiled
def test_a_graph_becomes_one_of_dgl() -> None:
    pytest.importorskip("dgl")
    view = BatchedShop([SWAP]).graph()
    made = view.to_dgl()
    assert made.num_nodes("op") == 4
    assert made.num_edges("disj") == 4


@compiled
def test_wrong_choices_are_refused() -> None:
    shop = BatchedShop([SWAP, SWAP])
    with pytest.raises(ConfigError, match=r'unknown disjunctive "cliqe". Did you mean "clique"'):
        shop.graph(disjunctive="cliqe")
    with pytest.raises(ConfigError, match="needs machine_nodes=True"):
        shop.graph(disjunctive="star", machine_nodes=False)
    with pytest.raises(ConfigError, match="this view has 2"):
        shop.graph().to_pyg()
    with pytest.raises(IndexError, match="row 5 is not in"):
        shop.graph(np.array([0, 5]))
