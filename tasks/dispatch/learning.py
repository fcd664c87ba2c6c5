"""Self-labelling: play several episodes of random shops, imitate the best of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gnnlab.tasks.dispatch.batched import BatchedShop, JobView, Problems
from gnnlab.tasks.dispatch.config import DispatchConfig, parse_numbers, parse_sizes
from gnnlab.tasks.dispatch.data import random_problems, shutdowns
from gnnlab.tasks.dispatch.decoding import Decisions, play
from gnnlab.tasks.dispatch.model import JobPolicy
from gnnlab.tasks.dispatch.trace import RandomTrace

__all__ = ["SelfLabeling"]

_FULL_SIZE = 100  # operations up to which a step takes all shops that the options ask for


class SelfLabeling:
    """Learns by imitating itself where it did best.

    Each step draws shops of one size, plays `samples` episodes of each by the present policy, and
    takes the decisions of the best episode as labels. Larger shops come in smaller numbers, so that
    steps cost about the same.

    Args:
        config: sizes, numbers of shops and episodes, shutdowns.

    Reference: Corsini et al., NeurIPS 2024, arXiv:2401.11849. Differs from it in: the simulator is
    event-driven, and the policy sees what lookahead thinks of each action.
    """

    def __init__(self, config: DispatchConfig) -> None:
        self.config = config
        self.sizes = parse_sizes(config.sizes)
        self.probs = parse_numbers(config.shutdown)

    def batches(self, policy: JobPolicy, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        """Yields an epoch of batches: what was seen in the best episodes, and what was done."""
        for _ in range(self.config.updates):
            yield self._batch(policy, generator)

    def loss(self, policy: JobPolicy, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the cross-entropy of the best episodes' actions, and how they compare."""
        view = JobView(**{f.name: batch[f.name] for f in fields(JobView)})
        problems = Problems(
            batch["machines"].cpu().numpy(),
            batch["times"].cpu().numpy(),
            batch["lengths"].cpu().numpy(),
            int(batch["num_machines"]),
        )
        logits = policy(view, policy.encode(problems), batch["which"])
        return {
            "loss": functional.cross_entropy(logits, batch["action"]),
            "agreement": (logits.detach().argmax(1) == batch["action"]).float().mean(),
            "spread": batch["spread"],
        }

    def _batch(self, policy: JobPolicy, generator: torch.Generator) -> dict[str, Tensor]:
        config = self.config
        seed = int(torch.randint(2**40, 2**62, (1,), generator=generator))
        rng = np.random.default_rng(seed)
        while True:
            jobs, machines = self.sizes[rng.integers(len(self.sizes))]
            share = min(1.0, _FULL_SIZE / (jobs * machines))
            count = max(1, round(config.instances * share))
            problems = random_problems(rng, count, jobs, machines)
            shop = BatchedShop(
                problems,
                config.shop_options(),
                copies=config.samples,
                traces=self._traces(rng, count, seed),
            )
            seen = Decisions()
            with torch.no_grad():
                vectors = policy.encode(problems)

            def act(view: JobView, which: Tensor, v: Tensor = vectors) -> Tensor:
                logits: Tensor = policy(view.to(v.device), v, which.to(v.device))
                return logits.cpu()

            spans = play(
                act,
                shop,
                lookahead=config.ahead(),
                generator=generator,
                keep=seen,
            ).reshape(count, -1)
            spans = np.where(spans < 0, np.iinfo(np.int64).max, spans)  # deadlocks are no labels
            best = spans.argmin(1)
            alive = spans.min(1) < np.iinfo(np.int64).max
            rows = (best + np.arange(count) * config.samples)[alive]
            if seen.rows and len(rows):
                break
        view, row, action = seen.of(rows)
        finite = np.where(spans == np.iinfo(np.int64).max, spans.min(1, keepdims=True), spans)
        return {
            **{f.name: getattr(view, f.name) for f in fields(JobView)},
            "which": row // config.samples,
            "action": action,
            "machines": torch.from_numpy(problems.machines),
            "times": torch.from_numpy(problems.times),
            "lengths": torch.from_numpy(problems.lengths),
            "num_machines": torch.tensor(machines),
            "spread": torch.tensor(float(finite.mean() / finite.min(1).mean())),
        }

    def _traces(
        self, rng: np.random.Generator, count: int, seed: int
    ) -> list[RandomTrace | None] | None:
        """One trace per shop, shared by its episodes: they differ by decisions alone."""
        if self.probs == [0.0]:
            return None
        traces: list[RandomTrace | None] = []
        for i, which in enumerate(rng.integers(len(self.probs), size=count)):
            prob = self.probs[which]
            one = RandomTrace(seed + i, shutdowns(self.config, prob)) if prob > 0 else None
            traces += [one] * self.config.samples
        return traces
