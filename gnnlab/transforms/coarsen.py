"""Bi-stride coarsening: every second ring of nodes goes; edges between those that are left."""

from __future__ import annotations

import importlib
import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import needs
from gnnlab.graph import Graph
from gnnlab.transforms import _triangulation as triangulation

__all__ = ["bistride", "coarse_graph"]

Seed = Literal["near_center", "min_ave"]
Rule = Literal["bsms", "delaunay", "delaunay_filtered", "auto"]

RULES = ("bsms", "delaunay", "delaunay_filtered", "auto")
_HOPS = 1 << 22  # distances in a block of "min_ave"
_TIE = 1e-6  # distances that differ by less, relative to the body's size, are equal: float32


def bistride(graph: Graph, positions: Tensor | None = None, seed: Seed = "near_center") -> Tensor:
    r"""Returns the nodes that are left when every second ring around a seed goes.

    $$ K_c = \{ i \in c : d(s_c, i) \bmod 2 = p_c \} $$

    per connected component c, with d the number of hops from its seed $s_c$. Even rings stay
    ($p_c = 0$) unless they hold more nodes than odd ones, so that about half of the nodes go and at
    least one stays.

    Args:
        graph: the edges; directions, weights and loops do not count.
        positions: where nodes are; for "near_center".
        seed: "near_center": the node nearest to the mean position of its component; "min_ave": the
            one with the least mean number of hops to the others, whose time grows with the square
            of a component. The first such node, by id.

    Shapes:
        positions: (N, d) float.
        returns: (K,) int64, increasing, on the graph's device.

    Raises:
        MissingExtraError: if scipy is not installed.
        ValueError: if the graph is bipartite, positions are missing or of another shape, or `seed`
            is unknown.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.transforms import bistride
        >>> path = torch.arange(10)
        >>> edges = torch.stack([path, path + 1])
        >>> bistride(Graph(edges, 11), torch.arange(11.0)[:, None])
        tensor([1, 3, 5, 7, 9])

    Reference: Cao et al., ICML 2023, arXiv:2210.02573, section 3.2.
    """
    if seed not in ("near_center", "min_ave"):
        raise ValueError(f'bistride: unknown seed "{seed}". Known: near_center, min_ave.')
    if seed == "near_center" and positions is None:
        raise ValueError('bistride: seed="near_center" needs positions; or take seed="min_ave"')
    where = None if positions is None else positions_of("bistride", positions, graph)
    kept = kept_nodes(pattern("bistride", graph), where if seed == "near_center" else None)
    return torch.from_numpy(kept).to(graph.device)


def coarse_graph(
    graph: Graph,
    kept: Tensor,
    positions: Tensor | None = None,
    *,
    edges: Rule = "bsms",
    cells: Tensor | None = None,
    alpha: float = 2.5,
) -> Graph:
    r"""Returns the graph between kept nodes, which never joins two connected components.

    - "bsms": nodes at most two hops apart, the pattern of $(A + I)^2$; what was connected stays so.
    - "delaunay": the Delaunay triangulation of each component. It joins nodes across holes.
    - "delaunay_filtered": the same without edges longer than `alpha` times the component's longest
      edge of "bsms", and with the shortest of these that connect it again.
    - "auto": "delaunay" for components without holes that fill 95 % of their convex hull, else
      "bsms". `cells` tell; without them it is "bsms".

    A component with fewer than d + 2 kept nodes, or with all of them on one line or plane, gets the
    edges of "bsms", with a warning. So do those that cannot be triangulated, even jittered.

    Args:
        graph: the finer graph; directions, weights and loops do not count.
        kept: nodes that stay.
        positions: where all nodes of the finer graph are; not needed for "bsms".
        edges: the rule.
        cells: for "auto": triangles or quadrilaterals in the plane, or tetrahedra.
        alpha: for "delaunay_filtered".

    Shapes:
        kept: (K,) int64, increasing; positions: (N, d) float; cells: (C, k) int64.
        returns: K nodes, an edge in each direction, sorted by target and then source.

    Raises:
        MissingExtraError: if scipy is not installed.
        ValueError: if an argument is missing, of another shape or unknown.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.transforms import coarse_graph
        >>> path = Graph(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]), 5)
        >>> coarse_graph(path, torch.tensor([0, 2, 4])).edge_index
        tensor([[1, 0, 2, 1],
                [0, 1, 1, 2]])

    Reference: Cao et al., ICML 2023, arXiv:2210.02573, section 3.2; Delaunay edges: Yu et al., ICLR
    2024, arXiv:2312.12467.
    """
    check_rule("coarse_graph", edges, positions)
    adjacency = pattern("coarse_graph", graph)
    ids = kept.cpu().numpy()
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or (np.diff(ids) <= 0).any():
        raise ValueError("coarse_graph: kept must be increasing node ids of shape (K,)")
    if len(ids) and (ids[0] < 0 or ids[-1] >= graph.num_nodes):
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise ValueError(f"coarse_graph: kept holds node {wrong}, but there are {graph.num_nodes}")
    where = None if positions is None else positions_of("coarse_graph", positions, graph)
    label = components(adjacency)[1]
    chosen = rules_of_bodies(label, where, edges, cells)
    pairs = coarse_pairs(adjacency, ids, label, where, chosen, alpha)
    return graph_of(pairs, len(ids), graph.device)


# ---- what the hierarchy shares -------------------------------------------------------------------


def check_rule(who: str, edges: str, positions: Tensor | None) -> None:
    """Raises ValueError for rules that do not exist or lack positions."""
    if edges not in RULES:
        raise ValueError(f'{who}: unknown rule "{edges}" for edges. Known: {", ".join(RULES)}.')
    if edges != "bsms" and positions is None:
        raise ValueError(f'{who}: edges="{edges}" needs positions; or take edges="bsms"')


def positions_of(who: str, positions: Tensor, graph: Graph) -> np.ndarray:
    """Returns positions in float64, (N, d)."""
    if positions.dim() != 2 or positions.shape[0] != graph.num_nodes or not positions.shape[1]:
        raise ValueError(
            f"{who} expected positions of shape ({graph.num_nodes}, d), one row per node, "
            f"got {tuple(positions.shape)}"
        )
    where: np.ndarray = positions.detach().double().cpu().numpy()
    if not np.isfinite(where).all():
        row = int(np.flatnonzero(~np.isfinite(where).all(1))[0])
        raise ValueError(f"{who}: the position of node {row} is not finite: {where[row].tolist()}")
    return where


def pattern(who: str, graph: Graph) -> Any:
    """Returns which nodes are neighbours, as a symmetric scipy csr array without loops."""
    if graph.is_bipartite:
        raise ValueError(f"{who} needs one kind of nodes, got {graph!r}")
    sparse = needs("scipy.sparse", who, "transforms")
    src, dst = graph.edge_index.cpu().numpy()
    off = src != dst
    src, dst = src[off], dst[off]
    ends = (np.concatenate([src, dst]), np.concatenate([dst, src]))
    shape = (graph.num_nodes,) * 2
    found = sparse.coo_array((np.ones(len(ends[0]), np.int32), ends), shape=shape).tocsr()
    found.data[:] = 1
    return found


def components(adjacency: Any) -> tuple[int, np.ndarray]:
    """Returns how many connected components there are, and that of each node."""
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    count, label = csgraph.connected_components(adjacency, directed=False)
    return int(count), label


def kept_nodes(adjacency: Any, positions: np.ndarray | None) -> np.ndarray:
    """Returns the nodes that bi-stride keeps; seeds near the centre if there are positions."""
    count, label = components(adjacency)
    if positions is None:
        cost = _total_hops(adjacency)
    else:
        cost = _from_center(label, count, positions)
    order = np.lexsort((np.arange(len(label)), cost, label))
    seeds = order[np.searchsorted(label[order], np.arange(count))]
    odd = _hops(adjacency, seeds) % 2
    num_odd = np.bincount(label, weights=odd, minlength=count)
    num_even = np.bincount(label, minlength=count) - num_odd
    keep_odd = (num_even > num_odd) & (num_odd > 0)
    kept: np.ndarray = np.flatnonzero(odd == keep_odd[label]).astype(np.int64)
    return kept


def rules_of_bodies(
    label: np.ndarray, positions: np.ndarray | None, edges: Rule, cells: Tensor | None
) -> np.ndarray:
    """Returns the rule of each component, 0, 1 or 2 as in `RULES`; decides what "auto" means."""
    count = int(label.max(initial=-1)) + 1
    if edges != "auto":
        return np.full(count, RULES.index(edges))
    if cells is None or positions is None:
        return np.zeros(count, dtype=np.int64)
    corners = cells.cpu().numpy()
    if corners.ndim != 2 or (corners.size and not 0 <= corners.min() <= corners.max() < len(label)):
        raise ValueError(
            f"cells must be node ids below {len(label)} of shape (C, k), got shape {corners.shape}"
        )
    return triangulation.is_solid(corners, positions, label).astype(np.int64)


def coarse_pairs(
    adjacency: Any,
    kept: np.ndarray,
    label: np.ndarray,
    positions: np.ndarray | None,
    rules: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """Returns each edge between kept nodes once, (E, 2) with the smaller number first."""
    near = _two_hops(adjacency, kept)
    if positions is None or not rules.any():
        return near
    where, body = positions[kept], label[kept]
    rules, delaunay = rules.copy(), [np.empty((0, 2), np.int64)]
    failed: list[str] = []
    order = np.argsort(body, kind="stable")
    ends = np.cumsum(np.bincount(body, minlength=len(rules)))
    for c in np.flatnonzero(rules):
        nodes = order[ends[c - 1] if c else 0 : ends[c]]
        found = triangulation.delaunay_pairs(where[nodes])
        if isinstance(found, str):
            failed.append(f"{len(nodes)} nodes of component {c} {found}")
            rules[c] = 0
        else:
            delaunay.append(nodes[found])
    if failed:
        more = f" (and {len(failed) - 1} components more)" if len(failed) > 1 else ""
        warnings.warn(f'{failed[0]}{more}: edges of "bsms" instead of Delaunay\'s.', stacklevel=3)
    pairs = np.concatenate(delaunay)
    is_filtered = rules[body] == 2
    if is_filtered.any():
        pairs = _filtered(pairs, near, where, body, is_filtered, alpha)
    return np.concatenate([near[rules[body[near[:, 0]]] == 0], pairs])


def graph_of(pairs: np.ndarray, num_nodes: int, device: torch.device) -> Graph:
    """Returns the graph with each pair in both directions, sorted by target and then source."""
    src, dst = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((src, dst))
    edge_index = torch.from_numpy(np.stack([src[order], dst[order]]).astype(np.int64))
    return Graph(edge_index, num_nodes, validate=False).to(device)


# ---- parts ---------------------------------------------------------------------------------------


def _from_center(label: np.ndarray, count: int, positions: np.ndarray) -> np.ndarray:
    """Returns how far each node is from the mean of its component, equal but for rounding."""
    size = np.bincount(label, minlength=count)
    sums = [np.bincount(label, weights=column, minlength=count) for column in positions.T]
    offset = positions - (np.stack(sums, 1) / size[:, None])[label]
    far = np.sqrt((offset**2).sum(1))
    least, most = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(least, label, far)
    np.maximum.at(most, label, far)
    # Symmetric meshes have several nodes nearest to the centre: rounding must not choose.
    result: np.ndarray = np.where(far <= (least + _TIE * most)[label], 0.0, far)
    return result


def _total_hops(adjacency: Any) -> np.ndarray:
    """Returns the sum of each node's hops to all nodes of its component."""
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    size = adjacency.shape[0]
    total = np.zeros(size)
    step = max(1, _HOPS // max(size, 1))
    for start in range(0, size, step):
        rows = np.arange(start, min(start + step, size))
        hops = csgraph.dijkstra(adjacency, indices=rows, unweighted=True)
        total[rows] = np.where(np.isfinite(hops), hops, 0).sum(1)
    return total


def _hops(adjacency: Any, seeds: np.ndarray) -> np.ndarray:
    """Returns each node's hops from the seed of its component: one search from a common root."""
    sparse = importlib.import_module("scipy.sparse")
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    size = adjacency.shape[0]
    columns = np.concatenate([adjacency.indices, seeds.astype(adjacency.indices.dtype)])
    starts = np.append(adjacency.indptr, len(columns)).astype(adjacency.indptr.dtype)
    rooted = sparse.csr_array(
        (np.ones(len(columns), np.int32), columns, starts), shape=(size + 1,) * 2
    )
    _, before = csgraph.breadth_first_order(rooted, size)
    jump = before.astype(np.int64)
    jump[size] = size
    # Adds up the steps to the root, doubling how far a jump goes: log(hops) rounds.
    hops = np.ones(size + 1, dtype=np.int64)
    hops[size] = 0
    while (jump != size).any():
        hops += hops[jump]
        jump = jump[jump]
    return hops[:size] - 1


def _two_hops(adjacency: Any, kept: np.ndarray) -> np.ndarray:
    """Returns the pairs of kept nodes that are at most two hops apart, (E, 2)."""
    sparse = importlib.import_module("scipy.sparse")
    rows = (adjacency + sparse.eye_array(adjacency.shape[0], dtype=np.int32, format="csr"))[kept]
    both = sparse.triu(rows @ rows.T, k=1).tocoo()
    pairs = np.stack([both.row, both.col], 1).astype(np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _filtered(
    pairs: np.ndarray,
    near: np.ndarray,
    where: np.ndarray,
    body: np.ndarray,
    is_filtered: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """Returns pairs without the long ones of the nodes in question, connected by near ones."""

    def length(of: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.sqrt(((where[of[:, 0]] - where[of[:, 1]]) ** 2).sum(1))
        return result

    longest = np.zeros(int(body.max(initial=-1)) + 1)
    np.maximum.at(longest, body[near[:, 0]], length(near))
    first = pairs[:, 0]
    pairs = pairs[~is_filtered[first] | (length(pairs) <= alpha * longest[body[first]])]
    sparse = importlib.import_module("scipy.sparse")
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    size = len(body)
    left = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    part = components(left.tocsr())[1]
    bridges = near[is_filtered[near[:, 0]] & (part[near[:, 0]] != part[near[:, 1]])]
    bridges = bridges[np.argsort(length(bridges), kind="stable")]
    ends = np.sort(part[bridges], axis=1)
    _, shortest = np.unique(ends, axis=0, return_index=True)
    # Their ranks are the weights: lengths of 0 would not count as edges.
    tree = csgraph.minimum_spanning_tree(
        sparse.coo_array((shortest + 1.0, tuple(ends[shortest].T)), shape=(size, size)).tocsr()
    )
    return np.concatenate([pairs, bridges[tree.data.astype(np.int64) - 1]])
