"""DropEdge: a random part of the edges while training."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from gnnlab.graph import Graph
from gnnlab.layers._message_passing import Edges
from gnnlab.ops import EdgePlan

__all__ = ["DropEdge", "edge_dropout_weight"]

Given = TypeVar("Given", Tensor, Graph, EdgePlan)


class DropEdge(nn.Module):
    r"""Takes a random share p of the edges away, anew in every training step.

    Of E edges, E - round(p E) stay, in their order, drawn without replacement by torch's generator
    (`torch.manual_seed`). In eval mode all stay. Fewer edges make a new plan, which must be sorted;
    where dropped edges may stay with weight 0, `edge_dropout_weight` keeps the plan.

    Args:
        p: which share of the edges goes.

    Shapes:
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: any tensors (E, *).
        returns: edges in the form given, or (edges, *edge_attr) with the rows that stayed. A
        weighted `Graph` keeps the weights of its edges.

    Raises:
        ValueError: if p is not in [0, 1], or `edge_attr` does not have one row per edge.

    Example:
        >>> import torch
        >>> from gnnlab.layers import DropEdge
        >>> edges, e = DropEdge(0.5)(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]), torch.randn(4, 8))
        >>> edges.shape, e.shape
        (torch.Size([2, 2]), torch.Size([2, 8]))

    Reference: Rong et al., ICLR 2020, arXiv:1907.10903, eq. (3).
    """

    citation: ClassVar[str] = """@inproceedings{rong2020dropedge,
  title     = {{DropEdge}: Towards Deep Graph Convolutional Networks on Node Classification},
  author    = {Rong, Yu and Huang, Wenbing and Xu, Tingyang and Huang, Junzhou},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  note      = {arXiv:1907.10903}
}"""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = _share("DropEdge", p)

    def forward(self, edges: Given, *edge_attr: Tensor) -> Given | tuple[Given | Tensor, ...]:
        """Returns the edges that stay, and their features."""
        count = edges.shape[1] if isinstance(edges, Tensor) else edges.num_edges
        for attr in edge_attr:
            if attr.shape[:1] != (count,):
                raise ValueError(
                    f"DropEdge expected edge_attr with one row per edge ({count}), got "
                    f"{tuple(attr.shape)}"
                )
        if not self.training or self.p == 0:
            return (edges, *edge_attr) if edge_attr else edges
        stay = count - round(self.p * count)
        kept: Tensor = torch.randperm(count, device=edges.device)[:stay].sort().values
        fewer = _subset(edges, kept)
        return (fewer, *(attr[kept] for attr in edge_attr)) if edge_attr else fewer

    def extra_repr(self) -> str:
        """Returns p."""
        return f"{self.p:g}"


def _subset(edges: Given, kept: Tensor) -> Given:
    """Returns some of the edges, in the form given."""
    if isinstance(edges, Tensor):
        return edges[:, kept]
    ends = edges.edge_index[:, kept]
    if isinstance(edges, EdgePlan):
        return EdgePlan(ends, edges.num_src, edges.num_dst, validate=False)
    sizes = (edges.num_src, edges.num_dst) if edges.is_bipartite else edges.num_nodes
    weight = None if edges.edge_weight is None else edges.edge_weight[kept]
    return Graph(ends, sizes, edge_weight=weight, validate=False)


def edge_dropout_weight(
    edges: Edges, p: float, edge_weight: Tensor | None = None, *, training: bool = True
) -> Tensor:
    """Returns weights that drop edges without a new plan: 0, or the old weight times 1 / (1 - p).

    Layers that take `edge_weight` then see each edge with probability 1 - p, and the expectation of
    a sum stays as it was. Drawn by torch's generator.

    Args:
        edges: the edges.
        p: with which probability an edge is dropped.
        edge_weight: old weights; by default those of the graph, else 1.
        training: False returns the old weights.

    Shapes:
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) float.
        returns: (E,) float.

    Raises:
        ValueError: if p is not in [0, 1], or weights are not one per edge.

    Example:
        >>> import torch
        >>> from gnnlab.layers import LGConv, edge_dropout_weight
        >>> edges, x = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.randn(3, 8)
        >>> LGConv()(x, edges, edge_dropout_weight(edges, 0.1)).shape
        torch.Size([3, 8])
    """
    count = edges.shape[1] if isinstance(edges, Tensor) else edges.num_edges
    if edge_weight is None and isinstance(edges, Graph):
        edge_weight = edges.edge_weight
    if edge_weight is None:
        edge_weight = torch.ones(count, device=edges.device)
    if edge_weight.shape != (count,):
        raise ValueError(
            f"edge_dropout_weight expected edge_weight of shape ({count},), one number per edge, "
            f"got {tuple(edge_weight.shape)}"
        )
    return dropout(edge_weight, _share("edge_dropout_weight", p), training)


def _share(name: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p must be in [0, 1], got {p}")
    return float(p)
