"""torch-scatter's functions that are made of several reductions."""

from __future__ import annotations

import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.compat.torch_scatter._layout import Layout
from gnnlab.compat.torch_scatter._scatter import scatter_layout

__all__ = ["scatter_log_softmax", "scatter_logsumexp", "scatter_softmax", "scatter_std"]


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Returns the standard deviation of the entries that share an index.

    Args:
        src, index, dim, dim_size: as for `scatter_sum`.
        out: squared deviations are added to it, in place; unlike in other functions it is not what
            is returned.
        unbiased: whether to divide by the count less 1 (at least 1).

    Shapes:
        returns: that of `src` with `dim_size` in place of its size along `dim`.

    Raises:
        IndexError, RuntimeError: as `scatter_sum`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_std
        >>> scatter_std(torch.tensor([1.0, 3.0, 7.0]), torch.tensor([0, 0, 2]))
        tensor([1.4142, 0.0000, 0.0000])

    As in torch-scatter the divisor is larger than the count by 1e-6. Where the deviation is 0 the
    gradient is 0.
    """
    layout = scatter_layout(src, index, dim, out, dim_size)
    rows = layout.take(src)
    mean = ops.scatter(rows, layout.index, layout.rows, reduce="mean")
    away = (rows - layout.spread(mean)).square()
    total = layout.put(ops.scatter(away, layout.index, layout.rows))
    if out is not None:
        total = out.add_(total)
    counts = layout.counts(src).clamp(min=1)
    if unbiased:
        counts = (counts - 1).clamp(min=1)
    variance = total / (counts.to(src.dtype) + 1e-6)
    none = variance == 0
    return torch.where(none, variance, torch.where(none, 1.0, variance).sqrt())


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """Returns the logarithm of the sum of exponentials of the entries that share an index.

    Args:
        src, index, dim, dim_size: as for `scatter_sum`.
        out: takes part as one more entry; is written to and returned.
        eps: added to the sum, after its largest term was divided out.

    Shapes:
        returns: that of `src` with `dim_size` in place of its size along `dim`.

    Raises:
        ValueError: if `src` is not floating-point.
        IndexError, RuntimeError: as `scatter_sum`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_logsumexp
        >>> scatter_logsumexp(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([0, 0, 2]))
        tensor([0.6931, 0.0000, 7.0000])

    Where there is no entry the result is 0, or with `out` what it held.
    """
    _check_floating(src, "scatter_logsumexp")
    layout = scatter_layout(src, index, dim, out, dim_size)
    rows = layout.take(src)
    found = layout.put(_logsumexp(layout, rows, eps))
    if out is None:
        return found.masked_fill(found == -torch.inf, 0.0)
    return out.copy_(torch.logaddexp(out.clone(), found))


def scatter_softmax(
    src: Tensor, index: Tensor, dim: int = -1, dim_size: int | None = None
) -> Tensor:
    """Normalises the exponentials of the entries that share an index.

    Args:
        src, index, dim, dim_size: as for `scatter_sum`.

    Shapes:
        returns: that of `src`.

    Raises:
        ValueError: if `src` is not floating-point.
        IndexError, RuntimeError: as `scatter_sum`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_softmax
        >>> scatter_softmax(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([0, 0, 2]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    _check_floating(src, "scatter_softmax")
    layout = Layout(src, index, dim, dim_size)
    found = ops.segment_softmax(layout.take(src), layout.index, dim_size=layout.rows)
    return layout.put_entries(found)


def scatter_log_softmax(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    eps: float = 1e-12,
    dim_size: int | None = None,
) -> Tensor:
    """Returns the logarithm of `scatter_softmax`, without computing the softmax.

    Args:
        src, index, dim, dim_size: as for `scatter_sum`.
        eps: added to the sum of exponentials, after its largest term was divided out.

    Shapes:
        returns: that of `src`.

    Raises:
        ValueError: if `src` is not floating-point.
        IndexError, RuntimeError: as `scatter_sum`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_log_softmax
        >>> scatter_log_softmax(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([0, 0, 2]))
        tensor([-0.6931, -0.6931,  0.0000])
    """
    _check_floating(src, "scatter_log_softmax")
    layout = Layout(src, index, dim, dim_size)
    rows = layout.take(src)
    return layout.put_entries(rows - layout.spread(_logsumexp(layout, rows, eps)))


def _check_floating(src: Tensor, name: str) -> None:
    if not src.is_floating_point():
        raise ValueError(f"{name} needs a src of floating-point numbers, got {src.dtype}")


def _logsumexp(layout: Layout, rows: Tensor, eps: float) -> Tensor:
    """Returns log(eps + sum exp(x - max)) + max for each destination, -inf without entries."""
    largest = ops.scatter(
        rows.detach(), layout.index, layout.rows, reduce="max", empty_value=-torch.inf
    )
    finite = largest.masked_fill(largest == -torch.inf, 0.0)
    total = ops.scatter((rows - layout.spread(finite)).exp(), layout.index, layout.rows)
    some = total > 0
    logarithm = (torch.where(some, total, 1.0) + eps).log() + finite
    return torch.where(some | total.isnan(), logarithm, -torch.inf)
