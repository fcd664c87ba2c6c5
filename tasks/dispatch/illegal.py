"""`IllegalAction`, and why an action is one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from gnnlab.errors import GnnlabError

if TYPE_CHECKING:
    from gnnlab.tasks.dispatch.simulator import Simulator

__all__ = ["IllegalAction", "is_integer", "why_illegal"]


class IllegalAction(GnnlabError, ValueError):
    """An action that the state of the shop does not allow; its text says why."""


def is_integer(action: Any) -> bool:
    """Returns whether an action is an integer of any kind, and not a truth value."""
    return hasattr(action, "__index__") and not isinstance(action, bool)


def why_illegal(shop: Simulator, action: Any) -> str:
    """Returns a sentence that says why an action is not legal now."""
    text = f"action {action!r} at time {shop.time}: "
    n = shop.num_jobs
    if shop.over:
        return text + "the episode is over."
    if not is_integer(action):
        return text + "an action is an integer."
    j = operator.index(action)
    if not 0 <= j <= n:
        return text + f"actions are jobs 0..{n - 1}, and {n} to wait."
    if j == n:
        if not shop.options.allow_wait:
            return text + "waiting is not allowed; set allow_wait=True."
        return text + "there is nothing to wait for."
    return text + _why_not_move(shop, j)


def _why_not_move(shop: Simulator, j: int) -> str:
    k, status = shop.next_machine(j), shop.status[j]
    if status == status.DONE:
        return "the job is done."
    if status == status.PROC:
        return f"the job is being processed on machine {shop.location[j]}."
    if shop.down_until[k]:
        return f"its next machine {k} is down until {shop.down_until[k]}."
    if shop.occupant[k] >= 0:
        return f"its next machine {k} holds job {shop.occupant[k]}."
    if not shop.may_move(j):
        if status == status.WAIT:
            return f"{shop.inside} jobs are inside, and wip_limit lets in no more."
        return f"it cannot leave machine {shop.location[j]}, which is down."
    return f"it wants machine {k}; the decision is about {shop.open_machines()[0]}."
