"""Layers against PyG's of the same name, on copied weights: values and all gradients."""

import pytest
import torch
from torch import nn

from gnnlab.graph import Graph
from gnnlab.layers import (
    APPNP,
    CGConv,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    NNConv,
    PNAConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    TransformerConv,
)

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")

N, M, E = 20, 13, 90
DEGREES = torch.tensor([1, 4, 7, 2])


def network(in_dim, out_dim):
    return nn.Sequential(nn.Linear(in_dim, 6), nn.Tanh(), nn.Linear(6, out_dim))


def both(name, **options):
    """Returns a row per class that takes the same arguments."""
    return [(f"{c.__name__} {name}", lambda c=c: c(**options)) for c in (GATConv, GATv2Conv)]


# name, constructor, third argument: None, "weight", "type" or a number of edge features; whether x
# is a pair
TABLE = [
    ("GCNConv", lambda: GCNConv(5, 3), None, False),
    ("GCNConv wide", lambda: GCNConv(5, 8, bias=False), None, False),
    ("GCNConv weights", lambda: GCNConv(5, 3), "weight", False),
    ("GCNConv improved", lambda: GCNConv(5, 8, improved=True), "weight", False),
    ("GCNConv without loops", lambda: GCNConv(5, 3, self_loops=False), "weight", False),
    ("GCNConv as a sum", lambda: GCNConv(5, 8, normalize=False), "weight", False),
    ("SGConv", lambda: SGConv(5, 3, steps=3), "weight", False),
    ("SGConv wide", lambda: SGConv(5, 8, steps=2, self_loops=False, bias=False), None, False),
    ("APPNP", lambda: APPNP(4, 0.15), "weight", False),
    ("APPNP plain", lambda: APPNP(3, 0.3, normalize=False), None, False),
    ("ChebConv", lambda: ChebConv(5, 3, terms=4), "weight", False),
    ("ChebConv plain", lambda: ChebConv(5, 3, terms=2, bias=False), None, False),
    ("EdgeConv", lambda: EdgeConv(network(10, 4)), None, False),
    ("EdgeConv sum", lambda: EdgeConv(network(10, 4), reduce="sum"), None, True),
    ("EdgeConv linear", lambda: EdgeConv(nn.Linear(10, 4)), None, True),
    ("EdgeConv linear mean", lambda: EdgeConv(nn.Linear(10, 4), reduce="mean"), None, False),
    (
        "EdgeConv linear sum",
        lambda: EdgeConv(nn.Linear(10, 4, bias=False), reduce="sum"),
        None,
        True,
    ),
    (
        "EdgeConv other network",
        lambda: EdgeConv(nn.Sequential(nn.Tanh(), nn.Linear(10, 4))),
        None,
        False,
    ),
    ("CGConv", lambda: CGConv(5, edge_dim=2), 2, False),
    ("CGConv pair", lambda: CGConv((5, 4), batch_norm=True, bias=False), None, True),
    ("NNConv", lambda: NNConv(5, 3, nn.Linear(2, 15)), 2, False),
    ("NNConv network", lambda: NNConv(5, 3, network(2, 15), reduce="mean"), 2, False),
    ("NNConv max", lambda: NNConv(5, 3, nn.Linear(2, 15), reduce="max"), 2, False),
    ("NNConv wide", lambda: NNConv(5, 1, nn.Linear(7, 5, bias=False)), 7, False),
    ("NNConv pair", lambda: NNConv((5, 4), 3, nn.Linear(2, 15), reduce="mean"), 2, True),
    ("PNAConv", lambda: PNAConv(5, 6, DEGREES), None, False),
    (
        "PNAConv towers",
        lambda: PNAConv(
            5, 6, DEGREES, towers=2, reduce=("sum", "std", "min"), scalers=("linear", "attenuation")
        ),
        None,
        False,
    ),
    (
        "PNAConv edges",
        lambda: PNAConv(6, 9, DEGREES, towers=3, divide_input=True, edge_dim=2),
        2,
        False,
    ),
    ("ResGatedGraphConv", lambda: ResGatedGraphConv(5, 3), None, False),
    ("ResGatedGraphConv edges", lambda: ResGatedGraphConv((5, 4), 3, edge_dim=2), 2, True),
    ("SAGEConv", lambda: SAGEConv(5, 3), None, False),
    ("SAGEConv max", lambda: SAGEConv(5, 8, reduce="max", project=True), None, False),
    ("SAGEConv sum", lambda: SAGEConv(5, 3, reduce="sum", normalize=True, bias=False), None, False),
    ("SAGEConv without root", lambda: SAGEConv(5, 3, root=False), None, False),
    ("SAGEConv pair", lambda: SAGEConv((5, 4), 7), None, True),
    ("GINConv", lambda: GINConv(network(5, 4), eps=0.3), None, False),
    ("GINConv learned eps", lambda: GINConv(network(5, 4), train_eps=True), None, True),
    ("GINEConv", lambda: GINEConv(network(5, 4), eps=0.3), 5, False),
    ("GINEConv map", lambda: GINEConv(network(5, 4), in_dim=5, edge_dim=2), 2, True),
    *((n, m, None, False) for n, m in both("", in_dim=5, out_dim=3, heads=4)),
    *((n, m, None, False) for n, m in both("mean", in_dim=5, out_dim=3, heads=2, concat=False)),
    *((n, m, 2, False) for n, m in both("edges", in_dim=5, out_dim=3, heads=2, edge_dim=2)),
    *(
        (n, m, 2, False)
        for n, m in both(
            "no loops", in_dim=5, out_dim=3, edge_dim=2, self_loops=False, negative_slope=0.1
        )
    ),
    *(
        (n, m, None, True)
        for n, m in both("pair", in_dim=(5, 4), out_dim=3, heads=2, self_loops=False, bias=False)
    ),
    *(
        (n, m, None, True)
        for n, m in both("pair of one size", in_dim=5, out_dim=3, heads=2, self_loops=False)
    ),
    ("GATv2Conv shared", lambda: GATv2Conv(5, 3, heads=2, share_weights=True), None, False),
    ("TransformerConv", lambda: TransformerConv(5, 3, heads=4), None, False),
    ("TransformerConv edges", lambda: TransformerConv(5, 3, heads=2, edge_dim=2), 2, False),
    ("TransformerConv wide edges", lambda: TransformerConv(5, 3, heads=2, edge_dim=7), 7, True),
    (
        "TransformerConv gate",
        lambda: TransformerConv(5, 3, heads=2, beta=True, concat=False),
        None,
        False,
    ),
    (
        "TransformerConv pair",
        lambda: TransformerConv((5, 4), 3, heads=2, root=False, bias=False),
        None,
        True,
    ),
    ("RGCNConv", lambda: RGCNConv(5, 3, 4), "type", False),
    ("RGCNConv wide", lambda: RGCNConv(5, 8, 4, reduce="sum", root=False), "type", False),
    ("RGCNConv max", lambda: RGCNConv(5, 3, 4, reduce="max", bias=False), "type", False),
    ("RGCNConv bases", lambda: RGCNConv(5, 3, 50, num_bases=3), "type", False),
    ("RGCNConv blocks", lambda: RGCNConv(6, 4, 4, num_blocks=2), "type", False),
    ("RGCNConv blocks, wide", lambda: RGCNConv(4, 6, 50, num_blocks=2), "type", False),
    ("RGCNConv pair", lambda: RGCNConv((5, 4), 3, 4), "type", True),
]
ROWS = pytest.mark.parametrize(
    ("make", "third", "pair"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)


def inputs(layer, third, pair, dtype):
    """Returns x, edges with loops and repetitions, and the third argument."""
    random = torch.Generator().manual_seed(0)
    sizes = (N, M) if pair else (N, N)
    # The last two nodes of each side have no edges.
    edge_index = torch.stack([torch.randint(n - 2, (E,), generator=random) for n in sizes])
    dims = getattr(layer, "in_dim", None) or 5
    dims = dims if isinstance(dims, tuple) else (dims, dims)
    xs = [
        torch.randn(n, d, generator=random, dtype=dtype).requires_grad_()
        for n, d in zip(sizes, dims, strict=True)
    ]
    more = ()
    if third == "weight":
        more = (torch.rand(E, generator=random, dtype=dtype).add(0.1).requires_grad_(),)
    elif third == "type":
        more = (torch.randint(layer.num_relations - 1, (E,), generator=random),)  # one has no edge
    elif third is not None:
        more = (torch.randn(E, third, generator=random, dtype=dtype).requires_grad_(),)
    return tuple(xs) if pair else xs[0], edge_index, more


def run(layer, x, edges, more, keyword=None):
    """Returns the result, and its gradients for inputs and parameters."""
    out = layer(x, edges, **{keyword: more[0]}) if keyword else layer(x, edges, *more)
    leaves = [*(x if isinstance(x, tuple) else (x,)), *more]
    leaves = [leaf for leaf in leaves if leaf.requires_grad]
    weights = dict(layer.named_parameters())
    random = torch.Generator().manual_seed(1)
    grad = torch.randn(out.shape, generator=random, dtype=torch.float64).to(out.dtype)
    found = torch.autograd.grad(out, [*leaves, *weights.values()], grad, allow_unused=True)
    found = [torch.zeros(1, dtype=out.dtype) if g is None else g for g in found]
    return out, found[: len(leaves)], dict(zip(weights, found[len(leaves) :], strict=True))


@ROWS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_layer_equals_that_of_pyg(make, third, pair, dtype, tolerance):
    torch.manual_seed(0)
    layer = make().to(dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():  # biases too
            parameter.copy_(torch.randn_like(parameter) / 2)
    theirs = layer.to_pyg().to(dtype).eval()
    x, edge_index, more = inputs(layer, third, pair, dtype)
    keyword = {"weight": "edge_weight", "type": "edge_type", None: None}.get(third, "edge_attr")
    sizes = (N, M) if pair else N
    for edges in (edge_index, Graph(edge_index, sizes)):
        out, found, by_name = run(layer, x, edges, more)
        expected, wanted, theirs_by_name = run(theirs, x, edge_index, more, keyword)
        scale = float(expected.detach().abs().max())
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance * max(scale, 1))
        for a, b in zip(found, wanted, strict=True):
            size = max(1.0, float(b.abs().max()))
            torch.testing.assert_close(a, b, rtol=tolerance, atol=10 * tolerance * size)
        pairs = list(layer._pairs(theirs))
        assert {ours for ours, *_ in pairs} == set(layer.state_dict(keep_vars=True))
        their_names = {id(p): n for n, p in theirs.named_parameters()}
        for name, _, parameter in pairs:
            if id(parameter) in their_names and name in by_name:
                a, b = by_name[name], theirs_by_name[their_names[id(parameter)]]
                size = max(1.0, float(b.abs().max()))
                torch.testing.assert_close(
                    a.reshape(b.shape), b, rtol=tolerance, atol=10 * tolerance * size
                )


@ROWS
def test_weights_come_back_from_pyg(make, third, pair):
    layer, other = make(), make()
    other.load_pyg(layer.to_pyg())
    for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_load_pyg_says_what_does_not_fit():
    layer = GATConv(5, 3, heads=2)
    with pytest.raises(TypeError, match=r"GATConv\.load_pyg needs PyG's GATConv, got GCNConv"):
        layer.load_pyg(pyg.GCNConv(5, 3))
    with pytest.raises(ValueError, match="heads is 2 here, but heads is 4 in PyG's"):
        layer.load_pyg(pyg.GATConv(5, 3, heads=4))
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with pytest.raises(ValueError, match=r"weight has shape \(6, 5\), but lin\.weight .* \(8, 5\)"):
        layer.load_pyg(pyg.GATConv(5, 4, heads=2))
    with pytest.raises(
        ValueError, match=r"PyG's layer has .*lin_edge\.weight.*, this one does not"
    ):
        layer.load_pyg(pyg.GATConv(5, 3, heads=2, edge_dim=2))
    with pytest.raises(ValueError, match="bias has no counterpart bias in PyG's layer"):
        layer.load_pyg(pyg.GATConv(5, 3, heads=2, bias=False))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
