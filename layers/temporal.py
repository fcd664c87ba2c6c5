"""TimeEncoder and MemoryUpdater: what nodes remember of a stream of signed events."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gnnlab.ops import gather, scatter

__all__ = ["Events", "Memory", "MemoryUpdater", "TimeEncoder"]

TimeScale = Literal["log", "raw"]


class TimeEncoder(nn.Module):
    r"""Writes a span of time as cosines of learned frequencies.

    $$ \phi(\Delta) = \cos(\omega\, g(\Delta) + b), \qquad
       g(\Delta) = \log(1 + \Delta) \text{ or } \Delta $$

    The difference of two times is taken in float64, and so is the phase of raw times: seconds since
    1970 do not fit into float32. A negative difference counts as 0.

    Args:
        dim: number of cosines.
        time_scale: "log", or "raw" for the time as it is.
        init: "geometric" starts \omega from 1 down to 1e-6 (raw: 1e-9, as TGN has it) and b at 0;
            "linear" draws both as `torch.nn.Linear(1, dim)` does, as SEMBA has it.

    Shapes:
        time: (*) float; since: the same shape, or one that broadcasts; None: time is a span.
        returns: (*, dim), dtype of the parameters.

    Raises:
        ValueError: if an option is unknown, or dim is less than 1.

    Example:
        >>> import torch
        >>> from gnnlab.layers import TimeEncoder
        >>> now = torch.tensor([1.7e9, 1.7e9 + 60], dtype=torch.float64)
        >>> TimeEncoder(4)(now, 1.7e9).shape
        torch.Size([2, 4])

    Reference: Rossi et al., arXiv:2006.10637, section 3.1, after Xu et al., arXiv:2002.07962.
    Differs from it in: the logarithm.
    """

    citation: ClassVar[str] = """@inproceedings{xu2020inductive,
  title     = {Inductive Representation Learning on Temporal Graphs},
  author    = {Xu, Da and Ruan, Chuanwei and Korpeoglu, Evren and Kumar, Sushant and
               Achan, Kannan},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  note      = {arXiv:2002.07962}
}"""

    def __init__(
        self,
        dim: int,
        *,
        time_scale: TimeScale = "log",
        init: Literal["geometric", "linear"] = "geometric",
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"TimeEncoder: dim must be at least 1, got {dim}")
        if time_scale not in ("log", "raw"):
            raise ValueError(f'TimeEncoder: unknown time_scale "{time_scale}". Known: log, raw.')
        if init not in ("geometric", "linear"):
            raise ValueError(f'TimeEncoder: unknown init "{init}". Known: geometric, linear.')
        self.dim, self.time_scale, self.init = dim, time_scale, init
        self.frequency = nn.Parameter(torch.empty(dim))
        self.phase = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets frequencies and phases anew."""
        with torch.no_grad():
            if self.init == "linear":
                nn.init.uniform_(self.frequency, -1, 1)  # nn.Linear with one input
                nn.init.uniform_(self.phase, -1, 1)
                return
            lowest = -6 if self.time_scale == "log" else -9
            self.frequency.copy_(torch.logspace(0, lowest, self.dim, dtype=torch.float64))
            self.phase.zero_()

    def forward(self, time: Tensor, since: Tensor | float | None = None) -> Tensor:
        """Returns the code of `time` - `since`."""
        span = time.double() if since is None else time.double() - since
        span = span.clamp(min=0).unsqueeze(-1)
        if self.time_scale == "log":
            return (self.frequency * span.log1p().to(self.frequency.dtype) + self.phase).cos()
        angle = self.frequency.double() * span + self.phase.double()
        return angle.cos().to(self.frequency.dtype)

    def extra_repr(self) -> str:
        """Returns the size, and the options that differ from the default."""
        options = f", time_scale={self.time_scale!r}" * (self.time_scale != "log")
        return f"{self.dim}{options}" + f", init={self.init!r}" * (self.init != "geometric")


class Memory(NamedTuple):
    """What every node remembers."""

    rows: Tensor
    """(N, K, dim): the K memories of each node; of signed streams the positive, the negative."""
    last: Tensor
    """(N, K) float64: time of the node's last event, of each sign."""


class Events(NamedTuple):
    """Events between nodes, in the order of the stream."""

    src: Tensor
    """(B,) int64."""
    dst: Tensor
    """(B,) int64."""
    time: Tensor
    """(B,) float64, never decreasing."""
    features: Tensor
    """(B, F) float: the weight, or anything else that a message carries."""
    sign: Tensor | None = None
    """(B,) +1 or -1; None: all are positive."""


class _Messages(NamedTuple):
    """One row per message: event -> memory `target` of a node; index of rows (N * K)."""

    event: Tensor
    kind: Tensor  # which time of the node counts: 0 after positive events, 1 after negative ones
    target: Tensor
    partner: Tensor


class MemoryUpdater(nn.Module):
    r"""Folds pending events into the memories of their nodes, by balance theory.

    An event of i with partner j, of weight w at time t, sends each of i's memories a message:

    $$ m^\pm_i = [M^\pm_i,\; M^\pm_j,\; w,\; \phi(t - \tau^+_i)] \text{ (positive event)}, \qquad
       m^\pm_i = [M^\pm_i,\; M^\mp_j,\; w,\; \phi(t - \tau^-_i)] \text{ (negative event)} $$

    $$ M^k_i \leftarrow \mathrm{GRU}^k\bigl(\operatorname{aggregate} m^k_i,\; M^k_i\bigr), \qquad
       \tau^\pm_i \leftarrow \text{time of the last event of that sign} $$

    Both ends of an event get messages; an event of a node with itself is one message. Only nodes
    with pending events change, all others keep their bits. Memories are read without gradient;
    gradients reach the GRU and the time code. With memories=1 signs do not count: the update of
    TGN. The number of nodes with events depends on the data, so `torch.compile` breaks here.

    Args:
        dim: size of a memory.
        features: size of an event's features, F.
        time_dim: size of the time code.
        memories: 2 for signed events, 1 for events without sign.
        aggregate: "mean" over the pending messages of a memory, or "last".
        balance: whether both memories hear of every event; else the positive memory hears of
            positive events only, from the partner's positive memory, and the negative likewise.
        time_scale: of the `TimeEncoder`: "log" or "raw".

    Shapes:
        memory: `Memory` with rows (N, memories, dim) and last (N, memories) float64;
        events: `Events` of B events.
        returns: `Memory` of the same shapes; a new one, the given one does not change.

    Raises:
        ValueError: if shapes do not fit, a sign is neither +1 nor -1, or an option is unknown.

    Example:
        >>> import torch
        >>> from gnnlab.layers import Events, MemoryUpdater
        >>> update = MemoryUpdater(8, time_dim=4)
        >>> events = Events(
        ...     src=torch.tensor([0, 1]), dst=torch.tensor([1, 2]), time=torch.tensor([5.0, 6.0]),
        ...     features=torch.ones(2, 1), sign=torch.tensor([1, -1]),
        ... )
        >>> memory = update(update.start(5, time=0.0), events)
        >>> memory.rows.shape, memory.last[1].tolist()
        (torch.Size([5, 2, 8]), [5.0, 6.0])

    Reference: Sharma et al., CIKM 2023, arXiv:2207.03408; for one memory Rossi et al.,
    arXiv:2006.10637, eq. (1) to (3). Differs from the released code of both in: nodes without
    events do not change, and messages are used once.
    """

    citation: ClassVar[str] = """@inproceedings{sharma2023representation,
  title     = {Representation Learning in Continuous-Time Dynamic Signed Networks},
  author    = {Sharma, Kartik and Raghavendra, Mohit and Lee, Yeon-Chang and
               Anand Kumar, M. and Kumar, Srijan},
  booktitle = {International Conference on Information and Knowledge Management},
  year      = {2023},
  note      = {arXiv:2207.03408}
}"""
    compiles: ClassVar[bool] = False

    def __init__(
        self,
        dim: int,
        *,
        features: int = 1,
        time_dim: int = 16,
        memories: Literal[1, 2] = 2,
        aggregate: Literal["mean", "last"] = "mean",
        balance: bool = True,
        time_scale: TimeScale = "log",
    ) -> None:
        super().__init__()
        if memories not in (1, 2):
            raise ValueError(f"MemoryUpdater: memories must be 1 or 2, got {memories}")
        if aggregate not in ("mean", "last"):
            raise ValueError(f'MemoryUpdater: unknown aggregate "{aggregate}". Known: mean, last.')
        self.dim, self.features, self.memories = dim, features, memories
        self.aggregate, self.balance = aggregate, balance
        self.time = TimeEncoder(time_dim, time_scale=time_scale)
        size = 2 * dim + features + time_dim
        self.cells = nn.ModuleList(nn.GRUCell(size, dim) for _ in range(memories))

    def start(self, num_nodes: int, *, time: float = 0.0) -> Memory:
        """Returns memories of zeros; `time` is the first time of the stream."""
        like = self.time.frequency
        rows = like.new_zeros(num_nodes, self.memories, self.dim)
        last = torch.full((num_nodes, self.memories), time, dtype=torch.float64, device=like.device)
        return Memory(rows, last)

    def forward(self, memory: Memory, events: Events) -> Memory:
        """Returns the memory after the events."""
        nodes, rows, last = self.changes(memory, events)
        return Memory(
            memory.rows.index_copy(0, nodes, rows), memory.last.index_copy(0, nodes, last)
        )

    def changes(self, memory: Memory, events: Events) -> tuple[Tensor, Tensor, Tensor]:
        """Returns nodes with events in increasing order, and their new rows of `Memory`.

        For those who write into large memories in place.
        """
        sign = self._checked(memory, events)
        negative = (sign < 0).long() if self.memories == 2 else torch.zeros_like(events.src)
        others = events.src != events.dst  # an event with itself is one message
        event = torch.arange(len(sign), device=sign.device)
        event = torch.cat([event, event[others]])
        own = torch.cat([events.src, events.dst[others]])
        partner = torch.cat([events.dst, events.src[others]])
        nodes, place = torch.unique(own, return_inverse=True)
        kind = negative[event]
        before = memory.rows.detach().index_select(0, nodes)
        messages = self._messages(event, kind, place, partner)
        mail, has = self._mail(memory, events, nodes, before, messages)
        rows = [
            torch.where(has[:, k, None], cell(mail[:, k], before[:, k]), before[:, k])
            for k, cell in enumerate(self.cells)
        ]
        size = len(nodes) * self.memories
        time = events.time.double().index_select(0, event)
        latest = scatter(
            time, place * self.memories + kind, size, reduce="max", empty_value=float("-inf")
        )
        latest = latest.view(-1, self.memories)
        last = torch.where(latest.isinf(), memory.last.index_select(0, nodes), latest)
        return nodes, torch.stack(rows, 1).to(memory.rows.dtype), last

    def _messages(self, event: Tensor, kind: Tensor, place: Tensor, partner: Tensor) -> _Messages:
        """Says which memory of the partner goes to which memory of the node."""
        count = self.memories
        if not self.balance:
            target, source = place * count + kind, partner * count + kind
            return _Messages(event, kind, target, source)
        # A negative event turns friends of the partner into enemies of the node: memory k reads
        # the partner's memory 1 - k.
        each = torch.arange(count, device=event.device)
        target = (place[:, None] * count + each).flatten()
        source = (partner[:, None] * count + (each ^ kind[:, None])).flatten()
        event, kind = (t.repeat_interleave(count) for t in (event, kind))
        return _Messages(event, kind, target, source)

    def _mail(
        self, memory: Memory, events: Events, nodes: Tensor, before: Tensor, messages: _Messages
    ) -> tuple[Tensor, Tensor]:
        """Returns the aggregated message of each memory (P, K, size), and whether there is one."""
        event, kind, target, partner = messages
        size = len(nodes) * self.memories
        has = torch.zeros(size, dtype=torch.bool, device=target.device)
        has = has.index_fill(0, target, True)
        if self.aggregate == "last":
            # Order of (time, place in the stream); the last of each memory is kept.
            rank = events.time.argsort(stable=True).argsort().index_select(0, event)
            latest = scatter(rank, target, size, reduce="max", empty_value=-1)
            keep = rank == latest.index_select(0, target)
            event, kind, target, partner = (t[keep] for t in messages)
        own = nodes.index_select(0, target // self.memories)
        since = memory.last[own, kind]
        received = torch.cat(
            [
                gather(memory.rows.detach().flatten(0, 1), partner),
                events.features.index_select(0, event).to(before.dtype),
                self.time(events.time.index_select(0, event), since).to(before.dtype),
            ],
            1,
        )
        # The node's own memory is the same in all its messages, so it is added after the mean.
        mail = scatter(received, target, size, reduce="mean")
        mail = mail.view(len(nodes), self.memories, received.shape[1])
        return torch.cat([before, mail], 2), has.view(-1, self.memories)

    def _checked(self, memory: Memory, events: Events) -> Tensor:
        """Checks shapes; returns the signs."""
        rows, last = tuple(memory.rows.shape), tuple(memory.last.shape)
        if rows[1:] != (self.memories, self.dim) or last != rows[:2]:
            raise ValueError(
                f"MemoryUpdater expected memory.rows of shape (N, {self.memories}, {self.dim}) and "
                f"last of shape (N, {self.memories}), got {rows} and {last}"
            )
        count = len(events.src)
        sign = torch.ones_like(events.src) if events.sign is None else events.sign
        for name, tensor in (("dst", events.dst), ("time", events.time), ("sign", sign)):
            if tensor.shape != (count,):
                raise ValueError(
                    f"MemoryUpdater expected events.{name} of shape ({count},), as src, got "
                    f"{tuple(tensor.shape)}"
                )
        if events.features.shape != (count, self.features):
            raise ValueError(
                f"MemoryUpdater expected events.features of shape ({count}, {self.features}), got "
                f"{tuple(events.features.shape)}"
            )
        bad = sign.abs() != 1
        if self.memories == 2 and bool(bad.any()):
            at = int(bad.nonzero()[0])
            raise ValueError(f"MemoryUpdater: signs are +1 or -1, got {sign[at].item()} at {at}")
        return sign

    def extra_repr(self) -> str:
        """Returns the options that differ from the default."""
        options = f"{self.dim}, features={self.features}, memories={self.memories}"
        options += f", aggregate={self.aggregate!r}" * (self.aggregate != "mean")
        return options + ", balance=False" * (not self.balance)
