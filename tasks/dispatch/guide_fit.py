"""`fit_guide`: finds the weights of the guide.

The weights are those that make the decisions of good schedules likeliest. The schedules come from
lookahead with the guide as it is, improved by local search; each round makes both better.

Reference: Anthony et al., NeurIPS 2017, arXiv:1705.08439 (expert iteration).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gnnlab.tasks.dispatch.batched import BatchedShop, JobView
from gnnlab.tasks.dispatch.data import random_problems
from gnnlab.tasks.dispatch.decoding import play, scheduled
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.options import ShopOptions

__all__ = ["fit_guide", "fit_weights"]

_ROUNDS = 3
_OPERATIONS = 8000  # of all shops of one size in a round
_MOST_SHOPS = 100  # of one size in a round
_ROLLOUTS = 32
_SEARCH = 3000  # episodes of local search that improve each schedule
_DECAY = 1e-4
_NEVER = -1e30

Choices = tuple[Tensor, Tensor, Tensor]
"""Facts (D, J, F), candidates (D, J) and the chosen one (D,) of D decisions."""


def fit_guide(
    options: ShopOptions,
    lookahead: Lookahead,
    sizes: Sequence[tuple[int, int]],
    seed: int = 0,
    rounds: int = _ROUNDS,
) -> np.ndarray:
    """Returns the weights of a guide for random shops, (F,) float64.

    Args:
        options: how the shops work, one machine at a time.
        lookahead: the rules beside the guide.
        sizes: jobs and machines of the shops to learn from.
        seed: of the shops.
        rounds: how often schedules are made and the weights fitted to them.

    Example:
        >>> options = ShopOptions(focus=True, auto_trivial=True)
        >>> fit_guide(options, Lookahead(), [(2, 2)], rounds=1).shape
        (20,)
    """
    rng = np.random.default_rng(seed)
    ahead = replace(lookahead, rollouts=_ROLLOUTS)
    weights = np.zeros(0)
    for _ in range(rounds):
        weights = fit_weights([_choices(rng, options, ahead, size) for size in sizes])
        ahead = replace(ahead, guide=tuple(weights.tolist()))
    return weights


def fit_weights(choices: Sequence[Choices]) -> np.ndarray:
    """Returns the weights that make choices likeliest, (F,) float64.

    Args:
        choices: of one or several batches with any J.

    Example:
        >>> facts = torch.tensor([[[1.0], [0.0]]]).repeat(4, 1, 1).double()
        >>> chosen = torch.tensor([0, 0, 0, 1])  # the odds are 3 to 1
        >>> round(float(np.exp(fit_weights([(facts, facts[..., 0] >= 0, chosen)])[0])), 1)
        3.0
    """
    most = max(facts.shape[1] for facts, _, _ in choices)
    padded = [functional.pad(f, (0, 0, 0, most - f.shape[1])) for f, _, _ in choices]
    facts = torch.cat(padded).double()
    masks = [functional.pad(mask, (0, most - mask.shape[1])) for _, mask, _ in choices]
    mask, chosen = torch.cat(masks), torch.cat([c for _, _, c in choices])
    weights = torch.zeros(facts.shape[-1], dtype=torch.double, requires_grad=True)
    newton = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        newton.zero_grad()
        scores = (facts @ weights).masked_fill(~mask, _NEVER)
        value = functional.cross_entropy(scores, chosen) + _DECAY * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    if len(chosen):
        newton.step(loss)  # type: ignore[no-untyped-call]
    found: np.ndarray = weights.detach().numpy()
    return found


def _choices(
    rng: np.random.Generator, options: ShopOptions, lookahead: Lookahead, size: tuple[int, int]
) -> Choices:
    """Returns the decisions of good schedules of random shops."""
    jobs, machines = size
    count = min(_MOST_SHOPS, max(1, _OPERATIONS // (jobs * machines)))
    problems = random_problems(rng, count, jobs, machines)
    shop = BatchedShop(problems, options)
    play(_least, shop, lookahead=lookahead)
    starts = np.stack([shop.starts(row) for row in range(count)])
    better = BatchedShop(problems, replace(options, auto_trivial=False))
    better.search(_SEARCH, start=starts, seeds=rng.integers(2**62, size=count))
    starts = np.stack([better.starts(row).ravel() for row in range(count)])
    shop.reset()
    rows, seen = np.arange(count), []
    while True:
        view = shop.view(rows)
        live = view.mask.any(1)
        rows, view = rows[live.numpy()], view.at(live)
        if len(rows) == 0:
            break
        action, follows = scheduled(shop, view, rows, starts)
        facts = torch.from_numpy(shop.guide_facts(rows))
        is_job = torch.from_numpy(follows & (action < jobs))
        seen.append((facts[is_job], view.mask[is_job, :jobs], torch.from_numpy(action)[is_job]))
        shop.step(action, rows)
    parts = zip(*seen, strict=True)
    facts, mask, chosen = (torch.cat(part) for part in parts)
    return facts, mask, chosen


def _least(view: JobView, _: Tensor) -> Tensor:
    """Prefers the least makespan of noisy episodes, and of equal ones the least mean."""
    worse = view.ahead[..., -1] + 1e-3 * view.ahead[..., -2]
    return (-worse).masked_fill(~view.mask, -torch.inf)
