"""Fused attention on the GPU: attention.cu and attention_backward.cu."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu._launch import TYPE_NAMES, Provider, Unit, index_name, unit
from gnnlab.ops._gpu.edges import power_of_two, vector_items
from gnnlab.ops._kernels import Statistics

__all__ = ["VARIANTS", "Attention"]

_KINDS = {"gat": 0, "gatv2": 1, "attention": 2}
_BLOCK, _ROWS = 128, 4  # threads of a block, and rows that it takes
_ATT_BLOCKS = 512  # at most; each leaves a part of the gradient of att

VARIANTS: list[Unit] = [
    unit(source, DTYPE=dtype, I=index, KIND=kind, HEADS=heads, WIDTH=width, VEC=vec)
    for source in ("attention", "attention_backward")
    for kind in (0, 1, 2)
    for dtype, index, heads, width, vec in (
        ("f32", "i32", 1, 64, 4),
        ("f32", "i32", 4, 16, 4),
        ("f32", "i64", 8, 32, 4),
        ("f32", "i32", 3, 5, 1),
        ("f32", "i32", 1, 320, 4),
        ("f64", "i32", 8, 8, 2),
        ("bf16", "i32", 4, 64, 8),
        ("f16", "i64", 8, 16, 8),
    )
]


class _Ends(NamedTuple):
    """Operands of one kind of attention. `factor` is the slope, or the scale of dot products."""

    kind: str
    query: Tensor
    key: Tensor
    value: Tensor
    att: Tensor | None
    edge: Tensor | None
    factor: float
    dropout: float = 0.0
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Destinations, heads, width."""
        return self.query.shape[0], self.value.shape[1], self.value.shape[2]


class _Gradients(NamedTuple):
    """Of the operands of _Ends; gatv2's key and value are one."""

    query: Tensor
    key: Tensor | None
    value: Tensor
    att: Tensor | None
    edge: Tensor | None


class Attention(Provider):
    """gat, gatv2, attention and their gradients."""

    def gat(
        self,
        order: Order,
        x: Tensor,
        a_src: Tensor,
        a_dst: Tensor,
        edge: Tensor | None,
        slope: float,
        dropout: float,
        seed: int,
    ) -> Statistics:
        """See Kernels.gat."""
        return self._attend(order, _Ends("gat", a_dst, a_src, x, None, edge, slope, dropout, seed))

    def gat_backward(
        self,
        order: Order,
        order_t: Order,
        grad: Tensor,
        out: Tensor,
        x: Tensor,
        a_src: Tensor,
        a_dst: Tensor,
        edge: Tensor | None,
        largest: Tensor,
        total: Tensor,
        slope: float,
        dropout: float,
        seed: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """See Kernels.gat_backward."""
        ends = _Ends("gat", a_dst, a_src, x, None, edge, slope, dropout, seed)
        g = self._attend_backward(order, order_t, ends, grad, (out, largest, total))
        return g.value, _given(g.key), g.query, g.edge

    def gatv2(
        self,
        order: Order,
        x_src: Tensor,
        x_dst: Tensor,
        att: Tensor,
        edge: Tensor | None,
        slope: float,
    ) -> Statistics:
        """See Kernels.gatv2."""
        return self._attend(order, _Ends("gatv2", x_dst, x_src, x_src, att, edge, slope))

    def gatv2_backward(
        self,
        order: Order,
        order_t: Order,
        grad: Tensor,
        out: Tensor,
        x_src: Tensor,
        x_dst: Tensor,
        att: Tensor,
        edge: Tensor | None,
        largest: Tensor,
        total: Tensor,
        slope: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """See Kernels.gatv2_backward."""
        ends = _Ends("gatv2", x_dst, x_src, x_src, att, edge, slope)
        g = self._attend_backward(order, order_t, ends, grad, (out, largest, total))
        return g.value, g.query, _given(g.att), g.edge

    def attention(
        self, order: Order, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float
    ) -> Statistics:
        """See Kernels.attention."""
        return self._attend(order, _Ends("attention", q, k, v, None, bias, scale))

    def attention_backward(
        self,
        order: Order,
        order_t: Order,
        grad: Tensor,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        largest: Tensor,
        total: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """See Kernels.attention_backward."""
        ends = _Ends("attention", q, k, v, None, bias, scale)
        g = self._attend_backward(order, order_t, ends, grad, (out, largest, total))
        return g.query, _given(g.key), g.value, g.edge

    def _attend(self, order: Order, ends: _Ends) -> Statistics:
        empty, device = self.launcher.empty, ends.value.device
        rows, heads, _ = ends.shape
        out = empty(ends.shape, ends.value.dtype, device)
        largest = empty((rows, heads), _sum_dtype(ends.value), device)
        total = empty((rows, heads), _sum_dtype(ends.value), device)
        if out.numel():
            code = _unit("attention", order, ends, out)
            args = (*_operands(order, ends, largest, total), out, *[None] * 7)
            self._launch(code, "attention", (-(-rows // _ROWS), _head_groups(code)), *args)
        else:  # no heads or no width: nothing will be weighed
            largest.zero_()
            total.zero_()
        return out, largest, total

    def _attend_backward(
        self, order: Order, order_t: Order, ends: _Ends, grad: Tensor, result: Statistics
    ) -> _Gradients:
        out, largest, total = result
        rows, heads, width = ends.shape
        grads = self._room_for(ends)
        if heads == 0 or width == 0:
            for tensor in grads:
                if tensor is not None:
                    tensor.zero_()
            return grads
        empty, sums, device = self.launcher.empty, _sum_dtype(ends.value), ends.value.device
        dots = empty((rows, heads), sums, device)
        blocks, parts = -(-rows // _ROWS), None
        if ends.att is not None:
            blocks = min(blocks, _ATT_BLOCKS)
            parts = empty((blocks, heads, width), sums, device)
        code = _unit("attention_backward", order, ends, out, grad)
        groups = _head_groups(code)
        tail = (out, grad, dots, grads.query, grads.key, grads.value, grads.edge, parts)
        operands = _operands(order, ends, largest, total)
        self._launch(code, "by_target", (blocks, groups), *operands, *tail)
        code_t = _unit("attention_backward", order_t, ends, out, grad)
        operands = _operands(order_t, ends, largest, total)
        sources = -(-ends.value.shape[0] // _ROWS)
        self._launch(code_t, "by_source", (sources, groups), *operands, *tail)
        if grads.att is not None:
            columns = heads * width
            args = (parts, grads.att, blocks, columns)
            self._launch(code, "att_sum", (-(-columns // 32), 1), *args)
        return grads

    def _room_for(self, ends: _Ends) -> _Gradients:
        def like(x: Tensor) -> Tensor:
            return self.launcher.empty(x.shape, x.dtype, x.device)

        return _Gradients(
            like(ends.query),
            None if ends.kind == "gatv2" else like(ends.key),
            like(ends.value),
            None if ends.att is None else like(ends.att),
            None if ends.edge is None else like(ends.edge),
        )

    def _launch(
        self, code: Unit, kernel: str, grid: tuple[int, int], *args: Tensor | int | float | None
    ) -> None:
        shared = _BLOCK * (8 if ("DTYPE", "f64") in code.defines else 4)
        if grid[0] and grid[1]:
            self.launcher.launch(code, kernel, grid, _BLOCK, shared, *args)


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise AssertionError("this kind of attention has that operand")
    return x


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _unit(source: str, order: Order, ends: _Ends, *others: Tensor) -> Unit:
    """Returns the variant that fits; vectors are as wide as all addresses allow."""
    _, heads, width = ends.shape
    given = (ends.query, ends.key, ends.value, ends.att, ends.edge, *others)
    rows = [t for t in given if t is not None and t.shape[-2:] == (heads, width)]
    return unit(
        source,
        DTYPE=TYPE_NAMES[ends.value.dtype],
        I=index_name(order),
        KIND=_KINDS[ends.kind],
        HEADS=heads,
        WIDTH=width,
        VEC=vector_items(width, *rows),
    )


def _head_groups(code: Unit) -> int:
    """Returns how many blocks share the heads of the same rows; see attention.cuh."""
    sizes = dict(code.defines)
    heads = int(sizes["HEADS"])
    lanes = min(32, power_of_two(int(sizes["WIDTH"]) // int(sizes["VEC"])))
    return -(-heads // min(32 // lanes, power_of_two(heads)))


def _operands(
    order: Order, ends: _Ends, largest: Tensor, total: Tensor
) -> tuple[Tensor | int | float | None, ...]:
    """Returns the first fields of AttentionArgs."""
    return (
        *(order.indptr, order.col, order.perm, order.num_rows),
        *(ends.query, ends.key, ends.value, ends.att, ends.edge, largest, total),
        *(ends.factor, math.ceil(ends.dropout * 2**32)),
        1 / (1 - ends.dropout) if ends.dropout < 1 else 0.0,
        (ends.seed + 2**63) % 2**64 - 2**63,  # the same 64 bits, as a signed number
    )
