"""gather, scatter and segment against index_add, brute force and finite differences."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.autograd import gradcheck, gradgradcheck

from gnnlab import ops
from gnnlab.ops import EdgePlan, gather, reference, scatter, segment
from gnnlab.ops._cpu import CpuKernels
from gnnlab.ops._library import library

BACKENDS = ["auto", "reference"]
WIDTHS = [
    (),
    (0,),
    (1,),
    (2,),
    (3,),
    (5,),
    (9,),
    (15,),
    (16,),
    (17,),
    (33,),
    (64,),
    (100,),
    (257,),
    (2, 3),
]
needs_kernels = pytest.mark.skipif(
    ops.status().path is None, reason=f"no compiled kernels: {ops.status().reason}"
)


def values(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def indices(count, bound, seed=0, dtype=torch.int64):
    return torch.randint(
        bound, (count,), generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def brute_force(src, index, size, reduce):
    out = torch.zeros(size, *src.shape[1:], dtype=src.dtype)
    for e, i in enumerate(index.tolist()):
        out[i] += src[e]
    if reduce == "mean":
        for i in range(size):
            out[i] /= max(int((index == i).sum()), 1)
    return out


def by_strategy(strategy, src, index, size, reduce):
    kernels = CpuKernels(library())
    kernels.scatter_strategy = strategy
    return kernels.scatter(src, index, size, reduce, False)[0]


def same(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_all_ways_to_scatter_agree_with_brute_force(shape, dtype, reduce):
    src, index = values(70, *shape, dtype=dtype), indices(70, 11)
    index[index == 4] = 5  # an empty row
    expected = brute_force(src, index, 11, reduce)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    plan = EdgePlan(torch.stack([torch.arange(70), index]), 70, 11)
    same(scatter(src, index, 11, reduce=reduce), expected, tolerance)
    same(scatter(src, index.int(), 11, reduce=reduce), expected, tolerance)
    same(scatter(src, index, reduce=reduce, plan=plan), expected, tolerance)
    with ops.use_backend("reference"):
        same(scatter(src, index, 11, reduce=reduce), expected, tolerance)
    order = index.sort(stable=True).indices
    same(segment(src[order], plan.indptr, reduce=reduce), expected, tolerance)
    for strategy in ("scan", "sort") if library() else ():
        same(by_strategy(strategy, src, index, 11, reduce), expected, tolerance)


@settings(deadline=None, max_examples=60)
@given(
    index=st.lists(st.integers(0, 7), max_size=40),
    width=st.integers(0, 20),
    layout=st.sampled_from(["rows", "columns", "every other", "expanded"]),
    dtype=st.sampled_from([torch.int32, torch.int64]),
    data=st.data(),
)
def test_layouts_duplicates_and_edge_order_do_not_matter(index, width, layout, dtype, data):
    index = torch.tensor(index, dtype=dtype)
    count = len(index)
    src = {
        "rows": lambda: values(count, width),
        "columns": lambda: values(width, count).t(),
        "every other": lambda: values(count, 2 * width)[:, ::2],
        "expanded": lambda: values(1, width).expand(count, width),
    }[layout]()
    expected = brute_force(src, index, 8, "sum")
    same(scatter(src, index, 8), expected)
    shuffle = torch.tensor(data.draw(st.permutations(range(count))), dtype=torch.int64)
    same(scatter(src[shuffle], index[shuffle], 8), expected)
    same(gather(expected.t().contiguous().t(), index), expected[index.long()])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (3,), (16,), (2, 5), (0,)])
def test_gather_copies_rows_of_every_dtype(dtype, shape):
    x = (values(9, *shape) * 5).to(dtype)
    index = indices(30, 9)
    assert torch.equal(gather(x, index), x[index])
    assert gather(x, index[:0]).shape == (0, *shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    ones = torch.ones(2048, 1, dtype=dtype)
    zeros = torch.zeros(2048, dtype=torch.int64)
    assert scatter(ones, zeros, 1).item() == 2048
    assert segment(ones, torch.tensor([0, 2048])).item() == 2048
    assert scatter(ones, zeros, 1).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integers_are_summed_exactly_and_have_no_mean(dtype):
    src = torch.tensor([1, 2, 4], dtype=dtype)
    assert scatter(src, torch.tensor([1, 1, 0]), 3).tolist() == [4, 3, 0]
    with pytest.raises(ValueError, match='reduce="mean" needs a floating-point src'):
        scatter(src, torch.tensor([1, 1, 0]), 3, reduce="mean")


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_scatter_along_any_dim_and_item_by_item(dim):
    src, size = values(4, 5, 6), (4, 5, 6)[dim]
    index = indices(size, 3)
    shape = [4, 5, 6]
    shape[dim] = 3
    expected = torch.zeros(shape, dtype=src.dtype).index_add(dim, index, src)
    same(scatter(src, index, 3, dim=dim), expected)
    every = torch.randint(3, src.shape)
    same(
        scatter(src, every, 3, dim=dim),
        torch.zeros(shape, dtype=src.dtype).scatter_add(dim, every, src),
    )
    mean = torch.zeros(shape, dtype=src.dtype).scatter_reduce(
        dim, every, src, "mean", include_self=False
    )
    same(scatter(src, every, 3, reduce="mean", dim=dim), mean)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [17, -1])
@pytest.mark.parametrize("width", [1, 3, 64])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_index_out_of_range_is_an_index_error_on_every_path(backend, bad, width, dtype):
    index = torch.tensor([0, 5, 9, bad, 2], dtype=dtype)
    message = rf"index {bad} at position 3 is out of range \[0, 10\)"
    with ops.use_backend(backend):
        for reduce in ("sum", "mean"):
            with pytest.raises(IndexError, match=message):
                scatter(values(5, width), index, 10, reduce=reduce)
        with pytest.raises(IndexError, match=message):
            gather(values(10, width), index)
        with pytest.raises(IndexError, match=message):
            gather(values(10, width).requires_grad_(), index)
        with pytest.raises(IndexError, match=message):
            scatter(torch.ones(5, width, dtype=torch.int64), index, 10)
        with pytest.raises(IndexError, match=message):
            scatter(values(1, 5), index.view(1, 5), 10, dim=1)


@needs_kernels
@pytest.mark.parametrize("strategy", ["scan", "sort"])
@pytest.mark.parametrize("threads", [1, 3])
def test_large_index_out_of_range_is_found_by_both_strategies(strategy, threads):
    index = indices(100_000, 50)
    index[77_777] = 1 << 40
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(IndexError, match=r"index 1099511627776 at position 77777 is out of"):
            by_strategy(strategy, values(100_000, 2), index, 50, "sum")
        with pytest.raises(IndexError, match=r"index 1099511627776 at position 77777 is out of"):
            gather(values(50, 2), index)
    finally:
        torch.set_num_threads(before)


def test_useful_value_errors():
    with pytest.raises(ValueError, match=r"index has 3 entries, but src of shape \(4, 2\) has 4"):
        scatter(values(4, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"index must be int64 or int32, got torch\.float32"):
        gather(values(4, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r'unknown reduce "prod"\. Known: sum, mean'):
        scatter(values(3), torch.zeros(3, dtype=torch.int64), reduce="prod")
    with pytest.raises(ValueError, match="dim 2 does not exist"):
        scatter(values(3), torch.zeros(3, dtype=torch.int64), dim=2)
    plan = EdgePlan(torch.tensor([[0, 1], [1, 0]]), 2, 2)
    with pytest.raises(ValueError, match="the plan has 2 edges and 2 destinations"):
        scatter(values(3), torch.zeros(3, dtype=torch.int64), plan=plan)
    for backend in BACKENDS:
        for wrong in ([1, 3], [0, 2], [0, 4], [0, 2, 1, 3]):
            with (
                ops.use_backend(backend),
                pytest.raises(ValueError, match="indptr must start at 0"),
            ):
                segment(values(3), torch.tensor(wrong))


def test_dim_size_is_the_largest_index_plus_one_by_default():
    assert scatter(values(3), torch.tensor([0, 4, 2])).shape == (5,)
    assert scatter(values(0, 7), torch.zeros(0, dtype=torch.int64)).shape == (0, 7)


@needs_kernels
@pytest.mark.parametrize("width", [1, 5, 16, 64, 130])
@pytest.mark.parametrize("strategy", ["scan", "sort", "segment", "planned"])
def test_every_number_of_threads_and_instruction_set_gives_the_same_bits(width, strategy):
    count = 60_000
    index = indices(count, 200)
    index[:30_000] = 7  # one row of more than 4096 edges
    index = index[torch.randperm(count, generator=torch.Generator().manual_seed(1))]
    src = values(count, width, dtype=torch.float32)
    plan = EdgePlan(torch.stack([torch.arange(count), index]), count, 200)
    kernels, before = library(), torch.get_num_threads()

    def call():
        if strategy == "segment":
            return segment(src, plan.indptr, reduce="mean")
        if strategy == "planned":
            return scatter(src, index, plan=plan, reduce="mean")
        return by_strategy(strategy, src, index, 200, "mean")

    results = []
    try:
        for isa in ("v2", "v3", "v4", "portable"):
            try:
                kernels.select_isa(isa)
            except ValueError:
                continue
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                results.append(call())
    finally:
        torch.set_num_threads(before)
        kernels.select_isa("auto")
    assert len(results) >= 4
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_gradients_equal_finite_differences_twice(backend, reduce, shape):
    index = torch.tensor([2, 0, 2, 4, 2])
    plan = EdgePlan(torch.stack([torch.arange(5), index]), 5, 6)
    indptr = torch.tensor([0, 2, 2, 5])
    src, x = values(5, *shape).requires_grad_(), values(6, *shape).requires_grad_()
    with ops.use_backend(backend):
        for call, given_ in (
            (lambda s: scatter(s, index, 6, reduce=reduce).sin(), src),
            (lambda s: scatter(s, index, plan=plan, reduce=reduce).sin(), src),
            (lambda s: segment(s, indptr, reduce=reduce).sin(), src),
            (lambda s: gather(s, index).sin(), x),
            (lambda s: gather(s, index, plan=plan).sin(), x),
        ):
            assert gradcheck(call, (given_,))
            assert gradgradcheck(call, (given_,))


@pytest.mark.parametrize("make", ["scatter", "segment", "gather"])
def test_third_derivatives_equal_those_of_plain_torch(make):
    index, indptr = torch.tensor([1, 0, 1, 2]), torch.tensor([0, 1, 3, 4])
    x = values(4, 2).requires_grad_()
    call = {
        "scatter": lambda: scatter(x**4, index, 3, reduce="mean"),
        "segment": lambda: segment(x**4, indptr, reduce="mean"),
        "gather": lambda: gather(x**4, index),
    }[make]
    found = []
    for backend in BACKENDS:
        with ops.use_backend(backend):
            y = (call() ** 2).sum()
            for _ in range(3):
                (g,) = torch.autograd.grad(y, x, create_graph=True)
                y = (g**2).sum()
            found.append(g.detach())
    same(*found)


def test_zero_sizes_have_gradients_of_the_right_shape():
    none = torch.zeros(0, dtype=torch.int64)
    for n, shape in ((0, (3,)), (4, (0,)), (0, ())):
        x = torch.zeros(n, *shape, requires_grad=True)
        gather(x, none).sum().backward()
        assert x.grad.shape == x.shape
        src = torch.zeros(0, *shape, requires_grad=True)
        scatter(src, none, 4).sum().backward()
        assert src.grad.shape == src.shape


def test_results_agree_with_torch_scatter():
    torch_scatter = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed")
    src, index = values(200, 7), indices(200, 13)
    for reduce in ("sum", "mean"):
        same(
            scatter(src, index, 13, reduce=reduce),
            torch_scatter.scatter(src, index, 0, dim_size=13, reduce=reduce),
        )


def test_transforms_and_compile_take_the_reference_path():
    x, index = values(3, 5, 2), torch.tensor([0, 4, 1])
    same(torch.func.vmap(lambda a: gather(a, index))(x), x[:, index])
    compiled = torch.compile(
        lambda a: scatter(gather(a, index), index, 5), backend="eager", fullgraph=True
    )
    same(compiled(x[0]), reference.scatter(x[0][index], index, 5))
