"""Checkpoints: whole or refused, never pickled, and old ones keep loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import gnnlab
from gnnlab import checkpoint, experiment, fit
from gnnlab.errors import CheckpointError

STORED = Path(__file__).resolve().parent / "data" / "format1"


@pytest.fixture
def run(toys, tmp_path):
    """A trained ToyRank in tmp_path/run."""
    task, data = _build(toys.ToyRank)
    return fit(task, data, epochs=2, eval_every=1, out=tmp_path / "run", progress=False)


def _build(cls):
    config = cls.Config()
    data = cls.read("3", config)
    torch.manual_seed(0)
    return cls(config, data.spec), data


def test_saved_model_comes_back_equal(run, toys, tmp_path):
    folder = run.best.save_pretrained(tmp_path / "model")
    for loaded in (toys.ToyRank.from_pretrained(folder), gnnlab.load(folder)):
        assert type(loaded) is toys.ToyRank
        assert (loaded.config, loaded.spec) == (run.best.config, run.best.spec)
        assert not loaded.training
        state, expected = loaded.state_dict(), run.best.state_dict()
        assert state.keys() == expected.keys()
        assert all(
            torch.equal(state[k], v) and state[k].dtype == v.dtype for k, v in expected.items()
        )
        assert loaded.seen.shape == (20, 20)  # a buffer that only `prepare` sizes
        assert (
            loaded.predict().columns["item"].tolist() == run.best.predict().columns["item"].tolist()
        )


def test_run_folder_stands_for_its_best_checkpoint(run, tmp_path):
    best = gnnlab.load(tmp_path / "run")
    last = gnnlab.load(tmp_path / "run", which="last")
    again = gnnlab.load(tmp_path / "run" / "checkpoints" / "last")
    assert torch.equal(best.users, run.best.users)
    assert torch.equal(last.users, again.users)


def test_saving_replaces_what_was_there(run, tmp_path):
    run.best.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "stray.txt").write_text("old")
    with torch.no_grad():
        run.best.users.zero_()
    run.best.save_pretrained(tmp_path / "model")
    assert not gnnlab.load(tmp_path / "model").users.any()
    assert not (tmp_path / "model" / "stray.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "run"]


def test_no_file_of_a_run_is_a_pickle(run, toys, tmp_path):
    _, metrics = experiment.start(toys.ToyRank, "3", {"epochs": 1}, out=tmp_path / "b")
    assert metrics["epoch"] == 1
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "tensorboard" not in p.parts]
    assert len(files) > 10
    for file in files:
        assert file.suffix in (".json", ".safetensors", ".toml", ".jsonl")
        head = file.read_bytes()[:9]
        assert not head.startswith((b"PK", b"\x80"))
        if file.suffix == ".safetensors":  # a length, then a JSON header
            assert head[8:9] == b"{"


def test_model_of_another_task_is_named(run, toys, tmp_path):
    sentence = r'run was saved by task "toyrank" \(format 1\), not "toyshop"\. Load it with gnnlab'
    with pytest.raises(CheckpointError, match=sentence):
        toys.ToyShop.from_pretrained(tmp_path / "run")


def test_model_of_an_unknown_task_is_named(run, tmp_path, monkeypatch):
    change(tmp_path / "run" / "checkpoints" / "best", task="toyrnk")
    with pytest.raises(gnnlab.ConfigError, match=r'unknown task "toyrnk"\. Did you mean "toyrank"'):
        gnnlab.load(tmp_path / "run")


def change(folder, **values):
    file = folder / "task.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"format": 2}, r"format 2; this gnnlab reads up to 1\. Install a newer gnnlab"),
        ({"format": 0}, r"format 0, which is unknown"),
        ({"format": "1"}, r"task\.json is not a gnnlab checkpoint"),
        ({"config": {"lrr": 1.0}}, r'unknown key "lrr" in .*Did you mean "lr"\?'),
        ({"config": {"dim": 5}}, r'best does not fit task "toyrank": .*size mismatch for users'),
        ({"spec": {"num_users": 20}}, r"does not fit task \"toyrank\": 'num_items'"),
        ({"spec": {"num_users": 19, "num_items": 20}}, r"size mismatch for users"),
    ],
)
def test_description_that_does_not_fit_is_refused(run, tmp_path, values, sentence):
    change(tmp_path / "run" / "checkpoints" / "best", **values)
    with pytest.raises(CheckpointError, match=f"(?s){sentence}") as error:
        gnnlab.load(tmp_path / "run")
    assert str(error.value).count("does not fit") <= 1


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\xff"])
@pytest.mark.parametrize("words", [["evaluate"], ["predict"], ["info"]])
def test_damaged_description_is_named_by_every_command(run, cli, words, text):
    file = cli.folder("run/checkpoints/best/task.json")
    file.write_bytes(text.encode("latin-1"))
    answer = cli(*words, "run")
    assert answer.code == 2
    assert "CheckpointError: run/checkpoints/best/task.json " in answer.err
    assert "damaged" in answer.err or "does not hold a JSON object" in answer.err


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(run, tmp_path, keep):
    file = tmp_path / "run" / "checkpoints" / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged: "):
        gnnlab.load(tmp_path / "run")


def test_weights_whose_header_is_nonsense_are_refused(run, tmp_path):
    file = tmp_path / "run" / "checkpoints" / "best" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[8:20] = b"\x80\x04pickled..."[:12]
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged: "):
        gnnlab.load(tmp_path / "run")


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.safetensors"])
def test_missing_tensors_are_named_on_resume(run, toys, tmp_path, file):
    (tmp_path / "run" / "checkpoints" / "last" / file).unlink()
    task, data = _build(toys.ToyRank)
    with pytest.raises(CheckpointError, match=f"{file} is missing or damaged"):
        fit(task, data, epochs=3, out=tmp_path / "run", resume=True, progress=False)


def test_model_without_training_state_cannot_be_resumed(run, toys, tmp_path):
    (tmp_path / "run" / "checkpoints" / "last" / "trainer.json").unlink()
    task, data = _build(toys.ToyRank)
    with pytest.raises(CheckpointError, match="holds a model but no training state to resume from"):
        fit(task, data, epochs=3, out=tmp_path / "run", resume=True, progress=False)


def test_resuming_with_another_model_is_refused(run, toys, tmp_path):
    config = toys.ToyRank.Config(dim=7)
    data = toys.ToyRank.read("3", config)
    wider = toys.ToyRank(config, data.spec)
    with pytest.raises(CheckpointError, match=r'last does not fit task "toyrank"'):
        fit(wider, data, epochs=3, out=tmp_path / "run", resume=True, progress=False)


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such folder: .*nowhere"):
        gnnlab.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty holds no checkpoint \(no task\.json in it"):
        gnnlab.load(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"file holds no checkpoint \(no task\.json"):
        gnnlab.load(tmp_path / "file")


# ---- the optimiser -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
        lambda p: torch.optim.Adam([{"params": p[:1], "lr": 0.2}, {"params": p[1:]}], lr=0.1),
    ],
    ids=["adam", "adamw", "sgd", "rmsprop", "adagrad", "groups"],
)
def test_optimiser_goes_on_exactly_after_a_round_trip_through_files(make, tmp_path):
    from safetensors.torch import load_file, save_file

    def parameters():
        return [torch.nn.Parameter(torch.arange(3.0)), torch.nn.Parameter(torch.ones(2, 2))]

    def step(optimizer, params, k):
        optimizer.zero_grad()
        sum(((p - k) ** 2).sum() for p in params).backward()
        optimizer.step()

    straight, broken = parameters(), parameters()
    one, two = make(straight), make(broken)
    for k in range(3):
        step(one, straight, k)
        step(two, broken, k)
    packed = checkpoint.pack_optimizer(two)
    save_file(packed.tensors, tmp_path / "t.safetensors")
    facts = json.loads(json.dumps(packed.facts))
    revived = [torch.nn.Parameter(p.detach().clone()) for p in broken]
    three = make(revived)
    checkpoint.unpack_optimizer(
        three, checkpoint.TrainerState(facts, load_file(tmp_path / "t.safetensors"))
    )
    for k in range(3, 6):
        step(one, straight, k)
        step(three, revived, k)
    assert all(torch.equal(a, b) for a, b in zip(straight, revived, strict=True))


# ---- old formats ---------------------------------------------------------------------------------


def test_stored_checkpoint_of_format_1_keeps_loading(toys, tmp_path):
    shutil.copytree(STORED, tmp_path / "run")
    expected = json.loads((STORED / "expected.json").read_text())
    assert expected["format"] == 1
    task = gnnlab.load(tmp_path / "run")
    found = task.predict(k=2)
    assert found.columns["item"].tolist() == expected["item"]
    assert found.columns["score"].tolist() == pytest.approx(expected["score"], abs=1e-6)
    assert experiment.evaluate(tmp_path / "run") == pytest.approx(expected["test"])


def test_stored_run_of_format_1_keeps_resuming(toys, tmp_path):
    shutil.copytree(STORED, tmp_path / "run")
    run, _ = experiment.resume(tmp_path / "run", {"epochs": 5}, progress=False)
    assert [r["epoch"] for r in run.history] == [4, 5]


def test_older_format_is_upgraded_step_by_step(run, toys, tmp_path, monkeypatch):
    change(tmp_path / "run" / "checkpoints" / "best", format=-1, width=4, config={"lr": 0.05})
    table = {
        -1: lambda about: {**about, "dim": about.pop("width")},
        0: lambda about: {**about, "config": {**about["config"], "dim": about["dim"]}},
    }
    monkeypatch.setattr(checkpoint, "_UPGRADES", table)
    assert gnnlab.load(tmp_path / "run").config == toys.ToyRank.Config(lr=0.05, dim=4)
