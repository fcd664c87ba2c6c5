"""Delaunay triangulations, and whether a mesh has holes."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["delaunay_pairs", "is_solid"]

_FLAT = 1e-9  # extents below that, relative to the largest, are none
_FILLED = 0.95  # share of its convex hull that a solid body fills


def delaunay_pairs(positions: np.ndarray) -> np.ndarray | str:
    """Returns the edges of all simplices, (E, 2) with the smaller number first.

    Args:
        positions: (n, d).

    Returns why there is no triangulation, if there is none.
    """
    size, d = positions.shape
    if d < 2:
        return "lie on one line"
    if size < d + 2:
        return f"are fewer than {d + 2}"
    extent = np.linalg.svd(positions - positions.mean(0), compute_uv=False)
    if extent[-1] <= _FLAT * extent[0]:
        return f"lie on one {'line' if d == 2 else 'plane'}"
    spatial = importlib.import_module("scipy.spatial")
    for options in (None, "QJ"):  # None: Qhull's own
        try:
            simplices = spatial.Delaunay(positions, qhull_options=options).simplices
        except spatial.QhullError:
            continue
        pairs = _sides(simplices, list(itertools.combinations(range(d + 1), 2)))
        if len(np.unique(pairs)) == size:  # else some coincide, and were left out
            return pairs
    return "cannot be triangulated"


def is_solid(cells: np.ndarray, positions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Returns which components have no holes and fill their convex hulls, (B,) bool.

    No holes: vertices - edges + faces (- tetrahedra) is 1, as in a disc or a ball.

    Args:
        cells: corners: simplices of as many dimensions as positions, or quadrilaterals in a plane.
        positions: (N, d).
        label: the component of each node, (N,).
    """
    count, d = int(label.max(initial=-1)) + 1, positions.shape[1]
    corners = cells.shape[1]
    if (d, corners) not in ((2, 3), (2, 4), (3, 4)) or not len(cells):
        return np.zeros(count, dtype=bool)  # surfaces in space, lines: no volume
    if corners == d + 1:
        sides = list(itertools.combinations(range(corners), 2))
        simplices, owner = cells, label[cells[:, 0]]
    else:
        sides = [(0, 1), (1, 2), (2, 3), (3, 0)]
        simplices = np.concatenate([cells[:, [0, 1, 2]], cells[:, [0, 2, 3]]])
        owner = np.tile(label[cells[:, 0]], 2)

    def number(rows: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.bincount(label[rows[:, 0]], minlength=count)
        return result

    euler = np.bincount(label, minlength=count) - number(_sides(cells, sides))
    if d == 2:
        euler += number(cells)
    else:
        triples = list(itertools.combinations(range(4), 3))
        euler += number(_sides(cells, triples)) - number(cells)
    edges = positions[simplices[:, 1:]] - positions[simplices[:, :1]]
    # Halves of a quadrilateral that is not convex have opposite signs.
    signed = np.linalg.det(edges) / math.factorial(d)
    if corners > d + 1:
        signed, owner = signed.reshape(2, -1).sum(0), owner[: len(cells)]
    volume = np.bincount(owner, weights=np.abs(signed), minlength=count)
    solid: np.ndarray = euler == 1
    order = np.argsort(label, kind="stable")
    ends = np.cumsum(np.bincount(label, minlength=count))
    for c in np.flatnonzero(solid):
        nodes = order[ends[c - 1] if c else 0 : ends[c]]
        solid[c] = volume[c] >= _FILLED * _hull_volume(positions[nodes])
    return solid


def _sides(cells: np.ndarray, places: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Returns the corners at these places of all cells, each set once."""
    sides = np.concatenate([cells[:, list(place)] for place in places]).astype(np.int64)
    unique: np.ndarray = np.unique(np.sort(sides, axis=1), axis=0)
    return unique


def _hull_volume(positions: np.ndarray) -> float:
    """Returns the area or volume of the convex hull; infinite if there is none."""
    spatial = importlib.import_module("scipy.spatial")
    try:
        return float(spatial.ConvexHull(positions).volume)
    except (spatial.QhullError, ValueError):
        return math.inf
