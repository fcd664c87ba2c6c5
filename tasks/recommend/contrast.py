"""The contrastive denominator over all nodes, without the batch x nodes score matrix.

f = sum_k w_k log sum_v exp(x_k . y_v / tau)

The gradient of f is known as soon as the scores of a row block are, so it is taken in the forward
pass: when a block of rows fits beside all keys, the scores are computed once (three matrix products
instead of the four of a backward pass that recomputes them). Keys are cut into blocks too when even
a few rows do not fit, and then computed twice. Memory is O(rows * block) either way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["weighted_logsumexp"]

_MIN_ROWS = 64  # below this a matrix product wastes the machine: cut the keys instead


def weighted_logsumexp(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    tau: float,
    *,
    budget: int = 1 << 26,
    key_block: int | None = None,
) -> Tensor:
    """Returns sum_k weight_k * logsumexp_v(x_k . y_v / tau).

    Args:
        x: (B, F) rows.
        y: (N, F) keys.
        weight: (B,) weight of each row; not differentiated.
        tau: temperature, above 0.
        budget: bytes that a block of scores may take.
        key_block: keys per block; None chooses from `budget`.

    Returns:
        0-d tensor. First derivatives with respect to x and y; no second ones.

    Example:
        >>> x, y = torch.zeros(2, 3), torch.ones(4, 3)
        >>> float(weighted_logsumexp(x, y, torch.tensor([0.5, 0.5]), 1.0))  # log 4
        1.3862943649291992

    Source: the log-sum-exp is the stable form of the denominators of LightGCL, Cai et al., ICLR
    2023, arXiv:2302.08191, eq. (7), as its released code computes them.
    """
    size = x.element_size()
    keys = max(1, min(len(y), budget // (size * _MIN_ROWS))) if key_block is None else key_block
    rows = max(1, budget // (size * max(keys, 1)))
    result: Tensor = _WeightedLogSumExp.apply(x, y, weight, tau, rows, keys)  # type: ignore[no-untyped-call]
    return result


class _WeightedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, tau: float, rows: int, keys: int
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_x = torch.zeros_like(x) if wanted else None
        grad_y = torch.zeros_like(y) if wanted else None
        total = x.new_zeros(())
        blocks = [slice(c, c + keys) for c in range(0, len(y), keys)]
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            xs, ws = x[part] / tau, weight[part]
            high = xs.new_full((len(xs),), -torch.inf)
            mass = xs.new_zeros(len(xs))
            scores = xs.new_empty(0)
            for block in blocks:
                scores = xs @ y[block].T
                top = torch.maximum(high, scores.amax(1))
                if len(blocks) == 1:
                    scores = scores.sub_(top[:, None]).exp_()
                    mass = scores.sum(1)
                else:
                    mass = mass * (high - top).exp() + (scores - top[:, None]).exp_().sum(1)
                high = top
            total = total + (ws * (high + mass.log())).sum()
            if grad_x is None or grad_y is None:
                continue
            for block in blocks:
                if len(blocks) == 1:
                    share = scores.mul_((ws / mass)[:, None])
                else:
                    share = (xs @ y[block].T).sub_((high + mass.log())[:, None]).exp_()
                    share.mul_(ws[:, None])
                grad_x[part] += share @ y[block] / tau
                grad_y[block] += share.T @ xs
        if wanted:
            ctx.save_for_backward(grad_x, grad_y)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_y = ctx.saved_tensors
        return grad * grad_x, grad * grad_y, None, None, None, None
