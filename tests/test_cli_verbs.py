"""A task's own verbs stand beside `compare`, and nobody else pays for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gnnlab.testing import check_task


def test_verb_of_a_task_runs_and_its_return_value_is_the_exit_code(toys, cli):
    answer = cli("toyshop", "smith", "--times", "3,1", "--weights", "2,5")
    assert (answer.code, answer.out, answer.err) == (0, "1 0\n", "")
    assert cli("toyshop", "smith", "--times", "3", "--weights", "2,5").code == 1


def test_help_shows_the_verbs_of_a_task_and_their_flags(toys, cli):
    answer = cli("toyshop", "--help")
    assert "smith" in answer.out
    assert "Order jobs on one machine by Smith's rule." in answer.out
    assert "compare" in answer.out
    assert "Processing time of each job" in cli("toyshop", "smith", "--help").out


def test_task_without_verbs_has_only_compare(toys, cli):
    answer = cli("toyrank", "smith")
    assert (answer.code, answer.out) == (2, "")
    assert 'Unknown command "smith"' in answer.err


def test_mistyped_verb_gets_a_suggestion(toys, cli):
    answer = cli("toyshop", "smiht")
    assert (answer.code, answer.out) == (2, "")
    assert 'Did you mean "smith"?' in answer.err


@pytest.mark.parametrize(
    "target", ["gnnlab_toys.gone:smith", "gnnlab_toys.verbs:gone", "gnnlab_toys.verbs", ""]
)
def test_verb_that_does_not_load_is_a_sentence(toys, cli, monkeypatch, target):
    monkeypatch.setattr(toys.ToyShop, "commands", {"smith": target})
    answer = cli("toyshop", "smith")
    assert (answer.code, answer.out) == (2, "")
    assert f'the verb "smith" of the task "toyshop" does not load from "{target}"' in answer.err
    assert "Traceback" not in answer.err


def test_modules_of_verbs_are_imported_for_their_task_only(toys):
    code = """
import sys
from gnnlab.cli import main
for words in ([], ["--help"], ["list", "--help"], ["toyrank", "--help"]):
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
assert "gnnlab_toys.verbs" not in sys.modules
try:
    main(["toyshop", "--help"])
except SystemExit:
    pass
assert "gnnlab_toys.verbs" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=toys.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("commands", "complaint"),
    [
        ({"compare": "gnnlab_toys.verbs:smith"}, "compare"),
        ({"smith": "gnnlab_toys.verbs:gone"}, "does not load"),
    ],
)
def test_check_task_looks_at_the_verbs(toys, monkeypatch, commands, complaint):
    monkeypatch.setattr(toys.ToyShop, "commands", commands)
    with pytest.raises(AssertionError, match=complaint):
        check_task(toys.ToyShop, "3")
