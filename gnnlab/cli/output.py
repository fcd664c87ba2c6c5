"""How the commands speak: JSON and tables on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["Json", "Quiet", "print_json", "say", "short"]

Json = Annotated[bool, Parameter(negative="", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, Parameter(negative="", help="No progress on stderr.")]


def print_json(value: Any) -> None:
    """Prints one JSON document on stdout; numbers that JSON has no word for become null."""
    print(json.dumps(_finite(value)))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def short(value: Any) -> str:
    """Returns a value on one line, for people."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


def say(text: str) -> None:
    """Prints a line for people on stderr."""
    print(text, file=sys.stderr)
