"""`fit`: the only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gnnlab import checkpoint, config as options
from gnnlab.checkpoint import TrainerState
from gnnlab.devices import open_fabric, peak_memory_mb
from gnnlab.errors import CheckpointError, ConfigError, TrainingError, did_you_mean
from gnnlab.log import Progress, RunLog
from gnnlab.task import Data, Shard, Task

__all__ = ["Run", "TrainConfig", "fit"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of the loop, the same for every task."""

    epochs: int = 100
    """Passes over the training batches."""
    eval_every: int = 5
    """Epochs between evaluations on the validation split."""
    patience: int | None = 10
    """Evaluations without improvement before training stops; none never stops early."""
    valid_metric: str | None = None
    """Metric that picks the best epoch; none takes the task's own."""
    seed: int = 0
    """Seed of initial weights, batches and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""
    devices: int = 1
    """Number of processes, one device each."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Arithmetic; tf32 and bf16 are faster on GPUs and less exact."""
    deterministic: bool = False
    """Refuse operators whose result may differ between runs."""
    grad_clip: float | None = None
    """Largest gradient norm; none does not clip."""

    def __post_init__(self) -> None:
        for name in ("epochs", "eval_every", "devices"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience}; it must be 1 or more, or none.")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise ConfigError(f"grad_clip is {self.grad_clip}; it must be above 0, or none.")


@dataclass
class Run:
    """What `fit` returns."""

    best: Task
    """The task with the weights of the best epoch (the last one without a validation split)."""
    folder: Path | None
    """The run folder, or None when nothing was written."""
    epoch: int
    """The last epoch trained; 0 for closed-form models."""
    best_epoch: int
    """The epoch of `best`."""
    best_value: float | None
    """Validation metric of `best`, or None without a validation split."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per epoch: losses, metrics, seconds."""
    stopped_early: bool = False
    """Whether patience ran out."""


@dataclass
class _Progress:
    """Where the loop stands; the part of it that a checkpoint keeps."""

    epoch: int = 0
    step: int = 0
    best_value: float | None = None
    best_epoch: int = 0
    stale: int = 0


def fit(
    task: Task,
    data: Data,
    config: TrainConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **changes: Any,
) -> Run:
    """Trains `task` on `data` and returns the run, its best weights already in `task`.

    Resuming gives bit for bit the weights of the run that was never interrupted (on a CPU, with the
    same number of threads). An epoch is the unit: `last` is written after each, atomically.

    Args:
        task: a new task, or any task whose weights should be trained further.
        data: what `Task.read` returned.
        config: options of the loop; keyword `changes` are put over it.
        out: run folder for checkpoints and log; None keeps everything in memory.
        resume: go on from `out`'s last checkpoint.
        progress: True or False forces the bar; None shows it on a terminal.
        **changes: fields of TrainConfig.

    Raises:
        TrainingError: when the loss is not finite, or the task cannot be spread over processes.
        CheckpointError: when `resume` finds nothing to resume.
        ConfigError: for wrong options.

    Example:
        >>> from gnnlab.tasks import Recommend
        >>> config = Recommend.Config(model="lightgcn", dim=8)
        >>> data = Recommend.read("synthetic", config)
        >>> run = fit(Recommend(config, data.spec), data, epochs=2)
        >>> run.epoch
        2
    """
    base = config or TrainConfig()
    values = {k: getattr(base, k) for k in options.hints(TrainConfig)}
    train_config = options.build(TrainConfig, {**values, **changes})
    if train_config.devices > 1 and not task.shardable:
        raise TrainingError(
            f'task "{task.name}" cannot train on {train_config.devices} processes: '
            "its batches must be seen in order by one. Use --devices 1."
        )
    return _Loop(task, data, train_config, Path(out) if out else None, progress).run(resume)


class _Loop:
    """The state that the steps of one `fit` share."""

    def __init__(
        self, task: Task, data: Data, config: TrainConfig, out: Path | None, progress: bool | None
    ) -> None:
        self.task, self.data, self.config, self.out = task, data, config, out
        self.show = progress
        self.metric = config.valid_metric or task.monitor
        self.at = _Progress()
        self.history: list[dict[str, Any]] = []
        self.generator = torch.Generator().manual_seed(config.seed)

    def run(self, resume: bool) -> Run:
        wanted = self.config
        self.fabric = open_fabric(wanted.device, wanted.devices, wanted.precision)
        previous = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(self.config.deterministic or previous)
        torch.manual_seed(self.config.seed)
        try:
            self.task.to(self.fabric.device)
            self.task.prepare(self.data.train)
            if self.task.trainable:
                self._train(resume)
            else:
                self._save("last")
        finally:
            torch.use_deterministic_algorithms(previous)
        self.task.eval()
        return Run(
            best=self.task,
            folder=self.out,
            epoch=self.at.epoch,
            best_epoch=self.at.best_epoch,
            best_value=self.at.best_value,
            history=self.history,
            stopped_early=self._exhausted,
        )

    def _train(self, resume: bool) -> None:
        self.optimizer = self.task.optimizer()
        if resume:
            self._restore()
        model, optimizer = self.fabric.setup(self.task, self.optimizer)
        best: dict[str, Tensor] | None = None
        if self.at.best_value is not None:  # resumed: the best epoch may lie before the stop
            folder = checkpoint.locate(self._folder("best"))
            best = checkpoint.read_tensors(folder / "model.safetensors")
        log = RunLog(self._main_folder(), last_epoch=self.at.epoch if resume else None)
        shard = Shard(self.fabric.global_rank, self.fabric.world_size)
        show = self.show if self.fabric.is_global_zero else False
        bar = Progress(self.config.epochs, self.at.epoch, enabled=show, metric=self.metric)
        with bar:
            try:
                while self.at.epoch < self.config.epochs and not self._exhausted:
                    record = self._epoch(model, optimizer, shard, bar)
                    if self._evaluate(record):
                        best = _copy(self.task)
                        self._save("best")
                    log.write(record)  # before `last`: resuming drops lines, it cannot add them
                    self._save("last")
                    self.history.append(record)
                    bar.epoch(
                        self.at.epoch,
                        record["steps"],
                        record["train"]["loss"],
                        record.get("val", {}).get(self.metric),
                    )
            except KeyboardInterrupt:
                if self.out is not None:
                    raise KeyboardInterrupt(
                        f"stopped after epoch {self.at.epoch}. "
                        f"Go on with: gnnlab train --resume {self.out}"
                    ) from None
                raise
            finally:
                log.close()
        if best is not None:
            self.task.load_state_dict(best)
        else:
            self.at.best_epoch = self.at.epoch

    def _epoch(self, model: Any, optimizer: Any, shard: Shard, bar: Progress) -> dict[str, Any]:
        began = time.perf_counter()
        self.task.train()
        totals: dict[str, float] = {}
        steps = 0
        epoch = self.at.epoch + 1
        rate = self.optimizer.param_groups[0]["lr"]
        for batch in self.task.batches(self.data.train, generator=self.generator, shard=shard):
            terms: dict[str, Tensor] = model(self.fabric.to_device(batch))
            values = {k: float(v.detach()) for k, v in terms.items()}
            steps += 1
            if not all(map(math.isfinite, values.values())):
                raise self._diverged(values, epoch, steps, rate, _grad_norm(self.task))
            optimizer.zero_grad()
            self.fabric.backward(terms["loss"])
            if self.config.grad_clip is not None:
                norm = self.fabric.clip_gradients(
                    model, optimizer, max_norm=self.config.grad_clip, error_if_nonfinite=False
                )
                if norm is not None and not math.isfinite(float(norm)):
                    raise self._diverged(values, epoch, steps, rate, float(norm))
            for group in self.optimizer.param_groups:
                start = group.setdefault("initial_lr", group["lr"])
                group["lr"] = start * self.task.lr_factor(self.at.step + steps - 1)
            optimizer.step()
            for key, value in values.items():
                totals[key] = totals.get(key, 0.0) + value
            bar.step(epoch, steps, values["loss"])
        if steps == 0:
            raise TrainingError(f'task "{self.task.name}" yielded no training batch.')
        if not all(bool(p.isfinite().all()) for p in self.task.parameters()):
            # The last step spoiled the weights: stop before they become a checkpoint.
            raise self._diverged(values, epoch, steps, rate, _grad_norm(self.task))
        self.at.epoch, self.at.step = epoch, self.at.step + steps
        return {
            "epoch": epoch,
            "step": self.at.step,
            "steps": steps,
            "train": {k: v / steps for k, v in totals.items()},
            "lr": rate,
            "seconds": {"train": time.perf_counter() - began},
            "memory_mb": peak_memory_mb(self.fabric.device),
        }

    def _evaluate(self, record: dict[str, Any]) -> bool:
        """Evaluates when it is time; returns whether this is the best epoch so far."""
        due = record["epoch"] % self.config.eval_every == 0 or record["epoch"] == self.config.epochs
        if self.data.val is None or not due:
            return False
        began = time.perf_counter()
        self.task.eval()
        with torch.no_grad():
            metrics = {k: float(v) for k, v in self.task.evaluate(self.data.val).items()}
        if self.metric not in metrics:
            raise ConfigError(
                f'unknown metric "{self.metric}".{did_you_mean(self.metric, metrics)}'
            )
        record["val"] = metrics
        record["seconds"]["eval"] = time.perf_counter() - began
        value = metrics[self.metric]
        sign = 1.0 if self.task.mode == "max" else -1.0
        better = not math.isnan(value) and (
            self.at.best_value is None or sign * value > sign * self.at.best_value
        )
        if better:
            self.at.best_value, self.at.best_epoch, self.at.stale = value, record["epoch"], 0
        else:
            self.at.stale += 1
        return better

    @property
    def _exhausted(self) -> bool:
        return self.config.patience is not None and self.at.stale >= self.config.patience

    def _diverged(
        self, values: Mapping[str, float], epoch: int, step: int, rate: float, norm: float
    ) -> TrainingError:
        bad = [k for k, v in values.items() if k != "loss" and not math.isfinite(v)]
        term = f" (term {', '.join(bad)})" if bad else ""
        kept = (
            f" Last good checkpoint: {self._folder('last')}."
            if (self.out is not None and self.at.epoch > 0)
            else ""
        )
        value = values["loss"]
        shown = "NaN" if math.isnan(value) else str(value)
        if math.isfinite(value):
            shown = "finite but a term, the gradient or a weight is not"
        return TrainingError(
            f"loss is {shown} at epoch {epoch}, step {step}{term} (lr={rate:g}, "
            f"grad norm {norm:g}).{kept} {self.task.divergence_advice}"
        )

    # ---- checkpoints ------------------------------------------------------------------------

    def _folder(self, which: str) -> Path:
        return (self.out or Path()) / "checkpoints" / which

    def _main_folder(self) -> Path | None:
        if self.out is None or not self.fabric.is_global_zero:
            return None
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out

    def _save(self, which: Literal["best", "last"]) -> None:
        if self._main_folder() is None:
            return
        trainer = None
        if which == "last" and self.task.trainable:
            trainer = checkpoint.pack_optimizer(self.optimizer)
            trainer.facts["at"] = vars(self.at)
            trainer.tensors["rng.torch"] = torch.get_rng_state()
            trainer.tensors["rng.batches"] = self.generator.get_state()
            if self.fabric.device.type == "cuda":
                trainer.tensors["rng.cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        checkpoint.save(self.task, self._folder(which), trainer)

    def _restore(self) -> None:
        if self.out is None:
            raise ConfigError("resume needs the run folder: pass out=.")
        try:
            folder = checkpoint.locate(self._folder("last"))
        except CheckpointError:
            return  # killed before the first epoch ended: start again, with the same result
        checkpoint.load_weights(self.task, folder)
        state: TrainerState = checkpoint.load_trainer(folder)
        checkpoint.unpack_optimizer(self.optimizer, state)
        self.at = _Progress(**state.facts["at"])
        torch.set_rng_state(state.tensors["rng.torch"])
        self.generator.set_state(state.tensors["rng.batches"])
        if "rng.cuda" in state.tensors and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state.tensors["rng.cuda"], self.fabric.device)


def _copy(task: Task) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in task.state_dict().items()}


def _grad_norm(task: Task) -> float:
    grads = [p.grad for p in task.parameters() if p.grad is not None]
    if not grads:
        return math.nan
    return float(torch.stack([g.norm() for g in grads]).norm())
