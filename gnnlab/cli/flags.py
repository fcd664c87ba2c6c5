"""Flags from option dataclasses and from the keywords of `predict`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["flag", "keyword_flags", "option_flags", "with_flags"]


def flag(
    name: str, kind: Any, text: str, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    """Returns a keyword-only flag with its help text."""
    spread = str(kind).startswith("tuple")
    settings = Parameter(help=text, negative="", consume_multiple=spread)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, settings]
    )


def option_flags(cls: Any) -> list[inspect.Parameter]:
    """One flag for each field of the task's options and of the loop's."""
    from gnnlab import config as options
    from gnnlab.train import TrainConfig

    flags = []
    for owner in (cls.Config, TrainConfig):
        docs, hints = options.describe(owner), options.hints(owner)
        for name, hint in hints.items():
            default = getattr(owner, name, None)
            flags.append(flag(name, hint, docs.get(name, ""), default))
    return flags


def keyword_flags(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """One flag for each keyword of a task's `predict`, documented by its docstring."""
    import typing

    import docstring_parser

    docs = {
        p.arg_name: p.description
        for p in docstring_parser.parse(inspect.getdoc(function) or "").params
    }
    hints = typing.get_type_hints(function)
    flags = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kind = _flag_type(hints[name])
            flags.append(flag(name, kind, docs.get(name) or "", parameter.default))
    return flags


def _flag_type(hint: Any) -> Any:
    """Sequences of anything are lists of text on a command line."""
    return tuple[str, ...] | None if "Sequence" in str(hint) else hint


def with_flags(
    function: Callable[..., int], flags: Sequence[inspect.Parameter]
) -> Callable[..., int]:
    """Gives `function` the flags as its signature, which is what cyclopts reads."""
    function.__signature__ = inspect.Signature(list(flags), return_annotation=int)  # type: ignore[attr-defined]
    function.__annotations__ = {f.name: f.annotation for f in flags}
    return function
