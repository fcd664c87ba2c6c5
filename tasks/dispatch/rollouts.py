"""Episodes that rules finish, and what they say of the actions that come before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from gnnlab.tasks.dispatch._plans import NO_PLAN, Plans
from gnnlab.tasks.dispatch.guide import draw
from gnnlab.tasks.dispatch.rules import RULES, KeyRule
from gnnlab.tasks.dispatch.simulator import Simulator

__all__ = ["Dice", "Mix", "action_values", "finish"]

Mix = Sequence[tuple[int, float]]
"""Numbers of rules, the places in `RULES`, and their weights."""

GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


class Dice:
    """Random numbers xorshift64*, the ones of the compiled code.

    Args:
        state: the seed, of which the lowest 64 bits count.
    """

    def __init__(self, state: int) -> None:
        self.state = state & _WORD

    def next(self) -> int:
        """Returns 64 random bits."""
        self.state ^= self.state << 13 & _WORD
        self.state ^= self.state >> 7
        self.state ^= self.state << 17 & _WORD
        return self.state * 0x2545F4914F6CDD1D & _WORD

    def unit(self) -> float:
        """Returns a number in [0, 1)."""
        return (self.next() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """Returns an integer in 0..bound-1."""
        return int(self.unit() * bound)


def finish(shop: Simulator, mix: Mix, seed: int = 0) -> None:
    """Plays an episode to its end by a weighted sum of priority rules.

    Args:
        shop: the episode; it ends.
        mix: rules and weights; RANDOM by itself, or without effect in a sum.
        seed: of RANDOM.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]]))
        >>> finish(shop, [(RULES.index("SPT"), 1.0)])
        >>> shop.makespan
        5
    """
    stream = _stream(seed)
    while not shop.over:
        shop.play(_choose(shop, mix, stream.random))


def action_values(
    shop: Simulator,
    rules: Sequence[int],
    *,
    rollouts: int,
    noise: float,
    seed: int = 0,
    plans: Plans | None = None,
    row: int = 0,
    guide: Sequence[float] | None = None,
) -> np.ndarray:
    """Judges every legal action by finishing the episode many times in the expected future.

    Shutdowns of now end as known and no others follow. All actions meet the same random numbers.

    Args:
        shop: the episode at a decision; it stays as it is.
        rules: numbers of R rules.
        rollouts: episodes per action finished by the rules in turn, with noise.
        noise: how often any candidate is taken instead of the rule's.
        seed: of the noise.
        plans: if given, the best episode is kept there, and counts among those of its next action
            for as long as the shop follows it. For shops without shutdowns.
        row: of the shop in `plans`.
        guide: (F,) weights of a guide that plays the noisy episodes instead of the rules.

    Returns:
        (J + 1, R + 2) int64, -1 for actions that are not legal: the makespan when each rule
        finishes the episode, then mean and least of the noisy episodes, or of the plain ones if
        there are no noisy ones. A deadlock counts as 4 times the sum of all times.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> shop = Simulator(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 1)]]))
        >>> action_values(shop, [RULES.index("SPT")], rollouts=0, noise=0.0).tolist()
        [[5, 5, 5], [6, 6, 6], [-1, -1, -1]]
    """
    values = np.full((shop.num_jobs + 1, len(rules) + 2), -1, np.int64)
    if shop.over:
        return values
    if plans is not None:
        _recall(shop, plans, row)
    for action in shop.legal():
        first = shop.expected()
        first.play(action)
        spans = []
        for t in range(len(rules) + rollouts):
            is_plain = t < len(rules)
            rule = rules[t if is_plain else (t - len(rules)) % len(rules)]
            trial, dice = first.clone(), Dice((seed + t + 1) * GOLDEN)
            if guide is not None and not is_plain:
                _finish_guided(trial, guide, dice)
            else:
                _finish(trial, rule, 0.0 if is_plain else noise, dice)
            if plans is not None and trial.done and trial.time < plans.spans[row]:
                _keep(trial, action, plans, row)
            spans.append(trial.time if trial.done else 4 * sum(shop.total))
        counted = spans[len(rules) :] or spans
        mean = int(sum(counted) / len(counted) + 0.5)
        values[action] = [*spans[: len(rules)], mean, min(counted)]
    if plans is not None and plans.spans[row] < NO_PLAN:
        following = plans.next[row]
        values[following, -1] = min(values[following, -1], plans.spans[row])
    return values


def _recall(shop: Simulator, plans: Plans, row: int) -> None:
    """Finds the job that the plan puts on the first open machine now."""
    if plans.spans[row] == NO_PLAN:
        return
    k = shop.open_machines()[0]
    last = -1
    if shop.order[k]:
        j, i = shop.order[k][-1]
        last = _place(shop, j, i)
    for j in shop.candidates(k):
        if plans.before[row, _place(shop, j, shop.next_op[j])] == last:
            plans.next[row] = j
            return
    plans.spans[row] = NO_PLAN


def _keep(done: Simulator, action: int, plans: Plans, row: int) -> None:
    """Makes a finished episode that began with an action the plan."""
    plans.spans[row], plans.next[row] = done.time, action
    for started in done.order:
        last = -1
        for j, i in started:
            plans.before[row, _place(done, j, i)] = last
            last = _place(done, j, i)


def _place(shop: Simulator, j: int, i: int) -> int:
    return j * int(shop.instance.times.shape[1]) + i


def _finish(shop: Simulator, rule: int, noise: float, dice: Dice) -> None:
    while not shop.over:
        if noise > 0 and dice.unit() < noise:
            jobs = _candidates(shop)
            shop.play(jobs[dice.below(len(jobs))])
        else:
            shop.play(_choose(shop, [(rule, 1.0)], lambda: _stream(dice.state).random()))


def _finish_guided(shop: Simulator, weights: Sequence[float], dice: Dice) -> None:
    while not shop.over:
        jobs = _candidates(shop)
        shop.play(draw(shop, weights, dice.unit()) if len(jobs) > 1 else jobs[0])


def _choose(shop: Simulator, mix: Mix, draw: Callable[[], float]) -> int:
    """Returns the candidate with the smallest sum of keys, the first of equals."""
    jobs = _candidates(shop)
    if [RULES[number] for number, _ in mix] == ["RANDOM"]:
        return jobs[int(draw() * len(jobs))]
    sums = [0.0] * len(jobs)
    for number, weight in mix:
        if RULES[number] != "RANDOM":
            keys = _rule(number).keys(shop, jobs)
            sums = [s + weight * key for s, key in zip(sums, keys, strict=True)]
    best = 0
    for place, value in enumerate(sums):
        if value < sums[best]:
            best = place
    return jobs[best]


def _candidates(shop: Simulator) -> list[int]:
    return shop.candidates(shop.open_machines()[0])


def _stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, 0], np.uint64)))


@functools.cache
def _rule(number: int) -> KeyRule:
    return KeyRule(RULES[number])
