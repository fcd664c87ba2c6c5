"""Fused attention and its gradients in CUDA, against float64 formulas and their autograd.

Run by the emulator; on a machine with a GPU there too (`-m gpu`).
"""

import math

import pytest
import torch
from torch.nn.functional import leaky_relu

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu import GpuKernels
from gnnlab.ops._gpu._emulator import Emulator

TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-11, torch.bfloat16: 1e-2, torch.float16: 2e-3}
KINDS = ["gat", "gatv2", "attention"]
N, M = 12, 17  # sources and destinations


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request):
    """The kernels, and the device of their tensors."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        from gnnlab.ops._gpu import cuda_kernels

        return cuda_kernels(), torch.device("cuda")
    try:
        return GpuKernels(Emulator(seed=5)), torch.device("cpu")
    except OSError as error:
        pytest.skip(str(error))


def grouped(key, other, rows, index, device):
    """An Order by `key`; without a perm where the edges lie in its order already."""
    edge = torch.sort(key, stable=True).indices
    indptr = torch.zeros(rows + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(key, minlength=rows).cumsum(0)
    is_sorted = torch.equal(edge, torch.arange(len(key)))
    perm = None if is_sorted else edge.to(index).to(device)
    return Order(indptr.to(device), other[edge].to(index).to(device), perm, len(key))


class Graph:
    """Edges into destinations 0..M-3 (the last two have none); `hub` of them into one row."""

    def __init__(self, edges, hub=0, index=torch.int32, in_order=False, n=N, m=M):
        random = torch.Generator().manual_seed(2)
        self.n, self.m, self.edges, self.index = n, m, edges, index
        self.src = torch.randint(max(n, 1), (edges,), generator=random)
        self.dst = torch.randint(max(m - 2, 1), (edges,), generator=random)
        self.dst[:hub], self.src[: hub // 2] = 3, 5
        if in_order:
            self.dst = self.dst.sort().values

    def orders(self, device):
        by_dst = grouped(self.dst, self.src, self.m, self.index, device)
        return by_dst, grouped(self.src, self.dst, self.n, self.index, device)


def operands(kind, graph, heads, width, dtype, edge):
    """Tensors as the kernels take them, without gradients."""
    n, m, e = graph.n, graph.m, graph.edges
    shapes = {
        "gat": [(n, heads, width), (n, heads), (m, heads), (e, heads)],
        "gatv2": [(n, heads, width), (m, heads, width), (heads, width), (e, heads, width)],
        "attention": [(m, heads, width), (n, heads, width), (n, heads, width), (e, heads)],
    }[kind]
    random = torch.Generator().manual_seed(7)
    given = [torch.randn(shape, generator=random).to(dtype) for shape in shapes]
    return given if edge else [*given[:3], None]


def formula(kind, graph, given, factor, kept=None):
    """Returns out, largest score and sum of exponentials by row; score and softmax by edge."""
    src, dst = graph.src, graph.dst
    first, second, third, edge = given
    edge = 0 if edge is None else edge
    if kind == "gat":
        score = leaky_relu(second[src] + third[dst] + edge, factor)
    elif kind == "gatv2":
        score = (leaky_relu(first[src] + second[dst] + edge, factor) * third).sum(-1)
    else:
        score = factor * (first[dst] * second[src]).sum(-1) + edge
    value = third if kind == "attention" else first
    largest = torch.full((graph.m, score.shape[1]), -math.inf, dtype=torch.float64)
    at = dst[:, None].expand_as(score)
    largest = largest.scatter_reduce(0, at, score.detach(), "amax")
    exponential = (score - largest[dst]).exp()
    total = torch.zeros_like(largest).index_add(0, dst, exponential)
    share = exponential / total[dst]
    weight = share if kept is None else share * kept
    out = torch.zeros(graph.m, *value.shape[1:], dtype=torch.float64)
    out = out.index_add(0, dst, weight[..., None] * value[src])
    empty = torch.bincount(dst, minlength=graph.m) == 0
    largest = largest.masked_fill(empty[:, None], 0)
    return out, largest, total.detach(), score, share.detach()


def close(found, expected, dtype, tolerance):
    assert found.dtype == dtype
    assert found.shape == expected.shape
    # Gradients cancel: what rounding costs is relative to the largest.
    scale = max(float(expected.abs().max()), 1.0) if expected.numel() else 1.0
    torch.testing.assert_close(
        found.cpu().double(), expected, rtol=tolerance, atol=tolerance * scale
    )


def check(gpu, kind, graph, heads, width, dtype=torch.float64, edge=True, dropout=0.0):
    kernels, device = gpu
    factor = 0.3 if kind == "attention" else 0.2
    given = operands(kind, graph, heads, width, dtype, edge)
    wide = [None if t is None else t.double().requires_grad_() for t in given]
    seed = 0x9ABCDEF012345678  # its highest bit is set
    kept = mask(graph.edges, heads, dropout, seed) / (1 - dropout) if dropout else None
    out, largest, total, score, share = formula(kind, graph, wide, factor, kept)
    order, order_t = graph.orders(device)
    options = (factor, dropout, seed) if kind == "gat" else (factor,)
    given = [None if t is None else t.to(device) for t in given]
    found = getattr(kernels, kind)(order, *given, *options)
    tolerance, sums = TOLERANCE[dtype], torch.promote_types(dtype, torch.float32)
    close(found[0], out.detach(), dtype, tolerance)
    close(found[1], largest.detach(), sums, min(tolerance, 1e-4))
    close(found[2], total, sums, min(tolerance, 1e-4))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
    leaves = [t for t in wide if t is not None]
    target = (out * grad.double()).sum()
    if dtype in (torch.bfloat16, torch.float16):
        # The rounded result is what the kernel is given: <grad, out> of each row is off by `error`,
        # and with it the gradient of every score.
        error = (grad.double() * (found[0].cpu().double() - out.detach())).sum(-1)
        target = target - (score * share * error[graph.dst]).sum()
    expected = torch.autograd.grad(target, leaves)
    backward = getattr(kernels, f"{kind}_backward")
    got = backward(order, order_t, grad.to(device), found[0], *given, *found[1:], *options)
    assert len(got) == 4
    assert edge or got[3] is None
    for one, other in zip(got, expected, strict=False):
        close(one, other, dtype, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_several_heads_of_odd_width(gpu, kind):
    check(gpu, kind, Graph(150), 3, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_for_a_whole_block(gpu, kind):
    check(gpu, kind, Graph(1500, hub=1300, index=torch.int64), 2, 8, torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_without_edge_terms(gpu, kind):
    check(gpu, kind, Graph(100, in_order=True), 1, 64, torch.bfloat16, edge=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("heads", "width"),
    [
        (1, 1),
        (1, 16),
        (1, 64),
        (4, 16),
        (8, 8),
        (8, 32),
        (12, 8),
        (40, 2),
        (1, 96),
        (2, 320),
        (1, 777),
    ],
)
def test_every_shape(gpu, kind, dtype, heads, width):
    check(gpu, kind, Graph(60), heads, width, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("in_order", [True, False])
def test_every_graph(gpu, kind, edge, index, in_order):
    for edges, hub in ((0, 0), (1, 0), (300, 0), (2600, 2400)):
        check(gpu, kind, Graph(edges, hub, index, in_order), 2, 6, edge=edge)


def words(key, counter):
    """Philox4x32-10 in Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            second >> 32 ^ c[1] ^ k[0],
            second & 0xFFFFFFFF,
            first >> 32 ^ c[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def mask(edges, heads, dropout, seed):
    """1 where an edge and head survives dropout."""
    key = (seed & 0xFFFFFFFF, seed >> 32)
    kept = [
        [
            float(words(key, (e & 0xFFFFFFFF, e >> 32, h, 0))[0] >= dropout * 2**32)
            for h in range(heads)
        ]
        for e in range(edges)
    ]
    return torch.tensor(kept, dtype=torch.float64).view(edges, heads)


def test_philox_of_this_file_gives_the_published_vectors():
    """From kat_vectors of Random123."""
    assert words((0, 0), (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert words((ones, ones), (ones,) * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("dropout", [0.4])
def test_dropout_follows_philox_forward_and_backward(gpu, dropout):
    check(gpu, "gat", Graph(150), 3, 5, dropout=dropout)


def test_all_edges_dropped_give_zero(gpu):
    kernels, device = gpu
    graph = Graph(40)
    order = graph.orders(device)[0]
    given = [t.to(device) for t in operands("gat", graph, 3, 5, torch.float64, True)]
    out, _, total = kernels.gat(order, *given, 0.2, 1.0, 3)
    assert not out.any()
    assert (total.cpu()[graph.dst] >= 1).all()


def test_a_row_without_any_finite_score_is_nan_as_in_torch(gpu):
    kernels, device = gpu
    graph = Graph(150)
    order = graph.orders(device)[0]
    q, k, v, bias = operands("attention", graph, 3, 5, torch.float64, True)
    bias[graph.dst == 3] = -math.inf  # all of a row
    bias[graph.edges // 2] = -math.inf  # one of another
    masked = [t.to(device) for t in (q, k, v, bias)]
    out = kernels.attention(order, *masked, 0.3)[0].cpu()
    expected = formula("attention", graph, (q, k, v, bias), 0.3)[0]
    assert expected[3].isnan().all()
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("edges", "n", "m"), [(0, 3, 4), (0, 0, 4), (0, 3, 0)])
def test_no_edges_no_sources_and_no_destinations(gpu, kind, edges, n, m):
    check(gpu, kind, Graph(edges, n=n, m=m), 3, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("heads", "width"), [(0, 5), (3, 0)])
def test_no_heads_and_no_width(gpu, kind, heads, width):
    kernels, device = gpu
    graph = Graph(20)
    given = [t.to(device) for t in operands(kind, graph, heads, width, torch.float32, True)]
    options = (0.2, 0.0, 0) if kind == "gat" else (0.2,)
    order, order_t = graph.orders(device)
    found = getattr(kernels, kind)(order, *given, *options)
    assert [t.shape for t in found] == [(M, heads, width), (M, heads), (M, heads)]
    backward = getattr(kernels, f"{kind}_backward")
    got = backward(order, order_t, found[0], found[0], *given, *found[1:], *options)
    for one, operand in zip(got, given, strict=True):
        assert one.shape == operand.shape
        assert not one.any()


def test_no_order_of_blocks_or_threads_changes_a_bit():
    graph = Graph(1500, hub=1300, index=torch.int64)
    order, order_t = graph.orders(torch.device("cpu"))
    given = operands("gatv2", graph, 2, 8, torch.float32, True)
    results = []
    for seed in range(2):
        try:
            kernels = GpuKernels(Emulator(seed=seed))
        except OSError as error:
            pytest.skip(str(error))
        found = kernels.gatv2(order, *given, 0.2)
        got = kernels.gatv2_backward(order, order_t, found[0], found[0], *given, *found[1:], 0.2)
        results.append([*found, *got])
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))
