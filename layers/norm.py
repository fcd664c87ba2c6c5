"""Normalisations that know which graph a node belongs to."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._batch import Batch, per_graph, spread

__all__ = ["GraphNorm", "LayerNorm", "PairNorm"]


class GraphNorm(nn.Module):
    r"""Normalises each feature over the nodes of a graph, keeping a learned share of the mean.

    $$ y_i = \gamma \odot \frac{x_i - \alpha \odot \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta $$

    with the mean \mu over the graph, and \sigma^2 that of the squares of what was left.

    Args:
        dim: number of features.
        eps: \epsilon.

    Shapes:
        x: (N, dim) float; batch: (N,) int64, the graph of each node, or None for one graph.
        returns: (N, dim).

    Example:
        >>> import torch
        >>> from gnnlab.layers import GraphNorm
        >>> GraphNorm(8)(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])

    Reference: Cai et al., ICML 2021, arXiv:2009.03294, eq. (7).
    """

    citation: ClassVar[str] = """@inproceedings{cai2021graphnorm,
  title     = {{GraphNorm}: A Principled Approach to Accelerating Graph Neural Network Training},
  author    = {Cai, Tianle and Luo, Shengjie and Xu, Keyulu and He, Di and Liu, Tie-Yan and
               Wang, Liwei},
  booktitle = {International Conference on Machine Learning},
  year      = {2021},
  note      = {arXiv:2009.03294}
}"""

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.mean_scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns the normalised features."""
        x = x - self.mean_scale * spread(per_graph(x, batch, num_graphs, "mean"), batch)
        variance = per_graph(x.square(), batch, num_graphs, "mean")
        return self.weight * x / spread((variance + self.eps).sqrt(), batch) + self.bias

    def extra_repr(self) -> str:
        """Returns the number of features."""
        return f"{self.dim}"


class LayerNorm(nn.Module):
    r"""Normalises all numbers of a graph together, then scales and shifts each feature.

    $$ y_i = \gamma \odot \frac{x_i - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta $$

    with mean and variance over all nodes and features of the graph.

    Args:
        dim: number of features.
        eps: \epsilon.

    Shapes:
        x: (N, dim) float; batch: (N,) int64, the graph of each node, or None for one graph.
        returns: (N, dim).

    Example:
        >>> import torch
        >>> from gnnlab.layers import LayerNorm
        >>> LayerNorm(8)(torch.randn(5, 8), torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])

    Reference: Ba et al., arXiv:1607.06450, over the nodes of a graph as well.
    """

    citation: ClassVar[str] = """@article{ba2016layer,
  title   = {Layer Normalization},
  author  = {Ba, Jimmy Lei and Kiros, Jamie Ryan and Hinton, Geoffrey E.},
  journal = {arXiv:1607.06450},
  year    = {2016}
}"""

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns the normalised features."""
        mean = per_graph(x, batch, num_graphs, "mean").mean(-1, keepdim=True)
        x = x - spread(mean, batch)
        variance = per_graph(x.square(), batch, num_graphs, "mean").mean(-1, keepdim=True)
        return self.weight * x / spread((variance + self.eps).sqrt(), batch) + self.bias

    def extra_repr(self) -> str:
        """Returns the number of features."""
        return f"{self.dim}"


class PairNorm(nn.Module):
    r"""Keeps the total distance between the nodes of a graph, against over-smoothing.

    $$ y_i = s\, \frac{x_i - \mu}
       {\sqrt{\epsilon + \operatorname{mean}_j \lVert x_j - \mu \rVert^2}} $$

    Args:
        scale: s.
        individually: whether every node is divided by its own length instead.
        eps: \epsilon.

    Shapes:
        x: (N, F) float; batch: (N,) int64, the graph of each node, or None for one graph.
        returns: (N, F).

    Example:
        >>> import torch
        >>> from gnnlab.layers import PairNorm
        >>> PairNorm()(torch.randn(5, 8)).square().sum(1).mean().round(decimals=3)
        tensor(1.)

    Reference: Zhao and Akoglu, ICLR 2020, arXiv:1909.12223, eq. (10) and (11).
    """

    citation: ClassVar[str] = """@inproceedings{zhao2020pairnorm,
  title     = {{PairNorm}: Tackling Oversmoothing in {GNN}s},
  author    = {Zhao, Lingxiao and Akoglu, Leman},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  note      = {arXiv:1909.12223}
}"""

    def __init__(
        self, *, scale: float = 1.0, individually: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.scale, self.individually, self.eps = scale, individually, eps

    def forward(self, x: Tensor, batch: Batch = None, num_graphs: int | None = None) -> Tensor:
        """Returns the normalised features."""
        x = x - spread(per_graph(x, batch, num_graphs, "mean"), batch)
        if self.individually:
            length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            return self.scale * x / (self.eps + length)
        size = per_graph(x.square().sum(-1, keepdim=True), batch, num_graphs, "mean")
        return self.scale * x / spread((self.eps + size).sqrt(), batch)

    def extra_repr(self) -> str:
        """Returns the options."""
        return f"scale={self.scale:g}" + ", individually=True" * self.individually
