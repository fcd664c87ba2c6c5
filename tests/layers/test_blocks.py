"""The blocks for meshes against their equations in plain torch, and the MLP inside them."""

import math

import pytest
import torch
from torch import nn

from gnnlab.graph import Graph
from gnnlab.layers import (
    MLP,
    ContactTransformerBlock,
    EdgeModulatedAttention,
    InteractionBlock,
    MeshTransformerBlock,
)

N, D, DE = 9, 8, 6
SETS = ("mesh", "contact")


def draw(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def edges_of(count, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(N - 1, (2, count), generator=random)  # the last node has no edges


def randomly(module):
    torch.manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():  # biases, scales and offsets too
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module


def agree(ours, theirs, leaves):
    """Asserts that values are equal, and gradients for leaves and parameters."""
    assert len(ours) == len(theirs)
    grads = []
    for found in (ours, theirs):
        total = sum((out * draw(*out.shape, seed=7 + i)).sum() for i, out in enumerate(found))
        grads.append(torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True))
    for a, b in zip((*ours, *grads[0]), (*theirs, *grads[1]), strict=True):
        a, b = (torch.zeros(1).double() if t is None else t for t in (a, b))
        torch.testing.assert_close(a, b.expand_as(a), rtol=1e-10, atol=1e-10)


# ---- MLP -----------------------------------------------------------------------------------------


def layers_of(mlp):
    """Returns the same network as a Sequential that shares the weights."""
    parts = []
    for lin in mlp.lins:
        parts += [lin, nn.ReLU()]
    return nn.Sequential(*parts[:-1], *([] if mlp.norm is None else [mlp.norm]))


def test_mlp_equals_a_sequence_of_maps():
    x = draw(4, 5)
    for num_hidden in (0, 1, 3):
        mlp = randomly(MLP(5, 3, hidden=7, num_hidden=num_hidden, layer_norm=True))
        assert len(mlp.lins) == num_hidden + 1
        torch.testing.assert_close(mlp(x), layers_of(mlp)(x))
    assert MLP(5, 3, bias=False).first.bias is None
    with pytest.raises(ValueError, match=r"num_hidden of at least 0, got .*num_hidden=-1"):
        MLP(5, 3, num_hidden=-1)


def test_weights_start_from_a_normal_cut_at_two_deviations():
    torch.manual_seed(0)
    lin = MLP(100, 400, num_hidden=0).first
    std = 1 / math.sqrt(100)
    assert lin.weight.abs().max() <= 2 * std
    assert lin.weight.abs().max() > 1.9 * std
    # A standard normal cut at 2 has a standard deviation of 0.8796.
    assert abs(float(lin.weight.detach().std()) / std - 0.8796) < 0.01
    assert not lin.bias.any()


# ---- InteractionBlock ----------------------------------------------------------------------------


def plain_interaction(block, v, edge_sets, features, reduce):
    """The equations with concatenation."""
    new, parts = [], [v]
    for mlp, (src, dst), e in zip(block.mlp_edges.values(), edge_sets, features, strict=True):
        message = layers_of(mlp)(torch.cat([v[src], v[dst], e], 1))
        total = torch.zeros(N, e.shape[1]).double().index_add(0, dst, message)
        if reduce == "mean":
            total = total / torch.bincount(dst, minlength=N).clamp(min=1)[:, None]
        parts.append(total)
        new.append(e + message)
    return v + layers_of(block.mlp_node)(torch.cat(parts, 1)), *new


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("counts", [(30,), (30, 12), (30, 0), (0,)])
def test_interaction_block_equals_its_equations(counts, reduce):
    names = None if len(counts) == 1 else SETS
    block = randomly(InteractionBlock(D, edge_dim=DE, edge_sets=names, hidden=5, reduce=reduce))
    v = draw(N, D, seed=1).requires_grad_()
    edges = [edges_of(count, i) for i, count in enumerate(counts)]
    e = [draw(count, DE, seed=i).requires_grad_() for i, count in enumerate(counts)]
    leaves = [v, *e, *block.parameters()]
    wanted = plain_interaction(block, v, edges, e, reduce)
    if names is None:
        agree(block(v, edges[0], e[0]), wanted, leaves)
        agree(block(v, Graph(edges[0], N), e[0]), wanted, leaves)
        return
    h, new = block(v, edges, e)
    agree((h, *new), wanted, leaves)
    h, named = block(v, dict(zip(SETS, edges, strict=True)), dict(zip(SETS, e, strict=True)))
    assert list(named) == list(SETS)
    agree((h, *named.values()), wanted, leaves)


def test_interaction_block_equals_metalayer_of_pyg():
    pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is not installed")
    block = randomly(InteractionBlock(D))
    on_edge, on_node = layers_of(block.mlp_edges["edge"]), layers_of(block.mlp_node)

    class EdgeModel(nn.Module):
        def forward(self, src, dst, edge_attr, u, batch):
            return on_edge(torch.cat([src, dst, edge_attr], 1))

    class NodeModel(nn.Module):
        def forward(self, x, edge_index, edge_attr, u, batch):
            total = torch.zeros_like(x).index_add(0, edge_index[1], edge_attr)
            return on_node(torch.cat([x, total], 1))

    v, e, edges = draw(N, D, seed=1).requires_grad_(), draw(30, D).requires_grad_(), edges_of(30)
    theirs = pyg.MetaLayer(EdgeModel(), NodeModel())
    new_v, new_e, _ = theirs(v, edges, e)
    agree(block(v, edges, e), (v + new_v, e + new_e), [v, e, *block.parameters()])


def test_interaction_block_has_the_parameters_of_the_paper():
    def size(block):
        return sum(p.numel() for p in block.parameters())

    assert 15 * size(InteractionBlock(128, edge_sets=SETS)) == 3_715_200
    assert 15 * size(InteractionBlock(128)) == 2_231_040


def test_interaction_block_never_makes_both_ends_and_the_edge_as_one_row():
    dim, count = 16, 64
    block = InteractionBlock(dim, hidden=24)
    shapes = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (shapes.add(tuple(t.shape)), t)[1], lambda t: t
    ):
        block(torch.randn(N, dim, requires_grad=True), edges_of(count), torch.randn(count, dim))
    widths = {shape[1] for shape in shapes if len(shape) == 2 and shape[0] == count}
    assert widths
    assert max(widths) <= 24


def test_interaction_block_says_what_does_not_fit():
    one, two = InteractionBlock(D), InteractionBlock(D, edge_sets=SETS)
    v, e, edges = torch.randn(N, D), torch.randn(4, D), edges_of(4)
    with pytest.raises(ValueError, match=r"one set of edges and expected edges .* got a dict"):
        one(v, {"mesh": edges}, {"mesh": e})
    with pytest.raises(ValueError, match="edges for the sets mesh, contact, got mesh, world"):
        two(v, {"mesh": edges, "world": edges}, {"mesh": e, "world": e})
    with pytest.raises(ValueError, match=r"e as a dict or a list of 2 \(mesh, contact\), got 1"):
        two(v, [edges, edges], [e])
    with pytest.raises(ValueError, match=r"edges as a dict or a list of 2 .* got Tensor"):
        two(v, edges, e)
    with pytest.raises(ValueError, match=r"edge_attr of shape \(4, 8\), one row per edge"):
        one(v, edges, torch.randn(5, D))
    with pytest.raises(ValueError, match="edge_sets must list names, got 'mesh'"):
        InteractionBlock(D, edge_sets="mesh")
    with pytest.raises(ValueError, match='unknown reduce "min"'):
        InteractionBlock(D, reduce="min")


# ---- mesh transformer ----------------------------------------------------------------------------


def plain_attention(attention, v, edges, e, normalize):
    """Loops over nodes and their edges, from the equation."""
    q, k, x = (v @ lin.weight.T for lin in (attention.lin_query, attention.lin_key,
                                            attention.lin_value))  # fmt: skip
    p, g = e @ attention.lin_score.weight.T, e @ attention.lin_gate.weight.T
    rows = []
    for i in range(len(v)):
        into = [(n, int(j)) for n, (j, to) in enumerate(edges.T) if to == i]
        a = [
            (p[n] * k[j] * q[i] / math.sqrt(D / attention.heads)).clip(-2, 2).exp() for n, j in into
        ]
        whole = sum(a) if normalize == "softmax" else 1
        row = 0 * v[i]
        for share, (n, j) in zip(a, into, strict=True):
            row = row + share / whole * x[j] * g[n]
        rows.append(row)
    return torch.stack(rows)


def plain_ffn(block, v):
    first, second, third = (lin.weight.T for lin in block.ffn.lins)
    return v + ((block.norm_ffn(v) @ first).relu() @ second).relu() @ third


@pytest.mark.parametrize("normalize", ["none", "softmax"])
@pytest.mark.parametrize("count", [30, 0])
def test_attention_equals_its_equation(count, normalize):
    attention = randomly(EdgeModulatedAttention(D, heads=2, edge_dim=DE, normalize=normalize))
    v, e = draw(N, D, seed=1).requires_grad_(), draw(count, DE).requires_grad_()
    edges = edges_of(count)
    wanted = plain_attention(attention, v, edges, e, normalize)
    leaves = [v, e, *attention.parameters()]
    agree([attention(v, edges, e)], [wanted], leaves)
    agree([attention(v, Graph(edges, N), e)], [wanted], leaves)


def test_scores_of_attention_reach_the_cut_and_stay_inside():
    attention = randomly(EdgeModulatedAttention(D, heads=2, edge_dim=DE))
    v, e, edges = draw(N, D, seed=1), draw(30, DE), edges_of(30)
    q, k, _ = attention.project(v)
    score = attention.lin_score(e) * q[edges[1]] * k[edges[0]]
    share = float((score.abs() > 2).double().mean())
    assert 0.02 < share < 0.9  # else the tests above would not see the cut


@pytest.mark.parametrize("normalize", ["none", "softmax"])
def test_mesh_transformer_block_equals_its_equations(normalize):
    block = randomly(MeshTransformerBlock(D, heads=2, edge_dim=DE, normalize=normalize))
    v, e = draw(N, D, seed=1).requires_grad_(), draw(30, DE).requires_grad_()
    edges = edges_of(30)
    h = plain_attention(block.attention, block.norm_node(v), edges, block.norm_edge(e), normalize)
    wanted = plain_ffn(block, v + h @ block.lin_out.weight.T)
    agree([block(v, edges, e)], [wanted], [v, e, *block.parameters()])


@pytest.mark.parametrize("num_contacts", [14, 0])
def test_contact_transformer_block_equals_its_equations(num_contacts):
    block = randomly(ContactTransformerBlock(D, heads=2, edge_dim=DE))
    v, e = draw(N, D, seed=1).requires_grad_(), draw(30, DE).requires_grad_()
    c = draw(num_contacts, DE, seed=3).requires_grad_()
    edges, contact = edges_of(30), edges_of(num_contacts, 1)
    x = block.norm_node(v)
    both = [
        plain_attention(block.attention, x, edges, block.norm_edge(e), "none"),
        plain_attention(block.attention, x, contact, block.norm_contact(c), "none"),
    ]
    wanted = plain_ffn(block, v + torch.cat(both, 1) @ block.lin_out.weight.T)
    agree([block(v, edges, e, contact, c)], [wanted], [v, e, c, *block.parameters()])


def test_transformer_blocks_have_the_parameters_of_the_paper():
    def size(block):
        return sum(p.numel() for p in block.parameters())

    assert size(MeshTransformerBlock(128)) == 148_224
    assert size(ContactTransformerBlock(128)) == 164_864


def test_transformer_blocks_say_what_does_not_fit():
    with pytest.raises(ValueError, match="multiple of heads, got dim=8 and heads=3"):
        EdgeModulatedAttention(8, heads=3)
    with pytest.raises(ValueError, match='unknown normalize "sum"'):
        MeshTransformerBlock(8, normalize="sum")
    block, v, e, edges = ContactTransformerBlock(D), torch.randn(N, D), draw(4, D), edges_of(4)
    with pytest.raises(ValueError, match=r"ContactTransformerBlock expected edge_attr .*\(4, 8\)"):
        block(v, edges, e.float(), edges, torch.randn(3, D))
