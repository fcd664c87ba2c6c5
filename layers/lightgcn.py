"""LGConv: the propagation step of LightGCN."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.layers._normalized import inverse_root_degree
from gnnlab.ops import spmm

__all__ = ["LGConv"]


class LGConv(Layer):
    r"""Adds up neighbours with symmetric degree weights; nothing is learned.

    $$ h_i = \sum_{j \in \mathcal{N}(i)} \frac{w_{ji}}{\sqrt{d_i d_j}}\, x_j $$

    d counts edges: of a target those that enter it. With a single x the same count serves for
    sources; with a pair (bipartite) d of a source counts the edges that leave it. Degrees and their
    roots are computed once per `Graph` or `EdgePlan`.

    Args:
        normalize: whether to divide by the roots of the degrees; without it h is a plain sum.

    Shapes:
        x: (N, F) float, or a pair (N, F), (M, F) of which the second gives only M;
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_weight: (E,) float or None.
        returns: (N, F), or (M, F) for a pair; dtype of `x`. Nodes without neighbours get 0.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import LGConv
        >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> LGConv()(torch.tensor([[1.0], [2.0], [3.0]]), edges).flatten()
        tensor([1.4142, 2.8284, 1.4142])

    Reference: He et al., SIGIR 2020, arXiv:2002.02126, eq. (3). Differs from it in: edge weights
    are allowed. They multiply after the degrees are counted, so that edge dropout (weights 0 and
    1 / keep) does not change the degrees.
    """

    citation: ClassVar[str] = """@inproceedings{he2020lightgcn,
  title     = {{LightGCN}: Simplifying and Powering Graph Convolution Network for Recommendation},
  author    = {He, Xiangnan and Deng, Kuan and Wang, Xiang and Li, Yan and Zhang, Yongdong and
               Wang, Meng},
  booktitle = {Proceedings of the 43rd International ACM SIGIR Conference on Research and
               Development in Information Retrieval},
  year      = {2020},
  doi       = {10.1145/3397271.3401063},
  note      = {arXiv:2002.02126}
}"""

    takes = frozenset({"edge_weight", "bipartite"})
    picture = ("sum", "degrees")
    _pyg_options: ClassVar[dict[str, str]] = {"normalize": "normalize"}

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, x: Nodes, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges, edge_weight)
        plan, x_src = given.plan, given.x_src
        if not self.normalize:
            return spmm(plan, x_src, given.edge_weight)
        scale_dst = inverse_root_degree(plan, None, 0.0, x_src.dtype)
        scale_src = scale_dst
        if given.is_bipartite:
            scale_src = inverse_root_degree(plan.T, None, 0.0, x_src.dtype)
        return spmm(plan, x_src * scale_src, given.edge_weight) * scale_dst

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.LGConv(normalize=self.normalize)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Returns the options that differ from the default."""
        return "" if self.normalize else "normalize=False"
