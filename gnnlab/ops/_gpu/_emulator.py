"""Runs the CUDA kernels on CPU tensors through cuda/emulator; for tests, slow.

Needs a checkout and a C++ compiler. Every access of a kernel is checked, see emulator.cpp.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import mmap
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnnlab.folders import cache_folder
from gnnlab.ops._gpu._launch import Argument, RawRows, pack
from gnnlab.ops._gpu._source import Unit, headers, source_folder

__all__ = ["EmulationError", "Emulator"]

RACE_LIMIT = 2**21  # bytes; races are looked for in tensors up to this size
GAP = 2**16  # bytes between tensors, where no kernel may go

_FLAGS = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-DGL_EMULATED"]
_WATCHED = ["-fsanitize=thread", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti"]


class EmulationError(RuntimeError):
    """A kernel did what it must not do."""


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("begin", ctypes.c_void_p),
        ("bytes", ctypes.c_int64),
        ("item_bytes", ctypes.c_int64),
        ("races", ctypes.c_int64),
    ]


class Emulator:
    """A Launcher for CPU tensors.

    Args:
        seed: of the order in which blocks and threads run.
        folder: where the kernels lie; None: gnnlab's own.
        access_limit: loads and stores after which a launch is held to run for ever.

    Raises:
        OSError: if there is no compiler or no checkout.
    """

    name = "emulated"

    def __init__(
        self, seed: int = 0, folder: Path | None = None, access_limit: int = 10**9
    ) -> None:
        self.seed = seed
        self.access_limit = access_limit
        self.folder = source_folder() if folder is None else folder
        self._runtime = _runtime()
        self._kernels: dict[tuple[Unit, str], Any] = {}
        self.launches: list[str] = []
        """The kernels started so far."""

    def launch(
        self,
        code: Unit,
        kernel: str,
        grid: int | tuple[int, int],
        block: int,
        shared: int,
        *args: Argument,
    ) -> None:
        """See Launcher. Waits for the end; EmulationError for what the emulator finds."""
        x, y = grid if isinstance(grid, tuple) else (grid, 1)
        if x * y == 0:
            return
        function, limit = self._function(code, kernel)
        if block > limit:
            raise EmulationError(f"{kernel}: {block} threads, but it is compiled for {limit}")
        arena = _Arena(args)
        moved = pack(arena.args)
        struct = ctypes.create_string_buffer(moved, len(moved))
        spans = arena.spans
        error = ctypes.create_string_buffer(1024)
        failed = self._runtime.gl_emulate(
            function,
            struct,
            ctypes.sizeof(struct),
            x,
            y,
            block,
            shared,
            (_Tensor * max(len(spans), 1))(*spans),
            len(spans),
            self.seed,
            self.access_limit,
            error,
            len(error),
        )
        self.launches.append(kernel)
        if failed:
            arena.close()
            raise EmulationError(f"{kernel} ({code}): {error.value.decode()}")
        arena.copy_back()
        arena.close()

    def empty(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Returns memory full of NaN and -1, so that what a kernel leaves out shows."""
        result = torch.empty(tuple(shape), dtype=dtype, device=device)
        if result.numel():
            ctypes.memset(result.data_ptr(), 0xFF, result.numel() * result.element_size())
        return result

    def _function(self, code: Unit, kernel: str) -> tuple[Any, int]:
        found = self._kernels.get((code, kernel))
        if found is None:
            library = ctypes.CDLL(str(_build(self.folder, code)))
            limit = ctypes.c_int.in_dll(library, f"{kernel}_threads").value
            found = self._kernels[code, kernel] = (getattr(library, kernel), limit)
        return found


class _Arena:
    """Copies of a launch's tensors far apart, so that no overrun lands in another tensor.

    What overlaps stays together, and every address keeps its place modulo 256.
    """

    def __init__(self, args: Sequence[Argument]) -> None:
        extents = [_extent(arg) for arg in args]
        merged: list[list[int]] = []
        tensors = [e for arg, e in zip(args, extents, strict=True) if isinstance(arg, Tensor)]
        for begin, size in sorted(e for e in tensors if e[1]):
            if merged and begin < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], begin + size)
            else:
                merged.append([begin, begin + size])
        total = sum(end - begin + 2 * GAP for begin, end in merged)
        self._memory = mmap.mmap(-1, total + GAP)
        self._view = ctypes.c_char.from_buffer(self._memory)
        at = ctypes.addressof(self._view) + GAP
        self._moves: list[tuple[int, int, int]] = []
        for begin, end in merged:
            at += (begin - at) % 256
            ctypes.memmove(at, begin, end - begin)
            self._moves.append((begin, end, at))
            at += end - begin + GAP
        self.args: list[Argument] = []
        self.spans: list[_Tensor] = []
        for arg, (begin, size) in zip(args, extents, strict=True):
            if isinstance(arg, Tensor) and size:
                begin += next(to - old for old, end, to in self._moves if old <= begin < end)
                self.args.append(RawRows(begin, size))
                self.spans.append(_Tensor(begin, size, arg.element_size(), size <= RACE_LIMIT))
            else:
                self.args.append(None if isinstance(arg, Tensor) else arg)
                self.spans.append(_Tensor(begin, size, 1, 0))

    def copy_back(self) -> None:
        """Brings the results to where they belong."""
        for begin, end, at in self._moves:
            ctypes.memmove(begin, at, end - begin)

    def close(self) -> None:
        """Gives the memory back."""
        del self._view
        self._memory.close()


def _extent(arg: Argument) -> tuple[int, int]:
    """Returns address and size in bytes of what an argument points to; (0, 0) if to nothing."""
    if isinstance(arg, RawRows):
        return arg.pointer, arg.num_bytes
    if not isinstance(arg, Tensor) or arg.numel() == 0:
        return 0, 0
    items = 1 + sum((n - 1) * step for n, step in zip(arg.shape, arg.stride(), strict=True))
    return arg.data_ptr(), items * arg.element_size()


def _compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("g++")
    if not found:
        raise OSError("the emulator needs the C++ compiler g++")
    return found


def _emulator_folder() -> Path:
    folder = Path(__file__).resolve().parents[3] / "cuda" / "emulator"
    if not (folder / "emulator.cpp").is_file():
        raise OSError("the emulator is only in a checkout of gnnlab, not in an installation")
    return folder


@functools.cache
def _shim() -> str:
    """Returns the text of all that a compiled kernel depends on but its own folder."""
    return "".join(file.read_text() for file in sorted(_emulator_folder().iterdir()))


@functools.cache
def _runtime() -> Any:
    source = _emulator_folder() / "emulator.cpp"
    path = _compile(source, ["-std=c++17", "-O2", "-fPIC", "-shared"], _shim())
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # kernels call into it
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    library.gl_emulate.argtypes = [
        *(pointer, pointer, long, long, long, ctypes.c_int, long),
        *(ctypes.POINTER(_Tensor), ctypes.c_int, ctypes.c_uint, long),
        *(ctypes.c_char_p, ctypes.c_int),
    ]
    return library


def _build(folder: Path, code: Unit) -> Path:
    source = folder / f"{code.source}.cu"
    flags = [*_FLAGS, *_WATCHED, *(f"-D{key}={value}" for key, value in code.defines)]
    flags += [f"-I{source_folder()}", f"-I{_emulator_folder()}"]
    return _compile(source, flags, _shim() + "".join(headers().values()))


def _compile(source: Path, flags: list[str], depends: str) -> Path:
    """Returns the shared library made of `source`, from the cache if nothing has changed."""
    compiler = _compiler()
    text = "\0".join([compiler, *flags, depends, source.read_text()])
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    folder = cache_folder() / "emulator"
    path = folder / f"{source.stem}-{digest}.so"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(".so", dir=folder)
    os.close(handle)
    # Objects first: linking with -fsanitize=thread would add the real checker.
    unit_flags = [flag for flag in flags if flag != "-shared"]
    try:
        command = [compiler, *unit_flags, "-x", "c++", "-c", str(source), "-o", draft + ".o"]
        _run(command)
        _run([compiler, "-shared", draft + ".o", "-o", draft])
        os.replace(draft, path)
    finally:
        for left in (draft, draft + ".o"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
