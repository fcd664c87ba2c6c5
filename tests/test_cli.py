"""The command line: exit codes, suggestions, clean streams, a light start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnnlab.cli import main
from gnnlab.errors import CheckpointError

TRAIN = ["train", "scripted", "--data", "x", "--epochs", "2", "--out", "run"]


MISTAKES = [
    (["trian"], r'Unknown command "trian"\. Did you mean "train"\?'),
    (["train"], r"train what\? gnnlab train TASK --data FILE, or gnnlab train --resume DIR"),
    (["train", "scriptde"], r'unknown task "scriptde"\. Did you mean "scripted(min)?"\?'),
    (["train", "scripted"], r"no data: pass --data FILE"),
    (["train", "scripted", "--data", "x", "--epoch", "4"], r"--epoch\. Did you mean --epochs\?"),
    (["train", "scripted", "--data", "x", "--epochs", "four"], r'--epochs: .*"four"'),
    (["train", "scripted", "--data", "x", "--epochs", "0"], r"epochs is 0; it must be 1 or more"),
    (["train", "scripted", "--data", "x", "--preset", "shrot"], r'"shrot".*Did you mean "short"\?'),
    (["train", "scripted", "--data", "x", "--device", "cup"], r'"cup"\. Did you mean "cpu"\?'),
    (["train", "scripted", "--data", "x", "--config", "gone.toml"], r"no such file: gone\.toml"),
    (["train", "scripted", "--data", "x", "--out", "a-file"], r"a-file is a file; --out names a"),
    (["train", "--resume", "nowhere"], r"nowhere is not a run folder \(it has no config\.toml\)"),
    (["evaluate"], r"RUN requires an argument"),
    (["evaluate", "nowhere"], r"CheckpointError: no such folder: nowhere\."),
    (["evaluate", "."], r"\. holds no checkpoint \(no task\.json in it or its checkpoints/\)"),
    (["evaluate", ".", "--split", "tset"], r'"tset".*Did you mean "test"\?'),
    (["predict"], r"RUN requires an argument"),
    (["predict", "nowhere", "--output", "x.csv"], r"no such folder: nowhere\."),
    (["info", "nowhere"], r"no such folder: nowhere\."),
    (["list", "taks"], r'"taks".*Did you mean "tasks"\?'),
    (["data", "x", "--task", "scriptde"], r'unknown task "scriptde"\. Did you mean "scripted'),
    (["scripted", "compare"], r"--data requires an argument"),
    (["doctor", "--require", "gpu"], r'"gpu".*Choose from: "cpu", "cuda"'),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=lambda v: " ".join(v)[:40])
def test_users_mistake_is_a_sentence_and_exit_code_2(scripted, cli, words, sentence):
    Path("a-file").write_text("x")
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert re.search(sentence, answer.err), answer.err
    assert "Traceback" not in answer.err
    assert "not meant to happen" not in answer.err
    assert len(answer.err.strip().splitlines()) <= 2


RUN_MISTAKES = [
    (["predict", "run", "--row", "3"], r"--row\. Did you mean --rows\?"),
    (["predict", "run", "--rows", "x"], r'--rows: .*"x"'),
    (["predict", "run", "--output", "x.cvs"], r'cannot write "x\.cvs".*Did you mean "\.csv"'),
    (["predict", "run", "--input", "x.csv"], r'task "scripted" predicts without --input'),
    (["train", "--resume", "run", "--epoch", "3"], r"--epoch\. Did you mean --epochs\?"),
    (["evaluate", "run/checkpoints/best"], r"best is not a run folder \(it has no config\.toml\)"),
]


def test_mistake_with_a_trained_run_is_a_sentence_and_exit_code_2(scripted, cli):
    assert cli(*TRAIN).code == 0
    for words, sentence in RUN_MISTAKES:
        answer = cli(*words)
        assert (answer.code, answer.out) == (2, ""), words
        assert re.search(sentence, answer.err), answer.err
        assert "Traceback" not in answer.err


def test_traceback_flag_shows_where_an_error_comes_from(cli):
    with pytest.raises(CheckpointError, match="no such folder: nowhere"):
        main(["evaluate", "nowhere", "--traceback"])


def test_error_of_the_house_is_reported_as_such(scripted, cli, monkeypatch):
    def breaks(self, split):
        raise ZeroDivisionError("oops")

    assert cli(*TRAIN).code == 0
    monkeypatch.setattr(scripted.Scripted, "evaluate", breaks)
    answer = cli("evaluate", "run")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("ZeroDivisionError: oops\nThis is not meant to happen.")
    assert "--traceback" in answer.err
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "run", "--traceback"])


def test_failed_run_exits_with_1(scripted, cli):
    answer = cli(*TRAIN, "--nan-at", "1")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.splitlines()[-1].startswith("TrainingError: loss is NaN at epoch 1, step 1")


def test_results_go_to_stdout_and_the_rest_to_stderr(scripted, cli):
    answer = cli(*TRAIN)
    assert answer.code == 0
    assert re.fullmatch(
        r"trained 2 epochs in [\d.]+ s; epoch 2 kept\n"
        r"split   score\nval    0\.5000\ntest   0\.5000\n",
        answer.out,
    )
    assert answer.err.splitlines()[0].split() == ["source", "x"]
    assert "epoch 2/2  loss -0.6250  score 0.5000" in answer.err
    assert "next: gnnlab evaluate run" in answer.err


def test_quiet_says_nothing_on_stderr(scripted, cli):
    assert cli(*TRAIN, "--quiet").err == ""


def test_closed_form_model_says_that_it_needs_no_training(scripted, cli):
    answer = cli("train", "counted", "--data", "x", "--out", "run", "--quiet")
    assert "this model needs no training" in answer.out
    resumed = cli("train", "--resume", "run", "--quiet")
    assert (resumed.code, "this model needs no training" in resumed.out) == (0, True)


JSON_COMMANDS = [
    ["list"],
    ["list", "tasks"],
    ["list", "datasets"],
    ["list", "presets"],
    ["data"],
    ["data", "x", "--task", "scripted"],
    ["evaluate", "run"],
    ["evaluate", "run", "--split", "val", "--checkpoint", "last"],
    ["predict", "run"],
    ["predict", "run", "--rows", "3"],
    ["predict", "run", "--output", "x.csv"],
    ["info", "run"],
    ["train", "--resume", "run", "--epochs", "3"],
    ["train", "scripted", "--data", "x", "--epochs", "1", "--out", "other"],
    ["counted", "compare", "--data", "x", "--out", "c"],
    ["doctor"],
]


def test_json_is_one_object_and_nothing_else_on_stdout(scripted, cli):
    assert cli(*TRAIN).code == 0
    for words in JSON_COMMANDS:
        answer = cli(*words, "--json")
        assert answer.code == 0, (words, answer.err)
        assert answer.out.count("\n") == 1, words
        assert isinstance(json.loads(answer.out), dict), words


def test_values_in_json_are_the_numbers(scripted, cli):
    trained = json.loads(cli(*TRAIN, "--json").out)
    assert trained["out"] == "run"
    assert trained["test"] == {"score": 0.5}
    assert json.loads(cli("evaluate", "run", "--json").out) == {"score": 0.5}
    assert json.loads(cli("predict", "run", "--json").out) == {"row": [0, 1], "weight": [2.0, 2.0]}
    written = json.loads(cli("predict", "run", "--output", "x.csv", "--json").out)
    assert written == {"output": "x.csv", "rows": 2}
    assert Path("x.csv").read_text().split() == ["row,weight", "0,2.0", "1,2.0"]


@pytest.mark.parametrize("order", [["run", "--output", "x.csv"], ["--output", "x.csv", "run"]])
def test_flags_of_predict_may_stand_before_the_folder(scripted, cli, order):
    assert cli(*TRAIN).code == 0
    answer = cli("predict", *order, "--rows", "4")
    assert (answer.code, answer.out) == (0, "4 rows written to x.csv\n")


def test_long_prediction_is_cut_and_says_so(scripted, cli):
    assert cli(*TRAIN).code == 0
    answer = cli("predict", "run", "--rows", "25")
    assert len(answer.out.splitlines()) == 21
    assert answer.err == "... 5 more rows: pass --output FILE\n"


def test_prediction_that_is_no_table_says_how_to_get_the_arrays(scripted, cli, monkeypatch):
    from gnnlab import Prediction

    assert cli(*TRAIN).code == 0
    arrays = {"path": [[1.0, 2.0]], "time": [1, 2, 3]}
    monkeypatch.setattr(scripted.Scripted, "predict", lambda self: Prediction(arrays))
    answer = cli("predict", "run")
    assert (answer.code, answer.out) == (0, "Prediction(path(1, 2), time(3,))\n")
    assert "--output FILE.npz" in answer.err


def test_help_of_a_task_shows_its_options_with_their_doc_lines(scripted, cli):
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", cli("train", "scripted", "--help").out).split())
    for line in ("Factor of the loss.", "Passes over the training batches.", "A set of weaker"):
        assert line in text
    assert cli(*TRAIN).code == 0
    assert "how often." in cli("predict", "run", "--help").out


def test_version_and_bare_command_are_fine(cli):
    assert cli("--version").code == 0
    bare = cli()
    assert bare.code == 0
    assert "train" in bare.out


def test_doctor_fails_when_what_is_required_is_absent(cli):
    from gnnlab import ops

    if ops.backend() == "cuda":
        pytest.skip("CUDA kernels are loaded")
    answer = cli("doctor", "--require", "cuda")
    assert answer.code == 1
    assert "doctor: kernels for cuda are required, but the backend is" in answer.err
    assert "self_test      passed" in answer.out


def fresh(code):
    """Runs code in a new process; returns its stdout."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_help_does_not_wait_for_torch():
    code = """
import sys
from gnnlab.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
heavy = {"torch", "numpy", "pandas", "lightning_fabric"} & sys.modules.keys()
assert not heavy, heavy
"""
    assert "Graph neural networks" in fresh(code)


def test_importing_gnnlab_is_light_and_silent():
    code = """
import sys
import gnnlab
assert "torch" not in sys.modules
gnnlab.Graph, gnnlab.Task, gnnlab.load
extras = "torch_geometric dgl pandas pyarrow lightning_fabric scipy networkx matplotlib".split()
found = set(extras) & sys.modules.keys()
assert not found, found
assert set(gnnlab.__all__) <= set(dir(gnnlab))
for name in gnnlab.__all__:
    getattr(gnnlab, name)
found = {"torch_geometric", "dgl", "pandas", "pyarrow", "lightning_fabric"} & sys.modules.keys()
assert not found, found
"""
    assert fresh(code) == ""


def test_unknown_name_is_an_attribute_error():
    import gnnlab

    with pytest.raises(AttributeError, match="module 'gnnlab' has no attribute 'grpah'"):
        gnnlab.grpah  # noqa: B018
