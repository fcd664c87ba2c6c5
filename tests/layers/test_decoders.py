"""Edge decoders against their equations with concatenation; DropEdge and dropout by weights."""

import pytest
import torch
from torch import nn

from gnnlab.graph import Graph
from gnnlab.layers import (
    BilinearDecoder,
    DistMultDecoder,
    DropEdge,
    InnerProductDecoder,
    LGConv,
    MLPDecoder,
    edge_dropout_weight,
)
from gnnlab.ops import EdgePlan

N, M, D, P = 9, 7, 6, 25


def given(pair=False, count=P):
    random = torch.Generator().manual_seed(0)
    sizes = (N, M) if pair else (N, N)
    z = tuple(
        torch.randn(n, D, generator=random, dtype=torch.float64).requires_grad_() for n in sizes
    )
    pairs = torch.stack([torch.randint(n, (count,), generator=random) for n in sizes])
    return (z if pair else z[0]), pairs, torch.randint(4, (count,), generator=random)


def randomly(module):
    torch.manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module


def plain_mlp(decoder, u, v):
    row = torch.cat([u, v, u * v, (u - v).abs()] if decoder.interactions else [u, v], 1)
    for i, lin in enumerate(decoder.mlp.lins):
        row = lin(row if i == 0 else row.relu())
    return row[:, 0] if decoder.out_dim is None else row


def plain_bilinear(decoder, u, v):
    bias = 0 if decoder.bias is None else decoder.bias
    row = torch.einsum("pi,kij,pj->pk", u, decoder.weight, v) + bias
    return row[:, 0] if decoder.out_dim is None else row


# name -> (decoder, equation of both ends and relations, whether relations are given)
TABLE = {
    "inner product": (InnerProductDecoder, lambda d, u, v, r: (u * v).sum(1), False),
    "distmult": (
        lambda: DistMultDecoder(D, 4),
        lambda d, u, v, r: (u * d.weight[r] * v).sum(1),
        True,
    ),
    "distmult of one": (
        lambda: DistMultDecoder(D),
        lambda d, u, v, r: (u * d.weight[0] * v).sum(1),
        False,
    ),
    "bilinear": (lambda: BilinearDecoder(D), lambda d, u, v, r: plain_bilinear(d, u, v), False),
    "bilinear of three": (
        lambda: BilinearDecoder(D, 3, bias=False),
        lambda d, u, v, r: plain_bilinear(d, u, v),
        False,
    ),
    "mlp": (lambda: MLPDecoder(D), lambda d, u, v, r: plain_mlp(d, u, v), False),
    "mlp of three": (
        lambda: MLPDecoder(D, 3, hidden=5, num_hidden=2),
        lambda d, u, v, r: plain_mlp(d, u, v),
        False,
    ),
    "linear": (
        lambda: MLPDecoder(D, 3, num_hidden=0, interactions=False),
        lambda d, u, v, r: plain_mlp(d, u, v),
        False,
    ),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("count", [P, 0])
def test_decoder_equals_its_equation(name, pair, count):
    make, equation, related = TABLE[name]
    decoder = randomly(make())
    z, pairs, relation = given(pair, count)
    more = (relation,) if related else ()
    z_src, z_dst = z if pair else (z, z)
    wanted = equation(decoder, z_src[pairs[0]], z_dst[pairs[1]], relation)
    leaves = [*(z if pair else [z]), *decoder.parameters()]
    grad = torch.randn(wanted.shape, dtype=torch.float64)
    expected = torch.autograd.grad(wanted, leaves, grad)
    for edges in (pairs, Graph(pairs, (N, M) if pair else N)):
        found = decoder(z, edges, *more)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        for a, b in zip(torch.autograd.grad(found, leaves, grad), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TABLE)
def test_decoder_compiles_without_graph_breaks(name):
    torch.compiler.reset()
    make, _, related = TABLE[name]
    decoder = make().double()
    z, pairs, relation = given()
    more = (relation,) if related else ()
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, pairs, *more), decoder(z, pairs, *more))


def test_decoders_of_pyg_give_the_same():
    models = pytest.importorskip("torch_geometric.nn.models", reason="no torch_geometric")
    z, pairs, _ = given()
    wanted = models.InnerProductDecoder()(z, pairs, sigmoid=False)
    torch.testing.assert_close(InnerProductDecoder()(z, pairs), wanted)


def test_bilinear_decoder_takes_two_sizes():
    decoder = BilinearDecoder((4, 6), 2)
    z = torch.randn(N, 4), torch.randn(M, 6)
    pairs = given(True)[1]
    wanted = plain_bilinear(decoder, z[0][pairs[0]], z[1][pairs[1]])
    torch.testing.assert_close(decoder(z, pairs), wanted)


def test_decoders_say_what_does_not_fit():
    z, pairs, relation = given()
    with pytest.raises(ValueError, match="embeddings of one size, got 4 and 6"):
        InnerProductDecoder()((torch.randn(N, 4), torch.randn(N, 6)), pairs)
    with pytest.raises(ValueError, match=r"relation of shape \(25,\), one per pair, got \(24,\)"):
        DistMultDecoder(D, 4).double()(z, pairs, relation[:-1])
    with pytest.raises(IndexError, match=r"out of range \[0, 2\)"):
        DistMultDecoder(D, 2).double()(z, pairs, relation)
    with pytest.raises(ValueError, match=r"MLPDecoder expected x of shape \(N, 5\)"):
        MLPDecoder(5).double()(z, pairs)
    assert repr(BilinearDecoder(6, 3, bias=False)) == "BilinearDecoder(6, 3, bias=False)"


# ---- DropEdge ------------------------------------------------------------------------------------


def test_drop_edge_keeps_a_random_part_in_order():
    edges = torch.stack([torch.arange(100), torch.arange(100)])
    e, w = torch.arange(100.0)[:, None], torch.arange(100)
    drop = DropEdge(0.3)
    torch.manual_seed(0)
    fewer, kept, numbers = drop(edges, e, w)
    assert fewer.shape == (2, 70)
    assert torch.equal(fewer[0], numbers)
    assert torch.equal(kept[:, 0].long(), numbers)
    assert (numbers.diff() > 0).all()
    other = drop(edges)
    assert not torch.equal(other, fewer)
    torch.manual_seed(0)
    assert torch.equal(drop(edges), fewer)


def test_every_edge_is_dropped_with_the_same_probability():
    torch.manual_seed(0)
    drop, edges = DropEdge(0.25), torch.stack([torch.arange(40), torch.arange(40)])
    seen = torch.zeros(40)
    for _ in range(2000):
        seen[drop(edges)[0]] += 1
    # 2000 draws at 0.75: one standard deviation is 0.0097
    assert (seen / 2000 - 0.75).abs().max() < 0.05


def test_drop_edge_does_nothing_outside_training():
    edges, e = given()[1], torch.randn(P, 3)
    drop = DropEdge(0.9).eval()
    assert drop(edges) is edges
    assert drop(edges, e) == (edges, e)
    assert DropEdge(0.0)(edges) is edges
    assert DropEdge(1.0)(edges).shape == (2, 0)


def test_drop_edge_returns_the_form_it_got():
    pairs, weight = given(True)[1], torch.rand(P)
    torch.manual_seed(1)
    fewer = DropEdge()(pairs)
    for edges in (EdgePlan(pairs, N, M), Graph(pairs, (N, M), edge_weight=weight)):
        torch.manual_seed(1)
        found, kept = DropEdge()(edges, weight)
        assert type(found) is type(edges)
        assert (found.num_src, found.num_dst) == (N, M)
        assert torch.equal(found.edge_index, fewer)
        if isinstance(found, Graph):
            assert torch.equal(found.edge_weight, kept)
    assert DropEdge()(Graph(given()[1], N)).num_nodes == N


def test_dropped_edges_by_weight_equal_fewer_edges_and_keep_the_plan():
    x, graph = torch.randn(N, D), Graph(given()[1], N, edge_weight=torch.rand(P) + 0.5)
    torch.manual_seed(0)
    weight = edge_dropout_weight(graph, 0.4)
    kept = weight > 0
    assert 0 < int(kept.sum()) < P
    torch.testing.assert_close(weight[kept], graph.edge_weight[kept] / 0.6)
    fewer = graph.edge_index[:, kept]
    conv = LGConv(normalize=False)
    torch.testing.assert_close(conv(x, graph, weight), conv(x, fewer, weight[kept]))
    assert torch.equal(edge_dropout_weight(graph, 0.4, training=False), graph.edge_weight)
    assert set(edge_dropout_weight(fewer, 0.5).tolist()) <= {0.0, 2.0}
    torch.manual_seed(0)
    average = torch.stack([edge_dropout_weight(graph, 0.4) for _ in range(4000)]).mean(0)
    assert (average / graph.edge_weight - 1).abs().max() < 0.06  # 4.6 standard deviations


def test_dropping_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"DropEdge: p must be in \[0, 1\], got 1\.5"):
        DropEdge(1.5)
    with pytest.raises(ValueError, match=r"one row per edge \(25\), got \(24, 2\)"):
        DropEdge()(given()[1], torch.randn(24, 2))
    with pytest.raises(ValueError, match=r"edge_weight of shape \(25,\), .* got \(3,\)"):
        edge_dropout_weight(given()[1], 0.1, torch.ones(3))
    with pytest.raises(ValueError, match=r"edge_dropout_weight: p must be in \[0, 1\], got -1"):
        edge_dropout_weight(given()[1], -1)


def test_drop_edge_compiles_without_graph_breaks():
    torch.compiler.reset()
    compiled = torch.compile(DropEdge(0.4), backend="eager", fullgraph=True)
    torch.manual_seed(0)
    fewer, e = compiled(given()[1], torch.randn(P, 2))
    assert fewer.shape == (2, 15)
    assert e.shape == (15, 2)
    assert isinstance(compiled, nn.Module)
