"""What only a real GPU can show: graph capture, streams, several devices. Skipped without one."""

import pytest
import torch

from gnnlab.ops import _gpu
from gnnlab.ops._edges import Order

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def graph(device, num_edges=20000, num_rows=300):
    """An Order with a row of more than 1024 edges, and x."""
    random = torch.Generator().manual_seed(0)
    dst = torch.randint(num_rows, (num_edges,), generator=random)
    dst[:3000] = 7
    counts = torch.bincount(dst, minlength=num_rows)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    col = torch.randint(500, (num_edges,), generator=random, dtype=torch.int32)
    x = torch.randn(500, 64, generator=random)
    return Order(indptr.to(device), col.to(device), None, num_edges), x.to(device)


def expected(order, x):
    rows = torch.arange(order.num_rows, device=x.device).repeat_interleave(order.indptr.diff())
    out = x.new_zeros(order.num_rows, x.shape[1], dtype=torch.float64)
    return out.index_add_(0, rows, x.double()[order.col.long()]).float()


def test_graph_capture():
    kernels, device = _gpu.cuda_kernels(), torch.device("cuda")
    order, x = graph(device)
    fresh = Order(order.indptr, order.col, None, order.num_edges)  # facts are not known yet
    kernels.reduce(order, x, None, "sum", False)  # compiles and loads
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        known, _ = kernels.reduce(order, x, None, "sum", False)
        new, _ = kernels.reduce(fresh, x, None, "sum", False)
    for step in range(3):
        x.add_(step)
        captured.replay()
        torch.cuda.synchronize()
        torch.testing.assert_close(known, expected(order, x), rtol=1e-4, atol=1e-3)
        assert torch.equal(new, known)


def test_two_streams():
    kernels, device = _gpu.cuda_kernels(), torch.device("cuda")
    order, x = graph(device)
    kernels.reduce(order, x, None, "sum", False)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    results = []
    for number in range(20):
        with torch.cuda.stream(streams[number % 2]):
            mine = x + number
            results.append((number, kernels.reduce(order, mine, None, "sum", False)[0]))
    torch.cuda.synchronize()
    for number, out in results:
        torch.testing.assert_close(out, expected(order, x + number), rtol=1e-4, atol=1e-2)


def test_results_repeat():
    kernels, device = _gpu.cuda_kernels(), torch.device("cuda")
    order, x = graph(device)
    first, _ = kernels.reduce(order, x, None, "sum", False)
    for _ in range(10):
        assert torch.equal(kernels.reduce(order, x, None, "sum", False)[0], first)


def test_emulator_and_gpu_agree():
    order, x = graph("cpu")
    emulated, place = _gpu.emulated_kernels().reduce(order, x, None, "max", True)
    moved, x = graph("cuda")
    out, arg = _gpu.cuda_kernels().reduce(moved, x, None, "max", True)
    assert torch.equal(out.cpu(), emulated)
    assert torch.equal(arg.cpu(), place)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_the_tensors_choose_the_device():
    order, x = graph("cuda:1")
    out, _ = _gpu.cuda_kernels().reduce(order, x, None, "sum", False)
    assert out.device == torch.device("cuda:1")
    torch.testing.assert_close(out, expected(order, x), rtol=1e-4, atol=1e-3)
