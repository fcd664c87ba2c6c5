"""Bi-stride coarsening against networkx and dense matrices, on meshes with and without holes."""

import itertools
import warnings

import networkx as nx
import numpy as np
import pytest
import torch

from gnnlab.errors import DataError, MissingExtraError
from gnnlab.graph import Graph
from gnnlab.transforms import Hierarchy, bistride, coarse_graph, coarsen

spatial = pytest.importorskip("scipy.spatial", reason="scipy is not installed")


def undirected(pairs, num_nodes):
    ends = torch.as_tensor(np.asarray(pairs, dtype=np.int64).reshape(-1, 2)).t()
    return Graph(torch.cat([ends, ends.flip(0)], 1), num_nodes)


def sides_of(cells, places=((0, 1), (1, 2), (0, 2))):
    ends = np.concatenate([cells[:, list(place)] for place in places])
    return np.unique(np.sort(ends, 1), axis=0)


def mesh(points):
    """Returns the Delaunay mesh of points: graph, positions, cells."""
    cells = spatial.Delaunay(points).simplices
    places = list(itertools.combinations(range(cells.shape[1]), 2))
    graph = undirected(sides_of(cells, places), len(points))
    return graph, torch.as_tensor(points), torch.as_tensor(cells).long()


def cloud(size, d=2, seed=0):
    return np.random.default_rng(seed).random((size, d))


def grid(width, height, hole=None):
    """Returns a grid of triangles, without the nodes strictly inside the hole (x0, x1, y0, y1)."""
    inside = np.ones((width, height), dtype=bool)
    if hole:
        inside[hole[0] + 1 : hole[1], hole[2] + 1 : hole[3]] = False
    name = np.full((width, height), -1)
    name[inside] = np.arange(inside.sum())
    cells = []
    for x, y in itertools.product(range(width - 1), range(height - 1)):
        if hole and hole[0] <= x < hole[1] and hole[2] <= y < hole[3]:
            continue
        a, b, c, d = name[x, y], name[x + 1, y], name[x + 1, y + 1], name[x, y + 1]
        cells += [(a, b, c), (a, c, d)]
    cells = np.array(cells)
    points = np.argwhere(inside).astype(float)
    return undirected(sides_of(cells), len(points)), torch.as_tensor(points), torch.tensor(cells)


def together(*meshes):
    """Returns several meshes as one, with the nodes of all of them shuffled."""
    shifts = np.cumsum([0] + [len(points) for _, points, _ in meshes])
    shuffle = torch.as_tensor(np.random.default_rng(0).permutation(shifts[-1]))
    where = torch.empty(shifts[-1], 2, dtype=torch.float64)
    where[shuffle] = torch.cat([points + 3 * i for i, (_, points, _) in enumerate(meshes)])
    edges = [g.edge_index + s for (g, *_), s in zip(meshes, shifts, strict=False)]
    cells = [c + s for (*_, c), s in zip(meshes, shifts, strict=False)]
    graph = Graph(shuffle[torch.cat(edges, 1)], int(shifts[-1]))
    return graph, where, shuffle[torch.cat(cells)]


def as_networkx(graph):
    made = nx.Graph(graph.edge_index.t().tolist())
    made.add_nodes_from(range(graph.num_nodes))
    return made


def plain_bistride(graph, positions=None):
    """Returns kept nodes as the definition reads, with networkx's breadth-first search."""
    made, kept = as_networkx(graph), []
    for nodes in map(sorted, nx.connected_components(made)):
        if positions is None:
            cost = [
                sum(nx.single_source_shortest_path_length(made, node).values()) for node in nodes
            ]
        else:
            part = positions[nodes].numpy()
            cost = np.linalg.norm(part - part.mean(0), axis=1).round(9).tolist()
        hops = nx.single_source_shortest_path_length(made, nodes[int(np.argmin(cost))])
        even = [node for node in nodes if hops[node] % 2 == 0]
        odd = [node for node in nodes if hops[node] % 2]
        kept += even if len(even) <= len(odd) or not odd else odd
    return sorted(kept)


def plain_two_hops(graph, kept):
    a = np.eye(graph.num_nodes, dtype=int)
    a[tuple(graph.edge_index.numpy())] = 1
    a[tuple(graph.edge_index.flip(0).numpy())] = 1
    near = (a @ a)[np.ix_(kept, kept)] > 0
    return {(i, j) for i, j in np.argwhere(near).tolist() if i != j}


def edge_set(graph):
    edges = [tuple(e) for e in graph.edge_index.t().tolist()]
    assert len(set(edges)) == len(edges)
    return set(edges)


MESHES = {
    "cloud": lambda: mesh(cloud(300)),
    "grid": lambda: grid(13, 8),
    "square grid": lambda: grid(8, 8),
    "hole": lambda: grid(17, 15, hole=(5, 11, 4, 10)),
    "space": lambda: mesh(cloud(200, 3)),
    "two bodies": lambda: together(mesh(cloud(150)), grid(9, 7)),
}
ALL = pytest.mark.parametrize("make", MESHES.values(), ids=MESHES.keys())


def sparse_graph(seed):
    """Returns a graph with many components, loops, repeated edges and single nodes."""
    made = nx.gnm_random_graph(120, 90, seed=seed)
    edges = torch.tensor([*made.edges, *list(made.edges)[:9], (3, 3)]).t()
    return Graph(edges, 120), torch.as_tensor(cloud(120, seed=seed))


@ALL
def test_kept_nodes_are_those_of_the_definition(make):
    graph, positions, _ = make()
    assert bistride(graph, positions).tolist() == plain_bistride(graph, positions)
    assert bistride(graph, seed="min_ave").tolist() == plain_bistride(graph)


@pytest.mark.parametrize("seed", range(5))
def test_kept_nodes_per_component(seed, monkeypatch):
    graph, positions = sparse_graph(seed)
    assert bistride(graph, positions).tolist() == plain_bistride(graph, positions)
    monkeypatch.setattr(coarsen, "_HOPS", 1000)  # several blocks
    assert bistride(graph, seed="min_ave").tolist() == plain_bistride(graph)


def test_symmetric_meshes_are_coarsened_alike_where_they_lie():
    graph, positions, _ = grid(8, 8)  # four nodes are nearest to the centre
    kept = bistride(graph, positions)
    for shift in (0.1, 10.3, 71.7):
        moved = positions.float() / 7 + torch.tensor([shift, -shift])
        assert torch.equal(bistride(graph, moved), kept)


def test_path_of_eleven_nodes():
    path = undirected([(i, i + 1) for i in range(10)], 11)
    kept = bistride(path, torch.arange(11.0)[:, None])
    assert kept.tolist() == [1, 3, 5, 7, 9]
    coarse = coarse_graph(path, kept)
    assert edge_set(coarse) == {(i, i + 1) for i in range(4)} | {(i + 1, i) for i in range(4)}
    assert coarse.plan.is_sorted


@ALL
def test_bsms_edges_are_the_pattern_of_two_hops(make):
    graph, positions, _ = make()
    kept = bistride(graph, positions)
    coarse = coarse_graph(graph, kept)
    assert edge_set(coarse) == plain_two_hops(graph, kept.numpy())
    assert nx.number_connected_components(as_networkx(coarse)) == nx.number_connected_components(
        as_networkx(graph)
    )


@pytest.mark.parametrize("seed", range(3))
def test_bsms_edges_of_any_kept_nodes(seed):
    graph, _ = sparse_graph(seed)
    kept = torch.randperm(120, generator=torch.Generator().manual_seed(seed))[:50].sort()[0]
    assert edge_set(coarse_graph(graph, kept)) == plain_two_hops(graph, kept.numpy())


@pytest.mark.parametrize("d", [2, 3])
def test_delaunay_edges_are_those_of_all_simplices(d):
    graph, positions, _ = mesh(cloud(200, d))
    kept = bistride(graph, positions)
    simplices = spatial.Delaunay(positions[kept].numpy()).simplices
    wanted = {pair for s in simplices.tolist() for pair in itertools.permutations(s, 2)}
    assert edge_set(coarse_graph(graph, kept, positions, edges="delaunay")) == wanted


def components_of(graph):
    return {frozenset(c) for c in nx.connected_components(as_networkx(graph))}


@pytest.mark.parametrize("edges", ["bsms", "delaunay", "delaunay_filtered", "auto"])
@ALL
def test_bodies_stay_connected_and_apart_on_all_levels(make, edges):
    graph, positions, cells = make()
    built = Hierarchy.build(graph, positions, levels=5, edges=edges, cells=cells)
    assert built.num_levels >= 3
    bodies = components_of(graph)
    for level, coarse in enumerate(built.graphs):
        ids = built.ids(level).tolist()
        found = {frozenset(ids[i] for i in part) for part in components_of(coarse)}
        assert found == {body & set(ids) for body in bodies}
        assert min(map(len, found)) >= 5
        ends = edge_set(coarse)
        assert ends == {(j, i) for i, j in ends}
        assert all(i != j for i, j in ends)
        if level:
            here = built.graphs[level - 1]
            where = positions[built.ids(level - 1)]
            assert built.kept[level - 1].tolist() == plain_bistride(here, where)


def crosses(graph, positions, ids, low, high):
    """Returns the edges whose middle lies inside the box."""
    middle = positions[ids][graph.edge_index].mean(0)
    inside = ((middle > low) & (middle < high)).all(1)
    return int(inside.sum())


def test_only_raw_delaunay_crosses_a_hole():
    graph, positions, cells = grid(41, 41, hole=(5, 35, 5, 35))
    kept = bistride(graph, positions)
    low, high = torch.tensor([9.0, 9.0]).double(), torch.tensor([31.0, 31.0]).double()

    def made(edges):
        return coarse_graph(graph, kept, positions, edges=edges, cells=cells)

    assert crosses(made("delaunay"), positions, kept, low, high) > 0
    for edges in ("bsms", "delaunay_filtered", "auto"):
        assert crosses(made(edges), positions, kept, low, high) == 0
    assert edge_set(made("auto")) == edge_set(made("bsms"))
    assert edge_set(made("delaunay_filtered")) < edge_set(made("delaunay"))


def test_filtered_edges_are_short_and_connected_by_the_shortest_of_two_hops():
    graph, positions, _ = mesh(cloud(200))
    kept = bistride(graph, positions)
    near = coarse_graph(graph, kept)
    where = positions[kept]

    def lengths(of):
        return {(i, j): float((where[i] - where[j]).norm()) for i, j in of.edge_index.t().tolist()}

    longest = max(lengths(near).values())
    full = coarse_graph(graph, kept, positions, edges="delaunay")
    num_added = []
    for alpha in (0.0, 0.2, 0.5, 2.5):
        found = coarse_graph(graph, kept, positions, edges="delaunay_filtered", alpha=alpha)
        short = {e for e, length in lengths(full).items() if length <= alpha * longest}
        # Kruskal: the shortest edges of two hops that join parts that are still apart.
        parts = nx.utils.UnionFind(range(len(kept)))
        for i, j in short:
            parts.union(i, j)
        added = set()
        for (i, j), _ in sorted(lengths(near).items(), key=lambda item: (item[1], item[0])):
            if parts[i] != parts[j]:
                parts.union(i, j)
                added |= {(i, j), (j, i)}
        assert edge_set(found) == short | added
        assert nx.is_connected(as_networkx(found))
        num_added.append(len(added) // 2)
    assert num_added[0] == len(kept) - 1
    assert 0 < num_added[1] < num_added[0]
    assert num_added[-1] == 0


def rule_of(graph, positions, cells):
    label = coarsen.components(coarsen.pattern("test", graph))[1]
    return coarsen.rules_of_bodies(label, positions.numpy(), "auto", cells).tolist()


def test_auto_looks_for_holes_and_notches():
    assert rule_of(*grid(9, 7)) == [1]
    assert rule_of(*mesh(cloud(100))) == [1]
    assert rule_of(*mesh(cloud(100, 3))) == [1]
    assert rule_of(*grid(9, 9, hole=(3, 5, 3, 5))) == [0]  # 6 % of the area: Euler finds it
    graph, positions, cells = grid(9, 9)
    keep = ~((positions[cells] > 3).all(2).all(1))  # an L: no hole, and a notch
    cells = cells[keep]
    used, cells = torch.unique(cells, return_inverse=True)
    lshape = undirected(sides_of(cells.numpy()), len(used))
    assert rule_of(lshape, positions[used], cells) == [0]
    assert rule_of(graph, positions, None) == [0]  # nothing tells
    flat = torch.cat([positions, torch.zeros(81, 1).double()], 1)
    assert rule_of(graph, flat, grid(9, 9)[2]) == [0]  # a surface in space


def test_auto_knows_quadrilaterals_and_cavities():
    quads = []
    for x, y in itertools.product(range(4), range(3)):
        quads.append((4 * x + y, 4 * x + y + 4, 4 * x + y + 5, 4 * x + y + 1))
    points = torch.tensor(list(itertools.product(range(5), range(4)))).double()
    sides = ((0, 1), (1, 2), (2, 3), (3, 0))

    def of(cells):
        cells = np.array(cells)
        return rule_of(undirected(sides_of(cells, sides), 20), points, torch.tensor(cells))

    assert of(quads) == [1]
    assert of(quads[:4] + quads[5:]) == [0]
    # Cubes of six tetrahedra around an empty one in the middle.
    axes, tets = np.eye(3, dtype=int), []
    for corner in itertools.product(range(3), repeat=3):
        if corner != (1, 1, 1):
            for order in itertools.permutations(range(3)):
                steps = np.cumsum([axes[i] for i in order], 0)
                tets.append([np.array(corner), *(np.array(corner) + steps)])
    ids = (np.array(tets) * [16, 4, 1]).sum(2)
    where = torch.tensor(list(itertools.product(range(4), repeat=3))).double()
    graph = undirected(sides_of(ids, list(itertools.combinations(range(4), 2))), 64)
    # It fills 26 / 27 of its hull, which is enough: only the Euler characteristic tells.
    assert rule_of(graph, where, torch.tensor(ids)) == [0]


def test_bodies_that_cannot_be_triangulated_get_edges_of_bsms():
    strip = undirected([(i, i + 1) for i in range(20)], 21)
    line = torch.stack([torch.arange(21.0), 2 * torch.arange(21.0)], 1)
    kept = bistride(strip, line)
    with pytest.warns(UserWarning, match=r"10 nodes of component 0 lie on one line: edges of"):
        coarse = coarse_graph(strip, kept, line, edges="delaunay")
    assert edge_set(coarse) == edge_set(coarse_graph(strip, kept))
    graph, positions, _ = together(grid(2, 3), mesh(cloud(60)))
    kept = bistride(graph, positions)
    with pytest.warns(UserWarning, match=r"2 nodes of component \d are fewer than 4"):
        coarse = coarse_graph(graph, kept, positions, edges="delaunay")
    assert len(components_of(coarse)) == 2


def test_nodes_at_one_place_are_jittered_apart():
    graph, positions, _ = mesh(cloud(80))
    kept = bistride(graph, positions)
    positions[kept[5]] = positions[kept[6]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coarse = coarse_graph(graph, kept, positions, edges="delaunay")
    assert nx.is_connected(as_networkx(coarse))


def test_levels_stop_before_a_body_becomes_too_small():
    graph, positions, cells = together(grid(4, 5), mesh(cloud(400)))

    def sizes(least, levels=20):
        """Returns the number of nodes of the smallest body on each level."""
        built = Hierarchy.build(
            graph, positions, levels=levels, min_nodes=least, cells=cells, edges="bsms"
        )
        return [min(map(len, components_of(g))) for g in built.graphs]

    to_the_end = sizes(1)
    assert to_the_end[0] == 20
    assert to_the_end[-1] == 1
    assert to_the_end[1] > to_the_end[2]
    assert sizes(to_the_end[1]) == to_the_end[:2]
    assert sizes(to_the_end[1] + 1) == [20]
    assert sizes(1, levels=3) == to_the_end[:3]


def test_a_single_node_stays_and_is_named_when_it_stops_everything():
    graph, positions, _ = mesh(cloud(60))
    graph = Graph(graph.edge_index, 61)
    positions = torch.cat([positions, positions[:1]])
    with pytest.warns(UserWarning, match=r"no coarse level: 1 of 2 components have fewer than min"):
        assert Hierarchy.build(graph, positions, levels=3).num_levels == 1
    built = Hierarchy.build(graph, positions, levels=9, min_nodes=1)
    assert all(60 in built.ids(level) for level in range(built.num_levels))
    assert built.graphs[-1].num_nodes == 2


def test_no_nodes_and_no_edges():
    nothing = Graph(torch.empty(2, 0, dtype=torch.int64), 0)
    assert bistride(nothing, torch.empty(0, 2)).shape == (0,)
    assert coarse_graph(nothing, torch.empty(0, dtype=torch.int64)).num_nodes == 0
    assert Hierarchy.build(nothing, torch.empty(0, 2), levels=3).num_levels == 1
    apart = Graph(torch.empty(2, 0, dtype=torch.int64), 4)
    assert bistride(apart, torch.rand(4, 2)).tolist() == [0, 1, 2, 3]
    assert Hierarchy.build(apart, torch.rand(4, 2), levels=3, min_nodes=1).num_levels == 1


@pytest.mark.parametrize("edges", ["auto", "delaunay_filtered"])
def test_a_mesh_is_coarsened_alike_alone_and_beside_others(edges):
    alone, positions, cells = grid(17, 15, hole=(5, 11, 4, 10))
    other = mesh(cloud(150))
    both = Graph(torch.cat([alone.edge_index, other[0].edge_index + alone.num_nodes], 1), 150 + 230)
    where = torch.cat([positions, 100 * other[1] - 500])  # much coarser
    options = {"levels": 3, "edges": edges, "alpha": 0.9}
    first = Hierarchy.build(alone, positions, cells=cells, **options)
    second = Hierarchy.build(
        both, where, cells=torch.cat([cells, other[2] + alone.num_nodes]), **options
    )
    for level in (1, 2):
        a, b = first.graphs[level], second.graphs[level]
        assert first.ids(level).tolist() == second.ids(level)[: a.num_nodes].tolist()
        own = b.edge_index[:, (b.edge_index < a.num_nodes).all(0)]
        assert torch.equal(own, a.edge_index)


def test_hierarchy_comes_back_from_its_file(tmp_path):
    graph, positions, cells = MESHES["two bodies"]()
    weighted = Graph(graph.edge_index, graph.num_nodes, edge_weight=torch.rand(graph.num_edges))
    built = Hierarchy.build(weighted, positions, levels=4, cells=cells)
    built.save(tmp_path / "mesh.levels")
    found = Hierarchy.load(tmp_path / "mesh.levels")
    assert found.num_levels == built.num_levels == 4
    for a, b in zip(built.graphs, found.graphs, strict=True):
        assert torch.equal(a.edge_index, b.edge_index)
        assert a.num_nodes == b.num_nodes
    assert torch.equal(found.graphs[0].edge_weight, weighted.edge_weight)
    assert found.graphs[1].edge_weight is None
    assert all(torch.equal(a, b) for a, b in zip(built.kept, found.kept, strict=True))
    assert repr(found) == repr(built.to("cpu"))


def test_load_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError):
        Hierarchy.load(path)
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"x\.npz: not a file of Hierarchy\.save"):
        Hierarchy.load(path)
    np.savez(path, format=np.array({"a": 1}, dtype=object))
    with pytest.raises(DataError, match="not a file of"):
        Hierarchy.load(path)
    np.savez(path, format=np.int64(2), num_nodes=np.array([1]))
    with pytest.raises(DataError, match="format 2, this version reads 1"):
        Hierarchy.load(path)
    np.savez(path, num_nodes=np.array([1]))
    with pytest.raises(DataError, match="format missing"):
        Hierarchy.load(path)
    good = {"format": 1, "num_nodes": [3, 1], "edge_index_0": [[0], [1]]}
    good |= {"edge_index_1": np.empty((2, 0), np.int64), "kept_0": [1]}
    np.savez(path, **good)
    assert Hierarchy.load(path).num_levels == 2
    for wrong, message in (
        ({"kept_0": [3]}, r"kept\[0\] holds nodes beyond 0\.\.2"),
        ({"kept_0": [0, 1]}, r"level 1 has 1 nodes, but kept\[0\] has shape \(2,\)"),
        ({"edge_index_0": [[0], [7]]}, "damaged"),
    ):
        np.savez(path, **(good | wrong))
        with pytest.raises(DataError, match=message):
            Hierarchy.load(path)
    np.savez(path, **{k: v for k, v in good.items() if k != "kept_0"})
    with pytest.raises(DataError, match="damaged: 'kept_0"):
        Hierarchy.load(path)


def test_a_missing_library_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(coarsen.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"bistride needs scipy: pip install 'gnnlab\[tra"):
        bistride(undirected([(0, 1)], 2), torch.rand(2, 2))


def test_errors_name_the_argument():
    graph, positions, _ = grid(4, 4)
    kept = bistride(graph, positions)
    with pytest.raises(ValueError, match='unknown seed "middle"'):
        bistride(graph, positions, "middle")
    with pytest.raises(ValueError, match='"near_center" needs positions'):
        bistride(graph)
    with pytest.raises(ValueError, match=r"positions of shape \(16, d\).*got \(3, 2\)"):
        bistride(graph, positions[:3])
    with pytest.raises(ValueError, match="position of node 2 is not finite"):
        bistride(graph, positions.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(ValueError, match="one kind of nodes"):
        bistride(Graph(torch.tensor([[0], [0]]), (16, 2)), seed="min_ave")
    with pytest.raises(ValueError, match='unknown rule "dense" for edges'):
        coarse_graph(graph, kept, edges="dense")
    with pytest.raises(ValueError, match='edges="delaunay" needs positions'):
        coarse_graph(graph, kept, edges="delaunay")
    with pytest.raises(ValueError, match="kept must be increasing"):
        coarse_graph(graph, kept.flip(0))
    with pytest.raises(ValueError, match="kept holds node 16, but there are 16"):
        coarse_graph(graph, torch.tensor([1, 16]))
    with pytest.raises(ValueError, match=r"cells must be node ids below 16"):
        coarse_graph(graph, kept, positions, edges="auto", cells=torch.tensor([[0, 1, 16]]))
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 5"):
        Hierarchy.build(graph, positions, levels=0)
    with pytest.raises(ValueError, match="1 graphs need 0 sets of kept"):
        Hierarchy((graph,), (kept,))
    with pytest.raises(ValueError, match=r"no level 3, valid are 0\.\.1"):
        Hierarchy.build(graph, positions, levels=2).ids(3)
