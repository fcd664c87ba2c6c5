"""Public data sets that `read` knows by name: facts, public source, terms, and where they lie.

None of them comes with gnnlab: their terms forbid or do not grant redistribution. A set is a
file `<name>.npz`, in the form that `gnnlab.tasks.recommend.sources` describes, in one of the
`folders()`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gnnlab.errors import DataError, did_you_mean
from gnnlab.folders import data_folders

__all__ = ["DATASETS", "Dataset", "find", "folders", "same_file", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Facts about one published split; equal names elsewhere often mean other splits."""

    users: int
    """Number of users."""
    items: int
    """Number of items."""
    train: int
    """Training pairs; all pairs when the set is not split."""
    val: int = 0
    """Validation pairs."""
    test: int = 0
    """Test pairs."""
    sha256: str
    """Hash of the checked file."""
    source: str
    """Where the public original is."""
    terms: str
    """What its owners allow, in one line."""


DATASETS: dict[str, Dataset] = {
    "gowalla": Dataset(
        users=29_858,
        items=40_981,
        train=810_128,
        test=217_242,
        sha256="03a34e6cb2702eaf8b5199badefd6801d53b5c5b8ca0b9e63955191ae9986aa3",
        source="github.com/gusye1234/LightGCN-PyTorch data/gowalla",
        terms="no licence stated; cite Cho, Myers, Leskovec, KDD 2011",
    ),
    "lastfm": Dataset(
        users=1_892,
        items=4_489,
        train=42_135,
        test=10_533,
        sha256="bcb87f4008c0fb22ddb99655d511f622d5fffad2d9f74c49e91ce2090fdd6478",
        source="github.com/gusye1234/LightGCN-PyTorch data/lastfm (HetRec 2011)",
        terms="non-commercial research only",
    ),
    "ml-100k": Dataset(
        users=943,
        items=1_682,
        train=100_000,
        sha256="2ee5f88d27f4f52b77532b15f64499bbe3bf215c492129c837f7e3b77786183d",
        source="files.grouplens.org/datasets/movielens/ml-100k.zip",
        terms="research use, no redistribution without permission, no commercial use",
    ),
    "ml-1m": Dataset(
        users=6_022,
        items=3_043,
        train=796_244,
        test=99_455,
        sha256="c8fe9480f79d13db37400c87657971f6cc0731d8780d2304ebc95da89e6a1679",
        source="github.com/xue-pai/UltraGCN data/ml-1m (from MovieLens-1M)",
        terms="research use, no redistribution without permission, no commercial use",
    ),
    "sparse-yelp": Dataset(
        users=42_712,
        items=26_822,
        train=182_357,
        val=13_025,
        test=65_128,
        sha256="203c9c3d7348209555b8981e26787e12cd7ab96ddc1d7dce61509192eb465b9c",
        source="github.com/HKUDS/SSLRec datasets/general_cf/sparse_yelp",
        terms="derived from the Yelp Open Dataset: academic use, no redistribution",
    ),
}


def folders() -> list[Path]:
    """Returns the folders that are searched, in order: $GNNLAB_DATA, then the user's cache."""
    return data_folders("recommendation", "recommend")


def find(name: str) -> Path:
    """Returns the file of the data set `name`.

    Raises:
        DataError: when it is in none of the folders; says which, and where the original is.
    """
    for folder in folders():
        path = folder / f"{name}.npz"
        if path.is_file():
            return path
    facts = DATASETS[name]
    raise DataError(
        f'data set "{name}" is not on this machine: no {name}.npz in {_listed()}. '
        f"gnnlab may not ship it ({facts.terms}). Its public source is {facts.source}: "
        f"`gnnlab data {name} --fetch` gets gowalla, lastfm and ml-1m; put a converted file of "
        f"others into one of these folders, or set GNNLAB_DATA."
    )


def unknown(name: str) -> DataError:
    """Returns the error for a source that is neither a file nor a known name."""
    return DataError(
        f'there is no file or data set "{name}".'
        f"{did_you_mean(name, [*DATASETS, 'synthetic'])} Data sets are looked for in {_listed()}."
    )


def same_file(path: Path, sha256: str) -> bool:
    """Returns whether the file has this hash."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def _listed() -> str:
    return ", ".join(map(str, folders()))
