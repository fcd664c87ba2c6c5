"""Metrics as pure functions: tensors in, one number per user out.

Every ranking metric takes the *hit matrix* of ranked lists, `hits[u, r]` being True when the item
at rank r (0-based) of user u is one of the user's targets. Lists shorter than k are filled with
False. Users without targets get 0; protocols leave them out beforehand.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "average_precision",
    "coverage",
    "hit_rate",
    "ndcg",
    "precision",
    "recall",
    "reciprocal_rank",
]


def recall(hits: Tensor, num_targets: Tensor, k: int) -> Tensor:
    r"""Share of the user's targets that the first k places hold.

    $$ \mathrm{Recall@}k = \frac{1}{|T_u|} \sum_{r \le k} \mathrm{hit}_r $$

    Args:
        hits: hit matrix.
        num_targets: number of targets of each user.
        k: length of the list; at most the width of `hits`.

    Shapes:
        hits: [U, K] bool with K >= k; num_targets: [U] int64; returns: [U] float64.

    Example:
        >>> recall(torch.tensor([[True, False, True]]), torch.tensor([4]), 3)
        tensor([0.5000], dtype=torch.float64)
    """
    return _first(hits, k).sum(1) / num_targets.clamp(min=1)


def precision(hits: Tensor, k: int) -> Tensor:
    r"""Share of the first k places that hold a target: $\frac{1}{k} \sum_{r \le k} hit_r$.

    Shapes:
        hits: [U, K] bool with K >= k; returns: [U] float64.

    Example:
        >>> precision(torch.tensor([[True, False, False, True]]), 4)
        tensor([0.5000], dtype=torch.float64)
    """
    return _first(hits, k).sum(1) / k


def hit_rate(hits: Tensor, k: int) -> Tensor:
    r"""1 when any of the first k places holds a target, else 0.

    Shapes:
        hits: [U, K] bool with K >= k; returns: [U] float64.

    Example:
        >>> hit_rate(torch.tensor([[False, True], [False, False]]), 2)
        tensor([1., 0.], dtype=torch.float64)
    """
    return _first(hits, k).amax(1)


def reciprocal_rank(hits: Tensor, k: int) -> Tensor:
    r"""1 / rank of the first target within the first k places, else 0 (its mean is MRR@k).

    Shapes:
        hits: [U, K] bool with K >= k; returns: [U] float64.

    Example:
        >>> reciprocal_rank(torch.tensor([[False, True], [False, False]]), 2)
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    gains = _first(hits, k)
    return (gains / _ranks(gains)).amax(1)


def average_precision(hits: Tensor, num_targets: Tensor, k: int) -> Tensor:
    r"""Mean of the precision at each hit, over min(k, number of targets) (its mean is MAP@k).

    $$ \mathrm{AP@}k = \frac{1}{\min(k, |T_u|)} \sum_{r \le k} \mathrm{hit}_r \,
       \frac{\sum_{s \le r} \mathrm{hit}_s}{r} $$

    Shapes:
        hits: [U, K] bool with K >= k; num_targets: [U] int64; returns: [U] float64.

    Example:
        >>> average_precision(torch.tensor([[False, True]]), torch.tensor([3]), 2)
        tensor([0.2500], dtype=torch.float64)
    """
    gains = _first(hits, k)
    precisions = gains.cumsum(1) / _ranks(gains)
    return (gains * precisions).sum(1) / num_targets.clamp(min=1, max=k)


def ndcg(hits: Tensor, num_targets: Tensor, k: int) -> Tensor:
    r"""Discounted gain of the list over that of the best possible list.

    $$ \mathrm{NDCG@}k = \frac{\sum_{r \le k} \mathrm{hit}_r / \log_2(r + 1)}
       {\sum_{r \le \min(k, |T_u|)} 1 / \log_2(r + 1)} $$

    Shapes:
        hits: [U, K] bool with K >= k; num_targets: [U] int64; returns: [U] float64.

    Example:
        >>> ndcg(torch.tensor([[False, True]]), torch.tensor([3]), 2).round(decimals=6)
        tensor([0.3869], dtype=torch.float64)
    """
    gains = _first(hits, k)
    discounts = 1.0 / torch.log2(_ranks(gains) + 1.0)
    best = discounts.cumsum(0)[num_targets.clamp(min=1, max=k) - 1]
    return (gains * discounts).sum(1) / best


def coverage(items: Tensor, num_items: int, k: int) -> float:
    """Share of all items that appear in the first k places of anybody's list.

    Shapes:
        items: [U, K] int64 with K >= k, -1 where a list is shorter.

    Example:
        >>> coverage(torch.tensor([[0, 1], [1, -1]]), num_items=4, k=2)
        0.5
    """
    _check_k(items, k)
    shown = items[:, :k]
    return int(torch.unique(shown[shown >= 0]).numel()) / max(num_items, 1)


def _first(hits: Tensor, k: int) -> Tensor:
    _check_k(hits, k)
    return hits[:, :k].to(torch.float64)


def _ranks(gains: Tensor) -> Tensor:
    return torch.arange(1, gains.shape[1] + 1, dtype=torch.float64, device=gains.device)


def _check_k(lists: Tensor, k: int) -> None:
    if lists.ndim != 2 or not 1 <= k <= lists.shape[1]:
        raise ValueError(
            f"k={k} needs ranked lists of shape (U, K) with K >= k >= 1, got {tuple(lists.shape)}."
        )
