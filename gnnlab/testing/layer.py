"""check_layer: what every layer must keep, whoever wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gnnlab import ops
from gnnlab.graph import Graph
from gnnlab.ops import EdgePlan

__all__ = ["check_layer"]

MakeLayer = Callable[[], nn.Module]
CallLayer = Callable[..., Tensor]


def check_layer(
    make_layer: MakeLayer,
    *,
    in_dim: int = 5,
    out_dim: int | None = None,
    bipartite: bool = True,
    edge_weight: bool = False,
    edge_dim: int | None = None,
    call: CallLayer | None = None,
    edge_types: int | None = None,
    seed: int = 0,
) -> None:
    """Runs the conformance suite on a layer; returns nothing when the layer keeps every promise.

    The layer is called as ``layer(x, edges)`` with `edges` an edge_index, a `Graph` or an
    `EdgePlan`. Checked are: shape and dtype of the result; permutation of nodes and of edges; a
    batch of graphs equals its graphs one by one; isolated nodes and zero edges; gradients against
    finite differences; compiled kernels equal to plain torch; float32, float64 and bf16 autocast;
    the state_dict round trip; same bits from call to call; ``torch.compile(fullgraph=True)`` unless
    the class says ``compiles = False``; the same on a GPU, if there is one; a useful repr; a BibTeX
    `citation`.

    Args:
        make_layer: makes the layer; called several times, each after seeding torch.
        in_dim: number of features the layer takes.
        out_dim: number of features it gives; by default as many as it takes.
        bipartite: whether it takes a pair (x_src, x_dst).
        edge_weight: whether it takes one number per edge as third argument.
        edge_dim: number of edge features that it takes as third argument; None: it takes none.
        call: for layers that are called otherwise: ``call(layer, x, edges)``, or with a third
            argument, returns one row per node. It gets edges in all their forms.
        edge_types: number of edge types, if it takes the type of each edge as third argument.
        seed: for all random numbers.

    Raises:
        AssertionError: with a sentence saying which promise is broken, and how far.

    Example:
        >>> from gnnlab.layers import LGConv
        >>> from gnnlab.testing.layer import check_layer
        >>> check_layer(LGConv, edge_weight=True)
    """
    case = _Case(
        make_layer,
        in_dim,
        in_dim if out_dim is None else out_dim,
        edge_weight,
        edge_dim,
        edge_types,
        seed,
        call,
    )
    _check_shapes(case)
    _check_permutation(case)
    _check_batch(case)
    _check_isolated(case)
    _check_gradient(case)
    _check_backends(case)
    _check_dtypes(case)
    _check_state(case)
    _check_compiler(case)
    _check_device(case)
    _check_description(case)
    if bipartite:
        _check_bipartite(case)


class _Case:
    """A layer under test with one random graph: repeated edges, and a node without any."""

    def __init__(
        self,
        make_layer: MakeLayer,
        in_dim: int,
        out_dim: int,
        weighted: bool,
        edge_dim: int | None,
        edge_types: int | None,
        seed: int,
        how: CallLayer | None,
    ) -> None:
        self.make_layer, self.in_dim, self.out_dim = make_layer, in_dim, out_dim
        self.weighted, self.edge_dim, self.seed = weighted, edge_dim, seed
        self.how: CallLayer = nn.Module.__call__ if how is None else how
        self.edge_types = edge_types
        self.random = torch.Generator().manual_seed(seed)
        self.num_nodes, self.num_edges = 12, 40
        self.edge_index = self.edges(self.num_nodes - 1, self.num_edges)
        self.x = self.features(self.num_nodes)
        self.weight = self.weights(self.num_edges)
        self.layer = self.make().double()

    @property
    def name(self) -> str:
        return type(self.layer).__name__

    def make(self) -> nn.Module:
        """Makes the layer with the same parameters each time, ready to be compared."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.make_layer().eval()

    def edges(self, num_nodes: int, num_edges: int) -> Tensor:
        return torch.randint(num_nodes, (2, num_edges), generator=self.random)

    def features(self, rows: int) -> Tensor:
        return torch.randn(rows, self.in_dim, generator=self.random, dtype=torch.float64)

    def weights(self, num_edges: int) -> Tensor | None:
        """Returns the third argument: types, features or weights of the edges, or None."""
        if self.edge_types is not None:
            return torch.randint(self.edge_types, (num_edges,), generator=self.random)
        if self.edge_dim is not None:
            return torch.randn(num_edges, self.edge_dim, generator=self.random, dtype=torch.float64)
        if not self.weighted:
            return None
        return torch.rand(num_edges, generator=self.random, dtype=torch.float64) + 0.5

    def call(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edges: Tensor | Graph | EdgePlan,
        weight: Tensor | None = None,
        layer: nn.Module | None = None,
    ) -> Tensor:
        layer = self.layer if layer is None else layer
        return self.how(layer, x, edges) if weight is None else self.how(layer, x, edges, weight)

    def require(self, held: bool, promise: str) -> None:
        if not held:
            raise AssertionError(f"{self.name} breaks a promise of layers: {promise}")

    def equal(self, a: Tensor, b: Tensor, promise: str, tolerance: float = 1e-9) -> None:
        self.require(a.shape == b.shape, f"{promise} (shapes {tuple(a.shape)}, {tuple(b.shape)})")
        far = float((a.detach().double() - b.detach().double()).abs().max()) if a.numel() else 0.0
        self.require(far <= tolerance, f"{promise} (differs by {far:.3g}, allowed {tolerance:.1g})")


def _check_shapes(c: _Case) -> None:
    out = c.call(c.x, c.edge_index, c.weight)
    c.require(
        out.shape == (c.num_nodes, c.out_dim),
        f"the result has shape ({c.num_nodes}, {c.out_dim}), not {tuple(out.shape)}",
    )
    c.require(out.dtype == c.x.dtype, f"the result has the dtype of x, not {out.dtype}")
    c.require(bool(out.isfinite().all()), "finite x gives a finite result")
    c.require(torch.equal(out, c.call(c.x, c.edge_index, c.weight)), "two calls give the same bits")
    graph = Graph(c.edge_index, c.num_nodes)
    c.equal(c.call(c.x, graph, c.weight), out, "a Graph gives what its edge_index gives")
    c.equal(c.call(c.x, graph.plan, c.weight), out, "an EdgePlan gives what edge_index gives")
    if c.weighted:
        carried = Graph(c.edge_index, c.num_nodes, edge_weight=c.weight)
        c.equal(c.call(c.x, carried), out, "weights of the Graph count as edge_weight")
    strided = torch.stack((c.x, c.x), 2)[:, :, 0]
    c.equal(c.call(strided, c.edge_index, c.weight), out, "x need not be contiguous")
    c.equal(c.call(c.x, c.edge_index.int(), c.weight), out, "int32 edges give the same")


def _check_permutation(c: _Case) -> None:
    out = c.call(c.x, c.edge_index, c.weight)
    order = torch.randperm(c.num_nodes, generator=c.random)
    place = order.argsort()
    moved = c.call(c.x[order], place[c.edge_index], c.weight)
    c.equal(moved, out[order], "permuting nodes permutes the result")
    shuffle = torch.randperm(c.num_edges, generator=c.random)
    weight = None if c.weight is None else c.weight[shuffle]
    c.equal(
        c.call(c.x, c.edge_index[:, shuffle], weight), out, "the order of edges does not matter"
    )


def _check_batch(c: _Case) -> None:
    sizes, counts = (4, 7, 3), (9, 15, 0)
    xs = [c.features(n) for n in sizes]
    parts = [c.edges(n, e) for n, e in zip(sizes, counts, strict=True)]
    weights = [c.weights(e) for e in counts]
    alone = [c.call(*given) for given in zip(xs, parts, weights, strict=True)]
    plan = EdgePlan.batch([EdgePlan(e, n, n) for e, n in zip(parts, sizes, strict=True)])
    weight = None if weights[0] is None else torch.cat([w for w in weights if w is not None])
    c.equal(
        c.call(torch.cat(xs), plan, weight),
        torch.cat(alone),
        "a batch of graphs gives what its graphs give one by one",
    )


def _check_isolated(c: _Case) -> None:
    none = c.edge_index[:, :0]
    weight = None if c.weight is None else c.weight[:0]
    out = c.call(c.x, none, weight)
    c.require(out.shape == (c.num_nodes, c.out_dim), "zero edges give a result of the usual shape")
    c.require(bool(out.isfinite().all()), "zero edges give a finite result")
    empty = c.call(c.x[:0], none, weight)
    c.require(empty.shape == (0, c.out_dim), "zero nodes give a result with zero rows")
    full = c.call(c.x, c.edge_index, c.weight)
    last = c.num_nodes - 1  # has no edge
    c.equal(full[last:], out[last:], "a node without edges does not depend on the others")


class _Called(nn.Module):
    """A layer with the way to call it, as one module."""

    def __init__(self, c: _Case) -> None:
        super().__init__()
        self.layer, self.how = c.layer, c.how

    def forward(self, *given: Tensor | EdgePlan) -> Tensor:
        return self.how(self.layer, *given)


def _check_gradient(c: _Case) -> None:
    module = _Called(c)
    plan = EdgePlan(c.edge_index, c.num_nodes, c.num_nodes)
    inputs = [c.x.clone().requires_grad_()]
    fixed = () if c.weight is None or c.weight.is_floating_point() else (c.weight,)
    if c.weight is not None and not fixed:
        inputs.append(c.weight.clone().requires_grad_())
    names = [name for name, _ in module.named_parameters()]
    inputs += [p.detach().clone().requires_grad_() for p in module.parameters()]
    first = len(inputs) - len(names)

    def forward(*given: Tensor) -> Tensor:
        replaced = dict(zip(names, given[first:], strict=True))
        out: Tensor = torch.func.functional_call(
            module, replaced, (given[0], plan, *fixed, *given[1:first])
        )
        return out

    try:
        torch.autograd.gradcheck(forward, inputs, fast_mode=True)
    except RuntimeError as error:
        c.require(False, f"gradients equal finite differences: {error}")


def _check_backends(c: _Case) -> None:
    def both_ways(backend: str) -> tuple[Tensor, Tensor]:
        x = c.x.clone().requires_grad_()
        with ops.use_backend("reference" if backend == "reference" else "auto"):
            out = c.call(x, Graph(c.edge_index, c.num_nodes), c.weight)
            (grad,) = torch.autograd.grad(out.square().sum(), x)
        return out.detach(), grad

    (out, grad), (expected, expected_grad) = both_ways("auto"), both_ways("reference")
    c.equal(out, expected, "compiled kernels give what plain torch gives")
    c.equal(grad, expected_grad, "compiled kernels give the gradient that plain torch gives")


def _check_dtypes(c: _Case) -> None:
    expected = c.call(c.x, c.edge_index, c.weight)
    scale = 1.0 + float(expected.abs().max())
    single = c.make().float()
    weight = c.weight
    if weight is not None and weight.is_floating_point():
        weight = weight.float()
    out = c.call(c.x.float(), c.edge_index, weight, single)
    c.require(out.dtype == torch.float32, f"float32 gives float32, not {out.dtype}")
    c.equal(out, expected, "float32 agrees with float64", 1e-4 * scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = c.call(c.x.float(), c.edge_index, weight, single)
        half = c.call(c.x.bfloat16(), c.edge_index, weight, single)
    for result, word in ((mixed, "float32"), (half, "bfloat16")):
        c.require(result.is_floating_point(), f"bf16 autocast takes {word}")
        c.equal(result, expected, f"bf16 autocast of {word} agrees with float64", 0.1 * scale)


def _check_state(c: _Case) -> None:
    expected = c.call(c.x, c.edge_index, c.weight)
    other = c.make_layer().eval().double()
    try:
        other.load_state_dict(c.layer.state_dict())
    except RuntimeError as error:
        c.require(False, f"state_dict can be loaded again: {error}")
    out = c.call(c.x, c.edge_index, c.weight, other)
    c.require(torch.equal(out, expected), "a layer with the same state_dict gives the same bits")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        again = c.call(c.x, c.edge_index, c.weight)
    finally:
        torch.use_deterministic_algorithms(before)
    c.require(torch.equal(again, expected), "deterministic algorithms give the same bits")


def _check_compiler(c: _Case) -> None:
    if not getattr(c.layer, "compiles", True):
        return
    torch.compiler.reset()  # else many layers in a row count as recompilations of one function
    weight = () if c.weight is None else (c.weight,)
    compiled = torch.compile(_Called(c), backend="eager", fullgraph=True)
    expected = c.call(c.x, c.edge_index, c.weight)
    for edges, word in (
        (c.edge_index, "an edge_index"),
        (Graph(c.edge_index, c.num_nodes), "a Graph"),
    ):
        try:
            out = compiled(c.x, edges, *weight)
        except (RuntimeError, TypeError) as error:  # Dynamo's errors are RuntimeErrors
            line = str(error).strip().partition("\n")[0]
            c.require(False, f"torch.compile(fullgraph=True) takes it with {word}: {line}")
        c.equal(out, expected, f"torch.compile changes nothing with {word}")


def _check_device(c: _Case) -> None:
    """The same on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return
    expected = c.call(c.x, c.edge_index, c.weight)
    layer = c.make().double().cuda()
    weight = None if c.weight is None else c.weight.cuda()
    out = c.call(c.x.cuda(), c.edge_index.cuda(), weight, layer)
    c.equal(out.cpu(), expected, "a GPU gives what the CPU gives")


def _check_description(c: _Case) -> None:
    c.require(c.name in repr(c.layer), f"repr names the class, got {c.layer!r}")
    c.require(" object at 0x" not in repr(c.layer), f"repr says something, got {c.layer!r}")
    citation = getattr(type(c.layer), "citation", None)
    c.require(
        isinstance(citation, str) and citation.lstrip().startswith("@"),
        "the class attribute `citation` holds BibTeX",
    )
    c.require(bool(inspect.getdoc(type(c.layer))), "the class has a docstring")


def _check_bipartite(c: _Case) -> None:
    num_src, num_dst = 6, 9
    edge_index = torch.stack(
        [torch.randint(n, (20,), generator=c.random) for n in (num_src, num_dst)]
    )
    x = (c.features(num_src), c.features(num_dst))
    weight = c.weights(20)
    out = c.call(x, edge_index, weight)
    c.require(
        out.shape == (num_dst, c.out_dim),
        f"a pair (x_src, x_dst) gives one row per target, not {tuple(out.shape)}",
    )
    graph = Graph(edge_index, (num_src, num_dst))
    c.equal(c.call(x, graph, weight), out, "a bipartite Graph gives what its edge_index gives")
