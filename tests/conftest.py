"""Fixtures: tests/toys as an installed third-party package, and the command line in process."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# As the command line does: idle threads sleep soon, so that a busy machine stays usable.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# The same examples in every run, and no clock: a busy machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent
TOYS = ROOT / "tests" / "toys"


def make_wheel(folder, name, version, files):
    """Writes a pure-Python wheel by hand: `files` maps archive names to bytes."""
    info = f"{name}-{version}.dist-info"
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        record.append(f"{path},sha256={digest.decode()},{len(content)}")
    record.append(f"{info}/RECORD,,\n")
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in members.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/RECORD", "\n".join(record))
    return wheel


@dataclass
class Toys:
    """The installed third-party package."""

    path: Path
    env: dict

    def __getattr__(self, name):
        return getattr(importlib.import_module("gnnlab_toys"), name)


@pytest.fixture(scope="session")
def toys_site(tmp_path_factory):
    """A folder into which pip installed the wheel of tests/toys."""
    folder = tmp_path_factory.mktemp("toys")
    info = "gnnlab_toys-0.1.dist-info"
    files = {
        f"gnnlab_toys/{file.name}": file.read_bytes()
        for file in sorted((TOYS / "gnnlab_toys").glob("*.py"))
    }
    files[f"{info}/entry_points.txt"] = (TOYS / "entry_points.txt").read_bytes()
    wheel = make_wheel(folder, "gnnlab_toys", "0.1", files)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    quiet = ["--disable-pip-version-check", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*command, *quiet], check=True, capture_output=True)
    return folder / "site"


@pytest.fixture
def toys(toys_site, monkeypatch):
    """The toys, importable and registered in this process; `env` does it for a subprocess."""
    monkeypatch.syspath_prepend(str(toys_site))
    path = os.pathsep.join([str(ROOT), str(toys_site)])
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for one another
    yield Toys(toys_site, {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(threads)


@dataclass
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs the command line in this process, in an empty folder."""
    from gnnlab.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        caught = capsys.readouterr()
        return Answer(stop.value.code, caught.out, caught.err)

    run.folder = tmp_path.joinpath
    return run


@pytest.fixture
def scripted(monkeypatch):
    """The tasks of tests/scripted.py, registered for this test only."""
    import scripted

    from gnnlab import registry

    monkeypatch.setattr(registry, "_registered", {})
    for task in (scripted.Scripted, scripted.ScriptedMin, scripted.Counted):
        registry.register(task)
    return scripted
