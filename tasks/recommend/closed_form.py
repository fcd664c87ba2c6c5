"""The models without a gradient step: popularity, ItemKNN and EASE.

They do all their work in `prepare`. On small and dense data they are hard to beat, which is why
every comparison prints them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gnnlab import ops
from gnnlab.errors import BudgetError
from gnnlab.graph import Graph
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.ranking import top_k

__all__ = ["ItemItemModel", "Popularity"]


class Popularity(nn.Module):
    """Ranks items by their number of training users, the same for everybody."""

    def __init__(self, config: RecommendConfig, num_users: int, num_items: int) -> None:
        super().__init__()
        self.register_buffer("degree", torch.empty(0))
        self.degree: Tensor

    def prepare(self, graph: Graph) -> None:
        """Counts the users of each item."""
        self.degree = torch.bincount(graph.edge_index[0], minlength=graph.num_src).float()

    def score(self, users: Tensor, graph: Graph) -> Tensor:
        """Returns the degrees (B, I) for each of the users (B,)."""
        return self.degree.expand(len(users), -1)


class ItemItemModel(nn.Module):
    """Scores an item by its similarity to the items of the user's history.

    "itemknn": cosine with shrinkage, S_ij = C_ij / (sqrt(d_i d_j) + h), S_ii = 0, the k largest of
    each row (ties by ascending id); C = R^T R counts common users.

    "ease": the ridge regression of every item on all others, P = (C + lambda I)^-1,
    B_ij = -P_ij / P_jj, B_jj = 0. Steck, WWW 2019, arXiv:1905.03375, eq. (8).

    The table is dense when that fits the memory budget, and otherwise (itemknn only) sparse.
    """

    def __init__(self, config: RecommendConfig, num_users: int, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("table", torch.empty(0))
        self.register_buffer("indptr", torch.empty(0, dtype=torch.int64))
        self.register_buffer("neighbor", torch.empty(0, dtype=torch.int64))
        self.register_buffer("similarity", torch.empty(0))
        self.table: Tensor
        self.indptr: Tensor
        self.neighbor: Tensor
        self.similarity: Tensor
        self._plan: ops.EdgePlan | None = None

    def prepare(self, graph: Graph) -> None:
        """Computes the item-item table from the training graph."""
        self._plan = None
        if self.config.model == "ease":
            self.table = self._ease(graph)
        elif self.config.knn_neighbors is None and self._fits(4 * graph.num_src**2):
            self.table = torch.cat([s for s, _ in self._cosine(graph)])
        else:
            self._keep_neighbors(graph)

    def score(self, users: Tensor, graph: Graph) -> Tensor:
        """Returns scores (B, I) of all items for the given users (B,)."""
        indptr, items = _rows_of(graph, users)
        if len(self.table):
            plan = ops.EdgePlan.from_csr(indptr, items, graph.num_src)
            return ops.spmm(plan, self.table)
        if self._plan is None:
            self._plan = ops.EdgePlan.from_csr(self.indptr, self.neighbor, graph.num_src)
        seen = torch.zeros(graph.num_src, len(users), device=users.device)
        seen[items, torch.repeat_interleave(indptr.diff())] = 1
        return ops.spmm(self._plan, seen, self.similarity).T

    def _ease(self, graph: Graph) -> Tensor:
        need = 20 * graph.num_src**2
        if not self._fits(need):
            raise BudgetError(
                f"ease needs {need / 1e9:.1f} GB for its {graph.num_src} x {graph.num_src} tables, "
                f"over memory_budget={self.config.memory_budget}. Allow it with "
                f"--memory-budget {-(-need // 10**9)}GB, or use itemknn."
            )
        gram = torch.cat([c.double() for c in _common_users(graph, self._block(graph))])
        gram.diagonal().add_(self.config.ease_lambda)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = (-inverse / inverse.diagonal()).float()
        weights.fill_diagonal_(0)
        return weights

    def _cosine(self, graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of S in blocks, with a key of the same order in which equal ratios are equal.

        Without shrinkage S_ij = C_ij / sqrt(d_i d_j) orders row i as C_ij^2 / d_j does: a ratio of
        whole numbers, which a double rounds the same way whenever it is the same ratio, while
        1/sqrt(8) and 3/sqrt(72) differ in their last bit.
        """
        degree = torch.bincount(graph.edge_index[0], minlength=graph.num_src).double()
        start = 0
        for counts in _common_users(graph, self._block(graph)):
            common, stop = counts.double(), start + len(counts)
            common[torch.arange(stop - start), torch.arange(start, stop)] = 0
            scale = (degree[start:stop, None] * degree).sqrt_().add_(self.config.knn_shrinkage)
            similarity = torch.where(common > 0, common / scale, 0.0)
            plain = self.config.knn_shrinkage == 0
            key = common.square() / degree.clamp(min=1) if plain else similarity
            yield similarity.float(), key
            start = stop

    def _keep_neighbors(self, graph: Graph) -> None:
        counts, neighbors, values = [], [], []
        for similarity, key in self._cosine(graph):
            if self.config.knn_neighbors is None:
                row, column = similarity.nonzero(as_tuple=True)
            else:
                near, _ = top_k(key, min(self.config.knn_neighbors, key.shape[1]))
                row = torch.arange(len(near)).repeat_interleave(near.shape[1])
                column = near.flatten()
                kept = similarity[row, column] > 0
                row, column = row[kept], column[kept]
            counts.append(torch.bincount(row, minlength=len(similarity)))
            neighbors.append(column)
            values.append(similarity[row, column])
        zero = torch.zeros(1, dtype=torch.int64)
        self.indptr = torch.cat([zero, torch.cat(counts).cumsum(0)])
        self.neighbor, self.similarity = torch.cat(neighbors), torch.cat(values)

    def _fits(self, size: int) -> bool:
        return size <= self.config.budget_bytes

    def _block(self, graph: Graph) -> int:
        widest = max(graph.num_src, graph.num_dst)
        return max(1, min(1024, self.config.budget_bytes // (16 * widest)))


def _common_users(graph: Graph, block: int) -> Iterator[Tensor]:
    """Rows of C = R^T R, `block` at a time: each is one sparse product with a 0/1 block of R."""
    item, user = graph.edge_index
    order = torch.argsort(item, stable=True)
    item, user = item[order], user[order]
    bounds = torch.searchsorted(item, torch.arange(graph.num_src + 1))
    for start in range(0, graph.num_src, block):
        stop = min(start + block, graph.num_src)
        part = slice(int(bounds[start]), int(bounds[stop]))
        dense = torch.zeros(graph.num_dst, stop - start)
        dense[user[part], item[part] - start] = 1
        yield ops.spmm(graph.plan.T, dense).T


def _rows_of(graph: Graph, users: Tensor) -> tuple[Tensor, Tensor]:
    """CSR rows of `users`: indptr (B+1,) and the items of their histories."""
    indptr, col = graph.plan.indptr, graph.plan.col
    counts = indptr[users + 1] - indptr[users]
    zero = counts.new_zeros(1)
    local = torch.cat([zero, counts.cumsum(0)])
    offset = torch.repeat_interleave(indptr[users] - local[:-1], counts)
    position = torch.arange(int(local[-1]), device=users.device) + offset
    return local, col[position].long()
