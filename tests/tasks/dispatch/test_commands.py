"""`gnnlab dispatch solve|verify|convert|gantt`: what a user types, reads, and gets as exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import gnnlab
from gnnlab import registry
from gnnlab.tasks import Dispatch
from gnnlab.tasks.dispatch import Schedule, commands, read_instance
from gnnlab.tasks.dispatch._native import shop_library

TINY = "2 2\n0 3 1 2\n1 3 0 2\n"  # both jobs finish at 3 and want each other's machine
SWAPPED = [[0, 0, 0, 0, 3, 3], [0, 1, 1, 3, 5, 5], [1, 0, 1, 0, 3, 3], [1, 1, 0, 3, 5, 5]]
DOWN = {"format": "gnnlab.trace/1", "seed": None, "windows": [[], [[3, 6]]]}
DELAYED = [[0, 0, 0, 0, 3, 6], [0, 1, 1, 6, 8, 8], [1, 0, 1, 0, 3, 6], [1, 1, 0, 6, 8, 8]]
FT06 = Path(os.environ.get("GNNLAB_DATA", "")) / "scheduling" / "instances" / "ft06.txt"

has_kernels = pytest.mark.skipif(shop_library() is None, reason="needs compiled kernels")
has_solver = pytest.mark.skipif(
    importlib.util.find_spec("ortools") is None, reason="OR-Tools is not installed"
)
has_data = pytest.mark.skipif(not FT06.exists(), reason="no classical instances on this machine")


@pytest.fixture
def shop(cli, monkeypatch):
    """The command line in a folder with the files that the tests speak of."""
    if "dispatch" not in gnnlab.list_tasks():
        monkeypatch.setattr(registry, "_registered", {"dispatch": Dispatch})
    Path("tiny.txt").write_text(TINY)
    Path("one.txt").write_text("2 2\n1 3 2 2\n2 3 1 2\n")
    Path("back.txt").write_text("2 2\n0 3 1 2 0 4\n1 3 0 2\n")
    Path("down.json").write_text(json.dumps(DOWN))
    Schedule("tiny", "bws", 5, SWAPPED).save("plan.json")
    Schedule("tiny", "bws", 5, SWAPPED).save("plan.csv")

    def run(*words):
        return cli("dispatch", *words)

    return run


def value(text, name):
    """What the summary says behind a name."""
    found = re.search(rf"^{name} +(.*)$", text, re.MULTILINE)
    assert found, text
    return found[1]


# ---- solve ---------------------------------------------------------------------------------------


def test_summary_of_the_hand_made_swap(shop):
    answer = shop("solve", "tiny.txt", "--rule", "SPT")
    assert (answer.code, answer.err) == (0, "")
    assert value(answer.out, "instance") == "tiny: 2 jobs, 2 machines, 4 operations"
    assert value(answer.out, "mode") == "bws: no buffers, swaps allowed"
    assert value(answer.out, "solved by") == "SPT"
    assert value(answer.out, "makespan") == "5"
    assert value(answer.out, "lower bound") == "5 (reached)"
    assert value(answer.out, "swaps") == "1"
    assert "of 4 operations" in value(answer.out, "verified")


def test_without_means_it_takes_the_best_rule_and_names_it(shop):
    # Short one first: 0-1, 1-10 and 1-11, 11-12. Long one first: 0-10, 10-11 and 10-11, 11-20.
    Path("tails.txt").write_text("2 2\n0 1 1 9\n0 10 1 1\n")
    answer = shop("solve", "tails.txt", "--mode", "jssp")
    assert (answer.code, value(answer.out, "makespan")) == (0, "12")
    chosen = re.match(r"(\S+), the best of 17 priority rules$", value(answer.out, "solved by"))
    for rule, makespan in ((chosen[1], "12"), ("SPT", "12"), ("LPT", "20")):
        again = shop("solve", "tails.txt", "--mode", "jssp", "--rule", rule)
        assert value(again.out, "makespan") == makespan


def test_best_rule_is_the_same_without_kernels(shop, monkeypatch):
    Path("six.txt").write_text(read_shop(6, seed=3))
    first = shop("solve", "six.txt").out
    monkeypatch.setattr("gnnlab.tasks.dispatch.batched.shop_library", lambda: None)
    assert shop("solve", "six.txt").out == first


def test_json_on_stdout_is_the_schedule_and_nothing_else(shop):
    answer = shop("solve", "tiny.txt", "--json", "-")
    assert (answer.code, answer.err, answer.out.count("\n")) == (0, "", 1)
    assert json.loads(answer.out) == {
        "format": "gnnlab.schedule/1",
        "instance": "tiny",
        "mode": "bws",
        "makespan": 5,
        "ops": SWAPPED,
    }


def test_files_that_are_asked_for_are_written_and_named(shop):
    words = ["--json", "out/a.json", "--csv", "out/a.csv", "--gantt", "out/a.svg"]
    answer = shop("solve", "tiny.txt", *words)
    assert answer.code == 0
    assert re.findall(r"^written +(.*)$", answer.out, re.MULTILINE) == words[1::2]
    assert Schedule.load("out/a.json").ops.tolist() == SWAPPED
    assert Path("out/a.csv").read_text().splitlines()[1] == "0,0,0,0,3,3"
    assert ElementTree.parse("out/a.svg").getroot().tag.endswith("svg")


def test_text_draws_in_the_terminal(shop):
    answer = shop("solve", "tiny.txt", "--text")
    assert re.search(r"^M0 +\|0+1+\|$", answer.out, re.MULTILINE)
    assert re.search(r"^swap \| +\^ +\|$", answer.out, re.MULTILINE)


def test_trace_file_delays_the_swap(shop):
    answer = shop("solve", "tiny.txt", "--trace", "down.json", "--json", "-")
    assert json.loads(answer.out)["ops"] == DELAYED
    told = shop("solve", "tiny.txt", "--trace", "down.json").out
    assert value(told, "makespan") == "8"
    assert value(told, "shutdowns") == "1 before the end (down.json)"


def test_shutdowns_depend_on_the_seed_alone(shop):
    Path("six.txt").write_text(read_shop(6, seed=1))

    def makespan(*words):
        return json.loads(shop("solve", "six.txt", *words, "--json", "-").out)["makespan"]

    with_seed = [makespan("--rule", "SPT", "--shutdown", "0.02", "--seed", s) for s in (1, 1, 2, 3)]
    assert with_seed[0] == with_seed[1]
    assert len(set(with_seed)) > 1
    assert min(with_seed) > makespan("--rule", "SPT")


def test_deadlock_says_when_and_which_jobs_and_exits_with_1(shop):
    answer = shop("solve", "tiny.txt", "--mode", "bns", "--rule", "SPT", "--json", "-")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith(
        "tiny, SPT: deadlock at time 3: job 0 on machine 0 waits for machine 1, "
        "job 1 on machine 1 waits for machine 0."
    )
    assert "--mode bws" in answer.err
    every = shop("solve", "tiny.txt", "--mode", "bns")
    assert every.code == 1
    assert every.err.startswith("all 17 rules end in a deadlock, the first so: tiny, FIFO: dead")


def test_deadlock_names_the_circle_and_not_those_who_wait_for_it(shop):
    # Jobs 0, 1, 2 go round in a circle; job 3 stands behind them and waits for machine 0.
    Path("ring.txt").write_text("4 4\n0 1 1 1\n1 1 2 1\n2 1 0 1\n3 1 0 1\n")
    answer = shop("solve", "ring.txt", "--no-strict", "--mode", "bns", "--rule", "SPT")
    assert answer.code == 1
    assert "deadlock at time 1: job 0 on machine 0 waits for machine 1, job 1 on" in answer.err
    assert "job 3" not in answer.err


def test_one_job_inside_at_a_time_is_serial(shop):
    for words in (["--rule", "SPT@1"], ["--rule", "SPT", "--wip-limit", "1"], ["--wip-limit", "1"]):
        answer = shop("solve", "tiny.txt", "--mode", "bns", *words)
        assert (answer.code, value(answer.out, "makespan")) == (0, "10")


@has_solver
def test_exact_solver_proves_the_hand_made_optima(shop):
    for mode, best in (("bws", "5"), ("bns", "10"), ("jssp", "5")):
        answer = shop("solve", "tiny.txt", "--exact", "5", "--mode", mode)
        assert value(answer.out, "makespan") == best
        assert value(answer.out, "lower bound") == f"{best} (reached)"
        assert value(answer.out, "solved by").startswith("CP-SAT, proved optimal")
    told = shop("solve", "tiny.txt", "--exact", "5", "--trace", "down.json").out
    assert value(told, "makespan") == "8"
    assert "knowing all shutdowns beforehand" in value(told, "solved by")


def test_exact_solver_that_is_not_installed_is_a_sentence(shop, monkeypatch):
    def absent(module, who, extra):
        raise gnnlab.errors.MissingExtraError(f"{who} needs ortools: pip install 'gnnlab[{extra}]'")

    monkeypatch.setattr("gnnlab.tasks.dispatch.exact.needs", absent)
    answer = shop("solve", "tiny.txt", "--exact", "5")
    assert (answer.code, answer.out) == (2, "")
    assert "pip install 'gnnlab[dispatch]'" in answer.err


@has_data
def test_classical_instance_by_name_shows_the_best_known_makespan(shop):
    answer = shop("solve", "ft06", "--mode", "jssp", "--rule", "spt")
    assert value(answer.out, "makespan") == "88"  # spec of the rules on ft06
    assert value(answer.out, "best known") == "55 (makespan is 60.0 % above)"
    assert value(shop("solve", "ft06").out, "best known").startswith("63 ")


@has_data
def test_file_of_the_same_name_with_other_numbers_has_no_best_known_makespan(shop):
    Path("ft06.txt").write_text(TINY)
    assert "best known" not in shop("solve", "ft06.txt").out


def read_shop(size, seed):
    """Text of a random square shop, without the package's generators."""
    import random

    draw = random.Random(seed)
    lines = [f"{size} {size}"]
    for _ in range(size):
        order = draw.sample(range(size), size)
        lines.append(" ".join(f"{k} {draw.randint(1, 30)}" for k in order))
    return "\n".join(lines) + "\n"


@has_kernels
def test_search_improves_and_stays_above_the_optimum(shop):
    Path("four.txt").write_text(read_shop(4, seed=2))
    spans = [
        int(value(shop("solve", "four.txt", "--rule", "LPT", "--search", n).out, "makespan"))
        for n in (0, 1, 1000)
    ]
    assert spans[0] >= spans[1] >= spans[2] < spans[0]
    if importlib.util.find_spec("ortools") is not None:
        assert int(value(shop("solve", "four.txt", "--exact", "10").out, "makespan")) <= spans[2]


@pytest.fixture
def policy(tmp_path):
    """An untrained policy for shops without buffers."""
    config = Dispatch.Config(dim=16, heads=2, layers=1, encoder_layers=1, eval_rollouts=2)
    return Dispatch(config, {"mode": "bws"}).save_pretrained(tmp_path / "policy")


@has_kernels
def test_policy_schedules_in_its_own_mode(shop, policy):
    Path("six.txt").write_text(read_shop(6, seed=4))
    answer = shop("solve", "six.txt", "--policy", policy)
    assert answer.code == 0, answer.err
    assert value(answer.out, "solved by") == f"policy {policy}"
    assert value(answer.out, "mode").startswith("bws")
    some = shop("solve", "six.txt", "--policy", policy, "--samples", "4", "--search", "50")
    assert "best of 4" in value(some.out, "solved by")
    assert int(value(some.out, "makespan")) <= int(value(answer.out, "makespan"))
    down = shop("solve", "six.txt", "--policy", policy, "--shutdown", "0.02", "--json", "p.json")
    assert down.code == 0
    assert shop("verify", "six.txt", "p.json", "--shutdown", "0.02").code == 0
    other = shop("solve", "six.txt", "--policy", policy, "--mode", "jssp")
    assert (other.code, other.out) == (2, "")
    assert "was trained for mode bws; leave out --mode jssp" in other.err


@has_kernels
def test_policy_without_a_way_out_exits_with_1(shop, tmp_path):
    config = Dispatch.Config(mode="bns", dim=16, heads=2, layers=1, encoder_layers=1)
    folder = Dispatch(config, {"mode": "bns"}).save_pretrained(tmp_path / "policy")
    Path("ring.txt").write_text("1 2\n0 1 1 1\n")
    assert shop("solve", "ring.txt", "--policy", folder).code == 0
    answer = shop("solve", "tiny.txt", "--policy", folder)
    assert (answer.code, answer.out) == (1, "")
    assert "ends in a deadlock" in answer.err


def test_schedule_that_breaks_rules_is_never_shown(shop, monkeypatch):
    def wrong(self):
        return Schedule("tiny", "bws", 4, SWAPPED)

    monkeypatch.setattr("gnnlab.tasks.dispatch.simulator.Simulator.schedule", wrong)
    answer = shop("solve", "tiny.txt", "--json", "-", "--csv", "a.csv")
    assert (answer.code != 0, answer.out) == (True, "")
    assert "MAKESPAN: the stated makespan is 4" in answer.err
    assert not Path("a.csv").exists()


MISTAKES = [
    (["solve"], "FILE requires an argument"),
    (["solve", "gone.txt"], "no such file: gone.txt"),
    (["solve", "ft6"], 'no file ft6. As a name: there is no classical instance "ft6". Did you mea'),
    (["solve", "one.txt"], "machine index out of range: 2 is not in 0..1. It looks 1-based; pass"),
    (["solve", "one.txt"], "--machine-base 1"),
    (["solve", "back.txt"], "expected 2 operations, found 3. Pass --no-strict"),
    (["solve", "plan.csv"], "header"),
    (["solve", "down.json"], "down.json"),
    (["solve", "tiny.txt", "--rule", "SPTT"], 'unknown rule "SPTT". Did you mean "SPT"?'),
    (["solve", "tiny.txt", "--mode", "bsw"], 'Invalid value "bsw" for --mode'),
    (["solve", "tiny.txt", "--rule", "SPT", "--exact", "1"], "choose one of --rule and --exact"),
    (["solve", "tiny.txt", "--samples", "3"], "--samples draws from a policy"),
    (["solve", "tiny.txt", "--search", "-1"], "--search 0 or more"),
    (["solve", "tiny.txt", "--exact", "1", "--search", "5"], "--exact takes neither --search nor"),
    (["solve", "tiny.txt", "--wip-limit", "0"], "wip_limit is 0"),
    (["solve", "tiny.txt", "--shutdown", "1.5"], "shutdown probability is 1.5"),
    (["solve", "tiny.txt", "--shutdown", "0.1", "--seed", "-1"], "seed is -1"),
    (["solve", "tiny.txt", "--shutdown", "0.1", "--trace", "down.json"], "--trace or --shutdown"),
    (["solve", "tiny.txt", "--trace", "tiny.txt"], "tiny.txt: not JSON"),
    (["solve", "tiny.txt", "--trace", "gone.json"], "no such file: gone.json"),
    (["solve", "tiny.txt", "--policy", "nowhere"], "no such folder: nowhere"),
    (["solve", "tiny.txt", "--gantt", "x.bmp"], 'cannot draw into a file that ends in ".bmp"'),
    (["solve", "tiny.txt", "--json", "x.csv"], "the name must end in .json"),
    (["solve", "tiny.txt", "--csv", "x.json"], "the name must end in .csv"),
    (["solve", "tiny.txt", "--json", "-", "--text"], "--json - prints JSON and nothing else"),
    (["solve", "tiny.txt", "--number", "1"], "there is no job shop number 1; it holds 1"),
    (["verify", "tiny.txt"], "SCHEDULE requires an argument"),
    (["verify", "tiny.txt", "gone.json"], "no such file: gone.json"),
    (["verify", "tiny.txt", "one.txt"], "one.txt: not JSON"),
    (["verify", "tiny.txt", "down.json"], 'its "format" is not "gnnlab.schedule/1"'),
    (["convert", "tiny.txt"], "OUT requires an argument"),
    (["convert", "tiny.txt", "o.txt", "--to", "taillrd"], 'Did you mean "taillard"?'),
    (["convert", "back.txt", "o.npy", "--no-strict"], "this format holds jobs of exactly 2"),
    (["gantt", "tiny.txt", "plan.json", "--out", "x.bmp"], "cannot draw into"),
]


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=lambda v: " ".join(v)[:50])
def test_users_mistake_is_a_sentence_and_exit_code_2(shop, words, sentence):
    answer = shop(*words)
    assert (answer.code, answer.out) == (2, "")
    assert sentence in answer.err
    assert "Traceback" not in answer.err
    assert "not meant to happen" not in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not {p.name for p in Path().iterdir()} & {"x.bmp", "x.csv", "x.json", "o.npy", "o.txt"}


# ---- verify, convert, gantt ----------------------------------------------------------------------


@pytest.mark.parametrize("file", ["plan.json", "plan.csv"])
def test_valid_schedule_is_called_valid(shop, file):
    answer = shop("verify", "tiny.txt", file)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "valid: 4 operations, mode bws, makespan 5\n"


def test_violations_come_one_a_line_with_their_codes(shop):
    answer = shop("verify", "tiny.txt", "plan.json", "--mode", "bns")
    assert (answer.code, answer.err) == (1, "")
    assert [line.split(":")[0] for line in answer.out.splitlines()] == ["SWAP_ORDER"]
    Schedule("tiny", "bws", 9, [*SWAPPED[:2], [1, 0, 1, 0, 4, 4]]).save("bad.json")
    codes = [line.split(":")[0] for line in shop("verify", "tiny.txt", "bad.json").out.splitlines()]
    assert {"MISSING", "END", "MAKESPAN"} <= set(codes)


def test_shutdowns_are_part_of_what_is_valid(shop):
    assert shop("verify", "tiny.txt", "plan.json", "--trace", "down.json").code == 1
    Schedule("tiny", "bws", 8, DELAYED).save("late.json")
    assert shop("verify", "tiny.txt", "late.json", "--trace", "down.json").code == 0


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.npy", "a.fjs", "a.dct"])
def test_converted_shop_is_the_same_shop(shop, name):
    answer = shop("convert", "one.txt", name, "--machine-base", "1")
    assert (answer.code, answer.out) == (0, f"{name}: 2 jobs, 2 machines, 4 operations\n")
    assert read_instance(name) == read_instance("tiny.txt")


def test_convert_takes_a_format_and_hints_at_shops_that_are_not_square(shop):
    assert shop("convert", "tiny.txt", "t.txt", "--to", "taillard").code == 0
    assert "Machines" in Path("t.txt").read_text()
    answer = shop("convert", "back.txt", "b.txt", "--no-strict")
    assert (answer.code, "--no-strict" in answer.err) == (0, True)
    assert Path("b.txt").read_text() == Path("back.txt").read_text()


def test_one_of_several_shops_in_a_file(shop):
    import numpy as np

    pair = np.array([[[[3, 2], [3, 2]], [[1, 2], [2, 1]]], [[[1, 1], [1, 1]], [[1, 2], [1, 2]]]])
    np.save("two.npy", pair)
    answer = shop("solve", "two.npy")
    assert (answer.code, "choose one with --number 0 to 1" in answer.err) == (2, True)
    assert value(shop("solve", "two.npy", "--number", "0").out, "makespan") == "5"
    # Two jobs through machines 0 and 1, a unit each: 0-1, 1-2, 2-3.
    assert value(shop("solve", "two.npy", "--number", "1").out, "makespan") == "3"


def test_gantt_draws_valid_schedules_only(shop):
    answer = shop("gantt", "tiny.txt", "plan.json", "--out", "a.html")
    assert (answer.code, answer.out) == (0, "written a.html\n")
    assert "<svg" in Path("a.html").read_text()
    assert (
        shop("gantt", "tiny.txt", "plan.json", "--by", "job").out.splitlines()[1].startswith("J0")
    )
    bad = shop("gantt", "tiny.txt", "plan.json", "--mode", "bns", "--out", "b.html")
    assert (bad.code, bad.out) == (1, "")
    assert "SWAP_ORDER" in bad.err
    assert not Path("b.html").exists()


# ---- help ----------------------------------------------------------------------------------------


def test_help_lists_the_verbs_and_documents_every_flag(shop):
    listing = shop("--help").out
    for verb in commands.__all__:
        assert re.search(rf"│ {verb} +[A-Z]", listing), verb
        text = re.sub(r"[│╭╮╰╯─]", " ", shop(verb, "--help").out)
        undocumented = re.findall(r"^\s+(--[\w-]+)(?: (?:[A-Z]+|--[\w-]+))?\s*$", text, re.M)
        assert not undocumented, (verb, undocumented)
