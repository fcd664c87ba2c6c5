"""Graphs from positions: all pairs closer than r, and the k nearest points."""

from __future__ import annotations

import ctypes
import warnings
from typing import Any

import torch
from torch import Tensor, get_num_threads

from gnnlab.ops import reference_neighbors
from gnnlab.ops._arguments import check_floating, index_vector
from gnnlab.ops._library import Library, cpu_library
from gnnlab.ops._operator import Operator

__all__ = ["knn", "knn_graph", "knn_table", "radius", "radius_graph"]

_capped = False  # whether the warning about max_edges was given


def radius_graph(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    *,
    loop: bool = False,
    max_edges: int | None = None,
) -> Tensor:
    r"""Joins all points that are closer than `r`: an edge j -> i where the distance is below r.

    Args:
        x: positions.
        r: the distance that neighbours must be below, in the unit of `x`.
        batch: the graph of each point, in any order; points of different graphs are never joined.
        loop: whether every point also gets an edge to itself.
        max_edges: keep only so many edges, the shortest ones (ties: by source, then target), and
            warn once. None: all of them, however many.

    Shapes:
        x: (N, D) float; batch: (N,) int64 or None.
        returns: (2, E) int64, row 0 = source (neighbour), row 1 = target; sorted by
        (target, source).

    Raises:
        ValueError: if a position is NaN or infinite, `r` is not above 0, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import radius_graph
        >>> radius_graph(torch.tensor([[0.0], [1.0], [1.5]]), 0.6)
        tensor([[2, 1],
                [1, 2]])

    The distance is the root of the sum of squared differences in float64, whatever the dtype of
    `x`. Up to three dimensions a uniform grid is searched, otherwise all pairs of a graph; on a GPU
    and without compiled kernels always all pairs. The edges are not differentiable in `x`.
    """
    x = _positions(x, "x")
    edge_index = _radius(x, None, r, _graph(batch, x, "batch"), None, skip_same=not loop)
    return _shortest(edge_index, x, x, max_edges)


def radius(
    x: Tensor,
    y: Tensor,
    r: float,
    batch_x: Tensor | None = None,
    batch_y: Tensor | None = None,
    *,
    max_edges: int | None = None,
) -> Tensor:
    """Finds the points of `x` closer than `r` to each point of `y`.

    Args:
        x: the points that are found.
        y: the points that look for them.
        r: the distance that neighbours must be below, in the unit of positions.
        batch_x: the graph of each point of x.
        batch_y: the graph of each point of y; given if and only if batch_x is.
        max_edges: keep only so many edges, see `radius_graph`.

    Shapes:
        x: (N, D) float; y: (M, D) float; batch_x: (N,) int64; batch_y: (M,) int64.
        returns: (2, E) int64, row 0 = source (in x), row 1 = target (in y), sorted by
        (target, source). The function of torch_cluster has its rows the other way round.

    Raises:
        ValueError: if a position is NaN or infinite, `r` is not above 0, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import radius
        >>> radius(torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([[1.2]]), 0.5)
        tensor([[1, 2],
                [0, 0]])
    """
    x, y = _pair(x, y)
    graphs = _both(batch_x, batch_y, x, y)
    return _shortest(_radius(x, y, r, *graphs, skip_same=False), x, y, max_edges)


def knn_graph(x: Tensor, k: int, batch: Tensor | None = None, *, loop: bool = False) -> Tensor:
    """Joins every point with its `k` nearest neighbours, which are the sources.

    Args:
        x: positions, or features of any dimension.
        k: number of neighbours; a point of a graph with fewer others gets these.
        batch: the graph of each point, in any order; points of different graphs are never joined.
        loop: whether a point may be its own neighbour (and counts as one of the k).

    Shapes:
        x: (N, D) float; batch: (N,) int64 or None.
        returns: (2, E) int64, row 0 = source (neighbour), row 1 = target; sorted by
        (target, distance, source). E is N k if every graph has k points (without `loop`: k + 1).

    Raises:
        ValueError: if a position is NaN or infinite, `k` is negative, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import knn_graph
        >>> knn_graph(torch.tensor([[0.0], [1.0], [1.5]]), 1)
        tensor([[1, 2, 1],
                [0, 1, 2]])

    The distance is that of `radius_graph`, compared by its square; of points at the same distance
    those with the smaller number are nearer. The edges are not differentiable in `x`.
    """
    return _edges(knn_table(x, k, batch=batch, loop=loop))


def knn(
    x: Tensor, y: Tensor, k: int, batch_x: Tensor | None = None, batch_y: Tensor | None = None
) -> Tensor:
    """Finds the `k` points of `x` nearest to each point of `y`.

    Args:
        x: the points that are found.
        y: the points that look for them.
        k: number of neighbours; a point of a graph with fewer gets these.
        batch_x: the graph of each point of x.
        batch_y: the graph of each point of y; given if and only if batch_x is.

    Shapes:
        x: (N, D) float; y: (M, D) float; batch_x: (N,) int64; batch_y: (M,) int64.
        returns: (2, E) int64, row 0 = source (in x), row 1 = target (in y), sorted by
        (target, distance, source). The function of torch_cluster has its rows the other way round.

    Raises:
        ValueError: if a position is NaN or infinite, `k` is negative, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import knn
        >>> knn(torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([[1.2]]), 2)
        tensor([[1, 2],
                [0, 0]])
    """
    x, y = _pair(x, y)
    return _edges(_KNN(x, y, *_both(batch_x, batch_y, x, y), _count(k), False))


def knn_table(x: Tensor, k: int, batch: Tensor | None = None, *, loop: bool = False) -> Tensor:
    """Returns the neighbours of `knn_graph` as a table: its shape does not depend on the points.

    Args:
        x: positions, or features of any dimension.
        k: number of neighbours.
        batch: the graph of each point.
        loop: whether a point may be its own neighbour.

    Shapes:
        x: (N, D) float; batch: (N,) int64 or None.
        returns: (N, k) int64, the sources of each target, nearest first, then -1.

    Raises:
        ValueError: if a position is NaN or infinite, `k` is negative, or shapes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.ops import knn_table
        >>> knn_table(torch.tensor([[0.0], [1.0], [1.5]]), 3)
        tensor([[ 1,  2, -1],
                [ 2,  0, -1],
                [ 1,  0, -1]])

    `torch.compile(fullgraph=True)` takes this one; the others have as many edges as they find.
    """
    x = _shaped(x, "x")
    table: Tensor = _KNN(x, None, _graph(batch, x, "batch"), None, _count(k), not loop)
    return table


# ---- arguments -----------------------------------------------------------------------------------


def _shaped(x: Tensor, name: str) -> Tensor:
    check_floating(x, name)
    if x.dim() != 2:
        raise ValueError(
            f"{name} must have shape (number of points, dimensions), got {tuple(x.shape)}"
        )
    return x.detach()


def _positions(x: Tensor, name: str) -> Tensor:
    """Returns finite positions in float64."""
    return _finite(_shaped(x, name), name)


def _finite(x: Tensor, name: str) -> Tensor:
    x = x.double().contiguous()
    good = x.isfinite()
    if not bool(good.all()):
        row = int((~good).any(1).nonzero()[0, 0])
        raise ValueError(
            f"{name} holds a position that is no place: row {row} is {x[row].tolist()}. "
            "All positions must be finite."
        )
    return x


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = _positions(x, "x"), _positions(y, "y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} dimensions, but y has {y.shape[1]}")
    if x.device != y.device:
        raise ValueError(f"x is on {x.device}, but y is on {y.device}")
    return x, y


def _graph(batch: Tensor | None, x: Tensor, name: str) -> Tensor | None:
    if batch is None:
        return None
    if batch.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must hold one graph per point, shape ({x.shape[0]},), got {tuple(batch.shape)}"
        )
    if batch.device != x.device:
        raise ValueError(f"{name} is on {batch.device}, but the points are on {x.device}")
    return index_vector(batch, name)


def _both(
    batch_x: Tensor | None, batch_y: Tensor | None, x: Tensor, y: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    if (batch_x is None) != (batch_y is None):
        raise ValueError("batch_x and batch_y must be given both or not at all")
    return _graph(batch_x, x, "batch_x"), _graph(batch_y, y, "batch_y")


def _count(k: int) -> int:
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    return k


def _numbered(*batches: Tensor | None) -> tuple[list[Tensor | None], int]:
    """Returns the graphs as int64 below a number that is not far above that of points, and it."""
    given = [b.long().contiguous() for b in batches if b is not None]
    points = sum(b.numel() for b in given)
    if points == 0:
        return [None if b is None else b.long() for b in batches], 1
    low, high = (
        min(int(b.min()) for b in given if len(b)),
        max(int(b.max()) for b in given if len(b)),
    )
    if low < 0:
        raise ValueError(f"batch holds graph {low}; graphs are numbered from 0")
    if high >= 2 * points + 16:  # the search keeps a few numbers per graph
        ids, places = torch.unique(torch.cat(given), return_inverse=True)
        given, high = list(places.split([b.numel() for b in given])), len(ids) - 1
    left = iter(given)
    return [None if b is None else next(left) for b in batches], high + 1


# ---- searches ------------------------------------------------------------------------------------


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _radius(
    x: Tensor,
    y: Tensor | None,
    r: float,
    graph_x: Tensor | None,
    graph_y: Tensor | None,
    *,
    skip_same: bool,
) -> Tensor:
    if not r > 0:
        raise ValueError(f"r must be a number above 0, got {r}")
    targets = x if y is None else y
    library = _library_for(x, targets)
    if library is None:
        graphs = graph_x, graph_x if y is None else graph_y
        return reference_neighbors.radius(x, targets, r, *graphs, skip_same=skip_same)
    with _Search(library, x, y, graph_x, graph_y) as given:
        indptr = torch.empty(targets.shape[0] + 1, dtype=torch.int64)
        found, threads = ctypes.c_void_p(), get_num_threads()
        library.check(
            library.radius(*given, r, skip_same, indptr.data_ptr(), ctypes.byref(found), threads)
        )
        try:
            edge_index = torch.empty(2, int(indptr[-1]), dtype=torch.int64)
        except BaseException:  # too little memory for the result: at least free what holds it now
            library.found_write(found, None, None, None, 1)
            raise
        source, target = edge_index.unbind(0)
        library.check(
            library.found_write(
                found, indptr.data_ptr(), source.data_ptr(), target.data_ptr(), threads
            )
        )
    return edge_index


def _library_for(x: Tensor, y: Tensor) -> Library | None:
    """Returns the library, if there is one and anything to compute (nothing has no address)."""
    return cpu_library(x) if x.numel() and y.numel() else None


class _Search:
    """The arguments that both searches of the library begin with; keeps their tensors alive."""

    def __init__(
        self,
        library: Library,
        x: Tensor,
        y: Tensor | None,
        graph_x: Tensor | None,
        graph_y: Tensor | None,
    ) -> None:
        (graph_x, graph_y), graphs = _numbered(graph_x, graph_y)
        self._tensors = x, y, graph_x, graph_y
        at = [None if t is None else t.data_ptr() for t in self._tensors]
        num_y = x.shape[0] if y is None else y.shape[0]
        self._given = (at[0], at[2], x.shape[0], at[1], at[3], num_y, graphs, x.shape[1])

    def __enter__(self) -> tuple[Any, ...]:
        return self._given

    def __exit__(self, *error: object) -> None:
        self._tensors = None, None, None, None  # type: ignore[assignment]


def _run_knn(
    x: Tensor,
    y: Tensor | None,
    graph_x: Tensor | None,
    graph_y: Tensor | None,
    k: int,
    skip_same: bool,
) -> Tensor:
    x = _finite(x, "x")
    targets = x if y is None else _finite(y, "y")
    library = _library_for(x, targets)
    if library is None:
        graphs = graph_x, graph_x if y is None else graph_y
        return reference_neighbors.knn(x, targets, k, *graphs, skip_same=skip_same)
    have = min(k, x.shape[0])  # a k beyond all points must not take memory in the kernel
    out = torch.empty(targets.shape[0], have, dtype=torch.int64)
    with _Search(library, x, None if y is None else targets, graph_x, graph_y) as given:
        library.check(library.knn(*given, have, skip_same, out.data_ptr(), get_num_threads()))
    return out if have == k else torch.nn.functional.pad(out, (0, k - have), value=-1)


def _fake_knn(x: Tensor, y: Tensor | None, a: Any, b: Any, k: int, skip_same: bool) -> Tensor:
    return x.new_empty(((x if y is None else y).shape[0], k), dtype=torch.int64)


_KNN = Operator(
    "knn",
    "(Tensor x, Tensor? y, Tensor? graph_x, Tensor? graph_y, SymInt k, bool skip_same) -> Tensor",
    run=_run_knn,
    fake=_fake_knn,
)


def _edges(table: Tensor) -> Tensor:
    """Returns the edges of a table of neighbours."""
    target = torch.arange(table.shape[0], device=table.device)[:, None].expand_as(table)
    edge_index = torch.stack([table.reshape(-1), target.reshape(-1)])
    there = edge_index[0] >= 0
    return edge_index if bool(there.all()) else edge_index[:, there]


def _shortest(edge_index: Tensor, x: Tensor, y: Tensor, max_edges: int | None) -> Tensor:
    """Keeps the shortest edges, in order, if there are too many."""
    global _capped
    if max_edges is None or edge_index.shape[1] <= max_edges:
        return edge_index
    if max_edges < 0:
        raise ValueError(f"max_edges must not be negative, got {max_edges}")
    if not _capped:
        _capped = True
        warnings.warn(
            f"the radius search found {edge_index.shape[1]} edges and keeps the {max_edges} "
            "shortest, as max_edges says. This warning is given once.",
            RuntimeWarning,
            stacklevel=3,
        )
    source, target = edge_index
    order = source.argsort(stable=True)  # by target before; so by (source, target) now
    d2 = reference_neighbors.squared_distance(x[source[order]], y[target[order]])
    kept = order[d2.argsort(stable=True)[:max_edges]]
    return edge_index[:, kept.sort().values]
