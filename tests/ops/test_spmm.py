"""spmm against scipy, dense matrices, PyG, DGL and finite differences."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.autograd import gradcheck, gradgradcheck

from gnnlab import ops
from gnnlab.ops import EdgePlan, spmm
from gnnlab.ops._edges import Order
from gnnlab.ops._library import library

BACKENDS = ["auto", "reference"]
needs_kernels = pytest.mark.skipif(
    ops.status().path is None, reason=f"no compiled kernels: {ops.status().reason}"
)


def values(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_edges(num_edges, num_src, num_dst, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randint(n, (num_edges,), generator=random) for n in (num_src, num_dst)]
    )


def dense(edge_index, num_src, num_dst, x, weight=None, reduce="sum"):
    """The definition by a dense matrix."""
    one = torch.ones(edge_index.shape[1], dtype=x.dtype)
    place = (edge_index[1].long(), edge_index[0].long())
    matrix = torch.zeros(num_dst, num_src, dtype=x.dtype)
    count = matrix.index_put(place, one, accumulate=True).sum(1).clamp(min=1)
    matrix = matrix.index_put(place, one if weight is None else weight, accumulate=True)
    out = (matrix @ x.reshape(num_src, -1)).reshape(num_dst, *x.shape[1:])
    return out / count.view(-1, *[1] * (x.dim() - 1)) if reduce == "mean" else out


def same(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "width", [1, 2, 3, 4, 6, 8, 11, 15, 16, 17, 31, 32, 40, 64, 100, 128, 200, 256, 300]
)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_every_width_agrees_with_a_dense_matrix(backend, width, reduce):
    edge_index = random_edges(300, 20, 30)
    edge_index[1, edge_index[1] > 25] = 3  # empty rows, and a long one
    weight = values(300, seed=1)
    plan = EdgePlan(edge_index, 20, 30)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        x = values(20, width, dtype=dtype)
        with ops.use_backend(backend):
            for w in (None, weight.to(dtype)):
                expected = dense(edge_index, 20, 30, x, w, reduce)
                same(spmm(plan, x, w, reduce=reduce), expected, tolerance)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), reduce=st.sampled_from(["sum", "mean"]), sort=st.booleans())
def test_order_of_edges_index_width_and_layout_do_not_matter(data, reduce, sort):
    num_src, num_dst = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    count, width = data.draw(st.integers(0, 25)), data.draw(st.integers(0, 18))
    edge_index = random_edges(count, num_src, num_dst, data.draw(st.integers(0, 99)))
    if sort:
        edge_index = edge_index[:, edge_index[1].sort(stable=True).indices]
    x, weight = values(width, num_src).t(), values(count, seed=2)
    expected = dense(edge_index, num_src, num_dst, x, weight, reduce)
    for dtype in (torch.int32, torch.int64):
        plan = EdgePlan(edge_index.to(dtype), num_src, num_dst)
        same(spmm(plan, x, weight, reduce=reduce), expected)
    shuffle = torch.randperm(count)
    plan = EdgePlan(edge_index[:, shuffle], num_src, num_dst)
    same(spmm(plan, x, weight[shuffle], reduce=reduce), expected)
    same(spmm(plan.T.T, x, weight[shuffle], reduce=reduce), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "width"), [(1, 64), (4, 16), (8, 8), (3, 5), (2, 1), (2, 0)])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_weights_per_head_and_shared_by_heads(backend, heads, width, reduce):
    edge_index = random_edges(60, 9, 7)
    plan, x = EdgePlan(edge_index, 9, 7), values(9, heads, width)
    weight = values(60, heads, seed=3)
    with ops.use_backend(backend):
        out = spmm(plan, x, weight, reduce=reduce)
        for head in range(heads):
            expected = dense(edge_index, 9, 7, x[:, head], weight[:, head], reduce)
            same(out[:, head], expected)
        same(spmm(plan, x, weight[:, 0]), spmm(plan, x, weight[:, :1].expand(-1, heads)))


def test_long_rows_agree_with_scipy():
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    edge_index = random_edges(50_000, 300, 100)
    edge_index[1, :20_000] = 42
    x, weight = values(300, 24), values(50_000, seed=1)
    matrix = sparse.coo_matrix((weight.numpy(), edge_index.flip(0).numpy()), (100, 300))
    out = spmm(EdgePlan(edge_index, 300, 100), x, weight)
    same(out, torch.from_numpy(matrix.tocsr() @ x.numpy()))


def test_results_agree_with_pyg_and_dgl():
    edge_index, x, weight = random_edges(200, 20, 20), values(20, 6), values(200, seed=1)
    plan = EdgePlan(edge_index, 20, 20)
    pyg = pytest.importorskip("torch_geometric.utils", reason="torch_geometric is not installed")
    messages = x[edge_index[0]] * weight[:, None]
    for reduce in ("sum", "mean"):
        same(
            spmm(plan, x, weight, reduce=reduce),
            pyg.scatter(messages, edge_index[1], 0, 20, reduce),
        )
    dgl = pytest.importorskip("dgl", reason="dgl is not installed", exc_type=ImportError)
    graph = dgl.graph((edge_index[0], edge_index[1]), num_nodes=20)
    same(spmm(plan, x, weight), dgl.ops.u_mul_e_sum(graph, x, weight))
    same(spmm(plan, x, reduce="mean"), dgl.ops.copy_u_mean(graph, x))


@needs_kernels
@pytest.mark.parametrize("width", [1, 7, 16, 32, 64, 128, 260])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_number_of_threads_and_instruction_set_gives_the_same_bits(width, weighted):
    edge_index = random_edges(60_000, 500, 400)
    edge_index[1, :20_000] = 399  # long rows: the last, the first, and one of whole blocks
    edge_index[1, 20_000:30_000] = 0
    edge_index[1, 30_000:38_192] = 200
    edge_index[1, 38_192:][edge_index[1, 38_192:] == 200] = 201
    plan = EdgePlan(edge_index, 500, 400)
    x = values(500, width, dtype=torch.float32)
    weight = values(60_000, dtype=torch.float32) if weighted else None
    kernels, before, results = library(), torch.get_num_threads(), []
    try:
        for isa in ("v2", "v3", "v4", "portable"):
            try:
                kernels.select_isa(isa)
            except ValueError:
                continue
            for threads in (1, 2, 3, 7, 16):
                torch.set_num_threads(threads)
                results.append((spmm(plan, x, weight), spmm(plan, x, weight, reduce="mean")))
    finally:
        torch.set_num_threads(before)
        kernels.select_isa("auto")
    same(
        results[0][0].double(),
        dense(edge_index, 500, 400, x.double(), None if weight is None else weight.double()),
        1e-2,
    )
    for sums, means in results:
        assert torch.equal(sums, results[0][0])
        assert torch.equal(means, results[0][1])


@needs_kernels
def test_plans_of_64_bit_indices_give_the_same_bits():
    edge_index, x, weight = random_edges(500, 30, 20), values(30, 19), values(500)
    plan = EdgePlan(edge_index, 30, 20)
    wide = EdgePlan(edge_index, 30, 20)
    order = plan._edges.order(1)
    wide._edges.orders[1] = Order(order.indptr, order.col.long(), order.perm.long(), 500)
    assert torch.equal(spmm(plan, x, weight), spmm(wide, x, weight))
    assert torch.equal(spmm(plan, x), spmm(wide, x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("shapes", [((), ()), ((3,), ()), ((2, 3), ()), ((2, 3), (2,))])
def test_gradients_equal_finite_differences_twice(backend, reduce, shapes):
    edge_index = torch.tensor([[0, 1, 3, 1, 1], [2, 2, 0, 2, 4]])  # one edge twice, empty rows
    plan = EdgePlan(edge_index, 4, 5)
    x, weight = values(4, *shapes[0]).requires_grad_(), values(5, *shapes[1]).requires_grad_()
    with ops.use_backend(backend):

        def weighted(a, w):
            return spmm(plan, a, w, reduce=reduce)

        assert gradcheck(weighted, (x, weight))
        assert gradgradcheck(weighted, (x, weight))
        assert gradcheck(lambda a: spmm(plan, a, reduce=reduce).sin(), (x,))
        assert gradgradcheck(lambda a: spmm(plan, a, reduce=reduce).sin(), (x,))


def test_third_derivatives_equal_those_of_plain_torch():
    plan = EdgePlan(random_edges(12, 4, 5), 4, 5)
    x, weight = values(4, 2).requires_grad_(), values(12).requires_grad_()
    found = []
    for backend in BACKENDS:
        with ops.use_backend(backend):
            y = spmm(plan, x**3, weight**3, reduce="mean").square().sum()
            for _ in range(3):
                grads = torch.autograd.grad(y, (x, weight), create_graph=True)
                y = sum((g**2).sum() for g in grads)
            found.append([g.detach() for g in grads])
    for a, b in zip(*found, strict=True):
        same(a, b, 1e-7)


def test_zero_sizes_give_zeros_and_gradients_of_the_right_shape():
    none = torch.zeros(2, 0, dtype=torch.int64)
    for n, m, width in ((0, 0, 3), (4, 0, 3), (0, 5, 3), (4, 5, 0), (4, 5, 3)):
        x = torch.randn(n, width, requires_grad=True)
        weight = torch.randn(0, requires_grad=True)
        out = spmm(EdgePlan(none, n, m), x, weight, reduce="mean")
        assert torch.equal(out, torch.zeros(m, width))
        out.sum().backward()
        assert x.grad.shape == x.shape
        assert weight.grad.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    edge_index = torch.zeros(2, 4096, dtype=torch.int64)
    out = spmm(EdgePlan(edge_index, 1, 1), torch.ones(1, 2, dtype=dtype))
    assert out.tolist() == [[4096.0, 4096.0]]
    assert out.dtype == dtype


def test_gradient_of_x_alone_keeps_no_features():
    plan = EdgePlan(random_edges(12, 4, 5), 4, 5)
    x = values(4, 3).requires_grad_()
    out = spmm(plan, x)
    x.data.zero_()  # would be an error or a wrong result if x had been kept
    out.sum().backward()
    same(x.grad[:, 0], plan.T.counts.double())


def test_useful_value_errors():
    plan = EdgePlan(random_edges(12, 4, 5), 4, 5)
    with pytest.raises(
        ValueError, match=r"one row for each of the plan's 4 sources, got shape \(5, 2\)"
    ):
        spmm(plan, values(5, 2))
    with pytest.raises(ValueError, match=r"E = 12 edges, got shape \(3,\)"):
        spmm(plan, values(4, 2), values(3))
    with pytest.raises(ValueError, match=r"needs x of shape \(4, 2, D\), got \(4, 2\)"):
        spmm(plan, values(4, 2), values(12, 2))
    with pytest.raises(ValueError, match=r'unknown reduce "mul"\. Known: sum, mean, max, min'):
        spmm(plan, values(4, 2), reduce="mul")
    with pytest.raises(ValueError, match='reduce="mean" needs a floating-point x'):
        spmm(plan, torch.ones(4, 2, dtype=torch.int64), reduce="mean")
