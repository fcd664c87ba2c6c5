"""gnnlab.compat.pyg against PyG as it is."""

from __future__ import annotations

import gc
import sys
import types
from unittest import mock

import pytest
import torch

pytest.importorskip("torch_geometric", reason="needs the extra gnnlab[pyg]")

import torch_geometric
import torch_geometric.utils as utils
from torch_geometric import EdgeIndex, nn as gnn
from torch_geometric.nn.conv.message_passing import MessagePassing

from gnnlab.compat import pyg
from gnnlab.compat._memory import Memory, group
from gnnlab.ops._library import is_traced, kernels_for

T = torch.tensor
NUM_NODES, NUM_EDGES, WIDTH = 30, 150, 8


@pytest.fixture(autouse=True)
def routed(monkeypatch):
    """Also where there are no kernels the routes are taken: to the plain-torch reference."""
    if kernels_for(torch.ones(1)) is None:
        monkeypatch.setattr(pyg, "_covered", lambda *tensors: not is_traced(*tensors))


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_NODES, WIDTH, dtype=torch.float64, generator=generator)
    edge_index = torch.randint(0, NUM_NODES - 2, (2, NUM_EDGES), generator=generator)
    return x, edge_index


def draw(*shape, seed=1):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )  # fmt: skip


DEGREES = torch.bincount(torch.randint(0, 12, (100,), generator=torch.Generator().manual_seed(5)))
MODELS = {
    "GCN": lambda: gnn.GCNConv(WIDTH, 5),
    "SAGE mean": lambda: gnn.SAGEConv(WIDTH, 5),
    "SAGE max": lambda: gnn.SAGEConv(WIDTH, 5, aggr="max"),
    "SAGE several": lambda: gnn.SAGEConv(WIDTH, 5, aggr=["mean", "min", "std", "softmax"]),
    "GIN": lambda: gnn.GINConv(torch.nn.Linear(WIDTH, 5)),
    "GAT": lambda: gnn.GATConv(WIDTH, 5, heads=3),
    "GATv2": lambda: gnn.GATv2Conv(WIDTH, 5, heads=3),
    "Transformer": lambda: gnn.TransformerConv(WIDTH, 5, heads=2),
    "PNA": lambda: gnn.PNAConv(
        WIDTH, 5, ["mean", "min", "max", "std"], ["identity", "amplification"], DEGREES
    ),
    "Edge": lambda: gnn.EdgeConv(torch.nn.Linear(2 * WIDTH, 5)),
}


def results(call, *leaves):
    """What a function of fresh leaves gives, and its gradients."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    out = call(*leaves)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out, *torch.autograd.grad((out * weight).sum(), leaves)]


def assert_same(call, *leaves, used=1):
    """Compares with and without acceleration, and that the routes were used."""
    expected = results(call, *leaves)
    recall = mock.patch.object(Memory, "_recall", autospec=True, side_effect=Memory._recall)
    with pyg.accelerate(), recall as spy:
        found = results(call, *leaves)
    assert spy.call_count >= used
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", MODELS)
def test_layers_give_the_same_values_and_gradients(name, graph):
    x, edge_index = graph
    torch.manual_seed(0)
    layer = MODELS[name]().double()
    names = [n for n, _ in layer.named_parameters()]

    def call(x, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, given, (x, edge_index))

    assert_same(call, x, *(p for _, p in layer.named_parameters()), used=2)


@pytest.mark.parametrize("by", ["row", "col"])
@pytest.mark.parametrize("name", ["SAGE max", "GIN", "GAT", "Transformer"])
def test_layers_take_an_edge_index(name, by, graph, monkeypatch):
    x, edge_index = graph
    edge_index = EdgeIndex(edge_index, sparse_size=(NUM_NODES, NUM_NODES)).sort_by(by)[0]
    torch.manual_seed(0)
    layer = MODELS[name]().double()
    routed = []
    monkeypatch.setattr(pyg, "group", lambda *a: routed.append(a) or group(*a))
    assert_same(lambda x: layer(x, edge_index), x, used=0)
    assert len(routed) >= 2  # gathered and reduced


@pytest.mark.parametrize("pool", ["add", "mean", "max"])
def test_pooling_gives_the_same(pool, graph):
    batch = T([0] * 10 + [2] * 20)
    assert_same(lambda x: getattr(gnn, f"global_{pool}_pool")(x, batch, 4), graph[0])


@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "mul", "min", "max", "amin", "amax"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scatter_gives_the_same(reduce, dim):
    index = torch.randint(0, 4, (6,), generator=torch.Generator().manual_seed(0))
    assert_same(lambda x: utils.scatter(x, index, dim, 6, reduce), draw(6, 6))
    assert_same(lambda x: utils.scatter(x, index, dim, reduce=reduce), draw(6, 6))


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_softmax_gives_the_same(dim):
    index = torch.randint(0, 4, (6,), generator=torch.Generator().manual_seed(0))
    assert_same(lambda x: utils.softmax(x, index, dim=dim), draw(6, 6))
    assert_same(lambda x: utils.softmax(x, index, num_nodes=9, dim=dim), draw(6, 6, 2))
    ptr = T([0, 2, 2, 6])
    assert_same(lambda x: utils.softmax(x, ptr=ptr), draw(6, 3), used=0)


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_segment_gives_the_same(reduce):
    ptr = T([0, 2, 2, 6])
    assert_same(lambda x: utils.segment(x, ptr, reduce), draw(6, 3), used=0)


def test_segment_and_softmax_by_pointer_are_routed(monkeypatch):
    def refuse(*_, **__):
        raise ArithmeticError("routed")

    monkeypatch.setattr(pyg, "segment_csr", refuse)
    monkeypatch.setattr(pyg.ops, "segment_softmax", refuse)
    with pyg.accelerate():
        with pytest.raises(ArithmeticError):
            utils.segment(draw(3), T([0, 3]))
        with pytest.raises(ArithmeticError):
            utils.softmax(draw(3), ptr=T([0, 3]))


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_products_of_an_edge_index_give_the_same(reduce, transpose, graph):
    x, edge_index = graph
    x = x.float()  # PyG multiplies by ones in float32
    by = "col" if transpose else "row"
    sparse = EdgeIndex(edge_index, sparse_size=(NUM_NODES, NUM_NODES)).sort_by(by)[0]
    assert_same(lambda x: sparse.matmul(x, reduce=reduce, transpose=transpose), x)
    if reduce == "sum" and not transpose:
        # torch itself differentiates `@`, and does not know that this tensor stands for a matrix.
        expected = sparse @ x
        with pyg.accelerate():
            torch.testing.assert_close(sparse @ x, expected)
    weight = draw(NUM_EDGES).float()

    def weighted(x, weight):
        return sparse.matmul(x, weight, reduce=reduce, transpose=transpose)

    assert_same(weighted, x, weight)
    # In float64, which PyG does not have here, against the products edge by edge.
    rows, cols = sparse.as_tensor() if not transpose else sparse.as_tensor().flip(0)

    def slow(x, weight):
        return utils.scatter(x[cols] * weight[:, None], rows, 0, NUM_NODES, reduce)

    expected = results(slow, x.double(), weight.double())
    with pyg.accelerate():
        torch.testing.assert_close(results(weighted, x.double(), weight.double()), expected)


def test_of_equal_maxima_the_first_has_the_whole_gradient():
    x = T([1.0, 2.0, 2.0], requires_grad=True)
    index = T([0, 0, 0])
    (split,) = torch.autograd.grad(utils.scatter(x, index, reduce="max").sum(), x)
    assert split.tolist() == [0, 0.5, 0.5]
    with pyg.accelerate():
        (first,) = torch.autograd.grad(utils.scatter(x, index, reduce="max").sum(), x)
    assert first.tolist() == [0, 1, 0]


# ---- what falls through --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: utils.scatter(T([True, False]), T([0, 0]), reduce="any"),
        lambda: utils.scatter(torch.ones(3, dtype=torch.int8), T([0, 2, 0])),
        lambda: utils.scatter(T([3, 4, 5]), T([0, 2, 0]), reduce="mean"),
        lambda: utils.scatter(torch.ones(2, dtype=torch.complex64), T([0, 1])),
        lambda: utils.scatter(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)),
        lambda: torch.func.vmap(lambda x: utils.scatter(x, T([0, 1, 0]), 0, 2))(torch.ones(4, 3)),
        lambda: torch.func.grad(lambda x: utils.softmax(x, T([0, 1, 0]))[0])(T([1.0, 2.0, 3.0])),
    ],
)
def test_what_is_not_covered_runs_as_before(call):
    expected = call()
    with pyg.accelerate():
        torch.testing.assert_close(call(), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda: utils.scatter(torch.ones(2), T([0, 7]), 0, 2),
        lambda: utils.scatter(torch.ones(2), T([0, -1]), 0, 2),
        lambda: utils.scatter(torch.ones(2), T([[0, 1]])),
        lambda: utils.scatter(torch.ones(2), T([0, 1]), 3),
        lambda: utils.scatter(torch.ones(2), T([0, 1]), reduce="best"),
        lambda: utils.softmax(torch.ones(2)),
        lambda: gnn.GINConv(torch.nn.Identity())(torch.ones(2, 1), T([[0, 5], [0, 1]])),
        lambda: gnn.GINConv(torch.nn.Identity())(torch.ones(2, 1), T([[0, 1], [0, 5]])),
        lambda: gnn.global_add_pool(torch.ones(2, 1), T([0, 5]), 2),
        lambda: EdgeIndex(T([[1, 0], [0, 1]])).matmul(torch.ones(2, 1)),
    ],
)
def test_errors_are_those_of_pyg(call):
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        call()
    with pyg.accelerate(), pytest.raises(Exception) as ours:  # noqa: PT011
        call()
    assert type(ours.value) is type(theirs.value)
    assert str(ours.value) == str(theirs.value)


def test_compiled_calls_are_left_to_pyg(graph):
    x, edge_index = graph

    def call(x):
        return utils.scatter(x[edge_index[0]], edge_index[1], 0, NUM_NODES, "mean")

    expected = call(x)
    with pyg.accelerate():
        compiled = torch.compile(call, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        assert len(pyg._MEMORY) == 0


def test_inference_mode_works(graph):
    x, edge_index = graph
    layer = gnn.SAGEConv(WIDTH, 5).double()
    expected = layer(x, edge_index)
    with torch.inference_mode(), pyg.accelerate():
        torch.testing.assert_close(layer(x, edge_index), expected)
        torch.testing.assert_close(layer(x, edge_index.clone()), expected)


# ---- the switch ----------------------------------------------------------------------------------


def places():
    """Where the four functions are bound in PyG, and the method."""
    names = {}
    watched = [utils.scatter, utils.segment, utils.softmax, torch_geometric.edge_index._spmm]
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] == "torch_geometric":
            for key, value in list(vars(module).items()):
                if any(value is w for w in watched):
                    names[module_name, key] = value
    return names, MessagePassing._index_select


def test_every_binding_is_replaced_and_restored():
    before, method = places()
    assert ("torch_geometric.nn.aggr.base", "scatter") in before
    assert ("torch_geometric.nn.conv.transformer_conv", "softmax") in before
    handle = pyg.accelerate()
    during, other = places()
    assert during.keys() == before.keys()
    assert all(during[k] is not before[k] for k in before)
    assert other is not method
    handle.undo()
    handle.undo()
    assert places() == (before, method)


def test_an_exception_restores_it():
    before = places()
    with pytest.raises(KeyError), pyg.accelerate():
        raise KeyError
    assert places() == before


def test_calls_nest_and_may_end_in_any_order():
    before = places()
    first = pyg.accelerate()
    during = places()
    with pyg.accelerate():
        assert places() == during
        first.undo()
        first.undo()
        assert places() == during
    assert places() == before


def test_modules_imported_in_between_are_restored(monkeypatch):
    late = types.ModuleType("torch_geometric.late")
    own = utils.scatter
    with pyg.accelerate():
        monkeypatch.setitem(sys.modules, late.__name__, late)
        late.scatter = utils.scatter
        assert late.scatter is not own
    assert late.scatter is own


def test_a_failure_on_the_way_restores_it(monkeypatch):
    before = places()

    def fail(theirs):
        raise RuntimeError("on the way")

    monkeypatch.setattr(pyg, "_select_route", fail)
    with pytest.raises(RuntimeError, match="on the way"):
        pyg.accelerate()
    monkeypatch.undo()
    assert places() == before
    with pyg.accelerate():
        assert places() != before
    assert places() == before


# ---- what is remembered --------------------------------------------------------------------------


def test_an_index_written_to_is_sorted_again():
    x, edge_index = draw(4, 2), T([[0, 1, 2, 3], [0, 0, 1, 1]])
    with pyg.accelerate():
        for change in (lambda: None, lambda: edge_index[1].fill_(1), lambda: edge_index.zero_()):
            change()
            found = utils.scatter(x, edge_index[1], 0, 2)
            expected = torch.zeros(2, 2, dtype=x.dtype).index_add(0, edge_index[1], x)
            torch.testing.assert_close(found, expected)


def test_a_gradient_is_that_of_the_index_at_the_call():
    x, index = T([1.0, 2.0, 3.0], requires_grad=True), T([0, 1, 0])
    with pyg.accelerate():
        out = utils.scatter(x, index, 0, 2, "mean")
        index.fill_(1)
        (grad,) = torch.autograd.grad(out[0], x)
    assert grad.tolist() == [0.5, 0, 0.5]


def test_memory_finds_views_of_one_tensor_and_nothing_else():
    memory = Memory()
    edge_index = T([[2, 1, 0], [0, 1, 0]])
    first = memory.order(edge_index[0], 3)
    assert memory.order(edge_index[0], 3) is first
    assert memory.order(edge_index[1], 3) is not first
    assert memory.order(edge_index[0], 4) is not first
    assert memory.order(edge_index[0].clone(), 3) is not first
    assert memory.order(edge_index[0, :2], 3) is not first
    assert memory.order(edge_index.flatten()[::2], 3) is not first
    edge_index[1, 0] = 1
    assert memory.order(edge_index[0], 3) is not first
    plan = memory.plan(edge_index, 3, 2)
    assert memory.plan(edge_index, 3, 2) is plan
    assert memory.plan(edge_index, 3, 3) is not plan


def test_memory_is_bounded_and_forgets_the_dead():
    memory = Memory(2)
    tensors = [T([1, 0]) for _ in range(3)]
    orders = [memory.order(t, 2) for t in tensors]
    assert len(memory) == 2
    assert memory.order(tensors[2], 2) is orders[2]
    assert memory.order(tensors[0], 2) is not orders[0]
    del tensors, orders
    gc.collect()
    assert len(memory) == 0
    edge_index = T([[1, 0], [0, 1]])
    memory.order(edge_index[1], 2)
    view = edge_index[1]
    del edge_index  # lives on behind the view
    found = memory.order(view, 2)
    assert memory.order(view, 2) is found
    del view, found
    gc.collect()
    assert len(memory) == 0


def test_memory_is_cleared_at_the_end(graph):
    x, edge_index = graph
    with pyg.accelerate():
        utils.scatter(x[edge_index[0]], edge_index[1])
        assert len(pyg._MEMORY) == 1
    assert len(pyg._MEMORY) == 0


def test_errors_of_an_index_are_not_remembered():
    memory = Memory()
    with pytest.raises(IndexError, match="out of range"):
        memory.order(T([0, 5]), 2)
    assert len(memory) == 0
