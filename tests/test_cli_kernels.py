"""`gnnlab kernels`: what it prints, and what it leaves in the cache."""

import json

import pytest

from gnnlab.ops._gpu import _compile


@pytest.fixture
def nvrtc():
    try:
        return _compile.find_nvrtc()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_nvrtc(monkeypatch):
    monkeypatch.setattr(_compile, "_candidates", lambda: iter(()))
    _compile.find_nvrtc.cache_clear()
    yield
    monkeypatch.undo()
    _compile.find_nvrtc.cache_clear()


def test_build_fills_the_cache(cli, nvrtc, monkeypatch):
    monkeypatch.setenv("GNNLAB_CACHE", str(cli.folder("cache")))
    words = ("kernels", "build", "--arch", "90,sm_80", "--match", "gather,W=u32,I=i32", "--json")
    first, second = cli(*words), cli(*words)
    assert json.loads(first.out) == {"kernels": 2, "compiled": 2, "already_there": 0}
    assert "[1/2] sm_90 gather.cu I=i32 W=u32" in first.err
    assert json.loads(second.out) == {"kernels": 2, "compiled": 0, "already_there": 2}
    assert second.err == ""
    assert len(list(cli.folder("cache").glob("*.cubin"))) == 2


def test_a_cache_that_cannot_be_written_is_an_error(cli, nvrtc, monkeypatch):
    cli.folder("file").write_text("in the way")
    monkeypatch.setenv("GNNLAB_CACHE", str(cli.folder("file") / "cache"))
    answer = cli("kernels", "build", "--arch", "90", "--match", "gather,W=u32,I=i32")
    assert answer.code == 1
    assert "cannot be written" in answer.err


@pytest.mark.parametrize(
    ("arch", "message"), [("9x", "must be numbers such as 80,90,100"), ("10", "not compile for")]
)
def test_wrong_architectures(cli, nvrtc, arch, message):
    answer = cli("kernels", "build", "--arch", arch)
    assert answer.code == 2
    assert message in answer.err


def test_list_needs_nothing(cli, no_nvrtc):
    answer = cli("kernels", "build", "--list")
    lines = answer.out.splitlines()
    assert answer.code == 0
    assert {line.split()[0] for line in lines} >= {"gather.cu", "rows.cu", "arg.cu", "multi.cu"}
    assert cli("kernels", "build", "--list", "--match", "gather,W=u32").out.splitlines() == [
        "gather.cu I=i32 W=u32",
        "gather.cu I=i64 W=u32",
    ]


def test_without_nvrtc_it_says_what_to_install(cli, no_nvrtc):
    answer = cli("kernels", "build")
    assert answer.code == 1
    assert "pip install 'gnnlab[cuda]'" in answer.err
    answer = cli("kernels", "doctor")
    assert answer.code == 0
    assert "NVRTC: pip install 'gnnlab[cuda]'" in answer.out


def test_doctor(cli, nvrtc):
    found = json.loads(cli("kernels", "doctor", "--json").out)
    assert found["nvrtc"].startswith(".".join(map(str, nvrtc.version)))
    assert "files)" in found["sources"]
    for key in found:
        if key != "advice":
            assert key in cli("kernels", "doctor").out
