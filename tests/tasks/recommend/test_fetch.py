"""Fetching, from files on this machine under the form of the public sources."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gnnlab.errors import DataError
from gnnlab.tasks.recommend import Recommend, datasets, fetch as fetching


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set "lastfm" of two users and three items, published in `tmp_path`."""
    monkeypatch.delenv("GNNLAB_DATA", raising=False)
    monkeypatch.setenv("GNNLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.txt").write_text("2\t1\t3.2466e+05\n1\t3\t7\n1\t1\t2\n")
    (tmp_path / "test.txt").write_text("2\t3\t1\n")
    address = {part: (tmp_path / f"{part}.txt").as_uri() for part in ("train", "test")}
    origin = fetching.Origin(form=fetching.triples, **address)
    facts = datasets.DATASETS["lastfm"]
    small = dataclasses.replace(facts, users=2, items=3, train=3, test=1)
    monkeypatch.setitem(fetching.ORIGINS, "lastfm", origin)
    monkeypatch.setitem(datasets.DATASETS, "lastfm", small)
    return tmp_path


def test_a_fetched_set_is_kept_in_the_cache_and_read_by_its_name(tiny: Path) -> None:
    path = Path(Recommend.fetch("lastfm"))
    assert path == tiny / "cache" / "recommend" / "lastfm.npz"
    data = Recommend.read("lastfm", Recommend.Config())
    assert data.train.target.user.tolist() == [0, 0, 1]
    assert data.train.target.item.tolist() == [0, 2, 0]
    assert data.test is not None
    assert data.test.target.item.tolist() == [2]
    assert "counts verified" in data.facts["source"]


@pytest.mark.parametrize("content", ["2\t1\t1\n", "2\t1\t1\n1\t3\t7\n1\t9\t2\n", ""])
def test_content_of_other_counts_is_refused_and_nothing_is_kept(tiny: Path, content: str) -> None:
    (tiny / "train.txt").write_text(content)
    with pytest.raises(DataError, match=r"expected 3 of 2 users and 3 items.*nothing was kept"):
        Recommend.fetch("lastfm")
    assert not (tiny / "cache").exists()


def test_content_that_is_no_table_is_refused(tiny: Path) -> None:
    (tiny / "train.txt").write_text("<html>not found</html>\n")
    with pytest.raises(DataError, match="does not hold user and item numbers"):
        Recommend.fetch("lastfm")


def test_a_source_that_does_not_answer_is_named(tiny: Path) -> None:
    (tiny / "test.txt").unlink()
    with pytest.raises(DataError, match=r"^cannot fetch file://.*test.txt"):
        Recommend.fetch("lastfm")


def test_a_set_without_a_source_is_refused(tiny: Path) -> None:
    with pytest.raises(DataError, match='"sparse-yelp" cannot be fetched'):
        Recommend.fetch("sparse-yelp")


def test_adjacency_lines_may_be_empty_or_without_items() -> None:
    user, item = fetching.adjacency("3 1 0 \n\n4\n")
    assert (user.tolist(), item.tolist()) == ([3, 3], [1, 0])
    assert len(fetching.adjacency("")[0]) == 0
    assert fetching.adjacency("")[1].dtype == np.int64
