"""Every operator of the table against its definition: values, gradients, torch's own checks."""

import sys

import pytest
import torch
from operators import CASES, edges_of, plan_of, values_of
from torch.autograd import gradcheck, gradgradcheck

from gnnlab import ops

BACKENDS = ["auto", "reference"]
KINDS = ["random", "sparse", "star", "none", "nothing"]
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.bfloat16: 3e-2,
    torch.float16: 4e-3,
}
needs_kernels = pytest.mark.skipif(
    ops.status().path is None, reason=f"no compiled kernels: {ops.status().reason}"
)


def expected_of(case, edge_index, m, tensors):
    return case.oracle(edge_index[0], edge_index[1], m, *(t.double() for t in tensors))


def close(found, expected, tolerance):
    finite = expected[expected.isfinite()]
    scale = max(float(finite.abs().max()), 1.0) if finite.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * scale)


def draw(case, kind, dtype=torch.float64):
    edge_index, plan = plan_of(kind)
    tensors = case.inputs(values_of(1, dtype), plan.num_src, plan.num_dst, plan.num_edges)
    return edge_index, plan, tensors


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_those_of_the_definition(case, backend):
    for kind in KINDS:
        for dtype, tolerance in TOLERANCE.items():
            edge_index, plan, tensors = draw(case, kind, dtype)
            with ops.use_backend(backend):
                found = case.call(plan, *tensors)
            assert found.dtype == dtype
            close(found, expected_of(case, edge_index, plan.num_dst, tensors), tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_definition(case, backend):
    for kind in KINDS:
        for dtype in (torch.float64, torch.float32):
            edge_index, plan, tensors = draw(case, kind, dtype)
            ours = [t.requires_grad_() for t in tensors]
            theirs = [t.detach().double().requires_grad_() for t in tensors]
            with ops.use_backend(backend):
                found = case.call(plan, *ours)
                expected = expected_of(case, edge_index, plan.num_dst, theirs)
                seed = values_of(2)(*expected.shape)
                finite = expected.isfinite()
                seed = seed.masked_fill(~finite, 0.0)
                torch.where(finite, found, 0.0).backward(seed.to(dtype))
            wanted = [None] * len(theirs)
            if expected.requires_grad:
                expected = torch.where(finite, expected, 0.0)
                wanted = torch.autograd.grad(expected, theirs, seed, allow_unused=True)
            for a, b in zip(ours, wanted, strict=True):
                assert a.grad is not None
                assert a.grad.shape == a.shape
                b = torch.zeros_like(a, dtype=torch.float64) if b is None else b
                close(a.grad, b, TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [c for c in CASES if c.smooth], ids=str)
def test_finite_differences_once_and_twice(case, backend):
    edge_index = torch.tensor([[0, 1, 3, 1, 1], [2, 2, 0, 2, 4]])  # one edge twice, empty rows
    plan = ops.EdgePlan(edge_index, 4, 5)
    tensors = [t.requires_grad_() for t in case.inputs(values_of(3), 4, 5, 5)]

    def call(*given):
        out = case.call(plan, *given)
        return out[out.isfinite()] if case.name == "segment_logsumexp" else out

    with ops.use_backend(backend):
        assert gradcheck(call, tensors, fast_mode=True)
        if case.twice:
            assert gradgradcheck(call, tensors, fast_mode=True)


@pytest.fixture(scope="module")
def emulated():
    """The CUDA kernels, run on the CPU."""
    from gnnlab.ops._gpu import emulated_kernels

    try:
        return emulated_kernels()
    except OSError as error:
        pytest.skip(f"CUDA cannot be emulated here: {error}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_emulated_cuda_kernels_give_values_and_gradients_of_the_definition(case, emulated):
    edge_index, plan, tensors = draw(case, "random", torch.float32)
    ours = [t.requires_grad_() for t in tensors]
    theirs = [t.detach().double().requires_grad_() for t in tensors]
    expected = expected_of(case, edge_index, plan.num_dst, theirs)
    finite = expected.isfinite()
    with ops.use_backend(emulated):
        close(case.call(plan, *(t.detach() for t in ours)), expected.detach(), 2e-5)
        found = case.call(plan, *ours)
        torch.where(finite, found, 0.0).sum().backward()
    wanted = torch.autograd.grad(
        torch.where(finite, expected, 0.0).sum(), theirs, allow_unused=True
    )
    for a, b in zip(ours, wanted, strict=True):
        close(a.grad, torch.zeros_like(a).double() if b is None else b, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_whole_table_holds_on_emulated_cuda_kernels(case, emulated):
    for kind in KINDS:
        for dtype, tolerance in TOLERANCE.items():
            edge_index, plan, tensors = draw(case, kind, dtype)
            with ops.use_backend(emulated):
                found = case.call(plan, *tensors)
            assert found.dtype == dtype
            close(found, expected_of(case, edge_index, plan.num_dst, tensors), tolerance)


@needs_kernels
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_number_of_threads_and_run_gives_the_same_bits(case):
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(200, (2, 20_000), generator=random)
    edge_index[1, :9_000] = 17  # a row that is cut between threads
    plan = ops.EdgePlan(edge_index, 200, 200)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7, 1):
            torch.set_num_threads(threads)
            tensors = case.inputs(values_of(1, torch.float32), 200, 200, 20_000)
            tensors = [t.requires_grad_() for t in tensors]
            out = case.call(plan, *tensors)
            out.backward(values_of(2, torch.float32)(*out.shape))
            results.append([out.detach(), *(t.grad for t in tensors)])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


@needs_kernels
@pytest.mark.parametrize("case", CASES, ids=str)
def test_index_dtype_and_layout_of_inputs_do_not_matter(case):
    edge_index, n, m = edges_of("random")
    tensors = case.inputs(values_of(1), n, m, edge_index.shape[1])
    expected = case.oracle(*edge_index, m, *tensors)
    apart = [torch.stack([t, t], -1)[..., 0] for t in tensors]  # no unit stride anywhere
    rows = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in tensors]  # unit stride, gaps
    every_other = [torch.stack([t, t], 1).flatten(0, 1)[::2] for t in tensors]
    for dtype in (torch.int64, torch.int32):
        plan = ops.EdgePlan(edge_index.to(dtype), n, m)
        for given in (tensors, apart, rows, every_other):
            close(case.call(plan, *given), expected, 1e-10)
    order = edge_index[1].sort(stable=True).indices
    if case.name.startswith("gather") or "sddmm" in case.name or "dropout" in case.name:
        return  # one result, or one random number, per edge in the caller's order
    sorted_inputs = [t[order] if len(t) == edge_index.shape[1] else t for t in tensors]
    plan = ops.EdgePlan(edge_index[:, order], n, m)
    found = case.call(plan, *sorted_inputs)
    close(found, expected[order] if len(found) == edge_index.shape[1] else expected, 1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_compiles_without_a_break(case):
    edge_index, plan, tensors = draw(case, "random", torch.float32)
    tensors = [t.requires_grad_() for t in tensors]
    expected = expected_of(case, edge_index, plan.num_dst, tensors)
    torch.compiler.reset()
    compiled = torch.compile(case.call, fullgraph=True, backend="aot_eager")
    out = compiled(plan, *tensors)
    close(out.detach(), expected.detach(), 2e-5)
    wanted = torch.autograd.grad(case.call(plan, *tensors).sum(), tensors, allow_unused=True)
    found = torch.autograd.grad(out.sum(), tensors, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        close(a, b.double(), 2e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vmap_is_a_loop_over_the_batch(case):
    _, plan, tensors = draw(case, "random", torch.float64)
    batch = torch.stack([tensors[0], 2 * tensors[0], tensors[0].flip(0)], 1)
    found = torch.func.vmap(lambda t: case.call(plan, t, *tensors[1:]), in_dims=1)(batch)
    for k in range(3):
        close(found[k], case.call(plan, batch[:, k], *tensors[1:]), 1e-10)
    wanted = torch.autograd.functional.jacobian(
        lambda t: case.call(plan, t, *tensors[1:]), tensors[0]
    )
    found = torch.func.jacrev(lambda t: case.call(plan, t, *tensors[1:]))(tensors[0])
    close(found, wanted, 1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if len(draw(c, "random")[2]) > 1], ids=str)
def test_vmap_over_any_input_is_a_loop_whatever_its_layout(case):
    _, plan, tensors = draw(case, "random", torch.float64)
    for place, tensor in enumerate(tensors):
        batch = torch.stack([tensor, 2 * tensor], -1)

        def call(given, place=place):
            return case.call(plan, *tensors[:place], given, *tensors[place + 1 :])

        found = torch.func.vmap(call, in_dims=-1)(batch)
        for k in range(2):
            close(found[k], call(batch[..., k].contiguous()), 1e-10)


def registered_calls(case, plan, tensors, monkeypatch):
    """Records which registered operators a call goes through, with their arguments."""
    from gnnlab.ops._operator import Operator

    for name in ("gather", "spmm"):  # these have a shorter way for usual calls
        monkeypatch.setattr(sys.modules[f"gnnlab.ops.{name}"], "is_watched", lambda: True)

    calls = []
    before = Operator.__call__

    def record(self, *args):
        calls.append((self, args))
        return before(self, *args)

    Operator.__call__ = record
    try:
        out = case.call(plan, *tensors)
        if out.requires_grad:
            out.sum().backward()
    finally:
        Operator.__call__ = before
    return calls


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torchs_own_check_of_operators_passes(case, monkeypatch):
    _, plan, tensors = draw(case, "random", torch.float32)
    tensors = [t.requires_grad_() for t in tensors]
    calls = registered_calls(case, plan, tensors, monkeypatch)
    assert calls
    for operator, args in calls:
        flat = [
            a.detach().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a
            for a in operator.flat(*args)
        ]
        if operator.grads is None:
            flat = [a.detach() if isinstance(a, torch.Tensor) else a for a in flat]
        torch.library.opcheck(operator._registered, tuple(flat))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_registered_operators_take_any_layout(case, monkeypatch):
    _, plan, tensors = draw(case, "random", torch.float32)
    calls = registered_calls(case, plan, [t.requires_grad_() for t in tensors], monkeypatch)
    for operator, args in calls:
        flat = [a.detach() if isinstance(a, torch.Tensor) else a for a in operator.flat(*args)]
        apart = [
            torch.stack([a, a], -1)[..., 0] if isinstance(a, torch.Tensor) else a for a in flat
        ]
        wanted, found = operator._registered(*flat), operator._registered(*apart)
        if isinstance(wanted, torch.Tensor):
            wanted, found = [wanted], [found]
        assert all(map(torch.equal, found, wanted))
