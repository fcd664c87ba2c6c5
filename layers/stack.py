"""DeepStack: many layers with what goes between them, and less memory for deep ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint as recompute

from gnnlab.layers._batch import Batch
from gnnlab.layers._message_passing import prepare

__all__ = ["DeepStack"]

Residual = Literal["none", "add", "initial"]


class DeepStack(nn.Module):
    r"""Runs layers one after the other, with norm, activation, dropout and a residual for each.

    $$ \text{post: } u = \mathrm{drop}(\sigma(\mathrm{norm}(\mathrm{layer}_l(h)))) \qquad
       \text{pre: } u = \mathrm{layer}_l(\mathrm{drop}(\sigma(\mathrm{norm}(h)))) $$

    $$ \text{none: } h \leftarrow u \qquad \text{add: } h \leftarrow h + u \qquad
       \text{initial: } h \leftarrow (1 - \alpha)\, u + \alpha\, x $$

    Edges that come as edge_index are sorted once for all layers. A layer that returns a tuple, as
    `InteractionBlock` does, hands all of it to the next: rows of nodes first, then what follows
    the edges in the call.

    With ``checkpoint=n`` only what goes into every n-th layer is kept for the gradient, and the
    rest is computed a second time in the backward pass, with the same random numbers: less memory,
    the same gradients. Running statistics of a batch norm then see each batch twice.

    Args:
        make_layer: makes the layer with the given number, 0 to num_layers - 1.
        num_layers: number of layers.
        norm: makes a norm, one per layer; None: there is none. It is called with the rows, and with
            `batch` if there is one.
        activation: for example `torch.relu`; None: there is none.
        dropout: with which probability a number is dropped while training.
        residual: "none", "add" or "initial".
        alpha: the share of the input in "initial".
        order: "post" or "pre": whether norm, activation and dropout come after the layer or before.
        jumping: takes the list of all layers' outputs, for example a `JumpingKnowledge`.
        checkpoint: number of layers that are computed again together; 0 keeps everything.

    Shapes:
        x: (N, F) float; edges: what the layers take; more: what they take behind the edges;
        batch: (N,) int64 or None.
        returns: (N, F'), or what `jumping` makes; a tuple if the layers return tuples.

    Raises:
        ValueError: if an option is unknown, or a residual joins different shapes.

    Example:
        >>> import torch
        >>> from gnnlab.layers import DeepStack, GCNConv
        >>> stack = DeepStack(
        ...     lambda i: GCNConv(16, 16), 8, norm=lambda: torch.nn.LayerNorm(16),
        ...     activation=torch.relu, residual="add", order="pre", checkpoint=2,
        ... )
        >>> stack(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 16])

    Reference: Li et al., arXiv:2006.07739, section 3.3 ("pre" with "add"); Chen et al., ICML 2020,
    arXiv:2007.02133, eq. (5) ("initial"); Chen et al., arXiv:1604.06174 (checkpoint).
    """

    citation: ClassVar[str] = """@article{li2020deepergcn,
  title   = {{DeeperGCN}: All You Need to Train Deeper {GCN}s},
  author  = {Li, Guohao and Xiong, Chenxin and Thabet, Ali and Ghanem, Bernard},
  journal = {arXiv:2006.07739},
  year    = {2020}
}"""

    def __init__(
        self,
        make_layer: Callable[[int], nn.Module],
        num_layers: int,
        *,
        norm: Callable[[], nn.Module] | None = None,
        activation: Callable[[Tensor], Tensor] | None = torch.relu,
        dropout: float = 0.0,
        residual: Residual = "none",
        alpha: float = 0.1,
        order: Literal["post", "pre"] = "post",
        jumping: nn.Module | None = None,
        checkpoint: int = 0,
    ) -> None:
        super().__init__()
        if num_layers < 1 or checkpoint < 0:
            raise ValueError(
                f"DeepStack needs num_layers of at least 1 and checkpoint of at least 0, got "
                f"{num_layers} and {checkpoint}"
            )
        for word, value, known in (
            ("residual", residual, ("none", "add", "initial")),
            ("order", order, ("post", "pre")),
        ):
            if value not in known:
                raise ValueError(f'DeepStack: unknown {word} "{value}". Known: {", ".join(known)}.')
        self.layers = nn.ModuleList(make_layer(i) for i in range(num_layers))
        self.norms = None if norm is None else nn.ModuleList(norm() for _ in range(num_layers))
        self.activation, self.dropout = activation, dropout
        self.residual, self.alpha, self.order = residual, alpha, order
        self.jumping, self.checkpoint = jumping, checkpoint

    def forward(self, x: Tensor, edges: Any, *more: Any, batch: Batch = None) -> Any:
        """Returns the rows behind the last layer, or those of all layers through `jumping`."""
        edges = _sorted_once(x, edges)
        outputs: list[Tensor] = []
        state: tuple[Any, ...] = (x, *more)
        tuples = False
        size = self.checkpoint or len(self.layers)
        for start in range(0, len(self.layers), size):
            given = (start, start + size, x, edges, batch, *state)
            if self.checkpoint and torch.is_grad_enabled():
                found, state, tuples = recompute(self._run, *given, use_reentrant=False)
            else:
                found, state, tuples = self._run(*given)
            outputs += found
        h = state[0] if self.jumping is None else self.jumping(outputs)
        return (h, *state[1:]) if tuples else h

    def _run(
        self, start: int, stop: int, x: Tensor, edges: Any, batch: Batch, *state: Any
    ) -> tuple[list[Tensor], tuple[Any, ...], bool]:
        """Runs some layers; returns rows for `jumping`, the state, whether layers give tuples."""
        outputs: list[Tensor] = []
        h, *more = state
        tuples = False
        for i in range(start, min(stop, len(self.layers))):
            u = self._between(i, h, batch) if self.order == "pre" else h
            u = self.layers[i](u, edges, *more)
            if isinstance(u, tuple):
                tuples = True
                u, *more = u
            if self.order == "post":
                u = self._between(i, u, batch)
            h = self._joined(i, h, u, x)
            if self.jumping is not None:
                outputs.append(h)
        return outputs, (h, *more), tuples

    def _between(self, i: int, h: Tensor, batch: Batch) -> Tensor:
        """Norm, activation and dropout."""
        if self.norms is not None:
            h = self.norms[i](h) if batch is None else self.norms[i](h, batch)
        if self.activation is not None:
            h = self.activation(h)
        return dropout(h, self.dropout, self.training)

    def _joined(self, i: int, h: Tensor, u: Tensor, x: Tensor) -> Tensor:
        """The residual."""
        if self.residual == "none":
            return u
        other = h if self.residual == "add" else x
        if other.shape != u.shape:
            raise ValueError(
                f'DeepStack: residual "{self.residual}" cannot join {tuple(u.shape)}, which layer '
                f"{i} gives, with {tuple(other.shape)}; use layers of one size, or encode x first"
            )
        return h + u if self.residual == "add" else (1 - self.alpha) * u + self.alpha * x

    def extra_repr(self) -> str:
        """Returns the options that differ from the default."""
        options = [f"residual={self.residual!r}"] * (self.residual != "none")
        options += [f"order={self.order!r}"] * (self.order != "post")
        options += [f"dropout={self.dropout:g}"] * (self.dropout > 0)
        options += [f"checkpoint={self.checkpoint}"] * (self.checkpoint > 0)
        return ", ".join(options)


def _sorted_once(x: Tensor, edges: Any) -> Any:
    """Makes a plan of every edge_index, so that layers do not sort again."""
    if isinstance(edges, Tensor):
        return prepare("DeepStack", x, edges).plan
    if isinstance(edges, Mapping):
        return {name: _sorted_once(x, one) for name, one in edges.items()}
    if isinstance(edges, list | tuple):
        return [_sorted_once(x, one) for one in edges]
    return edges
