"""How long a user waits before anything happens: imports and `--help`, in fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from gnnlab.experiment import environment
from gnnlab.report import text_table

__all__ = ["run", "table"]

_TORCH = "import torch"
_COMMANDS = {
    "import torch": [sys.executable, "-c", _TORCH],
    "import torch, gnnlab": [sys.executable, "-c", f"{_TORCH}; import gnnlab"],
    "import torch, gnnlab and every public name": [
        sys.executable,
        "-c",
        f"{_TORCH}; import gnnlab; [getattr(gnnlab, n) for n in gnnlab.__all__]",
    ],
    "gnnlab --help": [sys.executable, "-m", "gnnlab", "--help"],
}


def run(repeats: int = 9) -> dict[str, Any]:
    """Runs each command in turn, `repeats` times, and returns the least wall seconds.

    Other programs only ever add time, so the least is the steadiest figure on a shared machine.

    Args:
        repeats: rounds; one more, the first, warms the file cache and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for turn in range(repeats + 1):
        for name, command in _COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    least = {name: min(values) for name, values in seconds.items()}
    torch_alone = least["import torch"]
    return {
        "kind": "startup",
        "name": "startup",
        "about": "wall time in fresh processes, commands in turn, the least of the rounds",
        "command": "gnnlab bench startup --out docs/results/startup.json",
        "environment": environment(),
        "repeats": repeats,
        "rows": [
            {
                "what": "`import gnnlab` adds to `import torch`",
                "measured": least["import torch, gnnlab"] - torch_alone,
                "target": 0.3,
            },
            {
                "what": "every public name of gnnlab adds to `import torch`",
                "measured": least["import torch, gnnlab and every public name"] - torch_alone,
                "target": 0.3,
            },
            {"what": "`gnnlab --help`", "measured": least["gnnlab --help"], "target": 0.6},
        ],
        "least": least,
    }


def table(result: dict[str, Any]) -> str:
    """Returns a result as text, in seconds."""
    return text_table(result["rows"], ["what", "measured", "target"])
