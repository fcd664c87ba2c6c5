"""Predictions become files that appear whole or not at all."""

from __future__ import annotations

import builtins
import csv
import json

import numpy as np
import pytest

from gnnlab import Prediction
from gnnlab.errors import ConfigError, MissingExtraError


@pytest.fixture
def table():
    return Prediction(
        {
            "user": np.array(["ana", 'b"o,\nb', "çé"]),
            "item": np.array([3, 2**60, -1]),
            "score": np.array([0.1, 1 / 3, -2.5e-30]),
        }
    )


@pytest.fixture
def without(monkeypatch):
    """Makes a package absent."""
    real = builtins.__import__

    def hide(package):
        def fake(name, *rest, **more):
            if name.partition(".")[0] == package:
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", fake)

    return hide


def test_csv_holds_every_value_exactly(table, tmp_path):
    assert table.save(tmp_path / "x.csv") == tmp_path / "x.csv"
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == ["user", "item", "score"]
    assert [r[0] for r in rows] == table["user"].tolist()
    assert [int(r[1]) for r in rows] == table["item"].tolist()
    assert [float(r[2]) for r in rows] == table["score"].tolist()


def test_json_holds_every_value_exactly(table, tmp_path):
    table.save(tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text())
    assert found == {k: v.tolist() for k, v in table.columns.items()}


def test_parquet_holds_every_value_exactly(table, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table.save(tmp_path / "x.PARQUET")
    found = parquet.read_table(tmp_path / "x.PARQUET").to_pydict()
    assert found == {k: v.tolist() for k, v in table.columns.items()}


@pytest.mark.parametrize("kind", ["U", object])
def test_npz_holds_every_value_exactly_without_pickle(table, tmp_path, kind):
    table.columns["user"] = table["user"].astype(kind)
    table.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert set(found.files) == {"user", "item", "score"}
        assert all(np.array_equal(found[k], v) for k, v in table.columns.items())


def test_frame_has_the_columns(table):
    pytest.importorskip("pandas")
    frame = table.to_frame()
    assert list(frame.columns) == ["user", "item", "score"]
    assert frame["score"].tolist() == table["score"].tolist()


def test_trajectory_is_no_table(tmp_path):
    path = Prediction({"x": np.zeros((3, 2)), "time": np.arange(3)})
    assert not path.is_table
    assert repr(path) == "Prediction(x(3, 2), time(3,))"
    with pytest.raises(ConfigError, match=r"CSV needs a table; .*x\(3, 2\).*Use \.npz"):
        path.save(tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []
    path.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert found["x"].shape == (3, 2)


def test_columns_of_different_lengths_are_no_table():
    assert not Prediction({"a": [1], "b": [1, 2]}).is_table
    assert not Prediction({}).is_table
    assert Prediction({"a": [], "b": []}).is_table
    assert len(Prediction({})) == 0


def test_unknown_ending_is_refused_with_the_nearest(table, tmp_path):
    with pytest.raises(ConfigError, match=r'cannot write "x\.cvs" by its ending\. .*"\.csv"'):
        table.save(tmp_path / "x.cvs")
    with pytest.raises(ConfigError, match=r"Known: \.csv, \.json, \.npz, \.parquet"):
        table.save(tmp_path / "x")


def test_folder_is_made(table, tmp_path):
    assert table.save(tmp_path / "new" / "deep" / "x.csv").is_file()


def test_failing_writer_leaves_the_old_file_and_no_rest(table, tmp_path):
    target = table.save(tmp_path / "x.csv")
    before = target.read_bytes()

    def dies(prediction, path):
        path.write_text("half")
        assert target.read_bytes() == before
        raise OSError("disk full")

    broken = Prediction({"a": [1]}, writers={".csv": dies})
    with pytest.raises(OSError, match="disk full"):
        broken.save(target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_task_adds_a_format_of_its_own(tmp_path):
    answer = Prediction({"a": [1]}, writers={".vtu": lambda p, path: path.write_text(repr(p))})
    assert answer.save(tmp_path / "x.vtu").read_text() == "Prediction(1 rows: a)"


def test_parquet_without_pyarrow_says_what_to_install(table, tmp_path, without):
    without("pyarrow")
    with pytest.raises(
        MissingExtraError, match=r"pip install 'gnnlab\[recommend\]', or write \.csv"
    ):
        table.save(tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []
    assert table.save(tmp_path / "x.csv").is_file()


def test_frame_without_pandas_says_what_to_install(table, without):
    without("pandas")
    with pytest.raises(MissingExtraError, match=r"to_frame needs pandas: pip install"):
        table.to_frame()
