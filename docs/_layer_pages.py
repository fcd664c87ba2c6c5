"""Writes what the layers' pages need before they are built: pictures, and what each layer takes.

The table holds what `gnnlab list layers --json` says, and from `results/layers.json` how much
faster a layer is on a `Graph` than on an edge_index, which it must sort in every call.
"""

from __future__ import annotations

import json
from pathlib import Path

import _pictures

from gnnlab import layers
from gnnlab.bench.layers import reuse
from gnnlab.catalog import catalog
from gnnlab.report import markdown_table

COLUMNS = {
    "edge weights": "edge_weight",
    "edge features": "edge_attr",
    "bipartite": "bipartite",
    "several sets of edges": "edge_sets",
    "types of edges": "edge_type",
    "heterogeneous": "heterogeneous",
}


def write(docs: Path) -> None:
    """Writes pictures to `images/layers` and the table to `api/_layer_table.txt`."""
    for name in layers.__all__:
        words = getattr(getattr(layers, name), "picture", ())
        if words:
            _pictures.write(name, words, docs / "images" / "layers")
    path, text = docs / "api" / "_layer_table.txt", table(docs / "results" / "layers.json")
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def table(results: Path) -> str:
    """Returns the table of convolutions as Markdown."""
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"] if results.is_file() else []
    faster = reuse(rows)
    lines = []
    for row in catalog("layers"):
        if row["kind"] != "convolution":
            continue
        line = {"layer": f"`{row['name']}`"}
        for title, word in COLUMNS.items():
            line[title] = "yes" if word in row["takes"] else ""
        line["compiles whole"] = "yes" if row["compiles"] else "no"
        ratio = faster.get(row["name"])
        line["Graph over edge_index"] = "" if ratio is None else f"{ratio:.1f}x"
        lines.append(line)
    return markdown_table(lines, list(lines[0])) + "\n"
