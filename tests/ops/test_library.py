"""Finding and switching the compiled kernels."""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

import gnnlab
from gnnlab import ops
from gnnlab.ops import _library

ROOT = Path(gnnlab.__file__).parent.parent
needs_kernels = pytest.mark.skipif(
    ops.status().path is None, reason=f"no compiled kernels: {ops.status().reason}"
)
PROGRAM = """
import warnings, sys
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    from gnnlab import ops
    before = ops._library._find.cache_info().currsize
    x, index = torch.ones(3, 2), torch.tensor([0, 2, 2])
    for _ in range(2):
        out = ops.scatter(ops.gather(x, index), index, 3)
    try:
        ops.gather(x, torch.tensor([5]))
    except IndexError as error:
        print(error)
texts = [str(w.message) for w in seen if "gnnlab" in str(w.message)]
print(out.sum().item(), ops.backend(), before, texts)
print(ops.status().reason)
"""

OPENMP_COPIES = """
import re
import torch
from gnnlab import ops
plan = ops.EdgePlan(torch.randint(9, (2, 50)), 9, 9)
x = torch.randn(9, 4, requires_grad=True)
torch.ones(1000, 100).sum()
ops.spmm(plan, x).sum().backward()
with open("/proc/self/maps") as maps:
    print(ops.backend(), *set(re.findall("/.*/lib(?:g|i|)omp[^/ ]*$", maps.read(), re.M)))
"""


def run(program=PROGRAM, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GNNLAB_")}
    clean["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [clean.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_can_be_switched_off_without_a_warning():
    out = run(GNNLAB_KERNELS="off")
    assert "index 5 at position 0 is out of range [0, 3)" in out
    assert "6.0 reference 0 []" in out
    assert "switched off by GNNLAB_KERNELS=off" in out


def test_missing_kernels_are_one_warning_and_never_an_error():
    out = run(GNNLAB_KERNELS="/no/such/place/libgnnlab_cpu.so")
    assert "6.0 reference 0 ['gnnlab runs without compiled kernels (same results, slower)" in out
    assert out.count("Run `gnnlab doctor`") == 1
    assert "there is no such library" in out


def test_a_file_that_is_no_library_is_a_reason_and_not_a_crash(tmp_path):
    path = tmp_path / "libgnnlab_cpu.so"
    path.write_bytes(b"not a library")
    assert "6.0 reference" in run(GNNLAB_KERNELS=str(tmp_path))


@needs_kernels
def test_path_and_instruction_set_can_be_given():
    path = ops.status().path
    assert "6.0 cpu 0 []" in run(GNNLAB_KERNELS=path)
    assert "6.0 cpu 0 []" in run(GNNLAB_KERNELS=str(Path(path).parent))
    assert "cannot run instruction set" in run(GNNLAB_KERNELS=path, GNNLAB_ISA="v99")


@needs_kernels
def test_status_tells_what_runs():
    status = ops.status()
    assert status.backend == ops.backend() == "cpu"
    assert status.isa in ("v2", "v3", "v4", "portable")
    assert status.threads >= 1
    assert status.reason == ""


def test_use_backend_is_undone_also_after_an_error():
    before = ops.backend()
    with ops.use_backend("reference"):
        assert ops.backend() == ops.status().backend == "reference"
    with pytest.raises(ZeroDivisionError), ops.use_backend("reference"):
        _ = 1 // 0
    assert ops.backend() == before
    with pytest.raises(ValueError, match="Known: auto, cpu, reference"), ops.use_backend("tpu"):
        pass


@needs_kernels
def test_kernels_refuse_arguments_that_would_lead_them_astray():
    kernels = _library.library()
    with pytest.raises(ValueError, match="a size is negative"):
        kernels.check(kernels.gather(None, 0, None, 4, -1, 0, 0, None, 1))
    with pytest.raises(ValueError, match="cannot run instruction set"):
        kernels.select_isa("z80")


@needs_kernels
def test_the_library_shares_the_threads_of_torch():
    maps = Path("/proc/self/maps")
    if not maps.exists() or not ops.status().openmp:
        pytest.skip("needs Linux and a build with OpenMP")
    ops.gather(torch.ones(3, 1), torch.tensor([0]))
    loaded = {line.split()[-1] for line in maps.read_text().splitlines() if "libgomp" in line}
    assert len(loaded) == 1


@needs_kernels
@pytest.mark.slow
def test_a_fresh_process_loads_one_openmp():
    if not Path("/proc/self/maps").exists() or not ops.status().openmp:
        pytest.skip("needs Linux and a build with OpenMP")
    backend, *copies = run(OPENMP_COPIES, GNNLAB_KERNELS=ops.status().path).split()
    assert backend == "cpu"
    assert len(copies) == 1
    assert "/libgomp" in copies[0]


@needs_kernels
def test_the_library_asks_for_system_libraries_only():
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    done = subprocess.run(
        ["readelf", "-dW", ops.status().path], capture_output=True, text=True, check=True
    )
    needed = {
        line.split("[")[1].rstrip("]") for line in done.stdout.splitlines() if "(NEEDED)" in line
    }
    plain = {"libstdc++.so.6", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "libgomp.so.1"}
    assert {name for name in needed - plain if not name.startswith("ld-linux")} == set()
    assert ("libgomp.so.1" in needed) == ops.status().openmp
    assert "PATH)" not in done.stdout  # RPATH or RUNPATH would find other copies


@needs_kernels
def test_the_library_leaves_room_in_a_wheel_of_5_megabytes():
    assert len(zlib.compress(Path(ops.status().path).read_bytes())) < 4_500_000


@needs_kernels
def test_no_kernel_of_one_instruction_set_is_shared_with_another():
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    done = subprocess.run(
        ["nm", "-C", "--defined-only", ops.status().path],
        capture_output=True,
        text=True,
        check=True,
    )
    weak = [line for line in done.stdout.splitlines() if " W " in line or " V " in line]
    assert not [line for line in weak if "std::" in line]
