"""The models that learn vectors: LightGCN, LightGCL (release variant) and BPR-MF.

All three are one propagation over the bipartite training graph and one pairwise loss; they differ
in the number of layers, how layers are combined, what is regularised, and LightGCL's contrast.
Equations are numbered in docs/guides/recommend-models.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gnnlab import ops
from gnnlab.graph import Graph
from gnnlab.layers import LGConv
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.contrast import weighted_logsumexp

__all__ = ["VectorModel", "low_rank_view"]


class VectorModel(nn.Module):
    """Scores a user and an item by the inner product of their propagated vectors.

    Args:
        config: which model, its sizes and loss weights.
        num_users: U.
        num_items: I.

    Shapes:
        user_table: (U, dim); item_table: (I, dim): the only parameters.
    """

    def __init__(self, config: RecommendConfig, num_users: int, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.user_table = nn.Parameter(torch.empty(num_users, config.dim))
        self.item_table = nn.Parameter(torch.empty(num_items, config.dim))
        self.conv = LGConv()
        for name in ("user_view", "item_view", "user_basis", "item_basis"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self._cache: tuple[tuple[object, ...], Tensor, Tensor] | None = None
        for table in (self.user_table, self.item_table):
            if config.model == "lightgcn":
                nn.init.normal_(table, std=0.1)
            else:
                nn.init.xavier_uniform_(table)

    def prepare(self, graph: Graph) -> None:
        """Computes LightGCL's low-rank view of the training graph; others need nothing."""
        if self.config.model == "lightgcl":
            left, values, right = low_rank_view(
                graph,
                self.config.svd_rank,
                oversample=self.config.svd_oversample,
                niter=self.config.svd_niter,
            )
            self.user_view, self.item_view = left * values, right * values
            self.user_basis, self.item_basis = left, right

    def vectors(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Returns the final user (U, dim) and item (I, dim) vectors, never with dropout."""
        users, items = self._propagate(graph, edge_dropout=0.0)
        return self._combine(users), self._combine(items)

    def score(self, users: Tensor, graph: Graph) -> Tensor:
        """Returns scores (B, I) of all items for the given users (B,); vectors are cached."""
        key = (graph, self.user_table._version, self.item_table._version, self.user_table.device)
        if self._cache is None or self._cache[0] != key:
            with torch.no_grad():
                self._cache = (key, *self.vectors(graph))
        return self._cache[1][users] @ self._cache[2].T

    def loss(self, batch: Mapping[str, Tensor], graph: Graph) -> dict[str, Tensor]:
        """Returns the loss terms of one batch of (user, pos, neg) triples, each (B,)."""
        user, pos, neg = batch["user"], batch["pos"], batch["neg"]
        rate = self.config.edge_dropout if self.training else 0.0
        users, items = self._propagate(graph, edge_dropout=rate)
        final_users, final_items = self._combine(users), self._combine(items)
        anchor = ops.gather(final_users, user)
        liked, other = ops.gather(final_items, pos), ops.gather(final_items, neg)
        bpr = F.softplus((anchor * other).sum(1) - (anchor * liked).sum(1)).mean()
        if self.config.model == "lightgcl":
            l2 = self.user_table.square().sum() + self.item_table.square().sum()
        else:
            rows = (
                ops.gather(self.user_table, user),
                ops.gather(self.item_table, pos),
                ops.gather(self.item_table, neg),
            )
            l2 = sum((r.square().sum() for r in rows), bpr.new_zeros(())) / (2 * len(user))
        terms = {"bpr": bpr, "l2": self.config.lambda2 * l2}
        if self.config.model == "lightgcl" and self.config.lambda1 > 0:
            contrast = self._contrast(users, items, final_users, final_items, user, pos, neg)
            terms["contrast"] = self.config.lambda1 * contrast
        return {"loss": sum(terms.values(), bpr.new_zeros(())), **terms}

    def _propagate(self, graph: Graph, *, edge_dropout: float) -> tuple[list[Tensor], list[Tensor]]:
        """Layers 0..L of both sides; one independent edge mask per layer and direction."""
        users: list[Tensor] = [self.user_table]
        items: list[Tensor] = [self.item_table]
        for _ in range(self.config.layers):
            last_user, last_item = users[-1], items[-1]
            users.append(
                self.conv((last_item, last_user), graph, self._edge_mask(graph, edge_dropout))
            )
            items.append(
                self.conv((last_user, last_item), graph.T, self._edge_mask(graph, edge_dropout))
            )
        return users, items

    def _edge_mask(self, graph: Graph, rate: float) -> Tensor | None:
        if rate == 0:
            return None
        kept = torch.rand(graph.num_edges, device=self.user_table.device) >= rate
        return kept.to(self.user_table.dtype) / (1 - rate)

    def _combine(self, layers: list[Tensor]) -> Tensor:
        total = sum(layers[1:], layers[0])
        return total if self.config.model == "lightgcl" else total / len(layers)

    def _contrast(
        self,
        users: list[Tensor],
        items: list[Tensor],
        final_users: Tensor,
        final_items: Tensor,
        user: Tensor,
        pos: Tensor,
        neg: Tensor,
    ) -> Tensor:
        """Attraction to the low-rank view, repulsion from all nodes.

        It depends on the batch only through the multiset of ids, so each distinct id is computed
        once and weighted by its count: the same loss and gradient, fewer rows.
        """
        pool = {"pos+neg": torch.cat([pos, neg]), "pos": pos, "unique": torch.cat([pos, neg])}
        view_users = [users[0], *(self.user_view @ (self.item_basis.T @ e) for e in items[:-1])]
        view_items = [items[0], *(self.item_view @ (self.user_basis.T @ e) for e in users[:-1])]
        total = user.new_zeros((), dtype=final_users.dtype)
        for ids, view, final in (
            (user, view_users, final_users),
            (pool[self.config.cl_pool], view_items, final_items),
        ):
            unique, counts = torch.unique(ids, return_counts=True)
            if self.config.cl_pool == "unique":
                counts = torch.ones_like(counts)
            weight = counts.to(final.dtype) / counts.sum()
            rows = ops.gather(sum(view[1:], view[0]), unique)
            attraction = (rows * ops.gather(final, unique)).sum(1) / self.config.tau
            if self.config.clamp is not None:
                attraction = attraction.clamp(-self.config.clamp, self.config.clamp)
            budget = self.config.budget_bytes // 16
            repulsion = weighted_logsumexp(rows, final, weight, self.config.tau, budget=budget)
            total = total + repulsion - (weight * attraction).sum()
        return total


def low_rank_view(
    graph: Graph, rank: int, *, oversample: int = 10, niter: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the `rank` largest singular triplets of the degree-normalised adjacency.

    Args:
        graph: bipartite, items as sources and users as targets.
        rank: q, clipped (with a warning) to the smaller side.
        oversample: extra columns of the random projection, cut off afterwards.
        niter: power iterations.

    Returns:
        U (U, q), s (q,), V (I, q). The product is nearly independent of the seed; the signs of
        the vectors are not.
    """
    limit = min(graph.num_src, graph.num_dst)
    if rank > limit:
        warnings.warn(f"svd_rank {rank} is clipped to {limit}, the smaller side of the graph.")
        rank = limit
    item, user = graph.edge_index
    user_degree = torch.bincount(user, minlength=graph.num_dst).clamp(min=1).double()
    item_degree = torch.bincount(item, minlength=graph.num_src).clamp(min=1).double()
    values = (user_degree[user] * item_degree[item]).rsqrt().float()
    matrix = torch.sparse_coo_tensor(
        torch.stack([user, item]), values, (graph.num_dst, graph.num_src), check_invariants=False
    ).coalesce()
    columns = min(rank + oversample, limit)
    left, singular, right = torch.svd_lowrank(matrix, q=columns, niter=niter)
    return left[:, :rank].contiguous(), singular[:rank], right[:, :rank].contiguous()
