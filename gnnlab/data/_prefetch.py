"""Rows under way."""

from __future__ import annotations

from concurrent.futures import Future

from torch import Tensor

from gnnlab.data._device import Device, Event

__all__ = ["Prefetch"]


class Prefetch:
    """Rows that `HostFeatures.prefetch` is fetching.

    Example:
        >>> import gnnlab.data, torch
        >>> feats = gnnlab.data.HostFeatures(torch.eye(3))
        >>> handle = feats.prefetch(torch.tensor([2]))
        >>> handle.wait()
        tensor([[0., 0., 1.]])
    """

    def __init__(self, future: Future[tuple[Tensor, Event | None]], device: Device | None) -> None:
        self._future, self._device = future, device

    def wait(self) -> Tensor:
        """Returns the rows, as ``feats[ids]`` would; more than once if need be.

        On a GPU only the current stream waits, not the caller, once the work is under way. An
        error that came up while fetching is raised here.
        """
        rows, end = self._future.result()
        if self._device is not None and end is not None:
            self._device.join(end, rows)
        return rows
