"""The 152 classical job shops by name: best known makespans, where files lie, how to get them.

The instances themselves do not come with gnnlab. They are files `instances/<name>.txt` in one of
the `folders()`; `fetch` brings them from their public source, number by number the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gnnlab.errors import DataError, did_you_mean
from gnnlab.folders import data_folders
from gnnlab.tasks.dispatch._published import PUBLISHED
from gnnlab.tasks.dispatch.files import parse_instances, read_instance, standard_text
from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance

__all__ = [
    "CLASSICAL",
    "Published",
    "expand",
    "fetch",
    "find",
    "folders",
    "load",
    "published",
]

CLASSICAL: tuple[str, ...] = tuple(PUBLISHED)
SOURCE = "https://raw.githubusercontent.com/tamy0612/JSPLIB/master/instances"
_RANGE = re.compile(r"([a-z]+)([0-9]+)-(?:([a-z]+))?([0-9]+)")
_SIZE = re.compile(r"([0-9]+)x([0-9]+)")


@dataclass(frozen=True)
class Published:
    """What is known about a classical instance; makespans in its unit of time."""

    name: str
    """Its name."""
    jobs: int
    """J."""
    machines: int
    """M."""
    lower_bound: int
    """No schedule with buffers is shorter."""
    upper_bound: int
    """Makespan of the best known schedule with buffers."""
    blocking_lower_bound: int
    """No schedule without buffers, swaps allowed, is shorter."""
    blocking_upper_bound: int
    """Makespan of the best known schedule without buffers, swaps allowed."""
    sha256: str
    """Hash of its normal form, as `standard_text` returns it."""

    @property
    def optimal(self) -> bool:
        """Whether the best known schedule with buffers is proved optimal."""
        return self.lower_bound == self.upper_bound

    @property
    def blocking_optimal(self) -> bool:
        """Whether the best known schedule without buffers is proved optimal."""
        return self.blocking_lower_bound == self.blocking_upper_bound

    def best(self, mode: str) -> int | None:
        """Returns the best known makespan of a mode; None for "bns", where none is published.

        Args:
            mode: "jssp", "bws" or "bns".
        """
        return {"jssp": self.upper_bound, "bws": self.blocking_upper_bound}.get(mode)


def published(name: str) -> Published:
    """Returns what is known about a classical instance.

    Args:
        name: one of `CLASSICAL`.

    Raises:
        DataError: for another name.

    Example:
        >>> published("ft06").upper_bound, published("ft06").blocking_upper_bound
        (55, 63)
    """
    if name not in PUBLISHED:
        raise DataError(f'there is no classical instance "{name}".{_nearest(name)}')
    return Published(name, *PUBLISHED[name])


def expand(names: str | Iterable[str]) -> list[str]:
    """Returns the names that a list of names, ranges and families stands for, without repeats.

    Args:
        names: separated by commas: a name (`ft06`), a range (`la01-05`), a family (`la`), a family
            and a size (`ta 15x15`), a pattern (`la*`), or `classical` for all 152.

    Raises:
        DataError: for a part that stands for nothing.

    Example:
        >>> expand("ft06, la01-03")
        ['ft06', 'la01', 'la02', 'la03']
        >>> len(expand("ta 15x15")), len(expand("classical"))
        (10, 152)
    """
    parts = names.split(",") if isinstance(names, str) else list(names)
    found: dict[str, None] = {}
    for part in parts:
        text = " ".join(part.split())
        matches = _expand_one(text)
        if not matches:
            raise DataError(
                f'"{text}" stands for no classical instance.{_nearest(text)} '
                'Examples: "ft06", "la01-05", "ta 15x15", "la*", "classical".'
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def folders() -> list[Path]:
    """Returns the folders that are searched, in order: $GNNLAB_DATA, then the user's cache."""
    return data_folders("scheduling", "dispatch")


def find(name: str) -> Path:
    """Returns the file of a classical instance.

    Args:
        name: one of `CLASSICAL`.

    Raises:
        DataError: for another name, or when no folder holds the file; says how to get it.
    """
    published(name)
    for folder in folders():
        for path in (folder / "instances" / f"{name}.txt", folder / f"{name}.txt"):
            if path.is_file():
                return path
    raise DataError(
        f'instance "{name}" is not on this machine: no instances/{name}.txt in '
        f"{', '.join(map(str, folders()))}. fetch() gets all 152 from {SOURCE}, or set GNNLAB_DATA."
    )


def load(name: str) -> JobShopInstance:
    """Reads a classical instance from where it lies, and checks that it is the published one.

    Args:
        name: one of `CLASSICAL`.

    Raises:
        DataError: when it is not on this machine, or its content is another.
    """
    path = find(name)
    instance = read_instance(path)
    if _hash(instance) != published(name).sha256:
        raise DataError(f"{path}: is not the published {name}: its numbers differ.")
    return instance


def fetch(
    names: str = "classical", *, download: Callable[[str], bytes] | None = None
) -> list[Path]:
    """Downloads classical instances into the user's cache, and keeps those that are as published.

    What is there already and right is not downloaded again.

    Args:
        names: as `expand` takes them.
        download: returns the content of an address; None asks the network.

    Returns:
        the files, one per name.

    Raises:
        DataError: for an unknown name, a source that does not answer, or content that differs from
            the published one; nothing of that instance is kept then.
    """
    get = download or _download
    target = folders()[-1] / "instances"
    return [_fetch_one(name, target / f"{name}.txt", get) for name in expand(names)]


def _fetch_one(name: str, path: Path, get: Callable[[str], bytes]) -> Path:
    sha256 = published(name).sha256
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    address = f"{SOURCE}/{name}"
    try:
        (instance,) = parse_instances(get(address), name, "standard")
    except InstanceError as error:
        raise DataError(f"{address} holds no job shop: {error}") from None
    if _hash(instance) != sha256:
        raise DataError(
            f"{address} is not the {name} that gnnlab knows: its numbers differ. Nothing was kept."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(standard_text(instance).encode())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _download(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"cannot fetch {address}: {reason}.") from None
    return content


def _hash(instance: JobShopInstance) -> str:
    return hashlib.sha256(standard_text(instance).encode()).hexdigest()


def _expand_one(text: str) -> list[str]:
    if text in PUBLISHED:
        return [text]
    if text in ("classical", "all"):
        return list(CLASSICAL)
    family, _, size = text.partition(" ")
    if size and (match := _SIZE.fullmatch(size)):
        wanted = (int(match[1]), int(match[2]))
        return [n for n in CLASSICAL if _family(n) == family and PUBLISHED[n][:2] == wanted]
    if match := _RANGE.fullmatch(text):
        first, last = int(match[2]), int(match[4])
        if match[3] not in (None, match[1]):
            return []
        members = {int(n[len(match[1]) :]): n for n in CLASSICAL if _family(n) == match[1]}
        wanted_names = [members.get(i, "") for i in range(first, min(last, 999) + 1)]
        return wanted_names if all(wanted_names) and last <= 999 else []
    if "*" in text or "?" in text:
        return [n for n in CLASSICAL if fnmatchcase(n, text)]
    return [n for n in CLASSICAL if _family(n) == text]


def _family(name: str) -> str:
    return name.rstrip("0123456789")


def _nearest(name: str) -> str:
    guess = did_you_mean(name, CLASSICAL)
    families = ", ".join(dict.fromkeys(map(_family, CLASSICAL)))
    return guess if guess.startswith(" Did") else f" Families: {families}."
