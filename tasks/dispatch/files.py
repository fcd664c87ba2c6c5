"""Reads and writes job shops in the file formats in use; `_formats` holds the text ones."""

from __future__ import annotations

import io
import json
import math
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch._formats import (
    TEXT_READERS,
    TEXT_WRITERS,
    Job,
    Line,
    Rules,
    build,
    lines_of,
    write_standard,
)
from gnnlab.tasks.dispatch._jsonfile import read_json, to_json
from gnnlab.tasks.dispatch.instance import MAX_OPERATIONS, InstanceError, JobShopInstance

__all__ = [
    "FORMATS",
    "parse_instances",
    "read_instance",
    "read_instances",
    "read_matrix_pair",
    "standard_text",
    "write_instance",
    "write_matrix_pair",
]

FORMATS = ("standard", "taillard", "dct", "fjs", "json", "npy")
_SUFFIXES = {".json": "json", ".npy": "npy", ".fjs": "fjs", ".dct": "dct"}


def read_instance(
    path: str | Path,
    format: str = "auto",
    *,
    strict: bool = True,
    machine_base: int = 0,
    time_scale: float | None = None,
) -> JobShopInstance:
    """Reads a job shop from a file that holds one.

    Args:
        path: the file.
        format: "standard" (`n m`, then machine and time pairs), "taillard", "dct", "fjs", "json",
            "npy", or "auto", which goes by the suffix and the content.
        strict: whether every job must visit every machine exactly once and nothing may follow the
            last job, in the formats that ask for it (standard, taillard, json, npy).
        machine_base: number of the first machine in the formats standard, dct and json; taillard,
            npy and fjs always count from 1.
        time_scale: what times are multiplied by; the results must be integers.

    Raises:
        InstanceError: naming the file, the line and what is wrong there.
        ConfigError: for a format or scale that does not exist.
        FileNotFoundError: when there is no such file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder) / "tiny.txt"
        ...     _ = file.write_text("2 2\\n0 3 1 2\\n1 3 0 2\\n")
        ...     read_instance(file)
        JobShopInstance('tiny', 2 jobs, 2 machines, 4 operations)
    """
    found = read_instances(
        path, format, strict=strict, machine_base=machine_base, time_scale=time_scale
    )
    if len(found) != 1:
        raise InstanceError(
            f"{path}: holds {len(found)} instances, expected one. Use read_instances()."
        )
    return found[0]


def read_instances(
    path: str | Path,
    format: str = "auto",
    *,
    strict: bool = True,
    machine_base: int = 0,
    time_scale: float | None = None,
) -> list[JobShopInstance]:
    """Reads all job shops of a file: npy and taillard files may hold several.

    Args:
        path: the file.
        format: as in `read_instance`.
        strict: as in `read_instance`.
        machine_base: as in `read_instance`.
        time_scale: as in `read_instance`.

    Returns:
        the instances; several are named stem-0, stem-1, ...
    """
    path = Path(path)
    return parse_instances(
        _bytes(path),
        path,
        format,
        strict=strict,
        machine_base=machine_base,
        time_scale=time_scale,
    )


def parse_instances(
    content: bytes,
    path: str | Path,
    format: str = "auto",
    *,
    strict: bool = True,
    machine_base: int = 0,
    time_scale: float | None = None,
) -> list[JobShopInstance]:
    """Reads all job shops of a file whose content is at hand.

    Args:
        content: the bytes of the file.
        path: what messages call it; its stem is the name, its suffix a hint at the format.
        format: as in `read_instance`.
        strict: as in `read_instance`.
        machine_base: as in `read_instance`.
        time_scale: as in `read_instance`.

    Example:
        >>> parse_instances(b"1 2\\n0 3 1 2\\n", "tiny.txt")
        [JobShopInstance('tiny', 1 jobs, 2 machines, 2 operations)]
    """
    path = Path(path)
    rules = _rules(strict, machine_base, time_scale)
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f'unknown format "{format}".{did_you_mean(format, ("auto", *FORMATS))}')
    if format == "auto":
        format = _SUFFIXES.get(path.suffix.lower(), "")
    if format == "npy":
        return _read_npy(content, path, rules)
    text = _text(content, path)
    if format == "json" or (not format and text.lstrip().startswith("{")):
        return [read_json(text, path, rules)]
    lines = lines_of(text, str(path))
    if not format:
        times = any(line.words[0].lower().rstrip(":") == "times" for line in lines)
        format = "taillard" if times else "standard"
    return TEXT_READERS[format](lines, path.stem, rules)


def read_matrix_pair(
    times_path: str | Path,
    machines_path: str | Path,
    *,
    strict: bool = True,
    machine_base: int = 1,
    time_scale: float | None = None,
) -> JobShopInstance:
    """Reads a job shop from two tables of J lines: times, and machines in processing order.

    Args:
        times_path: table of times (J, M).
        machines_path: table of machine numbers (J, M); its name becomes that of the instance.
        strict: whether every job must visit every machine exactly once.
        machine_base: number of the first machine.
        time_scale: what times are multiplied by; the results must be integers.

    Raises:
        InstanceError: naming the file, the line and what is wrong there.
        FileNotFoundError: when there is no such file.
    """
    rules = _rules(strict, machine_base, time_scale)
    times, machines = (
        lines_of(_text(_bytes(path), path), str(path))
        for path in (Path(times_path), Path(machines_path))
    )
    if len(times) != len(machines):
        raise machines[-1].error(f"expected {len(times)} job lines, found {len(machines)}.")
    jobs = []
    for upper, row in zip(times, machines, strict=True):
        for line in (upper, row):
            if len(line.words) != len(times[0].words):
                raise line.error(
                    f"expected {len(times[0].words)} operations, found {len(line.words)}."
                )
        numbers = [upper.time(w, rules) for w in upper.words]
        if min(numbers) < 0:
            raise upper.error(f"negative time {min(numbers)}.")
        jobs.append(Job(row, [row.integer(w) - machine_base for w in row.words], numbers))
    m = len(times[0].words)
    return build(Path(machines_path).stem, jobs, m, strict=strict, base=machine_base)


def write_instance(instance: JobShopInstance, path: str | Path, format: str = "standard") -> Path:
    """Writes a job shop so that `read_instance` gives it back.

    A job shop whose jobs do not visit each machine exactly once is read with `strict=False`.

    Args:
        instance: the job shop.
        path: the file; its folder is made.
        format: "standard", "taillard", "dct", "fjs", "json", "npy", or "auto" for that of the
            suffix.

    Returns:
        the path.

    Raises:
        InstanceError: when the format cannot hold this job shop.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> shop = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> with TemporaryDirectory() as folder:
        ...     write_instance(shop, Path(folder) / "tiny.txt").read_text()
        '2 2\\n0 3 1 2\\n1 3 0 2\\n'
    """
    path = Path(path)
    if format == "auto":
        format = _SUFFIXES.get(path.suffix.lower(), "standard")
    if format not in FORMATS:
        raise ConfigError(f'unknown format "{format}".{did_you_mean(format, ("auto", *FORMATS))}')
    if format == "npy":
        times, machines = _tables(instance, path)
        buffer = io.BytesIO()
        np.save(buffer, np.stack([times, machines])[None])
        content = buffer.getvalue()
    elif format == "json":
        content = (json.dumps(to_json(instance)) + "\n").encode()
    else:
        content = TEXT_WRITERS[format](instance).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_matrix_pair(
    instance: JobShopInstance, times_path: str | Path, machines_path: str | Path
) -> None:
    """Writes the two tables that `read_matrix_pair` reads, machines from 1.

    Args:
        instance: a job shop in which every job has as many operations as there are machines.
        times_path: file of the times (J, M).
        machines_path: file of the machines (J, M).

    Raises:
        InstanceError: for another job shop.
    """
    for path, table in zip(
        (Path(times_path), Path(machines_path)),
        _tables(instance, Path(times_path)),
        strict=True,
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = (" ".join(map(str, row)) for row in table.tolist())
        path.write_bytes(("\n".join(rows) + "\n").encode())


def standard_text(instance: JobShopInstance) -> str:
    """Returns the normal form of a job shop: `n m`, then one line of pairs per job.

    Args:
        instance: the job shop.

    Example:
        >>> standard_text(JobShopInstance.from_jobs([[(0, 3), (1, 2)]]))
        '1 2\\n0 3 1 2\\n'
    """
    return write_standard(instance)


def _rules(strict: bool, machine_base: int, time_scale: float | None) -> Rules:
    if time_scale is None:
        return Rules(strict=strict, machine_base=machine_base)
    if not math.isfinite(time_scale) or time_scale <= 0:
        raise ConfigError(f"time_scale is {time_scale}; it must be a number above 0.")
    # through its digits, so that 0.1 means a tenth
    scale = Fraction(str(time_scale))
    return Rules(strict=strict, machine_base=machine_base, time_scale=scale)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InstanceError(
            f"{path}, line {line}: not a text file: byte 0x{content[error.start]:02x} is not UTF-8."
        ) from None


def _read_npy(content: bytes, path: Path, rules: Rules) -> list[JobShopInstance]:
    """Reads an array [N, 2, n, m] or [2, n, m]: times, then machines from 1."""
    if not content:
        raise InstanceError(f"{path}: no data: it is empty.")
    array = _load(content, path)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] != 2 or array.size == 0:
        raise InstanceError(
            f"{path}: header: expected an array (N, 2, jobs, machines) of times and machines, got "
            f"the shape {array.shape}."
        )
    if array.dtype.kind not in "iuf":
        raise InstanceError(f"{path}: holds {array.dtype}: not an integer array.")
    found = []
    for number, (times, machines) in enumerate(array):
        name = path.stem if len(array) == 1 else f"{path.stem}-{number}"
        jobs = []
        for j, (row, upper) in enumerate(zip(machines.tolist(), times.tolist(), strict=True)):
            line = Line(f"{path}, instance {number}, job {j}", [])
            jobs.append(
                Job(
                    line,
                    [line.integer(_digits(k)) - 1 for k in row],
                    [line.time(_digits(p), rules) for p in upper],
                )
            )
        found.append(build(name, jobs, array.shape[3], strict=rules.strict, base=1))
    return found


def _load(content: bytes, path: Path) -> np.ndarray:
    file = io.BytesIO(content)
    try:
        with warnings.catch_warnings():  # numpy's parser warns of odd headers
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(file)
            form = np.lib.format
            first = version == (1, 0)
            parse = form.read_array_header_1_0 if first else form.read_array_header_2_0
            shape, fortran, dtype = parse(file)
        size = math.prod(shape)
        if size > 2 * MAX_OPERATIONS:
            raise InstanceError(f"{path}: too large: an array of shape {shape}.")
        if dtype.hasobject or min(shape, default=0) < 0:
            raise InstanceError(f"{path}: no npy file of numbers.")
        flat = np.frombuffer(content, dtype, size, file.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except InstanceError:
        raise
    except Exception as error:  # that parser lets many kinds of errors through
        raise InstanceError(f"{path}: not an npy file, or cut short: {error}.") from None


def _digits(value: float) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value) if whole else value)


def _tables(instance: JobShopInstance, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if (instance.lengths != instance.num_machines).any():
        raise InstanceError(
            f"{path}: this format holds jobs of exactly {instance.num_machines} operations, one "
            f'per machine. Write {instance.name} with format="standard".'
        )
    return instance.times, instance.machines + 1
