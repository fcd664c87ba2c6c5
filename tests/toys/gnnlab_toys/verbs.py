"""A verb of the command line that the toy shop brings along."""

from __future__ import annotations


def smith(*, times: str, weights: str) -> int:
    """Order jobs on one machine by Smith's rule.

    Parameters
    ----------
    times
        Processing time of each job, separated by commas.
    weights
        Weight of each job, likewise.
    """
    p, w = ([float(word) for word in text.split(",")] for text in (times, weights))
    if len(p) != len(w):
        return 1
    order = sorted(range(len(p)), key=lambda j: -w[j] / p[j])
    print(*order)
    return 0
