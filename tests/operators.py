"""The table of operators that tests go through, each with its definition written out.

An oracle walks over destinations one by one and uses torch's dense functions on the few rows that
belong to each: slow, and independent of the code it judges. It is differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import leaky_relu

from gnnlab import ops
from gnnlab.ops import EdgePlan
from gnnlab.ops.attention import _GAT


@dataclass
class Case:
    """One operator: how to call it, what it should give, and what its inputs look like."""

    name: str
    inputs: Callable  # (values, n, m, e) -> tensors
    call: Callable  # (plan, *tensors) -> tensor
    oracle: Callable  # (src, dst, m, *tensors) -> tensor
    twice: bool = True
    smooth: bool = True  # whether finite differences make sense at random points

    def __str__(self):
        return self.name


def by_row(src, dst, m, row, empty):
    """Stacks row(i, edges into i in the caller's order) over destinations, or `empty`."""
    found = []
    for i in range(m):
        edges = (dst == i).nonzero()[:, 0]
        found.append(row(i, edges) if len(edges) else empty)
    return torch.stack(found) if found else empty.new_zeros(0, *empty.shape)


def reduced(rows, reduce):
    if reduce in ("max", "min"):
        best = rows.detach().amax(0) if reduce == "max" else rows.detach().amin(0)
        first = (rows.detach() == best).int().argmax(0)  # the first of equals
        return rows.gather(0, first[None])[0]
    return {"sum": rows.sum, "mean": rows.mean, "mul": rows.prod}[reduce](0)


def times(weight, rows):
    if weight is None:
        return rows
    return rows * weight.view(*weight.shape, *[1] * (rows.dim() - weight.dim()))


def spmm_oracle(reduce):
    def oracle(src, dst, m, x, weight=None):
        def row(i, edges):
            return reduced(times(None if weight is None else weight[edges], x[src[edges]]), reduce)

        return by_row(src, dst, m, row, torch.zeros(x.shape[1:], dtype=x.dtype))

    return oracle


def scatter_oracle(reduce):
    def oracle(src, dst, m, messages):
        empty = torch.full(messages.shape[1:], float(reduce == "mul"), dtype=messages.dtype)
        return by_row(src, dst, m, lambda i, edges: reduced(messages[edges], reduce), empty)

    return oracle


def multi_oracle(src, dst, m, x):
    def row(i, edges):
        rows = x[src[edges]]
        spread = rows.var(0, unbiased=False)
        std = torch.where(spread > 0, spread.clamp(min=1e-300).sqrt(), 0.0)
        return torch.cat([reduced(rows, r) for r in ("sum", "mean", "max", "min")] + [std])

    return by_row(src, dst, m, row, torch.zeros(5 * x.shape[1], dtype=x.dtype))


def per_edge(src, dst, m, function, like):
    """Scatters function(i, edges), one row per edge of destination i, to the caller's order."""
    out = torch.zeros_like(like)
    for i in range(m):
        edges = (dst == i).nonzero()[:, 0]
        if len(edges):
            out = out.index_put((edges,), function(i, edges))
    return out


def softmax_oracle(src, dst, m, logits):
    return per_edge(src, dst, m, lambda i, edges: logits[edges].softmax(0), logits)


def log_softmax_oracle(src, dst, m, logits):
    return per_edge(src, dst, m, lambda i, edges: logits[edges].log_softmax(0), logits)


def logsumexp_oracle(src, dst, m, logits):
    empty = torch.full(logits.shape[1:], -torch.inf, dtype=logits.dtype)
    return by_row(src, dst, m, lambda i, edges: logits[edges].logsumexp(0), empty)


def std_oracle(src, dst, m, messages):
    def row(i, edges):
        if len(edges) == 1:
            return 0 * messages[edges][0]
        return messages[edges].std(0)

    return by_row(src, dst, m, row, torch.zeros(messages.shape[1:], dtype=messages.dtype))


def philox(edge, head, seed):
    """First word of Philox4x32-10, written from the paper."""
    c = [edge & 0xFFFFFFFF, edge >> 32, head, 0]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c[0]


def kept(num_edges, heads, p, seed):
    """What dropout multiplies the shares of (E, H) by."""
    words = [[philox(e, h, seed) for h in range(heads)] for e in range(num_edges)]
    keep = torch.tensor(words, dtype=torch.float64).view(num_edges, heads) >= p * 2**32
    return keep.double() / (1 - p) if p < 1 else keep.double()


def attend(src, dst, m, values, scores, keep=None):
    """Softmax of scores(i, edges) over the edges of i, times the rows of their sources."""

    def row(i, edges):
        share = scores(i, edges).softmax(0)
        share = share if keep is None else share * keep[edges]
        return (share[..., None] * values[src[edges]]).sum(0)

    return by_row(src, dst, m, row, torch.zeros(values.shape[1:], dtype=values.dtype))


def gat_oracle(src, dst, m, x, a_src, a_dst, edge=None, keep=None):
    def scores(i, edges):
        score = a_src[src[edges]] + a_dst[i]
        return leaky_relu(score if edge is None else score + edge[edges], 0.2)

    return attend(src, dst, m, x, scores, keep)


def gatv2_oracle(src, dst, m, x_src, x_dst, att, edge=None):
    def scores(i, edges):
        both = x_src[src[edges]] + x_dst[i]
        return (leaky_relu(both if edge is None else both + edge[edges], 0.2) * att).sum(-1)

    return attend(src, dst, m, x_src, scores)


def attention_oracle(src, dst, m, q, k, v, bias=None):
    def scores(i, edges):
        score = (k[src[edges]] * q[i]).sum(-1) / k.shape[-1] ** 0.5
        return score if bias is None else score + bias[edges]

    return attend(src, dst, m, v, scores)


DOTS = {
    "dot": lambda a, b: (a * b).sum(-1),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


def sddmm_case(op):
    def inputs(values, n, m, e):
        b = values(n, 3, 5)
        return values(m, 3, 5), b.sign() * (b.abs() + 1) if op == "div" else b

    return Case(
        f"sddmm {op}",
        inputs,
        lambda plan, a, b: ops.sddmm(plan, a, b, op=op),
        lambda src, dst, m, a, b: DOTS[op](a[dst], b[src]),
    )


def spmm_cases():
    for reduce in ("sum", "mean", "max", "min"):

        def call(plan, x, weight=None, reduce=reduce):
            return ops.spmm(plan, x, weight, reduce=reduce)

        yield Case(
            f"spmm {reduce}",
            lambda values, n, m, e: (values(n, 6),),
            call,
            spmm_oracle(reduce),
        )
        yield Case(
            f"spmm {reduce}, weights",
            lambda values, n, m, e: (values(n, 6), values(e)),
            call,
            spmm_oracle(reduce),
        )
        yield Case(
            f"spmm {reduce}, weights per head",
            lambda values, n, m, e: (values(n, 3, 5), values(e, 3)),
            call,
            spmm_oracle(reduce),
        )


def scatter_cases():
    for reduce in ("sum", "mean", "max", "min", "mul"):
        twice = reduce != "mul"
        yield Case(
            f"scatter {reduce}",
            lambda values, n, m, e: (values(e, 6),),
            lambda plan, src, reduce=reduce: ops.scatter(
                src, plan.dst, plan.num_dst, reduce=reduce
            ),
            scatter_oracle(reduce),
            twice=twice,
        )
        yield Case(
            f"scatter {reduce}, planned",
            lambda values, n, m, e: (values(e, 2, 3),),
            lambda plan, src, reduce=reduce: ops.scatter(src, plan.dst, reduce=reduce, plan=plan),
            scatter_oracle(reduce),
            twice=twice,
        )

        def sorted_segment(plan, src, reduce=reduce):
            ordered = src if plan.is_sorted else src[plan.perm.long()]
            return ops.segment(ordered, plan.indptr, reduce=reduce)

        yield Case(
            f"segment {reduce}",
            lambda values, n, m, e: (values(e, 6),),
            sorted_segment,
            scatter_oracle(reduce),
            twice=twice,
        )


def softmax_cases():
    def logits(values, n, m, e):
        return (values(e, 3),)

    yield Case("edge softmax", logits, ops.edge_softmax, softmax_oracle)
    yield Case(
        "edge softmax, one head",
        lambda values, n, m, e: (values(e),),
        ops.edge_softmax,
        softmax_oracle,
    )
    for name, oracle, twice in (
        ("segment_softmax", softmax_oracle, True),
        ("segment_log_softmax", log_softmax_oracle, True),
        ("segment_logsumexp", logsumexp_oracle, True),
        ("segment_std", std_oracle, False),
    ):
        yield Case(
            name,
            logits,
            lambda plan, src, name=name: getattr(ops, name)(src, plan.dst, dim_size=plan.num_dst),
            oracle,
            twice=twice,
            smooth=name != "segment_std",
        )


def attention_cases():
    def gat(values, n, m, e):
        return values(n, 3, 5), values(n, 3), values(m, 3)

    def gatv2(values, n, m, e):
        return values(n, 3, 5), values(m, 3, 5), values(3, 5)

    def attention(values, n, m, e):
        return values(m, 3, 5), values(n, 3, 5), values(n, 3, 5)

    for name, inputs, call, oracle, extra in (
        ("gat", gat, ops.gat_aggregate, gat_oracle, (3,)),
        ("gatv2", gatv2, ops.gatv2_aggregate, gatv2_oracle, (3, 5)),
        ("attention", attention, ops.attention_aggregate, attention_oracle, (3,)),
    ):
        yield Case(name, inputs, call, oracle)
        yield Case(
            f"{name}, edge term",
            lambda values, n, m, e, inputs=inputs, extra=extra: (
                *inputs(values, n, m, e),
                values(e, *extra),
            ),
            call,
            oracle,
        )
    seed, p = 0x0123_4567_89AB_CDEF, 0.4
    yield Case(
        "gat, dropout",  # the operator itself, which is told the seed
        gat,
        lambda plan, *given: _GAT(plan, *given, None, torch.tensor(seed), 0.2, p)[0],
        lambda src, dst, m, *given: gat_oracle(
            src, dst, m, *given, keep=kept(len(src), given[0].shape[1], p, seed)
        ),
    )


def relu_oracle(src, dst, m, x, edge):
    def row(i, edges):
        return (x[src[edges]] + edge[edges]).relu().sum(0)

    return by_row(src, dst, m, row, torch.zeros(x.shape[1:], dtype=x.dtype))


def gated_oracle(src, dst, m, key, query, value):
    def row(i, edges):
        return ((key[i] + query[src[edges]]).sigmoid() * value[src[edges]]).sum(0)

    return by_row(src, dst, m, row, torch.zeros(value.shape[1:], dtype=value.dtype))


def message_cases():
    yield Case(
        "relu_aggregate",
        lambda values, n, m, e: (values(n, 6), values(e, 6)),
        ops.relu_aggregate,
        relu_oracle,
    )
    yield Case(
        "gated_aggregate",
        lambda values, n, m, e: (values(m, 6), values(n, 6), values(n, 6)),
        ops.gated_aggregate,
        gated_oracle,
    )


CASES = [
    Case(
        "gather",
        lambda values, n, m, e: (values(n, 6),),
        lambda plan, x: ops.gather(x, plan.src),
        lambda src, dst, m, x: x[src],
    ),
    Case(
        "gather, planned",
        lambda values, n, m, e: (values(n, 2, 3),),
        lambda plan, x: ops.gather(x, plan.src, plan=plan.T),
        lambda src, dst, m, x: x[src],
    ),
    *scatter_cases(),
    *spmm_cases(),
    Case(
        "spmm_multi",
        lambda values, n, m, e: (values(n, 6),),
        lambda plan, x: torch.cat(ops.spmm_multi(plan, x), 1),
        multi_oracle,
        twice=False,
        smooth=False,
    ),
    *(sddmm_case(op) for op in DOTS),
    *softmax_cases(),
    *attention_cases(),
    *message_cases(),
]


def values_of(seed, dtype=torch.float64):
    """Returns a function that draws normal numbers of a shape."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def edges_of(kind, seed=0):
    """Returns edge_index, N and M of a small graph of a kind."""
    random = torch.Generator().manual_seed(seed)
    n, m, e = {
        "random": (9, 7, 40),
        "sparse": (9, 30, 20),
        "star": (70, 3, 70),
        "none": (4, 3, 0),
        "nothing": (0, 0, 0),
    }[kind]
    if kind == "nothing":
        return torch.zeros(2, 0, dtype=torch.int64), 0, 0
    edge_index = torch.stack([torch.randint(s, (e,), generator=random) for s in (n, m)])
    if kind == "star":
        edge_index[1] = 1  # a long row between empty ones
    if kind == "random":
        edge_index[1][edge_index[1] == 2] = 3  # an empty row
        edge_index[:, 1] = edge_index[:, 0]  # an edge twice
    return edge_index, n, m


def plan_of(kind, index_dtype=torch.int64):
    edge_index, n, m = edges_of(kind)
    return edge_index, EdgePlan(edge_index.to(index_dtype), n, m)
