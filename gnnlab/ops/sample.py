"""Neighbour sampling: a few in-edges of each node, hop after hop."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from gnnlab.ops._arguments import check_index, index_vector
from gnnlab.ops._sample import draw, edges_at, numbers
from gnnlab.ops.plan import EdgePlan

__all__ = ["Hops", "Neighbors", "sample_hops", "sample_neighbors"]


class Neighbors(NamedTuple):
    """In-edges of some nodes, one node after the other."""

    indptr: Tensor
    """Where those of each node begin, and at last S: (n + 1,) int64."""
    src: Tensor
    """Source of each edge: (S,), dtype of the plan's `col`."""
    edge: Tensor
    """Which of the plan's edges it is: (S,) int64, in the order in which the plan got them."""


class Hops(NamedTuple):
    """What hops from seeds along in-edges have reached.

    The nodes are numbered in the order in which they were reached: the seeds first, then those of
    the first hop, and so on. Each node that has in-edges here has them all in one place, by number:
    the edges of the first hops are those before `num_edges[h]`, their targets the nodes before
    `num_nodes[h]`.
    """

    nodes: Tensor
    """The node that each number stands for: (n,) int64, without repetition."""
    seeds: Tensor
    """Number of each seed: (B,) int64; 0, 1, 2, ... unless seeds are repeated."""
    indptr: Tensor
    """Where the in-edges of each target begin, and at last S: (num_nodes[-2] + 1,) int64."""
    src: Tensor
    """Number of each edge's source: (S,), dtype of the plan's `col`."""
    place: Tensor
    """Where each edge lies in the plan's order; `plan.perm[place]` are the edges: (S,)."""
    num_nodes: tuple[int, ...]
    """How many nodes there are before the first hop, after it, after the second, ..."""
    num_edges: tuple[int, ...]
    """How many edges there are after the first hop, after the second, ..."""


def sample_neighbors(
    plan: EdgePlan, nodes: Tensor, k: int, *, replace: bool = False, seed: int, hop: int = 0
) -> Neighbors:
    """Draws k in-edges of each node, all with the same chance.

    A node's edges depend on the plan, `seed`, `hop` and the node, and on nothing else: neither on
    the other nodes, nor on threads, nor on the backend. A repeated node has the same edges again.

    Args:
        plan: the edges; those into a node are its in-edges. Repeated edges count as several.
        nodes: destinations of the plan.
        k: how many edges to draw; -1 for all.
        replace: whether an edge can be drawn twice. Without, a node with at most k in-edges gives
            them all, in order. A node without in-edges gives none either way.
        seed: key of the random numbers; any integer, its lowest 64 bits count.
        hop: a second key, from 0 to 2^32 - 1.

    Shapes:
        nodes: (n,) int64 or int32.

    Raises:
        IndexError: if a node is not in the plan.
        ValueError: if k is 0 or below -1.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, sample_neighbors
        >>> plan = EdgePlan(torch.tensor([[1, 2, 3, 0], [0, 0, 0, 1]]), 4, 4)
        >>> found = sample_neighbors(plan, torch.tensor([1, 0, 3]), 2, seed=0)
        >>> found.indptr
        tensor([0, 1, 3, 3])
        >>> sorted(found.src[1:].tolist()) in ([1, 2], [1, 3], [2, 3])
        True
    """
    k = check_fanout(k, "k")
    if not 0 <= operator.index(hop) < 2**32:
        raise ValueError(f"hop must be from 0 to 2^32 - 1, got {hop}")
    nodes = _checked(plan, nodes, "nodes", plan.num_dst)
    order = plan.order
    indptr, place, src = draw(order, nodes, k, replace, operator.index(seed), hop)
    return Neighbors(indptr, src, edges_at(order, place))


def sample_hops(
    plan: EdgePlan, seeds: Tensor, fanouts: Sequence[int], *, replace: bool = False, seed: int
) -> Hops:
    """Walks from seeds along in-edges: hop h draws fanouts[h] in-edges of each node new in hop h-1.

    Each node is asked once, in the hop after the one that reached it, and its edges then depend on
    `seed`, the hop and the node alone. The edges of all hops are one subgraph; `num_nodes` and
    `num_edges` say which part each layer of a network needs.

    Args:
        plan: the edges of a graph, with as many sources as destinations.
        seeds: where to begin; a repeated seed counts once.
        fanouts: per hop how many edges to draw of each node; -1 for all.
        replace: whether an edge can be drawn twice.
        seed: key of the random numbers; any integer, its lowest 64 bits count.

    Shapes:
        seeds: (B,) int64 or int32.

    Raises:
        IndexError: if a seed is not in the plan.
        ValueError: if there is no hop, a fanout is 0 or below -1, or sources and destinations
            differ in number.

    Example:
        >>> import torch
        >>> from gnnlab.ops import EdgePlan, sample_hops
        >>> plan = EdgePlan(torch.tensor([[3, 2, 1], [2, 1, 0]]), 4, 4)  # 3 -> 2 -> 1 -> 0
        >>> hops = sample_hops(plan, torch.tensor([0]), (5, 5), seed=0)
        >>> hops.nodes, hops.num_nodes, hops.num_edges
        (tensor([0, 1, 2]), (1, 2, 3), (1, 2))
    """
    fanouts = check_fanouts(fanouts)
    if plan.num_src != plan.num_dst:
        raise ValueError(
            f"hops need a graph whose sources can be destinations, got {plan!r}; use "
            "sample_neighbors for a bipartite one"
        )
    seeds = _checked(plan, seeds, "seeds", plan.num_dst)
    order, key = plan.order, operator.index(seed)
    numbered = numbers(order, seeds)
    try:
        rows = numbered.add(seeds.clone()).long()  # their numbers are written over the ids
        indptrs, srcs, places = [], [], []
        num_nodes, num_edges, asked = [len(numbered)], [0], 0
        for hop, k in enumerate(fanouts):
            frontier = numbered.nodes(asked)
            asked = len(numbered)
            indptr, place, neighbor = draw(order, frontier, k, replace, key, hop, num_edges[-1])
            srcs.append(numbered.add(neighbor))
            places.append(place)
            indptrs.append(indptr if hop == 0 else indptr[1:])
            num_nodes.append(len(numbered))
            num_edges.append(num_edges[-1] + place.shape[0])
        found = numbered.nodes()
    finally:
        numbered.close()
    edges = (torch.cat(indptrs), torch.cat(srcs), torch.cat(places))
    return Hops(found, rows, *edges, tuple(num_nodes), tuple(num_edges[1:]))


def check_fanout(k: int, name: str = "a fanout") -> int:
    """Returns k after checking that it is -1 or positive."""
    k = operator.index(k)
    if k == 0 or k < -1:
        _refuse_fanout(name, k)
    return k


def check_fanouts(fanouts: Sequence[int]) -> tuple[int, ...]:
    """Returns the fanouts after checking each; there must be one at least."""
    if isinstance(fanouts, int):
        raise TypeError(f"fanouts must be one number per hop, as ({fanouts},), got {fanouts}")
    checked = tuple(check_fanout(k) for k in fanouts)
    if not checked:
        raise ValueError("fanouts must have one number per hop, got none")
    return checked


def _refuse_fanout(name: str, k: int) -> NoReturn:
    raise ValueError(f"{name} must be a positive number of edges, or -1 for all of them, got {k}")


def _checked(plan: EdgePlan, nodes: Tensor, name: str, bound: int) -> Tensor:
    """Returns nodes as int64 in the plan, or says which one is wrong."""
    nodes = index_vector(nodes, name)
    if nodes.device != plan.device:
        raise ValueError(f"{name} are on {nodes.device}, but the edges are on {plan.device}")
    try:
        check_index(nodes, bound)
    except IndexError as error:
        raise IndexError(f"{name}: {error}") from None
    return nodes.long()
