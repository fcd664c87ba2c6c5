"""Neighbour lists with a skin: a radius search that is seldom repeated while points move."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnlab.ops.neighbors import radius_graph
from gnnlab.ops.reference_neighbors import squared_distance

__all__ = ["NeighborList"]


class NeighborList:
    """Gives `radius_graph` of moving points, searching anew only when they have moved far.

    Pairs up to r + skin are kept. While no point has moved more than half the skin since the
    search, all pairs closer than r are among them; their distances are then computed and compared
    with r. So the edges are always those of `radius_graph`, in the same order.

    Args:
        r: the distance that neighbours must be below, in the unit of positions.
        skin: by how much the search reaches further, as a share of `r`; 0 searches at every call.
        loop: whether every point also gets an edge to itself.

    Raises:
        ValueError: if `r` is not above 0, or `skin` is negative.

    Example:
        >>> import torch
        >>> from gnnlab.ops import NeighborList
        >>> neighbors = NeighborList(0.6)
        >>> x = torch.tensor([[0.0], [1.0], [1.5]])
        >>> [neighbors(x + 0.01 * step).shape[1] for step in range(3)], neighbors.searches
        ([2, 2, 2], 1)

    Reference: Verlet, Physical Review 159, 1967, section II.
    """

    def __init__(self, r: float, *, skin: float = 0.3, loop: bool = False) -> None:
        if not (r > 0 and skin >= 0):
            raise ValueError(f"r must be above 0 and skin not negative, got r={r}, skin={skin}")
        self.r, self.skin, self.loop = r, skin, loop
        self.searches = 0
        self._x: Tensor | None = None
        self._batch: Tensor | None = None
        self._edge_index: Tensor | None = None

    def __call__(self, x: Tensor, batch: Tensor | None = None) -> Tensor:
        """Returns the edges of ``radius_graph(x, r, batch)``.

        Shapes:
            x: (N, D) float; batch: (N,) int64 or None.
            returns: (2, E) int64, row 0 = source, row 1 = target, sorted by (target, source).
        """
        wide = x.detach().double()
        if self._edge_index is None or not self._still_holds(wide, batch):
            reach = self.r * (1 + self.skin)
            self._edge_index = radius_graph(wide, reach, batch, loop=self.loop)
            self._x = wide.clone()
            self._batch = None if batch is None else batch.clone()
            self.searches += 1
        source, target = self._edge_index
        near = squared_distance(wide[source], wide[target]).sqrt() < self.r
        return self._edge_index[:, near]

    def _still_holds(self, x: Tensor, batch: Tensor | None) -> bool:
        if self._x is None or self._x.shape != x.shape or self._x.device != x.device:
            return False
        if (batch is None) != (self._batch is None):
            return False
        if batch is not None and self._batch is not None and not torch.equal(batch, self._batch):
            return False
        if not x.numel():
            return True
        moved = squared_distance(x, self._x).max().sqrt()
        # A little less than half the skin, for what rounding may add. NaN compares false.
        return bool(moved <= 0.5 * self.skin * self.r * (1 - 1e-9))
