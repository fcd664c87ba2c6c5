"""Raw ids of users and items, and the contiguous numbers the models work with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import DataError

__all__ = ["IdMap", "as_ids"]

# numpy stores strings at the width of the longest one: a single huge value would multiply by the
# number of rows.
_LONGEST = 1000


def as_ids(values: Any, *, what: str = "user", parse: bool = False) -> np.ndarray:
    """Returns ids as int64 or as numpy strings, and refuses anything that mixes the two.

    Args:
        values: 1-D array or sequence of integers, or of strings; whole floats count as integers
            because tables with empty cells store integers that way.
        what: the word for one of them in messages.
        parse: turn strings into integers when each is the plain decimal form of an int64. "007" is
            not (it would come back as 7), so such a column stays a column of strings.

    Shapes:
        returns: [len(values)] int64 or numpy unicode.

    Raises:
        DataError: for mixed types, fractions, booleans and other kinds, with an example.

    Example:
        >>> as_ids(["7", "12"], parse=True)
        array([ 7, 12])
        >>> as_ids(["007", "12"], parse=True)
        array(['007', '12'], dtype='<U3')
    """
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise DataError(f"{what} ids must be one-dimensional, got shape {array.shape}.")
    if array.dtype.kind in "OT":
        array = _from_objects(array, what)
    kind = array.dtype.kind
    if kind == "S":
        array = np.char.decode(array, "utf-8")
        kind = "U"
    if kind == "U":
        return _parsed(array) if parse else array
    if kind == "u" and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise DataError(f"{what} id {int(array.max())} does not fit into 64 signed bits.")
    if kind in "iu":
        return array.astype(np.int64)
    if kind == "f":
        wrong = ~(np.isfinite(array) & (np.floor(array) == array) & (np.abs(array) < 2.0**53))
        if wrong.any():
            value = array[int(np.argmax(wrong))]
            raise DataError(
                f"{what} id {value} is not a whole number; ids are integers or strings."
            )
        return array.astype(np.int64)
    raise DataError(f"{what} ids are of type {array.dtype}; ids are integers or strings.")


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    listed = array.tolist()
    found: dict[str, Any] = {}
    for type_ in set(map(type, listed)):
        found[_family(type_)] = next(v for v in listed if type(v) is type_)
    if len(found) > 1:
        examples = " and ".join(
            f'"{v}" (str)' if isinstance(v, str) else f"{v!r} ({type(v).__name__})"
            for _, v in sorted(found.items())
        )
        raise DataError(
            f"{what} ids mix types: {examples}. They would become different {what}s; "
            "convert the column to one type."
        )
    family = next(iter(found), "int")
    if family == "str":
        longest = max(map(len, listed))
        if longest > _LONGEST:
            raise DataError(
                f"a {what} id is {longest} characters long; at most {_LONGEST} are allowed."
            )
        return np.array(listed, dtype=np.str_)
    if family == "int":
        try:
            return np.array(listed, dtype=np.int64)
        except OverflowError:
            raise DataError(f"a {what} id does not fit into 64 signed bits.") from None
    if family == "float":
        return np.array(listed, dtype=np.float64)
    raise DataError(
        f"{what} id {found[family]!r} is of type {family}; ids are integers or strings."
    )


def _family(type_: type) -> str:
    if issubclass(type_, str):
        return "str"
    if issubclass(type_, (bool, np.bool_)):
        return "bool"
    if issubclass(type_, (int, np.integer)):
        return "int"
    if issubclass(type_, (float, np.floating)):
        return "float"
    return type_.__name__


def _parsed(strings: np.ndarray) -> np.ndarray:
    try:
        numbers = strings.astype(np.int64)
    except (ValueError, OverflowError):
        return strings
    plain = bool((numbers.astype(np.str_) == strings).all())
    return numbers if plain else strings


@final
class IdMap:
    """A two-way map between raw ids and 0..n-1, in sorted order of the raw ids.

    Integers are ordered by value and strings by code point, so the map depends on which ids occur
    and not on the order of the rows.

    Args:
        raw: integers or strings, in any order and with repeats.
        what: the word for one of them in messages.

    Raises:
        DataError: when types are mixed (see `as_ids`).

    Example:
        >>> ids = IdMap(np.array(["b", "a", "b"]))
        >>> ids.encode(["b", "zzz"])
        array([ 1, -1])
        >>> ids.decode(np.array([0]))
        array(['a'], dtype='<U1')
    """

    def __init__(self, raw: Any, *, what: str = "user") -> None:
        self.raw: np.ndarray = np.unique(as_ids(raw, what=what))
        self.raw.setflags(write=False)

    @property
    def kind(self) -> str:
        """Either "int" or "string"."""
        return "string" if self.raw.dtype.kind == "U" else "int"

    def __len__(self) -> int:
        return int(self.raw.size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdMap):
            return NotImplemented
        return self is other or (
            self.kind == other.kind and bool(np.array_equal(self.raw, other.raw))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IdMap({len(self)} {self.kind} ids)"

    def encode(self, values: Any, *, what: str = "user") -> np.ndarray:
        """Returns the number of each raw id, -1 for ids that are not in the map.

        Args:
            values: raw ids of the map's own kind.
            what: the word for one of them in messages.

        Shapes:
            returns: [len(values)] int64.

        Raises:
            DataError: when strings are asked of a map of integers, or the other way round.
        """
        ids = as_ids(values, what=what)
        if not ids.size:
            return np.zeros(0, dtype=np.int64)
        kind = "string" if ids.dtype.kind == "U" else "int"
        if kind != self.kind:
            shown = f'"{ids[0]}"' if kind == "string" else str(ids[0])
            raise DataError(
                f"{what} ids of this data are {self.kind}s, got the {kind} {shown}. "
                '1 and "1" are different ids.'
            )
        if not len(self):
            return np.full(ids.size, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.raw, ids), len(self) - 1)
        return np.where(self.raw[place] == ids, place, -1).astype(np.int64)

    def decode(self, indices: Any) -> np.ndarray:
        """Returns the raw ids behind the numbers `indices` (any shape, each within 0..n-1)."""
        numbers = np.asarray(indices, dtype=np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            wrong = int(numbers.min()) if numbers.min() < 0 else int(numbers.max())
            raise IndexError(f"no id has number {wrong}; valid numbers are 0..{len(self) - 1}.")
        decoded: np.ndarray = self.raw[numbers]
        return decoded

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the map as three plain tensors, which any tensor file format can hold.

        Shapes:
            ints: [n] int64, empty for strings; bytes: [bytes] uint8, the UTF-8 text one after the
            other; offsets: [n + 1] int64 into `bytes`, empty for integers.
        """
        none = torch.zeros(0, dtype=torch.int64)
        if self.kind == "int":
            ints = torch.from_numpy(self.raw.copy())
            return {"ints": ints, "bytes": torch.zeros(0, dtype=torch.uint8), "offsets": none}
        # lone surrogates are legal in Python strings and must survive the round trip
        encoded = [text.encode("utf-8", "surrogatepass") for text in self.raw.tolist()]
        offsets = torch.zeros(len(encoded) + 1, dtype=torch.int64)
        offsets[1:] = torch.tensor([len(text) for text in encoded], dtype=torch.int64).cumsum(0)
        joined = np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()
        return {"ints": none, "bytes": torch.from_numpy(joined), "offsets": offsets}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> IdMap:
        """Rebuilds the map from what `to_tensors` returned.

        Example:
            >>> ids = IdMap(["x", "y"])
            >>> IdMap.from_tensors(ids.to_tensors()) == ids
            True
        """
        offsets = tensors["offsets"].cpu().tolist()
        if not offsets:
            return cls(tensors["ints"].cpu().numpy())
        joined = tensors["bytes"].cpu().numpy().tobytes()
        texts = [
            joined[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(offsets)
        ]
        return cls(np.array(texts, dtype=np.str_))
