"""Fetches public data sets from where their authors keep them, into the user's cache folder.

gnnlab ships none of them. What arrives is converted to the npz form that `read` knows and kept only
if its users, items and pairs are the counted ones.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gnnlab.errors import DataError, did_you_mean
from gnnlab.tasks.recommend.datasets import DATASETS, folders

__all__ = ["ORIGINS", "Origin", "adjacency", "fetch", "triples"]

Pairs = tuple[np.ndarray, np.ndarray]
_RAW = "https://raw.githubusercontent.com"


def adjacency(text: str) -> Pairs:
    """Reads lines `user item item ...` with 0-based ids; a user alone has no items.

    Example:
        >>> adjacency("0 4 2\\n1\\n\\n2 4 \\n")
        (array([0, 0, 2]), array([4, 2, 4]))
    """
    lines = [np.array(line.split(), dtype=np.int64) for line in text.splitlines() if line.strip()]
    users = np.array([line[0] for line in lines], dtype=np.int64)
    items = [line[1:] for line in lines]
    return np.repeat(users, [len(i) for i in items]), np.concatenate([*items, users[:0]])


def triples(text: str) -> Pairs:
    """Reads lines `user item count` with 1-based ids; the count is not used.

    Example:
        >>> triples("1\\t3\\t12\\n2\\t1\\t3.2466e+05\\n")
        (array([0, 1]), array([2, 0]))
    """
    rows = [line.split()[:2] for line in text.splitlines() if line.strip()]
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 2) - 1
    return pairs[:, 0], pairs[:, 1]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a data set is published, and in which form."""

    train: str
    """Address of the training part."""
    test: str
    """Address of the test part."""
    form: Callable[[str], Pairs]
    """Turns the text into users and items."""


ORIGINS: dict[str, Origin] = {
    "gowalla": Origin(
        train=f"{_RAW}/gusye1234/LightGCN-PyTorch/master/data/gowalla/train.txt",
        test=f"{_RAW}/gusye1234/LightGCN-PyTorch/master/data/gowalla/test.txt",
        form=adjacency,
    ),
    "lastfm": Origin(
        train=f"{_RAW}/gusye1234/LightGCN-PyTorch/master/data/lastfm/data1.txt",
        test=f"{_RAW}/gusye1234/LightGCN-PyTorch/master/data/lastfm/test1.txt",
        form=triples,
    ),
    "ml-1m": Origin(
        train=f"{_RAW}/xue-pai/UltraGCN/main/data/ml-1m/train.txt",
        test=f"{_RAW}/xue-pai/UltraGCN/main/data/ml-1m/test.txt",
        form=adjacency,
    ),
}


def fetch(name: str) -> str:
    """Downloads, checks and keeps a data set; returns the path of its file.

    Args:
        name: a key of `ORIGINS`.

    Raises:
        DataError: for a set that is not fetched, a server that does not answer, or content whose
            counts are not those of the set.
    """
    if name not in ORIGINS:
        raise DataError(f'"{name}" cannot be fetched.{did_you_mean(name, ORIGINS)}')
    origin, facts = ORIGINS[name], DATASETS[name]
    found: dict[str, np.ndarray] = {"shape": np.array([facts.users, facts.items])}
    for part, address, count in (
        ("train", origin.train, facts.train),
        ("test", origin.test, facts.test),
    ):
        text = _download(address)
        try:
            user, item = origin.form(text)
        except (ValueError, IndexError) as error:
            raise DataError(f"{address} does not hold user and item numbers: {error}.") from None
        order = np.lexsort((item, user))
        user, item = user[order], item[order]
        inside = len(user) and user.max() < facts.users and item.max() < facts.items
        if len(user) != count or not inside or min(user.min(), item.min()) < 0:
            raise DataError(
                f"{address} holds {len(user)} pairs, expected {count} of {facts.users} users and "
                f"{facts.items} items. It is not the data set that gnnlab knows; nothing was kept."
            )
        found[f"{part}_user"] = user.astype(np.int32)
        found[f"{part}_item"] = item.astype(np.int32)
    target = folders()[-1] / f"{name}.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{name}.{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(partial, **found)  # type: ignore[arg-type]
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return str(target)


def _download(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"cannot fetch {address}: {reason}.") from None
    return content.decode("utf-8")
