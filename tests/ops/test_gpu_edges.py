"""sddmm, the softmax family and the gradient of spmm in CUDA, against float64 formulas.

Run by the emulator; on a machine with a GPU there too (`-m gpu`).
"""

import math

import pytest
import torch

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu import GpuKernels
from gnnlab.ops._gpu._emulator import Emulator

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 1e-2, torch.float16: 2e-3}
MIXED = [4, 0, 1, 33, 0, 0, 2, 300, 9, 0]  # edges of each row
DESERT = [3, *[0] * 70, 5, *[0] * 40, 1]
LONG = [2, 1025, 0, 1024, 3]  # around the length from which a block shares a row
SHORT = [5, 6, 7, 0, 6, 6, 5, 7, 8, 9, 6]  # 8 lanes per row
OPS = {"dot": None, "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}


def provider(name, seed=3):
    if name == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        from gnnlab.ops._gpu import cuda_kernels

        return cuda_kernels(), torch.device("cuda")
    try:
        return GpuKernels(Emulator(seed=seed)), torch.device("cpu")
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request):
    """The kernels, and the device of their tensors."""
    return provider(request.param)


def values(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make(degrees, num_src=11, index=torch.int32, permuted=True):
    """An Order with rows of these degrees; source, row and edge of each place."""
    random = torch.Generator().manual_seed(1)
    degrees = torch.tensor(degrees, dtype=torch.int64)
    count = int(degrees.sum())
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    col = torch.randint(max(num_src, 1), (count,), generator=random)
    edge = torch.randperm(count, generator=random) if permuted else torch.arange(count)
    order = Order(indptr, col.to(index), edge.to(index) if permuted else None, count)
    return order, col, torch.arange(len(degrees)).repeat_interleave(degrees), edge


def on(device, *given):
    """The same on the device."""
    moved = []
    for item in given:
        if isinstance(item, Order):
            parts = [
                None if t is None else t.to(device) for t in (item.indptr, item.col, item.perm)
            ]
            moved.append(Order(*parts, item.num_edges))
        else:
            moved.append(item.to(device))
    return moved


def to_edges(edge, at_places):
    """Moves rows from places to the caller's edges."""
    return torch.empty_like(at_places).index_copy_(0, edge, at_places)


def close(found, expected, dtype):
    tolerance = TOLERANCE[dtype]
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.cpu().double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def check_sddmm(gpu, op, dtype, heads, width, degrees, index, permuted, shift=0):
    kernels, device = gpu
    order, col, row, edge = make(degrees, index=index, permuted=permuted)
    # `shift` moves the addresses, so that wide reads are not allowed.
    a = values(len(degrees) * heads * width + shift, dtype=dtype)[shift:]
    b = values(11 * heads * width + shift, dtype=dtype, seed=1)[shift:]
    a, b = a.view(-1, heads, width), b.view(-1, heads, width)
    x, y = a.double()[row], b.double()[col]
    expected = (x * y).sum(-1) if op == "dot" else OPS[op](x, y)
    order, a, b = on(device, order, a, b)
    close(kernels.sddmm(order, a, b, op), to_edges(edge, expected), dtype)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        *(pytest.param("dot", dtype, id=f"dot-{dtype}") for dtype in TOLERANCE),
        *(pytest.param(op, torch.float32, id=op) for op in OPS if op != "dot"),
        pytest.param("div", torch.bfloat16, id="div-bfloat16"),
    ],
)
def test_sddmm_is_its_formula(gpu, op, dtype):
    check_sddmm(gpu, op, dtype, 2, 24, MIXED, torch.int32, True)


SHAPES = [  # heads, width, degrees, index, permuted, shift
    (1, 1, DESERT, torch.int32, True, 0),
    (3, 5, MIXED, torch.int64, False, 0),
    (40, 2, SHORT, torch.int32, False, 0),
    (2, 8, SHORT, torch.int32, True, 1),
    (1, 64, SHORT, torch.int32, True, 0),
    (1, 300, [9, 0, 30], torch.int32, True, 0),
    (1, 4, [0, 0, 500, 0], torch.int64, True, 0),
]


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_sddmm_takes_any_shape(gpu, shape):
    check_sddmm(gpu, "dot", torch.float32, *shape)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_sddmm_takes_all_of_them(gpu, op, dtype, shape):
    check_sddmm(gpu, op, dtype, *shape)


def softmax_formulas(src, row, rows):
    """softmax, log-softmax and logsumexp by places, float64."""
    at = row[:, None].expand_as(src)
    largest = torch.full((rows, src.shape[1]), -math.inf, dtype=torch.float64)
    largest = largest.scatter_reduce(0, at, src.detach(), "amax")
    total = torch.zeros_like(largest).index_add(0, row, (src - largest[row]).exp())
    log = src - largest[row] - total.log()[row]
    return {"softmax": log.exp(), "log_softmax": log, "logsumexp": largest + total.log()}


def check_softmax(gpu, kinds, dtype, heads, degrees, index, permuted):
    kernels, device = gpu
    order, _, row, edge = make(degrees, index=index, permuted=permuted)
    src = (values(len(edge), heads) * 3).to(dtype)
    grad = values(len(edge), heads, seed=1).to(dtype)
    wide = src.double()[edge].requires_grad_()
    formulas = softmax_formulas(wide, row, len(degrees))
    place, src_d, grad_d = on(device, order, src, grad)
    for kind in kinds:
        expected = formulas[kind]
        found = kernels.softmax(place, src_d, kind)
        if kind == "logsumexp":
            close(found, expected.detach(), dtype)
            continue
        close(found, to_edges(edge, expected.detach()), dtype)
        (gsrc,) = torch.autograd.grad(expected, wide, grad.double()[edge], retain_graph=True)
        exact = to_edges(edge, expected.detach()).to(dtype)
        gsrc_found = kernels.softmax_backward(place, exact.to(device), grad_d, kind)
        if dtype in (torch.float32, torch.float64):
            close(gsrc_found, to_edges(edge, gsrc), dtype)
            continue
        # The rounded result is what the kernel is given: the formula of gnnlab.h, by hand.
        y, g = exact.double()[edge], grad.double()[edge]
        term = y * g if kind == "softmax" else g
        sums = torch.zeros(len(degrees), heads, dtype=torch.float64).index_add(0, row, term)[row]
        rounded = y * (g - sums) if kind == "softmax" else g - y.exp() * sums
        close(gsrc_found, to_edges(edge, rounded), dtype)


KINDS = ["softmax", "log_softmax", "logsumexp"]


@pytest.mark.parametrize(
    ("kind", "dtype", "heads", "degrees"),
    [
        ("softmax", torch.float64, 3, MIXED),
        ("log_softmax", torch.float64, 3, MIXED),
        ("logsumexp", torch.float64, 3, MIXED),
        ("softmax", torch.float32, 4, SHORT),
        ("softmax", torch.float32, 1, LONG),
        ("logsumexp", torch.float32, 1, LONG),
        ("log_softmax", torch.bfloat16, 2, MIXED),
        ("softmax", torch.float16, 1, MIXED),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_softmax_and_its_gradient_are_their_formulas(gpu, kind, dtype, heads, degrees):
    check_softmax(gpu, [kind], dtype, heads, degrees, torch.int32, True)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2, 5, 8, 12, 40])
@pytest.mark.parametrize("degrees", [MIXED, SHORT, LONG, DESERT], ids=len)
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("permuted", [True, False])
def test_softmax_takes_any_shape(gpu, heads, degrees, index, permuted):
    check_softmax(gpu, KINDS, torch.float64, heads, degrees, index, permuted)


def test_softmax_of_infinities_and_nan_is_that_of_torch(gpu):
    kernels, device = gpu
    inf, nan = math.inf, math.nan
    rows = [[-inf, -inf], [-inf, 1.0, -inf], [inf, 1.0], [nan, 2.0], [1e30, -1e30], [0.0]]
    order = make([len(row) for row in rows], permuted=False)[0]
    src = torch.tensor([x for row in rows for x in row], dtype=torch.float64)[:, None]
    dense = [torch.tensor(row, dtype=torch.float64) for row in rows]
    order, src = on(device, order, src)
    for kind, function in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
        expected = torch.cat([function(row, 0) for row in dense])[:, None]
        close(kernels.softmax(order, src, kind), expected, torch.float64)
    expected = torch.stack([torch.logsumexp(row, 0) for row in dense])[:, None]
    close(kernels.softmax(order, src, "logsumexp"), expected, torch.float64)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_gradients_of_the_weighted_sum_are_those_of_autograd(gpu, per_head, dtype):
    kernels, device = gpu
    heads, width, degrees = 3, 4, MIXED
    order, col, row, edge = make(degrees, num_src=7)  # rows are sources, as in the transpose
    x, grad = values(len(degrees), heads, width, dtype=dtype), values(7, heads, width, dtype=dtype)
    weight = values(len(edge), *([heads] if per_head else []), dtype=dtype, seed=2)
    wide = [t.double().requires_grad_() for t in (x, weight)]
    at = wide[1][edge].view(len(edge), -1, 1)
    out = torch.zeros(7, heads, width, dtype=torch.float64).index_add(0, col, at * wide[0][row])
    expected = torch.autograd.grad(out, wide, grad.double())
    found = kernels.spmm_backward(*on(device, order, grad, x, weight))
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if dtype == torch.float64:
            close(one, other, dtype)
        else:  # sums of terms that cancel: their rounding is relative to the largest
            scale = other.abs().max()
            close((one.double() / scale).to(dtype), other / scale, dtype)


@pytest.mark.parametrize("degrees", [[], [0, 0, 0], [3, 0, 2]])
@pytest.mark.parametrize(("heads", "width"), [(2, 3), (0, 3), (2, 0)])
def test_nothing_to_do_gives_the_right_shapes(gpu, degrees, heads, width):
    kernels, device = gpu
    order, _, _, edge = make(degrees, num_src=4)
    a, b = values(len(degrees), heads, width), values(4, heads, width)
    src = values(len(edge), heads if heads == 0 else 3)
    order, a, b, src = on(device, order, a, b, src)
    assert kernels.sddmm(order, a, b, "add").shape == (len(edge), heads, width)
    found = kernels.sddmm(order, a, b, "dot")
    assert found.shape == (len(edge), heads)
    assert width or not found.any()
    assert kernels.softmax(order, src, "softmax").shape == src.shape
    assert kernels.softmax_backward(order, src, src, "softmax").shape == src.shape
    found = kernels.softmax(order, src, "logsumexp")
    assert found.shape == (len(degrees), src.shape[1])
    assert (found.cpu()[torch.tensor(degrees, dtype=torch.int64) == 0] == -math.inf).all()


def test_no_order_of_blocks_or_threads_changes_a_bit():
    order = make(LONG)[0]
    src = values(order.num_edges, 1, dtype=torch.float32)
    a, b = values(len(LONG), 2, 24, dtype=torch.float32), values(11, 2, 24, dtype=torch.float32)
    results = []
    for seed in range(3):
        kernels = provider("emulated", seed)[0]
        forward = kernels.softmax(order, src, "softmax")
        back = kernels.softmax_backward(order, forward, src, "softmax")
        results.append([forward, back, kernels.sddmm(order, a, b, "dot")])
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
