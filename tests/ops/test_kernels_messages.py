"""The CPU kernels of the message family against their formulas, on all widths and rows."""

import pytest
import torch
from kernel_problem import ISAS, KERNELS, Problem, close

from gnnlab import ops
from gnnlab.ops._library import library
from gnnlab.ops.messages import composed_gated, composed_relu

if library() is None:
    pytest.skip(f"no compiled kernels: {ops.status().reason}", allow_module_level=True)

KINDS = ("relu_sum", "gated_sum")
FORMULAS = {"relu_sum": composed_relu, "gated_sum": composed_gated}


def drawn(kind, p):
    if kind == "relu_sum":
        return [p.draw(p.n, p.width), p.draw(p.e, p.width)]
    return [p.draw(p.m, p.width), p.draw(p.n, p.width), p.draw(p.n, p.width)]


def both(kind, p, given, grad):
    """Returns result and gradients of the kernel."""
    found = KERNELS.sum_messages(kind, p.plan.order, given)
    needs = [True] * len(given)
    grads = KERNELS.sum_messages_backward(kind, p.plan.order, p.plan.T.order, grad, given, needs)
    return [found, *grads]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 7, 16, 64, 70, 200])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_sums_of_messages_equal_the_formula(kind, width, dtype):
    p = Problem(30, 20, 90, 1, width, dtype, index=torch.int32)
    given, grad = drawn(kind, p), p.draw(p.m, width)
    found = both(kind, p, given, grad)
    leaves = [t.double().requires_grad_() for t in given]
    with ops.use_backend("reference"):
        out = FORMULAS[kind](p.plan, *leaves)
        wanted = torch.autograd.grad(out, leaves, grad.double())
    for a, b in zip(found, [out.detach(), *wanted], strict=True):
        close(a, b, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_give_the_same_bits_with_any_number_of_threads_and_instructions(kind):
    p = Problem(40, 3, 30_000, 1, 70, torch.float32)  # rows of 10,000 edges: several blocks
    given, grad = drawn(kind, p), p.draw(p.m, 70)
    expected, threads = None, torch.get_num_threads()
    try:
        for isa in (*ISAS, "auto"):
            try:
                library().select_isa(isa)
            except ValueError:  # this machine does not have it
                continue
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                found = both(kind, p, given, grad)
                expected = expected or found
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    finally:
        torch.set_num_threads(threads)
        library().select_isa("auto")
    leaves = [t.double().requires_grad_() for t in given]
    out = FORMULAS[kind](p.plan, *leaves)
    wanted = torch.autograd.grad(out, leaves, grad.double())
    for a, b in zip(expected, [out.detach(), *wanted], strict=True):
        close(a, b, torch.float32)


def test_gradients_that_nobody_wants_are_not_computed():
    p = Problem(9, 7, 30, 1, 5)
    given, grad = drawn("gated_sum", p), p.draw(p.m, 5)
    orders = p.plan.order, p.plan.T.order
    for k in range(3):
        needs = [j == k for j in range(3)]
        found = KERNELS.sum_messages_backward("gated_sum", *orders, grad, given, needs)
        assert [t is None for t in found] == [not n for n in needs]
        assert torch.equal(found[k], both("gated_sum", p, given, grad)[k + 1])


def test_not_a_number_stays_one_through_relu():
    plan = ops.EdgePlan(torch.tensor([[0], [0]]), 1, 1)
    out = ops.relu_aggregate(plan, torch.tensor([[torch.nan]]), torch.tensor([[1.0]]))
    assert out.isnan().all()


def test_errors_of_message_sums_name_the_operand():
    plan = ops.EdgePlan(torch.tensor([[0, 1], [0, 0]]), 2, 1)
    x, edge = torch.randn(2, 3), torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"edge must have shape \(2, 3\), got \(1, 3\)"):
        ops.relu_aggregate(plan, x, edge[:1])
    with pytest.raises(ValueError, match=r"x must have shape \(2, F\), got \(2,\)"):
        ops.relu_aggregate(plan, x[:, 0], edge)
    with pytest.raises(ValueError, match=r"edge is torch.float64 on cpu, but x is torch.float32"):
        ops.relu_aggregate(plan, x, edge.double())
    with pytest.raises(ValueError, match=r"key must have shape \(1, 3\), got \(2, 3\)"):
        ops.gated_aggregate(plan, x, x, x)
