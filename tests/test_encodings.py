"""Positional encodings against dense matrices, and against PyG's transforms."""

import networkx as nx
import numpy as np
import pytest
import torch

from gnnlab.graph import Graph
from gnnlab.transforms import encodings, laplacian_encoding, random_walk_encoding

pytest.importorskip("scipy", reason="scipy is not installed")


def connected(num_nodes=30, seed=0, weighted=False):
    """Returns a connected graph without symmetries, both directions of each edge."""
    made = nx.connected_watts_strogatz_graph(num_nodes, 4, 0.5, seed=seed)
    ends = torch.tensor(list(made.edges)).t()
    weight = None
    if weighted:
        weight = torch.rand(ends.shape[1], generator=torch.Generator().manual_seed(0)).double()
        weight = torch.cat([weight, weight]) + 0.1
    return Graph(torch.cat([ends, ends.flip(0)], 1), num_nodes, edge_weight=weight)


def together(*graphs):
    shifts = np.cumsum([0] + [g.num_nodes for g in graphs])
    edges = [g.edge_index + shift for g, shift in zip(graphs, shifts, strict=False)]
    return Graph(torch.cat(edges, 1), int(shifts[-1]))


def dense(graph):
    a = np.zeros((graph.num_nodes,) * 2)
    weight = torch.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight
    np.add.at(a, tuple(graph.edge_index.numpy()), weight.numpy())
    return a


def laplacian(graph, normalization):
    a = dense(graph)
    a = (a + a.T) / 2
    np.fill_diagonal(a, 0)
    d = a.sum(1)
    if normalization == "none":
        return np.diag(d) - a
    if normalization == "rw":
        return np.eye(len(d)) - a / d[:, None]
    return np.eye(len(d)) - a / np.sqrt(d[:, None] * d[None])


def up_to_sign(found, wanted, tolerance=1e-8):
    product = (found * wanted).sum(0)
    np.testing.assert_allclose(np.abs(product), 1, atol=tolerance)
    np.testing.assert_allclose(found, wanted * np.sign(product), atol=tolerance)


@pytest.mark.parametrize("normalization", ["sym", "rw", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_columns_are_eigenvectors_from_the_second_on(normalization, weighted):
    graph = connected(weighted=weighted)
    found = laplacian_encoding(graph, 6, normalization=normalization, dtype=torch.float64).numpy()
    values, vectors = np.linalg.eig(laplacian(graph, normalization))
    order = np.argsort(values.real)[1:7]
    assert np.diff(values.real[order]).min() > 1e-6  # else a basis would not be unique
    vectors = vectors.real[:, order] / np.linalg.norm(vectors.real[:, order], axis=0)
    up_to_sign(found, vectors)
    largest = np.abs(found).argmax(0)
    assert (found[largest, np.arange(6)] > 0).all()


@pytest.mark.parametrize("normalization", ["sym", "rw", "none"])
def test_large_components_give_what_dense_matrices_give(normalization, monkeypatch):
    graph = connected(300, weighted=True)
    options = {"normalization": normalization, "dtype": torch.float64}
    wanted = laplacian_encoding(graph, 5, **options)
    monkeypatch.setattr(encodings, "_dense_vectors", lambda *_: pytest.fail("dense"))
    monkeypatch.setattr(encodings, "_DENSE", 100)
    found = laplacian_encoding(graph, 5, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)  # signs too
    assert torch.equal(laplacian_encoding(graph, 5, **options), found)

    from scipy.sparse import linalg

    eigsh, calls = linalg.eigsh, []

    def slow(*args, **options):
        calls.append(options)
        if "sigma" not in options:
            raise linalg.ArpackNoConvergence("%s", np.zeros(0), np.zeros((300, 0)))
        return eigsh(*args, **options)

    monkeypatch.setattr(linalg, "eigsh", slow)
    again = laplacian_encoding(graph, 5, **options)
    assert len(calls) == 2
    torch.testing.assert_close(again, wanted, rtol=1e-7, atol=1e-7)


def test_equals_pyg_up_to_sign():
    transforms = pytest.importorskip("torch_geometric.transforms", reason="no torch_geometric")
    graph = connected()
    data = transforms.AddLaplacianEigenvectorPE(5, is_undirected=True)(graph.to_pyg())
    found = laplacian_encoding(graph, 5)
    up_to_sign(found.numpy(), data.laplacian_eigenvector_pe.numpy(), 1e-4)
    loops = torch.tensor([[0, 3], [0, 3]])
    graph = Graph(torch.cat([graph.edge_index, loops], 1), 30)
    data = transforms.AddRandomWalkPE(9)(graph.to_pyg())
    torch.testing.assert_close(random_walk_encoding(graph, 9), data.random_walk_pe)


def test_components_and_graphs_of_a_batch_do_not_see_one_another():
    parts = [connected(12, 1), connected(7, 2), connected(12, 3)]
    alone = Graph(torch.zeros(2, 0, dtype=torch.int64), 2)  # two nodes without edges
    whole = together(parts[0], alone, *parts[1:])
    for encode in (laplacian_encoding, random_walk_encoding):
        each = [encode(part, 9) for part in (parts[0], alone, *parts[1:])]
        torch.testing.assert_close(encode(whole, 9), torch.cat(each))
    found = laplacian_encoding(whole, 9)
    assert not found[14:21, 6:].any()  # seven nodes have six columns
    assert found[14:21, :6].abs().sum(0).min() > 0
    assert not found[12:14].any()


@pytest.mark.parametrize("normalization", ["sym", "rw", "none"])
def test_both_directions_are_averaged_and_loops_left_out(normalization):
    graph = connected()
    half = graph.edge_index[:, : graph.num_edges // 2]
    loops = torch.arange(5).repeat(2, 1)
    directed = Graph(torch.cat([half, half, loops], 1), 30)
    found = laplacian_encoding(directed, 4, normalization=normalization)
    wanted = laplacian_encoding(graph, 4, normalization=normalization)
    torch.testing.assert_close(found, wanted)


def powers(graph, k):
    a = dense(graph)
    d = a.sum(1, keepdims=True)
    p = np.divide(a, d, out=np.zeros_like(a), where=d > 0)
    found, power = [], np.eye(len(a))
    for _ in range(k):
        power = power @ p
        found.append(np.diag(power))
    return np.stack(found, 1)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_random_walks_equal_powers_of_a_dense_matrix(k, monkeypatch):
    random = torch.Generator().manual_seed(0)
    edges = torch.randint(38, (2, 90), generator=random)  # directed, loops, sinks, repetitions
    weight = torch.rand(90, generator=random).double()
    graph = Graph(edges, 40, edge_weight=weight)
    wanted = torch.from_numpy(powers(graph, k))
    assert (wanted[-2:] == 0).all()
    torch.testing.assert_close(random_walk_encoding(graph, k, dtype=torch.float64), wanted)
    monkeypatch.setattr(encodings, "_lean", lambda matrix: matrix)  # sparse to the end
    torch.testing.assert_close(random_walk_encoding(graph, k, dtype=torch.float64), wanted)


def test_random_walks_start_in_blocks(monkeypatch):
    graph = connected(200)
    monkeypatch.setattr(encodings, "_WALKS", 1)  # 64 nodes at a time
    found = random_walk_encoding(graph, 6, dtype=torch.float64)
    torch.testing.assert_close(found, torch.from_numpy(powers(graph, 6)))


@pytest.mark.parametrize("encode", [laplacian_encoding, random_walk_encoding])
def test_small_cases_and_errors(encode):
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert encode(Graph(none, 0), 3).shape == (0, 3)
    assert encode(Graph(none, 4), 3).tolist() == [[0, 0, 0]] * 4
    assert encode(connected(), 0).shape == (30, 0)
    assert encode(connected(), 2).dtype == torch.float32
    with pytest.raises(ValueError, match=r"needs one kind of nodes, got Graph\(num_src=3"):
        encode(Graph(torch.tensor([[0], [1]]), (3, 2)), 2)
    with pytest.raises(ValueError, match="weights must not be negative, got -1"):
        encode(Graph(torch.tensor([[0], [1]]), 2, edge_weight=torch.tensor([-1.0])), 2)
    with pytest.raises(ValueError, match="k must not be negative, got -2"):
        encode(connected(), -2)


def test_unknown_normalization_is_named():
    with pytest.raises(ValueError, match='unknown normalization "symmetric"'):
        laplacian_encoding(connected(), 2, normalization="symmetric")


def test_a_missing_library_is_named(monkeypatch):
    from gnnlab.errors import MissingExtraError

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(encodings.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"needs scipy: pip install 'gnnlab\[transforms\]'"):
        laplacian_encoding(connected(), 2)
