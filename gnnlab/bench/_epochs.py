"""A training epoch of two layers on Cora: forward, loss, backward and a step of Adam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gnnlab.bench._machine import Call, clock_of, measure
from gnnlab.bench.real_graphs import NodeData, load_nodes
from gnnlab.compat.dgl import dgl_graph, to_dgl
from gnnlab.graph import Graph
from gnnlab.layers import GATConv, GCNConv, GINConv
from gnnlab.layers._layer import Layer

__all__ = ["epochs"]

Forward = Callable[[Tensor], Tensor]


def epochs(peers: Sequence[str], repeats: int, wrap: Callable[[Forward, bool], Forward]) -> Any:
    """Returns one row per model: milliseconds of an epoch by library.

    Args:
        peers: of "pyg", "scatter" and "dgl".
        repeats: turns.
        wrap: (forward, whether torch_scatter is used) -> the same forward, for PyG.

    Raises:
        DataError: when Cora is not on this machine.
        RuntimeError: if the first losses differ.
    """
    data, rows = load_nodes("cora"), []
    classes = int(data.y.max()) + 1
    for name, make in _models(data.x.shape[1], classes).items():
        torch.manual_seed(0)
        layers = make()
        calls = {"gnnlab": _epoch(data, layers, _on(layers, Graph(data.edge_index, len(data.y))))}
        for peer in peers:
            label, theirs, forward = _peer(peer, layers, data, wrap)
            calls[label] = _epoch(data, theirs, forward)
        firsts, losses = {}, {}
        for label, call in calls.items():
            losses[label], firsts[label] = call.timed(clock_of(wall=False))
        for label, loss in losses.items():
            if abs(loss - losses["gnnlab"]) > 1e-3:
                raise RuntimeError(f"{label}, {name}: loss {loss:.5f}, ours {losses['gnnlab']:.5f}")
        times = measure(calls, firsts, wall=False, repeats=repeats)
        rows.append({"model": name, "ms": {k: float(f"{t.median:.4g}") for k, t in times.items()}})
    return rows


def _models(in_dim: int, classes: int) -> dict[str, Callable[[], list[Layer]]]:
    def mlp(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, b))

    return {
        "GCN": lambda: [GCNConv(in_dim, 16), GCNConv(16, classes)],
        "GAT": lambda: [GATConv(in_dim, 8, heads=8), GATConv(64, classes)],
        "GIN": lambda: [GINConv(mlp(in_dim, 16)), GINConv(mlp(16, classes))],
    }


def _on(layers: Sequence[nn.Module], edges: Any) -> Forward:
    first, second = layers

    def forward(x: Tensor) -> Tensor:
        out: Tensor = second(first(x, edges).relu(), edges)
        return out

    return forward


def _peer(
    peer: str, layers: Sequence[Layer], data: NodeData, wrap: Callable[[Forward, bool], Forward]
) -> tuple[str, list[nn.Module], Forward]:
    if peer == "dgl":
        theirs = [to_dgl(layer) for layer in layers]
        graph = dgl_graph(data.edge_index, len(data.y), loops=theirs[0].loops)
        return "DGL", [*theirs], lambda x: theirs[1](graph, theirs[0](graph, x).relu())
    made: list[Any] = [layer.to_pyg() for layer in layers]
    for layer in made:
        if hasattr(layer, "cached"):
            layer.cached = True
    with_scatter = peer == "scatter"
    label = "PyG, torch_scatter" if with_scatter else "PyG"
    return label, made, wrap(_on(made, data.edge_index), with_scatter)


def _epoch(data: NodeData, layers: Sequence[nn.Module], forward: Forward) -> Call:
    """Returns an epoch; its result is the loss."""
    weights = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.Adam(weights, lr=0.01)

    def run() -> float:
        optimizer.zero_grad()
        loss = cross_entropy(forward(data.x)[data.train], data.y[data.train])
        torch.autograd.backward(loss)
        optimizer.step()
        return float(loss.detach())

    return Call(run)
