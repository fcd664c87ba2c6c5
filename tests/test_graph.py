"""Graph: validation, relabelling and the way to and from other libraries."""

import pickle
import sys

import pytest
import torch

from gnnlab.errors import MissingExtraError
from gnnlab.graph import Graph, relabel


def graphs():
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(6, (2, 15), generator=random)
    edge_index[:, 3] = edge_index[:, 9]  # a repeated edge
    edge_index[1, 5] = edge_index[0, 5]  # a loop
    pair = torch.stack([torch.randint(n, (9,), generator=random) for n in (4, 7)])
    weight = torch.rand(15, generator=random)
    return {
        "plain": Graph(edge_index, 8),
        "weighted": Graph(edge_index, 8, edge_weight=weight),
        "bipartite": Graph(pair, (4, 7), edge_weight=weight[:9]),
        "empty": Graph(edge_index[:, :0], 3),
    }


CASES = graphs()


def assert_same(a, b):
    assert torch.equal(a.edge_index, b.edge_index)
    assert (a.num_src, a.num_dst, a.is_bipartite) == (b.num_src, b.num_dst, b.is_bipartite)
    assert (a.edge_weight is None) == (b.edge_weight is None)
    if a.edge_weight is not None:
        assert torch.equal(a.edge_weight, b.edge_weight)


@pytest.mark.parametrize("name", ["plain", "weighted", "empty"])
def test_round_trip_through_pyg_keeps_order_and_weights(name):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    assert_same(Graph.from_pyg(CASES[name].to_pyg()), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_round_trip_through_dgl_keeps_order_and_weights(name):
    pytest.importorskip("dgl", reason="dgl is not installed", exc_type=ImportError)
    assert_same(Graph.from_dgl(CASES[name].to_dgl()), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_round_trip_through_networkx_keeps_order_and_weights(name):
    pytest.importorskip("networkx", reason="networkx is not installed")
    assert_same(Graph.from_networkx(CASES[name].to_networkx()), CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_round_trip_through_scipy_keeps_order_and_weights(name):
    pytest.importorskip("scipy", reason="scipy is not installed")
    graph = CASES[name]
    again = Graph.from_scipy(graph.to_scipy(), bipartite=graph.is_bipartite)
    weight = torch.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight
    size = (graph.num_src, graph.num_dst) if graph.is_bipartite else graph.num_nodes
    assert_same(again, Graph(graph.edge_index, size, edge_weight=weight))


def test_undirected_networkx_graphs_give_both_directions_and_loops_once():
    networkx = pytest.importorskip("networkx", reason="networkx is not installed")
    graph = Graph.from_networkx(networkx.Graph([(0, 1), (1, 2), (2, 2)]))
    pairs = sorted(map(tuple, graph.edge_index.t().tolist()))
    assert pairs == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 2)]
    with pytest.raises(ValueError, match=r"needs nodes 0\.\.1"):
        Graph.from_networkx(networkx.Graph([("a", "b")]))


def test_errors_name_the_value_and_what_to_do():
    edge_index = torch.tensor([[0, 2708], [1, 2]])
    message = (
        r"edge_index holds node 2708, but the graph has 2708 nodes \(valid ids are 0\.\.2707\)\. "
        r"Ids must start at 0; see gnnlab\.graph\.relabel\(\)\."
    )
    with pytest.raises(ValueError, match=message):
        Graph(edge_index, 2708)
    with pytest.raises(ValueError, match=r"holds target 2, but the graph has 2 target nodes"):
        Graph(edge_index, (3000, 2))
    with pytest.raises(ValueError, match=r"holds node -1"):
        Graph(edge_index - 1, 5000)
    with pytest.raises(ValueError, match=r"edge_weight must have shape \(2,\)"):
        Graph(edge_index, 3000, edge_weight=torch.ones(3))
    with pytest.raises(ValueError, match="num_src=4 and num_dst=7"):
        _ = CASES["bipartite"].num_nodes
    with pytest.raises(ValueError, match="use to_dgl or to_scipy"):
        CASES["bipartite"].to_pyg()


@pytest.mark.parametrize(
    ("method", "module", "message"),
    [
        ("to_dgl", "dgl", r"Graph\.to_dgl needs dgl: pip install 'gnnlab\[dgl\]'"),
        ("to_pyg", "torch_geometric", r"pip install 'gnnlab\[pyg\]'"),
        ("to_networkx", "networkx", "Graph.to_networkx needs networkx"),
        ("to_scipy", "scipy", "Graph.to_scipy needs scipy"),
    ],
)
def test_missing_packages_give_a_sentence(monkeypatch, method, module, message):
    for name in [m for m in sys.modules if m == module or m.startswith(module + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=message):
        getattr(CASES["plain"], method)()


def test_relabel_numbers_nodes_without_gaps():
    edge_index = torch.tensor([[10, 70, 10], [70, -3, 10]])
    labelled, ids = relabel(edge_index)
    assert torch.equal(ids[labelled], edge_index)
    assert labelled.unique().tolist() == [0, 1, 2]
    assert Graph(labelled, len(ids)).num_nodes == 3


def test_graph_is_fixed_picklable_and_says_what_it_is():
    graph = CASES["weighted"]
    with pytest.raises(AttributeError, match="cannot be changed"):
        graph.edge_weight = None
    assert_same(pickle.loads(pickle.dumps(graph)), graph)
    assert repr(graph) == "Graph(num_nodes=8, num_edges=15, weighted)"
    assert repr(CASES["bipartite"]) == "Graph(num_src=4, num_dst=7, num_edges=9, weighted)"
    assert graph.to("cpu") is graph
    assert torch.equal(graph.T.edge_index, graph.edge_index.flip(0))
    assert graph.plan is graph.plan
