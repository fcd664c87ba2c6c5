"""Names of graphs and peers, as users give them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gnnlab.errors import ConfigError

__all__ = ["known_names"]


def known_names(what: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Returns the names; ConfigError for one that is not known."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise ConfigError(f'unknown {what} "{name}". Known: {", ".join(known)}.')
    return tuple(names)
