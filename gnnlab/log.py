"""What training says while it runs: a progress bar, a JSONL log, TensorBoard when installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

__all__ = ["Progress", "RunLog", "first_process", "rewind"]


def first_process() -> bool:
    """False in the further processes of `devices` > 1, which run the same command again."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK"))


class RunLog:
    """Appends one JSON object per epoch to `log.jsonl`, and mirrors numbers to TensorBoard.

    Args:
        folder: the run folder; None writes nothing.
        last_epoch: when resuming, the epoch of the checkpoint: later lines are dropped first.
    """

    def __init__(self, folder: Path | None, *, last_epoch: int | None = None) -> None:
        self._file: TextIO | None = None
        self._board: Any = None
        if folder is None:
            return
        path = folder / "log.jsonl"
        rewind(path, last_epoch or 0)
        self._file = path.open("a", encoding="utf-8")
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            purge = None if last_epoch is None else last_epoch + 1
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; nested numbers become TensorBoard scalars "train/loss" and so on."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._board is not None:
            for group, values in record.items():
                if isinstance(values, Mapping):
                    for name, value in values.items():
                        self._board.add_scalar(f"{group}/{name}", value, record["epoch"])

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def rewind(path: Path, last_epoch: int) -> None:
    """Drops the lines of epochs after `last_epoch`, and a last line that a crash cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["epoch"] <= last_epoch:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


class Progress:
    """A bar on stderr with epoch, loss, the monitored metric and the time left.

    Args:
        epochs: how many there are.
        start: how many are done.
        enabled: False for --quiet; None shows it only on a terminal, and otherwise prints a line
            for each evaluation.
        metric: name of the monitored metric.
    """

    def __init__(self, epochs: int, start: int, *, enabled: bool | None, metric: str) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self._quiet = enabled is False
        self._tty = sys.stderr.isatty() and not self._quiet
        self._metric = metric
        self._value: float | None = None
        self._steps_per_epoch = 0
        self._bar = tqdm(
            total=epochs,
            initial=start,
            disable=not self._tty,
            file=sys.stderr,
            leave=True,
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {n:.1f}/{total} epochs  {elapsed} < {remaining}{postfix}",
        )
        self._bar.set_description_str("train")
        self._done = float(start)
        self._epochs = epochs

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, epoch: int, step_in_epoch: int, loss: float) -> None:
        """Moves within an epoch, once the number of steps per epoch is known."""
        if not self._tty:
            return
        if self._steps_per_epoch:
            self._to(epoch - 1 + min(step_in_epoch / self._steps_per_epoch, 1.0))
        self._say(loss)

    def epoch(self, epoch: int, steps: int, loss: float, value: float | None) -> None:
        """Ends an epoch; `value` is the monitored metric when it was evaluated."""
        self._steps_per_epoch = steps
        if value is not None:
            self._value = value
        if self._tty:
            self._to(epoch)
            self._say(loss)
        elif not self._quiet and (value is not None or epoch == self._epochs):
            shown = "" if value is None else f"  {self._metric} {value:.4f}"
            print(f"epoch {epoch}/{self._epochs}  loss {loss:.4f}{shown}", file=sys.stderr)

    def _to(self, done: float) -> None:
        self._bar.update(done - self._done)
        self._done = done

    def _say(self, loss: float) -> None:
        text = f"loss {loss:.4f}" if math.isfinite(loss) else f"loss {loss}"
        if self._value is not None:
            text += f", {self._metric} {self._value:.4f}"
        self._bar.set_postfix_str(text, refresh=False)
