"""torch-scatter's functions on an index in ascending order (COO)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gnnlab.compat.torch_scatter._layout import Layout
from gnnlab.compat.torch_scatter._scatter import (
    check_out,
    divide_counts,
    extreme_into,
    scatter_layout,
)

__all__ = [
    "gather_coo",
    "segment_add_coo",
    "segment_coo",
    "segment_max_coo",
    "segment_mean_coo",
    "segment_min_coo",
    "segment_sum_coo",
]


def segment_sum_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Adds the entries of `src` that share an index, as `torch_scatter.segment_sum_coo`.

    Args:
        src: the source, of any shape.
        index: int64 or int32, in ascending order along its last dimension, which is the one
            reduced; dimensions before it are those of `src`, or 1. Here, unlike in torch-scatter,
            any order gives the right result.
        out: is added to, in place, and returned.
        dim_size: size of the result along that dimension; by default that of `out`, or the
            largest index + 1.

    Shapes:
        src: (*B, E, *F); index: (*B, E).
        returns: (*B, dim_size, *F).

    Raises:
        IndexError: if an index is outside 0..dim_size-1 (CPU).
        RuntimeError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_sum_coo
        >>> segment_sum_coo(torch.tensor([1, 2, 4]), torch.tensor([0, 0, 2]))
        tensor([3, 0, 4])
    """
    total = _layout(src, index, out, dim_size).reduce(src, "sum")
    return total if out is None else out.add_(total)


def segment_add_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Adds the entries of `src` that share an index; another name of `segment_sum_coo`."""
    return segment_sum_coo(src, index, out, dim_size)


def segment_mean_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Averages the entries of `src` that share an index; see `segment_sum_coo`.

    Means of integers are rounded towards 0. With `out` the result is (out + sum) / count.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_mean_coo
        >>> segment_mean_coo(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]))
        tensor([1.5000, 0.0000, 4.0000])
    """
    layout = _layout(src, index, out, dim_size)
    if out is None and src.is_floating_point():
        return layout.reduce(src, "mean")
    total = layout.reduce(src, "sum")
    return divide_counts(total if out is None else out.add_(total), layout.counts(src), "trunc")


def segment_min_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the smallest entry of each index and where it stands; see `segment_sum_coo`.

    Where there is none the value is 0 and the position the number of entries E.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_min_coo
        >>> segment_min_coo(torch.tensor([1, 2, 4]), torch.tensor([0, 0, 2]))
        (tensor([1, 0, 4]), tensor([0, 3, 2]))
    """
    return extreme_into(out, _layout(src, index, out, dim_size), src, "min")


def segment_max_coo(
    src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the largest entry of each index and where it stands; see `segment_min_coo`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_max_coo
        >>> segment_max_coo(torch.tensor([1, 2, 4]), torch.tensor([0, 0, 2]))
        (tensor([2, 0, 4]), tensor([1, 3, 2]))
    """
    return extreme_into(out, _layout(src, index, out, dim_size), src, "max")


def segment_coo(
    src: Tensor,
    index: Tensor,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries of `src` that share an index, as `torch_scatter.segment_coo`.

    Args:
        src, index, out, dim_size: as for `segment_sum_coo`.
        reduce: "sum", "add", "mean", "min" or "max".

    Raises:
        ValueError: if `reduce` is none of these.
        IndexError, RuntimeError: as `segment_sum_coo`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_coo
        >>> segment_coo(torch.tensor([1, 2, 4]), torch.tensor([0, 0, 2]), reduce="max")
        tensor([2, 0, 4])
    """
    if reduce in ("sum", "add"):
        return segment_sum_coo(src, index, out, dim_size)
    if reduce == "mean":
        return segment_mean_coo(src, index, out, dim_size)
    if reduce in ("min", "max"):
        kind: Literal["min", "max"] = "min" if reduce == "min" else "max"
        layout = _layout(src, index, out, dim_size)
        if out is None:
            return layout.reduce(src, kind)
        return extreme_into(out, layout, src, kind)[0]
    raise ValueError(f'unknown reduce "{reduce}". Known: sum, add, mean, min, max.')


def gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    """Copies the entries that an index names, as `torch_scatter.gather_coo`.

    Args:
        src: the source, of any shape.
        index: which entry, along the last dimension of the index; any order is right.
        out: is written to and returned.

    Shapes:
        src: (*B, M, *F); index: (*B, E), its dimensions before the last those of `src`, or 1.
        returns: (*B, E, *F).

    Raises:
        IndexError: if an index is outside 0..M-1 (CPU).
        RuntimeError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import gather_coo
        >>> gather_coo(torch.tensor([5, 6]), torch.tensor([0, 0, 1]))
        tensor([5, 5, 6])
    """
    dim = index.dim() - 1
    shape = [*src.shape[:dim], *index.shape[dim:], *src.shape[dim + 1 :]]
    if not 0 <= dim < src.dim():
        raise RuntimeError(
            f"index of shape {tuple(index.shape)} does not fit src of shape {tuple(src.shape)}"
        )
    entries = src.new_empty(1).expand(shape)  # only its shape is used
    layout = Layout(entries, index, dim, src.shape[dim])
    found = layout.put_entries(layout.spread(layout.take(src)))
    if out is None:
        return found
    check_out(out, src, shape)
    return out.copy_(found)


def _layout(src: Tensor, index: Tensor, out: Tensor | None, dim_size: int | None) -> Layout:
    if not 0 < index.dim() <= src.dim():
        raise RuntimeError(
            f"index of shape {tuple(index.shape)} does not fit src of shape {tuple(src.shape)}"
        )
    return scatter_layout(src, index, index.dim() - 1, out, dim_size)
