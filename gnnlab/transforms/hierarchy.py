"""Levels of ever coarser graphs, made once per mesh and kept in a file."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import DataError
from gnnlab.graph import Graph
from gnnlab.transforms.coarsen import (
    Rule,
    Seed,
    check_rule,
    coarse_pairs,
    components,
    graph_of,
    kept_nodes,
    pattern,
    positions_of,
    rules_of_bodies,
)

__all__ = ["Hierarchy"]

_FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class Hierarchy:
    """A graph and ever coarser ones, each with about half of the nodes of the one before.

    Connected components stay apart on all levels, so a batch of meshes is coarsened as its meshes
    are one by one (but for the stop rule, which looks at all).

    Args:
        graphs: the graph of each level, the finest first.
        kept: which nodes of a level make up the next one.

    Shapes:
        kept: one (N_l+1,) int64 fewer than levels, increasing, ids of level l from 0.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.transforms import Hierarchy
        >>> path = torch.arange(10)
        >>> graph = Graph(torch.stack([path, path + 1]), 11)
        >>> Hierarchy.build(graph, torch.arange(11.0)[:, None], levels=4, edges="bsms", min_nodes=2)
        Hierarchy(num_nodes=[11, 5, 2])
    """

    graphs: tuple[Graph, ...]
    kept: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        """Checks that levels fit one another."""
        if len(self.graphs) != len(self.kept) + 1:
            raise ValueError(
                f"Hierarchy: {len(self.graphs)} graphs need {len(self.graphs) - 1} sets of kept "
                f"nodes, got {len(self.kept)}"
            )
        for level, ids in enumerate(self.kept):
            fine, coarse = self.graphs[level].num_nodes, self.graphs[level + 1].num_nodes
            if ids.shape != (coarse,):
                raise ValueError(
                    f"Hierarchy: level {level + 1} has {coarse} nodes, but kept[{level}] has shape "
                    f"{tuple(ids.shape)}"
                )
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < fine:
                raise ValueError(f"Hierarchy: kept[{level}] holds nodes beyond 0..{fine - 1}")

    @classmethod
    def build(
        cls,
        graph: Graph,
        positions: Tensor | None,
        *,
        levels: int,
        min_nodes: int = 5,
        cells: Tensor | None = None,
        edges: Rule = "auto",
        seed: Seed = "near_center",
        alpha: float = 2.5,
    ) -> Hierarchy:
        """Coarsens again and again by `bistride`, with edges as `coarse_graph` makes them.

        It stops before a level in which a component would have fewer than `min_nodes` nodes, or in
        which no node goes.

        Args:
            graph: the finest level.
            positions: where its nodes are, undeformed; None needs edges="bsms" and seed="min_ave".
            levels: how many levels at most, the finest included.
            min_nodes: how many nodes a component has at least on coarse levels.
            cells: its triangles, quadrilaterals or tetrahedra, with which edges="auto" decides once
                per component; without them "auto" is "bsms".
            edges: the rule of `coarse_graph`.
            seed: as in `bistride`.
            alpha: for edges="delaunay_filtered".

        Shapes:
            positions: (N, d) float; cells: (C, k) int64.

        Raises:
            MissingExtraError: if scipy is not installed.
            ValueError: if an argument is missing, of another shape or unknown.

        Reference: Cao et al., ICML 2023, arXiv:2210.02573, section 3.
        """
        who = "Hierarchy.build"
        check_rule(who, edges, positions)
        if levels < 1 or min_nodes < 1:
            raise ValueError(
                f"{who}: levels and min_nodes must be at least 1, got {levels} and {min_nodes}"
            )
        if seed not in ("near_center", "min_ave"):
            raise ValueError(f'{who}: unknown seed "{seed}". Known: near_center, min_ave.')
        if seed == "near_center" and positions is None:
            raise ValueError(f'{who}: seed="near_center" needs positions; or take seed="min_ave"')
        where = None if positions is None else positions_of(who, positions, graph)
        adjacency = pattern(who, graph)
        count, label = components(adjacency)
        rules = rules_of_bodies(label, where, edges, cells)
        graphs, kept = [graph], []
        while len(graphs) < levels:
            ids = kept_nodes(adjacency, where if seed == "near_center" else None)
            smallest = int(np.bincount(label[ids], minlength=count).min(initial=len(label)))
            if len(ids) == len(label) or smallest < min_nodes:
                _warn_if_nothing(len(graphs), np.bincount(label, minlength=count), min_nodes)
                break
            pairs = coarse_pairs(adjacency, ids, label, where, rules, alpha)
            fine = graph_of(pairs, len(ids), graph.device)
            graphs.append(fine)
            kept.append(torch.from_numpy(ids).to(graph.device))
            adjacency, label = pattern(who, fine), label[ids]
            where = None if where is None else where[ids]
        return cls(tuple(graphs), tuple(kept))

    @property
    def num_levels(self) -> int:
        """How many levels there are, the finest included."""
        return len(self.graphs)

    def ids(self, level: int) -> Tensor:
        """Returns which nodes of the finest level those of `level` are, (N_l,) int64."""
        if not 0 <= level < self.num_levels:
            raise ValueError(f"Hierarchy: no level {level}, valid are 0..{self.num_levels - 1}")
        found = torch.arange(self.graphs[0].num_nodes, device=self.graphs[0].device)
        for kept in self.kept[:level]:
            found = found[kept]
        return found

    def to(self, device: torch.device | str) -> Hierarchy:
        """Returns the hierarchy on `device`."""
        return Hierarchy(
            tuple(graph.to(device) for graph in self.graphs),
            tuple(kept.to(device) for kept in self.kept),
        )

    def save(self, path: str | Path) -> None:
        """Writes one .npz file, arrays only, that `load` reads.

        Example:
            >>> import torch
            >>> from gnnlab.graph import Graph
            >>> from gnnlab.transforms import Hierarchy
            >>> Hierarchy((Graph(torch.tensor([[0], [1]]), 2),), ()).save("mesh.npz")
            >>> Hierarchy.load("mesh.npz")
            Hierarchy(num_nodes=[2])
        """
        arrays: dict[str, Any] = {
            "format": np.int64(_FORMAT),
            "num_nodes": np.array([graph.num_nodes for graph in self.graphs], dtype=np.int64),
        }
        for level, graph in enumerate(self.graphs):
            arrays[f"edge_index_{level}"] = graph.edge_index.cpu().numpy()
            if graph.edge_weight is not None:
                arrays[f"edge_weight_{level}"] = graph.edge_weight.detach().cpu().numpy()
        for level, kept in enumerate(self.kept):
            arrays[f"kept_{level}"] = kept.cpu().numpy()
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Hierarchy:
        """Reads a file of `save`; nothing in it is executed.

        Raises:
            FileNotFoundError: if there is no such file.
            DataError: if it is no such file, of another version, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except FileNotFoundError:
            raise
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a file of Hierarchy.save ({error})") from error
        found = arrays.get("format")
        if found is None or found.shape != () or int(found) != _FORMAT:
            raise DataError(
                f"{path}: format {'missing' if found is None else found}, this version reads "
                f"{_FORMAT}; build the hierarchy again"
            )
        try:
            sizes = arrays["num_nodes"].tolist()
            graphs = []
            for level, size in enumerate(sizes):
                weight = arrays.get(f"edge_weight_{level}")
                ends = torch.from_numpy(arrays[f"edge_index_{level}"])
                more = None if weight is None else torch.from_numpy(weight)
                graphs.append(Graph(ends, size, edge_weight=more))
            kept = [torch.from_numpy(arrays[f"kept_{level}"]) for level in range(len(sizes) - 1)]
            return cls(tuple(graphs), tuple(kept))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: damaged: {error}") from error

    def __repr__(self) -> str:
        return f"Hierarchy(num_nodes={[graph.num_nodes for graph in self.graphs]})"


def _warn_if_nothing(levels: int, sizes: np.ndarray, min_nodes: int) -> None:
    """Warns when a component was too small from the start, so that there is one level only."""
    if levels == 1 and sizes.min(initial=min_nodes) < min_nodes:
        small = int((sizes < min_nodes).sum())
        warnings.warn(
            f"Hierarchy.build made no coarse level: {small} of {len(sizes)} components have fewer "
            f"than min_nodes={min_nodes} nodes. Drop them, or lower min_nodes.",
            stacklevel=3,
        )
