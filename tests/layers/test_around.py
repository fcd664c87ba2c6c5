"""Readouts, normalisations and jumping knowledge, against PyG's and graph by graph."""

import pytest
import torch
from torch import nn

from gnnlab.layers import (
    MLP,
    AttentionReadout,
    GraphNorm,
    JumpingKnowledge,
    LayerNorm,
    PairNorm,
    Readout,
    SoftmaxReadout,
    TimeEncoder,
)

BATCH = torch.tensor([0] * 5 + [1] * 2 + [3] * 8)


def features(seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(len(BATCH), 6, generator=random, dtype=torch.float64)


def pyg():
    return pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")


def aggr():
    pyg()
    return pytest.importorskip("torch_geometric.nn.aggr")


NETS = nn.Linear(6, 1).double(), nn.Linear(6, 4).double()


def randomly(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def pairs():
    """Returns name -> (ours, PyG's as a function of x, batch)."""
    library, theirs = pyg(), aggr()
    norm, layer = randomly(GraphNorm(6).double()), randomly(LayerNorm(6).double())
    their_norm, their_layer = library.GraphNorm(6).double(), library.LayerNorm(6).double()
    their_norm.load_state_dict(norm.state_dict())
    their_layer.load_state_dict(layer.state_dict())
    return {
        "sum": (Readout("sum"), library.global_add_pool),
        "mean": (Readout("mean"), library.global_mean_pool),
        "max": (Readout("max"), library.global_max_pool),
        "softmax": (SoftmaxReadout(0.7).double(), theirs.SoftmaxAggregation(0.7)),
        "attention": (AttentionReadout(*NETS), theirs.AttentionalAggregation(*NETS)),
        "graph norm": (norm, their_norm),
        "layer norm": (layer, their_layer),
        "pair norm": (PairNorm(scale=2.0), library.PairNorm(scale=2.0)),
        "pair norm of each": (
            PairNorm(individually=True),
            library.PairNorm(scale_individually=True),
        ),
    }


NAMES = (
    "sum",
    "mean",
    "max",
    "softmax",
    "attention",
    "graph norm",
    "layer norm",
    "pair norm",
    "pair norm of each",
)


@pytest.mark.parametrize("name", NAMES)
def test_equals_pyg(name):
    ours, theirs = pairs()[name]
    x = features().requires_grad_()
    found, wanted = ours(x, BATCH), theirs(x, BATCH)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(found)
    a = torch.autograd.grad(found, x, grad)[0]
    b = torch.autograd.grad(wanted, x, grad)[0]
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


MAKE = {
    "sum": Readout,
    "mean": lambda: Readout("mean"),
    "max": lambda: Readout("max"),
    "softmax": lambda: SoftmaxReadout(0.7, learn=True),
    "attention": lambda: AttentionReadout(*NETS),
    "graph norm": lambda: randomly(GraphNorm(6)),
    "layer norm": lambda: randomly(LayerNorm(6)),
    "pair norm": PairNorm,
    "pair norm of each": lambda: PairNorm(individually=True),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_its_graphs_give_alone(name):
    module, x = MAKE[name]().double(), features()
    whole = module(x, BATCH, 5)
    alone = {i: module(x[i == BATCH]) for i in (0, 1, 3)}
    if whole.shape[0] == 5:  # a readout: graphs 2 and 4 have no nodes
        assert (whole[[2, 4]] == 0).all()
        torch.testing.assert_close(whole[[0, 1, 3]], torch.cat(list(alone.values())))
    else:
        torch.testing.assert_close(whole, torch.cat(list(alone.values())))
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, BATCH, 5), whole)
    assert module(x[:0]).shape[1] == whole.shape[1]  # a graph without nodes


def test_gradients_equal_finite_differences():
    for name in NAMES:
        module = MAKE[name]().double()
        x = features(1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, m=module: m(x, BATCH, 4), x, fast_mode=True)


@pytest.mark.parametrize("mode", ["cat", "max", "lstm"])
def test_jumping_knowledge_equals_pyg(mode):
    ours = JumpingKnowledge(mode, dim=6, num_layers=3).double()
    theirs = pyg().JumpingKnowledge(mode, channels=6, num_layers=3).double()
    theirs.load_state_dict(ours.state_dict())
    xs = [features(seed) for seed in range(3)]
    torch.testing.assert_close(ours(xs), theirs(xs), rtol=1e-10, atol=1e-10)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r'unknown reduce "median"\. Known: sum, mean, max'):
        Readout("median")
    with pytest.raises(ValueError, match=r"one graph per node, shape \(15,\), got \(3,\)"):
        Readout()(features(), BATCH[:3])
    with pytest.raises(ValueError, match='mode "lstm" needs dim and num_layers'):
        JumpingKnowledge("lstm")
    with pytest.raises(ValueError, match='unknown mode "sum"'):
        JumpingKnowledge("sum")


@pytest.mark.parametrize(
    ("module", "given"),
    [
        (JumpingKnowledge("cat"), [[torch.randn(5, 4), torch.randn(5, 3)]]),
        (JumpingKnowledge("max"), [[torch.randn(5, 4), torch.randn(5, 4)]]),
        (JumpingKnowledge("lstm", dim=4, num_layers=2), [[torch.randn(5, 4), torch.randn(5, 4)]]),
        (MLP(4, 3, hidden=5), [torch.randn(5, 4)]),
        (TimeEncoder(6), [torch.rand(5) * 1e9, 3.0]),
    ],
    ids=["cat", "max", "lstm", "MLP", "TimeEncoder"],
)
def test_what_has_no_edges_compiles_whole_too(module, given):
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):  # torch leaves LSTMs out by default
        torch.testing.assert_close(compiled(*given), module(*given))
