"""Small real graphs that layers are judged on: read from files that users bring, never shipped.

Files are `.npz` of plain arrays in the folder GNNLAB_DATA, in its part graphs, or in the cache
folder: undirected edges stored once, features as CSR arrays, node ids from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab.bench.graphs import BenchGraph
from gnnlab.errors import DataError
from gnnlab.folders import data_folders

__all__ = ["NodeData", "find", "load_nodes", "structure"]


@dataclass(frozen=True)
class NodeData:
    """A graph whose nodes have a class, with the public split."""

    x: Tensor
    """(N, F) float32; each row sums to 1 or is 0."""
    edge_index: Tensor
    """(2, E) int64, both directions of every edge."""
    y: Tensor
    """(N,) int64."""
    train: Tensor
    """Nodes whose class is known, int64."""
    val: Tensor
    """Nodes that options and epochs are chosen on."""
    test: Tensor
    """Nodes that are looked at last."""


def find(name: str) -> Path:
    """Returns the file of a graph.

    Raises:
        DataError: when it is in none of the folders that are searched.
    """
    folders = data_folders("graphs")
    for folder in folders:
        if (folder / f"{name}.npz").is_file():
            return folder / f"{name}.npz"
    listed = ", ".join(map(str, folders))
    raise DataError(f"no {name}.npz in {listed}. Set GNNLAB_DATA to the folder that holds graphs/.")


def structure(name: str) -> BenchGraph | str:
    """Returns the edges of Cora ("cora") or PubMed ("pubmed"), or why they cannot be had."""
    try:
        path = find({"pubmed": "pubmed_structure"}.get(name, name))
    except DataError as error:
        return str(error)
    with np.load(path, allow_pickle=False) as arrays:
        edges, size = _mirrored(arrays), len(arrays["y"])
    return BenchGraph({"cora": "Cora", "pubmed": "PubMed"}[name], edges, size, size)


def load_nodes(name: str) -> NodeData:
    """Reads a graph for classification of its nodes.

    Args:
        name: of the file without its ending, for example "cora".

    Raises:
        DataError: when the file is missing.
    """
    with np.load(find(name), allow_pickle=False) as arrays:
        ids = [torch.from_numpy(arrays[f"{part}_idx"].astype(np.int64)) for part in _PARTS]
        y = torch.from_numpy(arrays["y"].astype(np.int64))
        return NodeData(_features(arrays), _mirrored(arrays), y, *ids)


_PARTS = ("train", "val", "test")


def _mirrored(arrays: Any) -> Tensor:
    edges = torch.from_numpy(arrays["edges"].astype(np.int64))
    edges = edges.t() if edges.shape[1] == 2 else edges
    return torch.cat([edges, edges.flip(0)], 1).contiguous()


def _features(arrays: Any) -> Tensor:
    """Returns the CSR features as a dense matrix whose rows sum to 1."""
    indptr, columns = arrays["x_indptr"], arrays["x_indices"].astype(np.int64)
    x = np.zeros(tuple(arrays["x_shape"]), dtype=np.float32)
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    x[rows, columns] = arrays["x_data"]
    total = x.sum(1, keepdims=True)
    return torch.from_numpy(x / np.where(total == 0, 1, total))
