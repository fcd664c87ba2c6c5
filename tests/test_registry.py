"""Tasks of other packages: found, named when broken, never silently replaced."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import make_wheel

import gnnlab
from gnnlab import registry
from gnnlab.errors import ConfigError

GOOD = b"""
import gnnlab

class Config:
    pass

class Echo(gnnlab.Task):
    '''Echoes.'''
    name, Config, monitor, mode, headline = "echo", Config, "score", "max", ("score",)
    read = batches = loss = evaluate = predict = None
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs a package of one module that registers tasks; returns its folder."""

    def install(name, module, points):
        info = f"{name}-1.2.dist-info"
        lines = "\n".join(f"{task} = {value}" for task, value in points.items())
        files = {
            f"{name}.py": module,
            f"{info}/entry_points.txt": f"[gnnlab.tasks]\n{lines}\n".encode(),
        }
        wheel = make_wheel(tmp_path, name, "1.2", files)
        site = tmp_path / f"site_{name}"
        import zipfile

        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return site

    return install


def test_task_of_another_package_is_listed_and_loaded(package):
    package("echo_one", GOOD, {"echo": "echo_one:Echo"})
    assert gnnlab.list_tasks()["echo"] == "echo_one:Echo"
    assert "echo_one" not in sys.modules  # listing imports nothing
    assert gnnlab.load_task("echo").__name__ == "Echo"


def test_unknown_task_is_named_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r'^unknown task "recomend"\. Did you mean "recommend"\?$'
    ):
        gnnlab.load_task("recomend")


BROKEN = {
    "raises": (b"1 / 0", r"ZeroDivisionError: division by zero"),
    "imports": (b"import no_such_package_at_all", r"ModuleNotFoundError: .*no_such_package_at_all"),
    "lacks": (b"x = 1", r"AttributeError: .*Echo"),
    "syntax": (b"def", r"SyntaxError: "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_plug_in_is_a_sentence_naming_its_package(package, kind):
    module, reason = BROKEN[kind]
    package(f"broken_{kind}", module, {"echo": f"broken_{kind}:Echo"})
    sentence = f'^the task "echo" of package broken_{kind} 1.2 does not import: {reason}'
    with pytest.raises(ConfigError, match=sentence):
        gnnlab.load_task("echo")
    assert registry.broken_tasks()["echo"].startswith('the task "echo" of package broken_')


def test_list_goes_on_beside_a_broken_plug_in_and_warns(package, cli):
    package("broken_list", b"1 / 0", {"echo": "broken_list:Echo"})
    answer = cli("list")
    assert answer.code == 0
    assert "recommend" in answer.out
    assert "echo" not in answer.out
    assert answer.err.startswith(
        'warning: the task "echo" of package broken_list 1.2 does not import: ZeroDivisionError'
    )
    asked = cli("train", "echo", "--data", "x")
    assert (asked.code, asked.out) == (2, "")
    assert 'ConfigError: the task "echo" of package broken_list 1.2 does not import' in asked.err


def test_plug_in_whose_class_has_another_name_is_refused(package):
    package("misnamed", GOOD, {"parrot": "misnamed:Echo"})
    sentence = r'package misnamed 1\.2 registers "parrot", but misnamed:Echo calls itself "echo"'
    with pytest.raises(ConfigError, match=sentence):
        gnnlab.load_task("parrot")


def test_two_packages_with_one_name_are_a_warning_and_the_first_is_used(package):
    package("echo_second", GOOD, {"echo": "echo_second:Echo"})
    package("echo_first", GOOD, {"echo": "echo_first:Echo"})  # before it on the path
    sentence = 'the task "echo": echo_first 1.2 .used. and echo_second 1.2'
    with pytest.warns(UserWarning, match=sentence):
        found = gnnlab.load_task("echo")
    assert found.__module__ == "echo_first"


def test_one_package_seen_twice_on_the_path_is_no_duplicate(package, recwarn, monkeypatch):
    site = package("echo_twice", GOOD, {"echo": "echo_twice:Echo"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    assert gnnlab.load_task("echo").__module__ == "echo_twice"
    assert [w for w in recwarn if "echo" in str(w.message)] == []


def test_registered_class_is_known_in_this_process_only(scripted):
    assert gnnlab.load_task("scripted") is scripted.Scripted
    assert gnnlab.list_tasks()["scripted"] == "scripted:Scripted"
    code = "import gnnlab; assert 'scripted' not in gnnlab.list_tasks()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_registering_twice_is_fine_and_replacing_is_not(scripted):
    assert gnnlab.register(scripted.Scripted) is scripted.Scripted
    thief = type("Thief", (), {"name": "scripted"})
    with pytest.raises(ConfigError, match=r'the task name "scripted" is taken\.'):
        gnnlab.register(thief)
    with pytest.raises(ConfigError, match=r'the task name "recommend" is taken\.'):
        gnnlab.register(type("Thief", (), {"name": "recommend"}))
