"""DeepStack: its equations, its residuals, and what recomputing saves."""

import pytest
import torch
from torch import nn

import gnnlab.layers.stack
from gnnlab.graph import Graph
from gnnlab.layers import (
    DeepStack,
    GATConv,
    GCNConv,
    GraphNorm,
    InteractionBlock,
    JumpingKnowledge,
    TransformerConv,
)

N, D = 12, 6


def given(num_nodes=N, num_edges=50, dim=D):
    random = torch.Generator().manual_seed(0)
    edges = torch.randint(num_nodes, (2, num_edges), generator=random)
    return torch.randn(num_nodes, dim, generator=random), edges


def make(layer=lambda i: GCNConv(D, D), num_layers=4, **options):
    torch.manual_seed(0)
    return DeepStack(layer, num_layers, **options)


def by_hand(stack, x, edges, batch=None):
    h, outputs = x, []
    for i, layer in enumerate(stack.layers):
        norm = nn.Identity() if stack.norms is None else stack.norms[i]
        norm_of = norm if batch is None else (lambda h, norm=norm: norm(h, batch))
        if stack.order == "pre":
            u = layer(torch.relu(norm_of(h)), edges)
        else:
            u = torch.relu(norm_of(layer(h, edges)))
        h = {"none": u, "add": h + u, "initial": 0.8 * u + 0.2 * x}[stack.residual]
        outputs.append(h)
    return h if stack.jumping is None else stack.jumping(outputs)


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("residual", ["none", "add", "initial"])
@pytest.mark.parametrize("checkpoint", [0, 1, 3])
def test_stack_equals_its_layers_one_by_one(order, residual, checkpoint):
    options = {"order": order, "residual": residual, "alpha": 0.2, "checkpoint": checkpoint}
    x, edges = given()
    x.requires_grad_()
    batch = torch.tensor([0] * 5 + [1] * 7)
    for more in (
        {},
        {"norm": lambda: nn.LayerNorm(D)},
        {"norm": lambda: GraphNorm(D), "jumping": JumpingKnowledge("cat")},
    ):
        stack = make(**options, **more)
        seen = batch if "jumping" in more else None
        found, wanted = stack(x, edges, batch=seen), by_hand(stack, x, edges, seen)
        torch.testing.assert_close(found, wanted)
        leaves = [x, *stack.parameters()]
        grad = torch.randn_like(found)
        for a, b in zip(
            torch.autograd.grad(found, leaves, grad),
            torch.autograd.grad(wanted, leaves, grad),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_pre_order_with_addition_equals_that_of_pyg():
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    stack = make(norm=lambda: nn.LayerNorm(D), order="pre", residual="add")
    x, edges = given()
    h = x
    for layer, norm in zip(stack.layers, stack.norms, strict=True):
        h = pyg.DeepGCNLayer(layer.to_pyg(), norm, nn.ReLU(), block="res+")(h, edges)
    torch.testing.assert_close(stack(x, edges), h)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(
    "layer",
    [
        lambda i: GCNConv(D, D),
        lambda i: GATConv(D, 3, heads=2, dropout=0.5),
        lambda i: TransformerConv(D, 3, heads=2, dropout=0.5),
    ],
)
def test_recomputing_gives_the_same_gradients_with_dropout(layer, size):
    x, edges = given()
    graph, found = Graph(edges, N), []
    for checkpoint in (0, size):
        stack = make(layer, dropout=0.3, residual="add", checkpoint=checkpoint)
        leaf = x.clone().requires_grad_()
        torch.manual_seed(5)
        out = stack(leaf, graph)
        out.square().sum().backward()
        after = torch.rand(1)  # the same numbers come next
        found.append([out, leaf.grad, after, *(p.grad for p in stack.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def peak_of(step):
    """Returns how many bytes of tensors were alive at once, more than before."""
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    sizes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    total = peak = 0
    for _, size in sizes:
        total += size
        peak = max(peak, total)
    return peak


def test_recomputing_saves_memory():
    x, edges = given(4000, 12000, 32)
    graph, depth, peaks = Graph(edges, 4000), 16, {}
    one = x.numel() * x.element_size()
    for checkpoint in (0, 1, 4):
        stack = make(
            lambda i: GATConv(32, 8, heads=4),
            depth,
            norm=lambda: nn.LayerNorm(32),
            residual="add",
            checkpoint=checkpoint,
        )
        stack(x, graph).sum().backward()  # sorts edges, makes gradients of weights
        peaks[checkpoint] = peak_of(lambda stack=stack: stack(x, graph).sum().backward()) / one
    assert peaks[0] > 3 * depth  # several arrays of each layer
    assert peaks[1] < 2 * depth  # one of each
    assert peaks[1] < 0.5 * peaks[0]
    assert peaks[4] < 0.5 * peaks[0]


def test_edges_are_sorted_once_for_all_layers(monkeypatch):
    x, edges = given()
    prepare, calls = gnnlab.layers.stack.prepare, []

    def counted(*args):
        calls.append(args)
        return prepare(*args)

    class Asks(nn.Module):
        def forward(self, h, edges):
            calls.append(edges)
            return h

    monkeypatch.setattr(gnnlab.layers.stack, "prepare", counted)
    make(lambda i: Asks())(x, edges)
    assert len(calls) == 5
    assert len({id(plan) for plan in calls[1:]}) == 1


@pytest.mark.parametrize("checkpoint", [0, 2])
def test_layers_that_return_edges_hand_them_on(checkpoint):
    names = ("mesh", "contact")
    stack = make(
        lambda i: InteractionBlock(D, edge_sets=names),
        3,
        activation=None,
        checkpoint=checkpoint,
    )
    x, edges = given()
    both = {"mesh": edges, "contact": edges[:, :7].flip(0)}
    e = {"mesh": torch.randn(50, D), "contact": torch.randn(7, D)}
    v, found = stack(x, both, e)
    wanted_v, wanted = x, e
    for block in stack.layers:
        wanted_v, wanted = block(wanted_v, both, wanted)
    torch.testing.assert_close(v, wanted_v)
    torch.testing.assert_close(found, wanted)


def test_stack_compiles_without_graph_breaks():
    torch.compiler.reset()
    stack = make(norm=lambda: nn.LayerNorm(D), residual="initial")
    x, edges = given()
    compiled = torch.compile(stack, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, edges), stack(x, edges))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r'unknown residual "dense"\. Known: none, add, initial'):
        make(residual="dense")
    with pytest.raises(ValueError, match='unknown order "both"'):
        make(order="both")
    with pytest.raises(ValueError, match=r"num_layers of at least 1 .* got 0 and 0"):
        make(num_layers=0)
    stack = make(lambda i: GCNConv(D, D if i < 2 else 3), 3, residual="add")
    with pytest.raises(ValueError, match=r'"add" cannot join \(12, 3\), which layer 2 gives, with'):
        stack(*given())
    assert "residual='add', checkpoint=2" in repr(make(residual="add", checkpoint=2))
