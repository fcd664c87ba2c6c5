"""What the rows of `gnnlab bench layers` say: ratios, verdicts, and cells of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gnnlab.bench._layer_cases import ATTENTION
from gnnlab.bench._text import number
from gnnlab.bench.targets import geometric_mean

__all__ = [
    "DGL",
    "PYG",
    "SCATTER",
    "TARGETS",
    "UNSORTED",
    "epochs_of",
    "layers_of",
    "reuse",
    "rows_of",
    "summary",
    "verdicts",
    "without_rewritten",
]

TARGETS = {"PyG": 4.0, "DGL": 2.0, "least": 1.0, "memory": 1 / 3}
"""Geometric means over layers and graphs; least ratio to PyG; memory of attention on graph a."""

PYG, SCATTER, DGL = "PyG", "PyG, torch_scatter", "DGL"
UNSORTED = "gnnlab, edge_index"  # ours when it must sort the edges in every call


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the rows say beside the targets.

    A ratio is the peer's time over ours; to PyG the faster of its two forms counts.

    Returns:
        "layers": one dict per layer with geometric means and least ratios; "PyG", "DGL": geometric
        means over all rows; "least": the least ratio to PyG with its layer and graph; "memory": our
        peak over PyG's, for attention layers on graph a.
    """
    lines: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["layer"] for row in rows):
        mine = [row for row in rows if row["layer"] == name]
        line: dict[str, Any] = {"layer": name}
        for peer in ("PyG", "DGL"):
            found = [r for row in mine if (r := _ratio(row, peer)) is not None]
            line[peer] = geometric_mean(found) if found else None
            line[f"{peer} least"] = min(found, default=None)
        lines.append(line)
    every = {p: [r for row in rows if (r := _ratio(row, p)) is not None] for p in ("PyG", "DGL")}
    least = [(r, row["layer"], row["graph"]) for row in rows if (r := _ratio(row, "PyG"))]
    memory = {
        row["layer"]: _memory(row)
        for row in rows
        if row["layer"] in ATTENTION and row["graph"].startswith("a ") and _memory(row)
    }
    return {
        "layers": lines,
        **{peer: geometric_mean(found) if found else None for peer, found in every.items()},
        "least": min(least, default=None),
        "memory": memory,
    }


def reuse(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns by class how much faster a layer is on a `Graph` than on an edge_index.

    Args:
        rows: "rows" of the result of `run`; geometric means over them.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if UNSORTED in row["ms"]:
            found.setdefault(row["class"], []).append(row["ms"][UNSORTED] / row["ms"]["gnnlab"])
    return {name: geometric_mean(ratios) for name, ratios in found.items()}


def _ratio(row: Mapping[str, Any], peer: str) -> float | None:
    times = [t for name, t in row["ms"].items() if name.startswith(peer)]
    return min(times) / row["ms"]["gnnlab"] if times else None


def _memory(row: Mapping[str, Any]) -> float | None:
    peaks = [m for name, m in row.get("mb", {}).items() if name.startswith("PyG") and m]
    return row["mb"]["gnnlab"] / min(peaks) if peaks and row["mb"]["gnnlab"] else None


_REWRITTEN = ("NNConv", "EdgeConv, linear")  # by factors, since no message is left


def without_rewritten(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the geometric means are without the layers whose equations are rewritten."""
    found = summary([row for row in rows if row["layer"] not in _REWRITTEN])
    means = [f"{found[peer]:.2f} ({peer})" for peer in ("PyG", "DGL") if found[peer] is not None]
    return f"without {' and '.join(_REWRITTEN)}, whose equations are rewritten: {', '.join(means)}"


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """Returns a sentence per target of `summary`."""
    parts = [
        f"geometric mean over layers and graphs, {peer}'s time over ours: "
        f"{found[peer]:.2f}, target {TARGETS[peer]:g}: {_hit(found[peer] >= TARGETS[peer])}"
        for peer in ("PyG", "DGL")
        if found[peer] is not None
    ]
    if found["least"] is not None:
        ratio, layer, graph = found["least"]
        parts.append(
            f"least ratio to PyG: {ratio:.2f} ({layer} on {graph}), target "
            f"{TARGETS['least']:g}: {_hit(ratio >= TARGETS['least'])}"
        )
    if found["memory"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in found["memory"].items())
        parts.append(
            f"our peak memory over PyG's on the power-law graph: {shares}, target "
            f"{TARGETS['memory']:.2f}: {_hit(max(found['memory'].values()) <= TARGETS['memory'])}"
        )
    return parts


def _hit(reached: bool) -> str:
    return "hit" if reached else "miss"


def rows_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows as cells: milliseconds, ratios and peak memory."""
    cells = []
    for row in rows:
        ms, mb = row["ms"], row.get("mb", {})
        cells.append(
            {
                "layer": row["layer"],
                "graph": row["graph"],
                "ms": number(ms["gnnlab"]),
                **{f"{p} ms": number(ms.get(p)) for p in (PYG, SCATTER, DGL)},
                "to PyG": number(_ratio(row, "PyG")),
                "to DGL": number(_ratio(row, "DGL")),
                "MB": number(mb.get("gnnlab"), 0),
                **{f"{p} MB": number(mb.get(p), 0) for p in (PYG, DGL)},
            }
        )
    kept = [c for c in cells[0] if any(row[c] != "-" for row in cells)]
    return [{c: row[c] for c in kept} for row in cells]


def epochs_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the epochs as cells."""
    return [
        {
            "model": row["model"],
            "ms": number(row["ms"]["gnnlab"]),
            **{f"{p} ms": number(row["ms"].get(p)) for p in (PYG, SCATTER, DGL)},
            "to PyG": number(_ratio(row, "PyG")),
            "to DGL": number(_ratio(row, "DGL")),
        }
        for row in rows
    ]


def layers_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the layers of `summary` as cells."""
    return [
        {
            "layer": line["layer"],
            "to PyG": number(line["PyG"]),
            "least": number(line["PyG least"]),
            "to DGL": number(line["DGL"]),
            "least to DGL": number(line["DGL least"]),
        }
        for line in found["layers"]
    ]
