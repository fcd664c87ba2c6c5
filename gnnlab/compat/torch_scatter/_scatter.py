"""torch-scatter's scatter functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gnnlab.compat.torch_scatter._layout import Layout, wrapped

__all__ = [
    "scatter",
    "scatter_add",
    "scatter_max",
    "scatter_mean",
    "scatter_min",
    "scatter_mul",
    "scatter_sum",
]


def scatter_sum(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Adds the entries of `src` that share an index, as `torch_scatter.scatter_sum`.

    Args:
        src: the source, of any shape and dtype of numbers.
        index: int64 or int32, of a shape that broadcasts to that of `src`; a vector lies along
            `dim`.
        dim: the dimension that is reduced; the last by default.
        out: is added to, in place, and returned.
        dim_size: size of the result along `dim`; by default that of `out`, or the largest index
            + 1.

    Shapes:
        returns: that of `src` with `dim_size` in place of its size along `dim`.

    Raises:
        IndexError: if an index is outside 0..dim_size-1 (CPU), or `dim` does not exist.
        RuntimeError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_sum
        >>> scatter_sum(torch.tensor([[1, 2, 4], [8, 16, 32]]), torch.tensor([2, 0, 2]))
        tensor([[ 2,  0,  5],
                [16,  0, 40]])
    """
    layout = scatter_layout(src, index, dim, out, dim_size)
    total = layout.reduce(src, "sum")
    return total if out is None else out.add_(total)


def scatter_add(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Adds the entries of `src` that share an index; another name of `scatter_sum`."""
    return scatter_sum(src, index, dim, out, dim_size)


def scatter_mul(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Multiplies the entries of `src` that share an index; 1 where there is none.

    Arguments and errors are those of `scatter_sum`. Entries that are 0 have the right gradient,
    the product of the others.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_mul
        >>> scatter_mul(torch.tensor([2, 3, 5]), torch.tensor([2, 0, 2]))
        tensor([ 3,  1, 10])
    """
    layout = scatter_layout(src, index, dim, out, dim_size)
    product = layout.reduce(src, "mul")
    return product if out is None else out.copy_(out.clone() * product)


def scatter_mean(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> Tensor:
    """Averages the entries of `src` that share an index; 0 where there is none.

    Arguments and errors are those of `scatter_sum`. Means of integers are rounded down. With
    `out` the result is (out + sum) / count.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_mean
        >>> scatter_mean(torch.tensor([2.0, 3.0, 5.0]), torch.tensor([2, 0, 2]))
        tensor([3.0000, 0.0000, 3.5000])
    """
    layout = scatter_layout(src, index, dim, out, dim_size)
    if out is None and src.is_floating_point():
        return layout.reduce(src, "mean")
    total = layout.reduce(src, "sum")
    return divide_counts(total if out is None else out.add_(total), layout.counts(src), "floor")


def scatter_min(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the smallest entry of each index and where it stands along `dim`.

    Arguments and errors are those of `scatter_sum`. Among equal entries the first wins, and the
    gradient flows to it alone. Where there is no entry the value is 0 and the position
    ``src.size(dim)``; the position is the same where a value of `out` is not beaten.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_min
        >>> scatter_min(torch.tensor([2, 3, 2]), torch.tensor([2, 0, 2]))
        (tensor([3, 0, 2]), tensor([1, 3, 0]))
    """
    return extreme_into(out, scatter_layout(src, index, dim, out, dim_size), src, "min")


def scatter_max(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the largest entry of each index and where it stands along `dim`; see `scatter_min`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter_max
        >>> scatter_max(torch.tensor([2, 3, 5]), torch.tensor([2, 0, 2]))
        (tensor([3, 0, 5]), tensor([1, 3, 2]))
    """
    return extreme_into(out, scatter_layout(src, index, dim, out, dim_size), src, "max")


def scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    """Reduces the entries of `src` that share an index, as `torch_scatter.scatter`.

    Args:
        src, index, dim, out, dim_size: as for `scatter_sum`.
        reduce: "sum", "add", "mul", "mean", "min" or "max".

    Raises:
        ValueError: if `reduce` is none of these.
        IndexError, RuntimeError: as `scatter_sum`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import scatter
        >>> scatter(torch.tensor([2.0, 3.0, 5.0]), torch.tensor([2, 0, 2]), reduce="max")
        tensor([3., 0., 5.])
    """
    if reduce in ("sum", "add"):
        return scatter_sum(src, index, dim, out, dim_size)
    if reduce == "mul":
        return scatter_mul(src, index, dim, out, dim_size)
    if reduce == "mean":
        return scatter_mean(src, index, dim, out, dim_size)
    if reduce in ("min", "max"):
        kind: Literal["min", "max"] = "min" if reduce == "min" else "max"
        layout = scatter_layout(src, index, dim, out, dim_size)
        if out is None:
            return layout.reduce(src, kind)
        return extreme_into(out, layout, src, kind)[0]
    raise ValueError(f'unknown reduce "{reduce}". Known: sum, add, mul, mean, min, max.')


# ---- shared with segment_coo -------------------------------------------------------------------


def scatter_layout(
    src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: int | None
) -> Layout:
    """Returns the layout of a call; `out` decides how many destinations there are."""
    if out is None:
        return Layout(src, index, dim, dim_size)
    dim = wrapped(dim, src)
    shape = [*src.shape]
    if out.dim() == src.dim():
        shape[dim] = out.shape[dim]
    check_out(out, src, shape)
    return Layout(src, index, dim, out.shape[dim])


def check_out(out: Tensor, src: Tensor, shape: list[int]) -> None:
    """Raises RuntimeError unless `out` has the dtype of src and this shape."""
    if [*out.shape] != shape or out.dtype != src.dtype:
        raise RuntimeError(
            f"out must be {src.dtype} of shape {tuple(shape)}, got {out.dtype} of shape "
            f"{tuple(out.shape)}"
        )


def divide_counts(total: Tensor, counts: Tensor, rounding: str) -> Tensor:
    """Divides sums by their counts in place; integers are rounded as said."""
    counts = counts.clamp(min=1).to(total.dtype)
    if total.is_floating_point():
        return total.div_(counts)
    return total.div_(counts, rounding_mode=rounding)


def extreme_into(
    out: Tensor | None, layout: Layout, src: Tensor, reduce: Literal["min", "max"]
) -> tuple[Tensor, Tensor]:
    """Returns max or min and positions; with `out` its values take part, and win when equal."""
    found, arg = layout.extreme(src, reduce)
    if out is None:
        return found, arg
    none = src.shape[layout.dim]
    before = out.clone()
    beaten = (found > before) if reduce == "max" else (found < before)
    wins = (arg != none) & (beaten | (found != found)) & (before == before)
    out.copy_(torch.where(wins, found, before))
    return out, arg.masked_fill(~wins, none)
