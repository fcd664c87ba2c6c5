"""Text tables (CSV, TSV and their kin) without any dependency."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import TextIO

import numpy as np

from gnnlab.errors import DataError
from gnnlab.tasks.recommend.columns import Table

__all__ = ["read_text"]

_GUESSES = {"\t": "tab", ",": "comma", ";": "semicolon"}


def read_text(path: Path, delimiter: str | None = None) -> Table:
    """Reads a text table whose first line names the columns.

    Fields may be quoted with double quotes. Blanks around a field are dropped, empty lines skipped.
    A header of the form name:type (RecBole's .inter files) is read as the name.

    Args:
        path: the file, UTF-8, plain or gzip (".gz").
        delimiter: what separates fields, also several characters; None takes the most frequent of
            tab, comma and semicolon in the first line.

    Returns:
        a table of strings.

    Raises:
        DataError: for what is not such a table, naming the file and the line.
    """
    try:
        with _open(path) as file:
            return _parse(file, path.name, delimiter)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text ({error.reason} 0x{error.object[error.start]:02x}). "
            "Save it as UTF-8."
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} is not a complete gzip file: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def _open(path: Path) -> TextIO:
    # "-sig" drops the byte order mark that spreadsheets write, which would join the first name
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parse(file: TextIO, name: str, delimiter: str | None) -> Table:
    head = file.readline()
    while head and not head.strip():
        head = file.readline()
    if not head:
        raise DataError(f"{name} is empty: no interactions. Expected a line of column names.")
    if "\0" in head:
        raise DataError(f"{name} is a binary file, not text; it holds a zero byte.")
    if delimiter is None:
        delimiter = max(_GUESSES, key=head.count)
        if not head.count(delimiter):
            delimiter = ","
    file.seek(0)
    rows = _rows(file, name, delimiter)
    _, header = next(rows)
    names = [field.strip().split(":")[0] for field in header]
    repeated = {column for column in names if names.count(column) > 1}
    if repeated:
        raise DataError(f'{name}: column "{sorted(repeated)[0]}" occurs twice in the first line.')
    lines: list[int] = []
    fields: list[list[str]] = []
    for line, row in rows:
        lines.append(line)
        fields.append(row)
    width = len(names)
    ragged = [len(row) != width for row in fields]
    if any(ragged):
        line, row = next(compress(zip(lines, fields, strict=True), ragged))
        seen = _GUESSES.get(delimiter, f'"{delimiter}"')
        raise DataError(
            f"{name}, line {line}: {len(row)} fields, but the first line names {width} columns "
            f"({sum(ragged)} such lines; separator: {seen}). Fix the lines or set delimiter."
        )
    columns: dict[str, np.ndarray] = {}
    for place, column in enumerate(names):
        values = np.empty(len(fields), dtype=object)
        values[:] = [row[place].strip() for row in fields]
        columns[column] = values
    return Table(name=name, columns=columns, lines=np.array(lines, dtype=np.int64))


def _rows(file: TextIO, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    if len(delimiter) != 1:
        for line, text in enumerate(file, start=1):
            if text.strip():
                yield line, text.rstrip("\r\n").split(delimiter)
        return
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
    try:
        for row in reader:
            if any(row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: {error}. Is a double quote left open?"
        ) from None
