"""`gnnlab bench layers` and `accuracy`: equality first, absent peers named, verdicts counted."""

import json

import pytest
import torch

from gnnlab.bench import accuracy, layers as bench
from gnnlab.bench._mutag import folds_of
from gnnlab.bench.graphs import mesh, small_graphs
from gnnlab.bench.page import write_page
from gnnlab.bench.real_graphs import find, structure
from gnnlab.cli import main
from gnnlab.errors import ConfigError, DataError


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Tiny graphs, and no data of others."""
    monkeypatch.setenv("GNNLAB_DATA", str(tmp_path))
    monkeypatch.setenv("GNNLAB_CACHE", str(tmp_path))
    makers = {"b": lambda: mesh(9, 7), "d": lambda: small_graphs(4, 9, 12)}
    monkeypatch.setattr(bench, "all_graphs", lambda quick: makers)


def test_layers_are_compared_with_pyg_before_they_are_timed(small, tmp_path, capsys):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    words = ["bench", "layers", "--quick", "--compare", "pyg", "--out", str(tmp_path / "l.json")]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--quiet"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "geometric mean over layers and graphs, PyG's time over ours" in text
    assert "skipped cora: no cora.npz in" in text
    result = json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))
    assert not result["errors"]
    rows = {(row["layer"], row["graph"]): row for row in result["rows"]}
    assert {"GCN", "GAT", "transformer, edges", "NNConv", "RGCN", "HGT", "SignedConv"} <= {
        layer for layer, _ in rows
    }
    assert set(rows["GAT", "b mesh"]["ms"]) == {"gnnlab", "gnnlab, edge_index", "PyG"}
    page = write_page(tmp_path, tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "### Layers on graph b mesh" in page


def test_a_peer_that_gives_something_else_is_not_timed(small, monkeypatch):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")

    def wrong(name, case, setting, layer, x, given):
        return {"PyG": (layer, lambda: layer(x, setting.edges) * 2)}

    monkeypatch.setattr(bench, "_peer", wrong)
    result = bench.run(quick=True, compare="pyg", graphs=["b"], only="SAGE mean")
    assert result["errors"]["PyG, SAGE mean on b mesh"].startswith("result differs by")
    assert set(result["rows"][0]["ms"]) == {"gnnlab", "gnnlab, edge_index"}
    assert "ERROR PyG, SAGE mean on b mesh" in bench.table(result)


def test_verdicts_count_the_faster_form_of_pyg():
    rows = [
        {
            "layer": "GAT",
            "class": "GATConv",
            "graph": "a power-law",
            "ms": {
                "gnnlab": 2.0,
                "gnnlab, edge_index": 3.0,
                "PyG": 32.0,
                "PyG, torch_scatter": 8.0,
            },
            "mb": {"gnnlab": 1.0, "PyG": 10.0, "PyG, torch_scatter": 2.0},
        },
        {"layer": "GIN", "class": "GINConv", "graph": "b", "ms": {"gnnlab": 4.0, "PyG": 1.0}},
    ]
    found = bench.summary(rows)
    assert found["PyG"] == pytest.approx(1.0)
    assert found["DGL"] is None
    assert found["least"] == (0.25, "GIN", "b")
    assert found["memory"] == {"GAT": 0.5}
    assert [line.rpartition(": ")[2] for line in bench.verdicts(found)] == ["miss"] * 3
    assert bench.reuse(rows) == {"GATConv": 1.5}


def test_unknown_names_are_errors(small):
    with pytest.raises(ConfigError, match=r'unknown graphs "cake". Known: b, d, cora, pubmed'):
        bench.run(graphs=["cake"])
    with pytest.raises(ConfigError, match=r'unknown peers "jraph". Known: pyg, scatter, dgl'):
        bench.run(compare="jraph")
    with pytest.raises(
        ConfigError, match=r'unknown model "MLP". Known: GCN; GAT; APPNP; GIN, fixed; G'
    ):
        accuracy.run(only="MLP")
    with pytest.raises(DataError, match=r"no cora.npz in .*Set GNNLAB_DATA"):
        find("cora")
    assert "no pubmed_structure.npz" in structure("pubmed")


def write_cora(folder):
    """Writes a graph of two classes that features tell apart, in the form of the real file."""
    import numpy as np

    random, n = np.random.default_rng(0), 60
    y = np.arange(n) % 2
    columns = np.stack([y, 2 + y + 2 * random.integers(0, 2, n)], 1)
    edges = random.integers(0, n, (200, 2))
    edges = edges[(edges[:, 0] < edges[:, 1]) & (y[edges[:, 0]] == y[edges[:, 1]])]
    np.savez(
        folder / "cora.npz",
        x_indptr=np.arange(0, 2 * n + 1, 2),
        x_indices=columns.reshape(-1),
        x_data=np.ones(2 * n, np.float32),
        x_shape=np.array([n, 6]),
        y=y,
        edges=edges,
        train_idx=np.arange(20),
        val_idx=np.arange(20, 40),
        test_idx=np.arange(40, 60),
    )


@pytest.mark.parametrize("name", ["GCN", "GAT", "APPNP"])
def test_models_learn_what_features_and_edges_say(small, tmp_path, name):
    write_cora(tmp_path)
    threads = torch.get_num_threads()
    row = accuracy.run(quick=True, only=name, seeds=1)["rows"][0]
    assert row["test"] >= 90
    assert len(row["runs"]) == 1
    assert torch.get_num_threads() == threads
    assert accuracy.cells([row])[0]["wanted"] == f"{accuracy.PUBLISHED[name][0]:g} ± " + (
        f"{accuracy.PUBLISHED[name][1]:g}"
    )


def test_an_epoch_on_cora_has_the_same_loss_everywhere(small, tmp_path):
    pytest.importorskip("torch_geometric", reason="torch_geometric is not installed")
    write_cora(tmp_path)
    result = bench.run(quick=True, compare="pyg", graphs=["cora"], only="epoch")
    assert [row["model"] for row in result["epochs"]] == ["GCN", "GAT", "GIN"]
    assert all(set(row["ms"]) == {"gnnlab", "PyG"} for row in result["epochs"])
    assert not result["rows"]
    assert "a training epoch of two layers on Cora" in bench.table(result)


def test_folds_hold_every_graph_once_and_share_the_classes():
    import numpy as np

    y = np.array([0] * 63 + [1] * 125)
    folds = folds_of(y)
    assert sorted(g for fold in folds for g in fold) == list(range(188))
    assert {sum(y[fold] == 0) for fold in folds} <= {6, 7}
