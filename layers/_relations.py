"""Edges of several types: what RGCN and Simple-HGN need to know about them, made once per plan."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gnnlab.ops import EdgePlan, gather
from gnnlab.ops._library import may_keep

__all__ = ["Pairs", "Relations", "relations"]

Fact = TypeVar("Fact")


class Pairs(NamedTuple):
    """The (type, target) pairs that have an edge, sorted by type: P of them."""

    plan: EdgePlan
    """From sources to pairs."""
    to_targets: EdgePlan
    """From pairs to targets."""
    sizes: list[int]
    """Number of pairs of each type."""


class Relations:
    """The edges of a plan together with the type of each; what is made of them is kept."""

    def __init__(self, plan: EdgePlan, edge_type: Tensor, num_types: int) -> None:
        self.plan, self.num_types = plan, num_types
        self._types = edge_type.detach().long()
        self._kept: dict[Hashable, Any] = {}

    def _once(self, key: Hashable, build: Callable[[], Fact]) -> Fact:
        if key in self._kept:
            kept: Fact = self._kept[key]
            return kept
        found = build()
        if may_keep():
            self._kept[key] = found
        return found

    def by_target(self) -> EdgePlan:
        """Returns the plan whose row i * T + t collects the edges of type t into target i."""

        def build() -> EdgePlan:
            plan = self.plan
            rows = plan.dst.long() * self.num_types + self._types
            ends = torch.stack([plan.src.long(), rows])
            return EdgePlan(ends, plan.num_src, plan.num_dst * self.num_types, validate=False)

        return self._once("by target", build)

    def by_source(self, *, types_first: bool = False) -> EdgePlan:
        """Returns the plan in which an edge of type t leaves from row j * T + t of its source j.

        With `types_first` that row is t * N + j.
        """

        def build() -> EdgePlan:
            plan, types = self.plan, self._types
            src = plan.src.long()
            rows = types * plan.num_src + src if types_first else src * self.num_types + types
            ends = torch.stack([rows, plan.dst.long()])
            return EdgePlan(ends, plan.num_src * self.num_types, plan.num_dst, validate=False)

        return self._once(("by source", types_first), build)

    def pairs(self) -> Pairs:
        """Returns plans over the (type, target) pairs that occur: no row for the others."""

        def build() -> Pairs:
            plan = self.plan
            key = self._types * plan.num_dst + plan.dst.long()
            keys, place = torch.unique(key, return_inverse=True)
            count = keys.shape[0]
            first = EdgePlan(
                torch.stack([plan.src.long(), place]), plan.num_src, count, validate=False
            )
            where = torch.stack(
                [torch.arange(count, device=key.device), keys % max(plan.num_dst, 1)]
            )
            sizes = torch.bincount(keys // max(plan.num_dst, 1), minlength=self.num_types)
            second = EdgePlan(where, count, plan.num_dst, validate=False)
            return Pairs(first, second, sizes.tolist())

        return self._once("pairs", build)

    def share(self, dtype: torch.dtype) -> Tensor:
        """Returns for each edge 1 / (number of edges of its type into its target), (E,)."""

        def build() -> Tensor:
            rows = self.by_target()
            return gather(rows.counts.double().reciprocal().to(dtype), rows.dst)

        return self._once(("share", dtype), build)


def relations(layer: nn.Module, plan: EdgePlan, edge_type: Tensor, num_types: int) -> Relations:
    """Checks the types of edges; returns what was made for the same plan and types before.

    Args:
        layer: for error messages.
        plan: the edges.
        edge_type: the type of each.
        num_types: T, the number of types.

    Shapes:
        edge_type: (E,) int64 or int32, values 0..T-1.

    Raises:
        TypeError: if `edge_type` is not a tensor.
        ValueError: if it is not one integer per edge, or a type does not exist.
    """
    if torch.compiler.is_compiling():  # values cannot be looked at, and nothing outlives the call
        return Relations(plan, edge_type, num_types)
    # Only the last edge_type of a plan is kept: a new tensor per step must not pile up.
    slot: dict[str, Any] = plan.derived("relations", dict)
    known = isinstance(edge_type, Tensor) and not edge_type.is_inference()
    version = edge_type._version if known else None
    if known and slot and slot["of"]() is edge_type and slot["key"] == (version, num_types):
        kept: Relations = slot["made"]
        return kept
    _check_types(type(layer).__name__, edge_type, plan, num_types)
    made = Relations(plan, edge_type, num_types)
    if known:
        slot.update(of=weakref.ref(edge_type), key=(version, num_types), made=made)
    return made


def _check_types(name: str, edge_type: Tensor, plan: EdgePlan, num_types: int) -> None:
    if not isinstance(edge_type, Tensor):
        raise TypeError(f"{name} expected edge_type as a tensor, got {type(edge_type).__name__}")
    if edge_type.dtype not in (torch.int64, torch.int32) or edge_type.shape != (plan.num_edges,):
        raise ValueError(
            f"{name} expected edge_type of shape ({plan.num_edges},) and dtype int64, one type per "
            f"edge, got {tuple(edge_type.shape)} of {edge_type.dtype}"
        )
    if edge_type.device != plan.device:
        raise ValueError(f"{name} got edge_type on {edge_type.device}, edges on {plan.device}")
    if edge_type.is_cpu and edge_type.numel():
        low, high = (int(value) for value in edge_type.aminmax())
        if low < 0 or high >= num_types:
            raise ValueError(
                f"{name} got edge_type {low if low < 0 else high}, but num_relations={num_types}: "
                f"valid types are 0..{num_types - 1}"
            )
