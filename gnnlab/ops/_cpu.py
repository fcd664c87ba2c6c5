"""The operators of `_kernels.Kernels` on the CPU library: pointers in, fresh tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, get_num_threads

from gnnlab.ops._arguments import flat_width, rows_in_place
from gnnlab.ops._edges import Order
from gnnlab.ops._kernels import Operands, Statistics
from gnnlab.ops._library import Library
from gnnlab.ops.reference_attention import VALUES

__all__ = ["DTYPES", "SCATTER_STRATEGIES", "CpuKernels"]

_KEPT_FROM = 1 << 16  # edges from which it pays to keep weights that do not change

DTYPES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.int32: 4,
    torch.int64: 5,
}
REDUCES = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4}
SDDMM = {"dot": 0, "add": 1, "sub": 2, "mul": 3, "div": 4}
SOFTMAX = {"softmax": 0, "log_softmax": 1, "logsumexp": 2}
SCATTER_STRATEGIES = {"auto": 0, "scan": 1, "sort": 2}


def _heads(x: Tensor, weight: Tensor | None) -> tuple[int, int, int]:
    """Returns heads, width of a head and heads of the weight; 1 head where the weight has one."""
    shape = x.shape
    width = shape[1] if len(shape) == 2 else flat_width(x)
    if weight is None:
        return 1, width, 0
    if weight.dim() == 1:
        return 1, width, 1
    heads = weight.shape[1]
    return heads, width // heads if heads else 0, heads


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _row_of(order: Order) -> tuple[int | None, int]:
    """Returns where the rows of the caller's edges lie, and their item size; none when sorted."""
    if order.perm is None:
        return None, 0
    rows = order.rows()
    return rows.data_ptr(), rows.element_size()


class _Kept(NamedTuple):
    """Weights of an earlier call, as given and sorted, with the order that reads the latter."""

    given: Tensor
    sorted: Tensor
    order: Order


class CpuKernels:
    """Calls the library; `scatter_strategy` is for tests of both strategies."""

    name = "cpu"

    def __init__(self, library: Library) -> None:
        self.library = library
        self.scatter_strategy = "auto"
        # Looked up once: the small calls of small graphs are counted in microseconds.
        self._check = library.check
        self._gather, self._reduce = library.gather, library.reduce

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """See `Kernels.gather`."""
        rows, step = rows_in_place(x)
        shape, size, num_edges = x.shape, x.element_size(), index.shape[0]
        out = x.new_empty(num_edges, *shape[1:])
        items = shape[1] if len(shape) == 2 else flat_width(x)
        status = self._gather(
            rows.data_ptr(),
            step * size,
            index.data_ptr(),
            index.element_size(),
            num_edges,
            shape[0],
            items * size,
            out.data_ptr(),
            get_num_threads(),
        )
        if status:
            self._check(status)
        return out

    def scatter(
        self, src: Tensor, index: Tensor, size: int, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Kernels.scatter`."""
        rows, step = rows_in_place(src)
        out = src.new_empty(size, *src.shape[1:])
        arg = torch.empty_like(out, dtype=torch.int64) if want_arg else None
        self._check(
            self.library.scatter(
                rows.data_ptr(),
                step,
                index.data_ptr(),
                index.element_size(),
                index.shape[0],
                size,
                _heads(src, None)[1],
                REDUCES[reduce],
                DTYPES[src.dtype],
                out.data_ptr(),
                _pointer(arg),
                SCATTER_STRATEGIES[self.scatter_strategy],
                get_num_threads(),
            )
        )
        return out, arg

    def reduce(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See `Kernels.reduce`."""
        shape, num_rows = x.shape, order.num_rows
        if weight is not None:
            order, weight = self._in_place(order, weight)
        if len(shape) == 2 and x.is_contiguous() and (weight is None or weight.dim() == 1):
            rows, heads = x, 1
            step = width = shape[1]
            weight_heads = 0 if weight is None else 1
            out = x.new_empty(num_rows, width)
        else:
            rows, step = rows_in_place(x)
            heads, width, weight_heads = _heads(x, weight)
            out = x.new_empty(num_rows, *shape[1:])
        arg = torch.empty_like(out, dtype=order.place_dtype) if want_arg else None
        status = self._reduce(
            order.address or order.locate(),
            rows.data_ptr(),
            step,
            heads,
            width,
            None if weight is None else weight.data_ptr(),
            weight_heads,
            REDUCES[reduce],
            DTYPES[x.dtype],
            out.data_ptr(),
            None if arg is None else arg.data_ptr(),
            get_num_threads(),
        )
        if status:
            self._check(status)
        return out, arg

    def _in_place(self, order: Order, weight: Tensor) -> tuple[Order, Tensor]:
        """Returns the weights in the order of places and `order` without perm, if both are at hand.

        Reading weights through perm can cost as much as reading the rows of x. Weights that are
        given again and again, as those of a normalised adjacency are, are therefore kept sorted:
        noticed at the second call by a sample, and compared with a copy, whole, at every later one.
        """
        if order.perm is None or order.num_edges < _KEPT_FROM or not weight.is_contiguous():
            return order, weight
        weight = weight.detach()
        facts, size = order.facts, weight.numel() * weight.element_size()
        kept: _Kept | None = facts.get("weight")
        if (
            kept is not None
            and kept.given.shape == weight.shape
            and kept.given.dtype == weight.dtype
            and self.library.same_bytes(kept.given.data_ptr(), weight.data_ptr(), size)
        ):
            return kept.order, kept.sorted
        sample = weight.view(-1)[:: max(weight.numel() // 61, 1)].clone()
        before = facts.get("weight sample")
        facts["weight sample"] = sample
        if before is None or not torch.equal(before, sample):
            facts.pop("weight", None)
            return order, weight
        in_place = Order(order.indptr, order.col, None, order.num_edges)
        kept = facts["weight"] = _Kept(weight.clone(), weight.index_select(0, order.perm), in_place)
        return kept.order, kept.sorted

    def reduce_multi(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: tuple[str, ...]
    ) -> list[Tensor]:
        """See `Kernels.reduce_multi`."""
        rows, step = rows_in_place(x)
        results = {name: x.new_empty((order.num_rows, *x.shape[1:])) for name in reduce}
        self._check(
            self.library.reduce_multi(
                order.address or order.locate(),
                rows.data_ptr(),
                step,
                *_heads(x, weight)[:2],
                _pointer(weight),
                _heads(x, weight)[2],
                DTYPES[x.dtype],
                *(_pointer(results.get(name)) for name in ("sum", "mean", "max", "min", "std")),
                get_num_threads(),
            )
        )
        return [results[name] for name in reduce]

    def reduce_arg_backward(
        self,
        order: Order,
        grad: Tensor,
        arg: Tensor,
        num_src: int,
        x: Tensor | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """See `Kernels.reduce_arg_backward`."""
        gx = grad.new_empty((num_src, *grad.shape[1:]))
        gweight = None if weight is None or x is None else torch.empty_like(weight)
        rows, step = (None, 0) if x is None else rows_in_place(x)
        heads, width, weight_heads = _heads(grad, weight)
        self._check(
            self.library.reduce_arg_backward(
                order.address or order.locate(),
                grad.data_ptr(),
                arg.data_ptr(),
                _pointer(rows),
                step,
                heads,
                width,
                _pointer(weight),
                weight_heads,
                num_src,
                DTYPES[grad.dtype],
                gx.data_ptr(),
                _pointer(gweight),
                get_num_threads(),
            )
        )
        return gx, gweight

    def spmm_backward(
        self, order: Order, grad: Tensor, x: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `Kernels.spmm_backward`."""
        grad_rows, grad_step = rows_in_place(grad)
        rows, step = rows_in_place(x)
        gx, gweight = torch.empty(x.shape, dtype=x.dtype), torch.empty_like(weight)
        heads, width, weight_heads = _heads(x, weight)
        self._check(
            self.library.spmm_backward(
                order.address or order.locate(),
                grad_rows.data_ptr(),
                grad_step,
                rows.data_ptr(),
                step,
                heads,
                width,
                weight.data_ptr(),
                weight_heads,
                DTYPES[x.dtype],
                gx.data_ptr(),
                gweight.data_ptr(),
                get_num_threads(),
            )
        )
        return gx, gweight

    def sddmm(self, order: Order, a: Tensor, b: Tensor, op: str) -> Tensor:
        """See `Kernels.sddmm`."""
        heads, width = b.shape[1:]
        out = b.new_empty(
            (order.num_edges, heads) if op == "dot" else (order.num_edges, *b.shape[1:])
        )
        self._check(
            self.library.sddmm(
                order.address or order.locate(),
                a.data_ptr(),
                heads * width,
                b.data_ptr(),
                heads * width,
                heads,
                width,
                SDDMM[op],
                DTYPES[b.dtype],
                out.data_ptr(),
                get_num_threads(),
            )
        )
        return out

    def softmax(self, order: Order, src: Tensor, kind: str) -> Tensor:
        """See `Kernels.softmax`."""
        heads = src.shape[1]
        out = (
            src.new_empty((order.num_rows, heads)) if kind == "logsumexp" else torch.empty_like(src)
        )
        self._check(
            self.library.softmax(
                order.address or order.locate(),
                *_row_of(order),
                src.data_ptr(),
                heads,
                SOFTMAX[kind],
                DTYPES[src.dtype],
                out.data_ptr(),
                get_num_threads(),
            )
        )
        return out

    def softmax_backward(self, order: Order, out: Tensor, grad: Tensor, kind: str) -> Tensor:
        """See `Kernels.softmax_backward`."""
        result = torch.empty_like(out)
        self._check(
            self.library.softmax_backward(
                order.address or order.locate(),
                *_row_of(order),
                out.data_ptr(),
                grad.data_ptr(),
                out.shape[1],
                SOFTMAX[kind],
                DTYPES[out.dtype],
                result.data_ptr(),
                get_num_threads(),
            )
        )
        return result

    def attend(
        self, kind: str, order: Order, given: Operands, options: tuple[float, ...]
    ) -> Statistics:
        """See `Kernels.attend`."""
        v = cast(Tensor, given[VALUES[kind]])
        heads, width = v.shape[1:]
        out = v.new_empty((order.num_rows, heads, width))
        wide = torch.float64 if v.dtype == torch.float64 else torch.float32
        largest = v.new_empty((order.num_rows, heads), dtype=wide)
        total = torch.empty_like(largest)
        self._check(
            getattr(self.library, kind)(
                order.address or order.locate(),
                *map(_pointer, given),
                heads,
                width,
                *options,
                DTYPES[v.dtype],
                out.data_ptr(),
                largest.data_ptr(),
                total.data_ptr(),
                get_num_threads(),
            )
        )
        return out, largest, total

    def attend_backward(
        self,
        kind: str,
        order: Order,
        order_t: Order,
        grad: Tensor,
        result: Statistics,
        given: Operands,
        options: tuple[float, ...],
    ) -> Operands:
        """See `Kernels.attend_backward`."""
        out, largest, total = result
        heads, width = out.shape[1:]
        first, second, third = (torch.empty_like(tensor) for tensor in given[:3])
        last = None if given[3] is None else torch.empty_like(given[3])
        self._check(
            getattr(self.library, f"{kind}_backward")(
                order.address or order.locate(),
                order_t.address or order_t.locate(),
                grad.data_ptr(),
                out.data_ptr(),
                *map(_pointer, given),
                largest.data_ptr(),
                total.data_ptr(),
                heads,
                width,
                *options,
                DTYPES[out.dtype],
                first.data_ptr(),
                second.data_ptr(),
                third.data_ptr(),
                _pointer(last),
                get_num_threads(),
            )
        )
        return first, second, third, last

    def sum_messages(self, kind: str, order: Order, given: Sequence[Tensor]) -> Tensor:
        """See `Kernels.sum_messages`."""
        width = given[-1].shape[1]
        out = given[0].new_empty((order.num_rows, width))
        self._check(
            getattr(self.library, kind)(
                order.address or order.locate(),
                *map(_pointer, given),
                width,
                DTYPES[out.dtype],
                out.data_ptr(),
                get_num_threads(),
            )
        )
        return out

    def sum_messages_backward(
        self,
        kind: str,
        order: Order,
        order_t: Order,
        grad: Tensor,
        given: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> list[Tensor | None]:
        """See `Kernels.sum_messages_backward`."""
        found = [torch.empty_like(t) if n else None for t, n in zip(given, needs, strict=True)]
        orders = (order_t,) if kind == "relu_sum" else (order, order_t)
        self._check(
            getattr(self.library, f"{kind}_backward")(
                *(o.address or o.locate() for o in orders),
                grad.data_ptr(),
                *map(_pointer, given),
                grad.shape[1],
                DTYPES[grad.dtype],
                *map(_pointer, found),
                get_num_threads(),
            )
        )
        return found
