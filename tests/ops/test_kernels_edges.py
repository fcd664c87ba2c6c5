"""The CPU kernels of the edge family against formulas in float64 and autograd of those formulas."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from kernel_problem import ISAS, KERNELS, TOLERANCE, Problem, close
from operators import kept, philox
from torch.nn.functional import leaky_relu

from gnnlab import ops
from gnnlab.ops._library import library

if library() is None:
    pytest.skip(f"no compiled kernels: {ops.status().reason}", allow_module_level=True)


def attention_of(kind, p, extra, keep=None, dropout=0.0, seed=0):
    """Returns the inputs, our forward and backward, and the formula of one kind of attention."""
    h, d = p.heads, p.width
    if kind == "gat":
        given = [p.draw(p.n, h, d), p.draw(p.n, h), p.draw(p.m, h), p.draw(p.e, h)]
        options = (0.2, dropout, seed)

        def formula(x, a_src, a_dst, edge=None):
            s = a_src[p.src] + a_dst[p.dst]
            s = leaky_relu(s if edge is None else s + edge, 0.2)
            return p.attend(x, s, 1.0 if keep is None else keep)

    elif kind == "gatv2":
        given = [p.draw(p.n, h, d), p.draw(p.m, h, d), p.draw(h, d), p.draw(p.e, h, d)]
        options = (0.2,)

        def formula(x_src, x_dst, att, edge=None):
            t = x_src[p.src] + x_dst[p.dst]
            t = t if edge is None else t + edge
            return p.attend(x_src, (leaky_relu(t, 0.2) * att).sum(-1))

    else:
        given = [p.draw(p.m, h, d), p.draw(p.n, h, d), p.draw(p.n, h, d), p.draw(p.e, h)]
        options = (0.3,)

        def formula(q, k, v, bias=None):
            s = 0.3 * (q[p.dst] * k[p.src]).sum(-1)
            return p.attend(v, s if bias is None else s + bias)

    if not extra:
        given = given[:3]
    filled = tuple(given) if extra else (*given, None)

    def ours(grad):
        result = KERNELS.attend(kind, p.plan.order, filled, options)
        orders = p.plan.order, p.plan.T.order
        grads = KERNELS.attend_backward(kind, *orders, grad, result, filled, options)
        return [result[0], *[g for g in grads if g is not None]]

    return given, ours, formula


def check_attention(kind, p, extra, **dropout):
    given, ours, formula = attention_of(kind, p, extra, **dropout)
    grad = p.draw(p.m, p.heads, p.width)
    theirs = [t.double().requires_grad_() for t in given]
    expected = formula(*theirs)
    wanted = torch.autograd.grad(expected, theirs, grad.double(), allow_unused=True)
    found = ours(grad)
    close(found[0], expected.detach(), p.dtype)
    for a, b, like in zip(found[1:], wanted, theirs, strict=True):
        assert a.dtype == p.dtype
        close(a, torch.zeros_like(like) if b is None else b, p.dtype)


SIZES = st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 60), st.integers(0, 20), st.integers(0, 40)
)
KINDS = ("gat", "gatv2", "attention")


@pytest.mark.parametrize("kind", KINDS)
@given(SIZES, st.booleans(), st.sampled_from([torch.int64, torch.int32]))
@settings(max_examples=25)
def test_attention_of_any_shape(kind, sizes, extra, index):
    for dtype in (torch.float64, torch.float32):
        check_attention(kind, Problem(*sizes, dtype, index=index), extra)


@pytest.mark.parametrize("shape", [(1, 64), (4, 16), (8, 8), (8, 32), (4, 64), (1, 128), (3, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_the_unrolled_shapes(kind, shape):
    for extra in (False, True):
        check_attention(kind, Problem(30, 20, 300, *shape, torch.float32), extra)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_of_halves_rounds_at_the_end(kind, dtype):
    p = Problem(12, 9, 80, 2, 24, dtype)
    given, ours, formula = attention_of(kind, p, True)
    found = ours(p.draw(p.m, p.heads, p.width))[0]
    close(found, formula(*[t.double() for t in given]), dtype)


@pytest.mark.parametrize("shape", [(1, 64), (8, 8), (3, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_star_goes_through_blocks(kind, shape):
    p = Problem(40, 3, 13_000, *shape, torch.float64)
    check_attention(kind, p, True)
    check_attention(kind, Problem(2, 50, 9_000, *shape, torch.float32), False)  # long sources


def test_philox_is_that_of_the_paper():
    # Known answer of Random123 for counter and key 0.
    assert philox(0, 0, 0) == 0x6627E8D5


@pytest.mark.parametrize("dropout", [0.3, 1.0])
def test_dropout_drops_the_same_edges_forward_and_backward(dropout):
    seed = 0x1234_5678_9ABC_DEF0
    p = Problem(20, 15, 200, 3, 8)
    keep = kept(200, 3, dropout, seed)
    if dropout < 1:
        assert 0.6 < (keep > 0).double().mean() < 0.8
    check_attention("gat", p, True, keep=keep, dropout=dropout, seed=seed)


@given(SIZES, st.sampled_from([torch.float64, torch.float32]))
@settings(max_examples=40)
def test_softmax_and_its_gradient(sizes, dtype):
    p = Problem(*sizes, dtype)
    src, grad = 5 * p.draw(p.e, p.heads), p.draw(p.e, p.heads)
    wide = src.double().requires_grad_()
    share = p.softmax(wide)
    found = KERNELS.softmax(p.plan.order, src, "softmax")
    close(found, share.detach(), dtype)
    for kind, formula in (("softmax", share), ("log_softmax", share.log())):
        out = formula.detach().to(dtype)
        wanted = torch.autograd.grad(formula, wide, grad.double(), retain_graph=True)[0]
        close(KERNELS.softmax_backward(p.plan.order, out, grad, kind), wanted, dtype)
    close(KERNELS.softmax(p.plan.order, src, "log_softmax"), share.log().detach(), dtype)
    rows = [src.double()[p.dst == i].logsumexp(0) for i in range(p.m)]
    found = KERNELS.softmax(p.plan.order, src, "logsumexp").double()
    expected = torch.stack(rows)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("heads", [1, 3, 8, 20])
def test_softmax_of_a_long_row_is_that_of_torch(heads):
    src = 10 * torch.randn(13_000, heads, generator=torch.Generator().manual_seed(1))
    plan = ops.EdgePlan(torch.zeros(2, 13_000).long(), 1, 1)
    for kind, formula in (("softmax", torch.softmax), ("log_softmax", torch.log_softmax)):
        found = KERNELS.softmax(plan.order, src, kind)
        # A logarithm is the difference of two numbers near 50, of which float32 has 4e-6.
        atol = 1e-5 if kind == "log_softmax" else 1e-9
        torch.testing.assert_close(found.double(), formula(src.double(), 0), rtol=5e-6, atol=atol)
        grad = torch.randn(13_000, heads)
        wide = src.double().requires_grad_()
        out = formula(wide, 0)
        (wanted,) = torch.autograd.grad(out, wide, grad.double())
        found = KERNELS.softmax_backward(plan.order, out.detach().float(), grad, kind)
        close(found, wanted, torch.float32)


INF, NAN = torch.inf, torch.nan


@pytest.mark.parametrize(
    "row",
    [
        [3e38, -3e38, 0.0],
        [-INF, -INF],
        [-INF, 2.0, 3.0],
        [INF, 1.0],
        [NAN, 1.0, 2.0],
        [INF, NAN],
        [-1e4] * 20 + [-INF],
        [1.0] * 20 + [NAN],
        [-INF] * 40,
        [-INF] * 5000 + [1.0, 2.0],
        [-INF] * 5000,
        [1.0] * 5000 + [NAN],
    ],
    ids=range(12),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinities_and_nan_as_in_torch(row, dtype):
    src = torch.tensor(row, dtype=dtype)[:, None].repeat(1, 2)
    plan = ops.EdgePlan(torch.zeros(2, len(row)).long(), 1, 1)
    formulas = {
        "softmax": src.softmax(0),
        "log_softmax": src.log_softmax(0),
        "logsumexp": src.logsumexp(0, keepdim=True),
    }
    for kind, expected in formulas.items():
        found = KERNELS.softmax(plan.order, src, kind)
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exp_is_right_to_two_units(dtype):
    # A row (x, 0) with x <= 0 has softmax e / (1 + e); far down, e itself.
    x = -torch.linspace(0, 86 if dtype == torch.float32 else 700, 20_001, dtype=torch.float64)
    x = x.to(dtype)[x < -40]
    dst = torch.arange(len(x)).repeat(2)
    plan = ops.EdgePlan(torch.stack([dst, dst]), len(x), len(x))
    found = KERNELS.softmax(plan.order, torch.cat([x, torch.zeros_like(x)])[:, None], "softmax")
    exact = x.double().exp()
    error = (found[: len(x), 0].double() - exact).abs() / (exact * torch.finfo(dtype).eps)
    assert float(error.max()) <= 2.5


OPERATORS = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}


@given(SIZES, st.sampled_from(list(TOLERANCE)))
@settings(max_examples=40)
def test_sddmm(sizes, dtype):
    p = Problem(*sizes, dtype)
    a, b = p.draw(p.m, p.heads, p.width), p.draw(p.n, p.heads, p.width)
    a_e, b_e = a.double()[p.dst], b.double()[p.src]
    close(KERNELS.sddmm(p.plan.order, a, b, "dot"), (a_e * b_e).sum(-1), dtype)
    for name, operator in OPERATORS.items():
        found, expected = KERNELS.sddmm(p.plan.order, a, b, name), operator(a_e, b_e).to(dtype)
        torch.testing.assert_close(found, expected, equal_nan=True)


@given(SIZES, st.booleans(), st.sampled_from([torch.float64, torch.float32]))
@settings(max_examples=40)
def test_both_gradients_of_the_weighted_sum(sizes, shared, dtype):
    p = Problem(*sizes, dtype)
    x, grad = p.draw(p.n, p.heads, p.width), p.draw(p.m, p.heads, p.width)
    weight = p.draw(p.e) if shared else p.draw(p.e, p.heads)
    given = [x.double().requires_grad_(), weight.double().requires_grad_()]
    per_head = given[1][:, None, None] if shared else given[1][..., None]
    out = p.sum_to(p.dst, p.m, per_head * given[0][p.src])
    wanted = torch.autograd.grad(out, given, grad.double())
    for a, b in zip(KERNELS.spmm_backward(p.plan.T.order, grad, x, weight), wanted, strict=True):
        close(a, b, dtype)


def everything(p):
    """Returns all results of the family on one problem."""
    logits, grad, weight = p.draw(p.e, p.heads), p.draw(p.e, p.heads), p.draw(p.e, p.heads)
    rows, to = p.draw(p.m, p.heads, p.width), p.draw(p.n, p.heads, p.width)
    order, found = p.plan.order, []
    for kind in ("softmax", "log_softmax"):
        found.append(KERNELS.softmax(order, logits, kind))
        found.append(KERNELS.softmax_backward(order, found[-1], grad, kind))
    found.append(KERNELS.softmax(order, logits, "logsumexp"))
    found.append(KERNELS.sddmm(order, rows, to, "dot"))
    found += KERNELS.spmm_backward(p.plan.T.order, rows, to, weight)
    for kind in KINDS:
        found += attention_of(kind, p, True)[1](rows)
    return found


def assert_same_bits(results):
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(1, 64), (8, 8), (3, 5), (20, 4)])
def test_threads_do_not_change_a_bit(shape, dtype):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            p = Problem(60, 4, 40_000, *shape, dtype)
            p.dst = torch.where(torch.arange(p.e) < 30_000, 1, p.dst)  # a row cut between threads
            p.plan = ops.EdgePlan(torch.stack([p.src, p.dst]), p.n, p.m)
            results.append(everything(p))
    finally:
        torch.set_num_threads(before)
    assert_same_bits(results)


@pytest.mark.parametrize("shape", [(1, 64), (8, 32), (8, 8), (3, 5)])
def test_instruction_sets_agree_to_the_bit(shape):
    native = library()
    results = []
    try:
        for dtype in TOLERANCE:
            found = []
            for isa in ISAS:
                try:
                    native.select_isa(isa)
                except ValueError:
                    continue  # this machine or this build has other sets
                found.append(everything(Problem(30, 9, 6_000, *shape, dtype)))
            assert found
            results.append(found)
    finally:
        native.select_isa("auto")
    for found in results:
        assert_same_bits(found)
