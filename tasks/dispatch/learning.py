"""How a policy over jobs learns: from its best episodes, or by comparing all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gnnlab.tasks.dispatch.batched import BatchedShop, JobView, Problems
from gnnlab.tasks.dispatch.config import DispatchConfig, parse_numbers, parse_sizes
from gnnlab.tasks.dispatch.data import random_problems, shutdowns
from gnnlab.tasks.dispatch.decoding import Decisions, play, replay
from gnnlab.tasks.dispatch.l2d_shop import L2DShop
from gnnlab.tasks.dispatch.lookahead import Lookahead
from gnnlab.tasks.dispatch.model import JobPolicy
from gnnlab.tasks.dispatch.ppo import PPO, PPOConfig
from gnnlab.tasks.dispatch.trace import RandomTrace

__all__ = ["ActorCritic", "Learner", "PolicyGradient", "SelfLabeling"]

_FULL_SIZE = 100  # operations up to which a step takes all shops that the options ask for
_DECISIONS = 4096  # of a policy gradient's step
_CLIP = 0.2


class Learner(ABC):
    """Plays random shops by the present policy and makes batches of what happened.

    Larger shops come in smaller numbers, so that batches cost about the same.

    Args:
        config: sizes, numbers of shops and episodes, shutdowns.
    """

    def __init__(self, config: DispatchConfig) -> None:
        self.config = config
        self.sizes = parse_sizes(config.sizes)
        self.probs = parse_numbers(config.shutdown)

    @abstractmethod
    def batches(self, policy: Any, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """Yields an epoch of batches, each from episodes of the weights as they then are."""

    @abstractmethod
    def loss(self, policy: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns "loss" and what else is worth knowing of a batch."""

    def _shops(
        self, generator: torch.Generator
    ) -> tuple[Problems, list[RandomTrace | None] | None, int]:
        """Returns shops of one size, a trace for each, and the seed that they came from."""
        seed = int(torch.randint(2**40, 2**62, (1,), generator=generator))
        rng = np.random.default_rng(seed)
        jobs, machines = self.sizes[rng.integers(len(self.sizes))]
        count = max(1, round(self.config.instances * min(1.0, _FULL_SIZE / (jobs * machines))))
        problems = random_problems(rng, count, jobs, machines)
        if self.probs == [0.0]:
            return problems, None, seed
        which = [self.probs[p] for p in rng.integers(len(self.probs), size=count)]
        traces = [
            RandomTrace(seed + i, shutdowns(self.config, prob)) if prob > 0 else None
            for i, prob in enumerate(which)
        ]
        return problems, traces, seed

    def _play(
        self,
        policy: JobPolicy,
        problems: Problems,
        traces: list[RandomTrace | None] | None,
        generator: torch.Generator,
    ) -> tuple[BatchedShop, np.ndarray, Decisions]:
        """Plays the episodes; spans are (I, samples), deadlocks four times the serial makespan."""
        samples, seen = self.config.samples, Decisions()
        shop = BatchedShop(
            problems,
            self.config.shop_options(),
            copies=samples,  # episodes of a shop share its trace: they differ by decisions alone
            traces=None if traces is None else [t for t in traces for _ in range(samples)],
        )
        act = policy.reading(problems)
        ahead = policy.informed(self.config.ahead())
        spans = play(act, shop, lookahead=ahead, generator=generator, keep=seen)
        spans = spans.reshape(len(problems), samples)
        serial = np.where(problems.machines < 0, 0, problems.times).sum((1, 2))[:, None]
        return shop, np.where(spans < 0, 4 * serial, spans), seen


class SelfLabeling(Learner):
    """Imitates itself where it did best.

    Of the episodes of a shop the best one is taken, improved by local search if the options ask
    for it, and its decisions become labels.

    Reference: Corsini et al., NeurIPS 2024, arXiv:2401.11849. Differs from it in: the simulator is
    event-driven, the policy sees what lookahead thinks of each action, and labels may be improved.
    """

    def batches(self, policy: JobPolicy, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        """Yields an epoch of batches: what was seen in the best episodes, and what was done."""
        for _ in range(self.config.updates):
            problems, traces, seed = self._shops(generator)
            shop, spans, seen = self._play(policy, problems, traces, generator)
            if not seen.rows:
                continue  # nothing to decide in any of these shops
            best = spans.argmin(1) + np.arange(len(spans)) * self.config.samples
            if self.config.label_search:
                ahead = policy.informed(self.config.ahead())
                view, which, action = self._improved(shop, problems, traces, best, seed, ahead)
            else:
                view, rows, action, _ = seen.of(best)
                which = rows // self.config.samples
            yield {
                **_flat(view, problems, which, action),
                "spread": torch.tensor(float(spans.mean() / spans.min(1).mean())),
            }

    def loss(self, policy: JobPolicy, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the cross-entropy of the labels, and how they compare with the policy."""
        logits, action = _logits(policy, batch), batch["action"]
        return {
            "loss": functional.cross_entropy(logits, action),
            "agreement": (logits.detach().argmax(1) == action).float().mean(),
            "spread": batch["spread"],
        }

    def _improved(
        self,
        shop: BatchedShop,
        problems: Problems,
        traces: list[RandomTrace | None] | None,
        best: np.ndarray,
        seed: int,
        ahead: Lookahead | None,
    ) -> tuple[JobView, Tensor, Tensor]:
        """Improves the best episodes by local search; returns the decisions of the results."""
        begun = np.stack([shop.starts(int(row)) for row in best])
        better = BatchedShop(problems, self.config.shop_options(auto_trivial=False), traces=traces)
        seeds = np.arange(len(best), dtype=np.uint64) + np.uint64(seed)
        better.search(self.config.label_search, start=begun, seeds=seeds)
        starts = np.stack([better.starts(row).ravel() for row in range(len(best))])
        again = BatchedShop(problems, self.config.shop_options(), traces=traces)
        view, which, action, _ = replay(again, starts, ahead).of(np.arange(len(best)))
        return view, which, action


class PolicyGradient(Learner):
    """Makes what went better than the other episodes of the same shop and trace more likely.

    $A_i = (\\bar{c} - c_i) / \\sigma_c$ over the makespans c of a shop's episodes is the
    advantage of all decisions of episode i: the episodes are each other's baseline, and no critic
    is needed. The ratio of probabilities is clipped as in PPO, because a batch gives several steps.

    Reference: Kwon et al., NeurIPS 2020, arXiv:2010.16011 (shared baseline); Schulman et al., 2017,
    arXiv:1707.06347 (clipped ratio).
    """

    def batches(self, policy: JobPolicy, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        """Yields an epoch of batches of decisions with their advantages."""
        for _ in range(self.config.updates):
            problems, traces, _ = self._shops(generator)
            _, spans, seen = self._play(policy, problems, traces, generator)
            if not seen.rows:
                continue
            spread = spans.std(1, keepdims=True)
            advantage = (spans.mean(1, keepdims=True) - spans) / np.where(spread > 0, spread, 1)
            view, rows, action, log = seen.of(np.flatnonzero(np.ones(spans.size)))
            weight = torch.from_numpy(advantage.ravel()).float()[rows]
            order = torch.randperm(len(rows), generator=generator)
            for part in torch.split(order, _DECISIONS):
                which = rows[part] // self.config.samples
                yield {
                    **_flat(view.at(part), problems, which, action[part]),
                    "weight": weight[part],
                    "log": log[part],
                    "spread": torch.tensor(float(spans.mean() / spans.min(1).mean())),
                }

    def loss(self, policy: JobPolicy, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the clipped policy loss, the entropy, and the share of clipped ratios."""
        logs = torch.log_softmax(_logits(policy, batch), 1)
        log = logs.gather(1, batch["action"][:, None])[:, 0]
        ratio, weight = (log - batch["log"]).exp(), batch["weight"]
        clipped = ratio.clamp(1 - _CLIP, 1 + _CLIP)
        entropy = -(logs.exp() * logs.masked_fill(~batch["mask"], 0.0)).sum(1).mean()
        return {
            "loss": -torch.minimum(ratio * weight, clipped * weight).mean()
            - self.config.entropy * entropy,
            "entropy": entropy.detach(),
            "clipped": (ratio != clipped).float().mean(),
            "spread": batch["spread"],
        }


class ActorCritic(Learner):
    """Proximal policy optimisation of a policy with a critic: isb and l2d."""

    def __init__(self, config: DispatchConfig) -> None:
        super().__init__(config)
        self.ppo = PPO(PPOConfig.l2d() if config.model == "l2d" else PPOConfig())

    def batches(self, policy: Any, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """Yields an epoch of minibatches of decisions."""
        for _ in range(self.config.updates):
            yield from self.ppo.batches(policy, self._new_shop, generator)

    def loss(self, policy: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the loss and its terms."""
        return self.ppo.loss(policy, dict(batch))

    def _new_shop(self, generator: torch.Generator) -> Any:
        problems, traces, _ = self._shops(generator)
        copies = self.config.samples
        if self.config.model == "l2d":
            return L2DShop(problems, copies=copies)
        repeated = None if traces is None else [t for t in traces for _ in range(copies)]
        return BatchedShop(problems, self.config.graph_options(), copies=copies, traces=repeated)


def _flat(view: JobView, problems: Problems, which: Tensor, action: Tensor) -> dict[str, Tensor]:
    """Returns what a loss needs as plain tensors."""
    return {
        **{f.name: getattr(view, f.name) for f in fields(JobView)},
        "which": which,
        "action": action,
        "machines": torch.from_numpy(problems.machines),
        "times": torch.from_numpy(problems.times),
        "lengths": torch.from_numpy(problems.lengths),
        "num_machines": torch.tensor(problems.num_machines),
    }


def _logits(policy: JobPolicy, batch: Mapping[str, Tensor]) -> Tensor:
    view = JobView(**{f.name: batch[f.name] for f in fields(JobView)})
    machines, times, lengths = (batch[k].cpu().numpy() for k in ("machines", "times", "lengths"))
    problems = Problems(machines, times, lengths, int(batch["num_machines"]))
    logits: Tensor = policy(view, policy.encode(problems), batch["which"])
    return logits
