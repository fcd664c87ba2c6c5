"""Reads interactions, checks every value that will be used, and cuts them into splits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnnlab.errors import DataError
from gnnlab.task import Data, Split
from gnnlab.tasks.recommend import split as cut
from gnnlab.tasks.recommend.columns import Table, null_mask, numbers, times
from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.ids import IdMap, as_ids
from gnnlab.tasks.recommend.interactions import Interactions
from gnnlab.tasks.recommend.sources import Source, load

__all__ = ["read", "read_users"]

_VAL_RATIO = 0.1
_TIMED = ("leave-one-out", "temporal-global")
_LEAK = "per-user splits see the future of other users; only temporal-global does not"


@dataclass(frozen=True)
class _Part:
    """One table after all checks of single values."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None
    weight: np.ndarray | None
    dropped: int
    filtered: int


def read(source: Any, config: RecommendConfig) -> Data:
    """Turns any source of interactions into validated splits.

    Args:
        source: see `gnnlab.tasks.recommend.sources.load`.
        config: column names, filters and the split.

    Returns:
        train (history and target: the training pairs), val (history: train) and test (history:
        train, or train and val when config.mask is "train+valid"), with spec and facts filled in.

    Raises:
        DataError: naming the place and the value that is wrong.
        MissingExtraError: for Parquet without pyarrow.

    Example:
        >>> data = read({"user": ["a", "a", "b"], "item": [7, 8, 7]}, RecommendConfig(split="none"))
        >>> data.spec["num_users"], data.spec["num_items"], data.spec["num_train"]
        (2, 2, 3)
    """
    found = load(source, config.delimiter)
    given = "all" not in found.parts
    needs_time = not given and config.split in _TIMED
    parts = {name: _check(table, config, needs_time) for name, table in found.parts.items()}
    main = parts["train" if given else "all"]
    dropped = sum(part.dropped for part in parts.values())
    filtered = sum(part.filtered for part in parts.values())
    if not main.user.size:
        why = f" left after dropping {dropped} rows without ids" if dropped else ""
        why = f" left: min_rating={config.min_rating} removes all of them" if filtered else why
        raise DataError(f"{found.name}: no interactions{why}.")
    if dropped:
        warnings.warn(
            f"{found.name}: dropped {dropped} rows whose user or item id is empty.", stacklevel=3
        )
    users = _id_map(found, {name: part.user for name, part in parts.items()}, "user")
    items = _id_map(found, {name: part.item for name, part in parts.items()}, "item")
    built = {name: _build(part, users, items) for name, part in parts.items()}
    collapsed = sum(count for _, count in built.values())
    facts: dict[str, Any] = {
        "source": f"{found.name} ({found.note})" if found.note else found.name,
        "users": _size_text(users),
        "items": _size_text(items),
        "duplicates collapsed": collapsed,
        "rows dropped (empty id)": dropped,
    }
    if config.min_rating is not None:
        facts[f"rows dropped (rating < {config.min_rating:g})"] = filtered
    pairs = {name: interactions for name, (interactions, _) in built.items()}
    if given:
        train, val, test, rule = _given(found.name, pairs, config)
    else:
        train, val, test, rule = _cut(found.name, pairs["all"], config)
    facts["split"] = rule
    return _assemble(train, val, test, config, facts)


def read_users(source: Any, config: RecommendConfig, ids: IdMap | None = None) -> np.ndarray:
    """Reads the user column of a table, in the order of its rows; other columns may be absent.

    Args:
        source: a file or table as for `read`, not split.
        config: the name of the user column, and the separator of text files.
        ids: the map the users are to be looked up in. Text does not say whether 12 is a number or
            a string; with a map it is read as what the map holds.

    Shapes:
        returns: [R] int64 or numpy unicode raw ids.

    Raises:
        DataError: when the column is missing or an id is empty.
    """
    found = load(source, config.delimiter)
    if "all" not in found.parts:
        raise DataError(f"{found.name} holds a split, not a list of users.")
    table = found.parts["all"]
    column = table.require(config.user_col, "user_col")
    missing = null_mask(table.columns[column])
    if missing.any():
        raise DataError(f"{table.place(int(np.argmax(missing)))}: user id is empty.")
    parse = table.text and (ids is None or ids.kind == "int")
    return as_ids(table.columns[column], parse=parse)


def _size_text(ids: IdMap) -> str:
    """The size and kind of an id map, for people."""
    return f"{len(ids):,} ({'strings' if ids.kind == 'string' else 'integers'})"


def _check(table: Table, config: RecommendConfig, needs_time: bool) -> _Part:
    user_name = table.require(config.user_col, "user_col")
    item_name = table.require(config.item_col, "item_col")
    user, item = table.columns[user_name], table.columns[item_name]
    kept = np.ones(user.size, dtype=np.bool_)
    for what, column in (("user", user), ("item", item)):
        missing = null_mask(column)
        if missing.any() and config.on_null == "error":
            raise DataError(
                f"{table.place(int(np.argmax(missing)))}: {what} id is empty "
                f'({int(missing.sum())} such rows). Fix the rows or pass on_null="drop".'
            )
        kept &= ~missing
    dropped = int(kept.size - kept.sum())

    weight = None
    weight_name = None
    if config.weight_col is not None:
        weight_name = table.require(config.weight_col, "weight_col")
    elif config.min_rating is not None:
        weight_name = table.require("rating", "weight_col")
    if weight_name is not None:
        weight = _weights(table, weight_name, np.flatnonzero(kept))
        if config.min_rating is not None:
            kept &= weight >= config.min_rating
    rows = np.flatnonzero(kept)
    time = None
    if needs_time:
        time_name = table.require(config.time_col, "time_col")
        time = times(table, time_name, rows, f'split="{config.split}"')
    return _Part(
        _ids(table, user_name, rows, "user"),
        _ids(table, item_name, rows, "item"),
        time,
        None if weight is None else weight[rows],
        dropped,
        int(kept.size - dropped - rows.size),
    )


def _ids(table: Table, column: str, rows: np.ndarray, what: str) -> np.ndarray:
    try:
        return as_ids(table.columns[column][rows], what=what, parse=table.text)
    except DataError as error:
        raise DataError(f'{table.name}, column "{column}": {error}') from None


def _weights(table: Table, column: str, rows: np.ndarray) -> np.ndarray:
    """All weights as float64; only those of `rows` are checked."""
    weight = numbers(table.columns[column])
    wrong = ~np.isfinite(weight[rows]) | (weight[rows] < 0)
    if wrong.any():
        row = int(rows[int(np.argmax(wrong))])
        raise DataError(
            f"{table.place(row)}: {column} is {table.columns[column][row]!s} "
            f"({int(wrong.sum())} such rows). Weights are finite numbers, 0 or more."
        )
    return weight


def _id_map(found: Source, raw: Mapping[str, np.ndarray], what: str) -> IdMap:
    present = [ids for ids in raw.values() if ids.size]
    kinds = {ids.dtype.kind for ids in present}
    if len(kinds) > 1:
        examples = ", ".join(f"{name}: {ids[0]!r}" for name, ids in raw.items() if ids.size)
        raise DataError(
            f"{found.name}: {what} ids are integers in one part and strings in another "
            f"({examples}); they would never meet. Convert them to one type."
        )
    if found.shape is None:
        return IdMap(np.concatenate(present), what=what)
    size = found.shape[0 if what == "user" else 1]
    if kinds == {"U"}:
        raise DataError(
            f"{found.name}: shape says {size} {what}s numbered from 0, but their ids are strings."
        )
    low = min(int(ids.min()) for ids in present)
    high = max(int(ids.max()) for ids in present)
    # published files number from 0 or from 1; the second shows when the size itself occurs
    base = 1 if low >= 1 and high == size else 0
    if low < base or high >= base + size:
        wrong = low if low < base else high
        raise DataError(
            f"{found.name}: {what} id {wrong} is outside 0..{size - 1}, the range that shape gives."
        )
    return IdMap(np.arange(base, base + size), what=what)


def _build(part: _Part, users: IdMap, items: IdMap) -> tuple[Interactions, int]:
    empty = np.zeros(0, dtype=np.int64)
    user = users.encode(part.user) if part.user.size else empty
    item = items.encode(part.item, what="item") if part.item.size else empty
    return Interactions.build(user, item, users, items, part.time, part.weight)


_Cut = tuple[Interactions, Interactions | None, Interactions | None, str]


def _cut(name: str, pairs: Interactions, config: RecommendConfig) -> _Cut:
    """Cuts data that came in one piece."""
    ratio = _VAL_RATIO if config.val_ratio is None else config.val_ratio
    seed = config.split_seed
    user, item, time = pairs.user, pairs.item, pairs.timestamp
    none = np.zeros(pairs.num_pairs, dtype=np.bool_)
    held_test = held_val = none
    if config.split == "random":
        held_test = cut.random_per_user(user, item, config.test_ratio, seed)
        rule = f"random per user, test {config.test_ratio:g}, val {ratio:g}, seed {seed} ({_LEAK})"
        held_val = _inside(~held_test, cut.random_per_user, user, item, ratio, seed)
    elif config.split == "leave-one-out" and time is not None:
        before, held_test = cut.leave_one_out(user, item, time)
        held_val = before if ratio else none
        rule = f"leave-one-out by time ({_LEAK})"
    elif config.split == "temporal-global" and time is not None:
        held_test = cut.temporal_global(time, config.test_ratio)
        if held_test.all():
            raise DataError(
                f"{name}: no training interactions: the cut for test_ratio={config.test_ratio:g} "
                f"falls on the earliest time ({time.min()}). Lower test_ratio or use "
                'split="random".'
            )
        kept = ~held_test
        held_val = none.copy()
        held_val[kept] = cut.temporal_global(time[kept], ratio)
        if held_val.sum() == kept.sum():
            warnings.warn(
                f"{name}: no validation part, because its cut falls on the earliest time.",
                stacklevel=4,
            )
            held_val = none
        rule = (
            f"temporal-global, test from time {time[held_test].min()} on, val {ratio:g} before it"
        )
    else:
        ratio = config.val_ratio or 0.0
        held_val = _inside(~none, cut.random_per_user, user, item, ratio, seed)
        rule = "none: everything is training" + (
            f", val {ratio:g} random per user" if ratio else ""
        )
    if config.split != "none" and not held_test.any():
        warnings.warn(
            f'{name}: split="{config.split}" leaves no test pairs, because every user has too few '
            "interactions.",
            stacklevel=4,
        )
    train = pairs.take(~held_test & ~held_val)
    return train, _some(pairs.take(held_val)), _some(pairs.take(held_test)), rule


def _inside(
    kept: np.ndarray, rule: Any, user: np.ndarray, item: np.ndarray, ratio: float, seed: int
) -> np.ndarray:
    """Applies a per-user rule to the kept pairs only; the marks have full length."""
    held = np.zeros(kept.size, dtype=np.bool_)
    held[kept] = rule(user[kept], item[kept], ratio, seed, stream=1)
    return held


def _given(name: str, pairs: Mapping[str, Interactions], config: RecommendConfig) -> _Cut:
    """Takes the split that the source brought, less the pairs that occur in two parts."""
    train = pairs["train"]
    parts: dict[str, Interactions | None] = {"val": None, "test": None}
    for part in parts:
        if part not in pairs:
            continue
        own = pairs[part]
        shared = train.contains(own)
        if shared.any():
            warnings.warn(
                f"{name}: removed {int(shared.sum())} pairs from {part} that are also in train.",
                stacklevel=4,
            )
        parts[part] = _some(own.take(~shared))
    val, test = parts["val"], parts["test"]
    if val is not None and test is not None:
        shared = test.contains(val)
        if shared.any():
            warnings.warn(
                f"{name}: removed {int(shared.sum())} pairs from val that are also in test.",
                stacklevel=4,
            )
            val = _some(val.take(~shared))
    rule = "as given by the source"
    ratio = config.val_ratio or 0.0
    if val is None and ratio:
        held = cut.random_per_user(train.user, train.item, ratio, config.split_seed, stream=1)
        val, train = _some(train.take(held)), train.take(~held)
        rule += f", val {ratio:g} of train random per user, seed {config.split_seed}"
    return train, val, test, rule


def _some(pairs: Interactions) -> Interactions | None:
    return pairs if pairs.num_pairs else None


def _assemble(
    train: Interactions,
    val: Interactions | None,
    test: Interactions | None,
    config: RecommendConfig,
    facts: dict[str, Any],
) -> Data:
    facts["train pairs"] = train.num_pairs
    facts["val pairs"] = val.num_pairs if val else 0
    facts["test pairs"] = test.num_pairs if test else 0
    facts["users without train pairs"] = int((train.user_degree == 0).sum())
    facts["items without train pairs"] = int((train.item_degree == 0).sum())
    splits: dict[str, Split] = {}
    if val is not None:
        splits["val"] = Split(name="val", history=train, target=val)
    if test is not None:
        history = train.union(val) if config.mask == "train+valid" and val is not None else train
        splits["test"] = Split(name="test", history=history, target=test)
        asked, sought = test.user_degree > 0, test.item_degree > 0
        facts["test users"] = int(asked.sum())
        facts["test users without history"] = int((asked & (train.user_degree == 0)).sum())
        facts["test items unseen in train"] = int((sought & (train.item_degree == 0)).sum())
        facts["left out of the test ranking"] = f"{config.mask} pairs"
    return Data(
        train=Split(name="train", history=train, target=train),
        val=splits.get("val"),
        test=splits.get("test"),
        spec={
            "num_users": train.num_users,
            "num_items": train.num_items,
            "id_kind_user": train.users.kind,
            "id_kind_item": train.items.kind,
            "num_train": train.num_pairs,
            "fingerprint": train.fingerprint(),
        },
        facts=facts,
    )
