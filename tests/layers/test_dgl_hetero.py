"""Heterogeneous layers against those of DGL 1.1, on copied weights: values and all gradients."""

import pytest
import torch

from gnnlab.hetero import HeteroGraph
from gnnlab.layers import HGTConv, RGCNConv

dgl = pytest.importorskip("dgl", reason="dgl is not installed", exc_type=ImportError)

N, E, R = 20, 90, 4
PRECISION = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)]
)


def draw(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module


def gradients(out, leaves):
    random = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=random, dtype=torch.float64).to(out.dtype)
    return torch.autograd.grad(out, leaves, grad)


def assert_same(found, wanted, tolerance):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=tolerance, atol=100 * tolerance)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [({}, None), ({"num_bases": 3}, "basis"), ({"num_blocks": 2}, "bdd")],
    ids=["whole", "bases", "blocks"],
)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@PRECISION
def test_rgcn_equals_rel_graph_conv(options, theirs, reduce, dtype, tolerance):
    torch.manual_seed(0)
    layer = draw(RGCNConv(6, 4, R, reduce=reduce, **options).to(dtype))
    count = next(iter(options.values()), None)
    other = dgl.nn.RelGraphConv(6, 4, R, theirs, count).to(dtype)
    pairs = [
        (layer.weight, other.linear_r.W),
        (layer.root, other.loop_weight),
        (layer.bias, other.h_bias),
    ]
    if layer.comp is not None:
        pairs.append((layer.comp, other.linear_r.coeff))
    with torch.no_grad():
        for own, their in pairs:
            their.copy_(own.reshape(their.shape))
    edge_index, edge_type = torch.randint(N - 1, (2, E)), torch.randint(R, (E,))
    x = torch.randn(N, 6, dtype=dtype).requires_grad_()
    norm = None
    if reduce == "mean":  # DGL takes the divisors from outside
        place = edge_index[1] * R + edge_type
        norm = torch.bincount(place, minlength=N * R)[place].to(dtype).reciprocal()[:, None]
    out = layer(x, edge_index, edge_type)
    expected = other(dgl.graph(tuple(edge_index), num_nodes=N), x, edge_type, norm)
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=10 * tolerance)
    found = gradients(out, [x, *(own for own, _ in pairs)])
    assert_same(found, gradients(expected, [x, *(their for _, their in pairs)]), tolerance)


def copy_hgt(layer, other):
    """Copies our weights into DGL's layer, whose maps have no bias."""
    width = layer.out_dim // layer.heads
    with torch.no_grad():
        for place, lin in enumerate(layer.lin_kqv):
            lin.bias.zero_()
            for k, their in enumerate((other.linear_k, other.linear_q, other.linear_v)):
                own = lin.weight[k * layer.out_dim : (k + 1) * layer.out_dim]
                their.W[place] = own.t()
        for place, lin in enumerate(layer.lin_out):
            lin.bias.zero_()
            other.linear_a.W[place] = lin.weight.t()
            other.skip[place] = layer.skip[place][0]
        for head in range(layer.heads):
            other.relation_att[head].W.copy_(layer.map_key[head].view(-1, width, width))
            other.relation_msg[head].W.copy_(layer.map_value[head].view(-1, width, width))
            for kind, priority in enumerate(layer.priority):
                other.relation_pri[head][kind] = priority[head]


@PRECISION
def test_hgt_equals_that_of_dgl_but_for_the_activation(dtype, tolerance, monkeypatch):
    torch.manual_seed(0)
    sizes = {"a": 7, "b": 5}
    kinds = {("a", "x", "b"): (7, 5), ("b", "y", "a"): (5, 7), ("a", "z", "a"): (7, 7)}
    graph = HeteroGraph(
        sizes,
        {k: torch.stack([torch.randint(n, (15,)) for n in ends]) for k, ends in kinds.items()},
    )
    layer = draw(HGTConv(6, 6, graph.metadata, heads=2).to(dtype))
    other = dgl.nn.HGTConv(6, 3, 2, 2, 3, dropout=0.0).to(dtype)
    copy_hgt(layer, other)
    # DGL's layer maps what was collected without the activation of the paper.
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda x: x)
    x = {name: torch.randn(n, 6, dtype=dtype).requires_grad_() for name, n in sizes.items()}
    out = torch.cat([*layer(x, graph).values()])
    whole = graph.homogeneous()
    expected = other(
        dgl.graph(tuple(whole.graph.edge_index), num_nodes=12),
        torch.cat([*x.values()]),
        whole.node_type,
        whole.edge_type,
    )
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=10 * tolerance)
    found = gradients(out, [*x.values(), layer.map_key, layer.map_value])
    wanted = gradients(
        expected,
        [*x.values(), *(t.W for t in other.relation_att), *(t.W for t in other.relation_msg)],
    )
    assert_same(found[:2], wanted[:2], tolerance)
    for a, parts in ((found[2], wanted[2:4]), (found[3], wanted[4:])):
        assert_same(a, parts, tolerance)
