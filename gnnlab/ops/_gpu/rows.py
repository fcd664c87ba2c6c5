"""Row copies and reductions on the GPU: gather.cu, rows.cu, multi.cu and arg.cu."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu._facts import chunks_of, kept, rows_of, sources_of
from gnnlab.ops._gpu._launch import (
    TYPE_NAMES,
    Argument,
    Provider,
    RawRows,
    Unit,
    index_name,
    row_stride,
    row_width,
    unit,
)

__all__ = ["VARIANTS", "Rows"]

BLOCK = 256
_WORDS = ((16, "w16"), (8, "u64"), (4, "u32"), (2, "u16"), (1, "u8"))
_REDUCES = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4}
_FLOATS = ("f32", "f64", "bf16", "f16")
_BYTES = {"f32": 4, "f64": 8, "bf16": 2, "f16": 2, "i32": 4, "i64": 8}


def _variants() -> list[Unit]:
    units = [unit("gather", W=word, I=index) for _, word in _WORDS for index in ("i32", "i64")]
    for index, (dtype, size) in product(("i32", "i64"), _BYTES.items()):
        floating = dtype in _FLOATS
        for vec, weight in product((1, 16 // size), range(3 if floating else 1)):
            units += [
                _rows_unit(dtype, index, vec, weight, reduce, arg)
                for reduce, arg in product(range(5), (0, 1))
                if (arg == 0 or reduce in (2, 3)) and (reduce != 1 or floating)
            ]
            if floating:
                units.append(_multi_unit(dtype, index, vec, weight))
        if floating:
            units += [_arg_unit(dtype, index, v) for v in (1, 16 // max(size, _BYTES[index]))]
    return units


def _rows_unit(dtype: str, index: str, vec: int, weight: int, reduce: int, arg: int) -> Unit:
    return unit("rows", DTYPE=dtype, I=index, VEC=vec, WEIGHT=weight, REDUCE=reduce, ARG=arg)


def _multi_unit(dtype: str, index: str, vec: int, weight: int) -> Unit:
    return unit("multi", DTYPE=dtype, I=index, VEC=vec, WEIGHT=weight)


def _arg_unit(dtype: str, index: str, vec: int) -> Unit:
    return unit("arg", DTYPE=dtype, I=index, VEC=vec)


VARIANTS: list[Unit] = _variants()


class Layout(NamedTuple):
    """How lanes share the columns of a row; see rows.cuh."""

    vec: int
    group: int
    lanes: int
    tiles: int

    def grid(self, groups: int) -> tuple[int, int]:
        """Returns the grid that has `groups` groups for every tile."""
        return -(-groups // (BLOCK // self.group)), self.tiles


class Weights(NamedTuple):
    """The weight of each edge as kernels take it."""

    kind: int
    """What -DWEIGHT is: 0 none, 1 one per edge, 2 one per edge and head."""
    tensor: Tensor | None
    heads: int
    width: int


class Rows(Provider):
    """gather, scatter and the reductions."""

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """See Kernels.gather. A row of a wrong index is filled with NaN, or -1."""
        out = self.launcher.empty((index.shape[0], *x.shape[1:]), x.dtype, x.device)
        item = x.element_size()
        rows, length = _in_rows(x), row_width(x) * item
        stride, span = row_stride(rows) * item, RawRows(rows.data_ptr(), 0)
        self._gather(rows, span, stride, length, x.shape[0], index, out, None, None)
        return out

    def gather_rows(
        self,
        pointer: int,
        stride_bytes: int,
        row_bytes: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None = None,
        cache: Tensor | None = None,
        *,
        num_rows: int | None = None,
    ) -> None:
        """Copies rows out of memory that the device can read, such as pinned host memory.

        Args:
            pointer: address of row 0, as the device sees it.
            stride_bytes: from one row to the next.
            row_bytes: length of a row.
            index: rows wanted, (n,) int32 or int64 on the device.
            out: filled with them, (n, ...) contiguous.
            slots: (N,) int32 on the device: where a row lies in `cache`, -1 when it is not there.
            cache: rows kept on the device, rows with unit inner stride.
            num_rows: number of rows N; then wrong indices are noticed and their rows of `out`
                filled with NaN (or -1). Without it, or `slots`, they must be right.
        """
        if num_rows is None:
            num_rows = 2**62 // max(stride_bytes, 1) if slots is None else slots.shape[0]
        length = (num_rows - 1) * stride_bytes + row_bytes if num_rows else 0
        rows = RawRows(pointer, length)
        self._gather(None, rows, stride_bytes, row_bytes, num_rows, index, out, slots, cache)

    def _gather(
        self,
        x: Tensor | None,
        rows: RawRows,
        stride: int,
        row_bytes: int,
        num_rows: int,
        index: Tensor,
        out: Tensor,
        slots: Tensor | None,
        cache: Tensor | None,
    ) -> None:
        count = index.shape[0]
        if count == 0 or row_bytes == 0:
            return
        cache_stride = 0 if cache is None else row_stride(cache) * cache.element_size()
        bits = rows.pointer | stride | row_bytes | out.data_ptr() | cache_stride
        bits |= 0 if cache is None else cache.data_ptr()
        size, word = next((s, w) for s, w in _WORDS if bits % s == 0)
        words = row_bytes // size
        lanes = 1 << (words - 1).bit_length()
        kernel = "gather_wide" if lanes > 32 else f"gather_few_{lanes}"
        per_block = BLOCK // 32 if lanes > 32 else 4 * BLOCK // lanes
        self.launcher.launch(
            unit("gather", W=word, I="i64" if index.dtype == torch.int64 else "i32"),
            kernel,
            min(-(-count // per_block), 2**31 - 1),
            BLOCK,
            0,
            *(rows if x is None else x, stride, index, count, num_rows, words, out),
            *(slots, cache, cache_stride),
        )

    def scatter(
        self, src: Tensor, index: Tensor, size: int, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See Kernels.scatter. Edges of a wrong index are left out."""
        num_edges = index.shape[0]
        keys, edges = torch.sort(index, stable=True)
        wanted = torch.arange(size + 1, dtype=keys.dtype, device=keys.device)
        if max(num_edges, size) < 2**31:
            edges = edges.int()
        order = Order(torch.searchsorted(keys, wanted), edges, None, num_edges)
        out, place = self.reduce(order, src, None, reduce, want_arg)
        if place is None:
            return out, None
        edge_at = torch.cat([edges.long(), index.new_tensor([num_edges]).long()])
        return out, edge_at[place.long()]

    def reduce(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See Kernels.reduce."""
        x = _in_rows(x)
        out = self.launcher.empty((order.num_rows, *x.shape[1:]), x.dtype, x.device)
        arg = self.launcher.empty(out.shape, order.place_dtype, x.device) if want_arg else None
        if out.numel() == 0:
            return out, arg
        weights, columns = _weights(x, weight), row_width(x)
        layout = _layout(columns, weights, x.element_size(), x, row_stride(x))
        code = _rows_unit(
            *(TYPE_NAMES[x.dtype], index_name(order), layout.vec, weights.kind),
            *(_REDUCES[reduce], int(want_arg)),
        )
        offsets, chunks = chunks_of(order)
        partial = self._partial(chunks, columns, x)
        places = None
        if want_arg and chunks:
            places = self.launcher.empty((chunks, columns), order.place_dtype, x.device)
        self._rows(
            *(code, "rows", layout, order.num_rows, chunks),
            *(order.indptr, order.col, order.perm, x, row_stride(x)),
            *(weights.tensor, weights.heads, weights.width),
            *(columns, order.num_rows, order.num_edges, layout.group, layout.lanes),
            *(out, arg, offsets, chunks, partial, places),
        )
        return out, arg

    def reduce_multi(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: tuple[str, ...]
    ) -> list[Tensor]:
        """See Kernels.reduce_multi."""
        x = _in_rows(x)
        shape = (order.num_rows, *x.shape[1:])
        wanted = {name: self.launcher.empty(shape, x.dtype, x.device) for name in reduce}
        results = [wanted[name] for name in reduce]
        columns = row_width(x)
        if order.num_rows * columns == 0 or not results:
            return results
        weights = _weights(x, weight)
        layout = _layout(columns, weights, x.element_size(), x, row_stride(x))
        offsets, chunks = chunks_of(order)
        self._rows(
            _multi_unit(TYPE_NAMES[x.dtype], index_name(order), layout.vec, weights.kind),
            *("multi", layout, order.num_rows, chunks),
            *(order.indptr, order.col, order.perm, x, row_stride(x)),
            *(weights.tensor, weights.heads, weights.width),
            *(columns, order.num_rows, layout.group, layout.lanes),
            *(wanted.get(name) for name in ("sum", "mean", "max", "min", "std")),
            *(offsets, chunks, self._partial(4 * chunks, columns, x)),
        )
        return results

    def reduce_arg_backward(
        self,
        order: Order,
        grad: Tensor,
        arg: Tensor,
        num_src: int,
        x: Tensor | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """See Kernels.reduce_arg_backward."""
        gx = self.launcher.empty((num_src, *grad.shape[1:]), grad.dtype, grad.device)
        weights, columns = _weights(grad, weight), row_width(grad)
        if gx.numel():
            layout = _layout(columns, weights, max(grad.element_size(), arg.element_size()), grad)
            by_source = self._by_source(order, num_src)
            offsets, chunks = chunks_of(by_source)
            self._rows(
                _arg_unit(TYPE_NAMES[grad.dtype], index_name(order), layout.vec),
                *("arg", layout, num_src, chunks),
                *(grad, arg, rows_of(order), by_source.indptr, by_source.col, order.perm),
                *(weights.tensor, weights.heads, weights.width),
                *(columns, num_src, layout.group, layout.lanes),
                *(gx, offsets, chunks, self._partial(chunks, columns, grad)),
            )
        if weight is None or x is None:
            return gx, None
        gweight = self.launcher.empty(weight.shape, weight.dtype, weight.device)
        if gweight.numel():
            self._arg_weight(order, grad, arg, _in_rows(x), weights, gweight)
        return gx, gweight

    def _arg_weight(
        self,
        order: Order,
        grad: Tensor,
        arg: Tensor,
        x: Tensor,
        weights: Weights,
        gweight: Tensor,
    ) -> None:
        group = min(max(_power_of_two(weights.width), 4), 32)
        self.launcher.launch(
            _arg_unit(TYPE_NAMES[grad.dtype], index_name(order), 1),
            "arg_weight",
            -(-gweight.numel() // (BLOCK // group)),
            BLOCK,
            0,
            *(grad, arg, rows_of(order), order.col, order.perm, x, row_stride(x)),
            *(weights.heads, weights.width, order.num_edges, group, gweight),
        )

    def _by_source(self, order: Order, num_src: int) -> Order:
        """Returns the places of `order` grouped by the row they read, as `col` of an Order."""

        def build() -> Order:
            starts, places = sources_of(order, num_src)
            return Order(starts, places, None, order.num_edges)

        return kept(order, ("by source", num_src), build)

    def _partial(self, chunks: int, columns: int, x: Tensor) -> Tensor | None:
        if not chunks:
            return None
        dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
        return self.launcher.empty((chunks, columns), dtype, x.device)

    def _rows(
        self,
        code: Unit,
        family: str,
        layout: Layout,
        num_rows: int,
        chunks: int,
        *args: Argument,
    ) -> None:
        """Starts a family's kernel for whole rows and, where there are chunks, those for them."""
        self.launcher.launch(code, f"{family}_whole", layout.grid(num_rows), BLOCK, 0, *args)
        if chunks:
            grid = layout.grid(chunks)
            self.launcher.launch(code, f"{family}_chunk", grid, BLOCK, 0, *args)
            self.launcher.launch(code, f"{family}_combine", grid, BLOCK, 0, *args)


def _in_rows(x: Tensor) -> Tensor:
    """Returns x with rows of unit inner stride, itself if it has them."""
    expected = 1
    for size, step in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size > 1 and step != expected:
            return x.contiguous()
        expected *= size
    return x if x.dim() and (x.shape[0] <= 1 or x.stride(0) >= expected) else x.contiguous()


def _weights(x: Tensor, weight: Tensor | None) -> Weights:
    columns = row_width(x)
    if weight is None or weight.dim() == 1:
        return Weights(int(weight is not None), weight, 1, columns)
    heads = weight.shape[1]
    return Weights(2, weight, heads, columns // max(heads, 1))


def _layout(
    columns: int, weights: Weights, item_bytes: int, x: Tensor, stride: int | None = None
) -> Layout:
    """Chooses vectors of 16 bytes where all rows and heads are made of whole ones."""
    vec = 16 // item_bytes
    bits = columns | (columns if stride is None else stride) | (weights.width)
    if bits % vec or x.data_ptr() % 16:
        vec = 1
    lanes = min(_power_of_two(-(-columns // vec)), 32)
    return Layout(vec, max(lanes, 4), lanes, -(-columns // (vec * lanes)))


def _power_of_two(n: int) -> int:
    """Returns the smallest power of 2 that is at least n."""
    return 1 << max(n - 1, 0).bit_length()
