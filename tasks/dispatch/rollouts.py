"""Episodes that rules finish, and what they say of the actions that come before."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

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
    shop: Simulator, rules: Sequence[int], *, rollouts: int, noise: float, seed: int = 0
) -> np.ndarray:
    """Judges every legal action by finishing the episode many times in the expected future.

    Shutdowns of now end as known and no others follow. All actions meet the same random numbers.

    Args:
        shop: the episode at a decision; it stays as it is.
        rules: numbers of R rules.
        rollouts: episodes per action finished by the rules in turn, with noise.
        noise: how often any candidate is taken instead of the rule's.
        seed: of the noise.

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
    for action in shop.legal():
        first = shop.expected()
        first.play(action)
        plain = []
        for t, rule in enumerate(rules):
            plain.append(_span(first.clone(), rule, 0.0, Dice((seed + t + 1) * GOLDEN)))
        noisy = []
        for t in range(len(rules), len(rules) + rollouts):
            rule = rules[(t - len(rules)) % len(rules)]
            noisy.append(_span(first.clone(), rule, noise, Dice((seed + t + 1) * GOLDEN)))
        counted = noisy or plain
        mean = int(sum(counted) / len(counted) + 0.5)
        values[action] = [*plain, mean, min(counted)]
    return values


def _span(shop: Simulator, rule: int, noise: float, dice: Dice) -> int:
    while not shop.over:
        if noise > 0 and dice.unit() < noise:
            jobs = _candidates(shop)
            shop.play(jobs[dice.below(len(jobs))])
        else:
            shop.play(_choose(shop, [(rule, 1.0)], lambda: _stream(dice.state).random()))
    return shop.time if shop.done else 4 * sum(shop.total)


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
