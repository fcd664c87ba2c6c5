"""Flags that several commands share: how a file is read, and what the shop is like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from gnnlab.errors import ConfigError, DataError
from gnnlab.tasks.dispatch.datasets import load
from gnnlab.tasks.dispatch.files import read_instances
from gnnlab.tasks.dispatch.instance import InstanceError, JobShopInstance
from gnnlab.tasks.dispatch.schedule import Mode
from gnnlab.tasks.dispatch.trace import RandomTrace, Shutdowns, Trace, WindowTrace

FileFormat = Literal["auto", "standard", "taillard", "dct", "fjs", "json", "npy"]
_FLAGS = {
    "machine_base=": "--machine-base ",
    "strict=False": "--no-strict",
    "time_scale=": "--time-scale",
}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the instance's file is read."""

    format: FileFormat = "auto"
    """Format of FILE; auto goes by its suffix and content."""
    strict: bool = True
    """Whether every job must visit every machine exactly once."""
    machine_base: int = 0
    """Number of the first machine in FILE."""
    time_scale: float | None = None
    """What times in FILE are multiplied by; the results must be integers."""
    number: int | None = None
    """Which job shop of a file that holds several, from 0."""

    def read(self, file: str) -> JobShopInstance:
        """Returns the job shop of a file, or the classical one of that name."""
        path = Path(file)
        if not path.exists() and not path.suffix and path.name == file:
            try:
                return load(file)
            except DataError as error:
                raise DataError(f"there is no file {file}. As a name: {error}") from None
        if not path.exists():
            raise FileNotFoundError(f"no such file: {file}")
        try:
            found = read_instances(
                path,
                self.format,
                strict=self.strict,
                machine_base=self.machine_base,
                time_scale=self.time_scale,
            )
        except InstanceError as error:
            raise InstanceError(_in_flags(str(error))) from None
        if self.number is None and len(found) > 1:
            raise InstanceError(
                f"{file}: holds {len(found)} job shops; choose one with --number 0 to "
                f"{len(found) - 1}."
            )
        number = self.number or 0
        if not 0 <= number < len(found):
            raise InstanceError(
                f"{file}: there is no job shop number {number}; it holds {len(found)}, from 0."
            )
        return found[number]


def _in_flags(text: str) -> str:
    """Returns a message whose hints name flags instead of arguments in Python."""
    for argument, words in _FLAGS.items():
        text = text.replace(argument, words)
    return text


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the shop is like, and when its machines are down."""

    mode: Mode | None = None
    """bws: no buffers, swaps allowed; bns: no buffers, no swaps; jssp: buffers without limit."""
    trace: Path | None = None
    """JSON file of the times at which machines are down."""
    shutdown: float = 0.0
    """Probability that a machine fails in a unit of time; repairs take 10 to 50 units."""
    seed: int = 0
    """Seed of the shutdowns, and of everything else that is drawn."""

    def windows(self, instance: JobShopInstance) -> Trace | None:
        """Returns when machines are down, None if never."""
        if self.trace is not None and self.shutdown:
            raise ConfigError("pass --trace or --shutdown, not both.")
        if self.trace is not None:
            if not self.trace.exists():
                raise FileNotFoundError(f"no such file: {self.trace}")
            found = WindowTrace.load(self.trace)
            if len(found.windows) > instance.num_machines:
                raise DataError(
                    f"{self.trace}: has {len(found.windows)} machines, but {instance.name} has "
                    f"{instance.num_machines}."
                )
            return found
        if not self.shutdown:
            return None
        return RandomTrace(self.seed, Shutdowns(prob=self.shutdown))
