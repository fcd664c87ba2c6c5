"""gnnlab.compat.torch_scatter against loops over single items, and against the package itself."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import gnnlab.compat.torch_scatter as ours

T = torch.tensor
DTYPES = (torch.float32, torch.float64, torch.int64, torch.int32)


def real():
    return pytest.importorskip(
        "torch_scatter", reason="the package is built from source; the loops are the oracle"
    )


def draw(*shape, dtype=torch.float64, seed=0):
    """Few different numbers, so that extremes tie; of both signs, without 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 5, shape, generator=generator) * (
        torch.randint(0, 2, shape, generator=generator) * 2 - 1
    )
    return x.to(dtype)


def indices(*shape, high, seed=1):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


# src, index, dim: a vector, vectors along other dimensions, expanded and true indices per item
SIX = indices(6, high=4)
LAYOUTS = {
    "vector": (draw(6), SIX, 0),
    "vector, last by default": (draw(2, 6), SIX, -1),
    "rows": (draw(6, 3), SIX, 0),
    "middle": (draw(2, 6, 3), SIX, 1),
    "negative dim": (draw(2, 6, 3), SIX, -2),
    "column": (draw(6, 3), SIX[:, None], 0),
    "expanded by the caller": (draw(6, 3), SIX[:, None].expand(6, 3), 0),
    "expanded in front": (draw(2, 6), SIX.expand(2, 6), 1),
    "per item": (draw(6, 3), indices(6, 3, high=4), 0),
    "per item, last": (draw(2, 6), indices(2, 6, high=4), -1),
    "per item, middle": (draw(2, 6, 3), indices(2, 6, 3, high=4), 1),
    "per batch": (draw(2, 6, 3), indices(2, 6, high=4), 1),
    "per batch, one expanded": (draw(2, 5, 6), indices(2, 1, 6, high=4).expand(2, 5, 6), 2),
    "varies behind": (draw(6, 2, 3), indices(6, 1, 3, high=4), 0),
    "one entry for all": (draw(6, 2), T([2]), 0),
    "transposed": (draw(3, 6).t(), SIX, 0),
    "no columns": (draw(6, 0), SIX, 0),
}
REDUCES = ("sum", "add", "mul", "mean", "min", "max")


def full(index, src, dim):
    """The index of each item, by torch-scatter's rule of broadcasting."""
    dim %= src.dim()
    if index.dim() == 1:
        index = index.reshape([1] * dim + [-1])
    return index.reshape([*index.shape, *[1] * (src.dim() - index.dim())]).expand(src.shape)


def loop(src, index, dim, size, reduce):
    """(values, arg) by a loop over the items of the result."""
    dim %= src.dim()
    index = full(index, src, dim)
    shape = [*src.shape]
    shape[dim] = size
    out = torch.zeros(shape, dtype=src.dtype)
    arg = torch.full(shape, src.shape[dim])
    for place in itertools.product(*map(range, shape)):
        entries = []
        for e in range(src.shape[dim]):
            at = (*place[:dim], e, *place[dim + 1 :])
            if index[at] == place[dim]:
                entries.append((src[at].item(), e))
        out[place], arg[place] = one(entries, reduce, src)
    return out, arg


def one(entries, reduce, src):
    """The reduction of (value, position) pairs and the position, -1 where it has no meaning."""
    values = [v for v, _ in entries]
    if reduce == "mul":
        return math.prod(values), -1
    if not values:
        return 0, -1
    if reduce in ("sum", "add"):
        return sum(values), -1
    if reduce == "mean":
        total = sum(values)
        return (total / len(values)) if src.is_floating_point() else total // len(values), -1
    best = (min if reduce == "min" else max)(values)
    return best, next(e for v, e in entries if v == best)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_scatter_is_what_a_loop_gives(reduce, layout, dtype):
    src, index, dim = LAYOUTS[layout]
    src = src.to(dtype)
    values, arg = loop(src, index, dim, 5, reduce)
    found = getattr(ours, f"scatter_{reduce}")(src, index, dim, dim_size=5)
    if reduce in ("min", "max"):
        arg = arg.masked_fill(arg < 0, src.shape[dim])
        torch.testing.assert_close(found[1], arg, rtol=0, atol=0)
        found = found[0]
    assert found.dtype == dtype
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(ours.scatter(src, index, dim, None, 5, reduce), values)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduce", REDUCES)
def test_size_is_the_largest_index_and_one(reduce, layout):
    src, index, dim = LAYOUTS[layout]
    found = ours.scatter(src, index, dim, reduce=reduce)
    assert found.shape[dim] == int(index.max()) + 1
    torch.testing.assert_close(
        found, loop(src, index, dim, int(index.max()) + 1, reduce)[0], check_dtype=False
    )


@pytest.mark.parametrize("layout", ["rows", "middle", "per item", "per batch"])
@pytest.mark.parametrize("reduce", ["sum", "mul", "mean", "min", "max"])
def test_gradients_of_scatter_are_differences(reduce, layout):
    src, index, dim = LAYOUTS[layout]
    src = src + torch.rand(src.shape, dtype=src.dtype, generator=torch.Generator().manual_seed(3))
    src.requires_grad_()
    torch.autograd.gradcheck(lambda x: ours.scatter(x, index, dim, None, 5, reduce), src)


@pytest.mark.parametrize("layout", ["rows", "middle", "per item", "per batch"])
@pytest.mark.parametrize("name", ["std", "softmax", "log_softmax", "logsumexp"])
def test_gradients_of_composites_are_differences(name, layout):
    src, index, dim = LAYOUTS[layout]
    src = src + torch.rand(src.shape, dtype=src.dtype, generator=torch.Generator().manual_seed(3))
    src.requires_grad_()
    function = getattr(ours, f"scatter_{name}")
    torch.autograd.gradcheck(lambda x: function(x, index, dim, dim_size=5), src)


# ---- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["rows", "per item"])
@pytest.mark.parametrize("reduce", ["sum", "mul", "mean", "min", "max"])
def test_out_takes_part_and_is_returned(reduce, layout):
    src, index, dim = LAYOUTS[layout]
    out = draw(5, 3, seed=9)
    before = out.clone()
    found = getattr(ours, f"scatter_{reduce}")(src, index, dim, out=out)
    values, arg = loop(src, index, dim, 5, reduce)
    if reduce in ("min", "max"):
        found, where = found
        wins = (arg >= 0) & ((values < before) if reduce == "min" else (values > before))
        expected = torch.where(wins, values, before)
        torch.testing.assert_close(where, torch.where(wins, arg, 6), rtol=0, atol=0)
    elif reduce == "mul":
        expected = before * values
    elif reduce == "sum":
        expected = before + values
    else:
        counts = loop(torch.ones_like(src), index, dim, 5, "sum")[0].clamp(min=1)
        expected = (before + loop(src, index, dim, 5, "sum")[0]) / counts
    assert found is out
    torch.testing.assert_close(out, expected)


def test_gradient_reaches_src_and_out():
    src = T([1.0, 2.0, 3.0], requires_grad=True)
    start = T([1.5, 9.0], requires_grad=True)
    out = start.clone()
    ours.scatter_max(src, T([0, 0, 1]), out=out)
    out.sum().backward()
    assert src.grad.tolist() == [0, 1, 0]
    assert start.grad.tolist() == [0, 1]


def test_segment_csr_writes_to_out_and_segment_coo_adds_to_it():
    src = T([1.0, 2.0, 3.0])
    out = T([10.0, 20.0, 30.0])
    assert ours.segment_csr(src, T([0, 0, 2, 3]), out) is out
    assert out.tolist() == [0, 3, 3]
    out = T([10.0, 20.0, 30.0])
    assert ours.segment_coo(src, T([1, 1, 2]), out) is out
    assert out.tolist() == [10, 23, 33]
    assert ours.gather_csr(T([1.0, 2.0]), T([0, 2, 3]), out) is out
    assert out.tolist() == [1, 1, 2]
    assert ours.gather_coo(T([1.0, 2.0]), T([1, 1, 0]), out) is out
    assert out.tolist() == [2, 2, 1]


# ---- segments ------------------------------------------------------------------------------------

POINTERS = {
    "vector": (draw(6), T([0, 2, 2, 5, 6])),
    "rows": (draw(6, 3), T([0, 2, 2, 5, 6])),
    "int32": (draw(6, 3), T([0, 2, 2, 5, 6], dtype=torch.int32)),
    "not all rows": (draw(6, 3), T([1, 2, 2, 5])),
    "along the second": (draw(2, 6, 3), T([[0, 2, 2, 5, 6]])),
    "expanded": (draw(2, 6, 3), T([[0, 2, 2, 5, 6]]).expand(2, 5)),
    "per batch": (draw(2, 6, 3), T([[0, 2, 2, 5, 6], [0, 0, 1, 1, 6]])),
    "per batch, not all rows": (draw(2, 6), T([[1, 2, 2, 5], [0, 0, 1, 1]])),
    "two in front": (draw(2, 2, 6), T([[[0, 2, 6]], [[3, 3, 4]]])),
    "one boundary": (draw(6, 3), T([0])),
    "no boundary": (draw(6, 3), T([], dtype=torch.int64)),
    "no rows": (draw(0, 3), T([0, 0, 0])),
}


def segments_loop(src, indptr, reduce):
    dim = indptr.dim() - 1
    indptr = indptr.expand(*src.shape[:dim], indptr.shape[-1])
    shape = [*src.shape]
    shape[dim] = max(indptr.shape[-1] - 1, 0)
    out, arg = torch.zeros(shape, dtype=src.dtype), torch.full(shape, src.shape[dim])
    for place in itertools.product(*map(range, shape)):
        starts = indptr[place[:dim]]
        low, high = int(starts[place[dim]]), int(starts[place[dim] + 1])
        at = [(src[(*place[:dim], e, *place[dim + 1 :])].item(), e) for e in range(low, high)]
        if at:
            out[place], arg[place] = one(at, reduce, src)
    return out, arg


@pytest.mark.parametrize("case", POINTERS)
@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_segment_csr_is_what_a_loop_gives(reduce, case):
    src, indptr = POINTERS[case]
    values, arg = segments_loop(src, indptr, reduce)
    found = getattr(ours, f"segment_{reduce}_csr")(src, indptr)
    if reduce in ("min", "max"):
        torch.testing.assert_close(found[1], arg, rtol=0, atol=0)
        found = found[0]
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(ours.segment_csr(src, indptr, reduce=reduce), values)


@pytest.mark.parametrize("case", ["rows", "not all rows", "per batch", "per batch, not all rows"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max"])
def test_gradients_of_segment_csr_are_differences(reduce, case):
    src, indptr = POINTERS[case]
    src = src + torch.rand(src.shape, dtype=src.dtype, generator=torch.Generator().manual_seed(3))
    src.requires_grad_()
    torch.autograd.gradcheck(lambda x: ours.segment_csr(x, indptr, reduce=reduce), src)


SORTED = SIX.sort().values
COO = {
    "vector": (draw(6), SORTED),
    "rows": (draw(6, 3), SORTED),
    "along the second": (draw(2, 6, 3), SORTED[None]),
    "per batch": (draw(2, 6, 3), indices(2, 6, high=4).sort().values),
}


@pytest.mark.parametrize("case", COO)
@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_segment_coo_is_what_a_loop_gives(reduce, case):
    src, index = COO[case]
    dim = index.dim() - 1
    values, arg = loop(src, index, dim, 5, reduce)
    found = getattr(ours, f"segment_{reduce}_coo")(src, index, dim_size=5)
    if reduce in ("min", "max"):
        expected = arg.masked_fill(arg < 0, 6)
        torch.testing.assert_close(found[1], expected, rtol=0, atol=0)
        found = found[0]
    torch.testing.assert_close(found, values)
    torch.testing.assert_close(ours.segment_coo(src, index, None, 5, reduce), values)


@pytest.mark.parametrize(
    ("src", "indptr", "expected"),
    [
        (draw(3, 2), T([0, 2, 2, 5]), lambda s: s[[0, 0, 2, 2, 2]]),
        (draw(2, 2), T([[0, 1, 4], [0, 3, 4]]), lambda s: T(
            [[s[0, 0], s[0, 1], s[0, 1], s[0, 1]], [s[1, 0], s[1, 0], s[1, 0], s[1, 1]]],
            dtype=s.dtype)),
        (draw(4, 2, 3), T([[0, 1, 3]]), lambda s: s[:, [0, 1, 1]]),
    ],
)  # fmt: skip
def test_gather_csr_repeats_entries(src, indptr, expected):
    torch.testing.assert_close(ours.gather_csr(src, indptr), expected(src))
    torch.autograd.gradcheck(lambda x: ours.gather_csr(x, indptr), src.requires_grad_())


@pytest.mark.parametrize(
    ("src", "index"),
    [
        (draw(4, 2), SIX),
        (draw(2, 4, 3), SIX[None]),
        (draw(2, 4, 3), indices(2, 6, high=4)),
        (draw(2, 4), indices(2, 6, high=4)),
    ],
)
def test_gather_coo_copies_entries(src, index):
    dim = index.dim() - 1
    shape = [*src.shape]
    shape[dim] = 6
    expected = src.gather(dim, full(index, torch.empty(shape), dim))
    torch.testing.assert_close(ours.gather_coo(src, index), expected)
    torch.autograd.gradcheck(lambda x: ours.gather_coo(x, index), src.requires_grad_())


# ---- composites ----------------------------------------------------------------------------------


def groups(src, index, size):
    """The rows of each destination, for src (E, F) and a vector."""
    return [src[index == i] for i in range(size)]


def test_composites_are_torchs_on_each_group():
    src, index = draw(6, 3) * 0.7, T([2, 0, 2, 0, 0, 3])
    parts = groups(src, index, 5)
    std = torch.stack([p.std(0) if len(p) > 1 else p.new_zeros(3) for p in parts])
    torch.testing.assert_close(
        ours.scatter_std(src, index, 0, dim_size=5), std, rtol=1e-6, atol=1e-12
    )
    biased = torch.stack([p.std(0, correction=0) if len(p) else p.new_zeros(3) for p in parts])
    torch.testing.assert_close(
        ours.scatter_std(src, index, 0, dim_size=5, unbiased=False), biased, rtol=1e-6, atol=1e-12
    )
    lse = torch.stack([p.logsumexp(0) if len(p) else p.new_zeros(3) for p in parts])
    torch.testing.assert_close(ours.scatter_logsumexp(src, index, 0, dim_size=5), lse)
    softmax, log_softmax = torch.empty_like(src), torch.empty_like(src)
    for i, p in enumerate(parts):
        softmax[index == i], log_softmax[index == i] = p.softmax(0), p.log_softmax(0)
    torch.testing.assert_close(ours.scatter_softmax(src, index, 0), softmax)
    torch.testing.assert_close(ours.scatter_log_softmax(src, index, 0), log_softmax)
    out = draw(5, 3, seed=8)
    parts = [torch.cat([p, o[None]]) for p, o in zip(parts, out, strict=True)]
    lse = torch.stack([p.logsumexp(0) for p in parts])
    assert ours.scatter_logsumexp(src, index, 0, out=out) is out
    torch.testing.assert_close(out, lse)


def test_large_logits_do_not_overflow():
    src, index = T([1e4, 1e4, -1e4]), T([0, 0, 1])
    assert ours.scatter_softmax(src, index).tolist() == [0.5, 0.5, 1]
    torch.testing.assert_close(ours.scatter_logsumexp(src, index), T([1e4 + math.log(2), -1e4]))


# ---- what differs, and errors --------------------------------------------------------------------


def test_integer_means_round_down_in_scatter_and_towards_zero_in_segments():
    src = T([-3, -2, 5])
    assert ours.scatter_mean(src, T([0, 0, 2])).tolist() == [-3, 0, 5]
    assert ours.segment_mean_csr(src, T([0, 2, 2, 3])).tolist() == [-2, 0, 5]
    assert ours.segment_mean_coo(src, T([0, 0, 2])).tolist() == [-2, 0, 5]


def test_what_the_guide_says_about_differences():
    nan = float("nan")
    assert math.isnan(ours.scatter_max(T([nan, 1.0]), T([0, 0]))[0].item())
    empty = torch.empty(0, dtype=torch.int64)
    assert ours.scatter_mul(torch.empty(0), empty, dim_size=2).tolist() == [1, 1]
    src = T([0.0, 2.0], requires_grad=True)
    ours.scatter_mul(src, T([0, 0])).sum().backward()
    assert src.grad.tolist() == [2, 0]
    src = T([1.0, 2.0, 3.0], requires_grad=True)
    ours.scatter_std(src, T([0, 0, 1])).sum().backward()
    assert src.grad[2] == 0
    low = T([torch.iinfo(torch.int32).min], dtype=torch.int32)
    assert ours.scatter_max(low, T([0]))[0].item() == low.item()
    assert ours.segment_coo(T([1.0, 2.0, 4.0]), T([1, 0, 1])).tolist() == [2, 5]
    out = T([1.0, 5.0])
    ours.scatter_logsumexp(T([1.0]), T([0]), out=out)
    assert out[1] == 5


def test_index_out_of_range_is_an_index_error():
    src = torch.ones(2, 3)
    for index in (T([0, 7]), T([0, -1]), T([[0, 1, 0], [0, 1, 9]]), T([[0, 1, 0], [0, 1, -1]])):
        for name in ("sum", "mul", "mean", "min", "max", "std", "softmax", "logsumexp"):
            with pytest.raises(IndexError, match="out of range"):
                getattr(ours, f"scatter_{name}")(src, index, 0, dim_size=2)
    with pytest.raises(IndexError, match="out of range"):
        ours.segment_coo(src, T([0, 7]), dim_size=2)
    with pytest.raises(IndexError, match="out of range"):
        ours.gather_coo(src, T([0, 7]))
    for indptr in (T([0, 3]), T([-1, 2]), T([[0, 9], [0, 1]])):
        with pytest.raises(IndexError, match="outside"):
            ours.segment_csr(torch.ones(2, 2), indptr)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (RuntimeError, lambda: ours.scatter_sum(torch.ones(3, 2), T([0, 1]), 0)),
        (RuntimeError, lambda: ours.scatter_max(torch.ones(3), T([[0, 1, 0]]), 0)),
        (RuntimeError, lambda: ours.scatter_sum(torch.ones(2), T([0.0, 1.0]))),
        (IndexError, lambda: ours.scatter_sum(torch.ones(2), T([0, 1]), 3)),
        (ValueError, lambda: ours.scatter(torch.ones(2), T([0, 1]), reduce="any")),
        (ValueError, lambda: ours.segment_csr(torch.ones(2), T([0, 1]), reduce="mul")),
        (ValueError, lambda: ours.segment_coo(torch.ones(2), T([0, 1]), reduce="mul")),
        (ValueError, lambda: ours.scatter_softmax(T([1, 2]), T([0, 0]))),
        (ValueError, lambda: ours.scatter_log_softmax(T([1, 2]), T([0, 0]))),
        (ValueError, lambda: ours.scatter_logsumexp(T([1, 2]), T([0, 0]))),
        (RuntimeError, lambda: ours.scatter_sum(torch.ones(2), T([0, 1]), out=torch.ones(2).int())),
        (RuntimeError, lambda: ours.scatter_max(torch.ones(2, 3), T([0, 1]), 0, torch.ones(2, 2))),
        (RuntimeError, lambda: ours.segment_csr(torch.ones(2), T([0, 2]), torch.ones(3))),
        (RuntimeError, lambda: ours.segment_csr(torch.ones(2), T([[0, 1]]))),
        (RuntimeError, lambda: ours.segment_coo(torch.ones(2), T([[0, 1]]))),
        (RuntimeError, lambda: ours.segment_coo(torch.ones(3), T([0, 1]))),
        (RuntimeError, lambda: ours.gather_csr(torch.ones(3), T([0, 1]))),
        (RuntimeError, lambda: ours.gather_coo(torch.ones(3), T([[0, 1]]))),
        (ValueError, lambda: ours.gather_csr(torch.ones(2), T([1, 2, 3]))),
        (ValueError, lambda: ours.segment_csr(torch.ones(3), T([0, 2, 1, 3]))),
    ],
)
def test_wrong_arguments_are_named(error, call):
    with pytest.raises(error):
        call()


# ---- the package itself --------------------------------------------------------------------------


def assert_same(theirs, mine, src):
    """Compares results, args and gradients of two functions of src."""
    pair = []
    for function in (theirs, mine):
        leaf = src.detach().clone().requires_grad_(src.is_floating_point())
        out = function(leaf)
        parts = out if isinstance(out, tuple) else (out,)
        if leaf.requires_grad:
            weight = torch.arange(1.0, parts[0].numel() + 1, dtype=src.dtype) / 7
            (parts[0] * weight.view(parts[0].shape)).sum().backward()
            parts = (*parts, leaf.grad)
        pair.append([p.detach() for p in parts])
    torch.testing.assert_close(*pair)


def test_package_has_the_same_functions_and_arguments():
    import inspect

    package = real()
    for name in ours.__all__:
        theirs = getattr(package, name)
        theirs = inspect.signature(getattr(theirs, "__wrapped__", theirs)).parameters.values()
        mine = inspect.signature(getattr(ours, name)).parameters.values()
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in theirs], name
    functions = {n for n, f in vars(package).items() if inspect.isfunction(f)}
    functions |= {n for n, f in vars(package).items() if isinstance(f, torch.jit.ScriptFunction)}
    assert functions - {"cuda_version"} <= set(ours.__all__)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["sum", "add", "mul", "mean", "min", "max"])
def test_package_scatters_alike(name, layout, dtype):
    package = real()
    src, index, dim = LAYOUTS[layout]
    if name == "mean" and layout == "one entry for all":
        index = index.expand(6)  # they divide by the entries of the index before it is expanded
    # Without an item to look at they see no destination; the index tells us how many there are.
    for size in (None, 6) if src.numel() else (6,):
        functions = [getattr(p, f"scatter_{name}") for p in (package, ours)]
        calls = (lambda x, f=f, s=size: f(x, index, dim, dim_size=s) for f in functions)
        assert_same(*calls, src.to(dtype))


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if n != "no columns"])
@pytest.mark.parametrize("name", ["std", "softmax", "log_softmax", "logsumexp"])
def test_package_composes_alike(name, layout):
    package = real()
    src, index, dim = LAYOUTS[layout]
    src = src + torch.rand(src.shape, dtype=src.dtype, generator=torch.Generator().manual_seed(3))
    size = int(index.max()) + 1

    def call(p):
        function = getattr(p, f"scatter_{name}")

        def run(x):
            out = function(x, index, dim, dim_size=size + 1)
            return out.nan_to_num()  # where a group has one entry their gradient is NaN

        return run

    if name == "std":  # and so is ours compared where it is defined: without such groups
        src = torch.cat([src, src + 1, src * 2], dim)
        index = full(index, LAYOUTS[layout][0], dim)
        index = torch.cat([index] * 3, dim)
    assert_finite_same(call(package), call(ours), src)


def assert_finite_same(theirs, mine, src):
    """As assert_same, but items of their gradient that are NaN are not compared."""
    results = []
    for function in (theirs, mine):
        leaf = src.detach().clone().requires_grad_()
        out = function(leaf)
        weight = torch.arange(1.0, out.numel() + 1, dtype=src.dtype) / 7
        (out * weight.view(out.shape)).sum().backward()
        results.append((out.detach(), leaf.grad))
    (a, ga), (b, gb) = results
    torch.testing.assert_close(b, a)
    fine = ~ga.isnan()
    assert src.numel() == 0 or fine.any()
    torch.testing.assert_close(gb[fine], ga[fine])


@pytest.mark.parametrize("name", ["sum", "mul", "mean", "min", "max", "std"])
def test_package_uses_out_alike(name):
    package = real()
    src, index = draw(6, 3), T([2, 0, 2, 0, 3, 3])
    results = []
    for p in (package, ours):
        out = draw(5, 3, seed=9)  # where it is negative a deviation has no root: NaN
        found = getattr(p, f"scatter_{name}")(src, index, 0, out=out)
        results.append([found, out])
    torch.testing.assert_close(results[1], results[0], equal_nan=True)


@pytest.mark.parametrize("case", [n for n in POINTERS if "boundary" not in n])  # they crash
@pytest.mark.parametrize("name", ["sum", "add", "mean", "min", "max"])
def test_package_reduces_segments_alike(name, case):
    package = real()
    src, indptr = POINTERS[case]
    indptr = indptr.long()
    functions = [getattr(p, f"segment_{name}_csr") for p in (package, ours)]
    if "not all" in case or "two in front" in case:
        src = src.long()  # their gradient of rows in no segment is not initialised
    assert_same(*(lambda x, f=f: f(x, indptr) for f in functions), src)


@pytest.mark.parametrize("case", COO)
@pytest.mark.parametrize("name", ["sum", "add", "mean", "min", "max"])
def test_package_reduces_sorted_indices_alike(name, case):
    package = real()
    src, index = COO[case]
    if case == "along the second":
        src = src.long()  # their gradient wants an index of the full size
    functions = [getattr(p, f"segment_{name}_coo") for p in (package, ours)]
    for size in (None, 6):
        assert_same(*(lambda x, f=f, s=size: f(x, index, dim_size=s) for f in functions), src)


def test_package_gathers_alike():
    package = real()
    for src, indptr in ((draw(3, 2), T([0, 2, 2, 5])), (draw(2, 2), T([[0, 1, 4], [0, 3, 4]]))):
        assert_same(*(lambda x, p=p, i=indptr: p.gather_csr(x, i) for p in (package, ours)), src)
    for src, index in ((draw(4, 2), SORTED), (draw(2, 4), indices(2, 6, high=4).sort().values)):
        assert_same(*(lambda x, p=p, i=index: p.gather_coo(x, i) for p in (package, ours)), src)
