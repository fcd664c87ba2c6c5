"""A third party's package with four kinds of task goes through the whole house."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

import gnnlab
from gnnlab import experiment
from gnnlab.testing import check_task

NAMES = ("toymesh", "toyrank", "toyshop", "toysigned")
CLASSES = dict(zip(NAMES, ("ToyMesh", "ToyRank", "ToyShop", "ToySigned"), strict=True))

pytestmark = pytest.mark.filterwarnings("ignore:gnnlab runs without compiled kernels")


@pytest.mark.parametrize("name", NAMES)
def test_toy_keeps_every_promise_of_a_task(toys, name):
    check_task(getattr(toys, CLASSES[name]), "3")


def test_mesh_learns_the_coefficients_of_the_heat_equation(toys):
    run, metrics = experiment.start(toys.ToyMesh, "3", {"epochs": 60, "noise": 0.0})
    # x' = x + k (left + right - 2 x) with k = 0.1
    assert run.best.weights.tolist() == pytest.approx([-0.2, 0.1], abs=2e-3)
    assert metrics["test"]["rollout_rmse"] < 1e-2


def test_shop_learns_smiths_rule(toys):
    _, metrics = experiment.start(toys.ToyShop, "3", {"epochs": 60})
    assert 0 <= metrics["test"]["gap"] < 0.02


def test_smiths_rule_is_the_best_of_all_orders(toys):
    module = sys.modules[toys.ToyShop.__module__]
    times, weights = torch.tensor([[3.0, 1.0, 4.0, 2.0]]), torch.tensor([[2.0, 5.0, 1.0, 2.5]])
    costs = []
    for order in permutations(range(4)):
        clock = cost = 0.0
        for job in order:
            clock += float(times[0, job])
            cost += clock * float(weights[0, job])
        costs.append(cost)
    assert float(module.smith_cost(times, weights)) == pytest.approx(min(costs))


def test_signed_stream_learns_who_is_trusted(toys):
    _, metrics = experiment.start(toys.ToySigned, "3", {"epochs": 10})
    assert metrics["test"]["auc"] > 0.8


def test_ranking_learns_the_two_groups(toys):
    _, metrics = experiment.start(toys.ToyRank, "3", {"epochs": 20})
    assert metrics["test"]["recall@5"] > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_toy_goes_through_every_command(toys, cli, name):
    trained = cli("train", name, "--data", "3", "--out", "run", "--epochs", "4", "--json")
    assert trained.code == 0
    metrics = json.loads(trained.out)
    assert (metrics["task"], metrics["epoch"]) == (name, 4)

    scored = cli("evaluate", "run", "--split", "test", "--json")
    assert scored.code == 0
    assert json.loads(scored.out) == metrics["test"]

    written = cli("predict", "run", "--output", "x.npz")
    assert (written.code, "written to x.npz" in written.out) == (0, True)
    with np.load("x.npz", allow_pickle=False) as arrays:
        assert len(arrays.files) > 0

    resumed = cli("train", "--resume", "run", "--epochs", "6", "--json")
    assert resumed.code == 0
    assert json.loads(resumed.out)["epoch"] == 6
    assert "epochs = 6" in cli.folder("run/config.toml").read_text()

    described = cli("info", "run", "--json")
    assert json.loads(described.out)["task"] == name


def test_list_names_the_toys_and_where_they_come_from(toys, cli):
    rows = {row["name"]: row for row in json.loads(cli("list", "--json").out)["tasks"]}
    assert set(NAMES) <= rows.keys()
    assert rows["toyrank"]["where"] == "gnnlab_toys:ToyRank"
    assert rows["toyrank"]["about"] == "Matrix factorisation with a pairwise loss."


def test_no_line_of_gnnlab_knows_the_toys():
    files = list(Path(gnnlab.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"gnnlab_toys|toy(mesh|rank|shop|signed)", text, re.I), file


def test_installed_package_is_found_by_a_fresh_process(toys, tmp_path):
    def command_line(*words):
        command = [sys.executable, "-m", "gnnlab", *words]
        done = subprocess.run(command, env=toys.env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    listed = json.loads(command_line("list", "--json").stdout)["tasks"]
    assert set(NAMES) <= {row["name"] for row in listed}
    command_line("train", "toyrank", "--data", "3", "--out", "run", "--epochs", "4")
    scored = command_line("evaluate", "run", "--split", "test", "--json")
    assert scored.stdout.count("\n") == 1
    assert (
        json.loads(scored.stdout) == json.loads((tmp_path / "run/metrics.json").read_text())["test"]
    )
