"""Neighbour searches against all pairs in float64, scipy's k-d tree, and hand-made cases."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from gnnlab import ops
from gnnlab.ops import NeighborList, knn, knn_graph, knn_table, neighbors, radius, radius_graph


@pytest.fixture(params=["auto", "reference"])
def backend(request):
    with ops.use_backend(request.param):
        yield request.param


def uniform(num, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, dim, generator=generator, dtype=torch.float64).to(dtype)


def squared(x, y):
    """Squared distances in numpy, (len(y), len(x)), added in order of dimension."""
    x, y = x.double().numpy(), y.double().numpy()
    total = np.zeros((len(y), len(x)))
    with np.errstate(over="ignore", under="ignore"):
        for d in range(x.shape[1]):
            total += (y[:, None, d] - x[None, :, d]) ** 2
    return total


def distances(x, y):
    return np.sqrt(squared(x, y))


def hidden(x, y, batch_x, batch_y, own):
    """Which pairs do not count, (len(y), len(x))."""
    gone = np.zeros((len(y), len(x)), dtype=bool)
    if batch_x is not None:
        gone |= batch_y.numpy()[:, None] != batch_x.numpy()[None]
    if own:
        np.fill_diagonal(gone, True)
    return gone


def brute_radius(x, y, r, batch_x=None, batch_y=None, own=False):
    near = (distances(x, y) < r) & ~hidden(x, y, batch_x, batch_y, own)
    target, source = near.nonzero()
    return torch.from_numpy(np.stack([source, target]))


def brute_knn(x, y, k, batch_x=None, batch_y=None, own=False):
    gone, far = hidden(x, y, batch_x, batch_y, own), squared(x, y)
    edges = []
    for t in range(len(y)):
        allowed = [s for s in range(len(x)) if not gone[t, s]]
        allowed.sort(key=lambda s: (far[t, s], s))
        edges += [(s, t) for s in allowed[:k]]
    return torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T


def clouds():
    """Named clouds of points that a grid finds hard, and one that it finds easy."""
    lattice = torch.cartesian_prod(*[torch.arange(5.0)] * 3).double()
    return {
        "uniform 1": uniform(150, 1),
        "uniform 2": uniform(200, 2),
        "uniform 3": uniform(200, 3),
        "uniform 5": uniform(120, 5),
        "lattice": lattice,  # ties, and distances equal to r
        "line in space": torch.cat([uniform(90, 1), torch.full((90, 2), 3.0).double()], 1),
        "coincident": torch.cat([torch.full((70, 2), 0.25).double(), uniform(30, 2)]),
        "clusters": torch.cat([uniform(60, 3) * 1e-6, uniform(60, 3) * 1e-6 + 1, uniform(9, 3)]),
        "one far away": torch.cat([uniform(80, 2), torch.tensor([[1e15, -1e15]]).double()]),
        "huge": uniform(90, 3) * 1e160 - 5e159,
        "overflowing": (uniform(40, 2) - 0.5) * 2 * 1.7e308,
        "tiny": uniform(90, 2) * 1e-290,
        "no dimension": torch.empty(6, 0, dtype=torch.float64),
    }


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("loop", [False, True])
def test_radius_graph_equals_all_pairs(name, loop, backend):
    x = clouds()[name]
    finite = distances(x, x)
    scale = float(np.median(finite)) or 1.0
    for r in (1e-300, 1e-9, 0.05 * scale, 0.3 * scale, 1.0, 2.0, 1e300, float("inf")):
        expected = brute_radius(x, x, r, own=not loop)
        assert torch.equal(radius_graph(x, r, loop=loop), expected), r


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("loop", [False, True])
def test_knn_graph_equals_all_pairs(name, loop, backend):
    x = clouds()[name]
    for k in (0, 1, 7, 40, len(x) + 5):
        expected = brute_knn(x, x, k, own=not loop)
        assert torch.equal(knn_graph(x, k, loop=loop), expected), k


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 17])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_two_sets_in_batches_equal_all_pairs(dim, dtype, backend):
    x, y = uniform(130, dim, 1, dtype), uniform(70, dim, 2, dtype) * 3 - 1
    generator = torch.Generator().manual_seed(3)
    batch_x = torch.randint(5, (130,), generator=generator)  # in any order
    batch_y = torch.randint(6, (70,), generator=generator)  # graph 5 has no x
    for r in (0.1, 0.5, 4.0):
        expected = brute_radius(x, y, r, batch_x, batch_y)
        assert torch.equal(radius(x, y, r, batch_x, batch_y), expected)
        assert torch.equal(radius(x, y, r), brute_radius(x, y, r))
    for k in (1, 6, 60):
        expected = brute_knn(x, y, k, batch_x, batch_y)
        assert torch.equal(knn(x, y, k, batch_x, batch_y), expected)
        assert torch.equal(knn(x, y, k), brute_knn(x, y, k))


@pytest.mark.parametrize("dim", [2, 4])
def test_graphs_of_a_batch_do_not_see_one_another(dim, backend):
    x, batch = uniform(90, dim), torch.arange(90) % 4 * 10**12  # numbers of graphs may have gaps
    for graphs in (batch, batch // 10**12):
        found = radius_graph(x, 0.4, graphs)
        assert torch.equal(found, brute_radius(x, x, 0.4, graphs, graphs, own=True))
        found = knn_graph(x, 30, graphs)
        assert torch.equal(found, brute_knn(x, x, 30, graphs, graphs, own=True))
        assert (graphs[found[0]] == graphs[found[1]]).all()


@pytest.mark.parametrize("dim", [2, 3])
def test_both_equal_a_kd_tree(dim):
    spatial = pytest.importorskip("scipy.spatial", reason="scipy is not installed")
    x, y = uniform(3000, dim, 4), uniform(700, dim, 5)
    tree = spatial.cKDTree(x.numpy())
    r = (18 / 3000 / (3.14159 if dim == 2 else 4.18879)) ** (1 / dim)
    found = radius(x, y, r)
    expected = tree.query_ball_point(y.numpy(), r, return_sorted=True)
    assert found[0].tolist() == [s for row in expected for s in row]
    assert found[1].bincount(minlength=700).tolist() == [len(row) for row in expected]
    _, nearest = tree.query(y.numpy(), 16)
    assert torch.equal(knn(x, y, 16)[0].reshape(700, 16), torch.from_numpy(nearest))


def test_distance_equal_to_the_radius_is_outside(backend):
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert radius_graph(x, 1.0).shape == (2, 0)
    assert radius_graph(x, 1.0 + 1e-15).tolist() == [[1, 0], [0, 1]]
    # 0.1 in float32 is 0.100000001..., and counts as that.
    x = torch.tensor([[0.0], [0.1]])
    assert radius_graph(x, 0.1).shape == (2, 0)
    assert radius_graph(x, 0.10000001).shape[1] == 2


def test_ties_go_to_the_smaller_number(backend):
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]])
    assert knn(x, torch.zeros(1, 2), 3)[0].tolist() == [4, 0, 1]
    assert knn_graph(torch.zeros(300, 2), 2)[0].reshape(300, 2)[[0, 5]].tolist() == [[1, 2], [0, 1]]


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_no_points(dim, backend):
    none, some = torch.empty(0, dim), uniform(4, dim)
    for found in (
        radius_graph(none, 1.0),
        knn_graph(none, 3),
        radius(none, some, 1.0),
        radius(some, none, 1.0),
        knn(none, some, 2),
        knn(some, none, 2),
        radius_graph(none, 1.0, torch.empty(0, dtype=torch.int64)),
        knn_graph(some[:1], 3),
        radius_graph(some[:1], 1.0),
    ):
        assert found.shape == (2, 0)
        assert found.dtype == torch.int64


def test_threads_do_not_show():
    x, batch = uniform(20_000, 3), torch.arange(20_000) % 3
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            wide = torch.cat([x[:1500]] * 2, 1)
            found.append(
                (
                    radius_graph(x, 0.07, batch),
                    knn_graph(x, 9, batch),
                    radius_graph(wide, 0.3),
                    knn_graph(wide, 9),
                )
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_renumbered_points_give_the_same_pairs():
    x = uniform(400, 2)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    for search in (lambda p: radius_graph(p, 0.1), lambda p: knn_graph(p, 6)):
        moved = order[search(x[order])]
        assert set(map(tuple, moved.T.tolist())) == set(map(tuple, search(x).T.tolist()))


def test_a_cap_keeps_the_shortest_edges_and_warns_once(backend, monkeypatch):
    monkeypatch.setattr(neighbors, "_capped", False)
    x = torch.cat([uniform(60, 2), torch.cartesian_prod(*[torch.arange(4.0)] * 2).double()])
    every = radius_graph(x, 1.5)
    far = squared(x, x)
    order = sorted(every.T.tolist(), key=lambda e: (far[e[1], e[0]], *e))
    with pytest.warns(RuntimeWarning, match=rf"found {every.shape[1]} edges and keeps the 50"):
        found = radius_graph(x, 1.5, max_edges=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cap in (0, 1, 37, every.shape[1] - 3, every.shape[1], 10**9):
            found = radius_graph(x, 1.5, max_edges=cap)
            assert found.T.tolist() == sorted(order[:cap], key=lambda e: (e[1], e[0]))
    two = radius(x, x[:9] + 0.1, 0.5, max_edges=5)
    assert two.shape == (2, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_positions_that_are_no_place_are_refused(bad, backend):
    x, good = torch.zeros(5, 2), torch.zeros(2, 2)
    x[3, 1] = bad
    for search in (
        lambda: radius_graph(x, 1.0),
        lambda: knn_graph(x, 2),
        lambda: knn_table(x, 2),
        lambda: radius(x, good, 1.0),
        lambda: knn(x, good, 1),
    ):
        with pytest.raises(ValueError, match=r"x holds a position that is no place: row 3 is \[0"):
            search()
    with pytest.raises(ValueError, match="y holds a position"):
        knn(good, x, 1)


def test_arguments_that_do_not_fit_are_refused():
    x = torch.zeros(5, 2)
    for r in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="r must be a number above 0"):
            radius_graph(x, r)
    with pytest.raises(ValueError, match="k must not be negative, got -1"):
        knn_graph(x, -1)
    with pytest.raises(ValueError, match="one graph per point"):
        radius_graph(x, 1.0, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="batch holds graph -2"):
        knn_graph(x, 1, torch.tensor([0, 0, -2, 0, 0]))
    with pytest.raises(ValueError, match="both or not at all"):
        radius(x, x, 1.0, torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match="x has 2 dimensions, but y has 3"):
        knn(x, torch.zeros(5, 3), 1)
    with pytest.raises(ValueError, match="must have shape"):
        knn_graph(torch.zeros(5), 1)
    with pytest.raises(ValueError, match="max_edges must not be negative"):
        radius_graph(x, 1.0, max_edges=-1)
    with pytest.raises(ValueError, match="must hold floating-point numbers"):
        radius_graph(torch.zeros(5, 2, dtype=torch.int64), 1.0)


def test_the_table_has_a_fixed_shape_and_compiles(backend):
    x = uniform(40, 3)
    table = knn_table(x, 60)
    assert table.shape == (40, 60)
    assert (table[:, 39:] == -1).all()
    assert torch.equal(table[:, :39].reshape(-1), knn_graph(x, 60)[0])
    torch.compiler.reset()
    compiled = torch.compile(lambda p: knn_table(p, 5) + 1, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), knn_table(x, 5) + 1)


def test_torchs_own_check_of_the_operator_passes():
    x, y, batch = uniform(12, 3), uniform(5, 3), torch.arange(12) % 2
    own = neighbors._KNN._registered
    torch.library.opcheck(own, (x, y, None, None, 4, False))
    torch.library.opcheck(own, (x, None, batch, None, 4, True))


def test_memory_grows_with_the_points_not_with_the_box():
    """A fine grid over a wide box, and crowded points, in a process that may take 300 MB more."""
    code = """
import resource, torch
from gnnlab.ops import knn_graph, radius_graph
x = torch.rand(50_000, 3, generator=torch.Generator().manual_seed(0)).double()
radius_graph(x[:100], 0.1); knn_graph(x[:100], 3)  # loads everything
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 300 * 2**20, resource.RLIM_INFINITY))
x[0] = 1e6
print(radius_graph(x, 1e-7).shape[1], knn_graph(x, 4).shape[1])
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["0", "200000"], done.stderr


# ---- lists with a skin ---------------------------------------------------------------------------


@pytest.mark.parametrize("loop", [False, True])
def test_a_list_with_a_skin_has_the_edges_of_each_search(loop, backend):
    x, batch = uniform(150, 2), torch.arange(150) % 2
    near = NeighborList(0.15, skin=0.3, loop=loop)
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        assert torch.equal(near(x, batch), radius_graph(x, 0.15, batch, loop=loop))
        x = x + 0.003 * torch.randn(x.shape, generator=generator).double()
    assert 3 < near.searches < 30


def test_a_list_searches_again_when_it_must():
    x = torch.tensor([[0.0], [1.0], [1.0 + 0.13]]).double()
    near = NeighborList(0.1, skin=0.4)
    assert near(x).shape == (2, 0)
    moved = x + torch.tensor([[0.0], [0.0], [-0.02]]).double()
    assert near(moved).shape == (2, 0)
    moved = x + torch.tensor([[0.0], [0.019], [-0.019]]).double()
    assert near(moved).tolist() == [[2, 1], [1, 2]]  # both moved less than half the skin
    assert near.searches == 1
    near(x + torch.tensor([[0.021], [0.0], [0.0]]).double())
    assert near.searches == 2
    near(x[:2])
    assert near.searches == 3
    near(x[:2], torch.tensor([0, 1]))
    assert near.searches == 4
    near(x[:2], torch.tensor([0, 0]))
    assert near.searches == 5
    with pytest.raises(ValueError, match="position that is no place"):
        near(torch.full((2, 1), float("nan")))
    with pytest.raises(ValueError, match="r must be above 0"):
        NeighborList(0.0)
