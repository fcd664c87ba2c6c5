"""Where data sets and the cache lie: what GNNLAB_DATA and GNNLAB_CACHE say, in one place."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "data_folders"]


def cache_folder() -> Path:
    """Returns the user's cache: $GNNLAB_CACHE, or ~/.cache/gnnlab."""
    chosen = os.environ.get("GNNLAB_CACHE")
    return Path(chosen or "~/.cache/gnnlab").expanduser()


def data_folders(*parts: str) -> list[Path]:
    """Returns the folders that are searched for data, in order.

    Args:
        parts: names of the part inside $GNNLAB_DATA; the last is also that of the cache.

    Example:
        >>> data_folders("graphs")[-1] == cache_folder() / "graphs"
        True
    """
    shared = os.environ.get("GNNLAB_DATA")
    found = [*(Path(shared) / part for part in parts), Path(shared)] if shared else []
    return [*found, cache_folder() / parts[-1]]
