"""Compiles CUDA sources with NVRTC and keeps the results on disk.

NVRTC is a library of its own: it needs neither a GPU nor a driver nor a toolkit. torch's CUDA
builds bring it; otherwise `pip install gnnlab[cuda]` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnnlab.errors import GnnlabError
from gnnlab.folders import cache_folder
from gnnlab.ops._gpu._source import Unit, headers, read_source

__all__ = ["CompileError", "Compiler", "Nvrtc", "compiler", "find_nvrtc"]

_PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")
_DIGEST_BYTES = 32


class CompileError(GnnlabError, RuntimeError):
    """NVRTC refused a source or a GPU; the message says why."""


class Nvrtc:
    """The NVRTC library, by its C interface."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def architectures(self) -> list[int]:
        """Returns the GPUs it compiles for, as numbers such as 90."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        found = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", found)
        return list(found)

    def compile(
        self, text: str, name: str, headers: dict[str, str], options: list[str]
    ) -> tuple[bytes, str]:
        """Returns the compiled code (PTX for an architecture "compute_...") and the log."""
        program = ctypes.c_void_p()
        strings = ctypes.c_char_p * len(headers)
        self._call(
            "nvrtcCreateProgram",
            *(ctypes.byref(program), text.encode(), name.encode(), len(headers)),
            strings(*(content.encode() for content in headers.values())),
            strings(*(header.encode() for header in headers)),
        )
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(program, len(options), flags)
            log = self._text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program).decode()
            if status:
                raise CompileError(f"{name} {' '.join(options)}\n{log}")
            kind = "PTX" if any("=compute_" in option for option in options) else "CUBIN"
            return self._text(f"nvrtcGet{kind}Size", f"nvrtcGet{kind}", program), log.strip("\0 \n")
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _text(self, size_name: str, name: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(size_name, program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(name, program, buffer)
        return buffer.raw

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            reason = self._library.nvrtcGetErrorString(status).decode()
            raise CompileError(f"{name} failed: {reason}")


@functools.cache
def find_nvrtc() -> Nvrtc:
    """Returns NVRTC, that of torch's own CUDA before any other.

    Raises:
        OSError: if it is nowhere; the text says what to install.
    """
    tried = []
    for path in _candidates():
        try:
            return Nvrtc(path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
    note = f" Tried: {'; '.join(tried)}." if tried else ""
    raise OSError(f"NVRTC was not found: pip install 'gnnlab[cuda]'.{note}")


def _candidates() -> Iterator[str]:
    import torch

    packages = list(_PACKAGES)
    if (torch.version.cuda or "").startswith("12"):
        packages.sort(key=lambda name: not name.endswith("cu12"))
    for package in packages:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith(("libnvrtc.so", "nvrtc64_")) and "alt" not in file.name:
                yield str(file.locate())
    found = ctypes.util.find_library("nvrtc")
    if found:
        yield found


@dataclass
class Compiler:
    """Compiles Units, each once: what was made before comes from memory or disk."""

    nvrtc: Nvrtc
    folder: Path
    memory: dict[str, bytes] = field(default_factory=dict)

    def options(self, code: Unit, arch: str) -> list[str]:
        """Returns NVRTC's options."""
        definitions = [f"-D{key}={value}" for key, value in code.defines]
        return [f"--gpu-architecture={arch}", "--std=c++17", "-default-device", *definitions]

    def key(self, code: Unit, arch: str) -> str:
        """Returns the cache name: a digest of all that the result depends on."""
        parts = [read_source(f"{code.source}.cu"), *headers().values(), str(self.nvrtc.version)]
        text = "\0".join([*parts, *self.options(code, arch)])
        return hashlib.sha256(text.encode()).hexdigest()

    def arch_name(self, number: int) -> str:
        """Returns "sm_90" for 90; PTX of the newest known GPU before it where NVRTC is older."""
        known = self.nvrtc.architectures()
        if number in known:
            return f"sm_{number}"
        older = [arch for arch in known if arch < number]
        if not older:
            raise CompileError(
                f"NVRTC {self.nvrtc.version[0]}.{self.nvrtc.version[1]} does not compile for "
                f"sm_{number}; it knows {', '.join(map(str, known))}"
            )
        return f"compute_{max(older)}"

    def path(self, code: Unit, arch: str) -> Path:
        """Returns the file of the disk cache."""
        return self.folder / f"{self.key(code, arch)}.cubin"

    def is_kept(self, code: Unit, arch: str) -> bool:
        """Whether the disk cache has it, undamaged."""
        return _read(self.path(code, arch)) is not None

    def compile(self, code: Unit, arch: str) -> bytes:
        """Returns the machine code of a Unit."""
        key = self.key(code, arch)
        found = self.memory.get(key)
        if found is not None:
            return found
        path = self.folder / f"{key}.cubin"
        result = _read(path)
        if result is None:
            result, _ = self.compile_fresh(code, arch)
            _write(path, result)
        self.memory[key] = result
        return result

    def compile_fresh(self, code: Unit, arch: str) -> tuple[bytes, str]:
        """Returns the machine code and NVRTC's log, whatever the cache holds."""
        name = f"{code.source}.cu"
        return self.nvrtc.compile(read_source(name), name, headers(), self.options(code, arch))


@functools.cache
def compiler() -> Compiler:
    """Returns this process's compiler; OSError if there is no NVRTC."""
    return Compiler(find_nvrtc(), cache_folder())


def _read(path: Path) -> bytes | None:
    """Returns what _write kept, None if there is nothing or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    return body if body and hashlib.sha256(body).digest() == digest else None


def _write(path: Path, body: bytes) -> None:
    """Keeps `body` and its digest; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body + hashlib.sha256(body).digest())
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
