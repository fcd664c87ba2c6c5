"""The loop: resuming, stopping, keeping the best, failing with a sentence."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from gnnlab import TrainConfig, checkpoint, experiment, fit
from gnnlab.errors import ConfigError, TrainingError
from gnnlab.task import Shard


def build(cls, source="3", seed=0, **options):
    """A new task and its data, as the commands build them."""
    config = cls.Config(**options)
    data = cls.read(source, config)
    torch.manual_seed(seed)
    return cls(config, data.spec), data


def train(cls, out=None, *, options=None, source="3", resume=False, **changes):
    task, data = build(cls, source, **(options or {}))
    torch.manual_seed(random.randrange(1 << 30))  # a process is in no particular random state
    return fit(task, data, out=out, resume=resume, progress=False, **changes)


def log_lines(folder):
    """log.jsonl without what the clock and the machine decide."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"], record["memory_mb"]
    return records


def assert_same_run(first, second):
    for which in ("best", "last"):
        for file in ("model.safetensors", "trainer.safetensors", "trainer.json", "task.json"):
            one, two = (folder / "checkpoints" / which / file for folder in (first, second))
            assert one.exists() == two.exists()
            assert not one.exists() or one.read_bytes() == two.read_bytes(), f"{which}/{file}"
    assert log_lines(first) == log_lines(second)


# ---- resuming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 7])
def test_resumed_run_is_the_uninterrupted_one(toys, tmp_path, stop):
    options = {"eval_every": 1, "patience": None}
    train(toys.ToyRank, tmp_path / "whole", epochs=8, **options)
    train(toys.ToyRank, tmp_path / "halves", epochs=stop, **options)
    resumed = train(toys.ToyRank, tmp_path / "halves", epochs=8, resume=True, **options)
    assert [r["epoch"] for r in resumed.history] == list(range(stop + 1, 9))
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_resuming_keeps_the_state_of_early_stopping(scripted, tmp_path):
    options = {"eval_every": 1, "patience": 3}
    whole = train(scripted.Scripted, tmp_path / "whole", epochs=9, **options)
    train(scripted.Scripted, tmp_path / "halves", epochs=4, **options)
    resumed = train(scripted.Scripted, tmp_path / "halves", epochs=9, resume=True, **options)
    for run in (whole, resumed):
        assert (run.epoch, run.best_epoch, run.best_value) == (5, 2, 0.5)
        assert run.stopped_early
        assert run.best.weight.item() == 2.0  # the weights of the best epoch, from before the stop
    assert_same_run(tmp_path / "whole", tmp_path / "halves")


def test_resuming_a_finished_run_changes_nothing(scripted, tmp_path):
    train(scripted.Scripted, tmp_path / "a", epochs=3, eval_every=1)
    train(scripted.Scripted, tmp_path / "b", epochs=3, eval_every=1)
    again = train(scripted.Scripted, tmp_path / "b", epochs=3, eval_every=1, resume=True)
    assert (again.epoch, again.best.weight.item()) == (3, 2.0)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_resuming_before_the_first_checkpoint_starts_again(scripted, tmp_path):
    (tmp_path / "b").mkdir()
    train(scripted.Scripted, tmp_path / "a", epochs=2, eval_every=1)
    train(scripted.Scripted, tmp_path / "b", epochs=2, eval_every=1, resume=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_resuming_needs_a_folder(scripted):
    with pytest.raises(ConfigError, match="resume needs the run folder: pass out="):
        train(scripted.Scripted, epochs=1, resume=True)


def test_log_line_lost_by_a_crash_before_the_checkpoint_is_written_again(scripted, tmp_path):
    options = {"epochs": 4, "eval_every": 1}
    train(scripted.Scripted, tmp_path / "whole", **options)
    save, calls = checkpoint.save, []

    def dies(task, path, trainer=None):
        calls.append(path.name)
        if calls.count("last") == 3:
            raise MemoryError("killed")
        return save(task, path, trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", dies)
        with pytest.raises(MemoryError):
            train(scripted.Scripted, tmp_path / "cut", **options)
    with (tmp_path / "cut" / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')  # and a line that the crash cut short
    train(scripted.Scripted, tmp_path / "cut", resume=True, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_process_killed_at_any_moment_resumes_to_the_same_bytes(toys, cli, tmp_path):
    words = ["train", "toyrank", "--data", "3", "--epochs", "80", "--patience", "none"]
    words += ["--eval-every", "3", "--quiet", "--out"]
    assert cli(*words, "whole").code == 0
    command = [sys.executable, "-m", "gnnlab", *words, "killed"]
    process = subprocess.Popen(command, env=toys.env, cwd=tmp_path, stderr=subprocess.PIPE)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 5 <= log.read_text().count("\n") < 80
    resumed = cli("train", "--resume", "killed", "--quiet", "--json")
    assert (resumed.code, json.loads(resumed.out)["epoch"]) == (0, 80)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    whole, killed = (
        json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed")
    )
    assert (whole["val"], whole["test"]) == (killed["val"], killed["test"])


# ---- a checkpoint is replaced whole or not at all ------------------------------------------------


@pytest.mark.parametrize("call", [1, 2])
def test_crash_while_replacing_leaves_the_old_or_the_new_checkpoint(scripted, tmp_path, call):
    run = train(scripted.Scripted, tmp_path / "run", epochs=1, eval_every=1)
    last = tmp_path / "run" / "checkpoints" / "last"
    replace, calls = os.replace, []

    def dies(source, target):
        calls.append(target)
        if len(calls) == call:
            raise MemoryError("killed")
        replace(source, target)

    with torch.no_grad():
        run.best.weight.fill_(8.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(MemoryError):
            checkpoint.save(run.best, last)
    expected = {1: 1.0, 2: 8.0}[call]  # before the first rename the old one stands
    assert checkpoint.load(tmp_path / "run", which="last").weight.item() == expected


def test_complete_new_folder_beside_the_old_one_is_taken(scripted, tmp_path):
    run = train(scripted.Scripted, tmp_path / "run", epochs=1, eval_every=1)
    folder = tmp_path / "run" / "checkpoints"
    with torch.no_grad():
        run.best.weight.fill_(8.0)
    (folder / "last").rename(folder / ".last.old")
    checkpoint.save(run.best, folder / "elsewhere").rename(folder / ".last.new")
    assert checkpoint.load(folder / "last").weight.item() == 8.0
    assert not (folder / ".last.new").exists()


def test_old_folder_alone_is_taken_back(scripted, tmp_path):
    train(scripted.Scripted, tmp_path / "run", epochs=1, eval_every=1)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "last").rename(folder / ".last.old")
    assert checkpoint.load(folder / "last").weight.item() == 1.0


def test_partial_new_folder_is_not_taken(scripted, tmp_path):
    run = train(scripted.Scripted, tmp_path / "run", epochs=1, eval_every=1)
    last = tmp_path / "run" / "checkpoints" / "last"
    partial = last.with_name(".last.new")
    partial.mkdir()
    (partial / "task.json").write_text('{"format": 1, "task": "scripted"}')
    assert checkpoint.load(last).weight.item() == 1.0
    first = tmp_path / "first"
    partial.rename(tmp_path / ".first.new")  # cut during the very first save: nothing to load
    with pytest.raises(checkpoint.CheckpointError, match=r"no such folder: .*first"):
        checkpoint.load(first)
    checkpoint.save(run.best, first)
    assert [p.name for p in tmp_path.iterdir() if "first" in p.name] == ["first"]


def test_saving_between_the_two_renames_loses_nothing(scripted, tmp_path):
    run = train(scripted.Scripted, tmp_path / "run", epochs=1, eval_every=1)
    folder = tmp_path / "run" / "checkpoints"
    (folder / "last").rename(folder / ".last.old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_write_json", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            checkpoint.save(run.best, folder / "last")
    assert checkpoint.load(folder / "last").weight.item() == 1.0


# ---- stopping and keeping the best ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "scores", "epoch", "best"),
    [
        ("Scripted", (0.1, 0.5, 0.3, 0.4, 0.2, 0.6), 5, 2),
        ("ScriptedMin", (5.0, 2.0, 3.0, 2.0, 6.0, 1.0), 5, 2),  # an equal value is not better
        ("Scripted", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 6, 6),
        ("ScriptedMin", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 4, 1),
        ("Scripted", (-1.0, 0.5, 0.3, 0.4, -1.0, 0.6), 5, 2),  # NaN is never the best
    ],
)
def test_best_epoch_is_kept_and_patience_ends_the_run(
    scripted, tmp_path, name, scores, epoch, best
):
    run = train(
        getattr(scripted, name),
        tmp_path / "run",
        options={"scores": scores},
        epochs=6,
        eval_every=1,
        patience=3,
    )
    assert (run.epoch, run.best_epoch, run.best_value) == (epoch, best, scores[best - 1])
    assert run.stopped_early == (epoch < 6)
    assert run.best.weight.item() == best
    assert checkpoint.load(tmp_path / "run").weight.item() == best
    assert checkpoint.load(tmp_path / "run", which="last").weight.item() == epoch


def test_patience_counts_evaluations_not_epochs(scripted):
    scores = (0.0, 0.9, 0.0, 0.1, 0.0, 0.2, 0.0, 0.3)
    run = train(scripted.Scripted, options={"scores": scores}, epochs=8, eval_every=2, patience=2)
    assert (run.epoch, run.best_epoch, run.stopped_early) == (6, 2, True)
    assert [r["epoch"] for r in run.history if "val" in r] == [2, 4, 6]


def test_last_epoch_is_evaluated_whatever_eval_every_says(scripted):
    run = train(scripted.Scripted, epochs=5, eval_every=3)
    assert [r["epoch"] for r in run.history if "val" in r] == [3, 5]


def test_without_a_validation_split_the_last_epoch_is_kept(scripted, tmp_path):
    run = train(scripted.Scripted, tmp_path / "run", source="noval", epochs=4, eval_every=1)
    assert (run.epoch, run.best_epoch, run.best_value) == (4, 4, None)
    assert run.best.weight.item() == 4.0
    assert checkpoint.load(tmp_path / "run").weight.item() == 4.0


def test_unknown_metric_is_named_with_the_nearest(scripted):
    with pytest.raises(ConfigError, match=r'unknown metric "scroe"\. Did you mean "score"\?'):
        train(scripted.Scripted, epochs=1, valid_metric="scroe")


# ---- the loss is not finite ----------------------------------------------------------------------


def test_nan_loss_stops_with_a_sentence_and_keeps_the_last_checkpoint(scripted, cli, tmp_path):
    words = ["--data", "x", "--epochs", "9", "--eval-every", "1", "--nan-at", "6"]
    answer = cli("train", "scripted", *words, "--out", "run", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(
        r"TrainingError: loss is NaN at epoch 3, step 2 \(lr=1, grad norm 0\.5\)\. Last good "
        r"checkpoint: run/checkpoints/last\. Lower the learning rate\.\n",
        answer.err,
    )
    assert checkpoint.load(tmp_path / "run", which="last").weight.item() == 2.0
    assert [r["epoch"] for r in log_lines(tmp_path / "run")] == [1, 2]


def test_nan_loss_in_the_first_epoch_names_no_checkpoint(scripted, tmp_path):
    with pytest.raises(TrainingError, match=r"grad norm nan\)\. Lower") as error:
        train(scripted.Scripted, tmp_path / "run", options={"nan_at": 1}, epochs=2)
    assert "checkpoint" not in str(error.value)


@pytest.mark.parametrize("grad_clip", [None, 1.0])
@pytest.mark.parametrize("step", [5, 6])
def test_spoiled_weights_never_become_a_checkpoint(scripted, tmp_path, step, grad_clip):
    out = tmp_path / "run"
    options = {"epochs": 9, "eval_every": 1, "grad_clip": grad_clip}
    with pytest.raises(TrainingError, match=r"at epoch 3, step \d \(.*grad norm nan\)\. Last good"):
        train(scripted.Scripted, out, options={"spoil_at": step}, **options)
    for which in ("last", "best"):
        assert checkpoint.load(out, which=which).weight.item() == 2.0


def test_term_that_is_not_finite_is_named(scripted):
    class TwoTerms(scripted.Scripted):
        def loss(self, batch):
            return {**super().loss(batch), "penalty": self.weight.detach() / 0}

    with pytest.raises(
        TrainingError, match=r"loss is finite but .* at epoch 1, step 1 \(term penalty\)"
    ):
        train(TwoTerms, epochs=1)


def test_diverged_run_can_be_resumed_from_its_last_good_checkpoint(scripted, cli):
    words = ["--data", "x", "--epochs", "4", "--eval-every", "1", "--out", "run"]
    assert cli("train", "scripted", *words, "--nan-at", "6").code == 1
    config = cli.folder("run/config.toml")
    config.write_text(config.read_text().replace("nan_at = 6", "nan_at = 0"))
    assert json.loads(cli("train", "--resume", "run", "--json").out)["epoch"] == 4


# ---- other endings -------------------------------------------------------------------------------


def test_interrupt_says_how_to_go_on(scripted, cli, tmp_path):
    words = ["--data", "x", "--epochs", "9", "--eval-every", "1", "--interrupt-at", "5"]
    answer = cli("train", "scripted", *words, "--out", "run", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "stopped after epoch 2. Go on with: gnnlab train --resume run\n"
    assert checkpoint.load(tmp_path / "run", which="last").weight.item() == 2.0


def test_interrupted_extension_goes_on_to_its_new_end(scripted, cli):
    words = ["--data", "x", "--epochs", "2", "--eval-every", "1", "--interrupt-at", "7"]
    assert cli("train", "scripted", *words, "--out", "run", "--quiet").code == 0
    assert cli("train", "--resume", "run", "--epochs", "6", "--quiet").code == 1
    config = cli.folder("run/config.toml")
    config.write_text(config.read_text().replace("interrupt_at = 7", "interrupt_at = 0"))
    assert json.loads(cli("train", "--resume", "run", "--json").out)["epoch"] == 6


def test_task_without_parameters_skips_the_loop(scripted, tmp_path):
    run = train(scripted.Counted, tmp_path / "run", epochs=9)
    assert (run.epoch, run.best_epoch, run.history) == (0, 0, [])
    assert checkpoint.load(tmp_path / "run").weight.item() == 7.0


def test_task_without_batches_is_told_so(scripted):
    class Idle(scripted.Scripted):
        def batches(self, split, *, generator, shard):
            return iter(())

    with pytest.raises(TrainingError, match='task "scripted" yielded no training batch'):
        train(Idle, epochs=1)


def test_gradient_is_clipped_to_the_norm(scripted):
    run = train(scripted.Scripted, options={"slope": 100.0}, epochs=1, grad_clip=0.25)
    assert run.best.weight.item() == pytest.approx(0.5)  # two steps of norm 0.25 at lr 1


def test_losses_are_averaged_over_the_steps(scripted):
    run = train(scripted.Scripted, epochs=2)
    # w runs 0, .5, 1, 1.5 and the loss is -w/2
    assert [r["train"]["loss"] for r in run.history] == [-0.125, -0.625]
    assert [(r["step"], r["steps"], r["lr"]) for r in run.history] == [(2, 2, 1.0), (4, 2, 1.0)]


def test_learning_rate_follows_the_factor_also_after_resuming(scripted, tmp_path):
    class Halving(scripted.Scripted):
        def lr_factor(self, step):
            return 0.5**step

    whole = train(Halving, source="noval", epochs=2)
    train(Halving, tmp_path, source="noval", epochs=1)
    resumed = train(Halving, tmp_path, source="noval", epochs=2, resume=True)
    for run in (whole, resumed):
        assert run.best.weight.item() == 0.5 * (1 + 0.5 + 0.25 + 0.125)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, r"epochs is 0; it must be 1 or more"),
        ({"patience": 0}, r"patience is 0; it must be 1 or more, or none"),
        ({"grad_clip": 0.0}, r"grad_clip is 0.0; it must be above 0, or none"),
        ({"device": "gpuu"}, r'unknown device "gpuu". Did you mean "gpu"\?'),
        ({"device": "cuda:x"}, r'device is "cuda:x"; only cuda takes a number, as in cuda:1'),
        ({"device": "cpu:1"}, r'device is "cpu:1"; only cuda takes a number, as in cuda:1'),
        ({"precision": "bf61"}, r'precision is "bf61".*Did you mean "bf16"\?'),
        ({"epoch": 3}, r'unknown key "epoch". Did you mean "epochs"\?'),
    ],
)
def test_wrong_option_of_the_loop_is_refused(scripted, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(scripted.Scripted, **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "gpu", "mps"])
def test_absent_device_is_named(scripted, device):
    with pytest.raises(ConfigError, match=f'device is "{device}", but torch sees no'):
        train(scripted.Scripted, epochs=1, device=device)


def test_options_are_not_changed_by_fit(scripted):
    config = TrainConfig(epochs=2)
    task, data = build(scripted.Scripted)
    run = fit(task, data, config, epochs=3, progress=False)
    assert (run.epoch, config.epochs) == (3, 2)


def test_deterministic_setting_is_put_back(scripted):
    train(scripted.Scripted, epochs=1, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_events_go_to_tensorboard_when_it_is_installed(scripted, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(scripted.Scripted, tmp_path / "run", epochs=2, eval_every=1)
    train(scripted.Scripted, tmp_path / "run", epochs=3, eval_every=1, resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    scores = [(e.step, round(e.value, 3)) for e in events.Scalars("val/score")]
    assert scores == [(1, 0.1), (2, 0.5), (3, 0.3)]
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3]


# ---- several processes ---------------------------------------------------------------------------


def test_stream_is_not_spread_over_processes(toys):
    sentence = r'"toysigned" cannot train on 2 processes.*--devices 1'
    with pytest.raises(TrainingError, match=sentence):
        train(toys.ToySigned, epochs=1, devices=2)


@pytest.mark.slow
def test_two_processes_train_as_one_with_both_batches(toys, tmp_path):
    words = ["train", "toyrank", "--data", "3", "--epochs", "3", "--devices", "2", "--json"]
    command = [sys.executable, "-m", "gnnlab", *words, "--device", "cpu", "--out", "run"]
    done = subprocess.run(command, env=toys.env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)  # one object: the other process is silent

    task, data = build(toys.ToyRank)
    task.prepare(data.train)
    optimizer = task.optimizer()
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    for _ in range(3):
        parts = [
            task.batches(data.train, generator=g, shard=Shard(i, 2))
            for i, g in enumerate(generators)
        ]
        for both in zip(*parts, strict=True):
            optimizer.zero_grad()
            (sum(task.loss(batch)["loss"] for batch in both) / 2).backward()
            optimizer.step()
    found = checkpoint.read_tensors(tmp_path / "run/checkpoints/last/model.safetensors")
    for name, tensor in task.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    assert metrics["epoch"] == len(log_lines(tmp_path / "run")) == 3


# ---- the run folder ------------------------------------------------------------------------------


def test_run_folder_holds_what_the_page_says(scripted, tmp_path):
    experiment.start(scripted.Scripted, "x", {"epochs": 1}, out=tmp_path / "run", progress=False)
    names = {p.name for p in (tmp_path / "run").iterdir()} - {"tensorboard"}
    assert names == {"config.toml", "env.json", "log.jsonl", "metrics.json", "checkpoints"}
    environment = json.loads((tmp_path / "run" / "env.json").read_text())
    assert environment["versions"]["torch"] == torch.__version__


def test_taken_folder_is_refused_and_replaced_on_demand(scripted, cli):
    words = ["train", "scripted", "--data", "x", "--out", "run", "--quiet", "--epochs"]
    assert cli(*words, "3").code == 0
    refused = cli(*words, "2")
    assert refused.code == 2
    assert "run holds a run already. Go on with it: gnnlab train --resume run" in refused.err
    assert cli(*words, "2", "--overwrite").code == 0
    assert len(log_lines(cli.folder("run"))) == 2


def test_changed_data_is_noticed_on_resume(scripted, cli, monkeypatch):
    assert cli("train", "scripted", "--data", "x", "--epochs", "1", "--out", "run").code == 0
    read = scripted.Scripted.read

    def grown(source, config):
        data = read(source, config)
        object.__setattr__(data, "spec", {"size": 2})
        return data

    monkeypatch.setattr(scripted.Scripted, "read", grown)
    for words in (["train", "--resume", "run"], ["evaluate", "run"]):
        answer = cli(*words)
        assert answer.code == 2
        assert "the data has changed since the model was trained: size was 1 and is" in answer.err
