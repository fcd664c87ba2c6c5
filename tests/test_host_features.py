"""Feature tables in host memory: what comes out, how it travels, and what is refused."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from fake_device import FakeDevice
from hypothesis import given, strategies as st

import gnnlab.data
from gnnlab.data import HostFeatures
from gnnlab.data._cache import capacity, hit_rate, hottest, parse_bytes
from gnnlab.data._device import CudaDevice, Device
from gnnlab.data._staging import StagingRing
from gnnlab.data._table import Table
from gnnlab.errors import DataError

N, F = 50, 6
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
]


def bits(x):
    """The bytes of a tensor: equal also where numbers are NaN."""
    return x.contiguous().view(torch.uint8)


def table(dtype=torch.float32, shape=(N, F), seed=0):
    draw = torch.Generator().manual_seed(seed)
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape[:-1], shape[-1] * size), generator=draw, dtype=torch.uint8)
    return (raw % 2).bool() if dtype == torch.bool else raw.view(dtype)


def some_ids(n=200, high=N, seed=1, dtype=torch.int64):
    return torch.randint(0, high, (n,), generator=torch.Generator().manual_seed(seed)).to(dtype)


def make(kind, x, **options):
    """HostFeatures by each transport; the device of the last two is a fake."""
    if kind == "cpu":
        return HostFeatures(x, **options), None
    device = FakeDevice(shift=4096)
    return HostFeatures(x, device, pin=kind == "mapped", **options), device


def settle(rows, device):
    if device is not None:
        device.synchronize()
    return rows


KINDS = ["cpu", "mapped", "staged"]
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(params=["reference", "compiled"], autouse=True)
def backend(request):
    """Everything holds with and without compiled kernels."""
    from gnnlab.ops import status, use_backend

    if request.param == "reference":
        with use_backend("reference"):
            yield
    elif status().path is None:
        pytest.skip("there are no compiled kernels")
    else:
        yield


@pytest.fixture
def small_chunks(monkeypatch):
    """Staging buffers of two chunks of 4 rows of F float32, so that the ring turns often."""
    real = StagingRing.__init__

    def shrunk(self, device, table):
        real(self, device, table, chunk_bytes=4 * F * 4, buffer_bytes=2 * 4 * F * 4)

    monkeypatch.setattr(StagingRing, "__init__", shrunk)


# ---- rows ----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_are_those_of_plain_indexing(kind, dtype):
    x = table(dtype)
    feats, device = make(kind, x)
    for index in (torch.int32, torch.int64):
        ids = some_ids(dtype=index)
        rows = settle(feats[ids], device)
        assert rows.dtype == dtype
        assert torch.equal(bits(rows), bits(x.view(torch.uint8)[ids.long()]))
    feats.close()


@each_kind
@pytest.mark.parametrize("shape", [(N, F), (N, 1), (N, 2, 3), (N, 0), (0, F), (1, F), (N, 2, 0)])
@pytest.mark.parametrize("count", [0, 1, 77])
def test_any_shape_of_table_and_ids(kind, shape, count):
    x = torch.randn(shape)
    feats, device = make(kind, x)
    ids = torch.zeros(0, dtype=torch.int64) if shape[0] == 0 else some_ids(count, shape[0])
    rows = settle(feats[ids], device)
    assert rows.shape == x[ids].shape
    assert torch.equal(rows, x[ids])
    assert (len(feats), feats.shape, feats.dtype) == (shape[0], x.shape, torch.float32)
    feats.close()


VIEWS = {
    "columns of a wider table": lambda x: x[:, 1:4],
    "every third row": lambda x: x[::3],
    "rows from the middle": lambda x: x[7:31],
    "blocks with a gap between rows": lambda x: x.view(N, 2, 3)[::2],
    "one row for all": lambda x: x[:1].expand(N, F),
    "one column": lambda x: x[:, 2:3],
}


@each_kind
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_views_are_read_in_place(kind, view):
    base = torch.randn(N, F)
    x = view(base)
    feats, device = make(kind, x)
    ids = some_ids(high=x.shape[0])
    assert torch.equal(settle(feats[ids], device), x[ids])
    base.mul_(2)  # no copy was made
    assert torch.equal(settle(feats[ids], device), x[ids])
    assert feats.table is x
    feats.close()


@each_kind
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.int16, torch.float8_e5m2])
@pytest.mark.parametrize("result", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_converted_on_the_way(kind, source, result):
    x = torch.randn(N, 2, 3).mul(20).to(source)
    feats, device = make(kind, x, out_dtype=result)
    ids = some_ids()
    rows = settle(feats[ids], device)
    assert rows.dtype == feats.dtype == result
    assert torch.equal(rows, x.float()[ids].to(source).to(result))
    assert feats.to_device().dtype == result
    feats.close()


def test_conversion_in_several_chunks_on_the_cpu(monkeypatch):
    from gnnlab.data import _transport

    monkeypatch.setattr(_transport, "CHUNK_BYTES", 7 * F * 2)
    x = torch.randn(N, F).half()
    feats = HostFeatures(x, out_dtype=torch.float32)
    for count in (1, 6, 7, 8, 14, 200):
        assert torch.equal(feats[some_ids(count)], x[some_ids(count)].float())


@each_kind
def test_the_whole_table(kind):
    x = torch.randn(N, F)
    feats, _ = make(kind, x)
    assert torch.equal(feats.to_device(), x)
    feats.close()


@each_kind
def test_rows_outlive_the_features(kind):
    x = torch.randn(N, F)
    feats, device = make(kind, x)
    rows = feats[some_ids()]
    feats.close()
    settle(rows, device)
    assert torch.equal(rows, x[some_ids()])


@each_kind
def test_strided_ids(kind):
    x = torch.randn(N, F)
    feats, device = make(kind, x)
    ids = some_ids(60)[::3]
    assert torch.equal(settle(feats[ids], device), x[ids])
    feats.close()


@given(st.lists(st.integers(0, N - 1), max_size=90), st.integers(0, N), st.booleans())
def test_any_request_with_any_cache(ids, cached, mapped):
    x = torch.arange(N * F, dtype=torch.float32).view(N, F)
    degree = torch.arange(N).flip(0)
    budget = 4 * N + cached * F * 4 if cached else None
    device = FakeDevice()
    feats = HostFeatures(x, device, cache=budget, degree=degree, pin=mapped)
    ids = torch.tensor(ids, dtype=torch.int64)
    assert torch.equal(settle(feats[ids], device), x[ids])
    assert feats.stats().hits == int((ids < cached).sum())
    feats.close()


# ---- staging -------------------------------------------------------------------------------------


def test_fake_device_notices_reuse_without_waiting(small_chunks, monkeypatch):
    """The check of the check: without the events the ring gives wrong rows."""
    from gnnlab.data import _staging

    class Careless(_staging._Piece):
        def __setattr__(self, name, value):
            object.__setattr__(self, name, None if name == "sent" else value)

    monkeypatch.setattr(_staging, "_Piece", Careless)
    x = torch.randn(N, F)
    device = FakeDevice()
    feats = HostFeatures(x, device, pin=False)
    assert not torch.equal(settle(feats[some_ids()], device), x[some_ids()])


def test_pieces_are_used_in_turn_after_their_event(small_chunks):
    x = torch.randn(N, F)
    device = FakeDevice()
    feats = HostFeatures(x, device, pin=False)
    rows = feats[some_ids(4 * 7)]  # 7 chunks through a ring of 4
    # One copy a chunk; pieces 0, 1, 2 are taken again after copies 1, 2, 3 and no later ones.
    assert device.waits == [1, 2, 3]
    assert len(device.queue) == 7
    assert torch.equal(settle(rows, device), x[some_ids(4 * 7)])
    feats[some_ids(1)]  # the next request goes on where the last one stopped: piece 3, copy 4
    assert device.waits[3:] == [4]
    feats.close()


def test_buffers_are_two_of_64_mb_in_chunks_of_4_mb_made_when_needed():
    x = torch.zeros(1, 1024)  # rows of 4 KB: 1024 in a chunk
    device = FakeDevice()
    feats = HostFeatures(x, device, pin=False)
    ring = feats._transport.ring
    assert (ring.chunk_rows, ring.num_pieces) == (1024, 32)
    assert device.buffers == []
    feats[torch.zeros(10, dtype=torch.int64)]
    assert device.buffers == [64 << 20]
    feats[torch.zeros(15 * 1024, dtype=torch.int64)]
    assert device.buffers == [64 << 20]
    feats[torch.zeros(1, dtype=torch.int64)]
    assert device.buffers == [64 << 20, 64 << 20]
    feats.close()


def test_a_row_longer_than_a_buffer():
    device = FakeDevice()
    rows = Table.of(torch.arange(12.0).view(3, 4))
    ring = StagingRing(device, rows, chunk_bytes=8, buffer_bytes=8)
    assert (ring.chunk_rows, ring.num_pieces) == (1, 2)
    out = torch.empty(5, 4, dtype=torch.int32)
    ids = torch.tensor([2, 0, 1, 1, 2])
    ring.send(ids, out)
    device.synchronize()
    assert torch.equal(rows.shaped(out), rows.tensor[ids])


def test_cached_rows_are_not_staged(small_chunks):
    x = torch.randn(N, F)
    degree = torch.zeros(N)
    degree[[3, 9, 20]] = 5
    device = FakeDevice()
    feats = HostFeatures(x, device, pin=False, cache=4 * N + 3 * F * 4, degree=degree)
    before = len(device.queue)
    rows = feats[torch.tensor([3, 9, 3, 20])]  # hits only: nothing is sent
    assert len(device.queue) == before + 1
    assert torch.equal(settle(rows, device), x[[3, 9, 3, 20]])
    rows = feats[torch.tensor([1, 9, 2, 20, 9, 0])]
    assert torch.equal(settle(rows, device), x[[1, 9, 2, 20, 9, 0]])
    assert (feats.stats().hits, feats.stats().misses) == (7, 3)
    feats.close()


# ---- mapping -------------------------------------------------------------------------------------


def test_the_span_of_the_table_is_registered_and_given_back():
    base = torch.randn(N, F)
    x = base[5:, 1:4]
    device = FakeDevice()
    with HostFeatures(x, device) as feats:
        assert feats.transport == "mapped"
        # From the first item of the first row to the last item of the last.
        assert device.registered == {base[5, 1:].data_ptr(): ((N - 6) * F + 3) * 4}
        feats[some_ids(high=len(x))]
    assert device.log == ["register", "mapped", "unregister"]


def test_pinned_memory_is_taken_as_it_is():
    x = torch.randn(N, F)
    device = FakeDevice()
    device.pinned.add(x.data_ptr())
    with HostFeatures(x, device) as feats:
        assert torch.equal(settle(feats[some_ids()], device), x[some_ids()])
    assert "register" not in device.log
    assert "unregister" not in device.log


@pytest.mark.parametrize("second", [slice(None), slice(0, 3), slice(N - 1, N)], ids=str)
def test_second_registration_is_an_error(second):
    x = torch.randn(N, F)
    first = HostFeatures(x, FakeDevice())
    with pytest.raises(RuntimeError, match="already registered by another HostFeatures"):
        HostFeatures(x[second], FakeDevice())
    first.close()
    HostFeatures(x[second], FakeDevice()).close()


def test_neighbouring_tables_and_other_transports_are_no_second_registration():
    x = torch.randn(N, F)
    with HostFeatures(x[:20], FakeDevice()), HostFeatures(x[20:], FakeDevice()):
        HostFeatures(x)[some_ids()]
        HostFeatures(x, FakeDevice(), pin=False)[some_ids()]


@pytest.mark.parametrize("end", ["del", "close twice", "with", "error inside with"])
def test_memory_is_given_back_once_however_it_ends(end):
    x = torch.randn(N, F)
    device = FakeDevice()
    feats = HostFeatures(x, device)
    feats[some_ids()]
    if end == "with":
        with feats:
            pass
    elif end == "error inside with":
        with pytest.raises(KeyError), feats:
            raise KeyError
    elif end == "close twice":
        feats.close()
        feats.close()
    del feats
    gc.collect()
    assert device.log.count("unregister") == 1
    assert device.registered == {}
    HostFeatures(x, FakeDevice()).close()


def test_the_table_is_kept_alive():
    device = FakeDevice()
    feats = HostFeatures(torch.full((N, F), 7.0), device)
    gc.collect()
    torch.full((N, F), 1.0)  # would take the freed memory
    assert torch.equal(settle(feats[some_ids(3)], device), torch.full((3, F), 7.0))
    feats.close()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernels": False}, "no compiled kernel"),
        ({"refuse": "operation not supported"}, "not supp"),
    ],
)
def test_without_mapping_rows_are_staged_and_a_warning_says_why(options, reason):
    x = torch.randn(N, F)
    device = FakeDevice(**options)
    with pytest.warns(RuntimeWarning, match=f"stages rows .*{reason}") as caught:
        feats = HostFeatures(x, device)
    assert caught[0].filename == __file__
    assert feats.transport == "staged"
    assert torch.equal(settle(feats[some_ids()], device), x[some_ids()])
    feats.close()
    HostFeatures(x, FakeDevice()).close()  # nothing stayed registered


def test_staging_on_purpose_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert HostFeatures(torch.ones(2, 2), FakeDevice(), pin=False).transport == "staged"


def test_failure_after_registering_gives_the_memory_back():
    from gnnlab.data._device import PinningError

    class NoAddress(FakeDevice):
        def device_pointer(self, pointer):
            raise PinningError("no address")

    device = NoAddress()
    with pytest.warns(RuntimeWarning, match="no address"):
        HostFeatures(torch.ones(2, 2), device)
    assert device.log == ["register", "unregister"]


class EmulatedDevice(FakeDevice):
    """The fake with the real kernel: the CUDA source, run by the emulator."""

    def __init__(self, kernels):
        super().__init__()
        self.gpu = kernels

    def gather_rows(self, *arguments):
        names = ("pointer", "stride_bytes", "row_bytes", "index", "out", "slots", "cache")
        given = dict(zip((*names, "num_rows"), arguments, strict=True))
        self.enqueue(lambda: self.gpu.gather_rows(**given))


@pytest.fixture(scope="module")
def emulated():
    from gnnlab.ops._gpu import GpuKernels
    from gnnlab.ops._gpu._emulator import Emulator

    try:
        return GpuKernels(Emulator(seed=3))
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("cached", [0, 12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
def test_the_cuda_kernel_reads_the_table_and_the_cache(emulated, dtype, cached):
    whole = table(dtype, (N, 40))
    x = whole[2:, 1:36]  # no row begins on a boundary
    size = x.element_size()
    device = EmulatedDevice(emulated)
    feats = HostFeatures(
        x,
        device,
        cache=4 * len(x) + cached * 35 * size if cached else None,
        degree=torch.arange(len(x)).flip(0),
    )
    assert (feats.transport, feats.cached_rows) == ("mapped", cached)
    for index in (torch.int32, torch.int64):
        ids = some_ids(high=len(x), dtype=index)
        rows = settle(feats[ids], device)
        assert torch.equal(bits(rows), bits(x[ids.long()]))
        if cached:  # rows of the cache come from there, not from the table
            kept = feats._hot.rows.clone()
            feats._hot.rows.zero_()
            rows = settle(feats[ids], device)
            expected = torch.where((ids < cached)[:, None], torch.zeros((), dtype=dtype), x[ids])
            assert torch.equal(bits(rows), bits(expected))
            feats._hot.rows.copy_(kept)
    feats.close()


# ---- on a GPU ------------------------------------------------------------------------------------


gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def with_marks(marks):
    def apply(test):
        for mark in marks:
            test = mark(test)
        return test

    return apply


@with_marks(gpu)
@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("cache", [None, "100KB"])
@pytest.mark.parametrize("out_dtype", [None, torch.float16])
def test_rows_on_a_gpu(pin, cache, out_dtype):
    x = torch.randn(5000, 33)
    options = {"cache": cache, "degree": torch.arange(5000), "out_dtype": out_dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # there may be no kernels
        feats = HostFeatures(x, "cuda", pin=pin, **options)
    with feats:
        for where in ("cpu", "cuda"):
            ids = some_ids(100_000, 5000, dtype=torch.int32)
            rows = feats[ids.to(where)]
            assert rows.is_cuda
            assert torch.equal(rows.cpu(), x[ids.long()].to(rows.dtype))
            handle = feats.prefetch(ids.to(where))
            assert torch.equal(handle.wait().cpu(), x[ids.long()].to(rows.dtype))
            with pytest.raises(IndexError, match="index 5000 at position 1"):
                feats[torch.tensor([0, 5000], device=where)]
        stats = feats.stats()
        assert stats.rows == 400_000
        assert stats.seconds > 0
        slots = feats._hot.slots.cpu() if cache else torch.full((5000,), -1)
        assert stats.hits == 4 * int((slots[ids.long()] >= 0).sum())
    HostFeatures(x, "cuda", pin=False).close()


@with_marks(gpu)
def test_pinning_on_a_gpu_ends_with_close():
    x = torch.randn(5000, 33)
    device = CudaDevice(torch.device("cuda"))
    device.register(x.data_ptr(), x.numel() * 4)
    assert x.is_pinned()
    assert device.device_pointer(x.data_ptr()) != 0
    device.unregister(x.data_ptr())
    assert not x.is_pinned()
    with pytest.raises(RuntimeError, match="cudaHostRegister of 0 bytes failed"):
        device.register(x.data_ptr(), 0)
    assert torch.ones(3, device="cuda").sum().item() == 3  # the failure is not blamed on others


# ---- cache ---------------------------------------------------------------------------------------

SIZES = {
    None: 0,
    0: 0,
    4096: 4096,
    "0": 0,
    "17": 17,
    "4GB": 4 * 10**9,
    "512MB": 512 * 10**6,
    "1.5GiB": 3 * 2**29,
    "2 kib": 2048,
    " 10 KB ": 10_000,
    "3B": 3,
    "1T": 10**12,
}


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_sizes(size, expected):
    assert parse_bytes(size) == expected


@pytest.mark.parametrize("size", [-1, "-4GB", "4 bananas", "", "GB", 1.5, True, [], "1e9", "4GBs"])
def test_wrong_sizes(size):
    with pytest.raises(
        ValueError, match=r"cache must be a number of bytes.*" + re.escape(repr(size))
    ):
        HostFeatures(torch.ones(2, 2), cache=size)


def test_capacity_counts_the_lookup_table():
    rows = Table.of(torch.zeros(100, 8))  # lookup 400 bytes, rows of 32
    assert capacity(0, rows) == 0
    assert capacity(400 + 32, rows) == 1
    assert capacity(400 + 10 * 32 + 31, rows) == 10
    assert capacity(10**9, rows) == 100
    with pytest.raises(ValueError, match=r"a cache of 431 bytes holds no row.*400 bytes.*32"):
        capacity(431, rows)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 30))
def test_hottest_rows_against_a_sort_by_hand(score, count):
    order = sorted(range(len(score)), key=lambda i: (-score[i], i))[:count]
    found = hottest(torch.tensor(score), count)
    assert found.tolist() == sorted(order)
    served = sum(score[i] for i in order) / sum(score) if sum(score) else len(order) / len(score)
    assert hit_rate(torch.tensor(score), found) == pytest.approx(served)


def simulate(requests, hot):
    """Hits of a fixed cache, counted one by one."""
    return sum(1 for ids in requests for i in ids.tolist() if i in hot)


@pytest.mark.parametrize("kind", ["mapped", "staged"])
@pytest.mark.parametrize("where", [torch.int64, torch.float32], ids=str)
def test_cache_by_degree(kind, where):
    x = table(torch.bfloat16)
    degree = torch.arange(N).pow(2)
    feats, device = make(kind, x, cache=4 * N + 10 * F * 2, degree=degree.to(where))
    hot = set(range(N - 10, N))
    assert feats.cached_rows == 10
    assert feats.expected_hit_rate == pytest.approx(
        sum(i * i for i in hot) / sum(i * i for i in range(N))
    )
    requests = [some_ids(40, seed=s) for s in range(5)]
    for ids in requests:
        assert torch.equal(bits(settle(feats[ids], device)), bits(x.view(torch.int16)[ids]))
    stats = feats.stats()
    assert stats.rows == 200
    assert stats.hits == simulate(requests, hot)
    assert stats.misses == 200 - stats.hits
    assert stats.hit_rate == stats.hits / 200
    assert stats.bytes_moved == stats.misses * F * 2
    assert stats.seconds == pytest.approx(5 * 0.25)  # the clock of the fake
    assert stats.gb_per_s == pytest.approx(stats.bytes_moved / 1.25 / 1e9)
    assert feats.stats(reset=True) == stats
    assert feats.stats().rows == 0
    feats.close()


@pytest.mark.parametrize("kind", ["mapped", "staged"])
def test_expected_hit_rate_is_what_requests_by_degree_see(kind):
    degree = (1000 / torch.arange(1, N + 1) ** 1.1).round()
    feats, _ = make(kind, torch.randn(N, F), cache=4 * N + 8 * F * 4, degree=degree)
    ids = torch.multinomial(
        degree, 4000, replacement=True, generator=torch.Generator().manual_seed(3)
    )
    feats[ids]
    assert feats.stats().hit_rate == pytest.approx(feats.expected_hit_rate, abs=0.03)
    assert 0.4 < feats.expected_hit_rate < 0.9
    feats.close()


@pytest.mark.parametrize("kind", ["mapped", "staged"])
def test_cache_by_counts_after_a_warm_up(kind):
    x = torch.randn(N, F)
    feats, device = make(kind, x, cache=4 * N + 2 * F * 4, warmup=6)
    first, second = torch.tensor([7, 7, 3]), torch.tensor([3, 7, 11])
    feats[first]
    assert feats.cached_rows == 0
    feats[second]  # the sixth row ends the warm-up: 7 came 3 times, 3 twice, 11 once
    assert feats.cached_rows == 2
    assert feats.expected_hit_rate == pytest.approx(5 / 6)
    ids = torch.tensor([3, 7, 11, 0])
    assert torch.equal(settle(feats[ids], device), x[ids])
    assert (feats.stats().hits, feats.stats().misses) == (2, 8)
    for _ in range(5):
        feats[torch.tensor([11, 11])]
    assert feats.stats().hits == 2  # what is cached stays
    feats.close()


@pytest.mark.parametrize("kind", ["mapped", "staged"])
def test_warm_up_takes_as_many_requests_as_there_are_rows_unless_told(kind):
    feats, _ = make(kind, torch.randn(N, F), cache="1MB")
    feats[some_ids(N - 1)]
    assert feats.cached_rows == 0
    feats[some_ids(1)]
    assert feats.cached_rows == N
    feats.close()


@pytest.mark.parametrize("kind", ["mapped", "staged"])
def test_observed_ids_rank_rows_at_rebuild(kind):
    x = torch.randn(N, F)
    feats, device = make(kind, x, cache=4 * N + 2 * F * 4, degree=torch.arange(N))
    with pytest.raises(RuntimeError, match="nothing was counted yet"):
        feats.rebuild()
    feats.observe(torch.tensor([5, 5, 1, 1, 30], dtype=torch.int32))
    feats.rebuild()
    assert feats.expected_hit_rate == pytest.approx(4 / 5)
    ids = torch.tensor([5, 1, N - 1, N - 2])
    assert torch.equal(settle(feats[ids], device), x[ids])
    assert feats.stats().hits == 2
    feats.observe(torch.tensor([8, 8, 9]))  # counted from zero again
    feats.rebuild()
    assert torch.equal(settle(feats[ids], device), x[ids])
    assert feats.stats().hits == 2
    feats.close()


def test_on_the_cpu_there_is_no_cache_and_its_calls_do_no_harm():
    feats = HostFeatures(torch.randn(N, F), cache="4GB", degree=torch.arange(N))
    feats.observe(some_ids())
    feats.rebuild()
    feats[some_ids()]
    assert (feats.cached_rows, feats.expected_hit_rate, feats.stats().hits) == (0, 0.0, 0)
    assert feats.stats().bytes_moved == 200 * F * 4
    assert feats.stats().seconds > 0


def test_stats_before_anything():
    stats = HostFeatures(torch.ones(2, 2)).stats()
    assert (stats.rows, stats.hit_rate, stats.gb_per_s) == (0, 0.0, 0.0)


# ---- prefetch ------------------------------------------------------------------------------------


@each_kind
def test_prefetch(kind, small_chunks):
    x = torch.randn(N, F)
    feats, device = make(kind, x)
    ids = some_ids()
    handle = feats.prefetch(ids)
    wanted = x[ids]
    ids.zero_()  # the request was taken as it was
    assert torch.equal(handle.wait(), wanted)
    assert torch.equal(handle.wait(), wanted)
    if device is not None:
        assert device.log.count("aside") == 1
        assert device.log.count("join") == 2
    assert feats.stats().rows == 200
    feats.close()


@pytest.mark.parametrize("kind", ["cpu", "staged"])
def test_prefetch_runs_beside_the_caller(kind, monkeypatch):
    feats, _ = make(kind, torch.randn(N, F))
    where = []
    real = feats._transport.fetch
    monkeypatch.setattr(
        feats._transport,
        "fetch",
        lambda *args: (where.append(threading.current_thread().name), real(*args))[1],
    )
    handles = [feats.prefetch(some_ids(seed=s)) for s in range(4)]
    for seed, handle in enumerate(handles):
        assert torch.equal(handle.wait(), feats.table[some_ids(seed=seed)])
    assert len(where) == 4
    assert all(name.startswith("gnnlab-prefetch") for name in where)
    feats.close()


@each_kind
def test_prefetch_and_indexing_from_several_threads(kind):
    x = torch.randn(N, F)
    feats, device = make(kind, x)
    failures = []

    def work(seed):
        for turn in range(10):
            ids = some_ids(30, seed=100 * seed + turn)
            handle = feats.prefetch(ids)
            rows = feats[ids.flip(0)]
            waited = handle.wait()
            with feats._lock:
                settle(rows, device)
            if not (torch.equal(waited, x[ids]) and torch.equal(rows, x[ids.flip(0)])):
                failures.append((seed, turn))

    if kind == "cpu":  # the fake's queue is for one thread
        threads = [threading.Thread(target=work, args=(s,)) for s in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert feats.stats().rows == 4 * 10 * 60
    else:
        work(0)
    assert failures == []
    feats.close()


def test_close_waits_for_what_is_under_way():
    x = torch.randn(N, F)
    feats = HostFeatures(x)
    handles = [feats.prefetch(some_ids(seed=s)) for s in range(20)]
    feats.close()
    for seed, handle in enumerate(handles):
        assert torch.equal(handle.wait(), x[some_ids(seed=seed)])


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "complex64", "uint8"])
def test_npy_file(mmap, dtype, tmp_path):
    array = (np.random.default_rng(0).normal(size=(N, 3, 2)) * 9).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    feats = HostFeatures.from_file(tmp_path / "x.npy", mmap=mmap)
    ids = some_ids()
    assert np.array_equal(feats[ids].numpy(), np.load(tmp_path / "x.npy")[ids.numpy()])
    assert feats.shape == (N, 3, 2)


def test_raw_file(tmp_path):
    x = torch.randn(N, F).bfloat16()
    (tmp_path / "x.bin").write_bytes(x.view(torch.uint8).numpy().tobytes())
    feats = HostFeatures.from_file(tmp_path / "x.bin", shape=(N, F), dtype=torch.bfloat16)
    assert torch.equal(feats[some_ids()], x[some_ids()])


def test_file_behind_a_device_is_staged_unless_loaded(tmp_path):
    array = np.arange(N * F, dtype=np.float32).reshape(N, F)
    np.save(tmp_path / "x.npy", array)
    for mmap, transport in ((True, "staged"), (False, "mapped")):
        device = FakeDevice()
        feats = HostFeatures.from_file(
            tmp_path / "x.npy", device, mmap=mmap, cache="1MB", degree=torch.ones(N)
        )
        assert feats.transport == transport
        rows = settle(feats[some_ids()], device)
        assert np.array_equal(rows.numpy(), array[some_ids().numpy()])
        feats.close()
    with pytest.raises(ValueError, match="pass mmap=False"):
        HostFeatures.from_file(tmp_path / "x.npy", FakeDevice(), pin=True)


def test_mapped_file_is_not_written(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2), dtype=np.float32))
    before = (tmp_path / "x.npy").read_bytes()
    HostFeatures.from_file(tmp_path / "x.npy").table.zero_()
    assert (tmp_path / "x.npy").read_bytes() == before


def test_file_without_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((0, 2), dtype=np.float32))
    assert HostFeatures.from_file(tmp_path / "x.npy").shape == (0, 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_mapped_file_is_not_loaded(tmp_path):
    rows, width = 200_000, 256  # 200 MB, and 100 pages of it are read
    array = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(rows, width)
    )
    array[::2000, 0] = np.arange(100)
    del array
    program = f"""
import re, torch
from gnnlab.data import HostFeatures
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
torch.ones(2)[torch.tensor([1])]
feats = HostFeatures.from_file({str(tmp_path / "x.npy")!r}, out_dtype=torch.float64)
before = resident()
out = feats[torch.arange(100) * 2000]
assert out[:, 0].tolist() == list(range(100))
print(resident() - before)
"""
    path = os.pathsep.join([os.path.dirname(os.path.dirname(gnnlab.__file__))])
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 60_000  # KB, of 200,000


def wrong_file(tmp_path, name):
    path = tmp_path / "x.npy"
    if name == "text":
        path.write_text("user,item\n")
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "vector":
        np.save(path, np.zeros(5))
    elif name == "fortran":
        np.save(path, np.asfortranarray(np.zeros((4, 3))))
    elif name == "objects":
        np.save(path, np.array([[{}], [1]], dtype=object), allow_pickle=True)
    elif name == "text items":
        np.save(path, np.array([["a", "b"]]))
    elif name == "big endian":
        np.save(path, np.zeros((2, 2), dtype=">f4"))
    elif name == "records":
        np.save(path, np.zeros((2, 2), dtype=[("a", "f4")]))
    elif name == "truncated":
        np.save(path, np.zeros((4, 3)))
        path.write_bytes(path.read_bytes()[:-8])
    elif name == "truncated header":
        np.save(path, np.zeros((4, 3)))
        path.write_bytes(path.read_bytes()[:40])
    elif name == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"there is no file .*x\.npy"),
        ("folder", r"there is no file .*x\.npy"),
        ("text", r"is not a \.npy file .*numpy\.save.*raw file pass shape and dtype"),
        ("empty", r"is not a \.npy file"),
        ("truncated header", r"is not a \.npy file"),
        ("vector", r"has shape \(5,\), but a table has rows"),
        ("fortran", r"Fortran order.*ascontiguousarray"),
        ("objects", r"holds object, which torch cannot read"),
        ("text items", r"holds <U1, which torch cannot read"),
        ("records", r"which torch cannot read"),
        ("big endian", r"holds >f4, which .* order of its bytes"),
        ("truncated", r"is truncated: shape \(4, 3\) .* needs 96 bytes, the file has 88"),
    ],
)
def test_wrong_npy_files(name, message, tmp_path):
    with pytest.raises(DataError, match=message):
        HostFeatures.from_file(wrong_file(tmp_path, name))


def test_wrong_raw_files(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(96))
    open_raw = HostFeatures.from_file
    with pytest.raises(DataError, match=r"is truncated: shape .* needs 100 bytes, the file has 96"):
        open_raw(path, shape=(5, 5), dtype=torch.float32)
    with pytest.raises(DataError, match=r"is longer than that.*needs 92 bytes, the file has 96"):
        open_raw(path, shape=(23, 1), dtype=torch.float32)
    with pytest.raises(ValueError, match="a raw file needs both shape and dtype"):
        open_raw(path, shape=(4, 6))
    with pytest.raises(ValueError, match=r"shape of .* must be \(N, ...\).*got \(24,\)"):
        open_raw(path, shape=(24,), dtype=torch.float32)
    with pytest.raises(ValueError, match="dtype must be a torch dtype"):
        open_raw(path, shape=(4, 6), dtype="float32")
    np.save(tmp_path / "x.npy", np.zeros((4, 6)))
    with pytest.raises(DataError, match="leave out shape and dtype"):
        open_raw(tmp_path / "x.npy", shape=(4, 6), dtype=torch.float64)


# ---- what is refused -----------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("ask", ["__getitem__", "prefetch", "observe"])
@pytest.mark.parametrize("bad", [N, -1, 2**40])
def test_wrong_ids_name_value_position_and_range(kind, ask, bad):
    feats, _ = make(kind, torch.randn(N, F))
    ids = some_ids(30)
    ids[17] = bad
    ids[21] = bad
    with pytest.raises(IndexError, match=rf"index {bad} at position 17 is out of range \[0, {N}\)"):
        getattr(feats, ask)(ids)
    assert feats.stats().rows == 0
    feats.close()


@each_kind
def test_wrong_kinds_of_ids(kind):
    feats, _ = make(kind, torch.randn(N, F))
    with pytest.raises(TypeError, match="ids must be a tensor, got list"):
        feats[[1, 2]]
    with pytest.raises(TypeError, match="ids must be a tensor, got int"):
        feats[1]
    with pytest.raises(ValueError, match=r"ids must be int64 or int32, got torch\.float32"):
        feats[torch.ones(3)]
    with pytest.raises(ValueError, match=r"ids must be int64 or int32, got torch\.bool"):
        feats[torch.ones(N, dtype=torch.bool)]
    with pytest.raises(ValueError, match=r"ids must have one dimension, got shape \(2, 2\)"):
        feats[torch.ones(2, 2, dtype=torch.int64)]
    feats.close()


def sparse():
    return torch.eye(3).to_sparse()


TABLES = {
    "list": (lambda: [[1.0]], TypeError, "must be a tensor, got list"),
    "array": (lambda: np.ones((2, 2)), TypeError, r"got ndarray; use torch\.from_numpy"),
    "vector": (lambda: torch.ones(3), ValueError, r"got shape \(3,\); use x\.reshape\(-1, 1\)"),
    "scalar": (lambda: torch.ones(()), ValueError, r"must have rows"),
    "sparse": (sparse, ValueError, r"must be dense"),
    "trained": (lambda: torch.ones(2, 2, requires_grad=True), ValueError, r"x\.detach\(\)"),
    "meta": (
        lambda: torch.ones(2, 2, device="meta"),
        ValueError,
        "must be in host memory, got meta",
    ),
    "columns": (lambda: torch.ones(3, 2).T, ValueError, r"unbroken .*\(1, 2\).*x\.contiguous\(\)"),
    "swapped": (lambda: torch.ones(4, 3, 2).mT, ValueError, r"x\.contiguous\(\)"),
    "skipping": (lambda: torch.ones(4, 6)[:, ::2], ValueError, r"x\.contiguous\(\)"),
    "conjugate": (
        lambda: torch.ones(2, 2, dtype=torch.complex64).conj(),
        ValueError,
        "resolve_conj",
    ),
}


@pytest.mark.parametrize(("build", "error", "message"), TABLES.values(), ids=TABLES.keys())
def test_wrong_tables(build, error, message):
    with pytest.raises(error, match=message):
        HostFeatures(build())


OPTIONS = {
    "degree as list": ({"degree": [1] * 4}, TypeError, "degree must be a tensor, got list"),
    "degree too short": ({"degree": torch.ones(3)}, ValueError, r"shape \(4,\), got \(3,\)"),
    "negative degree": (
        {"degree": torch.tensor([1, 2, -3, 4])},
        ValueError,
        "0 or more, got -3 at position 2",
    ),
    "infinite degree": (
        {"degree": torch.tensor([1, float("inf"), 2, 3])},
        ValueError,
        "got inf at position 1",
    ),
    "boolean degree": ({"degree": torch.ones(4).bool()}, ValueError, "must hold numbers"),
    "warmup": ({"warmup": -1}, ValueError, "warmup must be .* 0 or more, got -1"),
    "warmup type": ({"warmup": "1"}, ValueError, "warmup must be"),
    "out_dtype": ({"out_dtype": torch.int8}, ValueError, "out_dtype must be a floating-point"),
    "out_dtype name": ({"out_dtype": "half"}, ValueError, "out_dtype must be a floating-point"),
    "device": ({"device": "gpu"}, ValueError, 'device must be "cpu" or "cuda", got \'gpu\''),
    "other device": ({"device": "meta"}, ValueError, 'must be "cpu" or "cuda"'),
    "device type": ({"device": 1.5}, ValueError, 'must be "cpu" or "cuda"'),
    "small cache": ({"device": FakeDevice(), "cache": 17}, ValueError, "holds no row"),
}


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS.values(), ids=OPTIONS.keys())
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        HostFeatures(torch.ones(4, 2), **options)


def test_conversion_of_what_are_no_real_numbers():
    for dtype in (torch.bool, torch.complex64):
        with pytest.raises(ValueError, match="cannot be converted"):
            HostFeatures(torch.ones(2, 2, dtype=dtype), out_dtype=torch.float32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_gpu_the_error_says_what_to_pass():
    with pytest.raises(RuntimeError, match=r'no GPU for device="cuda"; pass device="cpu"'):
        HostFeatures(torch.ones(2, 2), "cuda")


@each_kind
def test_nothing_works_after_close(kind):
    feats, _ = make(kind, torch.randn(N, F))
    feats[some_ids()]
    feats.close()
    calls = [
        lambda: feats[some_ids()],
        lambda: feats.prefetch(some_ids()),
        lambda: feats.observe(some_ids()),
        feats.rebuild,
        feats.to_device,
        feats.__enter__,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="this HostFeatures is closed"):
            call()
    assert feats.stats().rows == 200  # what was done can still be read
    assert "closed" in repr(feats)


def test_repr():
    assert repr(HostFeatures(torch.ones(2, 3))) == (
        "HostFeatures((2, 3), torch.float32, device=cpu, transport=cpu, cached_rows=0)"
    )


def test_the_fake_and_the_gpu_are_devices():
    assert isinstance(FakeDevice(), Device)
    methods = {name for name in vars(Device) if not name.startswith("_")}
    assert methods <= set(vars(CudaDevice))


def test_reached_from_the_top():
    import gnnlab

    assert gnnlab.data.HostFeatures is HostFeatures


# ---- processes -----------------------------------------------------------------------------------


def child(x, ids, answers):
    torch.set_num_threads(1)
    device = FakeDevice()
    with HostFeatures(x) as plain, HostFeatures(x, device) as mapped:
        answers.put((plain[ids].tolist(), settle(mapped[ids], device).tolist()))


def child_of_fork(feats, ids, answers):
    torch.set_num_threads(1)
    answers.put((feats[ids].tolist(), feats.prefetch(ids).wait().tolist()))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_one_table(start):
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    context = torch.multiprocessing.get_context(start)
    x = torch.randn(N, F).share_memory_()
    answers, ids = context.SimpleQueue(), some_ids(9)
    if start == "fork":  # torch's threads do not survive one
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
    process = context.Process(target=child, args=(x, ids, answers))
    with HostFeatures(x, pin=False):
        process.start()
        found = answers.get()
        process.join()
    if start == "fork":
        torch.set_num_threads(threads)
    assert process.exitcode == 0
    assert found == (x[ids].tolist(), x[ids].tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_features_of_the_cpu_work_in_a_forked_child():
    context = multiprocessing.get_context("fork")
    x = torch.randn(N, F)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    feats = HostFeatures(x)
    feats.prefetch(some_ids()).wait()  # the thread does not exist in the child
    answers, ids = context.SimpleQueue(), some_ids(9)
    process = context.Process(target=child_of_fork, args=(feats, ids, answers))
    process.start()
    found = answers.get()
    process.join()
    torch.set_num_threads(threads)
    assert found == (x[ids].tolist(), x[ids].tolist())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_neither_uses_nor_unregisters_for_its_parent():
    device = FakeDevice()
    feats = HostFeatures(torch.randn(N, F), device)
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        try:
            with pytest.raises(RuntimeError, match="made before a fork"):
                feats[some_ids()]
            feats.close()
            os._exit(0 if "unregister" not in device.log else 3)
        except BaseException:
            os._exit(4)
    assert os.waitpid(pid, 0)[1] == 0
    feats.close()
    assert device.log.count("unregister") == 1


def test_pickling_says_what_to_send():
    with pytest.raises(TypeError, match=r"Send its table after table\.share_memory_\(\)"):
        pickle.dumps(HostFeatures(torch.ones(2, 2)))
