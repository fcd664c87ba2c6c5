"""Row copies and reductions in CUDA, run by the emulator, against float64 formulas.

On a machine with a GPU the same table runs there too (`-m gpu`).
"""

import itertools

import pytest
import torch

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu import GpuKernels
from gnnlab.ops._gpu._emulator import Emulator

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 8e-3, torch.float16: 1e-3}
NEUTRAL = {"sum": 0, "mean": 0, "max": 0, "min": 0, "mul": 1}


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request):
    """The kernels, and the device of their tensors."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        from gnnlab.ops._gpu import cuda_kernels

        return cuda_kernels(), torch.device("cuda")
    try:
        return GpuKernels(Emulator(seed=3)), torch.device("cpu")
    except OSError as error:
        pytest.skip(str(error))


def values(*shape, dtype=torch.float32, seed=0):
    """Small random numbers that every dtype holds exactly, with many ties."""
    random = torch.Generator().manual_seed(seed)
    return (torch.randint(-8, 9, shape, generator=random) / 4).to(dtype)


def make(degrees, num_src, index=torch.int32, permuted=True, seed=0):
    """An Order with rows of these degrees."""
    random = torch.Generator().manual_seed(seed)
    degrees = torch.tensor(degrees, dtype=torch.int64)
    count = int(degrees.sum())
    col = torch.randint(num_src, (count,), generator=random) if count else torch.zeros(0)
    perm = torch.randperm(count, generator=random).to(index) if permuted else None
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    return Order(indptr, col.to(index), perm, count)


def on(device, order):
    col, perm = (None if t is None else t.to(device) for t in (order.col, order.perm))
    return Order(order.indptr.to(device), col, perm, order.num_edges)


def messages(order, x, weight):
    """weight * x of every place in float64: (E, F)."""
    out = x.double()[order.col.long()] if order.col is not None else x.double()
    if weight is not None:
        w = weight.double()
        w = w if order.perm is None else w[order.perm.long()]
        heads = 1 if w.dim() == 1 else w.shape[1]
        out = out.reshape(len(w), heads, -1) * w.reshape(len(w), heads, 1)
    return out.reshape(order.num_edges, -1)


def formula(order, x, weight, reduce):
    """The definition, row by row; and for max and min the first place that holds the result."""
    each = messages(order, x, weight)
    out = each.new_full((order.num_rows, each.shape[1]), NEUTRAL.get(reduce, 0))
    arg = torch.full(out.shape, order.num_edges)
    bounds = order.indptr.tolist()
    for row, (first, last) in enumerate(itertools.pairwise(bounds)):
        if first == last:
            continue
        block = each[first:last]
        if reduce in ("max", "min"):
            best = block.amax(0) if reduce == "max" else block.amin(0)
            hit = torch.where(best.isnan(), block.isnan(), block == best)
            out[row], arg[row] = best, first + hit.int().argmax(0)
        elif reduce == "std":
            out[row] = block.std(0, correction=0)
        elif reduce == "mul":
            out[row] = block.prod(0)
        else:
            out[row] = block.sum(0) if reduce == "sum" else block.mean(0)
    return out, arg


def same(got, expected, tolerance):
    got, expected = got.cpu().double(), expected.double().reshape(got.shape)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def check(gpu, order, x, weight, reduce, tolerance=None):
    kernels, device = gpu
    want_arg = reduce in ("max", "min")
    placed = on(device, order)
    moved = None if weight is None else weight.to(device)
    out, arg = kernels.reduce(placed, x.to(device), moved, reduce, want_arg)
    expected, place = formula(order, x, weight, reduce)
    assert out.dtype == x.dtype
    assert out.shape == (order.num_rows, *x.shape[1:])
    same(out, expected, TOLERANCE.get(x.dtype, 0) if tolerance is None else tolerance)
    if want_arg:
        assert arg.dtype == order.place_dtype
        assert torch.equal(arg.cpu().long(), place.reshape(arg.shape))


DEGREES = [3, 0, 1, 40, 2, 0, 7, 33, 5, 0]


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 20, 32, 33, 64, 132])
def test_every_width(gpu, reduce, width):
    check(gpu, make(DEGREES, 17), values(17, width), None, reduce)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 5, 48])
def test_every_floating_dtype(gpu, reduce, dtype, width):
    order = make(DEGREES, 17, torch.int64, permuted=False)
    check(gpu, order, values(17, width, dtype=dtype), None, reduce)


@pytest.mark.parametrize("reduce", ["sum", "min", "mul"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_integers(gpu, reduce, dtype, index):
    x = (values(17, 6, dtype=torch.float64) * 4).to(dtype)
    check(gpu, make([3, 0, 1, 6, 2], 17, index), x, None, reduce)


@pytest.mark.parametrize("permuted", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize(("heads", "width"), [(None, 7), (1, 8), (2, 3), (4, 16), (3, 12)])
def test_weights(gpu, permuted, reduce, heads, width):
    order = make(DEGREES, 17, permuted=permuted)
    weight = values(order.num_edges, *([heads] if heads else []), seed=1)
    x = values(17, width) if heads is None else values(17, heads, width)
    check(gpu, order, x, weight, reduce)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("width", [1, 6, 40])
def test_long_rows_are_cut_into_chunks(gpu, reduce, width):
    order = make([2, 1025, 0, 1024, 3, 2049, 1], 50)
    kernels, _ = gpu
    check(gpu, order, values(50, width), None, reduce, 1e-4)
    if kernels.name == "emulated":
        assert "rows_combine" in kernels.launcher.launches[-1]


def test_bfloat16_sums_are_kept_in_float32(gpu):
    order = make([4096, 3], 1)
    kernels, device = gpu
    x = torch.ones(1, 3, dtype=torch.bfloat16, device=device)
    out, _ = kernels.reduce(on(device, order), x, None, "sum", False)
    assert out.tolist() == [[4096.0] * 3, [3.0] * 3]


@pytest.mark.parametrize("width", [1, 2, 40])
def test_nan_and_infinity(gpu, width):
    order = make([5, 40, 3, 1100], 17)
    x = values(17, width)
    x[3] = float("nan")
    x[5] = float("inf")
    x[6] = -float("inf")
    for reduce in ("max", "min"):
        check(gpu, order, x, None, reduce)
    lowest = torch.full((17, width), -float("inf"))
    check(gpu, order, lowest, None, "max")


def test_rows_in_place_and_without_col(gpu):
    order = make([3, 0, 4], 17)
    check(gpu, order, values(17, 12)[:, 1:9], None, "sum")
    check(gpu, order, values(12, 17).t(), None, "max")
    check(gpu, order, values(17, 2, 6, 3)[:, :, 1:4], None, "sum")
    segments = Order(order.indptr, None, None, 7)
    for reduce in ("sum", "max"):
        check(gpu, segments, values(7, 8), None, reduce)


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 0)])
def test_empty(gpu, shape):
    kernels, device = gpu
    num_dst, num_src, width = shape
    order = on(device, make([0] * num_dst, max(num_src, 1)))
    x = torch.zeros(num_src, width, device=device)
    for reduce in ("sum", "max", "mul"):
        out, arg = kernels.reduce(order, x, None, reduce, reduce == "max")
        assert out.cpu().eq(NEUTRAL[reduce]).all()
        assert out.shape == (num_dst, width)
        assert arg is None or arg.eq(0).all()
    assert kernels.gather(x, torch.zeros(0, dtype=torch.int64, device=device)).shape == (0, width)
    out, arg = kernels.scatter(
        x[:0], torch.zeros(0, dtype=torch.int64, device=device), num_dst, "max", True
    )
    assert out.shape == arg.shape == (num_dst, width)
    gx, _ = kernels.reduce_arg_backward(
        order, torch.zeros(num_dst, width, device=device), arg.int(), num_src, None, None
    )
    assert gx.cpu().eq(0).all()
    assert gx.shape == (num_src, width)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [1, 6, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_reductions_at_once(gpu, weighted, width, dtype):
    kernels, device = gpu
    order = make([3, 0, 1, 40, 1500, 2], 30)
    x = values(30, width, dtype=dtype) + 3
    weight = values(order.num_edges, dtype=dtype, seed=2) if weighted else None
    names = ("std", "sum", "mean", "max", "min")
    moved = None if weight is None else weight.to(device)
    found = kernels.reduce_multi(on(device, order), x.to(device), moved, names)
    for name, got in zip(names, found, strict=True):
        expected = formula(order, x, weight, name)[0]
        same(got, expected, max(TOLERANCE[dtype], 1e-4))
    (only,) = kernels.reduce_multi(on(device, order), x.to(device), moved, ("max",))
    assert torch.equal(only, found[3])


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
def test_scatter(gpu, index, reduce):
    kernels, device = gpu
    random = torch.Generator().manual_seed(0)
    to = torch.randint(9, (60,), generator=random)
    src = values(60, 5)
    out, arg = kernels.scatter(src.to(device), to.to(device, index), 11, reduce, reduce == "max")
    places = torch.sort(to, stable=True).indices
    counts = torch.bincount(to, minlength=11)
    order = Order(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), places, None, 60)
    expected, place = formula(order, src, None, reduce)
    same(out, expected, 1e-5)
    if arg is not None:
        assert arg.dtype == torch.int64
        assert torch.equal(arg.cpu(), torch.cat([places, torch.tensor([60])])[place])


@pytest.mark.parametrize("with_col", [True, False])
@pytest.mark.parametrize("heads", [0, None, 2])
@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 8), (torch.float64, 3)])
def test_gradient_of_max(gpu, with_col, heads, dtype, width):
    """heads 0: no weight; None: one weight per edge."""
    kernels, device = gpu
    order = make([3, 0, 1, 40, 1300, 2], 5)
    if not with_col:
        order = Order(order.indptr, None, order.perm, order.num_edges)
    num_src = 5 if with_col else order.num_edges
    x = values(num_src, *([heads] if heads else []), width, dtype=dtype)
    weight = None
    if heads != 0:
        weight = values(order.num_edges, *([heads] if heads else []), dtype=dtype, seed=4)
    grad = values(order.num_rows, *x.shape[1:], dtype=dtype, seed=5)
    arg = formula(order, x, weight, "max")[1].reshape(grad.shape)
    leaves = [t.double().requires_grad_() for t in (x, weight) if t is not None]
    each = messages(order, leaves[0], leaves[1] if weight is not None else None)
    each = torch.cat([each, each.new_zeros(1, each.shape[1])])
    picked = each.gather(0, arg.reshape(order.num_rows, -1))
    expected = torch.autograd.grad((picked * grad.double().reshape(picked.shape)).sum(), leaves)
    moved = [None if t is None else t.to(device) for t in (x, weight)]
    placed = on(device, order)
    arg = arg.to(device, order.place_dtype)
    gx, gweight = kernels.reduce_arg_backward(placed, grad.to(device), arg, num_src, *moved)
    same(gx, expected[0], 1e-4 if dtype == torch.float32 else 1e-12)
    if weight is not None:
        same(gweight, expected[1], 1e-5 if dtype == torch.float32 else 1e-12)


def test_gradient_of_max_of_a_source_with_many_edges(gpu):
    kernels, device = gpu
    order = make([1] * 2500, 1)
    grad = values(2500, 6)
    arg = torch.arange(2500, dtype=torch.int32)[:, None].expand(2500, 6).contiguous()
    gx, _ = kernels.reduce_arg_backward(
        on(device, order), grad.to(device), arg.to(device), 1, None, None
    )
    same(gx, grad.double().sum(0), 1e-5)


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float64])
@pytest.mark.parametrize("width", [1, 3, 4, 16, 33, 40, 200, 301])
def test_gather(gpu, index, dtype, width):
    kernels, device = gpu
    x = (values(20, width + 3) * 4).to(dtype)
    to = torch.randint(20, (77,), generator=torch.Generator().manual_seed(1)).to(index)
    for rows in (x[:, :width].contiguous(), x[:, 1 : width + 1]):
        assert torch.equal(kernels.gather(rows.to(device), to.to(device)).cpu(), rows[to.long()])


def test_gather_of_a_wrong_index_gives_nan(gpu):
    kernels, device = gpu
    for width in (3, 300):
        out = kernels.gather(
            torch.ones(4, width, device=device), torch.tensor([1, 4, -1, 3], device=device)
        )
        assert out.isnan().all(1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("width", [3, 64, 260])
def test_rows_of_host_memory_with_a_cache(gpu, offset, width):
    kernels, device = gpu
    storage = values(30 * width + offset)
    if device.type == "cuda":
        storage = storage.pin_memory()
    table = storage[offset:].view(30, width)
    hot = torch.tensor([4, 17, 2])
    slots = torch.full((30,), -1, dtype=torch.int32)
    slots[hot] = torch.arange(3, dtype=torch.int32)
    cache = table[hot] + 100  # so that it shows where a row came from
    index = torch.tensor([4, 0, 29, 2, 2, 17, 11])
    expected = torch.where((slots[index] >= 0)[:, None], table[index] + 100, table[index])
    for with_cache, wanted in ((True, expected), (False, table[index])):
        out = torch.empty(7, width, device=device)
        extra = (slots.to(device), cache.to(device)) if with_cache else ()
        kernels.gather_rows(
            *(table.data_ptr(), 4 * width, 4 * width, index.to(device), out, *extra), num_rows=30
        )
        assert torch.equal(out.cpu(), wanted)


def test_results_do_not_depend_on_the_order_of_blocks():
    try:
        first, second = GpuKernels(Emulator(seed=1)), GpuKernels(Emulator(seed=2))
    except OSError as error:
        pytest.skip(str(error))
    order = make([1500, 3, 40], 100)
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    once, _ = first.reduce(order, x, None, "sum", False)
    again, _ = second.reduce(order, x, None, "sum", False)
    assert torch.equal(once, again)
