"""All layers: one row each in the table; then what is particular to one."""

import copy
import inspect

import pytest
import torch
from torch import nn

import gnnlab.layers
from gnnlab import ops
from gnnlab.graph import Graph
from gnnlab.layers import (
    APPNP,
    CGConv,
    ChebConv,
    ContactTransformerBlock,
    EdgeConv,
    EdgeModulatedAttention,
    GATConv,
    GATv2Conv,
    GCNConv,
    GINConv,
    GINEConv,
    InteractionBlock,
    Layer,
    LGConv,
    MeshTransformerBlock,
    NNConv,
    PNAConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    SignedConv,
    SimpleHGNConv,
    TransformerConv,
    prepare,
)
from gnnlab.ops import EdgePlan
from gnnlab.testing.layer import check_layer


def network(in_dim, out_dim):
    return nn.Sequential(nn.Linear(in_dim, 6), nn.Tanh(), nn.Linear(6, out_dim))


def backwards(edges):
    """Returns other edges between the same nodes, in the same form."""
    return edges.flip(0) if isinstance(edges, torch.Tensor) else edges.T


def two_sets(block, v, edges, e):
    return block(v, [edges, backwards(edges)], [e, 2 * e])[0]


# name, constructor, options of check_layer
TABLE = [
    ("LGConv", LGConv, {"edge_weight": True}),
    ("LGConv plain sum", lambda: LGConv(normalize=False), {"edge_weight": True}),
    ("GCNConv", lambda: GCNConv(5, 3), {"edge_weight": True, "out_dim": 3, "bipartite": False}),
    ("GCNConv wide", lambda: GCNConv(5, 8), {"out_dim": 8, "bipartite": False}),
    (
        "SGConv",
        lambda: SGConv(5, 3, steps=2),
        {"edge_weight": True, "out_dim": 3, "bipartite": False},
    ),
    ("APPNP", lambda: APPNP(3, 0.2, dropout=0.3), {"edge_weight": True, "bipartite": False}),
    (
        "ChebConv",
        lambda: ChebConv(5, 3, terms=3),
        {"edge_weight": True, "out_dim": 3, "bipartite": False},
    ),
    ("EdgeConv", lambda: EdgeConv(network(10, 4)), {"out_dim": 4}),
    ("CGConv", lambda: CGConv(5, edge_dim=2, batch_norm=True), {"edge_dim": 2}),
    ("NNConv", lambda: NNConv(5, 3, nn.Linear(2, 15)), {"edge_dim": 2, "out_dim": 3}),
    (
        "PNAConv",
        lambda: PNAConv(5, 6, torch.tensor([1, 4, 7]), towers=2),
        {"out_dim": 6, "bipartite": False},
    ),
    (
        "PNAConv with edges",
        lambda: PNAConv(5, 6, torch.tensor([1, 4, 7]), edge_dim=2),
        {"out_dim": 6, "edge_dim": 2, "bipartite": False},
    ),
    ("ResGatedGraphConv", lambda: ResGatedGraphConv(5, 3), {"out_dim": 3}),
    (
        "ResGatedGraphConv with edges",
        lambda: ResGatedGraphConv(5, 3, edge_dim=2),
        {"edge_dim": 2, "out_dim": 3},
    ),
    ("SAGEConv mean", lambda: SAGEConv(5, 3), {"edge_weight": True, "out_dim": 3}),
    ("SAGEConv max", lambda: SAGEConv(5, 4, reduce="max", project=True), {"out_dim": 4}),
    ("SAGEConv sum", lambda: SAGEConv(5, 7, reduce="sum", normalize=True), {"out_dim": 7}),
    (
        "GINConv",
        lambda: GINConv(network(5, 4), train_eps=True),
        {"edge_weight": True, "out_dim": 4},
    ),
    (
        "GINEConv",
        lambda: GINEConv(network(5, 4), in_dim=5, edge_dim=2),
        {"edge_dim": 2, "out_dim": 4},
    ),
    ("GATConv", lambda: GATConv(5, 3, heads=2), {"out_dim": 6, "bipartite": False}),
    (
        "GATConv with edges",
        lambda: GATConv(5, 3, heads=2, concat=False, edge_dim=2, self_loops=False, dropout=0.5),
        {"out_dim": 3, "edge_dim": 2, "bipartite": False},
    ),
    ("GATv2Conv", lambda: GATv2Conv(5, 3, heads=2), {"out_dim": 6, "bipartite": False}),
    (
        "GATv2Conv with edges",
        lambda: GATv2Conv(5, 3, heads=2, edge_dim=2, share_weights=True),
        {"out_dim": 6, "edge_dim": 2, "bipartite": False},
    ),
    ("TransformerConv", lambda: TransformerConv(5, 3, heads=2), {"out_dim": 6}),
    (
        "TransformerConv with edges",
        lambda: TransformerConv(5, 3, heads=2, edge_dim=2, beta=True, concat=False),
        {"out_dim": 3, "edge_dim": 2},
    ),
    (
        "InteractionBlock",
        lambda: InteractionBlock(5, edge_dim=2, hidden=7, activation=nn.SiLU),
        {"edge_dim": 2, "bipartite": False, "call": lambda block, *given: block(*given)[0]},
    ),
    (
        "InteractionBlock of two sets",
        lambda: InteractionBlock(
            5, edge_dim=2, edge_sets=("mesh", "contact"), reduce="mean", activation=nn.Tanh
        ),
        {"edge_dim": 2, "bipartite": False, "call": two_sets},
    ),
    (
        "EdgeModulatedAttention",
        lambda: EdgeModulatedAttention(5, heads=1, edge_dim=2, normalize="softmax"),
        {"edge_dim": 2, "bipartite": False},
    ),
    (
        "MeshTransformerBlock",
        lambda: MeshTransformerBlock(5, heads=5, edge_dim=2),
        {"edge_dim": 2, "bipartite": False},
    ),
    (
        "ContactTransformerBlock",
        lambda: ContactTransformerBlock(5, heads=5, edge_dim=2),
        {
            "edge_dim": 2,
            "bipartite": False,
            "call": lambda block, v, edges, e: block(v, edges, e, backwards(edges), 2 * e),
        },
    ),
    (
        "SignedConv first",
        lambda: SignedConv(5, 3, first=True),
        {"out_dim": 6, "bipartite": False, "call": lambda conv, *g: conv(*g, backwards(g[1]))},
    ),
    (
        "SignedConv",
        lambda: SignedConv(5, 3),
        {
            "in_dim": 10,
            "out_dim": 6,
            "bipartite": False,
            "call": lambda conv, *g: conv(*g, backwards(g[1])),
        },
    ),
    ("RGCNConv", lambda: RGCNConv(5, 3, 2), {"out_dim": 3, "edge_types": 2}),
    (
        "RGCNConv bases",
        lambda: RGCNConv(5, 8, 30, num_bases=2, reduce="sum"),
        {"out_dim": 8, "edge_types": 30},
    ),
    (
        "RGCNConv blocks",
        lambda: RGCNConv(6, 4, 3, num_blocks=2, reduce="max", bias=False),
        {"in_dim": 6, "out_dim": 4, "edge_types": 3},
    ),
    ("SimpleHGNConv", lambda: SimpleHGNConv(5, 3, 4, heads=2), {"out_dim": 6, "edge_types": 4}),
    (
        "SimpleHGNConv last",
        lambda: SimpleHGNConv(5, 5, 2, heads=2, edge_dim=3, concat=False, normalize=True),
        {"out_dim": 5, "edge_types": 2},
    ),
]


@pytest.mark.parametrize(("make", "options"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_layer_keeps_the_promises_of_all_layers(make, options):
    check_layer(make, **options)


def test_every_exported_layer_is_in_the_table():
    exported = [getattr(gnnlab.layers, name) for name in gnnlab.layers.__all__]
    convolutions = {
        c.__name__
        for c in exported
        if isinstance(c, type) and issubclass(c, Layer) and c is not Layer
    }
    # Layers on dictionaries by type have a table of their own, in test_hetero.py; those that find
    # their edges themselves are in test_dynamic.py.
    elsewhere = {
        name
        for name in convolutions
        if "heterogeneous" in (layer := getattr(gnnlab.layers, name)).takes
        or "batch" in inspect.signature(layer.forward).parameters
    }
    assert {type(row[1]()).__name__ for row in TABLE} == convolutions - elsewhere


class Broken(nn.Module):
    """A layer that breaks a promise: it numbers the nodes."""

    citation = "@misc{none}"

    def forward(self, x, edges, edge_weight=None):
        return LGConv()(x, edges) + torch.arange(LGConv()(x, edges).shape[0])[:, None]


def test_check_layer_says_which_promise_is_broken():
    with pytest.raises(AssertionError, match=r"Broken breaks a promise.*permuting nodes"):
        check_layer(Broken)


class Uncompiled(LGConv):
    """A layer that looks at its numbers on the way."""

    def forward(self, x, edges):
        out = super().forward(x, edges)
        return out.clamp(max=1e9) if float(out.sum()) > 0 else out


def test_check_layer_finds_what_cannot_be_compiled_whole():
    with pytest.raises(AssertionError, match=r"Uncompiled .*torch.compile\(fullgraph=True\) takes"):
        check_layer(Uncompiled)


def random_edges(num_edges, *sizes):
    random = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(n, (num_edges,), generator=random) for n in sizes])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_lgconv_equals_pyg(symmetric, normalize):
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    edge_index = random_edges(80, 19, 19)
    if symmetric:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    x = torch.randn(20, 7, dtype=torch.float64)
    expected = pyg.LGConv(normalize=normalize)(x, edge_index)
    torch.testing.assert_close(LGConv(normalize=normalize)(x, edge_index), expected)


def test_lgconv_on_a_pair_equals_the_square_graph_of_both_sides():
    users, items = 6, 9
    edge_index = random_edges(40, users, items)
    x_user, x_item = torch.randn(users, 4).double(), torch.randn(items, 4).double()
    both = torch.cat([edge_index, edge_index.flip(0)], 1)
    both = both + torch.tensor([[0] * 40 + [users] * 40, [users] * 40 + [0] * 40])
    whole = LGConv()(torch.cat([x_user, x_item]), both)
    graph = Graph(edge_index, (users, items))
    torch.testing.assert_close(LGConv()((x_user, x_item), graph), whole[users:])
    torch.testing.assert_close(LGConv()((x_item, x_user), graph.T), whole[:users])


def test_lgconv_edge_dropout_weights_do_not_change_degrees():
    edge_index, x = random_edges(40, 10, 10), torch.randn(10, 3).double()
    keep = (torch.rand(40) < 0.5).double() / 0.5
    degree = torch.zeros(10).double().index_add(0, edge_index[1], torch.ones(40).double())
    scale = degree.rsqrt().masked_fill(degree == 0, 0)
    src, dst = edge_index
    messages = x[src] * (keep * scale[src] * scale[dst])[:, None]
    expected = torch.zeros_like(x).index_add(0, dst, messages)
    torch.testing.assert_close(LGConv()(x, edge_index, keep), expected)
    graph = Graph(edge_index, 10, edge_weight=keep)
    torch.testing.assert_close(LGConv()(x, graph), expected)


def test_lgconv_counts_degrees_once_per_graph(monkeypatch):
    graph, x = Graph(random_edges(40, 10, 10), 10), torch.randn(10, 3)
    first = LGConv()(x, graph)
    monkeypatch.setattr(EdgePlan, "counts", property(lambda self: pytest.fail("counted again")))
    assert torch.equal(LGConv()(x, graph), first)


def test_lgconv_has_no_parameters_and_can_be_copied():
    layer = LGConv(normalize=False)
    assert not list(layer.parameters())
    assert repr(copy.deepcopy(layer)) == "LGConv(normalize=False)"
    assert repr(LGConv()) == "LGConv()"
    assert "arXiv:2002.02126" in LGConv.citation


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_errors_of_layers_name_the_value_and_what_to_do(backend):
    layer, x = LGConv(), torch.randn(2708, 4)
    with ops.use_backend(backend):
        message = (
            r"edge_index holds node 2708, but x has 2708 rows \(valid ids are 0\.\.2707\)\. Ids"
        )
        with pytest.raises(ValueError, match=message):
            layer(x, torch.tensor([[0, 2708], [1, 1]]))
        with pytest.raises(ValueError, match="holds node 7, but x_dst has 5 rows"):
            layer((x, x[:5]), torch.tensor([[0, 9], [7, 1]]))
    with pytest.raises(ValueError, match=r"expected edge_index of shape \(2, E\), got \(4, 2\)"):
        layer(x, torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"got x with 2708 rows, but Graph\(num_nodes=3"):
        layer(x, Graph(torch.tensor([[0], [1]]), 3))
    with pytest.raises(ValueError, match=r"give x as a pair"):
        layer(x, Graph(torch.tensor([[0], [1]]), (3, 2)))
    with pytest.raises(ValueError, match=r"edge_weight of shape \(1,\), one number per edge"):
        layer(x, torch.tensor([[0], [1]]), torch.ones(2))
    with pytest.raises(TypeError, match=r"edge_index .2, E., Graph or EdgePlan, got list"):
        layer(x, [[0], [1]])
    with pytest.raises(ValueError, match=r"floating-point numbers, got torch.int64"):
        layer(torch.ones(3, 2, dtype=torch.int64), torch.tensor([[0], [1]]))
    with pytest.raises(
        ValueError, match=r"GCNConv expected x of shape \(N, 16\) because in_dim=16"
    ):
        prepare("GCNConv", x, torch.tensor([[0], [1]]), in_dim=16)
