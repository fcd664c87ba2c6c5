"""Where interactions come from: files, tables, arrays, tensors, or the name of a data set.

The numpy form (.npz file, or a mapping with the same keys) is either not split, with "user" and
"item" and optionally "rating" and "timestamp", or split, with "train_user", "train_item",
"test_user", "test_item" and optionally "valid_user", "valid_item". An optional "shape" holds the
number of users and of items; ids are then contiguous numbers up to it (from 0, or all from 1).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gnnlab.errors import DataError, MissingExtraError
from gnnlab.tasks.recommend import datasets, generator
from gnnlab.tasks.recommend.columns import Table
from gnnlab.tasks.recommend.textfile import read_text

__all__ = ["Source", "load"]

_TEXT = (".csv", ".tsv", ".txt", ".inter")
_PARTS = {"train_": "train", "valid_": "val", "val_": "val", "test_": "test"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was found, before any check of its values."""

    name: str
    """What to call it."""
    parts: Mapping[str, Table]
    """Either {"all": table}, or "train", "test" and perhaps "val"."""
    shape: tuple[int, int] | None = None
    """Number of users and items, when the source says."""
    note: str = ""
    """What was verified, for the facts."""


def load(source: Any, delimiter: str | None = None) -> Source:
    """Recognises `source` and reads it.

    Args:
        source: path of a .csv, .tsv, .txt (also .gz), .parquet or .npz file; a known data set name
            or "synthetic"; a data frame, Arrow table or mapping of columns; a tuple (user, item) or
            (user, item, timestamp) of arrays or tensors; an edge_index (2, E); a SciPy sparse
            matrix of users by items.
        delimiter: separator of text files; None guesses.

    Raises:
        DataError: when it is none of these, or cannot be read.
        MissingExtraError: for Parquet without pyarrow.

    Example:
        >>> len(load("synthetic").parts["all"]) > 20_000
        True
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_word(os.fspath(source), delimiter)
    if isinstance(source, (Tensor, np.ndarray)):
        return _from_edge_index(_array(source))
    if isinstance(source, (tuple, list)):
        return _from_tuple(source)
    if hasattr(source, "tocoo"):
        matrix = source.tocoo()
        present = matrix.data != 0
        columns = {"user": matrix.row[present], "item": matrix.col[present]}
        users, items = matrix.shape
        return Source(
            name="the matrix",
            parts={"all": Table(name="the matrix", columns=columns)},
            shape=(int(users), int(items)),
        )
    if hasattr(source, "column_names"):
        return _from_columns(_arrow_columns(source), "the table")
    if isinstance(source, Mapping):
        return _from_columns({str(k): _array(v) for k, v in source.items()}, "the mapping")
    if hasattr(source, "columns"):
        return _from_columns({str(k): _array(source[k]) for k in source.columns}, "the table")
    raise DataError(
        f"cannot read interactions from a {type(source).__name__}. Give a path, a data set name, a "
        "data frame, a mapping of columns, a tuple (user, item), or an edge_index (2, E)."
    )


def _from_word(word: str, delimiter: str | None) -> Source:
    if word == "synthetic":
        return _from_columns(generator.planted(), "synthetic")
    if word in datasets.DATASETS:
        return _from_dataset(word)
    path = Path(word).expanduser()
    if path.is_dir():
        raise DataError(f"{word} is a folder; give the file that holds the interactions.")
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"there is no file {word} (looked in {Path.cwd()}).")
        raise datasets.unknown(word)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".gz":
        kind = suffixes[-2] if len(suffixes) > 1 else ""
    if kind in _TEXT:
        if kind == ".tsv" and delimiter is None:
            delimiter = "\t"
        return Source(name=path.name, parts={"all": read_text(path, delimiter)})
    if kind in (".parquet", ".pq"):
        return _from_columns(_parquet_columns(path), path.name)
    if kind == ".npz":
        return _from_columns(_npz_columns(path), path.name)
    known = ", ".join([*_TEXT, ".parquet", ".npz"])
    raise DataError(f'{path.name}: cannot read files ending in "{kind}". Known: {known} (and .gz).')


def _from_dataset(name: str) -> Source:
    facts = datasets.DATASETS[name]
    path = datasets.find(name)
    found = _from_columns(_npz_columns(path), path.name)
    counts = {part: len(table) for part, table in found.parts.items()}
    train = counts.get("all", counts.get("train", 0))
    seen = (found.shape, train, counts.get("val", 0), counts.get("test", 0))
    expected = ((facts.users, facts.items), facts.train, facts.val, facts.test)
    if seen != expected:
        raise DataError(
            f'{path} is not the data set "{name}": its shape and train, val and test pairs are '
            f"{seen}, expected {expected}. Other splits exist under the same name; read the file "
            "by its path if you mean it."
        )
    exact = datasets.same_file(path, facts.sha256)
    note = "sha256 verified" if exact else "counts verified (not the byte-identical file)"
    return Source(name=name, parts=found.parts, shape=found.shape, note=f"{note}; {facts.terms}")


def _from_edge_index(edges: np.ndarray) -> Source:
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise DataError(
            f"an edge_index has shape (2, E) and integers (row 0 users, row 1 items), got "
            f"{edges.dtype} of shape {edges.shape}."
        )
    if edges.size and edges.min() < 0:
        raise DataError(f"edge_index holds {edges.min()}; node numbers start at 0.")
    return _from_columns({"user": edges[0], "item": edges[1]}, "edge_index")


def _from_tuple(parts: tuple[Any, ...] | list[Any]) -> Source:
    if len(parts) not in (2, 3):
        raise DataError(
            f"expected (user, item) or (user, item, timestamp) arrays, got {len(parts)} values."
        )
    names = ("user", "item", "timestamp")
    columns = {name: _array(part) for name, part in zip(names, parts, strict=False)}
    return _from_columns(columns, "the arrays")


def _from_columns(columns: dict[str, np.ndarray], name: str) -> Source:
    shape = None
    if "shape" in columns:
        given = columns.pop("shape")
        if given.shape != (2,) or given.dtype.kind not in "iu" or given.min() < 0:
            raise DataError(f"{name}: shape must hold two counts, users and items; got {given}.")
        shape = (int(given[0]), int(given[1]))
    if not any(column.startswith("train_") for column in columns):
        return Source(name=name, parts={"all": Table(name=name, columns=columns)}, shape=shape)
    parts: dict[str, Table] = {}
    for prefix, part in _PARTS.items():
        own = {k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)}
        if own:
            parts[part] = Table(name=f"{name} ({part})", columns=own)
    return Source(name=name, parts=parts, shape=shape)


def _array(values: Any) -> np.ndarray:
    """Any column as a numpy array, missing values as None or NaN."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, (list, tuple)):
        # numpy would turn [1, "1"] into two equal strings
        same = len(set(map(type, values))) <= 1
        return np.asarray(values) if same else np.array(values, dtype=object)
    kind = getattr(values, "dtype", None)
    if getattr(kind, "tz", None) is not None:
        return np.asarray(values.dt.tz_convert("UTC").dt.tz_localize(None))
    if kind is not None and not isinstance(kind, np.dtype) and hasattr(values, "isna"):
        missing = values.isna().to_numpy()
        if missing.any():
            kept: np.ndarray = values.to_numpy(dtype=object, na_value=None)
            return kept
    return np.asarray(values)


def _npz_columns(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, AttributeError) as error:
        raise DataError(f"{path.name} is not a readable npz file: {error}") from None


def _parquet_columns(path: Path) -> dict[str, np.ndarray]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError(
            f"reading {path.name} needs pyarrow: pip install 'gnnlab[recommend]'"
        ) from None
    try:
        return _arrow_columns(parquet.read_table(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is not a readable Parquet file: {error}") from None


def _arrow_columns(table: Any) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        column = table.column(name)
        value_type = getattr(column.type, "value_type", None)
        if value_type is not None and hasattr(column.type, "index_type"):
            column = column.cast(value_type)  # dictionary-encoded strings
        if column.null_count:
            # numpy has no missing integer: through float64, ids above 2^53 would change
            values = np.empty(len(column), dtype=object)
            values[:] = column.to_pylist()
            columns[str(name)] = values
        else:
            columns[str(name)] = np.asarray(column.to_numpy())
    return columns
