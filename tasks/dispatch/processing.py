"""When an operation is complete: its time, and what shutdowns of its machine add to it."""

from __future__ import annotations

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.trace import Trace, Window

__all__ = ["Begun", "processing_end"]

MAX_CUTS = 1_000_000


class Begun:
    """The windows of a trace that have begun by a given time: what is known of it then.

    Args:
        trace: the trace.
        time: the time.
    """

    def __init__(self, trace: Trace, time: float) -> None:
        self.trace, self.time = trace, time

    def window(self, machine: int, index: int) -> Window | None:
        """Returns the `index`-th window of a machine, None when there are no more."""
        window = self.trace.window(machine, index)
        return window if window and window[0] <= self.time else None


def processing_end(
    trace: Trace, machine: int, start: int, p: int, restart: bool, first: int = 0
) -> int:
    """Returns the first time at which work of length `p` that starts at `start` is done.

    Work whose last unit ends exactly where a window begins is complete.

    Args:
        trace: when the machine is down.
        machine: the machine; it is up at `start`.
        start: when the work starts.
        p: how long it takes on a machine that is up.
        restart: whether work that a window cuts is lost; otherwise it goes on after the window.
        first: a window before which none ends after `start`.

    Raises:
        ConfigError: if a million windows are not enough.

    Example:
        >>> from gnnlab.tasks.dispatch.trace import WindowTrace
        >>> [processing_end(WindowTrace([[(2, 4)]]), 0, 0, 3, restart) for restart in (False, True)]
        [5, 7]
    """
    end = start + p
    if p == 0:
        return end
    for index in range(first, first + MAX_CUTS):
        window = trace.window(machine, index)
        if window is None or window[0] >= end:
            return end
        if window[1] > start:
            end = window[1] + p if restart else end + window[1] - window[0]
    raise ConfigError(
        f"{MAX_CUTS} shutdowns of machine {machine} cut an operation that takes {p}: the machine "
        f"is hardly ever up so long. Use restart=False or a smaller probability."
    )
