"""Dropout of attention: which edges it drops, and when it draws again."""

import pytest
import torch
from operators import plan_of, values_of

from gnnlab import ops
from gnnlab.ops import EdgePlan
from gnnlab.ops.reference_attention import keep_mask


@pytest.fixture(params=["auto", "reference"], autouse=True)
def backend(request):
    with ops.use_backend(request.param):
        yield


def test_philox_is_the_published_one():
    """Known answers of Random123 for counters and keys of zeros, and of ones."""
    # Philox4x32-10(counter 0, key 0) begins with 6627e8d5.
    threshold = 0x6627E8D5 / 2**32
    assert bool(keep_mask(1, 1, threshold, 0))
    assert not bool(keep_mask(1, 1, threshold + 2**-32, 0))


def test_dropout_of_attention_is_drawn_again_in_the_backward_pass():
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(6, (2, 40), generator=random)
    plan, values = EdgePlan(edge_index, 6, 6), values_of(5)
    x, a_src, a_dst = (t.requires_grad_() for t in (values(6, 2, 3), values(6, 2), values(6, 2)))

    def call(*given):
        fixed = torch.Generator().manual_seed(11)
        return ops.gat_aggregate(plan, *given, dropout_p=0.4, generator=fixed)

    assert torch.autograd.gradcheck(call, (x, a_src, a_dst))
    keep = keep_mask(20_000, 2, 0.4, 12345)
    assert abs(float(keep.double().mean()) - 0.6) < 0.01
    without = ops.gat_aggregate(plan, x, a_src, a_dst)
    assert not torch.equal(call(x, a_src, a_dst), without)
    many = torch.stack(
        [
            ops.gat_aggregate(plan, x.detach(), a_src.detach(), a_dst.detach(), dropout_p=0.4)
            for _ in range(400)
        ]
    )
    torch.testing.assert_close(many.mean(0), without.detach(), rtol=0.3, atol=0.3)


@pytest.mark.parametrize(
    "how", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_each_call_draws_its_own_edges_and_follows_the_seed(how):
    plan, values = plan_of("random")[1], values_of(5)
    x, a_src, a_dst = values(9, 2, 3).requires_grad_(), values(9, 2), values(7, 2)

    def call(x):
        return ops.gat_aggregate(plan, x, a_src, a_dst, dropout_p=0.5)

    if how != "eager":
        torch.compiler.reset()
        call = torch.compile(call, fullgraph=True, backend=how)
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append([call(x) for _ in range(3)])
    assert all(map(torch.equal, *runs))
    first, second, third = runs[0]
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    for out in runs[0]:  # y is linear in x, so this holds if the gradient drops the same edges
        (grad,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close((grad * x).sum(), out.sum())


def test_vmap_draws_as_its_randomness_says():
    plan, values = plan_of("random")[1], values_of(5)
    x, a_src, a_dst = values(9, 2, 3), values(9, 2), values(7, 2)

    def call(x):
        return ops.gat_aggregate(plan, x, a_src, a_dst, dropout_p=0.5)

    same = torch.func.vmap(call, randomness="same")(torch.stack([x, x]))
    assert torch.equal(same[0], same[1])
    different = torch.func.vmap(call, randomness="different")(torch.stack([x, x]))
    assert not torch.equal(different[0], different[1])
