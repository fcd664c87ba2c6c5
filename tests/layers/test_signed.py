"""SignedConv against PyG's, and against its equations."""

import pytest
import torch

from gnnlab.graph import Graph
from gnnlab.layers import SignedConv

N, M = 20, 13


def given(in_dim, dtype=torch.float64, pair=False, counts=(70, 40)):
    """Returns x, positive and negative edges; the last two nodes have no edges."""
    random = torch.Generator().manual_seed(0)
    sizes = (N, M) if pair else (N, N)
    edges = [
        torch.stack([torch.randint(n - 2, (count,), generator=random) for n in sizes])
        for count in counts
    ]
    xs = [torch.randn(n, in_dim, generator=random, dtype=dtype).requires_grad_() for n in sizes]
    return (tuple(xs) if pair else xs[0]), *edges


ROWS = pytest.mark.parametrize(
    ("in_dim", "out_dim", "first", "bias", "pair"),
    [
        (5, 3, True, True, False),
        (5, 8, True, False, True),
        (5, 3, False, True, False),
        (5, 8, False, True, False),
        (4, 4, False, False, True),
    ],
)


@ROWS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_signed_conv_equals_that_of_pyg(in_dim, out_dim, first, bias, pair, dtype, tolerance):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    torch.manual_seed(0)
    layer = SignedConv(in_dim, out_dim, first=first, bias=bias).to(dtype)
    theirs = layer.to_pyg()
    x, pos, neg = given(in_dim if first else 2 * in_dim, dtype, pair)
    graphs = [Graph(edges, (N, M) if pair else N) for edges in (pos, neg)]
    leaves = list(x) if pair else [x]
    for edges in ((pos, neg), graphs):
        out, expected = layer(x, *edges), theirs(x, pos, neg)
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=10 * tolerance)
        grad = torch.randn_like(out)
        ours = [a for _, a, _ in layer._pairs(theirs)]
        others = [b for _, _, b in layer._pairs(theirs)]
        assert len(ours) == len(list(layer.parameters()))
        found = torch.autograd.grad(out, [*leaves, *ours], grad)
        wanted = torch.autograd.grad(expected, [*leaves, *others], grad)
        for a, b in zip(found, wanted, strict=True):
            size = max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a, b, rtol=tolerance, atol=10 * tolerance * size)


def test_weights_come_back_from_pyg():
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    layer, other = SignedConv(5, 3), SignedConv(5, 3)
    other.load_pyg(layer.to_pyg())
    for a, b in zip(layer.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="first is False here, but first_aggr is True in PyG's"):
        layer.load_pyg(pyg.SignedConv(5, 3, True))


def test_an_enemys_enemy_is_a_friend():
    # 0 -> 1 -> 2, both negative; maps are 1 for one term and 0 for the others.
    edges, none = torch.tensor([[0, 1], [1, 2]]), torch.zeros(2, 0, dtype=torch.int64)
    first, second = SignedConv(1, 1, first=True, bias=False), SignedConv(1, 1, bias=False)
    with torch.no_grad():
        for layer in (first, second):
            for parameter in layer.parameters():
                parameter.zero_()
        first.lin_neg.weight.fill_(1)
        second.lin_pos.weight.copy_(torch.tensor([[0.0, 1.0]]))  # friends, enemies
    x = torch.tensor([[5.0], [0.0], [0.0]])
    h = first(x, none, edges)
    assert h.tolist() == [[0, 0], [0, 5], [0, 0]]  # node 1 has an enemy with 5
    assert second(h, none, edges).tolist() == [[0, 0], [0, 0], [5, 0]]  # node 2, a friend
    assert not second(h, edges, none).any()  # a friend's enemy is none


@pytest.mark.parametrize("counts", [(0, 40), (70, 0), (0, 0)])
def test_either_kind_of_edges_may_be_missing(counts):
    layer = SignedConv(5, 3).double()
    x, pos, neg = given(10, counts=counts)
    out = layer(x, pos, neg)
    assert out.shape == (N, 6)
    both = torch.stack([layer.lin_pos_root(x[:, :5]), layer.lin_neg_root(x[:, 5:])], 1).flatten(1)
    torch.testing.assert_close(out[-2:], both[-2:])
    if not any(counts):
        torch.testing.assert_close(out, both)


def test_errors_say_what_does_not_fit():
    _, pos, neg = given(5)
    with pytest.raises(ValueError, match=r"SignedConv expected x of shape \(N, 10\)"):
        SignedConv(5, 3)(torch.randn(N, 5), pos, neg)
    with pytest.raises(ValueError, match="holds node 17, but x has 3 rows"):
        SignedConv(5, 3)(torch.randn(3, 10), pos, neg)
