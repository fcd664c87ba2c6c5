"""Positional encodings: eigenvectors of the Laplacian, and how likely a walk is to return."""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import needs
from gnnlab.graph import Graph

__all__ = ["laplacian_encoding", "random_walk_encoding"]

Normalization = Literal["sym", "rw", "none"]

_DENSE = 512  # nodes of a component, up to which all its eigenvectors are computed
_BATCH = 1 << 22  # numbers in a stack of dense matrices
_WALKS = 1 << 25  # numbers in a dense block of walks


def laplacian_encoding(
    graph: Graph,
    k: int,
    *,
    normalization: Normalization = "sym",
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Returns the k smoothest eigenvectors of the Laplacian, without the constant one.

    $$ L = I - D^{-1/2} A D^{-1/2} \text{ ("sym")}, \qquad I - D^{-1} A \text{ ("rw")}, \qquad
       D - A \text{ ("none")} $$

    Each connected component is a graph of its own, so a batch of graphs gets what its graphs get
    one by one, and the order of columns never depends on other components. Each eigenvector has
    length 1 over its component; its entry of largest magnitude is positive (the first of them, by
    node). Eigenvectors of equal eigenvalues are one basis out of many.

    Args:
        graph: the edges; A is the mean of both directions, repeated edges add up, loops do not
            count. Weights must not be negative.
        k: number of columns.
        normalization: which L: "sym", "rw" or "none".
        dtype: of the result; by default torch's default. Computed in float64.

    Shapes:
        returns: (N, k) on the graph's device; a component of n nodes has n - 1 such eigenvectors,
        further columns are 0.

    Raises:
        MissingExtraError: if scipy is not installed.
        ValueError: if the graph is bipartite, a weight is negative, or an option does not exist.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.transforms import laplacian_encoding
        >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> laplacian_encoding(path, 1, normalization="none").flatten().round(decimals=3).abs()
        tensor([0.7070, 0.0000, 0.7070])

    Reference: Dwivedi et al., arXiv:2003.00982, section 4.2.
    """
    if normalization not in ("sym", "rw", "none"):
        raise ValueError(
            f'laplacian_encoding: unknown normalization "{normalization}". Known: sym, rw, none.'
        )
    adjacency = _adjacency("laplacian_encoding", graph, k)
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    adjacency = ((adjacency + adjacency.T) / 2).tocsr()
    out = np.zeros((adjacency.shape[0], k))
    by_size: dict[int, list[np.ndarray]] = {}
    for nodes in _components(adjacency):
        if len(nodes) > 1:
            by_size.setdefault(len(nodes), []).append(nodes)
    for size, members in by_size.items():
        if size > _DENSE and k < size // 4:
            for nodes in members:
                part = adjacency[nodes][:, nodes]
                out[nodes] = _finished(_sparse_vectors(part, k, normalization)[None], k)[0]
            continue
        step = max(1, _BATCH // size**2)
        for start in range(0, len(members), step):
            stack = np.stack(members[start : start + step])
            dense = np.stack([adjacency[nodes][:, nodes].toarray() for nodes in stack])
            out[stack] = _finished(_dense_vectors(dense, normalization), k)
    return _as_tensor(out, graph, dtype)


def random_walk_encoding(graph: Graph, k: int, *, dtype: torch.dtype | None = None) -> Tensor:
    r"""Returns how likely a random walk from a node is back after 1 to k steps.

    $$ p_{it} = \bigl(P^t\bigr)_{ii}, \qquad P = D^{-1} A $$

    A walk leaves along the edges of its node, with probabilities in proportion to weights. Exact;
    of the powers of P only those up to k / 2 are made, as sparse rows, for some thousand nodes at a
    time: a walk of t steps meets in the middle, sum_j (P^a)_ij (P^b)_ji.

    Args:
        graph: the edges; loops count, repeated edges add up. Weights must not be negative.
        k: number of columns.
        dtype: of the result; by default torch's default. Computed in float64.

    Shapes:
        returns: (N, k) on the graph's device; 0 for nodes that no edge leaves.

    Raises:
        MissingExtraError: if scipy is not installed.
        ValueError: if the graph is bipartite, or a weight is negative.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.transforms import random_walk_encoding
        >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> random_walk_encoding(path, 2)
        tensor([[0.0000, 0.5000],
                [0.0000, 1.0000],
                [0.0000, 0.5000]])

    Reference: Dwivedi et al., ICLR 2022, arXiv:2110.07875, eq. (14).
    """
    adjacency = _adjacency("random_walk_encoding", graph, k)
    sparse = importlib.import_module("scipy.sparse")
    step = sparse.csr_array(sparse.diags_array(_inverse(adjacency.sum(1))) @ adjacency)
    back = step.T.tocsr()
    size = step.shape[0]
    out = np.zeros((size, k))
    block = min(max(_WALKS // max(size, 1), 64), 4096)
    for start in range(0, size, block):
        nodes = slice(start, min(start + block, size))
        # Columns i of (P^a)^T, and columns i of P^b.
        here = there = sparse.eye_array(size, format="csc")[:, nodes]
        for t in range(1, k + 1):
            if t % 2:
                here = _lean(back @ here)
            else:
                there = _lean(step @ there)
            out[nodes, t - 1] = _dots(here, there)
    return _as_tensor(out, graph, dtype)


def _lean(matrix: Any) -> Any:
    """Returns it dense once a fifth of it is filled: products are faster then."""
    is_full = not isinstance(matrix, np.ndarray) and matrix.nnz > 0.2 * np.prod(matrix.shape)
    return matrix.toarray() if is_full else matrix


def _dots(a: Any, b: Any) -> Any:
    """Returns the dot product of each pair of columns."""
    if isinstance(a, np.ndarray):
        return (b * a if isinstance(b, np.ndarray) else b.multiply(a)).sum(0)
    return a.multiply(b).sum(0)


def _adjacency(who: str, graph: Graph, k: int) -> Any:
    """Returns A as a scipy csr array, A[i, j] for the edge i -> j."""
    if k < 0:
        raise ValueError(f"{who}: k must not be negative, got {k}")
    if graph.is_bipartite:
        raise ValueError(f"{who} needs one kind of nodes, got {graph!r}")
    sparse = needs("scipy.sparse", who, "transforms")
    weight = graph.edge_weight
    if weight is not None and weight.numel() and float(weight.detach().min()) < 0:
        raise ValueError(
            f"{who}: weights must not be negative, got {float(weight.detach().min()):g}"
        )
    src, dst = graph.edge_index.cpu().numpy()
    values = np.ones(len(src)) if weight is None else weight.detach().double().cpu().numpy()
    return sparse.coo_array((values, (src, dst)), shape=(graph.num_nodes,) * 2).tocsr()


def _components(adjacency: Any) -> list[np.ndarray]:
    """Returns the nodes of each connected component, in increasing order."""
    csgraph = importlib.import_module("scipy.sparse.csgraph")
    count, label = csgraph.connected_components(adjacency, directed=False)
    order = np.argsort(label, kind="stable")
    return np.split(order, np.cumsum(np.bincount(label, minlength=count))[:-1]) if count else []


def _dense_vectors(adjacency: np.ndarray, normalization: Normalization) -> np.ndarray:
    """Returns all eigenvectors but the first, (G, n, n - 1), of G components of n nodes."""
    size = adjacency.shape[1]
    degree = adjacency.sum(2)
    scale = np.ones_like(degree) if normalization == "none" else np.sqrt(_inverse(degree))
    diagonal = degree if normalization == "none" else np.ones_like(degree)
    laplacian = np.eye(size) * diagonal[:, None] - scale[:, :, None] * adjacency * scale[:, None]
    vectors: np.ndarray = np.linalg.eigh(laplacian)[1][:, :, 1:]
    return vectors * scale[:, :, None] if normalization == "rw" else vectors


def _sparse_vectors(adjacency: Any, k: int, normalization: Normalization) -> np.ndarray:
    """Returns the k smoothest eigenvectors but the first, (n, k), of one large component."""
    sparse = importlib.import_module("scipy.sparse")
    linalg = importlib.import_module("scipy.sparse.linalg")
    degree = adjacency.sum(1)
    scale = np.ones(len(degree)) if normalization == "none" else np.sqrt(_inverse(degree))
    top = 2 * degree.max() if normalization == "none" else 2.0  # no eigenvalue is larger
    diagonal = degree if normalization == "none" else np.ones(len(degree))
    half = sparse.diags_array(scale)
    laplacian = sparse.csr_array(sparse.diags_array(diagonal) - half @ adjacency @ half)
    turned = sparse.diags_array(np.full(len(degree), top)) - laplacian
    options = {"v0": np.random.default_rng(0).standard_normal(len(degree)), "k": k + 1}
    ncv = min(max(2 * k + 1, 60), len(degree))
    try:
        values, vectors = linalg.eigsh(turned, which="LA", ncv=ncv, maxiter=300, **options)
        values = top - values
    except linalg.ArpackNoConvergence:
        # Eigenvalues near 0 lie close, as in long meshes; such graphs can be factored.
        values, vectors = linalg.eigsh(laplacian.tocsc(), sigma=-1e-4 * top, **options)
    vectors = vectors[:, np.argsort(values)[1:]]
    found: np.ndarray = vectors * scale[:, None] if normalization == "rw" else vectors
    return found


def _finished(vectors: np.ndarray, k: int) -> np.ndarray:
    """Returns (G, n, k): length 1, signs fixed, and zeros for missing columns."""
    vectors = vectors[:, :, :k]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    size = np.abs(vectors)
    # Entries as large as the largest but for rounding count as ties; the first of them decides.
    first = np.argmax(size >= size.max(1, keepdims=True) * (1 - 1e-6), axis=1)
    sign = np.sign(np.take_along_axis(vectors, first[:, None], 1))
    padded: np.ndarray = np.pad(vectors * sign, ((0, 0), (0, 0), (0, k - vectors.shape[2])))
    return padded


def _inverse(degree: np.ndarray) -> np.ndarray:
    """Returns 1 / degree, 0 where the degree is 0."""
    inverse: np.ndarray = np.zeros_like(degree, dtype=np.float64)
    np.divide(1.0, degree, out=inverse, where=degree > 0)
    return inverse


def _as_tensor(values: np.ndarray, graph: Graph, dtype: torch.dtype | None) -> Tensor:
    dtype = torch.get_default_dtype() if dtype is None else dtype
    return torch.from_numpy(values).to(device=graph.device, dtype=dtype)
