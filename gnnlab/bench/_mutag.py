"""Classes of the graphs of MUTAG by GIN: ten folds, with or without options chosen inside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnlab.bench.real_graphs import find
from gnnlab.graph import Graph
from gnnlab.layers import GINConv, Readout

__all__ = ["folds_of", "mean_and_spread", "mutag"]


class GIN(nn.Module):
    """Sums over each layer's nodes, each through a linear map, added up."""

    def __init__(self, in_dim: int, classes: int, *, dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        self.heads = nn.ModuleList([nn.Linear(in_dim, classes)])
        for k in range(layers):
            net = nn.Sequential(
                nn.Linear(dim if k else in_dim, dim),
                nn.BatchNorm1d(dim),
                nn.ReLU(),
                nn.Linear(dim, dim),
            )
            self.convs.append(GINConv(net, train_eps=True))
            self.norms.append(nn.BatchNorm1d(dim))
            self.heads.append(nn.Linear(dim, classes))
        self.readout = Readout("sum")

    def forward(self, x: Tensor, graph: Graph, batch: Tensor, num_graphs: int) -> Tensor:
        """Returns logits, (G, classes)."""
        out: Tensor = self.heads[0](self.readout(x, batch, num_graphs=num_graphs))
        for conv, norm, head in zip(self.convs, self.norms, list(self.heads)[1:], strict=True):
            x = norm(conv(x, graph)).relu()
            pooled = self.readout(x, batch, num_graphs=num_graphs)
            out = out + functional.dropout(head(pooled), self.dropout, self.training)
        return out


class _Graphs:
    """Labelled graphs; any of them can be put together to one."""

    def __init__(self) -> None:
        with np.load(find("mutag"), allow_pickle=False) as arrays:
            self.ptr = arrays["node_ptr"].astype(np.int64)
            tags = torch.from_numpy(arrays["node_tag"].astype(np.int64))
            edges = arrays["edges"].astype(np.int64)
            self.y = torch.from_numpy((arrays["y"] > 0).astype(np.int64))
        self.x = functional.one_hot(tags).float()
        owner = np.searchsorted(self.ptr, edges[:, 0], side="right") - 1
        self.edges = [edges[owner == g] for g in range(len(self.y))]

    def batch(self, ids: Sequence[int]) -> tuple[Tensor, Graph, Tensor, int]:
        """Returns features, edges, and the graph of each node."""
        sizes = [int(self.ptr[g + 1] - self.ptr[g]) for g in ids]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        x = torch.cat([self.x[self.ptr[g] : self.ptr[g + 1]] for g in ids])
        edges = [self.edges[g] - self.ptr[g] + at for g, at in zip(ids, starts, strict=False)]
        ends = torch.from_numpy(np.concatenate(edges)).t()
        graph = Graph(torch.cat([ends, ends.flip(0)], 1), len(x))
        batch = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(sizes))
        return x, graph, batch, len(ids)


_EPOCHS = (25, 50, 100, 150, 200)
_SIZES: list[dict[str, float]] = [
    {"layers": 4, "dim": 32, "dropout": 0.5},
    {"layers": 2, "dim": 32, "dropout": 0.5},
    {"layers": 4, "dim": 16, "dropout": 0.5},
    {"layers": 3, "dim": 64, "dropout": 0.0},
]
_FIXED = {**_SIZES[0], "epochs": 200.0}


def mutag(name: str, quick: bool) -> dict[str, Any]:
    graphs, fixed = _Graphs(), name == "GIN, fixed"
    folds = folds_of(graphs.y.numpy())[: 2 if quick else None]
    epochs: tuple[int, ...] = (10, 20) if quick else _EPOCHS
    found, chosen = [], []
    for seed, test in enumerate(folds):
        held = set(test)
        train = np.array([g for g in range(len(graphs.y)) if g not in held])
        options: dict[str, float] = {**_FIXED, "epochs": epochs[-1]}
        if not fixed:
            options = _best(graphs, train, _SIZES[:2] if quick else _SIZES, epochs, seed)
        chosen.append(options)
        found.append(_scores(graphs, train, test, options, (int(options["epochs"]),), seed)[0])
    return {
        "model": name,
        "data": "MUTAG, 10 folds",
        **mean_and_spread(found),
        "options": {**_FIXED} if fixed else {},
        "tried": [],
        "chosen": [] if fixed else chosen,
        "runs": [round(accuracy, 2) for accuracy in found],
    }


def _best(
    graphs: _Graphs,
    train: np.ndarray,
    sizes: Sequence[Mapping[str, float]],
    epochs: Sequence[int],
    seed: int,
) -> dict[str, float]:
    """Returns the options with the best mean accuracy over three parts of the training graphs."""
    parts = [[int(train[k]) for k in part] for part in folds_of(graphs.y.numpy()[train], 3)]
    results: list[tuple[float, dict[str, float]]] = []
    for size in sizes:
        every = []
        for part in parts:
            held = set(part)
            rest = np.array([g for g in train if g not in held])
            every.append(_scores(graphs, rest, part, size, epochs, 1000 + seed))
        for k, count in enumerate(epochs):
            mean = statistics.mean(scores[k] for scores in every)
            results.append((mean, {**size, "epochs": count}))
    best = max(range(len(results)), key=lambda k: results[k][0])  # the first of equals
    return {**results[best][1], "validation": round(results[best][0], 2)}


def folds_of(y: np.ndarray, count: int = 10) -> list[list[int]]:
    """Deals each class out to the folds in turn, after a shuffle with a fixed seed."""
    random = np.random.default_rng(0)
    order = np.concatenate([random.permutation(np.flatnonzero(y == c)) for c in np.unique(y)])
    return [[int(g) for g in order[k::count]] for k in range(count)]


def _scores(
    graphs: _Graphs,
    train: np.ndarray,
    test: list[int],
    options: Mapping[str, float],
    epochs: Sequence[int],
    seed: int,
) -> list[float]:
    """Trains, and returns the accuracy on `test` after each number of epochs, in percent."""
    torch.manual_seed(seed)
    sizes = {name: int(options[name]) for name in ("dim", "layers")}
    model = GIN(graphs.x.shape[1], 2, **sizes, dropout=options["dropout"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.5)
    random, found = np.random.default_rng(seed), []
    whole = graphs.batch(test)
    for epoch in range(1, max(epochs) + 1):
        model.train()
        order = random.permutation(train)
        for start in range(0, len(order) - 1, 32):  # batch norm wants two graphs at least
            ids = [int(g) for g in order[start : start + 32]]
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(*graphs.batch(ids)), graphs.y[ids])
            torch.autograd.backward(loss)
            optimizer.step()
        schedule.step()
        if epoch in epochs:
            model.eval()
            with torch.no_grad():
                right = model(*whole).argmax(1) == graphs.y[test]
            found.append(100 * float(right.float().mean()))
    return found


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"test": round(statistics.mean(values), 2), "spread": round(spread, 2)}
