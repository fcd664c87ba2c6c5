"""The section of the benchmark page about samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnnlab.bench._text import number, verdict
from gnnlab.report import markdown_table

__all__ = ["section"]

_ABOUT = """{nodes:,} nodes and {edges:,} edges by a power law; {batch:,} seeds per batch, fanouts
{fanouts}, without replacement. Samplers take turns on the same batches, on one thread; milliseconds
are CPU time, the median of {batches} batches. What comes out is renumbered blocks with the ids of
their edges. "Pure Python" is a loop over nodes on a CSR matrix with `random.sample`, which is what
is left to PyG's users without its compiled extensions: its own sampler refuses without them. DGL
draws neighbours anew for the nodes of earlier hops, gnnlab keeps those that they have."""
_EPOCH = """One epoch over all nodes ({batches} batches) of a two-layer GraphSAGE (64 features, 64
hidden units): {seconds:.0f} s on {threads} after {graph:.0f} s for making and sorting the
graph. Peak memory of the whole process: {peak:.2f} GB, wanted below {limit:g}: {verdict}. The first
batches take {ahead:.1f} s, without prefetching {alone:.1f} s."""
_CLUSTERS = """Share of the edges between parts of about 500 nodes, which cluster batches leave out:
random parts, `gnnlab.ops.partition` ("stream"), and METIS where it is installed."""


def section(result: Mapping[str, Any], made_by: str) -> str:
    """Returns the section as Markdown.

    Args:
        result: what `gnnlab.bench.sampling.run` returned.
        made_by: command, machine and versions, as Markdown.
    """
    graph, trained = result["graph"], result["epoch"]
    peers = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    parts = [
        "## Samplers",
        _ABOUT.format(
            nodes=graph["nodes"],
            edges=graph["edges"],
            batch=result["batch_size"],
            fanouts=" and ".join(map(str, result["fanouts"])),
            batches=graph["batches"],
        ),
        made_by + (f"\n- peers: {peers}" if peers else ""),
        markdown_table(_rows(result), ["sampler", "ms", "nodes", "edges", "ratio", "target", ""]),
        *(f"Not measured: {name} ({why})." for name, why in result["skipped"].items()),
        _EPOCH.format(
            batches=trained["batches"],
            seconds=trained["seconds"],
            threads=f"{trained['threads']} thread" + "s" * (trained["threads"] > 1),
            graph=trained["graph seconds"],
            peak=trained["peak GB"],
            limit=trained["limit GB"],
            verdict=verdict(trained["peak GB"] < trained["limit GB"]),
            ahead=trained["first batches"]["seconds"],
            alone=trained["first batches"]["seconds without prefetching"],
        ),
        _CLUSTERS,
    ]
    shares = [
        {key: f"{v:.3f}" if isinstance(v, float) else v for key, v in row.items()}
        for row in result["clusters"]
    ]
    parts.append(markdown_table(shares, list(shares[0])))
    return "\n\n".join(parts) + "\n"


def _rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for row in result["rows"]:
        ratio, target = row["ratio"], row["target"]
        known = ratio is not None and target is not None
        rows.append(
            {
                "sampler": row["sampler"],
                "ms": f"{row['ms']:.2f}",
                "nodes": f"{row['nodes']:,}",
                "edges": f"{row['edges']:,}",
                "ratio": number(ratio, 1),
                "target": number(target, 0),
                "": verdict(ratio >= target) if known else "-",
            }
        )
    return rows
