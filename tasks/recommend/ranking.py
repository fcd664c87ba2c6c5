"""Exact top-k lists over all items, and the full-ranking protocol built on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gnnlab import metrics
from gnnlab.errors import DataError
from gnnlab.tasks.recommend.interactions import Interactions

__all__ = ["block_size", "evaluate_ranking", "owned_pairs", "rank_all", "top_k"]

ScoreFn = Callable[[Tensor], Tensor]

# Bytes per score at the peak of top_k: float32 scores, their masked copy, and for rows with ties
# another copy, three masks and a running count, some of them twice for a moment.
_BYTES_PER_SCORE = 32


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the k best items of every row: descending score, equal scores by ascending item.

    `torch.topk` leaves the order of equal scores open, also which of them enter the list at its
    end. Rows whose list ends inside a tie are chosen again by comparing with the last score, and
    every list is put in order by two sorts of k items, so the result is the same on every device
    and no row is sorted whole.

    Args:
        scores: one row per user; -inf marks items that may not appear. 0.0 and -0.0 are equal.
        k: length of the lists, 1 or more; may exceed the number of items.

    Shapes:
        scores: [B, I] float; returns: items [B, k] int64 and scores [B, k] (float32, or float64 for
            float64 scores), filled with -1 and -inf where fewer than k items remain.

    Raises:
        ValueError: for k < 1, a wrong shape or type, or a score that is NaN.

    Example:
        >>> top_k(torch.tensor([[3.0, 9.0, 9.0, 1.0]]), 3)[0]
        tensor([[1, 2, 0]])
    """
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ValueError(
            f"top_k expected float scores of shape (B, I), got {scores.dtype} of shape "
            f"{tuple(scores.shape)}."
        )
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more.")
    if scores.dtype != torch.float64:
        scores = scores.float()
    rows, width = scores.shape
    length = min(k, width)
    items = scores.new_full((rows, k), -1, dtype=torch.int64)
    best = scores.new_full((rows, k), -torch.inf)
    if not rows or not width:
        return items, best
    # One place more than asked, to see a tie across the end of the list.
    values, order = torch.topk(scores, min(length + 1, width))
    # NaN counts as the largest value, so it shows in the first place of its row.
    bad = values[:, 0].isnan()
    last = values[:, length - 1]
    split_tie = (values[:, -1] == last) & (last > -torch.inf) & (length < width)
    flags = torch.stack([bad.any(), split_tie.any()]).tolist()
    if flags[0]:
        row = int(bad.int().argmax())
        item = int(scores[row].isnan().int().argmax())
        raise ValueError(f"the score of item {item} in row {row} is NaN; nothing can be ranked.")
    order = order[:, :length]
    if flags[1]:
        again = torch.nonzero(split_tie).squeeze(1)
        order = order.index_copy(0, again, _lowest(scores[again], last[again], length))
    # Ascending items first; the stable sort by score then keeps that order among equals.
    order = order.sort(dim=1).values
    # + 0.0 turns -0.0 into 0.0, which some sorts tell apart
    values, place = torch.sort(scores.gather(1, order) + 0.0, dim=1, descending=True, stable=True)
    items[:, :length] = order.gather(1, place).masked_fill(values == -torch.inf, -1)
    best[:, :length] = values
    return items, best


def _lowest(scores: Tensor, last: Tensor, length: int) -> Tensor:
    """The `length` items of each row when the tie at score `last` goes to the lowest items."""
    above = scores > last.unsqueeze(1)
    equal = scores == last.unsqueeze(1)
    # as int32, like the running count: comparing it with int64 would copy it
    room = length - above.sum(1, keepdim=True, dtype=torch.int32)
    chosen = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
    # every row chooses exactly `length` items, and nonzero lists them row by row
    return torch.nonzero(chosen)[:, 1].view(-1, length)


def owned_pairs(indptr: Tensor, items: Tensor, users: Tensor) -> tuple[Tensor, Tensor]:
    """Lists the items that the users own as pairs (position in `users`, item).

    Args:
        indptr: [num_users + 1] int64, where each user's items begin in `items`.
        items: [E] int64.
        users: [B] int64; -1 stands for a user without items.

    Shapes:
        returns: rows [P] int64 in 0..B-1, items [P] int64.

    Example:
        >>> owned_pairs(torch.tensor([0, 2, 2, 3]), torch.tensor([5, 6, 7]), torch.tensor([2, 0]))
        (tensor([0, 1, 1]), tensor([7, 5, 6]))
    """
    known = users.clamp(min=0)
    start = indptr[known]
    counts = (indptr[known + 1] - start).masked_fill(users < 0, 0)
    rows = torch.arange(users.numel(), device=users.device).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    place = torch.arange(rows.numel(), device=users.device) - before[rows] + start[rows]
    return rows, items[place]


def block_size(num_items: int, budget_bytes: int) -> int:
    """Returns how many users can be ranked at once within `budget_bytes`, at least 1.

    Example:
        >>> block_size(num_items=1_000_000, budget_bytes=320_000_000)
        10
    """
    return max(1, budget_bytes // (_BYTES_PER_SCORE * max(num_items, 1)))


def rank_all(
    score_fn: ScoreFn,
    users: Tensor,
    seen_indptr: Tensor,
    seen_items: Tensor,
    k: int,
    *,
    budget_bytes: int,
) -> tuple[Tensor, Tensor]:
    """Ranks all items for `users`, block by block, leaving out what each has seen.

    Args:
        score_fn: users [b] int64 -> scores [b, num_items] float, on any device.
        users: [U] int64, -1 for users without history; the results come to their device.
        seen_indptr: [num_users + 1] int64, where each user's items begin in `seen_items`.
        seen_items: [E] int64.
        k: length of the lists.
        budget_bytes: bound on the memory of one block of users; see `block_size`.

    Shapes:
        returns: items [U, k] int64 and scores [U, k], filled with -1 and -inf.

    Raises:
        ValueError: when a score is NaN.

    Example:
        >>> scores = torch.tensor([[1.0, 2.0, 3.0]])
        >>> rank_all(lambda users: scores[users], torch.tensor([0]), torch.tensor([0, 1]),
        ...          torch.tensor([2]), k=3, budget_bytes=10**6)[0]
        tensor([[ 1,  0, -1]])
    """
    if not users.numel():
        return users.new_zeros(0, k), torch.zeros(0, k, device=users.device)
    # the first user tells how many items there are
    block = block_size(score_fn(users[:1]).shape[1], budget_bytes)
    listed: list[Tensor] = []
    scored: list[Tensor] = []
    for part in torch.split(users, block):
        # a copy: the model may have handed out a view of its own state
        scores = score_fn(part).detach().clone(memory_format=torch.contiguous_format)
        rows, seen = owned_pairs(seen_indptr, seen_items, part)
        scores[rows.to(scores.device), seen.to(scores.device)] = -torch.inf
        items, best = top_k(scores, k)
        listed.append(items.to(users.device))
        scored.append(best.to(users.device))
        del scores
    return torch.cat(listed), torch.cat(scored)


def evaluate_ranking(
    score_fn: ScoreFn,
    history: Interactions,
    target: Interactions,
    ks: Sequence[int],
    budget_bytes: int,
    *,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Judges a model by full ranking: every item not in `history` competes, for every user asked.

    Users without targets are not evaluated; users with targets and no history are. The numbers are
    plain means over the evaluated users.

    Args:
        score_fn: users [b] int64 -> scores [b, num_items] float.
        history: pairs left out of the ranking.
        target: pairs to be found, over the same id maps.
        ks: lengths of the lists.
        budget_bytes: bound on the memory of one block of users.
        device: where the users are handed to `score_fn` from, and hits are counted; lists are
            made where the scores are.

    Returns:
        the means ("recall@20", "ndcg@20", "precision@20", "hitrate@20", "mrr@20", "map@20",
        "coverage@20" for each k, and "users"), and the same per user as [U] float64 arrays under
        the same names, without coverage, with "user" [U] int64 to say whose they are.

    Raises:
        DataError: when `target` is empty or its id maps differ from those of `history`.
        ValueError: when a score is NaN, or the scores do not have num_items columns.

    Example:
        >>> from gnnlab.tasks.recommend.ids import IdMap
        >>> maps = IdMap([0]), IdMap([0, 1, 2])
        >>> history, _ = Interactions.build([0], [0], *maps)
        >>> target, _ = Interactions.build([0], [2], *maps)
        >>> means, _ = evaluate_ranking(
        ...     lambda users: torch.tensor([[9.0, 1.0, 2.0]]), history, target, ks=[1],
        ...     budget_bytes=10**6,
        ... )
        >>> means["recall@1"]
        1.0
    """
    if not target.num_pairs:
        raise DataError("there is nothing to evaluate: no user has a held-out item.")
    if history.users != target.users or history.items != target.items:
        raise DataError("history and target number their users or items differently.")
    width = target.num_items
    seen_indptr, seen_items = (torch.from_numpy(a).to(device) for a in history.csr())
    keys = torch.from_numpy(target.keys).to(device)
    asked = np.flatnonzero(target.user_degree)
    users = torch.from_numpy(asked).to(device)
    counts = torch.from_numpy(target.user_degree[asked]).to(device)

    def checked(block: Tensor) -> Tensor:
        scores = score_fn(block)
        if tuple(scores.shape) != (block.numel(), width):
            raise ValueError(
                f"score_fn gave shape {tuple(scores.shape)} for {block.numel()} users and "
                f"{width} items."
            )
        return scores

    items, _ = rank_all(checked, users, seen_indptr, seen_items, max(ks), budget_bytes=budget_bytes)
    wanted = users.unsqueeze(1) * width + items
    place = torch.searchsorted(keys, wanted).clamp(max=keys.numel() - 1)
    hits = (keys[place] == wanted) & (items >= 0)

    per_user: dict[str, np.ndarray] = {"user": asked.astype(np.int64)}
    means: dict[str, float] = {}
    for k in ks:
        vectors = {
            f"recall@{k}": metrics.recall(hits, counts, k),
            f"ndcg@{k}": metrics.ndcg(hits, counts, k),
            f"precision@{k}": metrics.precision(hits, k),
            f"hitrate@{k}": metrics.hit_rate(hits, k),
            f"mrr@{k}": metrics.reciprocal_rank(hits, k),
            f"map@{k}": metrics.average_precision(hits, counts, k),
        }
        for name, vector in vectors.items():
            per_user[name] = vector.cpu().numpy()
            means[name] = float(per_user[name].mean())
        means[f"coverage@{k}"] = metrics.coverage(items, width, k)
    means["users"] = float(asked.size)
    return means, per_user
