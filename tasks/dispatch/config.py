"""Every option of the dispatching task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gnnlab.config import implying
from gnnlab.errors import ConfigError, did_you_mean
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.rules import RULES, parse_rule
from gnnlab.tasks.dispatch.schedule import MODES, Mode

__all__ = ["LEARNED", "DispatchConfig", "parse_numbers", "parse_sizes"]

LEARNED = ("jobs", "isb", "l2d")
# Rules that finish episodes in lookahead: four different ones, with and without buffers.
_AHEAD = {
    "jssp": ("SPT/TWKR", "FDD/MWKR", "SPT/TWK", "MWKR"),
    "bws": ("SPT/TWK", "LPT*TWK", "FDD/MWKR", "FIFO"),
    "bns": ("SPT/TWK", "LPT*TWK", "FDD/MWKR", "FIFO"),
}
PresetName = Literal["6x6", "classical", "blocking", "shutdowns"]

_LOOP = {"grad_clip": 1.0, "eval_every": 1, "patience": None, "epochs": 40}
_MODELS: dict[str, dict[str, Any]] = {
    "jobs": _LOOP,
    "isb": {
        **_LOOP,
        "learn": "ppo",
        "layers": 3,
        "lr": 3e-4,
        "grad_clip": 0.5,
        "instances": 64,
        "samples": 1,
        "lookahead": False,
    },
    "l2d": {
        **_LOOP,
        "learn": "ppo",
        "mode": "jssp",
        "lr": 2e-5,
        "grad_clip": None,
        "instances": 4,
        "samples": 1,
        "decay_steps": 10_000,
        "lookahead": False,
    },
}
_PRESETS: dict[str, dict[str, Any]] = {
    "6x6": {"sizes": "6x6", "val_size": "6x6"},
    "classical": {
        "mode": "jssp",
        "sizes": "8x8,10x10,12x10,15x10,15x15",
        "instances": 24,
        "samples": 8,
        "label_search": 2000,
        "rollouts": 32,
        "eval_rollouts": 256,
        "decay_steps": 150,
        "epochs": 10,
        "updates": 15,
    },
    "blocking": {
        "sizes": "8x5,10x5,15x5,20x5,8x8,10x10,15x10,15x15",
        "instances": 24,
        "samples": 8,
        "label_search": 2000,
        "rollouts": 32,
        "guide": True,
        "eval_rollouts": 512,
        "decay_steps": 150,
        "epochs": 10,
        "updates": 15,
    },
    "shutdowns": {
        "sizes": "8x5,10x5,8x8,10x10",
        "shutdown": "0,0.001,0.002,0.005,0.01,0.02",
        "learn": "policy-gradient",
        "instances": 24,
        "samples": 8,
        "rollouts": 32,
        "eval_rollouts": 512,
        "lr": 3e-4,
        "decay_steps": 600,
        "epochs": 10,
        "updates": 10,
    },
}


@implying
@dataclass(frozen=True, kw_only=True)
class DispatchConfig:
    """Options of `Dispatch`: the shop, the model, how it learns, and what it is tested on."""

    model: str = "jobs"
    """jobs (attention over jobs), isb (graph per decision), l2d, or a priority rule such as SPT."""
    preset: PresetName | None = None
    """Settings for a kind of shop: 6x6, classical, blocking or shutdowns."""
    mode: Mode = "bws"
    """bws: no buffers, swaps allowed; bns: no buffers, no swaps; jssp: buffers without limit."""
    allow_wait: bool = False
    """Whether a machine may stay idle although a job waits for it."""
    wip_limit: int | None = None
    """Jobs that may be inside at once; none is no limit."""
    restart: bool = False
    """Whether work that a shutdown cuts is lost; otherwise it goes on after the repair."""
    unload_when_down: bool = True
    """Whether a finished job may leave a machine that is down."""
    shutdown: str = "0"
    """Probabilities that a machine fails in a unit of time, drawn evenly: "0,0.001,0.01"."""
    repair_low: int = 10
    """Shortest repair."""
    repair_high: int = 50
    """Longest repair."""
    dim: int = 64
    """Width of the vectors of operations and jobs."""
    layers: int = 2
    """Attention layers over jobs (isb, l2d: graph layers)."""
    encoder_layers: int = 2
    """Graph layers over the operations of an instance."""
    heads: int = 4
    """Attention heads; half of them look only at jobs that want the same machine."""
    lookahead: bool = True
    """Whether the model is told how the episode ends if priority rules finish it."""
    rollouts: int = 8
    """Noisy episodes per action in lookahead, beside one for each of four rules."""
    guide: bool = False
    """Whether a learned rule plays the noisy episodes; it is fitted before training begins."""
    learn: Literal["self-labeling", "policy-gradient", "ppo"] = "self-labeling"
    """Imitate the best of several episodes, compare them, or learn with a critic (isb, l2d)."""
    init: str | None = None
    """Run or checkpoint folder whose weights training begins with; none begins anew."""
    sizes: str = "6x6"
    """Sizes JxM of the random training shops, drawn evenly: "6x6,10x10"."""
    updates: int = 50
    """Batches of episodes per epoch."""
    instances: int = 32
    """Random shops per step."""
    samples: int = 32
    """Episodes per shop, of which the best is imitated, or which are compared."""
    label_search: int = 0
    """Episodes of local search that improve the best one before it is imitated."""
    entropy: float = 0.0
    """Weight of the entropy in the policy gradient's loss."""
    lr: float = 1e-3
    """Learning rate."""
    decay_steps: int = 2000
    """Steps over which the learning rate falls to a twentieth, along a cosine."""
    val_size: str = "10x10"
    """Size JxM of the random shops that choose the epoch."""
    val_count: int = 100
    """How many of them; the test shops of the source "random" are as many others."""
    eval_rollouts: int = 32
    """Noisy episodes per action in lookahead when the likeliest schedule is asked for."""
    sample_rollouts: int = 64
    """The same when several schedules are drawn; each then draws other noise."""
    eval_samples: int = 1
    """Schedules per shop when scoring: 1 is the greedy one, more are drawn and the best counts."""

    def __post_init__(self) -> None:
        if self.model not in LEARNED:
            try:
                parse_rule(self.model)
            except ConfigError:
                near = did_you_mean(self.model, [*LEARNED, *RULES])
                raise ConfigError(f'unknown model "{self.model}".{near}') from None
        if self.mode not in MODES:
            raise ConfigError(f'unknown mode "{self.mode}".{did_you_mean(self.mode, MODES)}')
        if self.preset is not None and self.preset not in _PRESETS:
            raise ConfigError(
                f'unknown preset "{self.preset}".{did_you_mean(self.preset, _PRESETS)}'
            )
        if (self.model in LEARNED) and (self.learn == "ppo") != (self.model in ("isb", "l2d")):
            raise ConfigError(
                f"{self.model} does not learn by {self.learn}; ppo is for isb and l2d."
            )
        if self.model == "l2d" and self.mode != "jssp":
            raise ConfigError("l2d is for job shops with buffers: pass mode=jssp.")
        parse_sizes(self.sizes)
        parse_sizes(self.val_size)
        for prob in parse_numbers(self.shutdown):
            if not 0 <= prob < 1:
                raise ConfigError(f"shutdown holds {prob}; probabilities are in [0, 1).")
        for name in (
            "dim",
            "layers",
            "heads",
            "updates",
            "instances",
            "samples",
            "decay_steps",
            "val_count",
            "eval_samples",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.dim % self.heads or self.heads % 2:
            raise ConfigError(f"{self.heads} heads: an even number that divides dim={self.dim}.")

    @classmethod
    def implied(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the choice of a model and a preset stands for."""
        preset = values.get("preset")
        return {
            **_MODELS.get(str(values.get("model", cls.model)), {}),
            **(_PRESETS.get(str(preset), {}) if preset is not None else {}),
        }

    def graph_options(self) -> ShopOptions:
        """Returns the rules of the game for all open machines at once, for graph policies."""
        return self.shop_options(focus=False)

    def ahead(self, rollouts: int | None = None) -> Lookahead | None:
        """Returns how actions are judged before a decision, None if they are not."""
        if not self.lookahead:
            return None
        return Lookahead(_AHEAD[self.mode], self.rollouts if rollouts is None else rollouts)

    def shop_options(self, **changes: Any) -> ShopOptions:
        """Returns the rules of the game for one machine at a time, trivial decisions left out."""
        values = {
            "mode": self.mode,
            "restart": self.restart,
            "unload_when_down": self.unload_when_down,
            "wip_limit": self.wip_limit,
            "allow_wait": self.allow_wait,
            "focus": True,
            "auto_trivial": True,
        }
        return ShopOptions(**{**values, **changes})


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Returns the sizes (J, M) that commas separate.

    Raises:
        ConfigError: for anything else.

    Example:
        >>> parse_sizes("6x6,15x10")
        [(6, 6), (15, 10)]
    """
    sizes = []
    for word in text.split(","):
        jobs, _, machines = word.strip().lower().partition("x")
        if not (jobs.isdecimal() and machines.isdecimal() and int(jobs) and int(machines)):
            raise ConfigError(f'"{word}" is no size; write jobs x machines, for example 10x10.')
        sizes.append((int(jobs), int(machines)))
    return sizes


def parse_numbers(text: str) -> list[float]:
    """Returns the numbers that commas separate; ConfigError for anything else."""
    try:
        return [float(word) for word in str(text).split(",")]
    except ValueError:
        raise ConfigError(f'"{text}" is no list of numbers; write for example 0,0.01.') from None
