"""`gnnlab bench sampling`: samplers do the same job, and the page shows what was found."""

from __future__ import annotations

import json
import random

import pytest
import torch

from gnnlab.bench import sampling as bench
from gnnlab.bench.graphs import power_law
from gnnlab.bench.page import write_page
from gnnlab.cli import main


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bench, "_SIZES", {True: (3_000, 40_000)})
    monkeypatch.setattr(bench, "BATCH", 64)


def test_the_loop_over_nodes_samples_as_much_as_ours():
    """Both draw each node's neighbours once, so that the first hop has exactly as many edges."""
    graph = power_law(2_000, 30_000)
    seeds = torch.arange(0, 2_000, 40)
    ours, plain = bench._ours(graph), bench._python(graph)
    sizes = torch.tensor([[*ours(seeds, s), *plain(seeds, s)] for s in range(20)]).double()
    mean = sizes.mean(0)
    assert mean[0] == pytest.approx(mean[2].item(), rel=0.02)
    assert mean[1] == pytest.approx(mean[3].item(), rel=0.02)
    assert random.Random(0).sample(range(5, 9), 4) != [5, 6, 7, 8]


def test_a_run_fills_the_page(small, tmp_path, monkeypatch, capsys):
    fake = {
        "batches": 3,
        "seconds": 1.0,
        "graph seconds": 0.5,
        "peak GB": 1.25,
        "limit GB": 8.0,
        "threads": 1,
        "first batches": {"seconds": 0.5, "seconds without prefetching": 0.75},
    }
    monkeypatch.setattr(bench, "_epoch_apart", lambda quick: fake)  # a test of its own is below
    out = tmp_path / "results" / "sampling.json"
    with pytest.raises(SystemExit) as stop:
        main(["bench", "sampling", "--quick", "--quiet", "--out", str(out)])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "peak 1.25 GB (limit 8)" in shown
    result = json.loads(out.read_text("utf-8"))
    rows = {row["sampler"]: row for row in result["rows"]}
    assert rows["pure Python"]["ratio"] == rows["pure Python"]["ms"] / rows["gnnlab"]["ms"]
    for name in ("DGL", "PyG"):
        assert (name in rows) != (name in result["skipped"])
    page = write_page(tmp_path / "results", tmp_path / "docs" / "benchmarks.md").read_text("utf-8")
    assert "## Samplers" in page
    assert "3,000 nodes and 40,000 edges" in page
    assert "1.25 GB, wanted below 8: hit" in page
    assert f"{rows['pure Python']['ratio']:.1f}" in page


def test_an_epoch_says_what_it_took(small, monkeypatch):
    found = bench.epoch(quick=True)
    assert found["batches"] == 47
    assert 0.05 < found["peak GB"] < 8
    assert found["seconds"] > 0
