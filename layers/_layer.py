"""What all layers share beside their edges: what they can take, and weights to and from PyG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from gnnlab.errors import needs

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

__all__ = ["Layer"]


class Layer(nn.Module):
    """A message-passing layer, ``layer(x, edges, ...)``, with a citation.

    Subclasses say which of their parameters has which name in the PyG layer of the same name;
    `load_pyg` and `to_pyg` follow from that.
    """

    citation: ClassVar[str] = ""
    """BibTeX entry of the paper."""
    takes: ClassVar[frozenset[str]] = frozenset()
    """What it can be given beside x and edges: "edge_weight", "edge_attr", "edge_type",
    "bipartite", "heterogeneous"; "edge_sets": several sets of edges."""
    compiles: ClassVar[bool] = True
    """Whether ``torch.compile(fullgraph=True)`` takes it: not when shapes depend on the data."""
    picture: ClassVar[tuple[str, ...]] = ()
    """Words for what it aggregates, which the documentation draws."""

    _pyg_classes: ClassVar[tuple[str, ...]] = ()
    """Names of PyG's layers with this equation, if not one of the same name."""
    _pyg_weights: ClassVar[dict[str, str]] = {}
    """Our parameter -> PyG's; names that end with a dot are modules, taken over as they are."""
    _pyg_options: ClassVar[dict[str, str]] = {}
    """Our attribute -> PyG's: options that are no parameters, and must agree."""

    def _pyg_names(self) -> dict[str, str]:
        """Returns `_pyg_weights`; layers whose parameters depend on their arguments make it."""
        return self._pyg_weights

    def _pyg_ignored(self) -> tuple[str, ...]:
        """Returns how parameters begin that PyG's layer has and does not use."""
        return ()

    def load_pyg(self, layer: nn.Module) -> Self:
        """Copies the weights of the PyG layer of the same name; returns this layer.

        Args:
            layer: a ``torch_geometric.nn`` layer made with the same sizes and options.

        Raises:
            TypeError: if it is of another class.
            ValueError: if sizes or options differ; nothing has been copied then.
        """
        pairs = list(self._pairs(layer))
        with torch.no_grad():
            for _, ours, theirs in pairs:
                ours.copy_(theirs.reshape(ours.shape))
        return self

    def to_pyg(self) -> nn.Module:
        """Returns the PyG layer of the same name, with the same options and copied weights.

        Raises:
            MissingExtraError: if torch_geometric is not installed.
            NotImplementedError: if PyG has no such layer.
        """
        theirs = needs("torch_geometric.nn", f"{type(self).__name__}.to_pyg", "pyg")
        made = self._make_pyg(theirs)
        like = next(self.parameters(), None)
        if like is not None:
            made = made.to(like.device, like.dtype)
        with torch.no_grad():
            for _, own, other in self._pairs(made):
                other.copy_(own.reshape(other.shape))
        return made

    def _make_pyg(self, library: Any) -> nn.Module:
        """Returns PyG's layer with our options and any weights."""
        raise NotImplementedError(f"PyG has no layer like {type(self).__name__}")

    def _pairs(self, layer: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Checks that both layers are alike; yields (name, our tensor, PyG's tensor)."""
        name, other = type(self).__name__, type(layer).__name__
        if other not in (self._pyg_classes or (name,)):
            raise TypeError(f"{name}.load_pyg needs PyG's {name}, got {other}")
        for ours, theirs in self._pyg_options.items():
            mine, its = getattr(self, ours), getattr(layer, theirs)
            if mine != ("sum" if its == "add" else its):
                raise ValueError(
                    f"{name}: {ours} is {mine!r} here, but {theirs} is {its!r} in PyG's"
                )
        own, found = self.state_dict(keep_vars=True), layer.state_dict(keep_vars=True)
        pairs: dict[str, tuple[str, Tensor, Tensor]] = {}
        for ours, theirs in self._pyg_names().items():
            for key, tensor in own.items():
                if key == ours or (ours.endswith(".") and key.startswith(ours)):
                    wanted = theirs + key[len(ours) :] if ours.endswith(".") else theirs
                    if wanted not in found:
                        raise ValueError(
                            f"{name}: {key} has no counterpart {wanted} in PyG's layer"
                        )
                    if tensor.numel() != found[wanted].numel():
                        raise ValueError(
                            f"{name}: {key} has shape {tuple(tensor.shape)}, but {wanted} in PyG's "
                            f"layer has {tuple(found[wanted].shape)}"
                        )
                    pairs[wanted] = key, tensor, found[wanted]
        left = {n for n in set(found) - set(pairs) if not n.startswith(self._pyg_ignored())}
        if left:
            raise ValueError(
                f"{name}: PyG's layer has {', '.join(sorted(left))}, this one does not"
            )
        missing = set(own) - {key for key, *_ in pairs.values()}
        if missing:
            raise ValueError(f"{name}: {', '.join(sorted(missing))} is not in PyG's layer")
        yield from pairs.values()
