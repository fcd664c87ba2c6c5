"""The section of the benchmark page about layers: verdicts first, then a table per graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnlab.bench._layers_summary import (
    epochs_of,
    layers_of,
    rows_of,
    summary,
    verdicts,
    without_rewritten,
)
from gnnlab.report import markdown_table

__all__ = ["section"]

_ABOUT = """A training step of one layer of 64 features (NNConv: 16): forward and backward, with
gradients of the features and of all weights, on one thread (CPU time). All libraries have the same
weights, and result and gradient were compared with ours before anything was timed. Peers keep their
own formats of the graph; PyG counts with the faster of its two forms, with and without
torch_scatter, and with `cached=True` where it has that. The ratio is the peer's time over ours; MB
is the peak that a step adds to the process."""


def section(result: Mapping[str, Any], made_by: str) -> str:
    """Returns the section as Markdown.

    Args:
        result: what `gnnlab.bench.layers.run` returned.
        made_by: command, machine and versions, as Markdown.
    """
    peers = ", ".join(f"{name} {v}" for name, v in result["machine"]["versions"].items())
    found = summary(result["rows"])
    lines = layers_of(found)
    parts = [
        "## Layers",
        _ABOUT,
        f"{made_by}\n- peers: {peers}",
        "\n".join(f"- {line}" for line in [*verdicts(found), without_rewritten(result["rows"])]),
        markdown_table(lines, list(lines[0])),
    ]
    cells = epochs_of(result.get("epochs", ()))
    if cells:
        parts.append(
            "A training epoch of two layers on Cora with its 1,433 features, Adam included:"
        )
        parts.append(markdown_table(cells, list(cells[0])))
        parts += [
            f"Epochs are from `{part['command']}`, commit {part['git_commit']}."
            for part in result.get("parts", ())
            if "command" in part
        ]
    for graph in dict.fromkeys(row["graph"] for row in result["rows"]):
        cells = rows_of([row for row in result["rows"] if row["graph"] == graph])
        columns = [c for c in cells[0] if c != "graph"]
        parts += [f"### Layers on graph {graph}", markdown_table(cells, columns)]
    reasons: dict[str, list[str]] = {}
    for name, why in result["skipped"].items():
        reasons.setdefault(why, []).append(name)
    if reasons:
        parts.append("Not compared:")
        parts.append("\n".join(f"- {'; '.join(n)}: {why}" for why, n in reasons.items()))
    if result["errors"]:
        parts.append("Not timed, because results differ from ours:")
        parts.append("\n".join(f"- {name}: {why}" for name, why in result["errors"].items()))
    return "\n\n".join(parts) + "\n"
