"""torch-scatter's functions on segments given by where they begin (CSR)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gnnlab.compat.torch_scatter._scatter import check_out, divide_counts
from gnnlab.ops import _segment
from gnnlab.ops._edges import Order

__all__ = [
    "gather_csr",
    "segment_add_csr",
    "segment_csr",
    "segment_max_csr",
    "segment_mean_csr",
    "segment_min_csr",
    "segment_sum_csr",
]


def segment_sum_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Adds the entries of each segment, as `torch_scatter.segment_sum_csr`.

    Args:
        src: the source, of any shape.
        indptr: int64 or int32; segment i is ``indptr[..., i]`` to ``indptr[..., i + 1]`` along
            the last dimension of `indptr`, which is the one reduced. It need not begin at 0 nor
            end at E. Dimensions before it are those of `src`, or 1.
        out: is written to (not added to) and returned.

    Shapes:
        src: (*B, E, *F); indptr: (*B, M + 1).
        returns: (*B, M, *F).

    Raises:
        IndexError: if an entry of `indptr` is outside 0..E.
        ValueError: if `indptr` decreases.
        RuntimeError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_sum_csr
        >>> segment_sum_csr(torch.tensor([1, 2, 4]), torch.tensor([0, 2, 2, 3]))
        tensor([3, 0, 4])
    """
    segments = _Segments(src, indptr)
    return _written(out, segments.put(_segment.reduce_rows(segments.order, segments.rows, "sum")))


def segment_add_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Adds the entries of each segment; another name of `segment_sum_csr`."""
    return segment_sum_csr(src, indptr, out)


def segment_mean_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Averages the entries of each segment; see `segment_sum_csr`.

    An empty segment gives 0. Means of integers are rounded towards 0.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_mean_csr
        >>> segment_mean_csr(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2, 3]))
        tensor([1.5000, 0.0000, 4.0000])
    """
    segments = _Segments(src, indptr)
    if src.is_floating_point():
        found = _segment.reduce_rows(segments.order, segments.rows, "mean")
    else:
        found = _segment.reduce_rows(segments.order, segments.rows, "sum")
        counts = segments.order.indptr.diff().view(-1, *[1] * (found.dim() - 1))
        found = divide_counts(found, counts, "trunc")
    return _written(out, segments.put(found))


def segment_min_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the smallest entry of each segment and where it stands; see `segment_sum_csr`.

    An empty segment gives 0 and the position E.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_min_csr
        >>> segment_min_csr(torch.tensor([1, 2, 4]), torch.tensor([0, 2, 2, 3]))
        (tensor([1, 0, 4]), tensor([0, 3, 2]))
    """
    return _extreme(src, indptr, out, "min")


def segment_max_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the largest entry of each segment and where it stands; see `segment_min_csr`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_max_csr
        >>> segment_max_csr(torch.tensor([1, 2, 4]), torch.tensor([0, 2, 2, 3]))
        (tensor([2, 0, 4]), tensor([1, 3, 2]))
    """
    return _extreme(src, indptr, out, "max")


def segment_csr(
    src: Tensor, indptr: Tensor, out: Tensor | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduces the entries of each segment, as `torch_scatter.segment_csr`.

    Args:
        src, indptr, out: as for `segment_sum_csr`.
        reduce: "sum", "add", "mean", "min" or "max".

    Raises:
        ValueError: if `reduce` is none of these.
        IndexError, ValueError, RuntimeError: as `segment_sum_csr`.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import segment_csr
        >>> segment_csr(torch.tensor([1, 2, 4]), torch.tensor([0, 2, 2, 3]), reduce="max")
        tensor([2, 0, 4])
    """
    if reduce in ("sum", "add"):
        return segment_sum_csr(src, indptr, out)
    if reduce == "mean":
        return segment_mean_csr(src, indptr, out)
    if reduce in ("min", "max"):
        segments = _Segments(src, indptr)
        return _written(out, segments.put(_segment.extreme(segments.order, segments.rows, reduce)))
    raise ValueError(f'unknown reduce "{reduce}". Known: sum, add, mean, min, max.')


def gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    """Copies each entry as often as its segment is long, as `torch_scatter.gather_csr`.

    Args:
        src: the source, of any shape.
        indptr: begins at 0 and does not decrease, along its last dimension; all of its vectors
            end at the same number E.
        out: is written to and returned.

    Shapes:
        src: (*B, M, *F); indptr: (*B, M + 1), its dimensions before the last those of src, or 1.
        returns: (*B, E, *F).

    Raises:
        ValueError: if `indptr` is not of that form.
        RuntimeError: if shapes or dtypes do not fit.

    Example:
        >>> import torch
        >>> from gnnlab.compat.torch_scatter import gather_csr
        >>> gather_csr(torch.tensor([5, 6]), torch.tensor([0, 2, 3]))
        tensor([5, 5, 6])
    """
    indptr = _checked(src, indptr)
    dim = indptr.dim() - 1
    if indptr.shape[dim] != src.shape[dim] + 1:
        raise RuntimeError(
            f"indptr has {indptr.shape[dim]} entries, but src of shape {tuple(src.shape)} has "
            f"{src.shape[dim]} along dim {dim}"
        )
    flat = indptr.reshape(-1, indptr.shape[dim])
    length = int(flat[0, -1]) if flat.shape[0] else 0
    if bool((flat[:, 0] != 0).any()) or bool((flat[:, -1] != length).any()):
        raise ValueError("indptr must begin at 0, and all of its vectors end at the same number")
    if dim == 0 or flat.shape[0] == 1:
        order = Order(_ascending(flat[0]), None, None, length)
        found = _segment.spread_rows(order, src.movedim(dim, 0)).movedim(0, dim)
    else:
        lead = src.shape[:dim]
        flat = indptr.expand(*lead, indptr.shape[dim]).reshape(-1, indptr.shape[dim])
        shifts = torch.arange(flat.shape[0], device=flat.device)[:, None] * length
        total = flat.shape[0] * length
        starts = torch.cat([(flat[:, :-1] + shifts).reshape(-1), flat.new_tensor([total])])
        order = Order(_ascending(starts), None, None, total)
        rows = src.reshape(starts.shape[0] - 1, *src.shape[dim + 1 :])
        found = _segment.spread_rows(order, rows).reshape(*lead, length, *src.shape[dim + 1 :])
    if out is None:
        return found
    check_out(out, src, [*found.shape])
    return out.copy_(found)


class _Segments:
    """Where the rows of one call are, and how to put results back.

    Rows that belong to no segment become segments of their own, which are left out of the result:
    one before the first segment and one behind the last of each vector of `indptr`.
    """

    def __init__(self, src: Tensor, indptr: Tensor) -> None:
        indptr = _checked(src, indptr)
        self.dim = dim = indptr.dim() - 1
        self.length = src.shape[dim]
        if indptr.shape[dim] == 0:  # no segment at all, as with one boundary
            indptr = indptr.new_zeros(*indptr.shape[:dim], 1)
        _check_range(indptr, self.length)
        self.lead: list[int] | None = None  # of src, where the segments of each are others
        self.gaps = True
        if indptr.numel() == indptr.shape[dim]:  # one vector for all
            self.rows = src.movedim(dim, 0)
            starts, ends = indptr.reshape(1, -1), self.length
        else:
            self.lead = [*src.shape[:dim]]
            starts = indptr.expand(*self.lead, indptr.shape[dim]).reshape(-1, indptr.shape[dim])
            shifts = torch.arange(starts.shape[0], device=src.device)[:, None] * self.length
            starts, ends = starts + shifts, starts.shape[0] * self.length
            self.rows = src.reshape(ends, *src.shape[dim + 1 :])
        self.vectors, self.size = starts.shape[0], starts.shape[1] - 1
        flat = starts.reshape(-1)
        if self.lead is None:
            self.gaps = int(flat[0]) != 0 or int(flat[-1]) != ends
        if self.gaps:
            flat = torch.cat([flat.new_zeros(1), flat, flat.new_tensor([ends])])
        self.order = Order(_ascending(flat), None, None, ends)

    def put(self, found: Tensor) -> Tensor:
        """Returns rows, one per segment of the order, in the shape of torch-scatter's result."""
        if self.gaps:
            found = found[1:].reshape(self.vectors, self.size + 1, *found.shape[1:])
            found = found[:, : self.size] if self.lead is not None else found[0, : self.size]
        if self.lead is None:
            return found.movedim(0, self.dim)
        return found.reshape(*self.lead, self.size, *found.shape[2:])

    def put_arg(self, arg: Tensor) -> Tensor:
        """Returns positions among all rows as positions along the dimension; E for none."""
        if self.lead is not None:
            none = arg == self.order.num_edges
            arg = (arg % max(self.length, 1)).masked_fill(none, self.length)
        return self.put(arg)


def _checked(src: Tensor, indptr: Tensor) -> Tensor:
    """Returns indptr as int64, without dimensions that were only expanded."""
    if indptr.dtype not in (torch.int64, torch.int32):
        raise RuntimeError(f"indptr must be int64 or int32, got {indptr.dtype}")
    dim = indptr.dim() - 1
    fits = 0 <= dim < src.dim()
    if not fits or any(indptr.shape[d] not in (1, src.shape[d]) for d in range(dim)):
        raise RuntimeError(
            f"indptr of shape {tuple(indptr.shape)} does not fit src of shape {tuple(src.shape)}"
        )
    for d in range(dim):
        if indptr.shape[d] > 1 and indptr.stride(d) == 0:
            indptr = indptr.narrow(d, 0, 1)
    return indptr.long()


def _check_range(indptr: Tensor, length: int) -> None:
    if not indptr.is_cpu or indptr.numel() == 0:
        return
    low, high = (int(v) for v in indptr.aminmax())
    if low < 0 or high > length:
        raise IndexError(f"indptr holds {low if low < 0 else high}, outside [0, {length}]")


def _ascending(starts: Tensor) -> Tensor:
    """Returns `starts`, after checking that none is smaller than the one before."""
    if not starts.is_cpu:
        return starts.contiguous()
    if bool((starts.diff() < 0).any()):
        raise ValueError("indptr must not decrease")
    return starts.contiguous()


def _extreme(
    src: Tensor, indptr: Tensor, out: Tensor | None, reduce: Literal["min", "max"]
) -> tuple[Tensor, Tensor]:
    segments = _Segments(src, indptr)
    found, arg = _segment.extreme_rows(segments.order, segments.rows, reduce)
    return _written(out, segments.put(found)), segments.put_arg(arg)


def _written(out: Tensor | None, found: Tensor) -> Tensor:
    if out is None:
        return found
    check_out(out, found, [*found.shape])
    return out.copy_(found)
