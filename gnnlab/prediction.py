"""What a task answers: named arrays that become a table, a file, or arrays again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gnnlab.errors import ConfigError, MissingExtraError, did_you_mean

__all__ = ["Prediction"]

Writer = Callable[["Prediction", Path], None]


class Prediction:
    """Named arrays with a few ways out of them.

    When all arrays are one-dimensional and of one length the prediction is a table; trajectories
    and other dense results are simply not. A task adds its own file formats with `writers`.

    Args:
        columns: name -> array; strings as numpy unicode or object arrays.
        writers: suffix (".vtu") -> function(prediction, path), beside the built-in ones.

    Example:
        >>> Prediction({"user": np.array([3, 3]), "score": np.array([1.5, 0.5])})
        Prediction(2 rows: user, score)
    """

    def __init__(
        self, columns: Mapping[str, Any], *, writers: Mapping[str, Writer] | None = None
    ) -> None:
        self.columns = {name: np.asarray(value) for name, value in columns.items()}
        self._writers = {".csv": _csv, ".parquet": _parquet, ".npz": _npz, ".json": _json}
        self._writers.update(writers or {})

    @property
    def is_table(self) -> bool:
        """Whether every column is one-dimensional and of the same length."""
        shapes = {c.shape for c in self.columns.values()}
        return len(shapes) == 1 and len(next(iter(shapes))) == 1

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __repr__(self) -> str:
        names = ", ".join(self.columns)
        if self.is_table:
            return f"Prediction({len(self)} rows: {names})"
        return f"Prediction({', '.join(f'{k}{v.shape}' for k, v in self.columns.items())})"

    def to_frame(self) -> Any:
        """Returns a pandas DataFrame; MissingExtraError without pandas."""
        try:
            import pandas
        except ImportError:
            raise MissingExtraError(
                "to_frame needs pandas: pip install 'gnnlab[recommend]'. "
                "The arrays are in .columns without it."
            ) from None
        self._need_table("to_frame")
        return pandas.DataFrame(self.columns)

    def save(self, path: str | Path) -> Path:
        """Writes the prediction in the format of the suffix (.csv, .parquet, .npz, .json).

        The file appears whole or not at all.

        Raises:
            ConfigError: for a suffix nobody can write.
            MissingExtraError: for Parquet without pyarrow.
        """
        target = Path(path)
        writer = self._writers.get(target.suffix.lower())
        if writer is None:
            near = did_you_mean(target.suffix, self._writers)
            raise ConfigError(f'cannot write "{target.name}" by its ending.{near}')
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
        try:
            writer(self, partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _need_table(self, what: str) -> None:
        if not self.is_table:
            raise ConfigError(f"{what} needs a table; this prediction holds {self!r}. Use .npz.")


def _csv(prediction: Prediction, path: Path) -> None:
    import csv

    prediction._need_table("CSV")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(prediction.columns)
        writer.writerows(zip(*(c.tolist() for c in prediction.columns.values()), strict=True))


def _parquet(prediction: Prediction, path: Path) -> None:
    prediction._need_table("Parquet")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(
            "Parquet output needs pyarrow: pip install 'gnnlab[recommend]', or write .csv."
        ) from None
    pyarrow.parquet.write_table(
        pyarrow.table(
            {
                k: pyarrow.array(v.tolist() if v.dtype.kind in "UO" else v)
                for k, v in prediction.columns.items()
            }
        ),
        path,
    )


def _npz(prediction: Prediction, path: Path) -> None:
    with path.open("wb") as file:
        arrays: dict[str, Any] = {  # arrays of objects would be pickled
            k: v.astype(str) if v.dtype == object else v for k, v in prediction.columns.items()
        }
        np.savez_compressed(file, **arrays)


def _json(prediction: Prediction, path: Path) -> None:
    columns = {k: v.tolist() for k, v in prediction.columns.items()}
    path.write_text(json.dumps(columns), encoding="utf-8")
