"""Finds, loads and calls the compiled kernels, and says which backend runs.

The library has a plain C interface (`cuda/include/gnnlab.h`) and is called through ctypes with raw
pointers. It is looked for at the first operator call, never at import. When it is absent, every
operator runs its plain-torch reference: same results, slower, and one warning.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch  # loaded first: the kernels then share torch's OpenMP threads
from torch import Tensor, nn

if TYPE_CHECKING:
    from gnnlab.ops._kernels import Kernels

__all__ = ["Backend", "Status", "backend", "status", "use_backend"]

Backend = Literal["cpu", "reference"]

ABI_VERSION = 6

_ERRORS: dict[int, type[Exception]] = {1: ValueError, 2: IndexError, 3: MemoryError}
_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_D, _U = ctypes.c_double, ctypes.c_uint64
_SIGNATURES: dict[str, list[Any]] = {
    "same_bytes": [_P, _P, _L],
    "check_index": [_P, _I, _L, _L, ctypes.POINTER(_I)],
    "check_indptr": [_P, _L, _L],
    "plan_build": [_P, _P, _I, _L, _L, _L, _P, _P, _P, _I, _I],
    "gather": [_P, _L, _P, _I, _L, _L, _L, _P, _I],
    "scatter": [_P, _L, _P, _I, _L, _L, _L, _I, _I, _P, _P, _I, _I],
    "reduce": [_P, _P, _L, _L, _L, _P, _L, _I, _I, _P, _P, _I],
    "reduce_multi": [_P, _P, _L, _L, _L, _P, _L, _I, _P, _P, _P, _P, _P, _I],
    "reduce_arg_backward": [_P, _P, _P, _P, _L, _L, _L, _P, _L, _L, _I, _P, _P, _I],
    "spmm_backward": [_P, _P, _L, _P, _L, _L, _L, _P, _L, _I, _P, _P, _I],
    "sddmm": [_P, _P, _L, _P, _L, _L, _L, _I, _I, _P, _I],
    "softmax": [_P, _P, _I, _P, _L, _I, _I, _P, _I],
    "softmax_backward": [_P, _P, _I, _P, _P, _L, _I, _I, _P, _I],
    "gat": [_P] * 5 + [_L, _L, _D, _D, _U, _I] + [_P] * 3 + [_I],
    "gatv2": [_P] * 5 + [_L, _L, _D, _I] + [_P] * 3 + [_I],
    "attention": [_P] * 5 + [_L, _L, _D, _I] + [_P] * 3 + [_I],
    "gat_backward": [_P] * 10 + [_L, _L, _D, _D, _U, _I] + [_P] * 4 + [_I],
    "gatv2_backward": [_P] * 10 + [_L, _L, _D, _I] + [_P] * 4 + [_I],
    "attention_backward": [_P] * 10 + [_L, _L, _D, _I] + [_P] * 4 + [_I],
    "relu_sum": [_P] * 3 + [_L, _I, _P, _I],
    "relu_sum_backward": [_P] * 4 + [_L, _I, _P, _P, _I],
    "gated_sum": [_P] * 4 + [_L, _I, _P, _I],
    "gated_sum_backward": [_P] * 6 + [_L, _I] + [_P] * 3 + [_I],
    "sample_count": [_P, _P, _L, _L, _I, _P],
    "sample_draw": [_P, _P, _L, _L, _I, _U, _L, _P, _P, _P, _I],
    "sample_number": [_P, _L, _I, _L, _P, _I, _L, _P, _P],
    "partition": [_P, _P, _L, _L, _L, _P],
    "radius": [_P, _P, _L, _P, _P, _L, _L, _L, _D, _I, _P, ctypes.POINTER(_P), _I],
    "found_write": [_P, _P, _P, _P, _I],
    "knn": [_P, _P, _L, _P, _P, _L, _L, _L, _L, _I, _P, _I],
}


class Library:
    """The loaded kernels: one attribute per C function, each returning an int."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.path = path
        self._library = library
        library.gnnlab_abi_version.restype = _I
        version = library.gnnlab_abi_version()
        if version != ABI_VERSION:
            raise OSError(f"it has interface version {version}, this gnnlab needs {ABI_VERSION}")
        library.gnnlab_last_error.restype = ctypes.c_char_p
        library.gnnlab_isa.restype = ctypes.c_char_p
        library.gnnlab_has_openmp.restype = _I
        library.gnnlab_select_isa.argtypes = [ctypes.c_char_p]
        self.declare(_SIGNATURES)

    def declare(self, signatures: Mapping[str, list[Any]]) -> None:
        """Makes the C functions gnnlab_NAME callable as attributes; each returns a status."""
        for name, argtypes in signatures.items():
            function = getattr(self._library, f"gnnlab_{name}")
            function.argtypes = argtypes
            function.restype = _I
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # for type checkers; the attributes are set above
        raise AttributeError(name)

    @property
    def isa(self) -> str:
        """The instruction set in use: v2, v3, v4 (levels of x86-64) or portable."""
        return bytes(self._library.gnnlab_isa()).decode()

    @property
    def openmp(self) -> bool:
        """Whether the kernels were built with threads."""
        return bool(self._library.gnnlab_has_openmp())

    def select_isa(self, name: str) -> None:
        """Chooses the instruction set by name, or "auto"; ValueError when it cannot run here."""
        self.check(self._library.gnnlab_select_isa(name.encode()))

    def check(self, status: int) -> None:
        """Raises the Python error that belongs to a status other than 0."""
        if status:
            self._raise(status)

    def _raise(self, status: int) -> NoReturn:
        text = bytes(self._library.gnnlab_last_error()).decode(errors="replace")
        raise _ERRORS.get(status, RuntimeError)(text)


@dataclass(frozen=True)
class _Found:
    """What the search for the library gave."""

    library: Library | None
    reason: str  # why there is none; "" when there is one
    on_purpose: bool  # whether the user asked for none


def _locate() -> Path:
    """Returns where the library lies; OSError with the reason when it is nowhere."""
    override = os.environ.get("GNNLAB_KERNELS", "")
    if override:
        path = Path(override)
        if path.is_dir():
            path = next(iter(sorted(path.glob("libgnnlab_cpu*"))), path / "libgnnlab_cpu.so")
        if not path.is_file():
            raise OSError(f"GNNLAB_KERNELS is {override}, but there is no such library")
        return path
    try:
        files = importlib.metadata.files("gnnlab") or []
    except importlib.metadata.PackageNotFoundError:
        raise OSError("gnnlab is used from its source folder, without being installed") from None
    for file in files:
        if file.name.startswith("libgnnlab_cpu"):
            return Path(str(file.locate()))
    raise OSError("gnnlab was installed without compiled kernels (no C++ compiler at that time?)")


@functools.cache
def _find() -> _Found:
    if os.environ.get("GNNLAB_KERNELS", "").lower() == "off":
        return _Found(None, "switched off by GNNLAB_KERNELS=off", True)
    try:
        path = _locate()
    except OSError as error:
        return _Found(None, str(error), False)
    try:
        library = Library(path)
        library.select_isa(os.environ.get("GNNLAB_ISA") or "auto")
    except (OSError, AttributeError, ValueError) as error:
        return _Found(None, f"{path} cannot be used: {error}", False)
    return _Found(library, "", False)


_forced: str | Kernels = "auto"
_warned = False


def library() -> Library | None:
    """Returns the loaded kernels or None, and warns once when they are missing unasked."""
    global _warned
    found = _find()
    if found.library is None and not found.on_purpose and not _warned:
        _warned = True
        warnings.warn(
            f"gnnlab runs without compiled kernels (same results, slower): {found.reason}. "
            "Run `gnnlab doctor`.",
            RuntimeWarning,
            stacklevel=4,
        )
    return found.library


transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)
_is_compiling = torch.compiler.is_compiling


def is_watched() -> bool:
    """Whether torch.compile, torch.func or a dispatch mode wants to see every operator."""
    return _is_compiling() or transforms_active() or _dispatch_modes() > 0


def may_keep() -> bool:
    """Whether a tensor made now lasts: torch.func and dispatch modes make some that do not."""
    return _is_compiling() or not is_watched()


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether someone looks on, or one of the tensors is a subclass that may not be opened.

    Operators then go through torch's dispatcher instead of calling a kernel at once.
    """
    if is_watched():
        return True
    return any(
        t is not None and type(t) is not Tensor and type(t) is not nn.Parameter for t in tensors
    )


def cpu_library(tensor: Tensor) -> Library | None:
    """Returns the CPU library if it can take this tensor as it is, else None."""
    if _forced == "reference" or not tensor.is_cpu or is_traced(tensor):
        return None
    return library()


@functools.cache
def cpu_kernels() -> Kernels | None:
    """Returns the operators of the CPU library, None without one."""
    from gnnlab.ops._cpu import CpuKernels

    found = library()
    return None if found is None else CpuKernels(found)


@functools.cache
def _cuda_kernels() -> Kernels | None:
    """Returns the CUDA operators, None (and one warning with the reason) where they cannot run."""
    from gnnlab.ops._gpu import cuda_kernels

    try:
        return cuda_kernels()
    except OSError as error:
        warnings.warn(
            f"gnnlab runs without its CUDA kernels (same results, slower): {error}. "
            "Run `gnnlab kernels doctor`.",
            RuntimeWarning,
            stacklevel=4,
        )
        return None


def kernels_for(tensor: Tensor) -> Kernels | None:
    """Returns the compiled operators for this tensor's device; None means the reference."""
    if tensor.is_cpu and (_forced == "auto" or _forced == "cpu"):
        return cpu_kernels()
    if _forced != "auto":
        return None if isinstance(_forced, str) else _forced
    return _cuda_kernels() if tensor.is_cuda else None


def backend() -> Backend:
    """Returns which implementation serves float32 tensors on the CPU: "cpu" or "reference".

    Example:
        >>> import gnnlab.ops
        >>> gnnlab.ops.backend() in ("cpu", "reference")
        True
    """
    return "reference" if _forced == "reference" or library() is None else "cpu"


@contextlib.contextmanager
def use_backend(name: Literal["auto", "cpu", "reference"] | Kernels) -> Iterator[None]:
    """Makes all operators of this process use one backend inside a `with` block; for tests.

    Args:
        name: "reference" (plain torch), "cpu" (compiled kernels wherever they cover the input),
            "auto" (what is used without this function), or an object with the methods of
            `gnnlab.ops._kernels.Kernels`.

    Raises:
        ValueError: if the name is none of these.
        RuntimeError: if "cpu" is asked for and there are no compiled kernels.

    Example:
        >>> import gnnlab.ops
        >>> with gnnlab.ops.use_backend("reference"):
        ...     gnnlab.ops.backend()
        'reference'
    """
    global _forced
    if isinstance(name, str) and name not in ("auto", "cpu", "reference"):
        raise ValueError(f'unknown backend "{name}". Known: auto, cpu, reference.')
    if name == "cpu" and _find().library is None:
        raise RuntimeError(f"there are no compiled kernels: {_find().reason}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


@dataclass(frozen=True)
class Status:
    """What `gnnlab doctor` tells about the kernels."""

    backend: Backend
    """Which implementation serves float32 tensors on the CPU."""
    path: str | None
    """The library in use; None without one."""
    reason: str
    """Why there is no library; empty when there is one."""
    isa: str | None
    """Instruction set in use: v2, v3, v4 (levels of x86-64) or portable."""
    openmp: bool
    """Whether the kernels can use several threads."""
    threads: int
    """How many threads they would use now."""


def status() -> Status:
    """Returns what runs and why, without warning and without computing anything.

    Example:
        >>> import gnnlab.ops
        >>> gnnlab.ops.status().threads >= 1
        True
    """
    found = _find()
    kernels = found.library
    return Status(
        backend="reference" if kernels is None or _forced == "reference" else "cpu",
        path=None if kernels is None else str(kernels.path),
        reason=found.reason,
        isa=None if kernels is None else kernels.isa,
        openmp=kernels is not None and kernels.openmp,
        threads=torch.get_num_threads() if kernels is not None and kernels.openmp else 1,
    )
