"""`gnnlab bench neighbors`: both libraries do the same job, and the page shows what was found."""

from __future__ import annotations

import json

import pytest
import torch

from gnnlab.bench import neighbors as bench
from gnnlab.bench.page import write_page
from gnnlab.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch):
    pytest.importorskip("scipy", reason="scipy is not installed")
    monkeypatch.setattr(bench, "_SIZES", {True: ((300, 2),)})


def test_a_run_fills_the_page(tmp_path, capsys):
    out = tmp_path / "results" / "neighbors.json"
    with pytest.raises(SystemExit) as stop:
        main(["bench", "neighbors", "--quick", "--quiet", "--out", str(out)])
    assert stop.value.code == 0
    assert "scipy ms" in capsys.readouterr().out
    result = json.loads(out.read_text("utf-8"))
    assert [(row["search"], row["dimensions"]) for row in result["rows"]] == [
        ("radius", 2),
        ("knn", 2),
        ("radius", 3),
        ("knn", 3),
    ]
    for row in result["rows"]:
        assert row["ratio"] == min(row["scipy"].values()) / row["ms"]
        if row["search"] == "knn":
            assert row["edges"] == 300 * bench.NEIGHBORS
    page = write_page(tmp_path / "results", tmp_path / "docs" / "benchmarks.md").read_text("utf-8")
    assert "## Neighbour searches" in page
    assert "| knn | 3 | 300 | 4,800 |" in " ".join(page.split())


def test_a_wrong_edge_stops_the_run(monkeypatch):
    right = bench.radius_graph
    monkeypatch.setattr(bench, "radius_graph", lambda x, r: right(x, r).roll(1, 1)[:, 1:])
    with pytest.raises(AssertionError, match="found other edges"):
        bench.run(quick=True)
    assert torch.get_num_threads() >= 1
