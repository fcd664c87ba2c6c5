"""The errors users meet, and the one "did you mean" that all of them share."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BudgetError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GnnlabError",
    "MissingExtraError",
    "TrainingError",
    "did_you_mean",
    "needs",
]


class GnnlabError(Exception):
    """Base of every error that gnnlab raises on purpose; its text is a sentence for the user."""


class DataError(GnnlabError, ValueError):
    """The user's data is wrong: names the file, the place and the offending value."""


class ConfigError(GnnlabError, ValueError):
    """An option is unknown or has a value it cannot have."""


class BudgetError(ConfigError):
    """A model needs more memory than the options allow; the text says how much."""


class CheckpointError(GnnlabError, ValueError):
    """A checkpoint or run folder is missing, broken, or of another task or version."""


class TrainingError(GnnlabError, RuntimeError):
    """Training cannot go on, for example because the loss is not finite."""


class MissingExtraError(GnnlabError, ImportError):
    """An optional package is needed and absent; the text says which extra brings it."""


def needs(module: str, who: str, extra: str) -> Any:
    """Returns an optional module, or says how to get it.

    Args:
        module: its full name.
        who: what needs it, as the user calls it.
        extra: the extra of gnnlab that brings it.

    Raises:
        MissingExtraError: if it is not installed.

    Example:
        >>> needs("nowhere", "Graph.to_pyg", "pyg")
        Traceback (most recent call last):
        gnnlab.errors.MissingExtraError: Graph.to_pyg needs nowhere: pip install 'gnnlab[pyg]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(f"{who} needs {package}: pip install 'gnnlab[{extra}]'") from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``' Did you mean "x"?'`` for the known word nearest to `word`, or the known words.

    Args:
        word: what the user wrote.
        known: the words that would have been right.

    Example:
        >>> did_you_mean("lightgc", ["lightgcn", "ease"])
        ' Did you mean "lightgcn"?'
        >>> did_you_mean("zzz", ["b", "a"])
        ' Known: a, b.'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f' Did you mean "{near[0]}"?'
    return f" Known: {', '.join(names)}." if names else ""
