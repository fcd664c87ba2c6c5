"""To a coarser graph and back: rows picked and overwritten, and bi-stride's weighted transfer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.graph import Graph
from gnnlab.ops import EdgePlan, gather, scatter, spmm

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

__all__ = ["BistrideTransfer", "pool", "unpool"]


def pool(x: Tensor, kept: Tensor) -> Tensor:
    """Returns the rows of the nodes that the coarser level keeps.

    Args:
        x: one row per node of the finer level.
        kept: which of them are nodes of the coarser level.

    Shapes:
        x: (N, *F); kept: (K,) int64, each node once.
        returns: (K, *F).

    Example:
        >>> import torch
        >>> from gnnlab.layers import pool
        >>> pool(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 2]))
        tensor([[1.],
                [3.]])
    """
    return gather(x, kept)


def unpool(saved: Tensor, x: Tensor, kept: Tensor) -> Tensor:
    """Returns the finer level as it was, with the rows of kept nodes overwritten by `x`.

    No interpolation, no sum: the other rows are those of `saved`. Neither argument is changed.

    Args:
        saved: one row per node of the finer level, from the way down.
        x: one row per node of the coarser level.
        kept: which nodes of the finer level those are.

    Shapes:
        saved: (N, *F); x: (K, *F); kept: (K,) int64, each node once.
        returns: (N, *F).

    Raises:
        ValueError: if `x` does not have one row per kept node.

    Example:
        >>> import torch
        >>> from gnnlab.layers import unpool
        >>> unpool(torch.zeros(3, 1), torch.tensor([[7.0], [8.0]]), torch.tensor([0, 2]))
        tensor([[7.],
                [0.],
                [8.]])

    Reference: Yu et al., ICLR 2024, arXiv:2312.12467.
    """
    if x.shape != (*kept.shape, *saved.shape[1:]):
        raise ValueError(
            f"unpool expected x of shape {(*kept.shape, *saved.shape[1:])}, one row per kept node, "
            f"got {tuple(x.shape)}"
        )
    return saved.index_copy(0, kept, x)


class BistrideTransfer(nn.Module):
    r"""Averages neighbours on the way to a coarser level, and sends back along the same edges.

    $$ w_{j \to i} = \frac{m_j / d_j}{\sum_{k \to i} m_k / d_k}, \qquad
       \mathrm{down}(x)_i = \sum_{j \to i} w_{j \to i}\, x_j \; (i \in K), \qquad
       \mathrm{up}(y)_j = \sum_{j \to i,\, i \in K} w_{j \to i}\, y_i $$

    with the mass $m$ of nodes, 1 on the finest level, and their out-degree $d$: a node shares its
    mass evenly among its neighbours. Nothing is learned; up is the transpose of down. Positions go
    down by the same weights. Edges to nodes that go are not computed. A kept node that no edge
    reaches, such as a body of one node, keeps its row both ways.

    Args:
        graph: the finer level; its weights do not count.
        kept: which of its nodes make up the coarser level.
        mass: of the finer level's nodes; `mass` of the level above, where there is one.

    Shapes:
        kept: (K,) int64, each node once; mass: (N,) float, positive.

    Raises:
        ValueError: if shapes do not fit, or the graph is bipartite.

    Example:
        >>> import torch
        >>> from gnnlab.graph import Graph
        >>> from gnnlab.layers import BistrideTransfer
        >>> path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> transfer = BistrideTransfer(path, torch.tensor([1]))
        >>> transfer.down(torch.tensor([[2.0], [0.0], [4.0]]))
        tensor([[3.]])
        >>> transfer.up(torch.tensor([[6.0]])).flatten()
        tensor([3., 0., 3.])

    Reference: Cao et al., ICML 2023, arXiv:2210.02573, section 3.3.
    """

    citation: ClassVar[str] = """@inproceedings{cao2023bsms,
  title     = {Efficient Learning of Mesh-Based Physical Simulation with Bi-Stride Multi-Scale
               Graph Neural Network},
  author    = {Cao, Yadi and Chai, Menglei and Li, Minchen and Jiang, Chenfanfu},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  note      = {arXiv:2210.02573}
}"""

    mass: Tensor
    """Mass of the coarser level's nodes, (K,) float64: what reached them; for the next transfer."""
    weight: Tensor
    """The weight of each edge that counts, (E',) float64."""

    def __init__(self, graph: Graph, kept: Tensor, mass: Tensor | None = None) -> None:
        super().__init__()
        size, device = graph.num_nodes, graph.device
        mass = torch.ones(size, device=device) if mass is None else mass.detach()
        if mass.shape != (size,):
            raise ValueError(
                f"BistrideTransfer expected mass of shape ({size},), one number per node, "
                f"got {tuple(mass.shape)}"
            )
        if kept.dim() != 1:
            raise ValueError(
                f"BistrideTransfer expected kept of shape (K,), got {tuple(kept.shape)}"
            )
        share = mass.double() / graph.plan.T.counts.clamp(min=1)
        place = torch.full((size,), -1, device=device)
        place[kept] = torch.arange(len(kept), device=device)
        src, dst = graph.edge_index.long()
        src, dst = src[place[dst] >= 0], place[dst[place[dst] >= 0]]
        reached = scatter(share[src], dst, len(kept))
        alone = (reached == 0).nonzero()[:, 0]
        src, dst = torch.cat([src, kept[alone]]), torch.cat([dst, alone])
        reached = reached.index_copy(0, alone, share[kept[alone]])
        self.plan = EdgePlan(torch.stack([src, dst]), size, len(kept), validate=False)
        self.register_buffer("mass", reached, persistent=False)
        self.register_buffer("weight", share[src] / reached[dst], persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the edges along when the module moves to another device."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.plan = self.plan.to(self.weight.device)
        return self

    def down(self, x: Tensor) -> Tensor:
        """Returns the weighted mean of each kept node's neighbours: (N, F) to (K, F)."""
        return spmm(self.plan, x, self.weight.to(x.dtype))

    def up(self, y: Tensor) -> Tensor:
        """Returns each node's share of what its kept neighbours hold: (K, F) to (N, F)."""
        return spmm(self.plan.T, y, self.weight.to(y.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Returns `down`."""
        return self.down(x)

    def extra_repr(self) -> str:
        """Returns the sizes of both levels."""
        return f"{self.plan.num_src} -> {self.plan.num_dst}"
