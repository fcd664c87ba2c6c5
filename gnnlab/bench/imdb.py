"""Genres of films on a graph of films, directors and actors: RGCN, HGT and Simple-HGN.

The classes are action, comedy and drama, the features keywords of the plot, 401 films are labelled,
400 are for choices. Each model is a row of a table that holds its options; options were chosen by
the mean accuracy on the 400, never by the test films.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout

from gnnlab.bench.real_graphs import find
from gnnlab.errors import ConfigError, DataError, did_you_mean
from gnnlab.experiment import environment
from gnnlab.hetero import HeteroGraph
from gnnlab.layers import HGTConv, RGCNConv, SimpleHGNConv
from gnnlab.ops import EdgePlan, scatter, spmm
from gnnlab.report import text_table

__all__ = ["FLOORS", "MODELS", "Films", "Options", "read", "run", "table", "train"]

FLOORS = {
    "majority": 36.9,
    "label propagation": 50.7,
    "MLP": 51.7,
    "MLP on means of metapaths": 58.4,
}
"""Test accuracy in percent that the description of the data file gives."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one model is made and trained."""

    model: Literal["mlp", "rgcn", "hgt", "simple-hgn"]
    """Layer; "mlp" looks at no edge."""
    metapaths: bool = True
    """Whether films with a common director, or actor, are joined by edges of a further type."""
    features: Literal["counts", "tf-idf"] = "tf-idf"
    """Keyword counts with rows that sum to 1, or TF-IDF with rows of length 1."""
    hidden: int = 64
    """Width of hidden layers."""
    heads: int = 4
    """Attention heads."""
    linear: bool = False
    """Whether rows of keywords go into the first layer without ReLU."""
    jump: bool = True
    """Whether the classifier sees all layers instead of the last."""
    dropout: float = 0.5
    """On hidden rows."""
    feature_dropout: float = 0.8
    """On keyword counts."""
    lr: float = 5e-3
    """Learning rate of Adam."""
    weight_decay: float = 1e-3
    """L2 penalty."""
    smoothing: float = 0.1
    """Label smoothing."""
    epochs: int = 200
    """At most."""
    patience: int = 20
    """Epochs without a lower validation loss before training ends."""


class Films(NamedTuple):
    """The data, ready for training: nodes are films, then directors, then actors."""

    graph: HeteroGraph
    """Without edges between films."""
    words: EdgePlan
    """From keywords to films."""
    counts: Tensor
    """How often a keyword stands at a film, one per edge of `words`."""
    y: Tensor
    """Class of each film."""
    train: Tensor
    val: Tensor
    test: Tensor
    """Numbers of the films of each part."""


def read(path: str | Path | None = None) -> Films:
    """Reads the film graph.

    Args:
        path: its npz file; by default `imdb_hetero.npz` where `gnnlab.bench.real_graphs` looks.

    Raises:
        DataError: if the file is missing or lacks an array.
    """
    path = find("imdb_hetero") if path is None else Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; give the npz file of the film graph.")
    with np.load(path, allow_pickle=False) as file:
        try:
            arrays = {k: torch.from_numpy(file[k].astype(np.int64)) for k in _ARRAYS}
        except KeyError as error:
            raise DataError(f"{path} has no array {error}; it is not the film graph.") from None
    films, directors, actors = arrays["num_nodes"].tolist()
    by_director, by_actor = (arrays[f"movie_{role}"].t() for role in ("director", "actor"))
    graph = HeteroGraph(
        {"film": films, "director": directors, "actor": actors},
        {
            ("film", "directed by", "director"): by_director,
            ("director", "directs", "film"): by_director.flip(0),
            ("film", "played by", "actor"): by_actor,
            ("actor", "plays in", "film"): by_actor.flip(0),
        },
    )
    rows = torch.arange(films).repeat_interleave(arrays["movie_x_indptr"].diff())
    ends = torch.stack([arrays["movie_x_indices"], rows])
    plan = EdgePlan(ends, int(arrays["movie_x_shape"][1]), films)
    parts = (arrays[f"{part}_idx"] for part in ("train", "val", "test"))
    return Films(graph, plan, arrays["movie_x_data"].float(), arrays["y"], *parts)


_ARRAYS = ("num_nodes", "movie_director", "movie_actor", "movie_x_indptr", "movie_x_indices",
           "movie_x_data", "movie_x_shape", "y", "train_idx", "val_idx", "test_idx")  # fmt: skip


def with_metapaths(graph: HeteroGraph) -> HeteroGraph:
    """Returns the graph with edges between films that have a director, or an actor, in common."""
    edges = {kind: graph[kind] for kind in graph.edge_types}
    more = {}
    for role, relation in (("director", "directed by"), ("actor", "played by")):
        film, person = graph["film", relation, role].edge_index
        size = torch.bincount(person)
        by_person = film[person.argsort(stable=True)]
        taken = size[person]  # each film meets all films of the person
        start = (size.cumsum(0) - size)[person]
        inside = torch.arange(int(taken.sum())) - (taken.cumsum(0) - taken).repeat_interleave(taken)
        other = by_person[start.repeat_interleave(taken) + inside]
        more["film", f"same {role}", "film"] = torch.stack([other, film.repeat_interleave(taken)])
    return HeteroGraph(graph.num_nodes, {**edges, **more})


class Network(nn.Module):
    """Keywords -> hidden rows of all nodes -> layers -> classes of the films."""

    def __init__(self, options: Options, films: Films, graph: HeteroGraph) -> None:
        super().__init__()
        self.options, width, kinds = options, options.hidden, len(graph.edge_types)
        self.words = nn.Parameter(torch.empty(films.words.num_src, width))
        nn.init.xavier_uniform_(self.words)
        self.bias = nn.Parameter(torch.zeros(3, width))
        made: dict[str, Any] = {
            "mlp": lambda: nn.Linear(width, width),
            "rgcn": lambda: RGCNConv(width, width, kinds),
            "hgt": lambda: HGTConv(width, width, graph.metadata, heads=options.heads),
            "simple-hgn": lambda: SimpleHGNConv(
                width, width // options.heads, kinds, heads=options.heads, beta=0.05
            ),
        }
        self.convs = nn.ModuleList(made[options.model]() for _ in range(2))
        self.head = nn.Linear(3 * width if options.jump else width, 3)

    def forward(self, films: Films, values: Tensor, graph: HeteroGraph) -> Tensor:
        """Returns scores of the classes, one row per film."""
        options, num_films = self.options, graph.num_nodes["film"]
        values = dropout(values, options.feature_dropout, self.training)
        rows = spmm(films.words, self.words, values)
        # People have the mean of their films; the map is linear, so the mean may follow it.
        people = [spmm(graph[r].plan, rows, reduce="mean") for r in ("directed by", "played by")]
        h = torch.cat([rows, *people]) + self.bias[graph.homogeneous().node_type]
        h = h if options.linear else torch.relu(h)
        seen, shares = [h[:num_films]], None
        for conv in self.convs:
            h = dropout(h, options.dropout, self.training)
            h, shares = self._step(conv, h, shares, graph)
            h = torch.relu(h)
            seen.append(h[:num_films])
        last = torch.cat(seen, 1) if options.jump else seen[-1]
        scores: Tensor = self.head(dropout(last, options.dropout, self.training))
        return scores

    def _step(
        self, conv: nn.Module, h: Tensor, shares: Tensor | None, graph: HeteroGraph
    ) -> tuple[Tensor, Tensor | None]:
        whole = graph.homogeneous()
        if self.options.model == "mlp":
            return conv(h), None
        if self.options.model == "hgt":
            sizes = graph.num_nodes
            parts = torch.split(h, [*sizes.values()])
            out = conv(dict(zip(sizes, parts, strict=True)), graph)
            return torch.cat([out[name] for name in sizes]), None
        if self.options.model == "simple-hgn":
            out, shares = conv(h, whole.graph, whole.edge_type, shares, return_shares=True)
            return out, shares
        return conv(h, whole.graph, whole.edge_type), None


def _values(films: Films, features: str) -> Tensor:
    """Returns the entries of the feature matrix, one per edge of `films.words`."""
    plan, counts = films.words, films.counts
    word, film = plan.src, plan.dst
    if features == "counts":
        return counts / scatter(counts, film, plan.num_dst)[film]
    found = torch.bincount(word, minlength=plan.num_src)
    value = counts.sqrt() * (plan.num_dst / found.clamp(min=1)).log()[word]
    return value / scatter(value.square(), film, plan.num_dst).sqrt()[film]


def train(options: Options, films: Films, seed: int) -> dict[str, float]:
    """Trains one model; returns accuracies at the epoch of the lowest validation loss.

    Args:
        options: the model.
        films: the data.
        seed: for weights and dropout.

    Returns:
        "val" and "test" in percent, "epoch", "seconds".
    """
    torch.manual_seed(seed)
    began = time.perf_counter()
    graph = with_metapaths(films.graph) if options.metapaths else films.graph
    network = Network(options, films, graph)
    values = _values(films, options.features)
    adam = torch.optim.Adam(network.parameters(), options.lr, weight_decay=options.weight_decay)
    best, state, epoch_of_best = float("inf"), network.state_dict(), 0
    for epoch in range(options.epochs):
        network.train()
        adam.zero_grad()
        scores = network(films, values, graph)[films.train]
        loss = cross_entropy(scores, films.y[films.train], label_smoothing=options.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        network.eval()
        with torch.no_grad():
            scores = network(films, values, graph)[films.val]
            found = float(cross_entropy(scores, films.y[films.val]))
        if found < best:
            best, state, epoch_of_best = found, copy.deepcopy(network.state_dict()), epoch
        elif epoch - epoch_of_best >= options.patience:
            break
    network.load_state_dict(state)
    with torch.no_grad():
        right = (network(films, values, graph).argmax(1) == films.y).float() * 100
    return {
        "val": float(right[films.val].mean()),
        "test": float(right[films.test].mean()),
        "loss": best,
        "epoch": epoch_of_best,
        "seconds": time.perf_counter() - began,
    }


MODELS: dict[str, Options] = {
    "MLP": Options(model="mlp", metapaths=False),
    "RGCN": Options(model="rgcn"),
    "HGT": Options(model="hgt", linear=True, weight_decay=1e-4),
    "Simple-HGN": Options(model="simple-hgn", linear=True),
}
"""The rows of the table, with options chosen on validation."""


def run(
    path: str | Path | None = None, *, seeds: int = 5, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains each model with several seeds and returns a JSON-able result.

    Args:
        path: see `read`.
        seeds: runs of each model.
        only: rows of `MODELS`; by default all.

    Raises:
        DataError: if the file cannot be read.
        ConfigError: for an unknown row.
    """
    films = read(path)
    for name in only:
        if name not in MODELS:
            raise ConfigError(f'unknown model "{name}".{did_you_mean(name, MODELS)}')
    began = time.perf_counter()
    rows = [_row(name, MODELS[name], films, seeds) for name in only or MODELS]
    most = int(torch.bincount(films.y[films.train]).argmax())
    return {
        "kind": "imdb",
        "about": "genres of films (action, comedy, drama) on IMDB 5000: "
        f"{len(films.train)} labelled films, {len(films.val)} for choices, {len(films.test)} to "
        "classify; equal films are on one side of the split",
        "command": "gnnlab bench imdb "
        + f"--seeds {seeds} " * (seeds != 5)
        + f"--only {','.join(only)} " * bool(only)
        + "--out docs/results/imdb.json",
        "environment": environment(),
        "floors": [{"model": k, "test": v} for k, v in FLOORS.items()],
        "majority": round(float((films.y[films.test] == most).float().mean()) * 100, 1),
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _row(name: str, options: Options, films: Films, seeds: int) -> dict[str, Any]:
    found = [train(options, films, seed) for seed in range(seeds)]
    row: dict[str, Any] = {"model": name, "seeds": seeds, "options": asdict(options)}
    for part in ("val", "test"):
        values = [one[part] for one in found]
        row[part] = round(statistics.fmean(values), 2)
        row[f"{part} spread"] = round(statistics.stdev(values), 2) if seeds > 1 else None
    row["epoch"] = [int(one["epoch"]) for one in found]
    row["seconds"] = round(sum(one["seconds"] for one in found), 1)
    return row


def table(result: dict[str, Any]) -> str:
    """Returns a result as text; accuracies in percent."""
    rows = [{"model": f"{r['model']} (given)", "test": r["test"]} for r in result["floors"]]
    rows += result["rows"]
    return text_table(rows, ["model", "val", "val spread", "test", "test spread", "seconds"])
