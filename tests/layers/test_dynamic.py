"""DynamicEdgeConv: EdgeConv of PyG on neighbours that are found by comparing all pairs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gnnlab.layers import DynamicEdgeConv, EdgeConv


def network(size, out=4):
    return nn.Sequential(nn.Linear(2 * size, 8), nn.ReLU(), nn.Linear(8, out)).double()


NETWORKS = {
    "network": lambda: network(5),
    "linear": lambda: nn.Linear(10, 4).double(),
    "other": lambda: nn.Sequential(nn.Tanh(), nn.Linear(10, 4)).double(),
}


def features(num, size=5, seed=0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)).double()


def nearest(x, y, k, batch_x, batch_y):
    """All pairs, in plain torch: the k nearest of the same graph, itself among them."""
    far = torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist")
    edges = []
    for t in range(len(y)):
        own = (batch_x == batch_y[t]).nonzero()[:, 0]
        order = own[far[t, own].argsort(stable=True)][:k]
        edges += [(int(s), t) for s in order]
    return torch.tensor(edges).T


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
@pytest.mark.parametrize("pair", [False, True])
def test_it_is_pygs_edge_conv_on_the_nearest(make, reduce, pair):
    library = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    layer = DynamicEdgeConv(make(), 6, reduce=reduce)
    other = EdgeConv(layer.net, reduce=reduce).to_pyg()
    assert isinstance(other, library.EdgeConv)
    batch = torch.tensor([0] * 14 + [1] * 4 + [2] * 12)  # graph 1 has fewer than 6 nodes
    x = features(30)
    y, batch_y = (features(11, seed=1), torch.arange(11) % 3) if pair else (x, batch)
    edges = nearest(x, y, 6, batch, batch_y)
    results = []
    for conv, call in ((layer, None), (other, edges)):
        ends = [t.clone().requires_grad_() for t in ((x, y) if pair else (x,))]
        given = tuple(ends) if pair else ends[0]
        batches = (batch, batch_y) if pair else batch
        out = conv(given, batches if call is None else call)
        weight = features(len(y), 4, seed=2)
        grads = torch.autograd.grad((out * weight).sum(), [*ends, *conv.parameters()])
        results.append((out, *grads))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_a_batch_is_its_graphs_one_by_one():
    layer, x = DynamicEdgeConv(network(5), 4), features(20)
    batch = torch.tensor([0, 1] * 10)
    whole = layer(x, batch)
    for graph in (0, 1):
        alone = layer(x[batch == graph])
        torch.testing.assert_close(whole[batch == graph], alone, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole, layer(x))


def test_permuted_nodes_give_permuted_rows():
    layer, x, order = DynamicEdgeConv(network(5), 4), features(40), torch.randperm(40)
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=1e-12, atol=1e-12)


def test_the_graph_follows_the_features():
    layer = DynamicEdgeConv(nn.Identity(), 2, reduce="sum")
    x = torch.tensor([[0.0], [1.0], [5.0]])
    # Of [x_i, x_j - x_i]: each node has itself and one other, 1, -1 and -4 away.
    assert layer(x).tolist() == [[0.0, 1.0], [2.0, -1.0], [10.0, -4.0]]
    assert layer(torch.tensor([[0.0], [4.0], [5.0]]))[1].tolist() == [8.0, 1.0]


def test_weights_are_kept_and_shared_with_pyg(monkeypatch):
    layer, again = DynamicEdgeConv(network(5), 4), DynamicEdgeConv(network(5), 4)
    x = features(15)
    assert not torch.equal(layer(x), again(x))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), again(x))
    assert set(layer.state_dict()) == {f"net.{i}.{w}" for i in (0, 2) for w in ("weight", "bias")}
    typing = pytest.importorskip("torch_geometric.typing", reason="torch_geometric is missing")
    # PyG makes the layer only if it finds its compiled search; the weights do not need it.
    monkeypatch.setattr(typing, "WITH_KNN", True, raising=False)
    theirs = layer.to_pyg()
    assert type(theirs).__name__ == "DynamicEdgeConv"
    loaded = DynamicEdgeConv(network(5), 4).load_pyg(theirs)
    assert torch.equal(loaded(x), layer(x))
    with pytest.raises(ValueError, match="k is 5 here, but k is 4 in PyG's"):
        DynamicEdgeConv(network(5), 5).load_pyg(theirs)


def test_no_nodes():
    layer = DynamicEdgeConv(network(5), 4)
    assert layer(torch.empty(0, 5).double()).shape == (0, 4)
    assert layer((torch.empty(0, 5).double(), features(3))).tolist() == [[0.0] * 4] * 3


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        DynamicEdgeConv(network(5), 0)
    with pytest.raises(ValueError, match='DynamicEdgeConv: unknown reduce "median"'):
        DynamicEdgeConv(network(5), 2, reduce="median")
    layer, x, batch = DynamicEdgeConv(network(5), 4), features(6), torch.zeros(6).long()
    with pytest.raises(ValueError, match="batch is a pair, but x is not"):
        layer(x, (batch, batch))
    with pytest.raises(ValueError, match="x is a pair, so batch must be one too"):
        layer((x, x), batch)
    with pytest.raises(ValueError, match="row 2"):
        layer(x.index_fill(0, torch.tensor([2]), float("nan")))


def test_compiling_splits_only_at_the_search():
    """What `compiles = False` says: with splits allowed the result is the same."""
    layer, x = DynamicEdgeConv(network(5), 4), features(20)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, backend="eager")(x), layer(x))
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"(?i)data.dependent|unsupported|graph break"):
        torch.compile(layer, backend="eager", fullgraph=True)(x)
    assert not DynamicEdgeConv.compiles
