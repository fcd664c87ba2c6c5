"""Pooling between levels against loops in torch; top-k pooling against PyG."""

import pytest
import torch
from torch.autograd import gradcheck

import gnnlab.catalog
from gnnlab.graph import Graph
from gnnlab.layers import BistrideTransfer, Pooled, TopKPooling, pool, unpool
from gnnlab.ops import use_backend

N, E, F = 24, 90, 5


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def edges_of(num_edges=E, num_nodes=N, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=random)


KEPT = torch.tensor([1, 4, 5, 11, 20])

# ---- rows picked and put back --------------------------------------------------------------------


def test_pool_and_unpool_equal_loops():
    saved, x = draw(N, F).requires_grad_(), draw(5, F, seed=1).requires_grad_()
    before = saved.detach().clone()
    wanted = torch.stack([x[KEPT.tolist().index(i)] if i in KEPT else saved[i] for i in range(N)])
    found = unpool(saved, x, KEPT)
    assert torch.equal(found, wanted)
    assert torch.equal(saved, before)
    assert torch.equal(pool(saved, KEPT), torch.stack([saved[i] for i in KEPT.tolist()]))
    assert torch.equal(pool(found, KEPT), x)
    assert gradcheck(lambda s, y: unpool(s, y, KEPT), (saved, x))
    assert gradcheck(lambda s: pool(s, KEPT), (saved,))
    with pytest.raises(ValueError, match=r"x of shape \(5, 5\), one row per kept node, got \(4, 5"):
        unpool(saved, x[:4], KEPT)


def test_pool_and_unpool_compile():
    def around(x):
        return unpool(x, 2 * pool(x, KEPT), KEPT)

    x = torch.randn(N, F)
    compiled = torch.compile(around, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), around(x))


# ---- bi-stride's transfer ------------------------------------------------------------------------


def plain_weights(graph, kept, mass):
    """Returns {(j, i): weight}, repeated edges added, and the mass that reaches kept nodes."""
    edges = graph.edge_index.t().tolist()
    degree = [sum(u == j for u, _ in edges) for j in range(graph.num_nodes)]
    reached = {i: sum(mass[u] / degree[u] for u, v in edges if v == i) for i in kept}
    weights = {}
    for j, i in edges:
        if i in kept:
            share = mass[j] / degree[j] / reached[i]
            weights[j, i] = weights.get((j, i), 0) + share
    return weights, [reached[i] for i in kept]


def test_transfer_equals_its_definition():
    graph, mass = Graph(edges_of(), N), draw(N, seed=3).abs() + 0.1
    kept = KEPT.tolist()
    assert all((graph.edge_index[1] == i).any() for i in kept)
    weights, reached = plain_weights(graph, kept, mass.tolist())
    transfer = BistrideTransfer(graph, KEPT, mass)
    torch.testing.assert_close(transfer.mass, torch.tensor(reached).double())
    x, y = draw(N, F), draw(5, F, seed=1)
    down, up = torch.zeros(5, F).double(), torch.zeros(N, F).double()
    for (j, i), weight in weights.items():
        down[kept.index(i)] += weight * x[j]
        up[j] += weight * y[kept.index(i)]
    torch.testing.assert_close(transfer.down(x), down)
    torch.testing.assert_close(transfer(x), down)
    torch.testing.assert_close(transfer.up(y), up)
    with use_backend("reference"):
        torch.testing.assert_close(transfer.down(x), down)
        torch.testing.assert_close(transfer.up(y), up)
    assert gradcheck(transfer.down, (x.requires_grad_(),))
    assert gradcheck(transfer.up, (y.requires_grad_(),))


def test_transfer_over_two_levels_hands_on_mass():
    graph = Graph(torch.cat([e := edges_of(200), e.flip(0)], 1), N)
    second = Graph(torch.cat([e := edges_of(12, 5), e.flip(0)], 1), 5)
    first = BistrideTransfer(graph, KEPT)
    transfer = BistrideTransfer(second, torch.tensor([0, 2]), first.mass)
    weights, reached = plain_weights(second, [0, 2], first.mass.tolist())
    torch.testing.assert_close(transfer.mass, torch.tensor(reached).double())
    wanted = sum(w * draw(5)[j] for (j, i), w in weights.items() if i == 2)
    torch.testing.assert_close(transfer.down(draw(5))[1], wanted)


def test_transfer_keeps_constants_and_nodes_that_nothing_reaches():
    graph = Graph(torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 0]]), 5)
    kept = torch.tensor([1, 3, 4])  # nothing leads to 3 and 4
    transfer = BistrideTransfer(graph, kept, torch.arange(1.0, 6.0))
    torch.testing.assert_close(transfer.down(torch.full((5, 2), 3.0)), torch.full((3, 2), 3.0))
    x = draw(5, 2)
    assert torch.equal(transfer.down(x)[1:], x[3:])
    up = transfer.up(draw(3, 2, seed=1))
    assert torch.equal(up[3:], draw(3, 2, seed=1)[1:])
    assert torch.equal(up[1], torch.zeros(2).double())  # 0 and 2 do not return to it
    torch.testing.assert_close(transfer.mass, torch.tensor([4.0, 4.0, 5.0]).double())


def test_transfer_compiles_and_keeps_dtypes():
    transfer = BistrideTransfer(Graph(edges_of(), N), KEPT)

    def around(x):
        return transfer.up(transfer.down(x))

    x = torch.randn(N, F)
    compiled = torch.compile(around, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), around(x))
    assert around(x.bfloat16()).dtype == torch.bfloat16
    assert around(x).dtype == torch.float32
    assert not list(transfer.parameters())
    assert not transfer.state_dict()
    assert transfer.to("meta").plan.device == transfer.weight.device == torch.device("meta")
    assert repr(transfer) == "BistrideTransfer(24 -> 5)"


def test_transfer_says_what_does_not_fit():
    graph = Graph(edges_of(), N)
    with pytest.raises(ValueError, match=r"mass of shape \(24,\).*got \(3,\)"):
        BistrideTransfer(graph, KEPT, torch.ones(3))
    with pytest.raises(ValueError, match=r"kept of shape \(K,\), got \(1, 5\)"):
        BistrideTransfer(graph, KEPT[None])


# ---- top-k ---------------------------------------------------------------------------------------

SORTED = torch.tensor([0] * 7 + [1] * 1 + [3] * 16)  # graph 2 has no nodes
SHUFFLED = SORTED[torch.randperm(N, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize("batch", [None, SORTED, SHUFFLED], ids=["one", "sorted", "shuffled"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ratio": 0.3, "multiplier": 2.5},
        {"ratio": 3},
        {"ratio": 100, "nonlinearity": "sigmoid"},
        {"ratio": 0.99, "nonlinearity": torch.sin},
        {"min_score": 0.1},
        {"min_score": 0.9, "multiplier": 3},
        {"min_score": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_topk_equals_pyg(options, batch, dtype, tolerance):
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    ours, theirs = TopKPooling(F, **options).to(dtype), pyg.TopKPooling(F, **options).to(dtype)
    with torch.no_grad():
        theirs.select.weight.copy_(ours.weight)
    edge_index = edges_of()
    leaves = [draw(N, F).to(dtype).requires_grad_(), draw(E, 2, seed=1).to(dtype).requires_grad_()]
    wanted = theirs(leaves[0], edge_index, leaves[1], batch)
    random = [draw(*wanted[i].shape, seed=i).to(dtype) for i in (0, 2, 5)]

    def gradients(result, weight):
        outputs = [result[i] for i in (0, 2, 5)]
        return torch.autograd.grad(outputs, [*leaves, weight], random)

    expected = gradients(wanted, theirs.select.weight)
    for edges in (edge_index, Graph(edge_index, N)):
        found = ours(leaves[0], edges, leaves[1], batch)
        assert isinstance(found, Pooled)
        for i in (1, 3, 4):
            assert torch.equal(found[i], wanted[i])
        for i in (0, 2, 5):
            torch.testing.assert_close(found[i], wanted[i], rtol=tolerance, atol=tolerance)
        for a, b in zip(gradients(found, ours.weight), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("batch", [SORTED, SHUFFLED], ids=["sorted", "shuffled"])
def test_topk_equals_a_loop_with_ties_to_smaller_ids(batch):
    pooling = TopKPooling(1, ratio=0.4, nonlinearity="identity").double()
    torch.nn.init.ones_(pooling.weight)
    x = torch.randint(3, (N, 1), generator=torch.Generator().manual_seed(0)).double()
    wanted = []
    for graph in range(4):
        nodes = [i for i in range(N) if batch[i] == graph]
        wanted += sorted(nodes, key=lambda i: (-x[i, 0], i))[: -(-len(nodes) * 2 // 5)]
    found = pooling(x, edges_of(), batch=batch)
    assert found.perm.tolist() == wanted
    assert torch.equal(found.batch, batch[wanted])
    place = {node: k for k, node in enumerate(wanted)}
    edges = [(place[u], place[v]) for u, v in edges_of().t().tolist() if u in place and v in place]
    assert found.edge_index.t().tolist() == [list(e) for e in edges]


def test_topk_keeps_weights_of_a_graph_and_scores_what_it_is_given():
    weight, x = draw(E).abs(), draw(N, F)
    graph = Graph(edges_of(), N, edge_weight=weight)
    pooling = TopKPooling(F).double()
    found = pooling(x, graph)
    assert torch.equal(found.edge_attr, pooling(x, edges_of(), weight).edge_attr)
    assert len(found.edge_attr) == found.edge_index.shape[1] > 0
    other = draw(N, F, seed=5)
    scored = pooling(x, graph, attn=other)
    assert torch.equal(scored.perm, pooling(other, graph).perm)
    torch.testing.assert_close(scored.x, x[scored.perm] * scored.score[:, None])


def test_topk_of_nothing_and_of_half_precision():
    nothing = TopKPooling(F)(torch.empty(0, F), torch.empty(2, 0, dtype=torch.int64))
    assert nothing.x.shape == (0, F)
    for options in ({"ratio": 0.5}, {"min_score": 0.01}):
        pooling = TopKPooling(F, **options).bfloat16()
        found = pooling(draw(N, F).bfloat16(), edges_of(), batch=SORTED)
        assert found.x.dtype == torch.bfloat16
    sizes = torch.bincount(TopKPooling(F, 0.5)(draw(N, F).float(), edges_of(), None, SORTED).batch)
    assert sizes.tolist() == [4, 1, 0, 8]


def test_topk_says_what_does_not_fit():
    for ratio in (1.0, 1.5, 0.0, -0.5):
        with pytest.raises(ValueError, match=f"ratio={ratio} is neither a share"):
            TopKPooling(F, ratio)
    with pytest.raises(ValueError, match="at least one node, got 0"):
        TopKPooling(F, 0)
    with pytest.raises(ValueError, match='unknown nonlinearity "selu"'):
        TopKPooling(F, nonlinearity="selu")
    x = torch.randn(N, F)
    with pytest.raises(ValueError, match=r"batch must hold one graph per node, shape \(24,\)"):
        TopKPooling(F)(x, edges_of(), batch=SORTED[:4])
    with pytest.raises(ValueError, match="edge_attr with 90 rows"):
        TopKPooling(F)(x, edges_of(), torch.randn(3, 2))
    with pytest.raises(ValueError, match=r"attn of shape \(24, 5\), got \(24, 1\)"):
        TopKPooling(F)(x, edges_of(), attn=x[:, :1])
    with pytest.raises(ValueError, match="TopKPooling needs one kind of nodes"):
        TopKPooling(F)((x, x), edges_of())


def test_catalog_says_that_topk_need_not_compile():
    row = next(row for row in gnnlab.catalog.catalog("layers") if row["name"] == "TopKPooling")
    assert row["compiles"] is False
    assert row["kind"] == "topk"
