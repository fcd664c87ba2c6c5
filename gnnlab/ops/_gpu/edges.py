"""Operators on single edges on the GPU: dots.cu and softmax.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnlab.ops._edges import Order
from gnnlab.ops._gpu._launch import TYPE_NAMES, Unit, index_name, row_width, unit
from gnnlab.ops._gpu.rows import Rows

__all__ = ["VARIANTS", "Edges", "power_of_two", "vector_items"]

_OPS = {"dot": 0, "add": 1, "sub": 2, "mul": 3, "div": 4}
_KINDS = {"softmax": 0, "log_softmax": 1, "logsumexp": 2}
_VECTOR_BYTES = 16
_DOT_BLOCK, _DOT_STEPS = 128, 16
_SOFTMAX_BLOCK = 256
_SHORT_ROWS = 12  # edges; rows this short on average get 8 lanes each

VARIANTS: list[Unit] = [
    *(
        unit("dots", DTYPE=dtype, I=index, OP=op, VEC=vec, LANES=lanes)
        for dtype, vec in (("f32", 4), ("f64", 2), ("bf16", 8), ("f16", 8))
        for index in ("i32", "i64")
        for op, lanes in ((0, 8), (1, 32), (4, 32))
    ),
    *(
        unit("softmax", DTYPE=dtype, I=index, KIND=kind, BACKWARD=back, HEADS=heads, GROUP=group)
        for dtype in ("f32", "f64", "bf16", "f16")
        for index in ("i32", "i64")
        for kind, back in ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1))
        for heads, group in ((1, 8), (4, 32))
    ),
]


class Edges(Rows):
    """sddmm, the softmax family and the gradient of the weighted sum."""

    def sddmm(self, order: Order, a: Tensor, b: Tensor, op: str) -> Tensor:
        """See Kernels.sddmm."""
        heads, width = a.shape[1], a.shape[2]
        edges = order.num_edges
        shape = (edges, heads) if op == "dot" else (edges, heads, width)
        out = self.launcher.empty(shape, a.dtype, a.device)
        if op != "dot":
            heads, width = 1, heads * width
        if out.numel() == 0:
            return out
        vec = vector_items(width, a, b, out if op != "dot" else a)
        lanes = min(power_of_two(-(-width // vec)), 32)
        per_block = _DOT_BLOCK // lanes * _DOT_STEPS
        self.launcher.launch(
            unit(
                "dots",
                DTYPE=TYPE_NAMES[a.dtype],
                I=index_name(order),
                OP=_OPS[op],
                VEC=vec,
                LANES=lanes,
            ),
            "sddmm",
            -(-edges * heads // per_block),
            _DOT_BLOCK,
            0,
            *(order.indptr, order.col, order.perm, a, b, out),
            *(order.num_rows, edges, heads, width),
        )
        return out

    def spmm_backward(
        self, order: Order, grad: Tensor, x: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See Kernels.spmm_backward: a weighted sum over the transpose, and a dot per edge."""
        gx, _ = self.reduce(order, grad, weight, "sum", False)
        heads = weight.shape[1] if weight.dim() > 1 else 1
        shaped = [t.reshape(t.shape[0], heads, row_width(t) // max(heads, 1)) for t in (x, grad)]
        gweight = self.sddmm(order, shaped[0].contiguous(), shaped[1].contiguous(), "dot")
        return gx, gweight.view(weight.shape)

    def softmax(self, order: Order, src: Tensor, kind: str) -> Tensor:
        """See Kernels.softmax."""
        shape = (order.num_rows, src.shape[1]) if kind == "logsumexp" else src.shape
        out = self.launcher.empty(shape, src.dtype, src.device)
        self._softmax(order, src, None, out, kind)
        return out

    def softmax_backward(self, order: Order, out: Tensor, grad: Tensor, kind: str) -> Tensor:
        """See Kernels.softmax_backward."""
        result = self.launcher.empty(out.shape, out.dtype, out.device)
        self._softmax(order, out, grad, result, kind)
        return result

    def _softmax(
        self, order: Order, src: Tensor, grad: Tensor | None, out: Tensor, kind: str
    ) -> None:
        rows, edges, heads = order.num_rows, order.num_edges, src.shape[1]
        if out.numel() == 0:
            return
        group = 8 if edges <= _SHORT_ROWS * rows else 32
        head_lanes = min(power_of_two(heads), group)
        per_block = _SOFTMAX_BLOCK // group
        states = _SOFTMAX_BLOCK // 32 * head_lanes
        self.launcher.launch(
            unit(
                "softmax",
                DTYPE=TYPE_NAMES[src.dtype],
                I=index_name(order),
                KIND=_KINDS[kind],
                BACKWARD=int(grad is not None),
                HEADS=heads,
                GROUP=group,
            ),
            "softmax",
            (-(-rows // per_block), -(-heads // head_lanes)),
            _SOFTMAX_BLOCK,
            states * 2 * (8 if src.dtype == torch.float64 else 4),
            *(order.indptr, order.perm, src, grad, out, rows),
        )


def power_of_two(n: int) -> int:
    """Returns the smallest power of 2 that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def vector_items(width: int, *tensors: Tensor) -> int:
    """Returns how many items of a row of `width` can be read at once: 16 bytes at most."""
    size = tensors[0].element_size()
    items = _VECTOR_BYTES // size
    while items > 1 and (width % items or any(t.data_ptr() % (items * size) for t in tensors)):
        items //= 2
    return items
