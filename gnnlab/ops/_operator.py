"""One operator, two ways in: a kernel called at once, or torch's dispatcher when someone looks on.

Eager calls on plain tensors take the short way: the kernel, or an `autograd.Function` around it.
Under torch.compile, torch.func, dispatch modes and tensor subclasses the same computation goes
through an operator registered with `torch.library`, with a fake kernel and the same gradient.

A plan crosses the dispatcher as seven values: `indptr, col, perm` by destination, the same by
source, and the number of sources; an order without columns as `indptr, perm, num_edges`. An empty
`perm` stands for edges that are in order already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, is_grad_enabled
from torch.autograd import Function
from torch.nn import Parameter

from gnnlab.ops._edges import Edges, Order, sort_edges
from gnnlab.ops._library import is_watched, transforms_active
from gnnlab.ops.plan import EdgePlan

__all__ = ["Operator", "Saved", "through"]

Values = tuple[Any, ...]
Keep = tuple[int | str, ...]

_LIBRARY: Any = torch.library.Library("gnnlab", "DEF")  # type: ignore[no-untyped-call]
_PLAN = (
    "Tensor indptr, Tensor col, Tensor perm, Tensor? indptr_t, Tensor? col_t, Tensor? perm_t, "
    "SymInt num_src"
)
_ORDER = "Tensor indptr, Tensor perm, SymInt num_edges"


def through(
    composed: Callable[..., Tensor],
    plan: EdgePlan,
    given: Sequence[Any],
    wanted: Sequence[int],
    grad: Tensor,
) -> Sequence[Tensor | None]:
    """Returns gradients that can be differentiated again, through a formula of operators.

    Args:
        composed: (plan, *given) -> the result, in differentiable operators.
        plan: the edges.
        given: the inputs.
        wanted: places of those whose gradients are returned.
        grad: gradient of the result.
    """
    if transforms_active():

        def again(*leaves: Tensor) -> Tensor:
            replaced = dict(zip(wanted, leaves, strict=True))
            return composed(plan, *(replaced.get(k, t) for k, t in enumerate(given)))

        found: Sequence[Tensor] = torch.func.vjp(again, *(given[k] for k in wanted))[1](grad)
        return found
    # The gradients must depend on the inputs themselves, not on copies: no detach here.
    return torch.autograd.grad(
        composed(plan, *given),
        [given[k] for k in wanted],
        grad,
        create_graph=True,
        allow_unused=True,
    )


class Saved(NamedTuple):
    """What a backward call gets to know; inputs are counted without the plan."""

    needs: Values  # whether each input wants a gradient
    tensors: list[Any]  # the inputs that are tensors; None where they were not kept
    options: Values  # the inputs behind the tensors
    shape: torch.Size  # of the first input
    outputs: dict[int, Tensor]  # the results that were kept


class Operator:
    """A function of tensors (and, first, perhaps a plan) with its gradient.

    Args:
        name: under which torch knows it: `torch.ops.gnnlab.<name>`.
        schema: arguments, tensors first, and results in torch's schema language; "plan" (an
            EdgePlan) or "order" (an Order) may stand before the tensors.
        run: computes it; called with gradients off.
        fake: returns empty tensors of the right shape; a plan is given by its sizes
            (num_src, num_dst, num_edges), an order by (num_rows, num_edges).
        grads: (saved, *gradients of results) -> gradients of inputs, the plan left out; made of
            differentiable operators. None: not differentiable.
        keep: which tensors `grads` reads: positions of inputs (the plan left out) and, as
            "out0", "out1", results; or a function of the inputs that says so.
        fold: position of the one input (the plan left out) whose batch may be folded into its
            features by torch.func.vmap; None: vmap calls the operator once per item.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        *,
        run: Callable[..., Any],
        fake: Callable[..., Any],
        grads: Callable[..., Sequence[Tensor | None]] | None = None,
        keep: Keep | Callable[[Values], Keep] = (),
        fold: int | None = None,
    ) -> None:
        self.name, self.run, self.grads, self.fold = name, run, grads, fold
        self.lists = schema.endswith("Tensor[]")  # torch.library hands gradients over as one list
        kind = next((k for k in _PREFIXES if schema.startswith(f"({k}")), "")
        self._prefix = _PREFIXES.get(kind)
        self._offset = 1 if self._prefix else 0
        if self._prefix:
            schema = schema.replace(f"({kind}", f"({self._prefix.schema}", 1)
        self._keep: Keep = () if callable(keep) else keep
        self._keeper: Callable[[Values], Keep] | None = keep if callable(keep) else None
        arguments, _, results = schema.partition(" -> ")
        self._num_tensors = arguments.count("Tensor ") + arguments.count("Tensor? ")
        if self._prefix:
            prefix = self._prefix.schema
            self._num_tensors -= prefix.count("Tensor ") + prefix.count("Tensor? ")
        self._may_hide = results.count("Tensor") > 1  # results that are places have no gradient
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, self._from_dispatcher, "CompositeExplicitAutograd")
        torch.library.register_fake(f"gnnlab::{name}", self._fake(fake), lib=_LIBRARY)
        torch.library.register_vmap(f"gnnlab::{name}", self._vmap, lib=_LIBRARY)
        if grads is not None:
            torch.library.register_autograd(
                f"gnnlab::{name}", self._library_backward, setup_context=self._library_setup,
                lib=_LIBRARY,
            )  # fmt: skip
        self._registered = getattr(torch.ops.gnnlab, name).default
        self.apply: Callable[..., Any] = self._make_function().apply
        self._transformed: Callable[..., Any] = self._make_transformed().apply

    def __call__(self, *args: Any) -> Any:
        """Computes the operator by the shortest way that is right."""
        wants = False
        traced = is_watched()
        for value in args:
            kind = type(value)
            if kind is Tensor or kind is Parameter:
                wants = wants or value.requires_grad
            elif isinstance(value, Tensor):
                traced = True
        if traced:
            return self.dispatch(*args)
        if wants and is_grad_enabled():
            return self.apply(*args)
        return self.run(*args)

    def dispatch(self, *args: Any) -> Any:
        """Computes it through torch's dispatcher."""
        return self._call(self.flat(*args))

    def _call(self, flat: Values) -> Any:
        if transforms_active() and not torch.compiler.is_compiling():
            return self._transformed(*flat)
        return self._registered(*flat)

    def flat(self, *args: Any) -> Values:
        """Returns the arguments as the registered operator takes them."""
        return (*self._prefix.flat(args[0]), *args[1:]) if self._prefix else args

    # ---- eager autograd ----------------------------------------------------------------------

    def _make_function(self) -> type[Function]:
        operator = self

        class Eager(Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                out = operator.run(*args)
                operator._save(ctx, args, out)
                return out

            @staticmethod
            def backward(ctx: Any, *gradients: Tensor | None) -> Any:
                if operator.lists:
                    gradients = cast(Any, (gradients,))
                found = operator._backward(ctx, ctx.needs_input_grad[operator._offset :], gradients)
                return (None, *found) if operator._offset else tuple(found)

        Eager.__name__ = Eager.__qualname__ = f"Gnnlab{self.name.title().replace('_', '')}"
        return Eager

    def _make_transformed(self) -> type[Function]:
        """The same for torch.func, which wants forward and setup apart and looks into both."""
        operator = self

        class Transformed(Function):
            @staticmethod
            def forward(*flat: Any) -> Any:
                out = operator._call(flat)
                return tuple(out) if isinstance(out, list) else out

            @staticmethod
            def setup_context(ctx: Any, inputs: Values, output: Any) -> None:
                operator._library_setup(ctx, inputs, output)

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> Any:
                if operator.lists:
                    gradients = (gradients,)
                return operator._library_backward(ctx, *gradients)

            @staticmethod
            def vmap(info: Any, in_dims: Values, *flat: Any) -> Any:
                return operator._vmap(info, in_dims, *flat)

        return Transformed

    def _save(self, ctx: Any, args: Values, out: Any) -> None:
        plan, inputs = (args[0], args[1:]) if self._offset else (None, args)
        keep = self._keep if self._keeper is None else self._keeper(inputs)
        ctx.facts = plan, inputs[self._num_tensors :], inputs[0].shape, keep
        if keep:
            outputs = out if isinstance(out, tuple | list) else (out,)
            kept = [inputs[k] if isinstance(k, int) else outputs[int(k[3:])] for k in keep]
            ctx.save_for_backward(*kept)
        if self._may_hide:
            ctx.mark_non_differentiable(*(o for o in out[1:] if not o.is_floating_point()))

    def _backward(self, ctx: Any, needs: Values, gradients: Values) -> Sequence[Tensor | None]:
        assert self.grads is not None
        plan, options, shape, keep = ctx.facts
        tensors: list[Tensor | None] = [None] * self._num_tensors
        outputs: dict[int, Tensor] = {}
        for place, tensor in zip(keep, ctx.saved_tensors if keep else (), strict=True):
            if isinstance(place, int):
                tensors[place] = tensor
            else:
                outputs[int(place[3:])] = tensor
        saved = Saved(needs, tensors, options, shape, outputs)
        if self._offset:
            return self.grads(saved, plan, *gradients)
        return self.grads(saved, *gradients)

    # ---- torch.library -----------------------------------------------------------------------

    def _from_dispatcher(self, *args: Any) -> Any:
        # Public functions see to layouts, but vmap and compilers choose their own behind them.
        given = tuple(a.contiguous() if isinstance(a, Tensor) else a for a in args)
        with torch.no_grad():
            return self.run(*self._unflat(given))

    def _unflat(self, args: Values) -> Values:
        if not self._prefix:
            return args
        return (self._prefix.restore(*args[: self._skipped]), *args[self._skipped :])

    @property
    def _skipped(self) -> int:
        return self._prefix.items if self._prefix else 0

    def _fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        prefix = self._prefix
        if prefix is None:
            return fake
        return lambda *args: fake(prefix.sizes(args), *args[prefix.items :])

    def _library_setup(self, ctx: Any, inputs: Values, output: Any) -> None:
        self._save(ctx, self._unflat(inputs), output)

    def _library_backward(self, ctx: Any, *gradients: Tensor | None) -> Values:
        found = self._backward(ctx, tuple(ctx.needs_input_grad[self._skipped :]), gradients)
        return (*[None] * self._skipped, *found)

    def _vmap(self, info: Any, in_dims: Values, *args: Any) -> Any:
        batched = [k for k, dim in enumerate(in_dims) if isinstance(dim, int)]
        if self.fold is not None and batched == [self.fold + self._skipped]:
            place = batched[0]
            folded = [*args]
            folded[place] = args[place].movedim(in_dims[place], -1)
            out = self._call(tuple(folded))
            return out, out.dim() - 1
        results = []
        for item in range(info.batch_size):
            picked = [
                a.select(dim, item) if isinstance(dim, int) else a
                for a, dim in zip(args, in_dims, strict=True)
            ]
            results.append(self._call(tuple(picked)))
        if isinstance(results[0], tuple | list):
            stacked = tuple(torch.stack(column) for column in zip(*results, strict=True))
            return stacked, (0,) * len(stacked)
        return torch.stack(results), 0


def flat_plan(plan: EdgePlan) -> Values:
    """Returns a plan as the seven values that cross the dispatcher."""
    by_dst, by_src = plan.order, plan.T.order
    return (*_three(by_dst), *_three(by_src), plan.num_src)


def _three(order: Order) -> tuple[Tensor, Tensor, Tensor]:
    col = order.col
    assert col is not None
    return order.indptr, col, col.new_empty(0) if order.perm is None else order.perm


def plan_of(
    indptr: Tensor,
    col: Tensor,
    perm: Tensor,
    indptr_t: Tensor | None,
    col_t: Tensor | None,
    perm_t: Tensor | None,
    num_src: int,
) -> EdgePlan:
    """Returns the plan that `flat_plan` took apart."""
    num_edges = col.shape[0]
    orders: list[Order | None] = [None, Order(indptr, col, _perm(perm, col), num_edges)]
    if indptr_t is not None and col_t is not None and perm_t is not None:
        orders[0] = Order(indptr_t, col_t, _perm(perm_t, col_t), num_edges)
    sizes = (num_src, indptr.shape[0] - 1)
    known: list[bool | None] = [None, None]
    return EdgePlan._of(Edges(None, sizes, num_edges, col.device, known, orders, {}), 1)


def _perm(perm: Tensor, col: Tensor) -> Tensor | None:
    return None if perm.shape[0] != col.shape[0] else perm


def _flat_order(order: Order) -> Values:
    perm = order.indptr.new_empty(0) if order.perm is None else order.perm
    return order.indptr, perm, order.num_edges


def _order_of(indptr: Tensor, perm: Tensor, num_edges: int) -> Order:
    return Order(indptr, None, None if perm.shape[0] != num_edges else perm, num_edges)


class _Prefix(NamedTuple):
    """How a first argument that is no tensor crosses the dispatcher."""

    schema: str
    items: int
    flat: Callable[[Any], Values]
    restore: Callable[..., Any]
    sizes: Callable[[Values], Values]  # what a fake kernel is told


_PREFIXES = {
    "plan": _Prefix(
        _PLAN, 7, flat_plan, plan_of, lambda a: (a[6], a[0].shape[0] - 1, a[1].shape[0])
    ),
    "order": _Prefix(_ORDER, 3, _flat_order, _order_of, lambda a: (a[0].shape[0] - 1, a[2])),
}


def _sort_edges_fake(key: Tensor, other: Tensor, num_keys: int, num_other: int) -> Values:
    col = key.new_empty(key.shape, dtype=torch.int32)
    return key.new_empty(num_keys + 1, dtype=torch.int64), col, torch.empty_like(col)


SORT_EDGES = Operator(
    "sort_edges",
    "(Tensor key, Tensor other, SymInt num_keys, SymInt num_other) -> (Tensor, Tensor, Tensor)",
    run=sort_edges,
    fake=_sort_edges_fake,
)
