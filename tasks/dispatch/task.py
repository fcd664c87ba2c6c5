"""`Dispatch`: job-shop dispatching behind the common interface."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gnnlab import checkpoint
from gnnlab.errors import ConfigError, DataError
from gnnlab.task import Data, Prediction, Shard, Split, Task
from gnnlab.tasks.dispatch import data as reading, datasets, rollout
from gnnlab.tasks.dispatch._improving import improved
from gnnlab.tasks.dispatch._rule_spans import rule_spans
from gnnlab.tasks.dispatch.batched import BatchedShop
from gnnlab.tasks.dispatch.bounds import machine_job_bound
from gnnlab.tasks.dispatch.config import DispatchConfig, parse_sizes
from gnnlab.tasks.dispatch.data import Shops
from gnnlab.tasks.dispatch.decoding import play
from gnnlab.tasks.dispatch.gantt_plot import save_gantt
from gnnlab.tasks.dispatch.guide_fit import fit_guide
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.isb import IsbPolicy
from gnnlab.tasks.dispatch.l2d import L2DPolicy
from gnnlab.tasks.dispatch.l2d_shop import L2DShop
from gnnlab.tasks.dispatch.learning import (
    ActorCritic,
    Learner,
    PolicyGradient,
    SelfLabeling,
)
from gnnlab.tasks.dispatch.model import JobPolicy
from gnnlab.tasks.dispatch.rules import RULES, dispatch, parse_rule
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import RandomTrace

__all__ = ["Dispatch"]

_ROWS = 2048  # episodes played together when scoring
_PLAIN = tuple(name for name in RULES if name != "RANDOM")


class Dispatch(Task):
    """Decides which job a free machine takes next.

    It learns from random shops alone; files and classical instances are only ever tested on.

    Args:
        config: see `DispatchConfig`.
        spec: mode of the shop.

    Example:
        >>> config = Dispatch.Config(model="SPT", val_count=2)
        >>> data = Dispatch.read("random", config)
        >>> task = Dispatch(config, data.spec)
        >>> task.solve(data.test.history.instances[0]).mode
        'bws'
    """

    name = "dispatch"
    Config = DispatchConfig
    monitor = "ratio"
    mode = "min"
    shardable = False
    headline = ("makespan", "ratio")
    baselines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"model": name} for name in ("SPT", "MWKR", "FDD/MWKR", "SPT/TWKR", "LPT*TWK")
    }
    demo: ClassVar[Mapping[str, Any]] = {
        "source": "random",
        "models": [{"model": "jobs", "preset": "6x6", "name": "jobs"}],
        "values": {"epochs": 3, "updates": 10, "samples": 16, "val_size": "6x6", "eval_every": 1},
        "commands": [
            "gnnlab dispatch solve your-shop.txt --gantt plan.svg",
            "gnnlab train dispatch --data your-shop.txt --preset blocking --out my-run",
            "gnnlab dispatch solve your-shop.txt --policy my-run --gantt plan.html",
        ],
    }
    commands: ClassVar[Mapping[str, str]] = {
        verb: f"gnnlab.tasks.dispatch.commands:{verb}"
        for verb in ("solve", "verify", "convert", "gantt")
    }
    citation = """@inproceedings{corsini2024selflabeling,
  title = {Self-Labeling the Job Shop Scheduling Problem},
  author = {Corsini, Andrea and Porrello, Angelo and Calderara, Simone and Dell'Amico, Mauro},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  eprint = {2401.11849}
}"""

    def __init__(self, config: DispatchConfig, spec: Mapping[str, Any]) -> None:
        super().__init__(config, spec)
        self.policy: JobPolicy | IsbPolicy | L2DPolicy | None = None
        ahead = config.ahead()
        if config.model == "jobs":
            width = ahead.width if ahead else 0
            self.policy = JobPolicy(
                config.dim,
                config.layers,
                config.encoder_layers,
                config.heads,
                width,
                config.guide and width > 0,
            )
        elif config.model == "isb":
            self.policy = IsbPolicy(config.dim, config.layers)
        elif config.model == "l2d":
            self.policy = L2DPolicy()
        kinds = {"self-labeling": SelfLabeling, "policy-gradient": PolicyGradient}
        self.learner: Learner = kinds.get(config.learn, ActorCritic)(config)

    # ---- the five methods -------------------------------------------------------------------

    @classmethod
    def read(cls, source: Any, config: DispatchConfig | None = None) -> Data:
        """Reads what to test on: random, a file, a folder, or names such as la01-05."""
        return reading.read(source, config or DispatchConfig())

    def prepare(self, train: Split) -> None:
        """Takes over the weights of `config.init`, or else finds those of the guide."""
        if self.policy is not None and self.config.init:
            folder = checkpoint.locate(Path(self.config.init), "best")
            checkpoint.load_weights(self, folder)
        elif isinstance(self.policy, JobPolicy) and self.policy.guide is not None:
            ahead = self.config.ahead()
            assert ahead is not None
            sizes, seed = parse_sizes(self.config.sizes), int(torch.randint(2**31, ()))
            weights = fit_guide(self.config.shop_options(), ahead, sizes, seed)
            self.policy.guide.copy_(torch.from_numpy(weights))

    def batches(
        self, split: Split, *, generator: torch.Generator, shard: Shard
    ) -> Iterator[Mapping[str, Tensor]]:
        """Yields what the present policy did in its best episodes of random shops."""
        if self.policy is None:
            raise ConfigError(f"{self.config.model} is a rule and does not learn.")
        return self.learner.batches(self.policy, generator)

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns "loss", how often the policy agrees with the labels, and mean over best span."""
        if self.policy is None:
            raise ConfigError(f"{self.config.model} is a rule and has no loss.")
        return self.learner.loss(self.policy, dict(batch))

    def lr_factor(self, step: int) -> float:
        """Falls along a cosine from 1 to 1/20."""
        share = min(1.0, step / self.config.decay_steps)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))

    def evaluate(self, split: Split) -> dict[str, float]:
        """Schedules every shop of the split.

        Returns:
            makespan, its mean; ratio, that over the mean of the best single rule on the same shops
            and traces; over_bound, the mean of makespan / lower bound - 1; deadlocks, their share
            (they count as the serial makespan); and gap to the best known makespans if all are.
        """
        shops: Shops = split.history
        spans = self.makespans(shops.instances, shops.traces, samples=self.config.eval_samples)
        serial = np.array([i.total_time for i in shops.instances], np.float64)
        bounds = np.array([max(1, machine_job_bound(i)) for i in shops.instances], np.float64)
        dead = ~np.isfinite(spans)
        spans = np.where(dead, serial, spans)
        rules = [self._rule_spans(shops, name) for name in _PLAIN]
        best = min(float(np.where(np.isfinite(r), r, serial).mean()) for r in rules)
        found = {
            "makespan": float(spans.mean()),
            "ratio": float(spans.mean()) / best,
            "over_bound": float((spans / bounds).mean()) - 1,
            "deadlocks": float(dead.mean()),
        }
        known = split.target
        if known and all(k is not None for k in known) and not any(shops.traces):
            found["gap"] = float((spans / np.array(known)).mean()) - 1
        return found

    def predict(
        self,
        *,
        instance: str | None = None,
        shutdown: float = 0.0,
        seed: int = 0,
        samples: int = 1,
        search: int = 0,
    ) -> Prediction:
        """Schedules one job shop; the table is job, op, machine, start, end, depart.

        Args:
            instance: file, or the name of a classical instance.
            shutdown: probability that a machine fails in a unit of time.
            seed: of shutdowns and samples.
            samples: schedules to draw, of which the best is kept; 1 is the likeliest.
            search: episodes of local search from there; it knows the shutdowns to come.
        """
        if instance is None:
            raise ConfigError("schedule what? Pass --instance FILE or --input FILE.")
        shops = reading.read_shops(instance)
        if len(shops) > 1:
            raise ConfigError(f"{instance} holds {len(shops)} job shops; pass one.")
        how = reading.shutdowns(self.config, shutdown)
        trace = RandomTrace(seed, how) if shutdown > 0 else None
        plan = self.solve(shops[0], trace, samples=samples, search=search, seed=seed)
        columns = ("job", "op", "machine", "start", "end", "depart")
        window = trace.until(shops[0].num_machines, plan.makespan) if trace else None

        def draw(_: Prediction, path: Path) -> None:
            save_gantt(plan, path, window)

        return Prediction(
            {name: plan.ops[:, c] for c, name in enumerate(columns)},
            writers=dict.fromkeys((".svg", ".html", ".png", ".pdf"), draw),
        )

    def query(self, source: Path) -> dict[str, Any]:
        """Takes the file of `gnnlab predict --input` as the instance."""
        return {"instance": str(source)}

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:
        """Returns a row per family of classical instances, and the random ones."""
        rows: list[dict[str, Any]] = [{"name": "random", "shops": "any", "where": "generated"}]
        for family in ("ft", "la", "abz", "swv", "yn", "ta"):
            names = datasets.expand(family)
            rows.append({"name": family, "shops": len(names), "where": _place(names[0])})
        return rows

    @classmethod
    def fetch(cls, name: str) -> str:
        """Fetches classical instances ("classical" is all) from their public repository."""
        return str(datasets.fetch(name))

    # ---- beside the interface ---------------------------------------------------------------

    def solve(
        self,
        instance: JobShopInstance,
        trace: RandomTrace | None = None,
        *,
        samples: int = 1,
        search: int = 0,
        seed: int = 0,
    ) -> Schedule:
        """Returns a schedule of one job shop.

        Args:
            instance: the job shop.
            trace: when machines are down.
            samples: episodes to draw, of which the best is kept; 1 is the likeliest one.
            search: episodes of local search from there; it knows the shutdowns to come.
            seed: of the samples.

        Raises:
            ConfigError: when every episode ends in a deadlock (bns only).
        """
        if self.policy is None and samples == 1 and not search:
            shop = dispatch(instance, self.config.model, trace, self.config.shop_options())
            if shop.deadlock:
                raise ConfigError(f"{instance.name}: {self.config.model} ends in a deadlock.")
            return shop.schedule()
        batch, spans = self._episodes([instance], [trace], samples, seed)
        if not np.isfinite(spans).any():
            raise ConfigError(f"{instance.name}: every episode ends in a deadlock.")
        row = int(spans[0].argmin())
        found = batch.schedule(row)
        if not search:
            return found
        if not isinstance(batch, BatchedShop):
            raise ConfigError("l2d schedules are not improved by search; pass search=0.")
        return improved(instance, found, self.config.shop_options(), trace, search, seed)

    def makespans(
        self,
        instances: Sequence[JobShopInstance],
        traces: Sequence[RandomTrace | None] | None = None,
        *,
        samples: int = 1,
        seed: int = 0,
    ) -> np.ndarray:
        """Returns the makespan of each instance, (I,) float64; inf for a deadlock.

        Args:
            instances: I job shops of any sizes.
            traces: I traces, None for no shutdowns.
            samples: episodes to draw per shop, of which the best counts; 1 is the likeliest one.
            seed: of the samples.
        """
        given = list(traces) if traces is not None else [None] * len(instances)
        if self.policy is None:
            return self._rule_spans(Shops(instances, given), self.config.model)
        out = np.empty(len(instances))
        for rows in _alike(instances, max(1, _ROWS // samples)):
            _, spans = self._episodes(
                [instances[i] for i in rows], [given[i] for i in rows], samples, seed
            )
            out[rows] = spans.min(1)
        return out

    def _episodes(
        self,
        instances: Sequence[JobShopInstance],
        traces: Sequence[RandomTrace | None],
        samples: int,
        seed: int,
    ) -> tuple[BatchedShop | L2DShop, np.ndarray]:
        """Plays `samples` episodes of instances of one size; spans are (I, samples)."""
        policy, repeated = self.policy, [t for t in traces for _ in range(samples)]
        generator = torch.Generator().manual_seed(seed) if samples > 1 else None
        shop: BatchedShop | L2DShop
        if isinstance(policy, L2DPolicy):
            if any(t is not None for t in traces):
                raise ConfigError("l2d knows no shutdowns.")
            shop = L2DShop(instances, copies=samples)
            rollout.play(policy, shop, generator=generator)
            return shop, shop.makespans().reshape(len(instances), samples).astype(np.float64)
        rule, limit = ("", None) if policy is not None else _as_rule(self.config.model)
        options = self.config.shop_options(wip_limit=limit or self.config.wip_limit)
        if isinstance(policy, IsbPolicy):
            options = self.config.graph_options()
        shop = BatchedShop(instances, options, copies=samples, traces=repeated)
        if policy is None:
            rule_spans(shop, rule, np.arange(shop.num_rows) + seed * shop.num_rows)
        elif isinstance(policy, IsbPolicy):
            rollout.play(policy, shop, generator=generator)
        else:
            self._play(policy, shop, generator)
        spans = shop.makespans().reshape(len(instances), samples)
        return shop, np.where(spans < 0, np.inf, spans)

    def _play(
        self, policy: JobPolicy, shop: BatchedShop, generator: torch.Generator | None
    ) -> None:
        config = self.config
        rollouts = config.eval_rollouts if generator is None else config.sample_rollouts
        play(
            policy.reading(shop.padded()),
            shop,
            lookahead=policy.informed(self.config.ahead(rollouts)),
            generator=generator,
        )

    def _rule_spans(self, shops: Shops, rule: str) -> np.ndarray:
        out = np.empty(len(shops))
        options = self.config.shop_options()
        for rows in _alike(shops.instances, _ROWS):
            name, limit = _as_rule(rule)
            some = BatchedShop(
                [shops.instances[i] for i in rows],
                options,
                traces=[shops.traces[i] for i in rows],
                wip_limits=None if limit is None else [limit] * len(rows),
            )
            out[rows] = rule_spans(some, name)
        return out


def _alike(instances: Sequence[JobShopInstance], most: int) -> Iterator[list[int]]:
    """Yields the places of instances of equal size, at most so many at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, instance in enumerate(instances):
        groups.setdefault((*instance.machines.shape, instance.num_machines), []).append(i)
    for rows in groups.values():
        for begin in range(0, len(rows), most):
            yield rows[begin : begin + most]


def _as_rule(rule: str) -> tuple[str, int | None]:
    """Returns the name in `RULES`, and the limit of jobs inside."""
    chosen = parse_rule(rule)
    if chosen.name not in RULES:
        raise ConfigError(f"{rule} cannot be played in batches; use a rule by itself.")
    return chosen.name, chosen.wip_limit


def _place(name: str) -> str:
    try:
        return str(datasets.find(name).parent)
    except DataError:
        return "not on this machine"
