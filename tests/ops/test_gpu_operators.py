"""The public operators on the emulated CUDA kernels, against the plain-torch reference."""

import pytest
import torch

from gnnlab import ops
from gnnlab.ops import EdgePlan, _gpu


@pytest.fixture(scope="module")
def emulated():
    try:
        return _gpu.emulated_kernels()
    except OSError as error:
        pytest.skip(str(error))


def values(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_()


def edges(count=120, num_src=15, num_dst=20):
    random = torch.Generator().manual_seed(1)
    return torch.stack([torch.randint(n, (count,), generator=random) for n in (num_src, num_dst)])


def gather(x, weight, plan):
    return ops.gather(x, plan.src, plan=plan.T)


def spmm_of(reduce):
    def run(x, weight, plan):
        return ops.spmm(plan, x, weight, reduce=reduce)

    return run


def scatter_of(reduce):
    def run(x, weight, plan):
        return ops.scatter(x[plan.src.long()], plan.dst, plan.num_dst, reduce=reduce)

    return run


def sddmm(x, weight, plan):
    other = torch.cat([x, x])[: plan.num_dst].sin()
    return ops.sddmm(plan, other.view(-1, 2, 3), x.view(-1, 2, 3), op="dot")


def softmax(x, weight, plan):
    return ops.edge_softmax(plan, weight)


CASES = {
    "gather": gather,
    "spmm sum": spmm_of("sum"),
    "spmm mean": spmm_of("mean"),
    "spmm max": spmm_of("max"),
    "scatter sum": scatter_of("sum"),
    "scatter max": scatter_of("max"),
    "sddmm": sddmm,
    "softmax": softmax,
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_agree(emulated, case):
    plan = EdgePlan(edges(), 15, 20)
    plan.T.indptr  # noqa: B018  sorted by the CPU: what is tested is the operators
    found = []
    started = len(emulated.launcher.launches)
    for backend in (emulated, "reference"):
        x, weight = values(15, 6), values(120, seed=2)
        with ops.use_backend(backend):
            out = CASES[case](x, weight, plan)
            out.mul(values(*out.shape, seed=3).detach()).sum().backward()
        found.append((out.detach(), x.grad, weight.grad))
    assert len(emulated.launcher.launches) > started
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
