"""CUDA sources through NVRTC, its cache, and the launcher on a driver that only takes notes."""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gnnlab.ops import _gpu
from gnnlab.ops._gpu import _compile, _cuda, _source
from gnnlab.ops._gpu._launch import RawRows, pack, unit

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
ELF = b"\x7fELF"


@pytest.fixture(scope="module")
def nvrtc():
    try:
        return _compile.find_nvrtc()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def compiler(nvrtc, tmp_path):
    return _compile.Compiler(nvrtc, tmp_path / "cache")


def every_family():
    """One compilation of each source."""
    found = {}
    for code in _gpu.variants():
        found.setdefault(code.source, code)
    return list(found.values())


def compiles(compiler, code, arch):
    image, log = compiler.compile_fresh(code, arch)
    assert image.startswith(ELF)
    assert log == "", f"{code} for {arch}: {log}"


def test_the_sources_are_all_represented():
    files = {path.stem for path in _source.source_folder().glob("*.cu")}
    assert {code.source for code in _gpu.variants()} == files
    assert len(set(_gpu.variants())) == len(_gpu.variants())


@pytest.mark.parametrize(
    ("code", "arch"), [(c, ARCHITECTURES[i % 3]) for i, c in enumerate(every_family())], ids=str
)
def test_each_source_compiles_without_a_warning(compiler, code, arch):
    compiles(compiler, code, arch)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("code", every_family(), ids=str)
def test_every_kernel_file_compiles_for_all_architectures(compiler, code, arch):
    compiles(compiler, code, arch)


@pytest.mark.exhaustive
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("code", _gpu.variants(), ids=str)
def test_every_variant_compiles_without_a_warning(compiler, code, arch):
    compiles(compiler, code, arch)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
@pytest.mark.slow
@pytest.mark.parametrize("code", every_family(), ids=lambda code: code.source)
def test_nvcc_agrees(code, tmp_path):
    source = _source.source_folder() / f"{code.source}.cu"
    flags = [f"-D{key}={value}" for key, value in code.defines]
    flags += ["-std=c++17", "-arch=sm_90", "-cubin", "-Werror", "all-warnings"]
    subprocess.run(["nvcc", *flags, str(source), "-o", str(tmp_path / "x")], check=True)


def test_a_mistake_in_a_source_is_told(nvrtc):
    with pytest.raises(_compile.CompileError, match=r"bad.cu\(2\): error"):
        nvrtc.compile("\nint x = y;", "bad.cu", {}, ["--gpu-architecture=sm_90"])


class Counting(_compile.Compiler):
    """Counts what is compiled afresh."""

    def compile_fresh(self, code, arch):
        self.count = getattr(self, "count", 0) + 1
        return super().compile_fresh(code, arch)


CODE = unit("gather", W="u32", I="i32")


def test_the_cache_serves_other_processes(nvrtc, tmp_path):
    first = Counting(nvrtc, tmp_path / "cache")
    image = first.compile(CODE, "sm_90")
    assert first.compile(CODE, "sm_90") is image
    second = Counting(nvrtc, tmp_path / "cache")
    assert second.compile(CODE, "sm_90") == image
    assert (first.count, getattr(second, "count", 0)) == (1, 0)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".cubin"]
    assert second.compile(CODE, "sm_80") != image
    other = unit("gather", W="u64", I="i32")
    keys = {second.key(CODE, "sm_90"), second.key(CODE, "sm_80"), second.key(other, "sm_90")}
    assert len(keys) == 3


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_entry_is_made_again(nvrtc, tmp_path, damage):
    image = Counting(nvrtc, tmp_path).compile(CODE, "sm_90")
    path = Counting(nvrtc, tmp_path).path(CODE, "sm_90")
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"?" + data[101:] if damage is None else damage)
    again = Counting(nvrtc, tmp_path)
    assert again.compile(CODE, "sm_90") == image
    assert again.count == 1
    assert path.read_bytes() == data


def test_a_folder_that_cannot_be_written_is_no_error(nvrtc, tmp_path):
    (tmp_path / "file").write_text("in the way")
    compiler = Counting(nvrtc, tmp_path / "file" / "cache")
    assert compiler.compile(CODE, "sm_90") is compiler.compile(CODE, "sm_90")
    assert compiler.count == 1


def test_newer_gpus_than_nvrtc_knows_get_ptx(compiler):
    known = compiler.nvrtc.architectures()
    assert compiler.arch_name(90) == "sm_90"
    newer = compiler.arch_name(max(known) + 100)
    assert newer == f"compute_{max(known)}"
    assert b".version" in compiler.compile(CODE, newer)
    with pytest.raises(_compile.CompileError, match="does not compile for sm_10"):
        compiler.arch_name(10)


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("GNNLAB_CACHE", "/somewhere")
    assert _compile.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("GNNLAB_CACHE")
    assert _compile.cache_folder() == Path.home() / ".cache" / "gnnlab"


def test_arguments_fill_eight_bytes_each():
    x = torch.zeros(3)
    packed = pack([x, None, -5, 0.25, RawRows(77, 3)])
    assert struct.unpack("<QQqdQ", packed) == (x.data_ptr(), 0, -5, 0.25, 77)


@pytest.fixture
def driver(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler")
    source, path = Path(__file__).parent / "kernels" / "fake_driver.c", tmp_path / "libfake.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-x", "c", str(source), "-o", str(path)], check=True
    )
    driver = _cuda.Driver(str(path))
    driver._library.fake_record.restype = ctypes.c_char_p
    driver._library.fake_args.restype = ctypes.POINTER(ctypes.c_ubyte)
    return driver


@pytest.fixture
def launcher(driver, monkeypatch):
    """On CPU tensors: what the driver is asked for is looked at, nothing runs."""

    class Fake:
        def arch_name(self, number):
            return f"sm_{number}"

        def compile(self, code, arch):
            return b"\x7fELF " + f"{code} {arch}".encode()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    stream = SimpleNamespace(cuda_stream=0xABC)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    return _cuda.CudaLauncher(driver, Fake())


def test_what_the_driver_is_asked_for(driver, launcher):
    x = torch.zeros(3)
    launcher.launch(CODE, "some", (5, 2), 128, 50000, x, 7, None, 1.5, 8)
    launcher.launch(CODE, "some", 3, 64, 0, x, 7, None, 1.5, 9)
    launcher.launch(CODE, "other", 0, 64, 0, x)
    record = driver._library.fake_record().decode().split(";")
    assert record[:-1] == [
        "load ELF",
        "function 0x1000 some",
        "attribute 0x2000 8 50000",
        "launch 0x2000 5,2,1 128,1,1 50000 0xabc 1",
        "launch 0x2000 3,1,1 64,1,1 0 0xabc 1",
    ]
    args = bytes(driver._library.fake_args()[:40])
    assert struct.unpack("<QqQdq", args) == (x.data_ptr(), 7, 0, 1.5, 9)
    assert driver.version == (13, 2)


def test_errors_of_the_driver_are_told(driver, launcher):
    driver._library.fake_fail(700)
    with pytest.raises(RuntimeError, match=r"illegal memory access was encountered \(700\)"):
        launcher.launch(CODE, "some", 1, 64, 0, torch.zeros(1))
