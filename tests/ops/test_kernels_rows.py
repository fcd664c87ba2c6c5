"""The CPU kernels of rows against float64: widths, strategies, threads, kept weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gnnlab import ops
from gnnlab.ops._library import library

if library() is None:
    pytest.skip(f"no compiled kernels: {ops.status().reason}", allow_module_level=True)

from gnnlab.ops._cpu import CpuKernels

KERNELS = CpuKernels(library())
INF, NAN = torch.inf, torch.nan


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, dtype=torch.float32, seed=0):
    """Returns values that `dtype` holds exactly."""
    if not dtype.is_floating_point:
        return torch.randint(-50, 50, shape, generator=random(seed), dtype=dtype)
    return torch.randn(*shape, generator=random(seed), dtype=torch.float64).to(dtype)


def brute(src, index, size, reduce):
    """Scatter, row by row, in float64 or int64."""
    wide = src.double() if src.is_floating_point() else src.long()
    out = wide.new_zeros(size, *src.shape[1:])
    for i in range(size):
        rows = wide[index == i]
        if len(rows):
            found = {
                "sum": rows.sum(0),
                "mean": rows.sum(0) / len(rows),
                "max": rows.amax(0),
                "min": rows.amin(0),
            }
            out[i] = found[reduce]
    return out


def with_threads(counts, call):
    """Returns what `call` gives for each number of threads."""
    before = torch.get_num_threads()
    try:
        found = []
        for count in counts:
            torch.set_num_threads(count)
            found.append(call())
        return found
    finally:
        torch.set_num_threads(before)


def scatter(strategy, *args):
    kernels = CpuKernels(library())
    kernels.scatter_strategy = strategy
    return kernels.scatter(*args)[0]


@pytest.mark.parametrize("strategy", ["scan", "sort"])
@pytest.mark.parametrize("width", [1, 3, 8, 16, 17, 64, 70, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_both_strategies_of_scatter(strategy, width, dtype):
    index = torch.randint(40, (700,), generator=random(1))
    index[index > 30] = 7  # a row with many edges, nine with none
    src = draw(700, width, dtype=dtype)
    for reduce in ("sum", "max", "min") + (("mean",) if dtype.is_floating_point else ()):
        found = scatter(strategy, src, index.to(torch.int32), 40, reduce, False)
        wanted = brute(src, index, 40, reduce).to(dtype)
        exact = reduce in ("max", "min") or not dtype.is_floating_point
        torch.testing.assert_close(
            found, wanted, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-4
        )


@pytest.mark.parametrize("strategy", ["scan", "sort"])
@pytest.mark.parametrize("width", [1, 16, 64, 70])
def test_scatter_gives_the_same_bits_on_any_number_of_threads(strategy, width):
    index = torch.randint(500, (60_000,), generator=random(2))
    index[:30_000] = 3  # half of the work in one row
    src = draw(60_000, width)
    for reduce in ("sum", "mean", "max"):
        first, *rest = with_threads(
            (1, 2, 3, 7), lambda how=reduce: scatter(strategy, src, index, 501, how, False)
        )
        assert all(torch.equal(first, other) for other in rest)
        assert (first[500] == 0).all()


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("bad", [-1, 10, 2**40])
def test_scan_names_the_first_bad_index(threads, bad):
    index = torch.randint(10, (50_000,), generator=random())
    index[[17, 40_000]] = bad
    src = draw(50_000, 16)
    for reduce in ("sum", "max"):
        with pytest.raises(IndexError, match=rf"index {bad} at position 17 .* \[0, 10\)"):
            with_threads((threads,), lambda how=reduce: scatter("scan", src, index, 10, how, False))


@pytest.mark.parametrize("width", [1, 5, 64])
def test_scan_hands_nan_on_in_maxima_and_minima(width):
    src = draw(6, width)
    src[1, 0] = src[3, -1] = NAN
    src[2] = -INF
    index = torch.tensor([0, 0, 0, 1, 1, 3])
    for reduce, formula in (("max", torch.amax), ("min", torch.amin)):
        found = scatter("scan", src, index, 4, reduce, False)
        nothing = torch.zeros(width)
        wanted = torch.stack([formula(src[:3], 0), formula(src[3:5], 0), nothing, src[5]])
        torch.testing.assert_close(found, wanted, equal_nan=True, rtol=0, atol=0)


# ---- sums of bfloat16 ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 8, 15, 16, 24, 32, 48, 64, 70, 100, 128, 256, 300])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
def test_bfloat16_sums_are_rounded_once(width, reduce, weighted):
    edges, n = 6_000, 30
    src = torch.randint(n, (edges,), generator=random(3))
    dst = torch.randint(n, (edges,), generator=random(4))
    dst[dst < 22] = 4  # above 4,096 edges: summed in blocks
    x = draw(n, width, dtype=torch.bfloat16)
    weight = draw(edges, dtype=torch.bfloat16) if weighted else None
    plan = ops.EdgePlan(torch.stack([src, dst]), n, n)
    found = ops.spmm(plan, x, weight, reduce=reduce)
    terms = x.double()[src] * (weight.double()[:, None] if weighted else 1)
    wanted = torch.zeros(n, width, dtype=torch.float64).index_add(0, dst, terms)
    if reduce == "mean":
        wanted /= dst.bincount(minlength=n).clamp(min=1)[:, None]
    # Half a unit in the last of 8 bits, and float32's own error on 4,096 terms.
    torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=2e-4)


# ---- weights that are kept sorted ----------------------------------------------------------------


def weighted_graph(heads=None, dtype=torch.float32):
    edges, n = 70_000, 400
    ends = torch.randint(n, (2, edges), generator=random(5))
    weight = draw(*((edges,) if heads is None else (edges, heads)), dtype=dtype, seed=6)
    x = draw(n, *((8,) if heads is None else (heads, 8)), dtype=dtype, seed=7)
    return ends, ops.EdgePlan(ends, n, n), x, weight


def weighted_sum(ends, x, weight):
    share = weight.double().view(*weight.shape, *[1] * (x.dim() - weight.dim()))
    return torch.zeros(x.shape, dtype=torch.float64).index_add(
        0, ends[1], x.double()[ends[0]] * share
    )


@pytest.mark.parametrize("heads", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_given_again_are_kept_and_stay_right(heads, dtype):
    ends, plan, x, weight = weighted_graph(heads, dtype)
    first = ops.spmm(plan, x, weight)
    tolerance = {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(first.double(), weighted_sum(ends, x, weight), **tolerance)
    for _ in range(3):
        assert torch.equal(ops.spmm(plan, x, weight), first)  # the order of sums is the same
    assert "weight" in plan.order.facts
    other = draw(*weight.shape, dtype=dtype, seed=8)  # another tensor of that shape
    torch.testing.assert_close(
        ops.spmm(plan, x, other).double(), weighted_sum(ends, x, other), **tolerance
    )


@pytest.mark.parametrize("position", [0, 35_001, 69_999])
def test_no_change_of_kept_weights_goes_unnoticed(position):
    ends, plan, x, weight = weighted_graph()
    memory = weight.numpy()  # writes that torch's version counter does not see
    for _ in range(3):
        ops.spmm(plan, x, weight)
    version = weight._version
    for change in (lambda: memory.__setitem__(position, 99), lambda: weight.data.mul_(2)):
        change()
        assert weight._version == version
        found = ops.spmm(plan, x, weight).double()
        torch.testing.assert_close(found, weighted_sum(ends, x, weight), rtol=1e-4, atol=1e-3)


def test_kept_weights_serve_gradients_and_maxima():
    ends, plan, x, weight = weighted_graph()
    for _ in range(3):
        given = x.clone().requires_grad_()
        ops.spmm(plan, given, weight).sum().backward()
        wanted = weighted_sum(ends.flip(0), torch.ones_like(x), weight)
        torch.testing.assert_close(given.grad.double(), wanted, rtol=1e-4, atol=1e-3)
        found = ops.spmm(plan, x, weight, reduce="max")
        terms = x[ends[0]] * weight[:, None]
        wanted = torch.full_like(x, -INF).index_reduce(0, ends[1], terms, "amax")
        assert torch.equal(found, wanted)


# ---- gradient of maxima --------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 7, 16, 40, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_of_the_maximum_for_rows_short_and_long(width, dtype):
    n, edges = 60, 900
    src = torch.randint(n, (edges,), generator=random(9))
    dst = torch.cat([torch.randint(n - 2, (400,), generator=random(10)), torch.full((500,), n - 2)])
    x = draw(n, width, dtype=dtype).requires_grad_()
    grad = draw(n, width, dtype=dtype, seed=11)
    out = ops.spmm(ops.EdgePlan(torch.stack([src, dst]), n, n), x, reduce="max")
    (found,) = torch.autograd.grad(out, x, grad)
    wanted = torch.zeros(n, width, dtype=torch.float64)
    for i in range(n):
        edge = (dst == i).nonzero()[:, 0]
        if len(edge):
            rows = x.detach().double().numpy()[src[edge]]
            winner = src[edge][torch.from_numpy(rows.argmax(0))]
            wanted[winner, torch.arange(width)] += grad[i].double()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2**-7}[dtype]
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=10 * tolerance)


# ---- softmax in the caller's order ---------------------------------------------------------------


def shuffled(rows, heads=1, dtype=torch.float32, seed=12):
    """Returns a plan of unsorted edges, their scores, and which edges belong to each row."""
    scores = torch.tensor([x for row in rows for x in row], dtype=dtype)
    dst = torch.tensor([i for i, row in enumerate(rows) for _ in row])
    order = torch.randperm(len(dst), generator=random(seed))
    dst, scores = dst[order], scores[order][:, None].repeat(1, heads)
    plan = ops.EdgePlan(torch.stack([dst, dst]), len(rows), len(rows))
    assert plan.order.perm is not None
    return plan, scores, dst


def softmax_of(scores, dst, function=torch.softmax):
    out = torch.empty_like(scores, dtype=torch.float64)
    for i in dst.unique():
        out[dst == i] = function(scores[dst == i].double(), 0)
    return out


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 16, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 20.0, 500.0])
def test_softmax_and_gradients_of_unsorted_edges(heads, dtype, scale):
    rows = [(scale * draw(n, seed=n)).tolist() for n in (1, 30, 2, 17, 0, 200)]
    plan, scores, dst = shuffled(rows, heads, dtype)
    scores = (scores + draw(*scores.shape, dtype=dtype)).requires_grad_()
    grad = draw(*scores.shape, dtype=dtype, seed=13)
    tolerance = (
        {"rtol": 2e-6, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    )
    found = ops.edge_softmax(plan, scores)
    torch.testing.assert_close(found.double(), softmax_of(scores.detach(), dst), **tolerance)
    assert (found[dst == 0] == 1).all()  # a single edge takes everything, exactly
    wide = scores.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(softmax_of(wide, dst), wide, grad.double())
    torch.testing.assert_close(
        torch.autograd.grad(found, scores, grad)[0].double(), wanted, rtol=1e-5, atol=1e-5
    )
    given = torch.log_softmax(scores.detach()[dst == 1], 0)
    found = KERNELS.softmax_backward(
        plan.order,
        softmax_of(scores.detach(), dst, torch.log_softmax).to(dtype),
        grad,
        "log_softmax",
    )
    wanted = grad[dst == 1] - given.exp() * grad[dst == 1].sum(0)
    torch.testing.assert_close(found[dst == 1], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "row",
    [
        [41.0, 41.0],
        [-41.0, -41.0, -200.0],
        [3e38, -3e38, 0.0],
        [-INF, 2.0, 3.0],
        [-INF, -INF],
        [INF, 1.0],
        [NAN, 1.0],
        [-1e9, -1e9],
        [-1e9, 1.0],
    ],
    ids=str,
)
@pytest.mark.parametrize("heads", [1, 8])
def test_scores_beyond_exp_and_masks(row, heads):
    plan, scores, dst = shuffled([[0.5, 1.0, -3.0], row, [2.0] * 20], heads)
    found = ops.edge_softmax(plan, scores)
    wanted = softmax_of(scores, dst).float()
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("heads", [1, 3, 8])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_softmax_of_unsorted_edges_on_any_number_of_threads(heads, scale):
    dst = torch.randint(300, (50_000,), generator=random(14))
    dst[::2] = 5
    plan = ops.EdgePlan(torch.stack([dst, dst]), 300, 300)
    scores, grad = scale * draw(50_000, heads), draw(50_000, heads, seed=15)

    def call():
        out = KERNELS.softmax(plan.order, scores, "softmax")
        return out, KERNELS.softmax_backward(plan.order, out, grad, "softmax")

    first, *rest = with_threads((1, 2, 3, 7), call)
    for other in rest:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    # Scores near 400 minus the largest are rounded to half of 2^-15 in float32.
    rtol = 3e-6 if scale == 1 else 2**-15
    torch.testing.assert_close(first[0].double(), softmax_of(scores, dst), rtol=rtol, atol=1e-9)


@given(st.integers(1, 400), st.integers(1, 2000), st.sampled_from([torch.int32, torch.int64]))
@settings(max_examples=30)
def test_plans_of_all_sizes_are_stable_sorts(keys, edges, dtype):
    key = torch.randint(keys, (edges,), generator=random(keys)).to(dtype)
    plan = ops.EdgePlan(torch.stack([key.flip(0), key]), keys, keys)
    wanted = np.argsort(key.numpy(), kind="stable")
    assert (plan.perm.numpy() == wanted).all()
    assert (plan.col.numpy() == key.flip(0).numpy()[wanted]).all()


def test_a_large_plan_is_a_stable_sort():
    ends = torch.randint(5_000, (2, 300_000), generator=random(16))  # writes are asked for early
    plan = ops.EdgePlan(ends, 5_000, 5_000)
    wanted = np.argsort(ends[1].numpy(), kind="stable")
    assert (plan.perm.numpy() == wanted).all()
    assert (plan.col.numpy() == ends[0].numpy()[wanted]).all()


@pytest.mark.parametrize("width", [1, 5, 16, 64, 70])
def test_instruction_sets_agree_to_the_bit(width):
    native, results = library(), []
    ends = torch.randint(50, (2, 9_000), generator=random(17))
    try:
        for isa in ("v2", "v3", "v4", "portable"):
            try:
                native.select_isa(isa)
            except ValueError:
                continue  # this machine or this build has other sets
            found = []
            for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
                x, src = draw(50, width, dtype=dtype), draw(9_000, width, dtype=dtype)
                weight = draw(9_000, dtype=dtype, seed=18)
                plan = ops.EdgePlan(ends, 50, 50)
                for reduce in ("sum", "mean", "max"):
                    found.append(ops.spmm(plan, x, reduce=reduce))
                    found.append(ops.spmm(plan, x, weight, reduce=reduce))
                    found.append(ops.scatter(src, ends[1], 50, reduce=reduce))
                given = x.requires_grad_()
                ops.spmm(plan, given, reduce="max").square().sum().backward()
                found.append(given.grad)
            results.append(found)
    finally:
        native.select_isa("auto")
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))
