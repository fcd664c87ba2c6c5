"""Samplers and loaders: blocks give what whole graphs give, and threads leave no trace."""

from __future__ import annotations

import importlib.util
import threading
from functools import partial

import pytest
import torch
from fake_device import FakeDevice

from gnnlab.bench.graphs import mesh, power_law
from gnnlab.data import HostFeatures
from gnnlab.errors import MissingExtraError
from gnnlab.graph import Graph
from gnnlab.layers import GATConv, SAGEConv
from gnnlab.ops import EdgePlan
from gnnlab.sampling import (
    ClusterLoader,
    NeighborLoader,
    NeighborSampler,
    Sample,
    cluster as cluster_module,
    clusters,
    cut_edges,
)
from gnnlab.sampling._batches import mix

N = 300


@pytest.fixture
def graph():
    edges = power_law(N, 4_000).edge_index
    return Graph(
        edges, N, edge_weight=torch.rand(4_000, generator=torch.Generator().manual_seed(0))
    )


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "gnnlab-loader"]


def tensors(batch):
    """Everything in a batch, to compare."""
    s = batch.sample
    blocks = [t for b in s.blocks for t in (b.edge_index, b.edge_weight) if t is not None]
    return [batch.seeds, s.nodes, s.seeds, s.edge_ids, *blocks, batch.x, batch.y]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for a, b in zip(batches, others, strict=True):
        for x, y in zip(tensors(a), tensors(b), strict=True):
            assert torch.equal(x, y)


# ---- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("layer", [SAGEConv, partial(GATConv, self_loops=False)])
def test_all_neighbours_in_blocks_give_what_the_whole_graph_gives(graph, layer, depth):
    torch.manual_seed(0)
    convs = [layer(6, 6).double() for _ in range(depth)]
    plain = Graph(graph.edge_index, N)
    x = torch.randn(N, 6, dtype=torch.float64)
    sample = NeighborSampler(plain, (-1,) * depth)(torch.tensor([5, 17, 0, 5]), seed=0)
    whole, part, sub = x, x[sample.nodes], x[sample.nodes]
    for conv, block in zip(convs, sample.blocks, strict=True):
        whole, sub = conv(whole, plain).tanh(), conv(sub, sample.subgraph).tanh()
        part = conv((part, part[: block.num_dst]), block).tanh()
    assert part.shape == (3, 6)
    torch.testing.assert_close(part[sample.seeds], whole[[5, 17, 0, 5]])
    torch.testing.assert_close(sub[sample.seeds], whole[[5, 17, 0, 5]])


def test_weights_and_ids_belong_to_the_edges(graph):
    sample = NeighborSampler(graph, (4, 3))(torch.tensor([8, 3]), seed=1)
    src, dst = sample.nodes[sample.edge_index]
    assert torch.equal(graph.edge_index[:, sample.edge_ids], torch.stack([src, dst]))
    outer, inner = sample.blocks
    assert outer.is_bipartite
    assert inner.is_bipartite
    assert torch.equal(outer.edge_weight, graph.edge_weight[sample.edge_ids])
    first = sample.num_edges[0]
    assert torch.equal(inner.edge_weight, graph.edge_weight[sample.edge_ids[:first]])
    assert torch.equal(inner.edge_index, sample.edge_index[:, :first].int())
    assert torch.equal(sample.subgraph.edge_index.long(), sample.edge_index)
    assert sample.subgraph.num_nodes == len(sample.nodes)
    assert (outer.num_src, outer.num_dst, inner.num_src, inner.num_dst) == (
        sample.num_nodes[2],
        *sample.num_nodes[1::-1][:1] * 2,
        sample.num_nodes[0],
    )


def test_a_sampled_mean_is_right_on_average(graph):
    """GraphSAGE's estimator has no bias: means over samples come close to the whole mean."""
    plan = graph.plan
    node = int(plan.counts.argmax())
    x = torch.randn(N, generator=torch.Generator().manual_seed(2)).double()
    want = x[plan.col[plan.indptr[node] : plan.indptr[node + 1]].long()].mean()
    for replace in (False, True):
        sampler = NeighborSampler(plan, (5,), replace=replace)
        found = [sampler(torch.tensor([node]), seed=s) for s in range(3000)]
        means = torch.stack([x[s.nodes[s.edge_index[0]]].mean() for s in found])
        assert abs(means.mean() - want) < 4 * means.std() / 3000**0.5


def test_samplers_refuse_what_they_cannot_use(graph):
    with pytest.raises(ValueError, match="got 0"):
        NeighborSampler(graph, (5, 0))
    with pytest.raises(ValueError, match="sources can be targets"):
        NeighborSampler(Graph(torch.tensor([[0], [0]]), (2, 1)))
    with pytest.raises(TypeError, match="expected a Graph or EdgePlan, got Tensor"):
        NeighborSampler(graph.edge_index)
    with pytest.raises(IndexError, match=f"seeds: index {N} at position 1"):
        NeighborSampler(graph)(torch.tensor([0, N]), seed=0)
    assert repr(NeighborSampler(graph, (3,), replace=True)).endswith("(3,), replace=True)")


def test_a_graph_can_be_made_of_a_plan():
    plan = EdgePlan(torch.tensor([[0, 1], [1, 1]]), 3, 3)
    assert repr(Graph.from_plan(plan)) == "Graph(num_nodes=3, num_edges=2)"
    assert Graph.from_plan(plan).plan is plan
    assert Graph.from_plan(plan, bipartite=True).is_bipartite
    with pytest.raises(ValueError, match="bipartite=False"):
        Graph.from_plan(EdgePlan(torch.tensor([[0], [1]]), 3, 2), bipartite=False)
    with pytest.raises(ValueError, match=r"edge_weight must have shape \(2,\)"):
        Graph.from_plan(plan, edge_weight=torch.ones(3))


# ---- loaders -------------------------------------------------------------------------------------


def make_loader(graph, **options):
    x = torch.arange(2.0 * N).view(N, 2)
    return NeighborLoader(
        NeighborSampler(graph, (4, 3)), x, torch.arange(N), **{"batch_size": 64, **options}
    )


def test_batches_hold_the_rows_of_their_nodes(graph):
    batches = list(make_loader(graph))
    assert len(batches) == len(make_loader(graph)) == 5
    assert torch.cat([b.seeds for b in batches]).tolist() == list(range(N))
    for batch in batches:
        assert torch.equal(batch.x[:, 0], 2.0 * batch.nodes)
        assert torch.equal(batch.y, batch.seeds)
        assert torch.equal(batch.nodes[batch.sample.seeds], batch.seeds)
        assert batch.blocks[-1].num_dst == len(batch.seeds)


@pytest.mark.parametrize("prefetch", [1, 2, 7])
def test_batches_do_not_depend_on_prefetching(graph, prefetch):
    plain = make_loader(graph, shuffle=True, prefetch=0, seed=3)
    ahead = make_loader(graph, shuffle=True, prefetch=prefetch, seed=3)
    for _ in range(2):
        assert_same(list(plain), list(ahead))
    assert not loader_threads()


def test_epochs_differ_and_can_be_repeated(graph):
    loader = make_loader(graph, shuffle=True)
    first, second = list(loader), list(loader)
    assert not torch.equal(first[0].seeds, second[0].seeds)
    loader.set_epoch(0)
    assert_same(first, list(loader))
    loader.set_epoch(1)
    assert_same(second, list(loader))
    unshuffled = make_loader(graph)
    one, two = (next(iter(unshuffled)) for _ in range(2))
    assert torch.equal(one.seeds, two.seeds)
    assert not torch.equal(one.nodes, two.nodes)
    other = next(iter(make_loader(graph, seed=1)))
    assert not torch.equal(one.nodes, other.nodes)


def test_nodes_can_be_ids_or_a_mask(graph):
    ids = torch.tensor([7, 3, 200])
    mask = torch.zeros(N, dtype=torch.bool)
    mask[ids] = True
    assert next(iter(make_loader(graph, nodes=ids))).seeds.tolist() == [7, 3, 200]
    assert next(iter(make_loader(graph, nodes=mask))).seeds.tolist() == [3, 7, 200]
    short = make_loader(graph, nodes=torch.arange(130), drop_last=True)
    assert [len(b.seeds) for b in short] == [64, 64]
    assert len(short) == 2
    assert list(make_loader(graph, nodes=torch.empty(0, dtype=torch.int64))) == []


def test_leaving_early_ends_the_thread(graph):
    for batch in make_loader(graph, batch_size=1):
        assert loader_threads()
        assert batch.seeds.tolist() == [0]
        break
    del batch
    assert not loader_threads()
    passing = iter(make_loader(graph, batch_size=1))
    next(passing)
    passing.close()
    assert not loader_threads()
    abandoned = iter(make_loader(graph, batch_size=1))
    next(abandoned)
    del abandoned
    assert not loader_threads()


def test_two_passes_can_run_side_by_side(graph):
    alone = list(make_loader(graph, prefetch=0))
    loader = make_loader(graph)
    left = iter(loader)
    kept = [next(left)]
    loader.set_epoch(0)
    right = list(loader)
    assert_same(alone, kept + list(left))
    assert_same(alone, right)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_of_the_thread_arrive_after_the_batches_before(graph, prefetch, monkeypatch):
    calls = NeighborSampler.__call__

    def third_fails(self, seeds, *, seed):
        if 128 in seeds:
            raise RuntimeError("no more")
        return calls(self, seeds, seed=seed)

    monkeypatch.setattr(NeighborSampler, "__call__", third_fails)
    seen = []
    with pytest.raises(RuntimeError, match="no more"):
        seen.extend(b.seeds[0].item() for b in make_loader(graph, prefetch=prefetch))
    assert not loader_threads()


def test_no_more_batches_are_made_than_asked_for(graph, monkeypatch):
    made, wake = [], threading.Event()
    calls = NeighborSampler.__call__

    def counted(self, seeds, *, seed):
        made.append(seeds)
        if len(made) == 4:
            wake.set()
        return calls(self, seeds, seed=seed)

    monkeypatch.setattr(NeighborSampler, "__call__", counted)
    passing = iter(make_loader(graph, batch_size=10, prefetch=3))
    next(passing)
    assert wake.wait(10)  # one taken, three ahead
    assert not threading.Event().wait(0.05)
    assert len(made) == 4
    passing.close()


def test_a_host_table_brings_batches_to_its_device(graph):
    table = torch.arange(2.0 * N).view(N, 2)
    on_cpu = make_loader(graph)
    hosted = NeighborLoader(
        NeighborSampler(graph, (4, 3)), HostFeatures(table), torch.arange(N), batch_size=64
    )
    assert_same(list(on_cpu), list(hosted))


def test_tables_are_checked(graph):
    sampler = NeighborSampler(graph)
    with pytest.raises(ValueError, match=f"features have 4 rows, but the graph has {N}"):
        NeighborLoader(sampler, torch.eye(4))
    with pytest.raises(ValueError, match=r"labels have shape \(4,\)"):
        NeighborLoader(sampler, labels=torch.arange(4))
    with pytest.raises(ValueError, match=r"features need a gradient.*batch\.nodes"):
        NeighborLoader(sampler, torch.zeros(N, 2, requires_grad=True))
    with pytest.raises(TypeError, match="must be a tensor or HostFeatures, got list"):
        NeighborLoader(sampler, [1, 2])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        NeighborLoader(sampler, batch_size=0)
    with pytest.raises(ValueError, match="prefetch must be at least 0, got -1"):
        NeighborLoader(sampler, prefetch=-1)
    with pytest.raises(IndexError, match="nodes: index 300 at position 0"):
        NeighborLoader(sampler, nodes=torch.tensor([N]))
    with pytest.raises(ValueError, match="as a mask"):
        NeighborLoader(sampler, nodes=torch.ones(3, dtype=torch.bool))
    bare = next(iter(NeighborLoader(sampler, batch_size=4)))
    assert (bare.x, bare.y) == (None, None)


def test_seeds_of_batches_do_not_collide():
    assert len({mix(s, e, b) for s in range(10) for e in range(10) for b in range(50)}) == 5_000
    assert mix(1, 2) != mix(2, 1)
    assert 0 <= mix(-1) < 2**64


def test_sampled_training_learns():
    """Labels that follow the mean of the neighbours are learnt from sampled batches."""
    torch.manual_seed(0)
    edges = power_law(2_000, 30_000).edge_index
    graph = Graph(edges, 2_000)
    x = torch.randn(2_000, 8)
    mean = torch.zeros(2_000, 8).index_add(0, edges[1], x[edges[0]])
    y = (mean[:, 0] > mean[:, 1]).long()
    loader = NeighborLoader(
        NeighborSampler(graph, (15,)), x, y, batch_size=200, shuffle=True, prefetch=1
    )
    conv = SAGEConv(8, 2)
    optimizer = torch.optim.Adam(conv.parameters(), 0.05)
    for _ in range(5):
        for batch in loader:
            (block,) = batch.blocks
            h = conv((batch.x, batch.x[: block.num_dst]), block)
            loss = torch.nn.functional.cross_entropy(h, batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (conv(x, graph).argmax(1) == y).float().mean() > 0.9


# ---- clusters ------------------------------------------------------------------------------------

HAS_METIS = importlib.util.find_spec("pymetis") is not None
METHODS = [
    "stream",
    pytest.param("metis", marks=pytest.mark.skipif(not HAS_METIS, reason="needs pymetis")),
]


@pytest.mark.parametrize("method", METHODS)
def test_clusters_of_a_mesh_cut_few_edges(method):
    g = mesh(60, 50)
    graph = Graph(g.edge_index, g.num_dst)
    part = clusters(graph, 20, method=method)
    assert part.dtype == torch.int64
    assert part.bincount().max() <= 1.1 * 150
    assert part.unique().numel() == 20
    chance = torch.randint(0, 20, part.shape, generator=torch.Generator().manual_seed(0))
    assert cut_edges(graph, part) < 0.2 * cut_edges(graph, chance)
    src, dst = g.edge_index
    assert cut_edges(graph, part) == sum(part[src[e]] != part[dst[e]] for e in range(len(src)))


@pytest.mark.skipif(not HAS_METIS, reason="needs pymetis")
@pytest.mark.parametrize("make", [lambda: mesh(100, 80), lambda: power_law(3_000, 30_000)])
def test_streaming_comes_near_metis(make):
    g = make()
    graph = Graph(g.edge_index, g.num_dst)
    cuts = [cut_edges(graph, clusters(graph, 25, method=m)) for m in ("stream", "metis")]
    assert cuts[0] < 1.5 * cuts[1]


def test_auto_streams_without_metis(graph, monkeypatch):
    monkeypatch.setattr(cluster_module, "_metis", lambda: None)
    assert torch.equal(clusters(graph, 7), clusters(graph, 7, method="stream"))
    with pytest.raises(MissingExtraError, match=r"gnnlab\[cluster\]"):
        clusters(graph, 7, method="metis")
    with pytest.raises(ValueError, match=r'unknown method "x"\. Known: auto, metis, stream'):
        clusters(graph, 7, method="x")
    with pytest.raises(ValueError, match="at least 1 part, got 0"):
        clusters(graph, 0)
    with pytest.raises(ValueError, match="sources can be targets"):
        clusters(Graph(torch.tensor([[0], [0]]), (2, 1)), 2)


def test_cluster_batches_hold_all_edges_inside(graph):
    part = torch.arange(N) % 7 * 2  # every other cluster is empty
    x, y = torch.arange(1.0 * N)[:, None], torch.arange(N)
    loader = ClusterLoader(graph, part, x, y, batch_size=2, shuffle=True, seed=1)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    assert torch.cat([b.nodes for b in batches]).sort().values.tolist() == list(range(N))
    src, dst = graph.edge_index
    for b in batches:
        inside = torch.isin(src, b.nodes) & torch.isin(dst, b.nodes)
        assert b.edge_ids.sort().values.tolist() == inside.nonzero().view(-1).tolist()
        assert torch.equal(b.nodes[b.graph.edge_index], graph.edge_index[:, b.edge_ids])
        assert torch.equal(b.graph.edge_weight, graph.edge_weight[b.edge_ids])
        assert b.graph.num_nodes == len(b.nodes)
        assert torch.equal(b.x[:, 0], b.nodes.float())
        assert torch.equal(b.y, b.nodes)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_cluster_batches_do_not_depend_on_prefetching(graph, prefetch):
    part = torch.arange(N) % 9
    loaders = [
        ClusterLoader(graph, part, batch_size=2, shuffle=True, prefetch=p) for p in (0, prefetch)
    ]
    epochs = []
    for _ in range(2):
        first, second = ([(b.nodes, b.edge_ids) for b in loader] for loader in loaders)
        for a, b in zip(first, second, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        epochs.append(torch.cat([n for n, _ in first]).tolist())
    assert epochs[0] != epochs[1]
    loaders[0].set_epoch(0)
    assert torch.cat([b.nodes for b in loaders[0]]).tolist() == epochs[0]


def test_cluster_loaders_check_their_arguments(graph):
    with pytest.raises(ValueError, match="part must have shape"):
        ClusterLoader(graph, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="negative"):
        ClusterLoader(graph, torch.full((N,), -1))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        ClusterLoader(graph, torch.zeros(N, dtype=torch.int64), batch_size=0)
    with pytest.raises(ValueError, match="labels have shape"):
        ClusterLoader(graph, torch.zeros(N, dtype=torch.int64), labels=torch.ones(2))


# ---- devices -------------------------------------------------------------------------------------


def test_rows_of_a_device_are_fetched_by_its_own_streams(graph):
    """On a device that is not the CPU rows are asked for ahead and waited for at the end."""
    table = torch.arange(2.0 * N).view(N, 2)
    with HostFeatures(table, FakeDevice()) as rows:
        loader = NeighborLoader(NeighborSampler(graph, (4, 3)), rows, batch_size=64)
        for batch in loader:
            assert torch.equal(batch.x[:, 0].cpu(), 2.0 * batch.nodes.cpu())


def test_samples_move_as_a_whole(graph):
    sample = NeighborSampler(graph, (4, 3))(torch.tensor([8, 3]), seed=1)
    assert sample.to("cpu") is sample
    moved = sample.to("meta")
    assert isinstance(moved, Sample)
    assert {t.device.type for t in (moved.nodes, moved.seeds, moved.edge_ids)} == {"meta"}
    assert {b.device.type for b in moved.blocks} == {"meta"}
    assert (moved.num_nodes, moved.num_edges) == (sample.num_nodes, sample.num_edges)
