"""EdgePlan: order of edges against scipy and brute force, errors, batching, pickling."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from gnnlab import ops
from gnnlab.ops import EdgePlan

BACKENDS = ["auto", "reference"]


def brute_force(edge_index, num_dst):
    rows = [[] for _ in range(num_dst)]
    for e, (_, dst) in enumerate(edge_index.t().tolist()):
        rows[dst].append(e)
    order = [e for row in rows for e in row]
    indptr = np.cumsum([0, *map(len, rows)])
    return indptr.tolist(), edge_index[0][order].tolist(), order


@st.composite
def edges(draw):
    num_src, num_dst = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    count = draw(st.integers(0, 30))
    src = draw(st.lists(st.integers(0, num_src - 1), min_size=count, max_size=count))
    dst = draw(st.lists(st.integers(0, num_dst - 1), min_size=count, max_size=count))
    dtype = draw(st.sampled_from([torch.int64, torch.int32]))
    return torch.tensor([src, dst], dtype=dtype).view(2, count), num_src, num_dst


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None, max_examples=60)
@given(case=edges())
def test_order_is_that_of_brute_force_on_both_sides(backend, case):
    edge_index, num_src, num_dst = case
    with ops.use_backend(backend):
        plan = EdgePlan(edge_index, num_src, num_dst)
        for side, ends, size in (
            (plan, edge_index, num_dst),
            (plan.T, edge_index.flip(0), num_src),
        ):
            indptr, col, perm = brute_force(ends, size)
            assert side.indptr.tolist() == indptr
            assert side.col.tolist() == col
            assert side.perm.tolist() == perm
            assert side.counts.tolist() == np.diff(indptr).tolist()
            assert torch.equal(side.edge_index, ends)
            assert side.is_sorted == (perm == sorted(perm))
        assert plan.col.dtype == plan.perm.dtype == torch.int32
        assert plan.indptr.dtype == torch.int64


def test_large_plan_is_the_same_for_every_number_of_threads():
    random = torch.Generator().manual_seed(0)
    edge_index = torch.randint(3000, (2, 200_000), generator=random)
    expected = np.cumsum([0, *np.bincount(edge_index[1], minlength=3000)])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            plan = EdgePlan(edge_index, 3000, 3000)
            assert torch.equal(plan.perm.long(), edge_index[1].sort(stable=True).indices)
            assert torch.equal(plan.indptr, torch.from_numpy(expected))
            assert torch.equal(plan.col.long(), edge_index[0][plan.perm])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [17, -1])
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("validate", [True, False])
def test_index_out_of_range_is_an_index_error_that_names_it(backend, bad, row, validate):
    edge_index = torch.zeros(2, 6, dtype=torch.int64)
    edge_index[row, 3] = bad
    message = rf"index {bad} at position 3 is out of range \[0, 10\)"
    with ops.use_backend(backend), pytest.raises(IndexError, match=message):
        _ = EdgePlan(edge_index, 10, 10, validate=validate).indptr


def test_wrong_shapes_and_dtypes_are_value_errors():
    with pytest.raises(ValueError, match=r"must have shape \(2, E\), got \(5, 2\); did you mean"):
        EdgePlan(torch.zeros(5, 2, dtype=torch.int64), 3, 3)
    with pytest.raises(ValueError, match=r"int64 or int32, got torch\.float32"):
        EdgePlan(torch.zeros(2, 5), 3, 3)
    with pytest.raises(ValueError, match="num_dst must not be negative, got -1"):
        EdgePlan(torch.zeros(2, 0, dtype=torch.int64), 3, -1)
    with pytest.raises(TypeError, match="must be a tensor, got list"):
        EdgePlan([[0], [1]], 2, 2)


def test_plan_cannot_be_changed_and_is_equal_only_to_itself():
    edge_index = torch.tensor([[0, 1], [1, 0]])
    plan, other = EdgePlan(edge_index, 2, 2), EdgePlan(edge_index, 2, 2)
    with pytest.raises(AttributeError, match="cannot be changed"):
        plan.num_src = 3
    assert plan != other
    assert len({plan, other, plan}) == 2
    assert plan.T is plan.T


def test_transpose_shares_what_is_sorted():
    plan = EdgePlan(torch.randint(5, (2, 20)), 5, 5)
    assert plan.T.indptr is plan.T.T.T.indptr
    assert plan.T.T.col is plan.col
    assert plan.derived("fact", lambda: object()) is plan.T.T.derived("fact", lambda: object())
    assert plan.derived("fact", lambda: None) is not plan.T.derived("fact", lambda: object())


def test_pickle_and_to_keep_everything():
    plan = EdgePlan(torch.tensor([[0, 2, 1], [1, 0, 1]]), 3, 2)
    expected = (plan.indptr, plan.col, plan.perm, plan.T.perm)
    again = pickle.loads(pickle.dumps(plan))
    found = (again.indptr, again.col, again.perm, again.T.perm)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert repr(again) == repr(plan) == "EdgePlan(num_src=3, num_dst=2, num_edges=3)"
    assert plan.to("cpu") is plan
    assert pickle.loads(pickle.dumps(plan.T)).num_dst == 3


def test_from_csr_keeps_the_given_order():
    indptr, col = torch.tensor([0, 2, 2, 3]), torch.tensor([3, 0, 1])
    plan = EdgePlan.from_csr(indptr, col, 4)
    assert plan.is_sorted
    assert plan.dst.tolist() == [0, 0, 2]
    assert plan.perm.tolist() == [0, 1, 2]
    assert plan.T.indptr.tolist() == [0, 1, 2, 2, 3]
    with pytest.raises(IndexError, match=r"index 3 at position 0 is out of range \[0, 3\)"):
        EdgePlan.from_csr(indptr, col, 3)
    for wrong in ([1, 2, 2, 3], [0, 2, 1, 3], [0, 2, 2, 4]):
        with pytest.raises(ValueError, match="indptr must start at 0"):
            EdgePlan.from_csr(torch.tensor(wrong), col, 4)


@pytest.mark.parametrize("built", [True, False])
def test_batch_is_the_plan_of_the_block_diagonal_graph(built):
    random = torch.Generator().manual_seed(0)
    sizes = [(3, 4, 7), (1, 1, 0), (5, 2, 9), (2, 2, 1)]
    parts = [
        torch.stack([torch.randint(size, (e,), generator=random) for size in (n, m)])
        for n, m, e in sizes
    ]
    plans = [EdgePlan(part, n, m) for part, (n, m, _) in zip(parts, sizes, strict=True)]
    if built:
        _ = [(plan.indptr, plan.T.indptr) for plan in plans]
    batch = EdgePlan.batch(plans)
    starts = np.cumsum([(0, 0, 0), *sizes], axis=0)[:-1, :2]
    edge_index = torch.cat(
        [p + torch.tensor(s)[:, None] for p, s in zip(parts, starts, strict=True)], 1
    )
    expected = EdgePlan(edge_index, 11, 9)
    assert torch.equal(batch.edge_index, edge_index)
    for a, b in ((batch, expected), (batch.T, expected.T)):
        assert torch.equal(a.indptr, b.indptr)
        assert torch.equal(a.col, b.col)
        assert torch.equal(a.perm, b.perm)
    turned = EdgePlan.batch([plan.T for plan in plans])
    assert torch.equal(turned.perm, expected.T.perm)
    assert torch.equal(turned.edge_index, edge_index.flip(0))
    with pytest.raises(ValueError, match="at least one"):
        EdgePlan.batch([])


def test_non_contiguous_edges_and_plans_without_edges_or_nodes():
    pairs = torch.tensor([[0, 1], [2, 0], [1, 1]])
    assert EdgePlan(pairs.t(), 3, 2).perm.tolist() == [1, 0, 2]
    for num_src, num_dst in ((0, 0), (3, 0), (0, 3), (3, 2)):
        plan = EdgePlan(torch.zeros(2, 0, dtype=torch.int64), num_src, num_dst)
        assert plan.indptr.tolist() == [0] * (num_dst + 1)
        assert plan.T.counts.tolist() == [0] * num_src
