"""What holds for all operators: rounding, ties, NaN, wrong indices, threads, forks, derivatives."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from operators import values_of

from gnnlab import ops
from gnnlab.ops import EdgePlan, gather, scatter, scatter_arg, segment, spmm

BACKENDS = ["auto", "reference"]
INF, NAN = float("inf"), float("nan")
REDUCES = ["sum", "mean", "max", "min", "mul"]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with ops.use_backend(request.param):
        yield request.param


def one_row(count):
    return EdgePlan(torch.stack([torch.arange(count), torch.zeros(count).long()]), count, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [1, 3, 16, 64])
def test_the_sum_of_4096_ones_in_half_precision_is_4096(dtype, width):
    ones = torch.ones(4096, width, dtype=dtype)
    plan = one_row(4096)
    expected = torch.full((1, width), 4096.0, dtype=dtype)
    assert torch.equal(spmm(plan, ones), expected)
    assert torch.equal(spmm(plan, ones, torch.ones(4096)), expected)
    assert torch.equal(scatter(ones, plan.dst, 1), expected)
    assert torch.equal(scatter(ones, plan.dst, plan=plan), expected)
    assert torch.equal(segment(ones, torch.tensor([0, 4096])), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_to_the_nearest_even(dtype):
    # 256 + 1 is halfway between neighbours in bfloat16; 2048 + 1 is in float16.
    big, ulp = (256.0, 2.0) if dtype == torch.bfloat16 else (2048.0, 2.0)
    rows = torch.tensor([[big, big + ulp], [1.0, 1.0], [0.0, 0.0]], dtype=dtype)
    expected = torch.tensor([[big, big + 2 * ulp]], dtype=dtype)
    assert torch.equal(spmm(one_row(3), rows), expected)
    assert torch.equal(scatter(rows, torch.zeros(3).long(), 1), expected)


@pytest.mark.parametrize(
    ("column", "largest", "arg_max", "smallest", "arg_min"),
    [
        ([1.0, 3.0, 3.0, 2.0], 3.0, 1, 1.0, 0),
        ([2.0, 2.0, 2.0, 2.0], 2.0, 0, 2.0, 0),
        ([1.0, NAN, 5.0, NAN], NAN, 1, NAN, 1),
        ([-INF, -INF, -INF, -INF], -INF, 0, -INF, 0),
        ([INF, 1.0, INF, -1.0], INF, 0, -1.0, 3),
        ([-1.0, -2.0, -3.0, -3.0], -1.0, 0, -3.0, 2),
    ],
)
@pytest.mark.parametrize("width", [1, 5, 16, 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_ties_go_to_the_lowest_edge_and_the_first_nan_wins(
    column, largest, arg_max, smallest, arg_min, width, dtype
):
    src = torch.tensor(column, dtype=dtype)[:, None].expand(4, width).contiguous()
    index = torch.tensor([1, 1, 1, 1])
    plan = EdgePlan(torch.stack([torch.arange(4), index]), 4, 3)
    for reduce, value, arg in (("max", largest, arg_max), ("min", smallest, arg_min)):
        for given in ({}, {"plan": plan}):
            values, edges = scatter_arg(src, index, 3, reduce=reduce, **given)
            wanted = torch.tensor([0.0, value, 0.0]).to(dtype)[:, None].expand(3, width)
            assert torch.equal(values.nan_to_num(7), wanted.nan_to_num(7))
            assert edges.tolist() == [[4] * width, [arg] * width, [4] * width]
        assert torch.equal(spmm(plan, src, reduce=reduce).nan_to_num(7), wanted.nan_to_num(7))
        assert torch.equal(
            segment(src, torch.tensor([0, 0, 4, 4]), reduce=reduce).nan_to_num(7),
            wanted.nan_to_num(7),
        )


@pytest.mark.parametrize("reduce", ["max", "min"])
def test_gradient_of_an_extreme_flows_to_one_edge(reduce):
    src = torch.ones(4, 2, requires_grad=True)
    scatter(src, torch.zeros(4).long(), 1, reduce=reduce).sum().backward()
    assert src.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    x = torch.ones(4, 2, requires_grad=True)
    spmm(one_row(4), x, reduce=reduce).sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int8, torch.uint8, torch.int16])
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_integers_are_reduced_exactly(dtype, index_dtype):
    big = torch.iinfo(dtype).max
    src = torch.tensor([[1, big], [2, 0], [3, 5], [4, 1]], dtype=dtype)
    index = torch.tensor([0, 0, 2, 2], dtype=index_dtype)
    expected = {
        "sum": [[3, big], [0, 0], [7, 6]],
        "max": [[2, big], [0, 0], [4, 5]],
        "min": [[1, 0], [0, 0], [3, 1]],
        "mul": [[2, 0], [1, 1], [12, 5]],
    }
    for reduce, rows in expected.items():
        found = scatter(src, index, 3, reduce=reduce)
        assert found.dtype == dtype
        assert found.tolist() == rows
        assert segment(src, torch.tensor([0, 2, 2, 4]), reduce=reduce).tolist() == rows
    with pytest.raises(ValueError, match="needs a floating-point src"):
        scatter(src, index, 3, reduce="mean")


def test_integers_above_2_to_53_are_not_rounded():
    src = torch.tensor([[2**60 + 1], [1]])
    assert scatter(src, torch.tensor([0, 0]), 1).item() == 2**60 + 2
    assert scatter(src, torch.tensor([0, 0]), 1, reduce="max").item() == 2**60 + 1
    assert spmm(one_row(2), src).item() == 2**60 + 2


def test_empty_value_is_what_max_and_min_give_to_no_edge():
    src, index = torch.tensor([[-1.0]]), torch.tensor([1])
    plan = EdgePlan(torch.tensor([[0], [1]]), 1, 2)
    expected = [[-INF], [-1.0]]
    assert scatter(src, index, 2, reduce="max", empty_value=-INF).tolist() == expected
    assert scatter(src, index, plan=plan, reduce="max", empty_value=-INF).tolist() == expected
    assert (
        segment(src, torch.tensor([0, 0, 1]), reduce="max", empty_value=-INF).tolist() == expected
    )
    assert spmm(plan, src, reduce="max", empty_value=-INF).tolist() == expected


def test_accumulating_in_float64_keeps_what_float32_loses():
    rows = torch.tensor([[1e8], [1.0], [-1e8]])
    assert spmm(one_row(3), rows, accumulate="float64").item() == 1.0
    assert scatter(rows, torch.zeros(3).long(), 1, accumulate="float64").item() == 1.0
    with pytest.raises(ValueError, match='accumulate must be "float64" or None'):
        scatter(rows, torch.zeros(3).long(), 1, accumulate="float16")


WRONG = r"index 17 at position 3 is out of range \[0, 10\)"


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_wrong_index_is_named_on_every_path(dtype, threads):
    index = torch.tensor([0, 1, 2, 17, 4, 5], dtype=dtype)
    src = torch.ones(6, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for reduce in REDUCES:
            with pytest.raises(IndexError, match=WRONG):
                scatter(src, index, 10, reduce=reduce)
        for reduce in ("max", "min"):
            with pytest.raises(IndexError, match=WRONG):
                scatter_arg(src, index, 10, reduce=reduce)
            with pytest.raises(IndexError, match=WRONG):
                scatter(src.clone().requires_grad_(), index, 10, reduce=reduce)
        with pytest.raises(IndexError, match=WRONG):
            gather(torch.ones(10, 4), index)
        with pytest.raises(IndexError, match=WRONG):
            gather(torch.ones(10, 4, requires_grad=True), index)
        for name in ("segment_softmax", "segment_log_softmax", "segment_logsumexp", "segment_std"):
            with pytest.raises(IndexError, match=WRONG):
                getattr(ops, name)(src, index, dim_size=10)
        fine = torch.zeros_like(index)
        with pytest.raises(IndexError, match=WRONG):
            EdgePlan(torch.stack([index, fine]), 10, 10)
        with pytest.raises(IndexError, match=WRONG):
            EdgePlan(torch.stack([fine, index]), 10, 10)
        for ends in ((index, fine), (fine, index)):
            late = EdgePlan(torch.stack(ends), 10, 10, validate=False)
            with pytest.raises(IndexError, match=WRONG):
                spmm(late, torch.ones(10, 4))
        with pytest.raises(IndexError, match=WRONG):
            EdgePlan.from_csr(torch.tensor([0, 6]), index, 10)
        with pytest.raises(IndexError, match="index -1 at position 0 is out of range"):
            scatter(src, torch.full((6,), -1, dtype=dtype), 10)
        with pytest.raises(ValueError, match="indptr must start at 0, never decrease"):
            segment(src, torch.tensor([0, 5, 3, 6]))
    finally:
        torch.set_num_threads(before)


def test_eight_threads_at_once_are_right():
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(500, (2, 30_000), generator=random)
    plan, x = EdgePlan(edge_index, 500, 500), values_of(0, torch.float32)(500, 32)
    logits = values_of(1, torch.float32)(30_000, 2)

    def work():
        leaf = x.clone().requires_grad_()
        fresh = EdgePlan(edge_index, 500, 500)
        out = spmm(fresh, leaf, reduce="mean")
        out.sum().backward()
        kept = spmm(plan, leaf.detach(), reduce="max")
        return [out.detach(), leaf.grad, kept, ops.edge_softmax(plan, logits)]

    expected, wrong = work(), []

    def again():
        wrong.extend(k for k in range(5) if not all(map(torch.equal, work(), expected)))

    crowd = [threading.Thread(target=again) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not wrong


FORK = """
import os, torch
from gnnlab import ops
torch.set_num_threads(2)
e = torch.randint(1000, (2, 50000), generator=torch.Generator().manual_seed(0))
x = torch.randn(1000, 64, generator=torch.Generator().manual_seed(1))
w = torch.randn(50000, 2, generator=torch.Generator().manual_seed(2))
messages = x[e[0]]  # torch's own threads do not survive a fork: nothing of torch in the child
def same(a, b):
    return a.numpy().tobytes() == b.numpy().tobytes()
def work():
    plan = ops.EdgePlan(e, 1000, 1000)
    return [ops.spmm(plan, x), ops.spmm(plan, x, reduce="max"), ops.edge_softmax(plan, w),
            ops.scatter(messages, e[1], 1000), ops.gather(x, e[0])]
before = work()  # threads have been used
child = os.fork()
if child == 0:
    os._exit(0 if all(map(same, work(), before)) else 3)
_, status = os.waitpid(child, 0)
assert all(map(same, work(), before))
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_calls_after_a_fork_are_right(backend):
    if backend == "reference":
        pytest.skip("torch's own threads do not survive a fork either")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], timeout=120)
    assert done.returncode == 0


def test_third_derivatives_of_sums_equal_those_of_plain_torch(backend):
    edge_index = torch.tensor([[0, 1, 3, 1, 1, 2], [2, 2, 0, 2, 4, 1]])
    plan = EdgePlan(edge_index, 4, 5)
    src, dst = edge_index
    values = values_of(3)
    x, weight, messages = values(4, 2), values(6), values(6, 2)
    pairs = {
        "gather": (lambda a: gather(a, src), lambda a: a[src], (x,)),
        "scatter": (
            lambda a: scatter(a, dst, 5),
            lambda a: torch.zeros(5, 2).double().index_add(0, dst, a),
            (messages,),
        ),
        "segment": (
            lambda a: segment(a, plan.indptr),
            lambda a: torch.stack([part.sum(0) for part in a.split(plan.counts.tolist())]),
            (messages,),
        ),
        "spmm": (
            lambda a, w: spmm(plan, a, w),
            lambda a, w: torch.zeros(5, 2).double().index_add(0, dst, a[src] * w[:, None]),
            (x, weight),
        ),
    }
    for ours, theirs, inputs in pairs.values():
        found = []
        for function in (ours, theirs):
            leaves = [t.clone().requires_grad_() for t in inputs]
            y = (function(*(t.sin() for t in leaves)) ** 4).sum()
            for _ in range(3):
                grads = torch.autograd.grad(y, leaves, create_graph=True)
                y = sum((g**2).sum() for g in grads)
            found.append([g.detach() for g in grads])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "look",
    [
        lambda f, x: torch.func.grad(lambda a: f(a).sum())(x),
        lambda f, x: torch.func.vmap(f, in_dims=2, out_dims=2)(torch.stack([x, x], 2)),
        lambda f, x: torch.func.jacrev(f)(x),
        lambda f, x: torch.compile(f, fullgraph=True, backend="aot_eager")(x),
    ],
    ids=["grad", "vmap", "jacrev", "compile"],
)
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_a_plan_first_used_under_a_transform_can_be_used_afterwards(look, reduce):
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]])
    x = values_of(0)(3, 4)
    given = {"empty_value": -1.0} if reduce == "max" else {}

    def use(plan, a):
        return spmm(plan, a, reduce=reduce, **given) + gather(a, plan.src)[:3]

    for plan in (
        EdgePlan(edge_index, 3, 3),
        EdgePlan.from_csr(torch.tensor([0, 1, 4, 4]), torch.tensor([2, 0, 1, 2]), 3),
    ):
        look(lambda a, plan=plan: use(plan, a), x)
        fresh = EdgePlan(plan.edge_index, 3, 3)
        assert torch.equal(use(plan, x), use(fresh, x))
        leaf = x.clone().requires_grad_()
        use(plan, leaf).sum().backward()
        assert leaf.grad.isfinite().all()


def test_operands_of_another_dtype_or_device_are_refused():
    plan, values = one_row(3), values_of(0, torch.float32)
    x, score = values(3, 1, 2), values(3, 1)
    with pytest.raises(ValueError, match=r"^edge_logit is torch\.float64 on cpu, but"):
        ops.gat_aggregate(plan, x, score, score[:1], score.double())
    with pytest.raises(ValueError, match=r"^edge is torch\.float64 on cpu, but"):
        ops.gatv2_aggregate(plan, x, x[:1], x[0], x.double())
    with pytest.raises(ValueError, match=r"^bias is torch\.float64 on cpu, but"):
        ops.attention_aggregate(plan, x[:1], x, x, score.double())
    with pytest.raises(ValueError, match="a and b must have one dtype and device"):
        ops.sddmm(plan, x[:1], x.to("meta"))


def test_edges_on_another_device_are_an_error_and_not_a_wild_read(backend):
    if backend == "reference" or ops.status().path is None:
        pytest.skip("plain torch has its own words for it")
    elsewhere = one_row(3).to("meta")
    for call in (
        lambda: spmm(elsewhere, torch.ones(3, 2)),
        lambda: spmm(elsewhere, torch.ones(3, 2), reduce="max"),
        lambda: ops.edge_softmax(elsewhere, torch.ones(3)),
        lambda: scatter(torch.ones(3, 2), torch.zeros(3).long(), plan=elsewhere),
    ):
        with pytest.raises(ValueError, match="the edges are on meta, but the features are on the"):
            call()
