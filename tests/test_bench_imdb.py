"""`gnnlab bench imdb` on a made-up film graph: reading, composed edges, training, the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gnnlab.bench import imdb
from gnnlab.bench.page import write_page
from gnnlab.cli import main
from gnnlab.errors import ConfigError, DataError

FILMS, DIRECTORS, ACTORS, WORDS = 60, 9, 30, 20


@pytest.fixture
def file(tmp_path):
    """Films whose director decides the class; keywords hint at it."""
    draw = np.random.default_rng(0)
    director = draw.integers(DIRECTORS, size=FILMS)
    y = director % 3
    words = [np.unique(np.append(draw.integers(WORDS, size=3), c)) for c in y]
    order = draw.permutation(FILMS)
    np.savez(
        tmp_path / "films.npz",
        num_nodes=np.array([FILMS, DIRECTORS, ACTORS]),
        movie_director=np.stack([np.arange(FILMS), director], 1),
        movie_actor=np.stack([np.repeat(np.arange(FILMS), 2), draw.integers(ACTORS, size=120)], 1),
        movie_x_indptr=np.cumsum([0, *map(len, words)]),
        movie_x_indices=np.concatenate(words),
        movie_x_data=np.ones(sum(map(len, words)), np.int8),
        movie_x_shape=np.array([FILMS, WORDS]),
        y=y.astype(np.int8),
        train_idx=order[:20],
        val_idx=order[20:40],
        test_idx=order[40:],
    )
    return tmp_path / "films.npz"


def test_graph_has_both_directions_and_films_with_common_people(file):
    films = imdb.read(file)
    graph = imdb.with_metapaths(films.graph)
    assert dict(graph.num_nodes) == {"film": FILMS, "director": DIRECTORS, "actor": ACTORS}
    assert torch.equal(graph["directs"].edge_index, graph["directed by"].edge_index.flip(0))
    for role, relation in (("director", "directed by"), ("actor", "played by")):
        film, person = graph[relation].edge_index.tolist()
        plays = set(zip(film, person, strict=True))
        together = {(a, b) for a, p in plays for b, q in plays if p == q}
        assert set(map(tuple, graph[f"same {role}"].edge_index.t().tolist())) == together


@pytest.mark.parametrize("features", ["counts", "tf-idf"])
def test_features_are_those_of_the_formula(file, features):
    films = imdb.read(file)
    dense = torch.zeros(FILMS, WORDS).index_put(
        (films.words.dst, films.words.src), films.counts, accumulate=True
    )
    if features == "tf-idf":
        dense = dense.sqrt() * (FILMS / (dense > 0).sum(0).clamp(min=1)).log()
        dense = torch.nn.functional.normalize(dense)
    else:
        dense = dense / dense.sum(1, keepdim=True)
    values = imdb._values(films, features)
    torch.testing.assert_close(values, dense[films.words.dst, films.words.src])


@pytest.mark.parametrize("name", imdb.MODELS)
def test_models_learn_the_class_from_the_director(file, name):
    options = replace(imdb.MODELS[name], lr=0.02, epochs=60, features="counts", metapaths=False)
    first, again = (imdb.train(options, imdb.read(file), 0) for _ in range(2))
    assert first["test"] == again["test"]
    assert first["val"] > (40 if name == "MLP" else 70)


def test_options_are_chosen_without_the_test_films(file):
    films = imdb.read(file)
    y = films.y.clone()
    y[films.test] = 0
    options = replace(imdb.MODELS["RGCN"], epochs=3)
    a, b = (imdb.train(options, f, 0) for f in (films, films._replace(y=y)))
    assert (a["val"], a["loss"], a["epoch"]) == (b["val"], b["loss"], b["epoch"])
    assert a["test"] != b["test"]


def test_command_table_and_page(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        imdb, "MODELS", {n: replace(o, epochs=2, hidden=8) for n, o in imdb.MODELS.items()}
    )
    out = tmp_path / "results" / "imdb.json"
    with pytest.raises(SystemExit) as stop:
        main(["bench", "imdb", str(file), "--seeds", "2", "--only", "RGCN,MLP", "--out", str(out)])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "label propagation (given)" in printed
    result = json.loads(out.read_text("utf-8"))
    assert [row["model"] for row in result["rows"]] == ["RGCN", "MLP"]
    assert result["kind"] == "imdb"
    page = write_page(out.parent, tmp_path / "docs" / "page.md").read_text("utf-8")
    row = result["rows"][0]
    assert f"| RGCN | {row['val']:.1f} ± {row['val spread']:.1f} | {row['test']:.1f} ±" in page
    assert "| majority (given) | - | 36.9 |" in page
    assert "20 labelled films, 20 for choices, 20 to classify" in page
    assert str(tmp_path) not in page


def test_errors_say_what_is_missing(file, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nothing\.npz is not a file"):
        imdb.read(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", y=np.zeros(3))
    with pytest.raises(DataError, match=r"other\.npz has no array .*num_nodes"):
        imdb.read(tmp_path / "other.npz")
    with pytest.raises(ConfigError, match=r'unknown model "RGCM"\. Did you mean "RGCN"'):
        imdb.run(file, only=["RGCM"])
    monkeypatch.setenv("GNNLAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no imdb_hetero\.npz in"):
        imdb.read()
