"""Heterogeneous layers: dictionaries by type keep all promises; then RGCN and Simple-HGN."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import gnnlab.layers
from gnnlab import ops
from gnnlab.graph import Graph
from gnnlab.hetero import HeteroGraph
from gnnlab.layers import (
    GATConv,
    HeteroConv,
    HGTConv,
    RGCNConv,
    SAGEConv,
    SimpleHGNConv,
    rgcn as rgcn_module,
)
from gnnlab.layers._relations import relations
from gnnlab.ops import EdgePlan

BUYS, KNOWS, SOLD = ("user", "buys", "item"), ("user", "knows", "user"), ("item", "sold", "user")
SIZES = {"user": 7, "item": 5, "shop": 3}
DIMS = {"user": 6, "item": 4, "shop": 2}
LIKES = ("shop", "likes", "item")
KINDS = (BUYS, KNOWS, SOLD, LIKES)
METADATA = (tuple(SIZES), KINDS)


def convs():
    made = {
        kind: SAGEConv((DIMS[kind[0]], DIMS[kind[2]]), 6, reduce=reduce)
        for kind, reduce in zip(KINDS, ("mean", "sum", "max", "mean"), strict=True)
    }
    made[LIKES] = GATConv((2, 4), 3, heads=2, self_loops=False)
    return made


# name, constructor; all give 6 numbers per node
TABLE = [
    ("HGTConv", lambda: HGTConv(DIMS, 6, METADATA, heads=2)),
    ("HGTConv one head", lambda: HGTConv(DIMS, 6, METADATA)),
    ("HeteroConv", lambda: HeteroConv(convs())),
    ("HeteroConv mean", lambda: HeteroConv(convs(), reduce="mean")),
    ("HeteroConv max", lambda: HeteroConv(convs(), reduce="max")),
]
ROWS = pytest.mark.parametrize("make", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
REDUCES = pytest.mark.parametrize("reduce", ["mean", "sum"])


def inputs(dtype=torch.float64, seed=0):
    """Returns x and edges by type: loops, repeated edges; the last node of each type has none."""
    random = torch.Generator().manual_seed(seed)
    x = {n: torch.randn(SIZES[n], DIMS[n], generator=random, dtype=dtype) for n in SIZES}
    edges = {
        kind: torch.stack(
            [torch.randint(SIZES[kind[k]] - 1, (14,), generator=random) for k in (0, 2)]
        )
        for kind in KINDS
    }
    return x, edges


def build(make, dtype=torch.float64):
    torch.manual_seed(0)
    layer = make().to(dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():  # biases too
            parameter.copy_(torch.randn_like(parameter) / 2)
    return layer


def assert_equal(a, b, **tolerance):
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


def test_every_layer_on_dictionaries_is_in_the_table():
    takes = {
        name
        for name in gnnlab.layers.__all__
        if "heterogeneous" in getattr(getattr(gnnlab.layers, name), "takes", ())
    }
    assert {type(row[1]()).__name__ for row in TABLE} == takes == {"HGTConv", "HeteroConv"}


@ROWS
def test_any_form_of_the_edges_gives_the_same(make):
    layer, (x, edges) = build(make), inputs()
    out = layer(x, edges)
    assert {name: h.shape for name, h in out.items()} == {"user": (7, 6), "item": (5, 6)}
    graph = HeteroGraph(SIZES, edges)
    assert_equal(layer(x, graph), out)
    assert_equal(layer(x, graph), layer(x, graph), rtol=0, atol=0)
    assert_equal(layer(x, {kind: graph[kind] for kind in KINDS}), out)
    assert_equal(layer(x, {kind: graph[kind].plan for kind in KINDS}), out)
    assert_equal(layer(x, {kind: e.int() for kind, e in edges.items()}), out)
    assert_equal(layer(x, {kind: edges[kind] for kind in reversed(KINDS)}), out)


@ROWS
def test_permuting_nodes_permutes_the_result(make):
    layer, (x, edges) = build(make), inputs()
    out = layer(x, edges)
    order = {name: torch.randperm(size) for name, size in SIZES.items()}
    place = {name: o.argsort() for name, o in order.items()}
    moved = {
        kind: torch.stack([place[kind[0]][e[0]], place[kind[2]][e[1]]])[:, torch.randperm(14)]
        for kind, e in edges.items()
    }
    found = layer({name: x[name][order[name]] for name in x}, moved)
    assert_equal(found, {name: out[name][order[name]] for name in out})


@ROWS
def test_nodes_without_edges_do_not_depend_on_others(make):
    layer, (x, edges) = build(make), inputs()
    none = {kind: e[:, :0] for kind, e in edges.items()}
    alone, out = layer(x, none), layer(x, edges)
    for name in out:
        assert alone[name].isfinite().all()
        torch.testing.assert_close(out[name][-1], alone[name][-1])
    nobody = layer({name: h[:0] for name, h in x.items()}, none)
    assert {name: h.shape for name, h in nobody.items()} == {"user": (0, 6), "item": (0, 6)}


@ROWS
def test_types_may_be_left_out(make):
    layer, (x, edges) = build(make), inputs()
    few = {kind: edges[kind] for kind in (KNOWS, SOLD)}
    out = layer({name: x[name] for name in ("user", "item")}, few)
    empty = {kind: e if kind in few else e[:, :0] for kind, e in edges.items()}
    if isinstance(layer, HGTConv):
        assert_equal(out, layer(x, empty))
        assert_equal(layer(x, {}), layer(x, {kind: e[:, :0] for kind, e in edges.items()}))
    else:  # a node type without an edge type gets nothing
        assert set(out) == {"user"}
    with pytest.raises(ValueError, match=r"got edges of \('shop', 'likes', 'item'\), but no x\['s"):
        layer({name: x[name] for name in ("user", "item")}, edges)


@ROWS
def test_gradients_equal_finite_differences(make):
    layer, (x, edges) = build(make), inputs()
    graph = HeteroGraph(SIZES, edges)
    names = [name for name, _ in layer.named_parameters()]

    def forward(*given):
        parts, weights = given[: len(x)], dict(zip(names, given[len(x) :], strict=True))
        out = torch.func.functional_call(layer, weights, (dict(zip(x, parts, strict=True)), graph))
        return tuple(out.values())

    leaves = [*x.values(), *(p.detach() for p in layer.parameters())]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(forward, leaves, fast_mode=True)


@ROWS
def test_backends_dtypes_and_autocast_agree(make):
    layer, (x, edges) = build(make), inputs()
    out = layer(x, edges)
    with ops.use_backend("reference"):
        assert_equal(layer(x, edges), out)
    single = {name: h.float() for name, h in x.items()}
    small = copy.deepcopy(layer).float()
    found = small(single, edges)
    assert {h.dtype for h in found.values()} == {torch.float32}
    assert_equal({n: h.double() for n, h in found.items()}, out, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = small(single, edges)
    assert_equal({n: h.double() for n, h in mixed.items()}, out, rtol=0.1, atol=0.2)


@ROWS
def test_layer_compiles_without_graph_breaks(make):
    layer, (x, edges) = build(make), inputs()
    torch.compiler.reset()  # rows share a forward, and torch counts its versions
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert_equal(compiled(x, edges), layer(x, edges))
    graph = HeteroGraph(SIZES, edges)
    assert_equal(compiled(x, graph), layer(x, edges))
    layer(x, graph)  # joins
    assert_equal(compiled(x, graph), layer(x, edges))


@ROWS
def test_state_dict_and_repr(make):
    layer, (x, edges) = build(make), inputs()
    other = make().double().eval()
    other.load_state_dict(layer.state_dict())
    assert_equal(other(x, edges), layer(x, edges), rtol=0, atol=0)
    assert "user-buys-item" in repr(layer)
    assert " object at 0x" not in repr(layer)


@ROWS
@pytest.mark.filterwarnings("ignore:There exist node types")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_layer_equals_that_of_pyg(make, dtype, tolerance):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    layer, (x, edges) = build(make, dtype), inputs(dtype)
    theirs = layer.to_pyg().to(dtype).eval()
    for given in x.values():
        given.requires_grad_()
    results = []
    for module in (layer, theirs):
        out = module(x, edges)
        random = torch.Generator().manual_seed(1)
        loss = sum(
            (out[n] * torch.randn(out[n].shape, generator=random, dtype=dtype)).sum()
            for n in ("user", "item")
        )
        leaves = [*x.values(), *module.parameters()]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        by_name = {n: g for (n, _), g in zip(module.named_parameters(), found[3:], strict=True)}
        results.append((out, found[:3], by_name))
    (out, grads, ours), (expected, wanted, others) = results
    assert_equal(out, expected, rtol=tolerance, atol=tolerance * 10)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * 100)
    if isinstance(layer, HGTConv):
        names = {id(p): n for n, p in layer.named_parameters()}
        their_names = {id(p): n for n, p in theirs.named_parameters()}
        compared = 0
        for _, own, other in layer._pairs(theirs):
            a, b = ours[names[id(own)]], others[their_names[id(other)]]
            if a is None or b is None:
                # What belongs to a type that is no target takes no part in the result.
                assert a is None or not a.any()
                assert b is None or not b.any()
                continue
            torch.testing.assert_close(a.reshape(b.shape), b, rtol=tolerance, atol=tolerance * 100)
            compared += 1
        assert compared >= 14


@ROWS
@pytest.mark.filterwarnings("ignore:There exist node types")
def test_weights_come_back_from_pyg(make):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    layer, other = build(make, torch.float32), make()
    other.load_pyg(layer.to_pyg())
    for a, b in zip(layer.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:There exist node types")
def test_load_pyg_says_what_differs():
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    with pytest.raises(ValueError, match="heads is 1 here, but heads is 2 in PyG's"):
        HGTConv(DIMS, 6, METADATA).load_pyg(HGTConv(DIMS, 6, METADATA, heads=2).to_pyg())
    with pytest.raises(ValueError, match=r"reduce is 'max' here, but .* and 'sum' in PyG's"):
        HeteroConv(convs(), reduce="max").load_pyg(HeteroConv(convs()).to_pyg())
    with pytest.raises(TypeError, match="is no layer of gnnlab: Linear"):
        HeteroConv({BUYS: nn.Linear(1, 1)}).to_pyg()


def test_errors_name_the_type_and_the_value():
    x, edges = inputs(torch.float32)
    layer = HGTConv(DIMS, 6, METADATA, heads=2)
    with pytest.raises(ValueError, match=r"expected x\['item'\] of shape \(N, 4\), got \(7, 6\)"):
        layer({**x, "item": x["user"]}, edges)
    with pytest.raises(ValueError, match="not made for node type 'cat'; it knows"):
        layer({**x, "cat": x["user"]}, edges)
    with pytest.raises(ValueError, match=r"not made for edge type \('shop', 'owns', 'item'\)"):
        layer(x, {("shop", "owns", "item"): edges[LIKES]})
    wrong = edges[BUYS].clone()
    wrong[1, 3] = 9
    with pytest.raises(ValueError, match=r"\('user', 'buys', 'item'\): edge_index holds target 9"):
        layer(x, {BUYS: wrong})
    with pytest.raises(ValueError, match=r"got x with \(7, 5\) rows for .*buys.*num_dst=6"):
        layer(x, {BUYS: Graph(edges[BUYS], (7, 6))})
    with pytest.raises(TypeError, match="expected x as node type -> tensor, got Tensor"):
        layer(x["user"], edges)
    with pytest.raises(ValueError, match="got an empty x"):
        layer({}, edges)
    with pytest.raises(ValueError, match="heads=4 must divide out_dim=6"):
        HGTConv(DIMS, 6, METADATA, heads=4)
    with pytest.raises(ValueError, match="joins a type not in"):
        HGTConv(DIMS, 6, (("user",), KINDS))
    with pytest.raises(ValueError, match='reduce must be "sum", "mean", "max" or "min", got "cat"'):
        HeteroConv(convs(), reduce="cat")
    with pytest.raises(ValueError, match=r"adds loops, but .*buys.* joins two node types"):
        HeteroConv({BUYS: GATConv(4, 4)})
    with pytest.raises(ValueError, match="HeteroConv has layers for"):
        HeteroConv({BUYS: SAGEConv((6, 4), 2)})(x, {KNOWS: edges[KNOWS]})


def test_edge_types_are_joined_once_per_graph(monkeypatch):
    x, edges = inputs()
    layer, graph = build(TABLE[0][1]), HeteroGraph(SIZES, edges)
    first = layer(x, graph)
    monkeypatch.setattr(torch, "stack", lambda *_: pytest.fail("joined again"))
    assert_equal(layer(x, graph), first, rtol=0, atol=0)


def test_hetero_conv_hands_weights_of_edges_on():
    x, edges = inputs()
    conv = SAGEConv((6, 4), 3).double()
    weight = torch.rand(14).double()
    out = HeteroConv({BUYS: conv})(x, edges, {BUYS: weight})
    torch.testing.assert_close(out["item"], conv((x["user"], x["item"]), edges[BUYS], weight))


# ---- RGCN --------------------------------------------------------------------------------------


def typed_graph(num_nodes=9, num_types=4, num_edges=40):
    random = torch.Generator().manual_seed(3)
    edge_index = torch.randint(num_nodes - 1, (2, num_edges), generator=random)
    edge_type = torch.randint(num_types - 1, (num_edges,), generator=random)  # one has no edge
    return edge_index, edge_type


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
@pytest.mark.parametrize("blocks", [None, 2])
def test_rgcn_gives_the_same_in_each_way(reduce, blocks, monkeypatch):
    edge_index, edge_type = typed_graph()
    layer = build(lambda: RGCNConv(6, 4, 4, num_blocks=blocks, reduce=reduce))
    x = torch.randn(9, 6).double().requires_grad_()
    weights = layer.weight if blocks else layer.weight[:, None]
    expected = x @ layer.root + layer.bias
    for r in range(4):
        dense = torch.block_diag(*weights[r])
        for i in range(9):
            rows = x[edge_index[0, (edge_type == r) & (edge_index[1] == i)]]
            if len(rows):
                row = {"mean": rows.mean(0), "sum": rows.sum(0), "max": rows.amax(0)}[reduce]
                expected = expected.index_add(0, torch.tensor([i]), (row @ dense)[None])
    wanted = torch.autograd.grad(expected.square().sum(), [x, *layer.parameters()])
    for way in ("target", "source", "pairs"):
        if (way, reduce) == ("source", "max"):
            continue
        monkeypatch.setattr(RGCNConv, "_cheapest", lambda *_, way=way: way)
        out = layer(x, edge_index, edge_type)
        torch.testing.assert_close(out, expected)
        found = torch.autograd.grad(out.square().sum(), [x, *layer.parameters()])
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_rgcn_takes_the_way_that_makes_fewest_numbers():
    edge_index, edge_type = typed_graph()
    plan = EdgePlan(edge_index, 9, 9)
    for layer, way in (
        (RGCNConv(5, 9, 4), "target"),
        (RGCNConv(9, 5, 4), "source"),
        (RGCNConv(9, 5, 4, reduce="max"), "target"),
        (RGCNConv(9, 5, 400), "pairs"),
    ):
        assert layer._cheapest(relations(layer, plan, edge_type, layer.num_relations)) == way
    assert set(rgcn_module._WAYS) == {"target", "source", "pairs"}


@REDUCES
@pytest.mark.parametrize("bases", [None, 2])
def test_rgcn_without_features_equals_that_on_the_identity_and_pyg(reduce, bases):
    edge_index, edge_type = typed_graph()
    layer = build(lambda: RGCNConv(9, 4, 4, num_bases=bases, reduce=reduce))
    out = layer(None, edge_index, edge_type)
    torch.testing.assert_close(out, layer(torch.eye(9).double(), edge_index, edge_type))
    torch.testing.assert_close(layer(None, Graph(edge_index, 9), edge_type), out)
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    theirs = layer.to_pyg().double()
    torch.testing.assert_close(out, theirs(None, edge_index, edge_type), rtol=1e-10, atol=1e-10)


@REDUCES
def test_rgcn_takes_the_weights_of_fast_rgcn(reduce):
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    edge_index, edge_type = typed_graph()
    theirs = pyg.FastRGCNConv(5, 3, 4, num_bases=2, aggr=reduce).double()
    layer = RGCNConv(5, 3, 4, num_bases=2, reduce=reduce).double().load_pyg(theirs)
    x = torch.randn(9, 5).double()
    torch.testing.assert_close(layer(x, edge_index, edge_type), theirs(x, edge_index, edge_type))


def test_plans_of_relations_are_kept_for_the_last_types_only():
    edge_index, edge_type = typed_graph()
    layer, plan = RGCNConv(5, 3, 4), EdgePlan(edge_index, 9, 9)
    first = relations(layer, plan, edge_type, 4)
    assert relations(layer, plan, edge_type, 4) is first
    assert relations(layer, plan, edge_type, 5) is not first
    edge_type[0] = (edge_type[0] + 1) % 3
    assert relations(layer, plan, edge_type, 5) is not first
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    with torch.inference_mode():
        x = torch.randn(9, 5)
        assert layer(x, plan, edge_type.clone()).shape == (9, 3)


def test_typed_layers_say_what_is_wrong():
    edge_index, edge_type = typed_graph()
    x = torch.randn(9, 5)
    for layer in (RGCNConv(5, 3, 3), SimpleHGNConv(5, 3, 3)):
        name = type(layer).__name__
        with pytest.raises(
            ValueError, match=rf"{name} got edge_type 3, but num_relations=3: valid"
        ):
            layer(x, edge_index, edge_type + 1)
        with pytest.raises(ValueError, match=rf"{name} expected edge_type of shape \(40,\)"):
            layer(x, edge_index, edge_type[1:])
        with pytest.raises(TypeError, match="edge_type as a tensor, got list"):
            layer(x, edge_index, [0] * 40)
    with pytest.raises(ValueError, match="num_bases or num_blocks, not both"):
        RGCNConv(4, 4, 2, num_bases=1, num_blocks=2)
    with pytest.raises(ValueError, match="num_blocks=3 must divide in_dim=4 and out_dim=6"):
        RGCNConv(4, 6, 2, num_blocks=3)
    with pytest.raises(ValueError, match="cannot be called with x=None"):
        RGCNConv(4, 4, 2, num_blocks=2)(None, edge_index, edge_type)
    with pytest.raises(ValueError, match=r"expected shares of shape \(40, 1\), got \(40, 2\)"):
        SimpleHGNConv(5, 3, 4)(x, edge_index, edge_type, torch.ones(40, 2))
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got 2"):
        SimpleHGNConv(5, 3, 4, beta=2)


# ---- Simple-HGN --------------------------------------------------------------------------------


def simple_hgn(layer, x, edge_index, edge_type, previous=None):
    """The equations, edge by edge."""
    heads, dim = layer.heads, layer.out_dim
    z = (x @ layer.weight.t()).view(-1, heads, dim)
    r = (layer.embedding @ layer.weight_edge.t()).view(layer.num_relations, heads, -1)
    shares = torch.zeros(edge_index.shape[1], heads, dtype=x.dtype)
    out = torch.zeros_like(z)
    for h in range(heads):
        for i in range(len(x)):
            incoming = (edge_index[1] == i).nonzero()[:, 0]
            if not len(incoming):
                continue
            scores = torch.stack(
                [
                    layer.att_src[h] @ z[edge_index[0, e], h]
                    + layer.att_dst[h] @ z[i, h]
                    + layer.att_edge[h] @ r[edge_type[e], h]
                    for e in incoming
                ]
            )
            share = nn.functional.leaky_relu(scores, layer.negative_slope).softmax(0)
            if previous is not None:
                share = (1 - layer.beta) * share + layer.beta * previous[incoming, h]
            shares = shares.index_put((incoming, torch.tensor(h)), share)
            total = (share[:, None] * z[edge_index[0, incoming], h]).sum(0)
            out = out.index_put((torch.tensor(i), torch.tensor(h)), total)
    out = out.flatten(1) if layer.concat else out.mean(1)
    out = out + layer.bias + (x if layer.weight_root is None else x @ layer.weight_root.t())
    return (out / out.norm(dim=1, keepdim=True) if layer.normalize else out), shares


@pytest.mark.parametrize(
    "options",
    [{}, {"heads": 2, "edge_dim": 3}, {"concat": False, "normalize": True, "negative_slope": 0.1}],
)
def test_simple_hgn_is_its_equations(options):
    edge_index, edge_type = typed_graph()
    layer = build(lambda: SimpleHGNConv(6, 3, 4, beta=0.3, **{"heads": 3, **options}))
    x = torch.randn(9, 6).double().requires_grad_()
    previous = torch.rand(40, layer.heads).double().requires_grad_()
    leaves = [x, *layer.parameters()]
    expected, wanted_shares = simple_hgn(layer, x, edge_index, edge_type)
    wanted = torch.autograd.grad(expected.square().sum(), leaves, retain_graph=True)
    shown, shares = layer(x, edge_index, edge_type, return_shares=True)
    torch.testing.assert_close(shares, wanted_shares)
    for out in (layer(x, edge_index, edge_type), shown):
        torch.testing.assert_close(out, expected)
        found = torch.autograd.grad(out.square().sum(), leaves)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)
    expected, wanted_shares = simple_hgn(layer, x, edge_index, edge_type, previous)
    out, shares = layer(x, edge_index, edge_type, previous, return_shares=True)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(shares, wanted_shares)
    torch.testing.assert_close(layer(x, edge_index, edge_type, previous), out)
    leaves.append(previous)
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    for a, b in zip(torch.autograd.grad(out.square().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_simple_hgn_residual_and_dropout():
    edge_index, edge_type = typed_graph()
    x = torch.randn(9, 6)
    plain = SimpleHGNConv(6, 3, 4, heads=2, residual=False, bias=False)
    with_residual = SimpleHGNConv(6, 3, 4, heads=2, bias=False)
    assert with_residual.weight_root is None  # sizes agree: the identity
    with_residual.load_state_dict(plain.state_dict())
    torch.testing.assert_close(
        with_residual(x, edge_index, edge_type), plain(x, edge_index, edge_type) + x
    )
    dropped = SimpleHGNConv(6, 3, 4, heads=2, dropout=0.5)
    first, shares = dropped(x, edge_index, edge_type, return_shares=True)
    assert (shares == 0).any()
    assert not torch.equal(dropped(x, edge_index, edge_type), first)
    dropped.eval()
    assert (dropped(x, edge_index, edge_type, return_shares=True)[1] > 0).all()
