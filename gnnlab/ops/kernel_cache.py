"""What `gnnlab kernels` does: fills the cache of CUDA kernels, and tells what was found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from gnnlab.folders import cache_folder
from gnnlab.ops import _gpu
from gnnlab.ops._gpu import _compile, _cuda, _source
from gnnlab.ops._library import status

__all__ = ["build", "examine", "names"]


def names(match: Sequence[str] = ()) -> list[str]:
    """Returns the names of the compilations that contain all words of `match`.

    Example:
        >>> from gnnlab.ops.kernel_cache import names
        >>> names(["gather", "W=w16"])
        ['gather.cu I=i32 W=w16', 'gather.cu I=i64 W=w16']
    """
    return [str(code) for code in _chosen(match)]


def build(architectures: Sequence[int], match: Sequence[str] = ()) -> Iterator[tuple[str, bool]]:
    """Compiles what the cache lacks; yields each name and whether it was compiled now.

    Args:
        architectures: compute capabilities as numbers, for example 90.
        match: words that the name of a compilation must contain.

    Raises:
        OSError: if there is no NVRTC.
        CompileError: if NVRTC does not know an architecture.
    """
    compiler = _compile.Compiler(_compile.find_nvrtc(), cache_folder())
    arches = [compiler.arch_name(number) for number in architectures]
    todo = [(code, arch) for arch in arches for code in _chosen(match)]

    def compile_one(job: tuple[_source.Unit, str]) -> tuple[str, bool]:
        code, arch = job
        fresh = not compiler.is_kept(code, arch)
        compiler.compile(code, arch)
        if fresh and not compiler.path(code, arch).is_file():
            raise OSError(f"{compiler.folder} cannot be written")
        return f"{arch} {code}", fresh

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(compile_one, todo)


def examine() -> dict[str, Any]:
    """Returns what is there to run kernels with, and under "advice" what to do about the rest.

    Example:
        >>> from gnnlab.ops.kernel_cache import examine
        >>> sorted(examine())
        ['advice', 'cache', 'cpu_library', 'driver', 'gpus', 'nvrtc', 'sources', 'torch']
    """
    advice = []
    cpu = status()
    if cpu.path is None:
        advice.append(f"CPU kernels: {cpu.reason}")
    try:
        folder = _source.source_folder()
        sources = f"{folder} ({len(list(folder.glob('*.cu')))} files)"
    except OSError as error:
        sources = f"none: {error}"
        advice.append("CUDA sources: install gnnlab again")
    try:
        nvrtc = _compile.find_nvrtc()
        compiler = f"{nvrtc.version[0]}.{nvrtc.version[1]} {nvrtc.path}"
        compiler += f", for {', '.join(map(str, nvrtc.architectures()))}"
    except OSError as error:
        compiler = f"none: {error}"
        advice.append("NVRTC: pip install 'gnnlab[cuda]'")
    try:
        major, minor = _cuda.find_driver().version
        driver = f"CUDA {major}.{minor}"
    except (OSError, RuntimeError) as error:
        driver = f"none: {error}"
        advice.append("driver: comes with the NVIDIA driver of the machine; only needed for a GPU")
    if torch.version.cuda is None:
        advice.append("torch: this build has no CUDA; only needed for a GPU")
    return {
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "sources": sources,
        "nvrtc": compiler,
        "driver": driver,
        "gpus": _gpus(),
        "cache": _cache(),
        "cpu_library": cpu.path or f"none: {cpu.reason}",
        "advice": advice,
    }


def _chosen(match: Sequence[str]) -> list[_source.Unit]:
    return [code for code in _gpu.variants() if all(word in str(code) for word in match)]


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    found = [torch.cuda.get_device_properties(index) for index in range(count)]
    return [f"{gpu.name} (sm_{gpu.major}{gpu.minor})" for gpu in found]


def _cache() -> str:
    folder = cache_folder()
    if not folder.is_dir():
        return f"{folder} (not there yet)"
    sizes = [path.stat().st_size for path in folder.glob("*.cubin")]
    note = "" if os.access(folder, os.W_OK) else ", read-only"
    return f"{folder} ({len(sizes)} kernels, {sum(sizes) / 2**20:.1f} MB{note})"
