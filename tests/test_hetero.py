"""HeteroGraph: validation, joined form, and the way to and from other libraries."""

import pickle
import sys

import pytest
import torch

import gnnlab
from gnnlab.errors import MissingExtraError
from gnnlab.graph import Graph
from gnnlab.hetero import HeteroGraph

BUYS, KNOWS, SOLD = ("user", "buys", "item"), ("user", "knows", "user"), ("item", "sold", "user")


def edges(num_edges, *sizes, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n, (num_edges,), generator=random) for n in sizes])


def graphs():
    buys = edges(9, 5, 4)
    buys[:, 3] = buys[:, 7]  # a repeated edge
    plain = HeteroGraph(
        {"user": 5, "item": 4, "shop": 2}, {BUYS: buys, KNOWS: edges(6, 5, 5), SOLD: edges(7, 4, 5)}
    )
    weight = {BUYS: torch.rand(9)}
    weighted = HeteroGraph(
        {"user": 5, "item": 4}, {BUYS: buys, KNOWS: edges(6, 5, 5)}, edge_weight=weight
    )
    return {"plain": plain, "weighted": weighted}


CASES = graphs()


def assert_same(a, b):
    assert dict(a.num_nodes) == dict(b.num_nodes)
    assert set(a.edge_types) == set(b.edge_types)
    for kind in a.edge_types:
        assert torch.equal(a[kind].edge_index, b[kind].edge_index)
        assert (a[kind].edge_weight is None) == (b[kind].edge_weight is None)
        if a[kind].edge_weight is not None:
            assert torch.equal(a[kind].edge_weight, b[kind].edge_weight)
        assert a[kind].is_bipartite == b[kind].is_bipartite == (kind[0] != kind[2])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("library", "to", "back"),
    [
        ("torch_geometric", "to_pyg", "from_pyg"),
        ("dgl", "to_dgl", "from_dgl"),
        ("networkx", "to_networkx", "from_networkx"),
    ],
)
def test_round_trip_keeps_types_order_and_weights(name, library, to, back):
    pytest.importorskip(library, reason=f"{library} is not installed", exc_type=ImportError)
    there = getattr(CASES[name], to)()
    assert_same(getattr(HeteroGraph, back)(there), CASES[name])


@pytest.mark.filterwarnings("ignore:Unable to accurately infer")
def test_pyg_shares_the_tensors():
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    data = CASES["weighted"].to_pyg()
    assert data[BUYS].edge_index.data_ptr() == CASES["weighted"][BUYS].edge_index.data_ptr()
    again = HeteroGraph.from_pyg(data)
    assert again[KNOWS].edge_index.data_ptr() == data[KNOWS].edge_index.data_ptr()
    data["shop"].name = "x"
    with pytest.raises(ValueError, match="node type 'shop' says no num_nodes"):
        HeteroGraph.from_pyg(data)


def test_networkx_says_types_and_reads_relations_by_name():
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    made = CASES["plain"].to_networkx()
    assert made.nodes["item", 3]["node_type"] == "item"
    assert made.number_of_edges() == 22
    graph = networkx.DiGraph()
    graph.add_node("ann", node_type="user")
    graph.add_node("pen", node_type="item")
    graph.add_edge("ann", "pen", edge_type="buys")
    assert HeteroGraph.from_networkx(graph)[BUYS].edge_index.tolist() == [[0], [0]]
    graph.add_edge("pen", "ann")
    with pytest.raises(ValueError, match="edge 'pen' -> 'ann' has no edge_type"):
        HeteroGraph.from_networkx(graph)
    graph.add_node("eve")
    with pytest.raises(ValueError, match="node 'eve' has no node_type"):
        HeteroGraph.from_networkx(graph)
    with pytest.raises(ValueError, match="needs a directed graph"):
        HeteroGraph.from_networkx(networkx.Graph())


@pytest.mark.parametrize(
    ("method", "module", "message"),
    [
        ("to_dgl", "dgl", r"HeteroGraph\.to_dgl needs dgl: pip install 'gnnlab\[dgl\]'"),
        ("to_pyg", "torch_geometric", r"pip install 'gnnlab\[pyg\]'"),
        ("to_networkx", "networkx", "HeteroGraph.to_networkx needs networkx"),
    ],
)
def test_missing_packages_give_a_sentence(monkeypatch, method, module, message):
    for name in [m for m in sys.modules if m == module or m.startswith(module + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=message):
        getattr(CASES["plain"], method)()


def test_errors_name_the_edge_type_and_the_node():
    sizes = {"user": 5, "item": 4}
    wrong = torch.tensor([[0, 1], [4, 1]])
    message = r"edge type \('user', 'buys', 'item'\): edge_index holds target 4, but .* 4 target"
    with pytest.raises(ValueError, match=message):
        HeteroGraph(sizes, {BUYS: wrong})
    with pytest.raises(ValueError, match=r"'knows'.*edge_index holds node -1"):
        HeteroGraph(sizes, {KNOWS: wrong - 1})
    with pytest.raises(ValueError, match=r"'sold', 'shop'\) joins 'shop', but nodes are \['user'"):
        HeteroGraph(sizes, {("item", "sold", "shop"): wrong})
    with pytest.raises(ValueError, match=r"an edge type is \(source type, .* got 'buys'"):
        HeteroGraph(sizes, {"buys": wrong})
    with pytest.raises(ValueError, match=r"joins 5 user and 4 item nodes, but its graph is Graph"):
        HeteroGraph(sizes, {BUYS: Graph(wrong, (5, 6))})
    with pytest.raises(ValueError, match=r"joins 5 user and 5 user nodes, but its graph is Graph"):
        HeteroGraph(sizes, {KNOWS: Graph(wrong, (5, 5))})
    with pytest.raises(ValueError, match=r"'knows'.*edge_weight must have shape \(2,\)"):
        HeteroGraph(sizes, {KNOWS: wrong}, edge_weight={KNOWS: torch.ones(3)})
    with pytest.raises(ValueError, match=r"edge_weight is given for .*'buys'"):
        HeteroGraph(sizes, {KNOWS: wrong}, edge_weight={BUYS: torch.ones(2)})
    with pytest.raises(ValueError, match="node type 'user' has -1 nodes"):
        HeteroGraph({"user": -1}, {})
    with pytest.raises(KeyError, match="no edge type 'sells'"):
        CASES["plain"]["sells"]
    twice = HeteroGraph(sizes, {BUYS: wrong[:, 1:], ("item", "buys", "item"): wrong[:, 1:]})
    with pytest.raises(KeyError, match="belongs to several edge types"):
        twice["buys"]


def test_graph_is_fixed_picklable_and_says_what_it_is():
    graph = CASES["plain"]
    with pytest.raises(AttributeError, match="cannot be changed"):
        graph.num_nodes = {}
    with pytest.raises(TypeError):
        graph.num_nodes["user"] = 7
    assert_same(pickle.loads(pickle.dumps(graph)), graph)
    assert repr(graph) == (
        "HeteroGraph(num_nodes={user: 5, item: 4, shop: 2}, "
        "edges={user-buys-item: 9, user-knows-user: 6, item-sold-user: 7})"
    )
    assert graph.node_types == ("user", "item", "shop")
    assert graph.edge_types == (BUYS, KNOWS, SOLD) == graph.metadata[1]
    assert graph.num_edges == 22
    assert graph["buys"] is graph[BUYS]
    assert BUYS in graph
    assert ("user", "buys", "shop") not in graph
    assert graph.to("cpu") is graph
    assert graph[BUYS].plan is graph[BUYS].plan
    moved = graph.to("meta")
    assert moved[BUYS].device.type == "meta"
    assert "device=meta" in repr(moved)
    assert gnnlab.HeteroGraph is HeteroGraph
    assert HeteroGraph({"user": 3}, {}).homogeneous().graph.num_nodes == 3


def test_joined_form_has_all_edges_between_shifted_nodes_and_is_made_once():
    graph = CASES["weighted"]
    whole = graph.homogeneous()
    assert graph.homogeneous() is whole
    assert whole.node_type.tolist() == [0] * 5 + [1] * 4
    assert whole.edge_type.tolist() == [0] * 9 + [1] * 6
    assert dict(whole.offsets) == {"user": 0, "item": 5}
    expected = torch.cat(
        [graph[BUYS].edge_index + torch.tensor([[0], [5]]), graph[KNOWS].edge_index], 1
    )
    assert torch.equal(whole.graph.edge_index, expected)
    weight = torch.cat([graph[BUYS].edge_weight, torch.ones(6)])
    assert torch.equal(whole.graph.edge_weight, weight)
    alone = HeteroGraph({"user": 5}, {KNOWS: graph[KNOWS]})
    assert alone.homogeneous().graph is alone[KNOWS]


@pytest.mark.parametrize("typed", [True, False])
def test_typed_edges_come_apart_and_together_again(typed):
    edge_index, relation = edges(60, 12, 12), edges(60, 3, 3, seed=1)[0]
    node_type = edges(12, 2, 2, seed=2)[0] if typed else torch.zeros(12, dtype=torch.int64)
    names = ["red", "blue"] if typed else None
    graph = HeteroGraph.from_typed(
        edge_index, relation, 12, node_type=node_type if typed else None, node_names=names
    )
    whole = graph.homogeneous()
    order = node_type.argsort(stable=True)  # joined id -> old id
    assert torch.equal(whole.node_type, node_type[order])
    kinds = [int(graph.edge_types[k][1]) for k in whole.edge_type.tolist()]
    again = torch.cat([order[whole.graph.edge_index], torch.tensor([kinds])])
    given = torch.cat([edge_index, relation[None]])
    assert sorted(again.t().tolist()) == sorted(given.t().tolist())
    for kind in graph.edge_types:  # edges of a type keep their order
        mine = relation == int(kind[1])
        if typed:
            src, dst = (node_type[row] for row in edge_index)
            mine &= (src == names.index(kind[0])) & (dst == names.index(kind[2]))
        first = torch.tensor([[whole.offsets[kind[0]]], [whole.offsets[kind[2]]]])
        assert torch.equal(order[graph[kind].edge_index + first], edge_index[:, mine])


def test_from_typed_says_what_does_not_fit():
    edge_index = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="edge_index holds node 2, but the graph has 2 nodes"):
        HeteroGraph.from_typed(edge_index, torch.zeros(2).long(), 2)
    with pytest.raises(ValueError, match=r"one integer for each of the 2 edges, got \(3,\)"):
        HeteroGraph.from_typed(edge_index, torch.zeros(3).long(), 3)
    with pytest.raises(ValueError, match="edge_type holds 4, but there are 1 names"):
        HeteroGraph.from_typed(edge_index, torch.tensor([4, 0]), 3, relation_names=["a"])
    with pytest.raises(ValueError, match=r"node_type must be \(3,\), got \(2,\)"):
        HeteroGraph.from_typed(edge_index, torch.tensor([0, 0]), 3, node_type=torch.zeros(2))
    with pytest.raises(ValueError, match="edge_type holds -1; types are 0 or more"):
        HeteroGraph.from_typed(edge_index, torch.tensor([-1, 0]), 3)
