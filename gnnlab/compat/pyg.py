"""Runs PyG's own layers on the operators of `gnnlab.ops`."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from gnnlab import ops
from gnnlab.compat._memory import Memory, group
from gnnlab.compat.torch_scatter import segment_csr
from gnnlab.ops import _segment
from gnnlab.ops._cpu import DTYPES
from gnnlab.ops._edges import Order
from gnnlab.ops._library import is_traced, kernels_for
from gnnlab.ops.softmax import _normalise

__all__ = ["Acceleration", "accelerate"]

_REDUCES = {
    "sum": "sum", "add": "sum", "mean": "mean", "mul": "mul",
    "max": "max", "amax": "max", "min": "min", "amin": "min",
}  # fmt: skip


class Acceleration:
    """What `accelerate` returns: undoes it at the end of a `with` block, or by `undo`."""

    def __init__(self) -> None:
        self._active = True

    def undo(self) -> None:
        """Takes this call of `accelerate` back; the last one restores PyG. More calls do nothing.

        Example:
            >>> import gnnlab.compat.pyg
            >>> handle = gnnlab.compat.pyg.accelerate()
            >>> handle.undo()
        """
        with _LOCK:
            if self._active:
                self._active = False
                _leave()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def accelerate() -> Acceleration:
    """Routes PyG's aggregations on CPU tensors through gnnlab's kernels until it is undone.

    Routed are `torch_geometric.utils.scatter`, `segment` and `softmax` in every module of PyG
    that uses them, the gathering of neighbours in `MessagePassing`, and products of a sorted
    `EdgeIndex` with a dense matrix. Everything that the kernels do not cover runs as before: other
    devices and dtypes, traced and compiled calls, tensor subclasses, and all of it where gnnlab
    has no compiled kernels.

    Returns:
        a handle with `undo`, which is also a context manager. Calls may be nested; PyG is restored
        when the last is undone.

    Raises:
        ImportError: if torch-geometric is not installed.

    Example:
        >>> import torch
        >>> from gnnlab.compat.pyg import accelerate
        >>> from torch_geometric.nn import SAGEConv
        >>> x, edge_index = torch.rand(3, 4), torch.tensor([[0, 1, 2], [1, 2, 1]])
        >>> with accelerate():
        ...     SAGEConv(4, 8)(x, edge_index).shape
        torch.Size([3, 8])

    An index is sorted once and remembered until it is written to or freed, so that the layers of
    a model, and epochs, share the work. Writes that torch does not count, through NumPy or
    ``.data``, are not noticed.

    The switch is one for the whole process: all threads see it while it is on. Calls that run
    at the moment of a change finish with either implementation.
    """
    with _LOCK:
        _enter()
    return Acceleration()


# ---- the switch --------------------------------------------------------------------------------

_LOCK = threading.RLock()
_MEMORY = Memory()
_depth = 0
_routes: list[tuple[Any, Any]] = []  # PyG's function and ours
_row_type: type | None = None  # of the rows of an EdgeIndex
_method: tuple[Any, Any] | None = None  # MessagePassing and its own _index_select


def _enter() -> None:
    global _depth, _method, _row_type
    if _depth == 0:
        try:
            import torch_geometric
            import torch_geometric.edge_index as edge_index
            import torch_geometric.nn.conv.message_passing as message_passing
            import torch_geometric.utils as utils
        except ImportError as error:
            raise ImportError("gnnlab.compat.pyg needs PyG: pip install 'gnnlab[pyg]'") from error
        _routes[:] = [
            (utils.scatter, _scatter_route(utils.scatter)),
            (utils.segment, _segment_route(utils.segment)),
            (utils.softmax, _softmax_route(utils.softmax)),
            (edge_index._spmm, _spmm_route(edge_index._spmm)),
        ]
        _row_type = getattr(torch_geometric, "Index", None)
        base = message_passing.MessagePassing
        _method = (base, base._index_select)
        try:
            for theirs, ours in _routes:
                _replace(theirs, ours)
            base._index_select = _select_route(base._index_select)
        except BaseException:
            _restore()
            raise
    _depth += 1


def _leave() -> None:
    global _depth
    _depth -= 1
    if _depth == 0:
        _restore()


def _restore() -> None:
    """Puts PyG's functions back, also into modules that were imported in between."""
    global _method
    for theirs, ours in _routes:
        _replace(ours, theirs)
    _routes.clear()
    if _method is not None:
        base, own = _method
        base._index_select = own
        _method = None
    _MEMORY.clear()


def _replace(old: Any, new: Any) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "torch_geometric" and isinstance(module, ModuleType):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


# ---- the routes --------------------------------------------------------------------------------


def _covered(*tensors: Tensor | None) -> bool:
    """Whether all are plain tensors on the CPU, and kernels run there."""
    if is_traced(*tensors):
        return False
    given = [t for t in tensors if t is not None]
    return all(t.is_cpu for t in given) and kernels_for(given[0]) is not None


def _plain(index: Any) -> Any:
    """Returns the tensor inside a row of an EdgeIndex, and anything else as it is."""
    return cast(Any, index).as_tensor() if type(index) is _row_type else index


def _order(given: Any, index: Tensor, size: int) -> Order:
    """Returns how `index`, the plain tensor of what was given, sorts."""
    if index is given:
        return _MEMORY.order(index, size)
    return group(index, size)  # torch counts writes to an EdgeIndex apart from those to its rows


def _is_index(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dim() == 1 and index.dtype in _INDICES


_INDICES = (torch.int64, torch.int32)


def _has_rows(src: Any, dim: int) -> bool:
    return isinstance(src, Tensor) and src.dtype in DTYPES and -src.dim() <= dim < src.dim()


def _front(src: Tensor, dim: int) -> Tensor:
    return src if dim == 0 or dim == -src.dim() else src.movedim(dim, 0)


def _back(out: Tensor, dim: int) -> Tensor:
    return out if dim == 0 or dim == -out.dim() else out.movedim(0, dim)


def _size(index: Tensor, given: int | None) -> int:
    if given is not None:
        return given
    return int(index.max()) + 1 if index.numel() else 0


def _scatter_route(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(theirs)
    def scatter(
        src: Tensor,
        index: Tensor,
        dim: int = 0,
        dim_size: int | None = None,
        reduce: str = "sum",
    ) -> Tensor:
        kind = _REDUCES.get(reduce)
        plain = _plain(index)
        if (
            kind is not None
            and _has_rows(src, dim)
            and _is_index(plain)
            and plain.shape[0] == src.shape[dim]
            and (kind != "mean" or src.is_floating_point())
            and _covered(src, plain)
        ):
            try:
                order = _order(index, plain, _size(plain, dim_size))
                rows = _front(src, dim)
                if kind in ("max", "min"):
                    return _back(_segment.extreme(order, rows, kind), dim)
                return _back(_segment.reduce_rows(order, rows, kind), dim)
            except IndexError:
                pass  # theirs has its own words for it
        return theirs(src, index, dim, dim_size, reduce)

    return scatter


def _segment_route(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(theirs)
    def segment(src: Tensor, ptr: Tensor, reduce: str = "sum") -> Tensor:
        if (
            reduce in ("sum", "mean", "min", "max")
            and isinstance(ptr, Tensor)
            and ptr.dtype in _INDICES
            and _has_rows(src, ptr.dim() - 1)
            and (reduce != "mean" or src.is_floating_point())
            and _covered(src, ptr)
            and ptr.numel()
        ):
            try:
                return segment_csr(src, ptr, reduce=reduce)
            except (IndexError, ValueError, RuntimeError):
                pass
        return theirs(src, ptr, reduce)

    return segment


def _softmax_route(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(theirs)
    def softmax(
        src: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        num_nodes: int | None = None,
        dim: int = 0,
    ) -> Tensor:
        plain = _plain(index)
        groups = plain if ptr is None else ptr
        if (
            _is_index(groups)
            and _has_rows(src, dim)
            and src.is_floating_point()
            and (ptr is not None or plain.shape[0] == src.shape[dim])
            and _covered(src, groups)
        ):
            rows = _front(src, dim)
            try:
                if ptr is not None:
                    return _back(ops.segment_softmax(rows, indptr=ptr), dim)
                order = _order(index, plain, _size(plain, num_nodes))
                return _back(_normalise(order, rows, "softmax"), dim)
            except (IndexError, ValueError):
                pass
        return theirs(src, index, ptr, num_nodes, dim)

    return softmax


def _select_route(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(theirs)
    def _index_select(self: Any, src: Tensor, index: Tensor) -> Tensor:
        dim = self.node_dim
        plain = _plain(index)
        if _has_rows(src, dim) and _is_index(plain) and _covered(src, plain):
            try:
                rows = _front(src, dim)
                if src.requires_grad and torch.is_grad_enabled():
                    order = _order(index, plain, rows.shape[0])
                    return _back(_segment.spread_rows(order, rows), dim)
                return _back(ops.gather(rows, plain), dim)
            except IndexError:
                pass
        return theirs(self, src, index)

    return _index_select


def _spmm_route(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(theirs)
    def _spmm(
        input: Any,
        other: Tensor,
        value: Tensor | None = None,
        reduce: str = "sum",
        transpose: bool = False,
    ) -> Tensor:
        kind = _REDUCES.get(reduce) if reduce in ("sum", "add", "mean", "min", "max") else None
        is_sorted = input.is_sorted_by_col if transpose else input.is_sorted_by_row
        if (
            kind is not None
            and is_sorted
            and _has_rows(other, 0)
            and other.dim() == 2
            and other.is_floating_point()
            and (value is None or (value.dim() == 1 and value.dtype == other.dtype))
            and _covered(other, value, input._data)
        ):
            num_src, num_dst = input.get_sparse_size()
            try:
                plan = _MEMORY.plan(input._data, num_src, num_dst)
                plan = plan if transpose else plan.T
                if plan.num_src == other.shape[0]:
                    return ops.spmm(plan, other, value, reduce=cast(Any, kind))
            except IndexError:
                pass
        return theirs(input, other, value, reduce, transpose)

    return _spmm
