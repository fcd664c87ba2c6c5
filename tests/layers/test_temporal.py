"""Time codes and memories against a loop over events that follows the equations."""

import math

import pytest
import torch

from gnnlab.layers import Events, Memory, MemoryUpdater, TimeEncoder

N, D, F, DT = 12, 5, 2, 4


def stream(count=30, *, seed=0, signed=True, num_nodes=N - 2):
    """Returns events with ties in time, an event of a node with itself and a repeated pair."""
    random = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(num_nodes, (2, count), generator=random)
    if count > 4:
        dst[3] = src[3]
        src[4], dst[4] = src[0], dst[0]
    time = torch.randint(1000, (count,), generator=random).sort().values.double() + 1.6e9
    sign = torch.randint(2, (count,), generator=random) * 2 - 1
    features = torch.randn(count, F, generator=random, dtype=torch.float64)
    return Events(src, dst, time, features, sign if signed else None)


def filled(update):
    """Returns memories that are not zero, and last times that differ."""
    random = torch.Generator().manual_seed(5)
    shape = (N, update.memories)
    rows = torch.randn(*shape, D, generator=random, dtype=torch.float64)
    last = 1.6e9 - 1e5 * torch.rand(*shape, generator=random, dtype=torch.float64)
    return Memory(rows, last)


def gru(cell, message, memory):
    """The equations of the cell, with torch's layout of its weights: reset, update, new."""
    wr, wz, wh = cell.weight_ih.chunk(3)
    ur, uz, uh = cell.weight_hh.chunk(3)
    br, bz, bh = cell.bias_ih.chunk(3)
    cr, cz, ch = cell.bias_hh.chunk(3)
    z = torch.sigmoid(wz @ message + bz + uz @ memory + cz)
    q = torch.sigmoid(wr @ message + br + ur @ memory + cr)
    h = torch.tanh(wh @ message + bh + q * (uh @ memory + ch))
    return (1 - z) * h + z * memory


def code(update, span):
    span = max(span, 0.0)
    span = math.log1p(span) if update.time.time_scale == "log" else span
    return torch.cos(update.time.frequency * span + update.time.phase)


def by_event(update, memory, events):
    """One event after the other, one node after the other."""
    pending = {}  # (node, memory) -> messages in order of (time, place)
    times = {}
    order = sorted(range(len(events.src)), key=lambda e: (float(events.time[e]), e))
    for e in order:
        u, v, t = int(events.src[e]), int(events.dst[e]), float(events.time[e])
        positive = update.memories == 1 or int(events.sign[e]) > 0
        kind = 0 if positive else 1
        for i, j in [(u, v)] if u == v else [(u, v), (v, u)]:
            for k in range(update.memories):
                if not update.balance and k != kind:
                    continue
                other = k if positive or not update.balance else 1 - k
                parts = [
                    memory.rows[i, k],
                    memory.rows[j, other],
                    events.features[e],
                    code(update, t - float(memory.last[i, kind])),
                ]
                pending.setdefault((i, k), []).append(torch.cat(parts))
            times[i, kind] = max(t, times.get((i, kind), -math.inf))
    rows = [[memory.rows[i, k] for k in range(update.memories)] for i in range(N)]
    last = memory.last.clone()
    for (i, k), messages in pending.items():
        found = torch.stack(messages).mean(0) if update.aggregate == "mean" else messages[-1]
        rows[i][k] = gru(update.cells[k], found, memory.rows[i, k])
    for (i, kind), t in times.items():
        last[i, kind] = t
    return Memory(torch.stack([torch.stack(row) for row in rows]), last)


def make(**options):
    torch.manual_seed(1)
    return MemoryUpdater(D, features=F, time_dim=DT, **options).double()


CASES = {
    "signed": {},
    "signed last": {"aggregate": "last"},
    "no balance": {"balance": False},
    "no balance last": {"balance": False, "aggregate": "last"},
    "raw time": {"time_scale": "raw"},
    "one memory": {"memories": 1},
    "one memory last": {"memories": 1, "aggregate": "last"},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("count", [30, 1, 0])
def test_memory_equals_a_loop_over_events(options, count):
    update = make(**options)
    memory, events = filled(update), stream(count)
    found, wanted = update(memory, events), by_event(update, memory, events)
    torch.testing.assert_close(found.rows, wanted.rows, rtol=1e-10, atol=1e-10)
    assert torch.equal(found.last, wanted.last)
    if not count:
        assert torch.equal(found.rows, memory.rows)
        return
    weights = torch.randn(found.rows.shape, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(found.rows, list(update.parameters()), weights, allow_unused=True),
        torch.autograd.grad(wanted.rows, list(update.parameters()), weights, allow_unused=True),
        strict=True,
    ):
        a, b = (torch.zeros(1).double() if t is None else t for t in (a, b))
        torch.testing.assert_close(
            a, b.expand_as(a), rtol=1e-9, atol=1e-9 * max(1, float(b.abs().max()))
        )


def test_messages_of_balance_theory_by_hand():
    # Memories are numbers that say whose they are; the cell returns the partner's memory.
    update = MemoryUpdater(1, time_dim=1).double()

    class Partner(torch.nn.Module):
        def forward(self, message, memory):
            assert torch.equal(message[:, :1], memory)
            return message[:, 1:2]

    update.cells = torch.nn.ModuleList([Partner(), Partner()])
    rows = torch.tensor([[[10.0], [20.0]], [[11.0], [21.0]], [[12.0], [22.0]], [[13.0], [23.0]]])
    memory = Memory(rows.double(), torch.zeros(4, 2, dtype=torch.float64))
    ends = torch.tensor([0, 2]), torch.tensor([1, 3])
    given = Events(*ends, torch.tensor([5.0, 6.0]), torch.ones(2, 1), torch.tensor([1, -1]))
    new = update(memory, given)
    # Positive: each memory reads the same memory of the friend. Negative: the other one.
    assert new.rows.flatten(1).tolist() == [[11, 21], [10, 20], [23, 13], [22, 12]]
    assert new.last.tolist() == [[5, 0], [5, 0], [0, 6], [0, 6]]


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_nodes_without_events_keep_their_bits(options):
    update = make(**options).float()
    memory, events = filled(update), stream(6)
    memory = Memory(memory.rows.float(), memory.last)
    before = [t.clone() for t in memory]
    new = update(memory, events)
    touched = torch.cat([events.src, events.dst]).unique()
    idle = torch.tensor([i for i in range(N) if i not in touched])
    assert len(idle)
    for new_part, old in zip(new, memory, strict=True):
        assert torch.equal(new_part[idle], old[idle])
        assert not torch.equal(new_part[touched], old[touched])
    assert all(torch.equal(a, b) for a, b in zip(memory, before, strict=True))
    nodes, rows, last = update.changes(memory, events)
    assert torch.equal(nodes, touched)
    assert torch.equal(rows, new.rows[nodes])
    assert torch.equal(last, new.last[nodes])


def test_no_gradient_flows_through_the_memory_that_is_read():
    update = make()
    rows, last = filled(update)
    rows.requires_grad_()
    new = update(Memory(rows, last), stream())
    (grad,) = torch.autograd.grad(new.rows.sum(), rows)
    touched = torch.cat([stream().src, stream().dst]).unique()
    assert not grad[touched].any()  # idle rows are handed on as they are


def shuffled(events):
    order = torch.randperm(len(events.src), generator=torch.Generator().manual_seed(3))
    return Events(*(part[order] for part in events))


def test_order_of_pending_events_does_not_matter_for_the_mean():
    update, events = make(), stream()
    memory = filled(update)
    torch.testing.assert_close(update(memory, shuffled(events)).rows, update(memory, events).rows)


def test_the_last_message_is_that_of_the_largest_time_then_place():
    update, events = make(aggregate="last"), shuffled(stream())
    events = events._replace(time=(events.time / 100).round())  # ties within nodes
    memory = filled(update)
    memory = memory._replace(last=memory.last / 100)
    torch.testing.assert_close(update(memory, events), by_event(update, memory, events))


def test_events_one_by_one_differ_from_a_batch_only_by_what_they_read():
    """Events that share no node may come one by one or together."""
    update, memory = make(), filled(make())
    events = Events(
        torch.tensor([0, 2, 4]),
        torch.tensor([1, 3, 5]),
        torch.tensor([1.6e9, 1.6e9, 1.7e9]).double(),
        torch.randn(3, F).double(),
        torch.tensor([1, -1, -1]),
    )
    step = memory
    for e in range(3):
        step = update(step, Events(*(part[e : e + 1] for part in events)))
    torch.testing.assert_close(step, update(memory, events))


def test_one_memory_equals_that_of_pyg():
    tgn = pytest.importorskip("torch_geometric.nn.models.tgn", reason="no torch_geometric")
    torch.manual_seed(0)
    theirs = tgn.TGNMemory(N, F, D, DT, tgn.IdentityMessage(F, D, DT), tgn.LastAggregator())
    update = make(memories=1, aggregate="last", time_scale="raw").float()  # PyG's stores are
    update.cells[0].load_state_dict(theirs.gru.state_dict())
    with torch.no_grad():
        update.time.frequency.copy_(theirs.time_enc.lin.weight[:, 0])
        update.time.phase.copy_(theirs.time_enc.lin.bias)
    random = torch.Generator().manual_seed(0)
    ends = torch.randperm(N, generator=random)
    events = Events(
        ends[:5], ends[5:10], torch.arange(1.0, 6.0).double(), stream(5).features.float()
    )  # PyG keeps a store per role, so no node may have both
    theirs.training = False  # eval() and train mode send idle nodes through the cell
    theirs.update_state(events.src, events.dst, events.time.long(), events.features)
    rows, last = theirs(ends[:10])
    new = update(update.start(N), events)
    torch.testing.assert_close(new.rows[ends[:10], 0], rows, rtol=1e-5, atol=1e-5)
    assert torch.equal(new.last[ends[:10], 0].long(), last)


def test_time_is_subtracted_in_float64():
    for scale in ("log", "raw"):
        encoder = TimeEncoder(DT, time_scale=scale)  # float32
        now = torch.tensor([1.7e9 + 1, 1.7e9 + 3], dtype=torch.float64)
        since = torch.tensor([1.7e9, 1.7e9], dtype=torch.float64)
        span = torch.tensor([1.0, 3.0], dtype=torch.float64)
        assert torch.equal(encoder(now, since), encoder(span))
        g = span.log1p() if scale == "log" else span
        wanted = torch.cos(encoder.frequency * g[:, None] + encoder.phase)
        torch.testing.assert_close(encoder(now, 1.7e9), wanted.float())
        assert torch.equal(encoder(since, now), encoder(torch.zeros(2)))  # never negative
        assert encoder(now, since).dtype == torch.float32


def test_raw_times_keep_their_phase():
    encoder = TimeEncoder(2, time_scale="raw")
    with torch.no_grad():
        encoder.frequency.fill_(1)
    span = 123_456_789.25
    found = float(encoder(torch.tensor([span], dtype=torch.float64))[0, 0].detach())
    assert abs(found - math.cos(span)) < 1e-6  # float32 would be off by several radians


def test_frequencies_start_as_said():
    assert TimeEncoder(3).frequency.tolist() == pytest.approx([1, 1e-3, 1e-6])
    assert TimeEncoder(3, time_scale="raw").frequency.tolist() == pytest.approx([1, 10**-4.5, 1e-9])
    torch.manual_seed(0)
    drawn = TimeEncoder(2000, init="linear")
    torch.manual_seed(0)
    linear = torch.nn.Linear(1, 2000)
    for a, b in ((drawn.frequency, linear.weight), (drawn.phase, linear.bias)):
        assert abs(float(a.detach().std() - b.detach().std())) < 0.03
        assert float(a.detach().abs().max()) <= 1


def test_errors_name_what_is_wrong():
    update, events = make(), stream(6)
    memory = filled(update)
    sign = events.sign.clone()
    sign[2] = 0
    with pytest.raises(ValueError, match=r"signs are \+1 or -1, got 0 at 2"):
        update(memory, events._replace(sign=sign))
    with pytest.raises(ValueError, match=r"events.features of shape \(6, 2\), got \(6, 3\)"):
        update(memory, events._replace(features=torch.ones(6, 3)))
    with pytest.raises(ValueError, match=r"events.time of shape \(6,\), as src, got \(5,\)"):
        update(memory, events._replace(time=events.time[:5]))
    with pytest.raises(ValueError, match=r"memory.rows of shape \(N, 2, 5\) .* got \(12, 1, 5\)"):
        update(filled(make(memories=1)), events)
    with pytest.raises(ValueError, match="memories must be 1 or 2, got 3"):
        MemoryUpdater(4, memories=3)
    with pytest.raises(ValueError, match='unknown aggregate "max"'):
        MemoryUpdater(4, aggregate="max")
    with pytest.raises(ValueError, match='unknown time_scale "days"'):
        TimeEncoder(4, time_scale="days")
    with pytest.raises(ValueError, match='unknown init "zeros"'):
        TimeEncoder(4, init="zeros")
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        TimeEncoder(0)
