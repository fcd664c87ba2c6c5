"""GINConv and GINEConv: sums of neighbours through a network, without and with edge features."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Given, Nodes, prepare
from gnnlab.ops import relu_aggregate, spmm

__all__ = ["GINConv", "GINEConv"]


class _GIN(Layer):
    """What both share: the network and eps."""

    _pyg_weights: ClassVar[dict[str, str]] = {"net.": "nn.", "eps": "eps", "lin_edge.": "lin."}

    def __init__(self, net: nn.Module, eps: float, train_eps: bool) -> None:
        super().__init__()
        self.net = net
        start = torch.tensor([float(eps)])
        self.train_eps, self.initial_eps = train_eps, float(eps)
        if train_eps:
            self.eps = nn.Parameter(start)
        else:
            self.register_buffer("eps", start)

    def _update(self, given: Given, total: Tensor) -> Tensor:
        h: Tensor = self.net(total + (1 + self.eps.to(total.dtype)) * given.x_dst)
        return h

    def _library_arguments(self) -> dict[str, Any]:
        return {
            "nn": copy.deepcopy(self.net),
            "eps": self.initial_eps,
            "train_eps": self.train_eps,
        }

    def extra_repr(self) -> str:
        """Returns eps."""
        return f"eps={float(self.eps):g}" + ", train_eps=True" * self.train_eps


class GINConv(_GIN):
    r"""Adds neighbours to a multiple of the node and applies a network: as strong as the 1-WL test.

    $$ h_i = \mathrm{net}\Bigl((1 + \epsilon)\, x_i + \sum_{j \in \mathcal{N}(i)} w_{ji} x_j\Bigr)
    $$

    Args:
        net: from (N, F) to (N, F'); usually two linear maps with an activation between.
        eps: the initial epsilon.
        train_eps: whether epsilon is learned.

    Shapes:
        x: (N, F) float, or a pair (N, F), (M, F); edges: (2, E) int64, `Graph` or `EdgePlan`;
        edge_weight: (E,) or None.
        returns: (N, F'), or (M, F') for a pair.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import GINConv
        >>> conv = GINConv(torch.nn.Linear(16, 32))
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Xu et al., ICLR 2019, arXiv:1810.00826, eq. (4.1). Differs from it in: edge weights
    are allowed.
    """

    citation: ClassVar[str] = """@inproceedings{xu2019how,
  title     = {How Powerful are Graph Neural Networks?},
  author    = {Xu, Keyulu and Hu, Weihua and Leskovec, Jure and Jegelka, Stefanie},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  note      = {arXiv:1810.00826}
}"""
    takes = frozenset({"edge_weight", "bipartite"})
    picture = ("sum", "root")

    def __init__(self, net: nn.Module, *, eps: float = 0.0, train_eps: bool = False) -> None:
        super().__init__(net, eps, train_eps)

    def forward(self, x: Nodes, edges: Edges, edge_weight: Tensor | None = None) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges, edge_weight)
        weight = given.edge_weight
        if weight is not None:
            weight = weight.to(given.x_src.dtype)
        return self._update(given, spmm(given.plan, given.x_src, weight))

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.GINConv(**self._library_arguments())  # type: ignore[no-any-return]


class GINEConv(_GIN):
    r"""GINConv whose messages are activated sums of a neighbour and the edge to it.

    $$ h_i = \mathrm{net}\Bigl((1 + \epsilon)\, x_i
       + \sum_{j \in \mathcal{N}(i)} \mathrm{ReLU}(x_j + W e_{ji} + b)\Bigr) $$

    Args:
        net: from (N, F) to (N, F').
        edge_dim: size of the edge features together with `in_dim`: W maps one to the other.
            Without it edges have F features, and there is no W.
        in_dim: F; needed with `edge_dim`.
        eps: the initial epsilon.
        train_eps: whether epsilon is learned.

    Shapes:
        x: (N, F) float, or a pair (N, F), (M, F); edges: (2, E) int64, `Graph` or `EdgePlan`;
        edge_attr: (E, edge_dim), without edge_dim (E, F).
        returns: (N, F'), or (M, F') for a pair.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import GINEConv
        >>> conv = GINEConv(torch.nn.Linear(16, 32), in_dim=16, edge_dim=3)
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> conv(torch.randn(4, 16), edges, torch.randn(3, 3)).shape
        torch.Size([4, 32])

    Reference: Hu et al., ICLR 2020, arXiv:1905.12265, section 5.
    """

    citation: ClassVar[str] = """@inproceedings{hu2020strategies,
  title     = {Strategies for Pre-training Graph Neural Networks},
  author    = {Hu, Weihua and Liu, Bowen and Gomes, Joseph and Zitnik, Marinka and Liang, Percy
               and Pande, Vijay and Leskovec, Jure},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  note      = {arXiv:1905.12265}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "root", "edges")

    def __init__(
        self,
        net: nn.Module,
        *,
        in_dim: int | None = None,
        edge_dim: int | None = None,
        eps: float = 0.0,
        train_eps: bool = False,
    ) -> None:
        super().__init__(net, eps, train_eps)
        if edge_dim is not None and in_dim is None:
            raise ValueError(
                "GINEConv: edge_dim needs in_dim too, the size that edges are mapped to"
            )
        self.in_dim, self.edge_dim = in_dim, edge_dim
        self.lin_edge = nn.Linear(edge_dim, in_dim) if edge_dim is not None and in_dim else None

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(
            self, x, edges, edge_attr=edge_attr, edge_dim=self.edge_dim, in_dim=self.in_dim
        )
        plan, x_src = given.plan, given.x_src
        e = edge_attr if self.lin_edge is None else self.lin_edge(edge_attr)
        if e.shape[1] != x_src.shape[1]:
            raise ValueError(
                f"GINEConv expected edge_attr with {x_src.shape[1]} features, as x has, got "
                f"{e.shape[1]}; give in_dim and edge_dim to map them"
            )
        kind = torch.promote_types(x_src.dtype, e.dtype)
        return self._update(given, relu_aggregate(plan, x_src.to(kind), e.to(kind)))

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.GINEConv(  # type: ignore[no-any-return]
            edge_dim=self.edge_dim, **self._library_arguments()
        )
