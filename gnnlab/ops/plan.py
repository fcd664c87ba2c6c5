"""EdgePlan: the edges of a graph, sorted once and reused by every operator and layer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor

from gnnlab.ops._arguments import index_vector
from gnnlab.ops._edges import Edges, Order, join, starts, validated

__all__ = ["EdgePlan"]

Fact = TypeVar("Fact")


class EdgePlan:
    """The edges of a graph in the order that kernels want, made once and shared.

    Nothing is computed until it is needed: the edges are grouped by destination at the first
    operator call, and by source (for gradients) at the first backward that needs it. Edges keep the
    caller's order inside each group, and all weights and results of operators are in that order.
    A plan cannot be changed; do not write into its tensors. Two plans are equal only if they are
    the same object.

    Args:
        edge_index: row 0 holds sources, row 1 destinations.
        num_src: number of source rows N.
        num_dst: number of destination rows M.
        validate: whether to check the indices now. Without it a wrong index is found later, when
            the edges are first used.

    Shapes:
        edge_index: (2, E) int64 or int32.

    Raises:
        IndexError: if an index is outside its range (on GPUs too: this waits for the device).
        ValueError: if `edge_index` is not an integer tensor of shape (2, E), or a size is negative.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan
        >>> plan = EdgePlan(torch.tensor([[0, 2, 1], [1, 0, 1]]), 3, 2)
        >>> plan.indptr.tolist(), plan.col.tolist(), plan.perm.tolist()
        ([0, 1, 3], [2, 0, 1], [1, 0, 2])
        >>> plan.T
        EdgePlan(num_src=2, num_dst=3, num_edges=3)
    """

    __slots__ = ("__weakref__", "_edges", "_end", "_num_src", "_order", "_transposed")

    _edges: Edges
    _end: int
    _num_src: int
    _order: Order | None
    _transposed: EdgePlan | None

    def __init__(
        self, edge_index: Tensor, num_src: int, num_dst: int, *, validate: bool = True
    ) -> None:
        if not isinstance(edge_index, Tensor):
            raise TypeError(f"edge_index must be a tensor, got {type(edge_index).__name__}")
        if edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(
                f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}"
                + ("; did you mean edge_index.t()?" if edge_index.shape[1:] == (2,) else "")
            )
        if edge_index.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"edge_index must be int64 or int32, got {edge_index.dtype}")
        sizes = (_size(num_src, "num_src"), _size(num_dst, "num_dst"))
        edge_index = edge_index.detach().contiguous()
        edges = Edges(
            edge_index,
            sizes,
            edge_index.shape[1],
            edge_index.device,
            [None, None],
            [None, None],
            {},
        )
        if validate:
            for end in (0, 1):
                edges.is_sorted[end] = validated(edges.row(end), sizes[end])
        self._set(edges, 1)

    def _set(self, edges: Edges, end: int) -> None:
        object.__setattr__(self, "_edges", edges)
        object.__setattr__(self, "_end", end)
        object.__setattr__(self, "_num_src", edges.sizes[1 - end])
        object.__setattr__(self, "_order", None)
        object.__setattr__(self, "_transposed", None)

    @classmethod
    def _of(cls, edges: Edges, end: int) -> EdgePlan:
        plan = object.__new__(cls)
        plan._set(edges, end)
        return plan

    @classmethod
    def from_csr(
        cls, indptr: Tensor, col: Tensor, num_src: int, *, validate: bool = True
    ) -> EdgePlan:
        """Makes a plan of edges that are grouped by destination already; nothing is sorted.

        Args:
            indptr: where the edges of each destination begin, and at last E.
            col: the source of each edge.
            num_src: number of source rows N.
            validate: whether to check both now.

        Shapes:
            indptr: (M + 1,) int64 or int32; col: (E,) int64 or int32.

        Raises:
            IndexError: if a source is outside 0..N-1.
            ValueError: if `indptr` does not start at 0, decreases, or does not end at E.

        Example:
            >>> import torch
            >>> from gnnlab.ops import EdgePlan
            >>> EdgePlan.from_csr(torch.tensor([0, 1, 3]), torch.tensor([2, 0, 1]), 3).edge_index
            tensor([[2, 0, 1],
                    [0, 1, 1]], dtype=torch.int32)
        """
        indptr = index_vector(indptr, "indptr").detach().long()
        col = index_vector(col, "col").detach()
        num_src = _size(num_src, "num_src")
        num_edges = col.shape[0]
        if indptr.shape[0] == 0:
            raise ValueError("indptr must have at least one entry: the 0 it starts at")
        if int(indptr[0]) != 0 or int(indptr[-1]) != num_edges or bool((indptr.diff() < 0).any()):
            raise ValueError(
                f"indptr must start at 0, never decrease and end at the number of edges "
                f"({num_edges}); it starts at {int(indptr[0])} and ends at {int(indptr[-1])}"
            )
        # The kernels read `col` without looking, so that it is always checked where it is cheap.
        if validate or col.is_cpu:
            validated(col, num_src)
        num_dst = indptr.shape[0] - 1
        small = max(num_src, num_dst, num_edges) < 2**31 - 1
        order = Order(indptr, col.to(torch.int32 if small else torch.int64), None, num_edges)
        sizes = (num_src, num_dst)
        return cls._of(
            Edges(None, sizes, num_edges, col.device, [None, True], [None, order], {}), 1
        )

    @classmethod
    def batch(cls, plans: Sequence[EdgePlan]) -> EdgePlan:
        """Joins the plans of many graphs into one of a block-diagonal graph.

        Nodes and edges of each graph follow those of the one before it. What all plans have sorted
        already is joined, not sorted again.

        Args:
            plans: one plan per graph, all on one device.

        Raises:
            ValueError: if there is none.

        Example:
            >>> import torch
            >>> from gnnlab.ops import EdgePlan
            >>> one = EdgePlan(torch.tensor([[0, 1], [1, 0]]), 2, 2)
            >>> EdgePlan.batch([one, one]).edge_index
            tensor([[0, 1, 2, 3],
                    [1, 0, 3, 2]])
        """
        if not plans:
            raise ValueError("EdgePlan.batch needs at least one plan")
        device = plans[0].device
        num_edges = [p.num_edges for p in plans]
        totals = (sum(p.num_src for p in plans), sum(p.num_dst for p in plans))
        orders: list[Order | None] = [None, None]
        is_sorted: list[bool | None] = [None, None]
        for end in (0, 1):
            built = [p._edges.orders[end if p._end else 1 - end] for p in plans]
            if all(order is not None for order in built):
                sizes = [(p.num_src, p.num_dst) for p in plans]
                largest = max(*totals, sum(num_edges))
                whole = join(cast("list[Order]", built), sizes, num_edges, end, largest)
                orders[end], is_sorted[end] = whole, whole.perm is None
        shift = torch.stack(
            [
                starts([p.num_src for p in plans], num_edges, device),
                starts([p.num_dst for p in plans], num_edges, device),
            ]
        )
        edge_index = torch.cat([p.edge_index.long() for p in plans], 1) + shift
        edges = Edges(edge_index, totals, sum(num_edges), device, is_sorted, orders, {})
        return cls._of(edges, 1)

    @property
    def T(self) -> EdgePlan:
        """The same edges pointing the other way; shares everything that is sorted or derived."""
        if self._transposed is None:
            object.__setattr__(self, "_transposed", EdgePlan._of(self._edges, 1 - self._end))
        return cast(EdgePlan, self._transposed)

    @property
    def num_src(self) -> int:
        """Number of source rows N."""
        return self._num_src

    @property
    def num_dst(self) -> int:
        """Number of destination rows M."""
        return self._edges.sizes[self._end]

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return self._edges.num_edges

    @property
    def device(self) -> torch.device:
        """Where the plan's tensors lie."""
        return self._edges.device

    @property
    def src(self) -> Tensor:
        """The source of each edge, in the caller's order: (E,)."""
        return self._edges.row(1 - self._end)

    @property
    def dst(self) -> Tensor:
        """The destination of each edge, in the caller's order: (E,)."""
        return self._edges.row(self._end)

    def _ends(self) -> tuple[Tensor, Tensor, int]:
        """Sources, destinations and the number of destinations, checked: for the reference."""
        _ = self.order  # finds a wrong index that nobody has looked at yet
        return self.src, self.dst, self.num_dst

    @property
    def edge_index(self) -> Tensor:
        """Sources and destinations in the caller's order: (2, E)."""
        rows = self._edges.row(0)  # makes it, for plans from CSR
        if self._end == 0:
            return torch.stack((self.src, rows))
        return cast(Tensor, self._edges.edge_index)

    @property
    def order(self) -> Order:
        """The edges grouped by destination, as kernels want them."""
        found = self._order
        if found is None:
            found = self._edges.order(self._end)
            object.__setattr__(self, "_order", found)
        return found

    @property
    def indptr(self) -> Tensor:
        """Where the edges of each destination begin in `col` and `perm`: (M + 1,) int64."""
        return self.order.indptr

    @property
    def col(self) -> Tensor:
        """The source of each edge, edges grouped by destination: (E,) int32, int64 if it must."""
        return cast(Tensor, self.order.col)

    @property
    def perm(self) -> Tensor:
        """Which of the caller's edges each entry of `col` is: (E,), dtype of `col`."""
        perm = self.order.perm
        if perm is not None:
            return perm
        dtype = self.col.dtype
        return self.derived(
            "perm", lambda: torch.arange(self.num_edges, dtype=dtype, device=self.device)
        )

    @property
    def is_sorted(self) -> bool:
        """Whether the edges came grouped by destination already (`perm` is 0, 1, 2, ...)."""
        return self.order.perm is None

    @property
    def counts(self) -> Tensor:
        """Number of edges into each destination: (M,) int64."""
        return self.derived("counts", lambda: self.indptr.diff())

    def derived(self, key: Hashable, build: Callable[[], Fact]) -> Fact:
        """Returns ``build()``, computed once per plan and key; for facts of the edges alone.

        Args:
            key: names the result; include the dtype if it has one.
            build: computes it. Do not change the result afterwards.

        Example:
            >>> import torch
            >>> from gnnlab.ops import EdgePlan
            >>> plan = EdgePlan(torch.tensor([[0, 1], [1, 1]]), 2, 2)
            >>> plan.derived("largest degree", lambda: int(plan.counts.max()))
            2
        """
        store = self._edges.derived
        found = store.get((self._end, key))
        if found is None:
            found = store[self._end, key] = build()
        return cast(Fact, found)

    def to(self, device: torch.device | str) -> EdgePlan:
        """Returns the plan on `device`, with what is sorted already; itself if it lies there."""
        here = self._edges
        target = torch.empty(0, device=device).device
        if target == here.device:
            return self
        orders = [None if order is None else order.to(target) for order in here.orders]
        edge_index = None if here.edge_index is None else here.edge_index.to(target)
        moved = Edges(edge_index, here.sizes, here.num_edges, target, [*here.is_sorted], orders, {})
        return EdgePlan._of(moved, self._end)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an EdgePlan cannot be changed; make a new one (tried to set {name})")

    def __reduce__(self) -> tuple[Any, ...]:
        e = self._edges
        parts = (e.edge_index, e.sizes, e.num_edges, e.device, e.is_sorted, e.orders)
        return _rebuild, (parts, self._end)

    def __repr__(self) -> str:
        return (
            f"EdgePlan(num_src={self.num_src}, num_dst={self.num_dst}, num_edges={self.num_edges})"
        )


def _rebuild(parts: tuple[Any, ...], end: int) -> EdgePlan:
    edge_index, sizes, num_edges, device, is_sorted, orders = parts
    edges = Edges(edge_index, sizes, num_edges, device, is_sorted, orders, {})
    return EdgePlan._of(edges, end)


def _size(value: int, name: str) -> int:
    size = operator.index(value)
    if size < 0:
        raise ValueError(f"{name} must not be negative, got {size}")
    return size
