"""What a policy learns in minutes: 6 x 6 shops without buffers, beside the best rule."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from gnnlab.tasks.dispatch.bench._common import head, rule_makespans
from gnnlab.tasks.dispatch.bench.shutdowns import paired
from gnnlab.tasks.dispatch.rules import RULES
from gnnlab.tasks.dispatch.task import Dispatch
from gnnlab.train import fit

__all__ = ["GOAL", "run"]

GOAL, LIMIT = 5.0, 600.0
"""Percent under the best rule, and CPU seconds in which to get there."""


def run(quick: bool = False, *, seeds: int = 3) -> dict[str, Any]:
    """Trains on random shops and tests on 100 others, a few times.

    Args:
        quick: one short training.
        seeds: trainings with different seeds.
    """
    epochs = 1 if quick else 6
    config = Dispatch.Config(preset="6x6", updates=2 if quick else 20)
    data = Dispatch.read("random", config)
    shops = data.split("test").history.instances
    rules = {rule: spans[:, 0] for rule, spans in rule_makespans(shops, config.mode).items()}
    best = min(RULES, key=lambda rule: float(rules[rule].mean()))
    about = (
        f"{epochs} epochs of {config.updates} batches on random 6x6 shops without buffers, tested "
        f"greedily on {len(shops)} others; the epoch is chosen on yet others"
    )
    result = head("learning", about, quick)
    result |= {"goal": GOAL, "limit": LIMIT, "rule": best, "rows": []}
    for seed in range(1 if quick else seeds):
        torch.manual_seed(seed)
        task = Dispatch(config, data.spec)
        begun = time.process_time()
        trained = fit(task, data, epochs=epochs, seed=seed, progress=False)
        seconds = time.process_time() - begun
        spans = np.asarray(trained.best.makespans(shops))  # type: ignore[operator]
        result["rows"].append(
            {
                "seed": seed,
                "cpu seconds": seconds,
                "mean": float(spans.mean()),
                "rule mean": float(rules[best].mean()),
                "better": 100 * (1 - float(spans.mean() / rules[best].mean())),
                **paired(spans, rules[best]),
            }
        )
    return result
