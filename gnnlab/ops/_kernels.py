"""What every set of compiled kernels offers: CPU, CUDA, and CUDA's emulation in the tests.

Operators do all checking, broadcasting and differentiation; kernels only compute. Unless said
otherwise tensors are contiguous, on one device and of one dtype; E edges, N source rows, M
destination rows, H heads, D width of a head, F = H * D.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from gnnlab.ops._edges import Order

__all__ = ["Kernels", "Operands", "Statistics"]

Statistics = tuple[Tensor, Tensor, Tensor]
"""Result of fused attention: out (M, H, D), largest score and sum of exponentials, both (M, H)."""


Operands = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""What attention is given; the last, one term per edge, may be missing."""


class Kernels(Protocol):
    """Compiled operators. A `col` of None in an Order means that place k reads row k."""

    name: str
    """ "cpu", "cuda" or "emulated"."""

    def gather(self, x: Tensor, index: Tensor) -> Tensor:
        """out[e] = x[index[e]]; x (N, *F) of any dtype, rows with unit inner stride.

        On the CPU a wrong index raises IndexError.
        """

    def scatter(
        self, src: Tensor, index: Tensor, size: int, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Reduces src (E, *F) by index (E,), int32 or int64; on the CPU the index is checked.

        arg: int64 (size, *F), the caller's edge, E for an empty row; only for max and min.
        """

    def reduce(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: str, want_arg: bool
    ) -> tuple[Tensor, Tensor | None]:
        """out[i] = reduction of weight[perm[k]] * x[col[k]] over places k of row i.

        x (N, *F), rows with unit inner stride; weight (E,), (E, H) or None. reduce: sum, mean, max,
        min, mul. float32, float64, bfloat16, float16, int32, int64 (no mean, no weight).
        arg: (M, *F), the winning place in the dtype of `order`'s indices (int32 below 2^31 edges),
        E for an empty row.
        """

    def reduce_multi(
        self, order: Order, x: Tensor, weight: Tensor | None, reduce: tuple[str, ...]
    ) -> list[Tensor]:
        """Several of sum, mean, max, min and std (population) in one pass over the edges."""

    def reduce_arg_backward(
        self,
        order: Order,
        grad: Tensor,
        arg: Tensor,
        num_src: int,
        x: Tensor | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """gx[col[arg[i, f]], f] += weight * grad[i, f]; and the gradient of weight, if given.

        grad and arg (M, *F). Rows are added in ascending order of i.
        """

    def spmm_backward(
        self, order: Order, grad: Tensor, x: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of x and weight of the weighted sum; `order` is grouped by source."""

    def sddmm(self, order: Order, a: Tensor, b: Tensor, op: str) -> Tensor:
        """a[i] op b[col[k]] for each place, written to the caller's edge.

        a (M, H, D), b (N, H, D); op "dot" gives (E, H), "add", "sub", "mul", "div" give (E, H, D).
        """

    def softmax(self, order: Order, src: Tensor, kind: str) -> Tensor:
        """kind "softmax" and "log_softmax": (E, H) in the caller's order; "logsumexp": (M, H)."""

    def softmax_backward(self, order: Order, out: Tensor, grad: Tensor, kind: str) -> Tensor:
        """Gradient of src (E, H) from the result; kind "softmax" or "log_softmax"."""

    def attend(
        self, kind: str, order: Order, given: Operands, options: tuple[float, ...]
    ) -> Statistics:
        """Fused attention; gnnlab.h has the equations. x, k and v have N rows, q and a_dst M.

        kind         given                                          options
        "gat"        x (N, H, D), a_src (N, H), a_dst (M, H), edge (E, H)  slope, dropout, seed
        "gatv2"      x_src, x_dst (., H, D), att (H, D), edge (E, H, D)    slope
        "attention"  q, k, v (., H, D), bias (E, H)                        scale
        """

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
        """Gradients of `given`, from the result of `attend`; `order_t` is grouped by source."""
