"""Layers against those of DGL 1.1, on copied weights: values and all gradients."""

import pytest
import torch
from torch import nn

from gnnlab.compat.dgl import dgl_graph, to_dgl
from gnnlab.graph import Graph
from gnnlab.layers import (
    APPNP,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    NNConv,
    PNAConv,
    SAGEConv,
    SGConv,
)

N, M, E = 20, 13, 60


def network(in_dim, out_dim):
    return nn.Sequential(nn.Linear(in_dim, 6), nn.Tanh(), nn.Linear(6, out_dim))


# name, constructor, number of edge features
TABLE = [
    ("GCNConv", lambda: GCNConv(5, 3), None),
    ("GCNConv wide", lambda: GCNConv(5, 8, self_loops=False, bias=False), None),
    ("SAGEConv mean", lambda: SAGEConv(5, 3), None),
    ("SAGEConv pool", lambda: SAGEConv(5, 8, reduce="max", project=True), None),
    ("GINConv", lambda: GINConv(network(5, 4), eps=0.3, train_eps=True), None),
    ("GINEConv", lambda: GINEConv(network(5, 4), eps=0.3), 5),
    ("GATConv", lambda: GATConv(5, 3, heads=4), None),
    ("GATConv mean", lambda: GATConv(5, 3, heads=2, concat=False, bias=False), None),
    ("GATv2Conv", lambda: GATv2Conv(5, 3, heads=4, bias=False), None),
    ("GATv2Conv shared", lambda: GATv2Conv(5, 3, bias=False, share_weights=True), None),
    ("EdgeConv", lambda: EdgeConv(nn.Linear(10, 4)), None),
    ("ChebConv", lambda: ChebConv(5, 3, terms=4), None),
    ("APPNP", lambda: APPNP(4, 0.15), None),
    ("SGConv", lambda: SGConv(5, 3, steps=3), None),
    ("NNConv", lambda: NNConv(5, 3, nn.Linear(2, 15)), 2),
    ("NNConv mean", lambda: NNConv(5, 3, nn.Linear(2, 15), reduce="mean", root=False), 2),
]


def gradients(layer, call, inputs):
    """Returns the result, and gradients of the inputs and of all parameters that take part."""
    out = call()
    random = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=random, dtype=torch.float64).to(out.dtype)
    weights = [p for p in layer.parameters() if p.requires_grad]
    found = torch.autograd.grad(out, [*inputs, *weights], grad, allow_unused=True)
    return out, found[: len(inputs)], [g for g in found[len(inputs) :] if g is not None]


@pytest.mark.parametrize(("make", "edge_dim"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_layer_equals_that_of_dgl(make, edge_dim, dtype, tolerance):
    pytest.importorskip("dgl", reason="dgl is not installed")
    torch.manual_seed(0)
    layer = make().to(dtype).eval()
    if isinstance(layer, APPNP):
        dtype, tolerance = torch.float32, 1e-5  # DGL's takes no other
    with torch.no_grad():
        for parameter in layer.parameters():  # biases too
            parameter.copy_(torch.randn_like(parameter) / 2)
    theirs = to_dgl(layer).eval()
    if isinstance(layer, (GCNConv, SGConv, APPNP)):  # DGL takes the root of degrees in float32
        tolerance = max(tolerance, 3e-7)
    ends = torch.randint(N - 2, (2, E))  # undirected; the last two nodes have no edges
    ends = ends[:, ends[0] != ends[1]]
    edge_index = torch.cat([ends, ends.flip(0)], 1)
    inputs = [torch.randn(N, 4 if isinstance(layer, APPNP) else 5, dtype=dtype)]
    if edge_dim is not None:
        inputs.append(torch.randn(edge_index.shape[1], edge_dim, dtype=dtype))
    for tensor in inputs:
        tensor.requires_grad_()
    graph = dgl_graph(edge_index, N, loops=theirs.loops)
    x, *more = inputs
    out, to_inputs, to_weights = gradients(layer, lambda: layer(x, edge_index, *more), inputs)
    expected, wanted, their_weights = gradients(theirs, lambda: theirs(graph, x, *more), inputs)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)
    for a, b in zip(to_inputs, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=20 * tolerance)
    # The same weights in another order and cut: their gradients have the same norm in sum.
    ours = sum(float(g.double().square().sum()) for g in to_weights)
    their = sum(float(g.double().square().sum()) for g in their_weights)
    if not isinstance(layer, EdgeConv):  # DGL's has a second bias that takes a gradient too
        assert ours == pytest.approx(their, rel=100 * tolerance)


@pytest.mark.parametrize(
    "make", [lambda: SAGEConv((5, 4), 3), lambda: GATConv((5, 4), 3, heads=2, self_loops=False)]
)
def test_layer_on_a_pair_equals_that_of_dgl(make):
    pytest.importorskip("dgl", reason="dgl is not installed")
    layer = make().double().eval()
    theirs = to_dgl(layer).eval()
    edge_index = torch.stack([torch.randint(N, (E,)), torch.randint(M - 1, (E,))])
    x = (torch.randn(N, 5).double(), torch.randn(M, 4).double())
    graph = dgl_graph(Graph(edge_index, (N, M)))
    torch.testing.assert_close(layer(x, edge_index), theirs(graph, x), rtol=1e-10, atol=1e-10)


def test_to_dgl_says_what_dgl_does_not_have():
    pytest.importorskip("dgl", reason="dgl is not installed")
    with pytest.raises(NotImplementedError, match="DGL has no layer with the equation of PNAConv"):
        to_dgl(PNAConv(5, 6, torch.tensor([1, 4])))
    with pytest.raises(NotImplementedError, match="GATConv knows no edge features"):
        to_dgl(GATConv(5, 3, edge_dim=2))
    with pytest.raises(NotImplementedError, match="GCNConv knows no improved=True"):
        to_dgl(GCNConv(5, 3, improved=True))
    with pytest.raises(ValueError, match="dgl_graph needs num_nodes"):
        dgl_graph(torch.tensor([[0], [1]]))
