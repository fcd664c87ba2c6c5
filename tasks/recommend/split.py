"""How interactions are cut into train, validation and test.

Every rule is a pure function of arrays that first puts the pairs into one fixed order, so that the
order of the rows in a file never matters. Pairs are distinct (see `Interactions.build`).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from gnnlab.errors import ConfigError

__all__ = ["leave_one_out", "random_per_user", "temporal_global"]


def random_per_user(
    user: np.ndarray, item: np.ndarray, ratio: float, seed: int, *, stream: int = 0
) -> np.ndarray:
    """Marks a random share of every user's items as held out.

    A user with h items gives floor(ratio * h) of them, at least 1 when h >= 5, and never all.

    Args:
        user: [E] int64.
        item: [E] int64.
        ratio: share in [0, 1); 0 marks nothing.
        seed: same seed, same marks, whatever the order of the pairs.
        stream: a second number of the seed: the validation cut must not repeat the test cut.

    Shapes:
        returns: [E] bool, True where held out.

    Example:
        >>> user = np.repeat([0, 1], [10, 2])
        >>> held = random_per_user(user, np.arange(12), 0.2, seed=0)
        >>> int(held[:10].sum()), int(held[10:].sum())
        (2, 0)
    """
    held = np.zeros(user.size, dtype=np.bool_)
    if ratio == 0 or not user.size:
        return held
    share = _exact(ratio)
    order = np.lexsort((item, user))
    # raw bits, not Generator.random: numpy promises that only the former never change
    bits = np.random.PCG64([seed, stream]).random_raw(user.size)
    shuffled = order[np.lexsort((bits, user[order]))]
    position, degree = _positions(user[shuffled])
    count = degree * share.numerator // share.denominator
    count = np.where(degree >= 5, np.maximum(count, 1), count)
    held[shuffled] = position < np.minimum(count, degree - 1)
    return held


def leave_one_out(
    user: np.ndarray, item: np.ndarray, time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Marks the last item of every user, and the one before it.

    Equal times are ordered by item. Users with fewer than 3 items stay in training altogether.

    Args:
        user: [E] int64.
        item: [E] int64.
        time: [E] numbers.

    Shapes:
        returns: [E] bool twice: the one before last, the last.

    Example:
        >>> before, last = leave_one_out(np.zeros(3, int), np.array([4, 5, 6]), np.array([9, 1, 5]))
        >>> before, last
        (array([False, False,  True]), array([ True, False, False]))
    """
    order = np.lexsort((item, time, user))
    position, degree = _positions(user[order])
    from_end = degree - 1 - position
    before = np.zeros(user.size, dtype=np.bool_)
    last = np.zeros(user.size, dtype=np.bool_)
    before[order] = (from_end == 1) & (degree >= 3)
    last[order] = (from_end == 0) & (degree >= 3)
    return before, last


def temporal_global(time: np.ndarray, ratio: float) -> np.ndarray:
    """Marks everything from one moment on, the same moment for everybody.

    The moment is the time of the row at position ceil((1 - ratio) * E), counted from 0 in order of
    time. Rows of that very time are all held out, so equal times never fall on both sides.

    Args:
        time: [E] numbers.
        ratio: share in [0, 1); 0 marks nothing.

    Shapes:
        returns: [E] bool, True where held out.

    Example:
        >>> temporal_global(np.array([30, 10, 20, 20, 20]), 0.4)
        array([ True, False,  True,  True,  True])
    """
    if ratio == 0 or not time.size:
        return np.zeros(time.size, dtype=np.bool_)
    kept = (1 - _exact(ratio)) * time.size
    position = min(-(-kept.numerator // kept.denominator), time.size - 1)
    held: np.ndarray = time >= np.sort(time)[position]
    return held


def _exact(ratio: float) -> Fraction:
    """The decimal the user wrote: 0.29 * 100 is 29, not 28.999999999999996."""
    if not 0 <= ratio < 1:
        raise ConfigError(f"the held-out share is {ratio}; it must be in [0, 1).")
    return Fraction(repr(float(ratio))).limit_denominator(10**6)


def _positions(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (position within the user's run, length of the run) for users in sorted order."""
    _, starts, inverse, counts = np.unique(
        user, return_index=True, return_inverse=True, return_counts=True
    )
    return np.arange(user.size) - starts[inverse], counts[inverse]
