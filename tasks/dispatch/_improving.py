"""What local search makes of a schedule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.trace import Trace


def improved(
    instance: JobShopInstance,
    plan: Schedule,
    options: ShopOptions,
    trace: Trace | None,
    episodes: int,
    seed: int,
) -> Schedule:
    """Returns a better schedule if that many episodes find one, else `plan`; machines may wait."""
    from gnnlab.tasks.dispatch.batched import BatchedShop

    starts = np.full(instance.machines.shape, -1, np.int64)
    starts[plan.ops[:, 0], plan.ops[:, 1]] = plan.ops[:, 3]
    waiting = replace(options, allow_wait=True, focus=True, auto_trivial=False)
    shop = BatchedShop([instance], waiting, traces=[trace])
    shop.search(episodes, start=starts[None], seeds=np.array([seed]))
    return shop.schedule(0) if 0 <= int(shop.makespans()[0]) < plan.makespan else plan
