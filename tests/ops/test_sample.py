"""Neighbour sampling: what may be drawn, how often, and that nothing but the seed matters."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest
import torch
from hypothesis import given, settings, strategies as st
from operators import philox

from gnnlab import ops
from gnnlab.bench.graphs import power_law
from gnnlab.ops import EdgePlan, partition, sample_hops, sample_neighbors
from gnnlab.ops._sample import numbers
from gnnlab.ops.reference_sample import ONE_WORD


def star(degree, center=0, size=None):
    """All edges into one node, in mixed order."""
    src = torch.randperm(degree, generator=torch.Generator().manual_seed(1)) + center + 1
    return EdgePlan(
        torch.stack([src, torch.full_like(src, center)]), size or degree + center + 1, center + 1
    )


def draws(plan, node, k, times, **options):
    """What one node gives under `times` seeds: (times, k) of its row's places."""
    found = [
        sample_neighbors(plan, torch.tensor([node]), k, seed=s, **options) for s in range(times)
    ]
    return torch.stack([f.edge for f in found])


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


def unlikely(degrees_of_freedom):
    """The value that chi-square exceeds in about 1 of 10,000 cases (Wilson and Hilferty)."""
    d = degrees_of_freedom
    return d * (1 - 2 / (9 * d) + 3.72 * math.sqrt(2 / (9 * d))) ** 3


def same(a, b):
    for x, y in zip(a, b, strict=True):
        if isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)
        else:
            assert x == y


# ---- chances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [3, 10, 70])
@pytest.mark.parametrize("k", [1, 4, 66])
def test_draws_with_replacement_are_uniform_and_independent(degree, k):
    times = 4000 // k + 200
    drawn = draws(star(degree), 0, k, times, replace=True)
    counts = drawn.flatten().bincount(minlength=degree).double()
    assert chi_square(counts, times * k / degree) < unlikely(degree - 1)
    if k > 1:  # neighbouring draws: all pairs alike
        pairs = (drawn[:, 0] * degree + drawn[:, 1]).bincount(minlength=degree**2).double()
        if times / degree**2 >= 5:
            assert chi_square(pairs, times / degree**2) < unlikely(degree**2 - 1)


@pytest.mark.parametrize(("degree", "k"), [(3, 1), (5, 2), (6, 4), (7, 6), (12, 2)])
def test_subsets_without_replacement_have_equal_chances(degree, k):
    times = 60 * math.comb(degree, k)
    drawn = draws(star(degree), 0, k, times)
    seen = Counter(tuple(sorted(row)) for row in drawn.tolist())
    assert all(len(set(subset)) == k for subset in seen)
    subsets = math.comb(degree, k)
    counts = torch.tensor([*seen.values()] + [0] * (subsets - len(seen))).double()
    assert len(counts) == subsets
    assert chi_square(counts, times / subsets) < unlikely(subsets - 1)


@pytest.mark.parametrize(("degree", "k"), [(200, 20), (200, 100), (ONE_WORD + 3, 40)])
def test_every_edge_of_a_long_row_has_the_same_chance(degree, k):
    times, bins = 300, 20
    drawn = draws(star(degree), 0, k, times)
    assert all(len(set(row)) == k for row in drawn.tolist())
    counts = torch.histc(drawn.flatten().double(), bins, 0, degree).double()
    # Draws of one sample push one another away, so that the spread is a little less than binomial.
    assert chi_square(counts, times * k / bins) < unlikely(bins - 1)


def test_draws_of_different_nodes_hops_and_seeds_differ():
    plan = EdgePlan.from_csr(torch.tensor([0, 40, 80]), torch.arange(40).repeat(2), 40)
    nodes = torch.tensor([0, 1])
    first, second = sample_neighbors(plan, nodes, 10, seed=0).src.view(2, 10)
    assert not torch.equal(first, second)
    for other in ({"seed": 1}, {"seed": 2**32}, {"seed": 0, "hop": 1}):
        assert not torch.equal(sample_neighbors(plan, nodes, 10, **other).src[:10], first)


def test_words_are_those_of_the_published_generator():
    plan = star(1000, center=5)
    found = sample_neighbors(plan, torch.tensor([5]), 1, seed=77, hop=3, replace=True)
    # The first word of counter (node, hop, 0); `philox` calls its third number the head.
    assert found.edge.tolist() == [(philox(5, 3, 77) * 1000) >> 32]


# ---- equality ------------------------------------------------------------------------------------

GRAPHS = {
    "power law": lambda: power_law(600, 12_000),
    "thin": lambda: power_law(500, 400),
    "dense": lambda: power_law(40, 4_000),
}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("fanouts", [(15, 10), (1,), (3, 2, 2), (-1, 4), (2, -1), (70, 90)])
def test_kernels_and_plain_torch_give_the_same_samples(graph, replace, fanouts):
    g = GRAPHS[graph]()
    plan = EdgePlan(g.edge_index, g.num_src, g.num_dst)
    seeds = torch.randint(0, g.num_dst, (50,), generator=torch.Generator().manual_seed(3))
    for seed in (0, -1, 2**63 + 12345):
        fast = sample_hops(plan, seeds, fanouts, replace=replace, seed=seed)
        near = sample_neighbors(plan, seeds, fanouts[0], replace=replace, seed=seed)
        with ops.use_backend("reference"):
            same(fast, sample_hops(plan, seeds, fanouts, replace=replace, seed=seed))
            same(near, sample_neighbors(plan, seeds, fanouts[0], replace=replace, seed=seed))


@pytest.mark.parametrize("k", [20, 80])
@pytest.mark.parametrize("replace", [False, True])
def test_rows_whose_draws_take_two_words_agree(k, replace):
    plan = star(ONE_WORD + 100)
    fast = sample_neighbors(plan, torch.tensor([0]), k, replace=replace, seed=4)
    with ops.use_backend("reference"):
        same(fast, sample_neighbors(plan, torch.tensor([0]), k, replace=replace, seed=4))
    assert fast.edge.max() > ONE_WORD // 2


def test_large_ids_use_wide_indices(monkeypatch):
    g = power_law(300, 6_000)
    narrow = EdgePlan(g.edge_index, 300, 300)
    wide = EdgePlan(g.edge_index, 300, 300)
    order = wide.order
    order.col, order.perm = order.col.long(), order.perm.long()
    seeds = torch.arange(40)
    a, b = (sample_hops(p, seeds, (7, 5), seed=9) for p in (narrow, wide))
    assert (a.src.dtype, b.src.dtype) == (torch.int32, torch.int64)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("isa", ["v2", "v3", "v4", "portable"])
def test_instruction_sets_agree(isa):
    found = ops._library.library()
    before = found.isa
    plan = EdgePlan(power_law(400, 9_000).edge_index, 400, 400)
    want = sample_hops(plan, torch.arange(30), (15, 10), seed=2)
    try:
        try:
            found.select_isa(isa)
        except ValueError:
            pytest.skip(f"this machine or build has no {isa}")
        same(want, sample_hops(plan, torch.arange(30), (15, 10), seed=2))
    finally:
        found.select_isa(before)


@pytest.mark.parametrize("replace", [False, True])
def test_results_do_not_depend_on_the_number_of_threads(replace):
    plan = EdgePlan(power_law(20_000, 400_000).edge_index, 20_000, 20_000)
    seeds, before, found = torch.arange(0, 20_000, 20), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(sample_hops(plan, seeds, (15, 10), replace=replace, seed=5))
    finally:
        torch.set_num_threads(before)
    assert found[0].num_edges[-1] > 50_000  # enough for several threads
    for other in found[1:]:
        same(found[0], other)


def test_threads_can_sample_one_graph_together():
    plan = EdgePlan(power_law(3_000, 60_000).edge_index, 3_000, 3_000)
    jobs = [torch.arange(i, 3_000, 40) for i in range(40)]
    want = [sample_hops(plan, s, (10, 5), seed=i) for i, s in enumerate(jobs)]
    got = [None] * len(jobs)

    def work(begin):
        for i in range(begin, len(jobs), 4):
            got[i] = sample_hops(plan, jobs[i], (10, 5), seed=i)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a, b in zip(want, got, strict=True):
        same(a, b)


def test_a_node_has_the_same_edges_whatever_is_asked_beside_it():
    plan = EdgePlan(power_law(300, 9_000).edge_index, 300, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    all_nodes = sample_neighbors(plan, order, 5, seed=3)
    for at, node in enumerate(order[:40].tolist()):
        alone = sample_neighbors(plan, torch.tensor([node]), 5, seed=3)
        begin, end = all_nodes.indptr[at : at + 2].tolist()
        assert torch.equal(alone.edge, all_nodes.edge[begin:end])
    hops, again = (sample_hops(plan, s, (5, 5), seed=3) for s in (order[:20], order[:20].flip(0)))
    edges = [set(plan.perm[h.place].tolist()) for h in (hops, again)]
    assert edges[0] == edges[1]
    assert set(hops.nodes.tolist()) == set(again.nodes.tolist())


# ---- what is drawn -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    n=st.integers(1, 12),
    edges=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=60),
    seeds=st.lists(st.integers(0, 11), max_size=8),
    fanouts=st.lists(st.sampled_from([-1, 1, 2, 3, 50]), min_size=1, max_size=3),
    replace=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
def test_hops_hold_what_they_promise(n, edges, seeds, fanouts, replace, seed):
    edge_index = torch.tensor([e for e in edges if max(e) < n], dtype=torch.int64).view(-1, 2).t()
    seeds = torch.tensor([s for s in seeds if s < n], dtype=torch.int64)
    plan = EdgePlan(edge_index, n, n)
    hops = sample_hops(plan, seeds, fanouts, replace=replace, seed=seed)
    nodes, indptr = hops.nodes.tolist(), hops.indptr.tolist()
    assert len(set(nodes)) == len(nodes) == hops.num_nodes[-1]
    assert nodes[: hops.num_nodes[0]] == list(dict.fromkeys(seeds.tolist()))
    assert torch.equal(hops.nodes[hops.seeds], seeds)
    assert len(indptr) == hops.num_nodes[-2] + 1
    bounds = (0, *hops.num_nodes)
    reached = hops.num_nodes[0]
    for hop, k in enumerate(fanouts):
        for row in range(bounds[hop], bounds[hop + 1]):
            places = hops.place[indptr[row] : indptr[row + 1]].long()
            begin, end = plan.indptr[nodes[row]].item(), plan.indptr[nodes[row] + 1].item()
            if k < 0 or (not replace and end - begin <= k):
                assert places.tolist() == list(range(begin, end))
            else:
                assert len(places) == (k if end > begin else 0)
            assert ((places >= begin) & (places < end)).all()
            assert replace or len(set(places.tolist())) == len(places)
            sources = hops.src[indptr[row] : indptr[row + 1]].long()
            assert torch.equal(hops.nodes[sources], plan.col[places].long())
            for s in sources.tolist():  # numbered when first met
                assert s <= reached
                reached = max(reached, s + 1)
        assert indptr[bounds[hop + 1]] == hops.num_edges[hop]
        assert reached == hops.num_nodes[hop + 1]


def test_edges_are_given_in_the_callers_order():
    edge_index = torch.tensor([[3, 1, 2, 0, 2], [1, 0, 1, 1, 0]])
    found = sample_neighbors(EdgePlan(edge_index, 4, 2), torch.tensor([1, 0]), -1, seed=0)
    assert found.edge.tolist() == [0, 2, 3, 1, 4]
    assert torch.equal(edge_index[0, found.edge], found.src.long())


@pytest.mark.parametrize("size", [200, 100_000])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_numbers_survive_growing_and_reuse(size, dtype):
    """Small and large graphs take different tables; both go on after growing, and start anew."""
    order = EdgePlan(torch.zeros(2, 0, dtype=torch.int64), size, size).order
    order.col = order.col.to(dtype)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        kept, seen = numbers(order, torch.empty(0)), {}
        for count in (3, 0, 500, 20, 9_000):
            ids = torch.randint(0, size, (count,), generator=draw)
            want = [seen.setdefault(i, len(seen)) for i in ids.tolist()]
            found = kept.add(ids.clone())
            assert found.dtype == dtype
            assert found.tolist() == want
        assert kept.nodes().tolist() == list(seen)
        assert len(kept) == len(seen)
        kept.close()
    (table,) = order.facts["sample tables"]
    assert table.hashed == (size > 100_000 // 2)


def test_a_table_whose_numbers_run_out_begins_anew():
    plan = EdgePlan(power_law(200, 2_000).edge_index, 200, 200)
    want = sample_hops(plan, torch.arange(9), (5, 5), seed=0)
    (table,) = plan.order.facts["sample tables"]
    table.base = 2**31 - 1 - 250
    for _ in range(3):
        same(want, sample_hops(plan, torch.arange(9), (5, 5), seed=0))
    assert table.base < 1_000


# ---- bad input -----------------------------------------------------------------------------------


def test_wrong_arguments_are_named():
    plan = EdgePlan(torch.tensor([[0, 1], [1, 2]]), 3, 3)
    seeds = torch.tensor([0, 3])
    for call in (sample_neighbors, sample_hops):
        last = 2 if call is sample_neighbors else (2, 2)
        with pytest.raises(IndexError, match=r"s: index 3 at position 1 is out of range \[0, 3\)"):
            call(plan, seeds, last, seed=0)
        with pytest.raises(IndexError, match="index -1 at position 0"):
            call(plan, torch.tensor([-1]), last, seed=0)
        with pytest.raises(ValueError, match=r"must be int64 or int32, got torch\.float32"):
            call(plan, torch.tensor([0.5]), last, seed=0)
        with pytest.raises(ValueError, match="one dimension"):
            call(plan, torch.tensor([[0]]), last, seed=0)
    for k in (0, -2):
        with pytest.raises(ValueError, match=f"positive number of edges, or -1.*got {k}"):
            sample_neighbors(plan, torch.tensor([0]), k, seed=0)
        with pytest.raises(ValueError, match=f"got {k}"):
            sample_hops(plan, torch.tensor([0]), (3, k), seed=0)
    with pytest.raises(ValueError, match="one number per hop, got none"):
        sample_hops(plan, torch.tensor([0]), (), seed=0)
    with pytest.raises(TypeError, match=r"as \(5,\)"):
        sample_hops(plan, torch.tensor([0]), 5, seed=0)
    with pytest.raises(ValueError, match="hop must be"):
        sample_neighbors(plan, torch.tensor([0]), 1, seed=0, hop=-1)
    bipartite = EdgePlan(torch.tensor([[3], [1]]), 4, 2)
    with pytest.raises(ValueError, match="use sample_neighbors"):
        sample_hops(bipartite, torch.tensor([0]), (1,), seed=0)
    assert sample_neighbors(bipartite, torch.tensor([1]), 1, seed=0).src.tolist() == [3]


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_nothing_to_sample_gives_nothing(backend):
    empty = torch.empty(0, dtype=torch.int64)
    with ops.use_backend(backend):
        plan = EdgePlan(torch.tensor([[0, 1], [1, 1]]), 4, 4)
        hops = sample_hops(plan, empty, (2, 2), seed=0)
        assert (hops.num_nodes, hops.num_edges) == ((0, 0, 0), (0, 0))
        isolated = sample_hops(plan, torch.tensor([3, 2]), (2, 2), seed=0, replace=True)
        assert (isolated.num_nodes, isolated.num_edges) == ((2, 2, 2), (0, 0))
        assert isolated.indptr.tolist() == [0, 0, 0]
        again = sample_hops(plan, torch.tensor([3, 0, 3], dtype=torch.int32), (2,), seed=0)
        assert (again.nodes.tolist(), again.seeds.tolist()) == ([3, 0], [0, 1, 0])
        none = sample_hops(EdgePlan(empty.view(1, 0).expand(2, 0), 0, 0), empty, (2,), seed=0)
        assert none.nodes.shape == (0,)


def test_seeds_are_left_as_they_were():
    plan = EdgePlan(torch.tensor([[0, 1], [1, 1]]), 4, 4)
    plan.order.col = plan.order.col.long()
    plan.order.perm = None
    seeds = torch.tensor([3, 1])
    sample_hops(plan, seeds, (2,), seed=0)
    assert seeds.tolist() == [3, 1]


# ---- partition -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    n=st.integers(0, 25),
    edges=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=60),
    parts=st.integers(1, 6),
    slack=st.sampled_from([0, 0.1, 1.5]),
    passes=st.integers(1, 4),
)
def test_parts_are_those_of_the_definition_and_keep_their_size(n, edges, parts, slack, passes):
    kept = torch.tensor([e for e in edges if max(e) < n], dtype=torch.int64).view(-1, 2).t()
    plan = EdgePlan(kept, n, n)
    found = partition(plan, parts, slack=slack, passes=passes)
    with ops.use_backend("reference"):
        assert torch.equal(found, partition(plan, parts, slack=slack, passes=passes))
    assert found.shape == (n,)
    if n:
        assert 0 <= int(found.min()) <= int(found.max()) < parts
        assert found.bincount().max() <= max(math.ceil((1 + slack) * n / parts), 1)


def test_partition_refuses_what_makes_no_sense():
    plan = EdgePlan(torch.tensor([[0], [1]]), 2, 2)
    for options in ({"parts": 0}, {"parts": 2, "slack": -0.1}, {"parts": 2, "passes": 0}):
        with pytest.raises(ValueError, match="at least 1 part"):
            partition(plan, **options)
    with pytest.raises(ValueError, match="sources can be targets"):
        partition(EdgePlan(torch.tensor([[2], [1]]), 3, 2), 2)
