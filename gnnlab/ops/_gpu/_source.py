"""Finds the CUDA sources: package data of an installed gnnlab, or cuda/gpu of a checkout."""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path
from typing import NamedTuple

__all__ = ["HEADER", "Unit", "headers", "read_source", "source_folder", "unit"]

HEADER = "gl.cuh"


class Unit(NamedTuple):
    """One compilation: a file of cuda/gpu and its -D definitions."""

    source: str
    defines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join([f"{self.source}.cu", *(f"{k}={v}" for k, v in self.defines)])


def unit(source: str, **defines: str | int) -> Unit:
    """Returns a Unit; the order of the definitions does not matter."""
    return Unit(source, tuple(sorted((key, str(value)) for key, value in defines.items())))


@functools.cache
def source_folder() -> Path:
    """Returns the folder of gl.cuh and the kernels.

    Raises:
        OSError: if there is none.
    """
    beside = Path(__file__).resolve().parents[3] / "cuda" / "gpu"
    if (beside / HEADER).is_file():  # a checkout, installed or not: what is edited is what runs
        return beside
    try:
        files = importlib.metadata.files("gnnlab") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == HEADER:
            return Path(str(file.locate())).parent
    raise OSError("the CUDA sources are missing from this installation of gnnlab")


@functools.cache
def headers() -> dict[str, str]:
    """Returns the headers that kernels may include: name and text."""
    return {path.name: path.read_text() for path in sorted(source_folder().glob("*.cuh"))}


@functools.cache
def read_source(name: str) -> str:
    """Returns the text of one file of the folder, for example "gather.cu"."""
    return (source_folder() / name).read_text()
