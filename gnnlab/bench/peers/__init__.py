"""The libraries that operators are compared with, one module each, imported only when asked for.

A family is built for one graph, keeps its own formats of it (they are made before anything is
timed, as ours are), and has one method per operator that it offers. The method returns calls by
label. It raises `Refused` when the library does not cover the case; other errors of a library end
up in the list of what was skipped too, with their text.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from gnnlab.bench._machine import Call, version

if TYPE_CHECKING:
    from gnnlab.bench._setting import Case, Setting

__all__ = ["FAMILIES", "PLAIN", "Family", "Refused", "calls_of", "families", "refuse_large"]

PLAIN = "plain PyG"
"""Begin of the label of what users write today: PyG's gather, multiply and scatter."""

FAMILIES = {
    "torch": ("gnnlab.bench.peers._torch", "torch", "torch"),
    "numpy": ("gnnlab.bench.peers._arrays", "numpy", "numpy"),
    "scipy": ("gnnlab.bench.peers._arrays", "scipy", "scipy"),
    "pyg": ("gnnlab.bench.peers._pyg", "torch_geometric", "torch-geometric"),
    "scatter": ("gnnlab.bench.peers._scatter", "torch_scatter", "torch-scatter"),
    "dgl": ("gnnlab.bench.peers._dgl", "dgl", "dgl"),
}
"""Name on the command line: our module, the library's module, its name for `version`."""


class Refused(Exception):
    """The library does not cover this case; the text says why."""


def refuse_large(setting: Setting, width: int, largest: int = 640) -> None:
    """Raises Refused where one array of messages alone would need more than `largest` MB."""
    if setting.e * width * 4 > largest << 20:
        raise Refused(f"an array of messages would need more than {largest} MB")


class Family(Protocol):
    """A library on one graph. Methods are named like operators: `Case.method`."""

    name: str

    def __init__(self, setting: Setting) -> None: ...


def families(names: tuple[str, ...]) -> tuple[dict[str, type[Family]], dict[str, str]]:
    """Returns the classes of what is installed, and for the rest why it is missing.

    Args:
        names: keys of `FAMILIES`.
    """
    found: dict[str, type[Family]] = {}
    missing: dict[str, str] = {}
    for name in names:
        module, library, package = FAMILIES[name]
        if version(package) is None:
            missing[name] = f"{package} is not installed"
            continue
        try:
            importlib.import_module(library)
        except Exception as error:  # a library that breaks at import must not end the run
            missing[name] = f"{package} cannot be imported: {error}"
            continue
        found[name] = getattr(importlib.import_module(module), name.capitalize())
    return found, missing


def calls_of(family: Family, case: Case) -> tuple[dict[str, Call], str | None]:
    """Returns the calls of a family for a case, and the reason when it refuses."""
    method: Any = getattr(family, case.method, None)
    if method is None:
        return {}, None
    try:
        given = method(case)
    except Refused as reason:
        return {}, str(reason)
    except Exception as error:  # the library's own limits, in its own words
        return {}, f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return {k: v if isinstance(v, Call) else Call(v) for k, v in given.items()}, None
