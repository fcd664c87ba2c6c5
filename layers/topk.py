"""Top-k pooling: the nodes of each graph that score best, and the edges between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from gnnlab.layers._batch import Batch
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.ops import gather, scatter, segment_softmax

__all__ = ["Pooled", "TopKPooling"]

_TIE = 1e-7  # scores of a graph within that of its best survive any min_score


class Pooled(NamedTuple):
    """What is left of nodes and edges; K nodes and E' edges."""

    x: Tensor
    """Features of the nodes that are left, times their scores: (K, F)."""
    edge_index: Tensor
    """Edges of which both ends are left, renumbered, in their order: (2, E')."""
    edge_attr: Tensor | None
    """Their features, (E', ...)."""
    batch: Tensor
    """The graph of each node that is left, (K,)."""
    perm: Tensor
    """Which nodes they were, (K,); by graph, best first (with `min_score`: by id)."""
    score: Tensor
    """Their scores, (K,)."""


class TopKPooling(nn.Module):
    r"""Keeps the nodes of each graph with the best projections on a learned vector.

    $$ y = \sigma\!\left(\frac{X p}{\lVert p \rVert}\right), \qquad
       i = \operatorname{top}_k(y), \qquad X' = c\,(X \odot y)_i, \qquad A' = A_{i,i} $$

    With `min_score` $y$ is the softmax of $X p$ over each graph, and nodes above it stay, at least
    the best of each graph.

    Ties go to the node with the smaller id. Sizes of the result depend on the data, which
    ``torch.compile(fullgraph=True)`` does not take in every version of torch, nor with `min_score`.

    Args:
        in_dim: number of features.
        ratio: a float below 1: that share of each graph's nodes, rounded up; an int: that many
            nodes, or all that a graph has. Ignored with `min_score`.
        min_score: the score above which nodes stay.
        multiplier: c.
        nonlinearity: $\sigma$: "tanh", "sigmoid", "relu" or "identity", or a function.

    Shapes:
        x: (N, in_dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, ...) float,
        by default the weights of a `Graph`; batch: (N,) int64, the graph of each node, or None for
        one graph; attn: (N, in_dim), what is scored instead of x.
        returns: `Pooled`.

    Raises:
        ValueError: if an option or a shape does not fit.

    Example:
        >>> import torch
        >>> from gnnlab.layers import TopKPooling
        >>> pooling = TopKPooling(1, ratio=2)
        >>> _ = torch.nn.init.ones_(pooling.weight)
        >>> left = pooling(torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([[0, 1], [1, 2]]))
        >>> left.perm, left.edge_index
        (tensor([1, 2]), tensor([[0],
                [1]]))

    PyG's layer of the same name has the vector in ``select.weight``, of the same shape. A `ratio`
    of 1.0 is one node there and an error here.

    Reference: Gao & Ji, ICML 2019, arXiv:1905.05178; Cangea et al., arXiv:1811.01287; `min_score`:
    Knyazev et al., NeurIPS 2019, arXiv:1905.02850.
    """

    citation: ClassVar[str] = """@inproceedings{gao2019graph,
  title     = {Graph {U}-Nets},
  author    = {Gao, Hongyang and Ji, Shuiwang},
  booktitle = {International Conference on Machine Learning},
  year      = {2019},
  note      = {arXiv:1905.05178}
}"""
    takes: ClassVar[frozenset[str]] = frozenset({"edge_attr", "edge_weight"})
    compiles: ClassVar[bool] = False

    def __init__(
        self,
        in_dim: int,
        ratio: int | float = 0.5,
        *,
        min_score: float | None = None,
        multiplier: float = 1.0,
        nonlinearity: str | Callable[[Tensor], Tensor] = "tanh",
    ) -> None:
        super().__init__()
        if isinstance(ratio, float) and not 0 < ratio < 1:
            raise ValueError(
                f"TopKPooling: ratio={ratio} is neither a share (a float between 0 and 1, both "
                "excluded) nor a number of nodes (an int)"
            )
        if isinstance(ratio, int) and ratio < 1:
            raise ValueError(f"TopKPooling: ratio must keep at least one node, got {ratio}")
        self.in_dim = in_dim
        self.ratio: int | float = ratio
        self.min_score, self.multiplier = min_score, multiplier
        self.nonlinearity = nonlinearity
        if isinstance(nonlinearity, str):
            if nonlinearity not in _KNOWN:
                raise ValueError(
                    f'TopKPooling: unknown nonlinearity "{nonlinearity}". '
                    f"Known: {', '.join(_KNOWN)}, or give a function."
                )
            self._act: Callable[[Tensor], Tensor] = _KNOWN[nonlinearity]
        else:
            self._act = nonlinearity
        self.weight = nn.Parameter(torch.empty(1, in_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the vector anew, uniform within 1 / sqrt(in_dim)."""
        bound = 1 / math.sqrt(self.in_dim)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(
        self,
        x: Tensor,
        edges: Edges,
        edge_attr: Tensor | None = None,
        batch: Batch = None,
        attn: Tensor | None = None,
    ) -> Pooled:
        """Returns what is left."""
        given = prepare(self, x, edges, in_dim=self.in_dim)
        if given.is_bipartite:
            raise ValueError(f"TopKPooling needs one kind of nodes, got {edges!r}")
        edge_attr = given.edge_weight if edge_attr is None else edge_attr
        if edge_attr is not None and edge_attr.shape[:1] != (given.plan.num_edges,):
            raise ValueError(
                f"TopKPooling expected edge_attr with {given.plan.num_edges} rows, one per edge, "
                f"got shape {tuple(edge_attr.shape)}"
            )
        if batch is None:
            batch = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        elif batch.shape != x.shape[:1]:
            raise ValueError(
                f"batch must hold one graph per node, shape ({len(x)},), got {tuple(batch.shape)}"
            )
        if attn is not None and attn.shape != x.shape:
            raise ValueError(
                f"TopKPooling expected attn of shape {tuple(x.shape)}, got {tuple(attn.shape)}"
            )
        num_graphs = int(batch.max()) + 1 if len(batch) else 0
        scores = self._scores(x if attn is None else attn, batch, num_graphs)
        perm = self._chosen(scores.detach(), batch, num_graphs)
        score = scores[perm]
        out = gather(x, perm) * score[:, None]
        if self.multiplier != 1:
            out = self.multiplier * out
        edge_index, edge_attr = _between(perm, len(x), given.plan.edge_index, edge_attr)
        return Pooled(out, edge_index, edge_attr, batch[perm], perm, score)

    def _scores(self, x: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        """Returns y, (N,)."""
        projection = x @ self.weight[0]
        if self.min_score is None:
            return self._act(projection / self.weight.norm())
        return segment_softmax(projection, batch, dim_size=num_graphs)

    def _chosen(self, score: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        """Returns the nodes that are left, (K,)."""
        if self.min_score is not None:
            best = scatter(score, batch, num_graphs, reduce="max")[batch]
            return (score > (best - _TIE).clamp(max=self.min_score)).nonzero()[:, 0]
        size = torch.bincount(batch, minlength=num_graphs)
        if isinstance(self.ratio, float):
            # In the dtype of the scores, as PyG does it: 0.55 * 20 is 11 or 11.000000000000002.
            wide = size.to(torch.promote_types(score.dtype, torch.float32))
            allowed = (self.ratio * wide).ceil().long()
        else:
            allowed = torch.full_like(size, self.ratio)
        by_score = score.argsort(descending=True, stable=True)
        order = by_score[batch[by_score].argsort(stable=True)]
        owner = batch[order]
        rank = torch.arange(len(order), device=order.device) - (size.cumsum(0) - size)[owner]
        return order[rank < allowed[owner]]

    def extra_repr(self) -> str:
        """Returns the options."""
        rule = f"ratio={self.ratio}" if self.min_score is None else f"min_score={self.min_score}"
        return f"{self.in_dim}, {rule}, multiplier={self.multiplier}"


_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "identity": lambda x: x,
}


def _between(
    perm: Tensor, num_nodes: int, edge_index: Tensor, edge_attr: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the edges between the nodes in `perm`, renumbered, and their features."""
    place = torch.full((num_nodes,), -1, dtype=edge_index.dtype, device=perm.device)
    place[perm] = torch.arange(len(perm), dtype=edge_index.dtype, device=perm.device)
    ends = place[edge_index.long()]
    stays = (ends >= 0).all(0).nonzero()[:, 0]
    return ends[:, stays], None if edge_attr is None else gather(edge_attr, stays)
