"""Readouts: one row per graph from one row per node."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.layers._batch import Batch, per_graph
from gnnlab.ops import scatter, segment_softmax

__all__ = ["AttentionReadout", "Readout", "SoftmaxReadout"]


class Readout(nn.Module):
    """Adds up, averages or maximises the nodes of each graph.

    Args:
        reduce: "sum", "mean" or "max".

    Shapes:
        x: (N, F) float; batch: (N,) int64, the graph of each node, or None for one graph;
        num_graphs: G, by default the largest entry of batch plus 1.
        returns: (G, F); graphs without nodes get 0.

    Raises:
        ValueError: if `reduce` is unknown, or batch is not one number per node.

    Example:
        >>> import torch
        >>> from gnnlab.layers import Readout
        >>> Readout("mean")(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
        tensor([[2.],
                [5.]])
    """

    def __init__(self, reduce: Literal["sum", "mean", "max"] = "sum") -> None:
        super().__init__()
        if reduce not in ("sum", "mean", "max"):
            raise ValueError(f'Readout: unknown reduce "{reduce}". Known: sum, mean, max.')
        self.reduce: Literal["sum", "mean", "max"] = reduce

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns one row per graph."""
        return per_graph(x, batch, num_graphs, self.reduce)

    def extra_repr(self) -> str:
        """Returns the reduction."""
        return repr(self.reduce)


class SoftmaxReadout(nn.Module):
    r"""Averages nodes with weights that grow with their own values: between mean and max.

    $$ y = \sum_i \operatorname*{softmax}_i(t\, x_i) \odot x_i $$

    feature by feature.

    Args:
        temperature: the initial t; 0 is the mean, large t the maximum.
        learn: whether t is learned.

    Shapes:
        x: (N, F) float; batch: (N,) int64, the graph of each node, or None for one graph.
        returns: (G, F).

    Example:
        >>> import torch
        >>> from gnnlab.layers import SoftmaxReadout
        >>> SoftmaxReadout(100.0)(torch.tensor([[1.0], [3.0]])).round()
        tensor([[3.]])

    Reference: Li et al., arXiv:2006.07739, eq. (3).
    """

    citation: ClassVar[str] = """@article{li2020deepergcn,
  title   = {{DeeperGCN}: All You Need to Train Deeper {GCN}s},
  author  = {Li, Guohao and Xiong, Chenxin and Thabet, Ali and Ghanem, Bernard},
  journal = {arXiv:2006.07739},
  year    = {2020}
}"""

    def __init__(self, temperature: float = 1.0, *, learn: bool = False) -> None:
        super().__init__()
        start = float(temperature)
        self.temperature = nn.Parameter(torch.tensor([start])) if learn else start

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns one row per graph."""
        scores = x * self.temperature
        if batch is None:
            return (scores.softmax(0) * x).sum(0, keepdim=True)
        share = segment_softmax(scores, batch, dim_size=num_graphs)
        return scatter(share * x, batch, num_graphs)

    def extra_repr(self) -> str:
        """Returns t."""
        learn = isinstance(self.temperature, Tensor)
        return f"{float(self.temperature):g}" + ", learn=True" * learn


class AttentionReadout(nn.Module):
    r"""Averages nodes by attention that a network gives them.

    $$ y = \sum_i \operatorname*{softmax}_i(\mathrm{gate}(x_i))\, \mathrm{net}(x_i) $$

    Args:
        gate: from (N, F) to (N, 1), or to (N, F') for weights of each feature.
        net: from (N, F) to (N, F'); None: x itself.

    Shapes:
        x: (N, F) float; batch: (N,) int64, the graph of each node, or None for one graph.
        returns: (G, F').

    Example:
        >>> import torch
        >>> from gnnlab.layers import AttentionReadout
        >>> readout = AttentionReadout(torch.nn.Linear(8, 1))
        >>> readout(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([2, 8])

    Reference: Li et al., ICLR 2016, arXiv:1511.05493, eq. (7).
    """

    citation: ClassVar[str] = """@inproceedings{li2016gated,
  title     = {Gated Graph Sequence Neural Networks},
  author    = {Li, Yujia and Tarlow, Daniel and Brockschmidt, Marc and Zemel, Richard},
  booktitle = {International Conference on Learning Representations},
  year      = {2016},
  note      = {arXiv:1511.05493}
}"""

    def __init__(self, gate: nn.Module, net: nn.Module | None = None) -> None:
        super().__init__()
        self.gate, self.net = gate, net

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns one row per graph."""
        scores = self.gate(x)
        values = x if self.net is None else self.net(x)
        if batch is None:
            pooled: Tensor = (scores.softmax(0) * values).sum(0, keepdim=True)
            return pooled
        share = segment_softmax(scores, batch, dim_size=num_graphs)
        return scatter(share * values, batch, num_graphs)
