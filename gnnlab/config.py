"""Options: dataclasses in Python, TOML in files, flags on the command line, one meaning.

Precedence: defaults < what a model or preset implies < file < command line. Options of the task and
of the training loop live side by side in one flat name space.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from gnnlab.errors import ConfigError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["build", "describe", "hints", "implying", "merge", "plain", "read_toml", "write_toml"]

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Builds the dataclass `cls` from plain values: TOML tables, JSON objects, strings.

    Args:
        cls: a keyword-only dataclass.
        values: field name -> value; strings are read as the field's type, "none" as None.
        where: where the values come from, for the error text (" in my.toml").

    Raises:
        ConfigError: for an unknown key (with the nearest known one) or a value of another type.

    Example:
        >>> from gnnlab.train import TrainConfig
        >>> build(TrainConfig, {"epochs": "3"}).epochs
        3
    """
    known = hints(typing.cast(type, cls))
    for key in values:
        if key not in known:
            raise ConfigError(f'unknown key "{key}"{where}.{did_you_mean(key, known)}')
    return cls(**{k: _coerce(v, known[k], k, where) for k, v in values.items()})


def merge(classes: Iterable[type], explicit: Mapping[str, Any], *, where: str = "") -> list[Any]:
    """Builds several option classes from one flat set of values.

    A class may have a classmethod `implied(values)` that returns weaker defaults for any of the
    classes, for example what a preset stands for.

    Args:
        classes: dataclasses that share no field name.
        explicit: what the user wrote (file, then command line over it).
        where: for error texts, see `build`.
    """
    classes = list(classes)
    owner = {key: cls for cls in classes for key in hints(cls)}
    for key in explicit:
        if key not in owner:
            raise ConfigError(f'unknown key "{key}"{where}.{did_you_mean(key, owner)}')
    values: dict[str, Any] = {}
    for cls in classes:
        values.update(getattr(cls, "implied", lambda _: {})(explicit))
    values.update(explicit)
    return [
        build(c, {k: v for k, v in values.items() if owner[k] is c}, where=where) for c in classes
    ]


def implying(cls: type[T]) -> type[T]:
    """Class decorator: a dataclass whose weaker defaults depend on what is given.

    The class has a classmethod `implied(values)`, for example what the choice of a preset stands
    for; those of its own fields that the caller does not give take the implied values.

    Example:
        >>> from gnnlab.tasks import Recommend
        >>> Recommend.Config(model="lightgcn").layers
        3
        >>> Recommend.Config(model="lightgcn", layers=1).layers
        1
    """
    plain_init = cls.__init__
    own = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @functools.wraps(plain_init)
    def init(self: Any, **given: Any) -> None:
        implied = {k: v for k, v in cls.implied(given).items() if k in own}  # type: ignore[attr-defined]
        plain_init(self, **{**implied, **given})

    cls.__init__ = init  # type: ignore[method-assign]
    return cls


@cache
def hints(cls: type) -> dict[str, Any]:
    """Returns field name -> resolved type of a dataclass."""
    resolved = typing.get_type_hints(cls)
    return {f.name: resolved[f.name] for f in dataclasses.fields(cls) if f.init}


@cache
def describe(cls: type) -> dict[str, str]:
    """Returns field name -> the doc line written under the field in the source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # made by exec, or in a shell
        return {}
    body = tree.body[0].body  # type: ignore[attr-defined]
    found: dict[str, str] = {}
    for field, doc in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr)
            and isinstance(doc.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(doc.value.value).split())
    return found


def read_toml(path: str | Path) -> dict[str, Any]:
    """Reads a TOML file; ConfigError when it is missing or malformed."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"no such file: {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not readable TOML: {error}.") from None


def write_toml(path: str | Path, values: Mapping[str, Any]) -> None:
    """Writes values as TOML; None becomes "none", which `build` reads back as None."""
    import tomli_w

    Path(path).write_text(tomli_w.dumps(plain(values)), encoding="utf-8")


def plain(value: Any) -> Any:
    """Returns `value` as TOML and JSON both hold it: tuples as lists, None as "none"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return "none" if value is None else value


def _coerce(value: Any, hint: Any, key: str, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if type(None) in options and (value is None or value == "none"):
            return None
        options = tuple(o for o in options if o is not type(None))
        if len(options) == 1 and (
            typing.get_args(options[0]) or dataclasses.is_dataclass(options[0])
        ):
            return _coerce(value, options[0], key, where)  # its own sentence says more
        for option in options:
            try:
                return _coerce(value, option, key, where)
            except ConfigError:
                continue
    elif origin is typing.Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return value
        near = did_you_mean(str(value), [str(a) for a in allowed])
        raise ConfigError(f'{key} is "{value}"{where}, which it cannot be.{near}')
    elif origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = list(items) if isinstance(items, (list, tuple)) else [items]
        return tuple(_coerce(v, typing.get_args(hint)[0], key, where) for v in items)
    elif dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return build(typing.cast(type, hint), value, where=f" under {key}{where}")
        if isinstance(value, typing.cast(type, hint)):
            return value
    else:
        found = _scalar(value, hint)
        if found is not None:
            return found
    raise ConfigError(f"{key} is {value!r}{where}; expected {_name(hint)}.")


def _scalar(value: Any, hint: Any) -> Any:
    if hint is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}.get(value)
    if isinstance(value, bool):
        return None
    if hint is str:
        return value if isinstance(value, str) else None
    if hint in (int, float) and isinstance(value, (int, float, str)):
        try:
            number = hint(value)
        except (ValueError, OverflowError):
            return None
        exact = number == value if isinstance(value, float) else number == number  # no NaN
        return number if exact else None
    return None


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"a list of {_name(typing.get_args(hint)[0])}s"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_name(a) for a in typing.get_args(hint))
    if hint is type(None):
        return "none"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'"{a}"' for a in typing.get_args(hint))
    return names.get(hint, getattr(hint, "__name__", str(hint)))
