"""InteractionBlock: the block of MeshGraphNets, edges first, then nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.layers.mlp import MLP
from gnnlab.ops import EdgePlan, scatter, sddmm

__all__ = ["InteractionBlock"]

EdgeSets = Edges | Sequence[Edges] | Mapping[str, Edges]
FeatureSets = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class InteractionBlock(Layer):
    r"""Updates edges from both of their ends, then nodes from the sum of their edges.

    $$ e'_k = \mathrm{MLP}_k([v_s, v_r, e_k]), \qquad
       v' = \mathrm{MLP}_v\bigl([v, \textstyle\sum_{\to v} e'_1, \sum_{\to v} e'_2, \dots]\bigr)
       \qquad v \leftarrow v + v', \quad e_k \leftarrow e_k + e'_k $$

    for each set k of edges from a sender s to a receiver r. Nodes see e' before it is added to e.
    [v_s, v_r, e] is never made: the first map of MLP_k acts on nodes and edges apart, and `sddmm`
    adds up the two ends. Per edge there are the hidden layers, and e'.

    Args:
        dim: size of `v`.
        edge_dim: size of each `e`; by default dim.
        edge_sets: names of the sets of edges, for example ("mesh", "contact"); None: one set.
        hidden: size of the hidden layers; by default dim.
        num_hidden: number of hidden layers of each MLP.
        activation: makes the activation of the MLPs.
        layer_norm: whether the MLPs end with a layer norm.
        reduce: how a node takes its edges together: "sum", "mean" or "max".

    Shapes:
        v: (N, dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`; e: (E, edge_dim).
        With named sets `edges` and `e` are dicts with those names, or lists in their order; a set
        may have no edges.
        returns: v and e, of the shapes that were given.

    Raises:
        ValueError: if shapes or sets do not fit, or edges refer to a node that v does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import InteractionBlock
        >>> block = InteractionBlock(16, edge_sets=("mesh", "contact"))
        >>> mesh, contact = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([[3], [0]])
        >>> edges = {"mesh": mesh, "contact": contact}
        >>> e = {"mesh": torch.randn(3, 16), "contact": torch.randn(1, 16)}
        >>> v, e = block(torch.randn(4, 16), edges, e)
        >>> v.shape, e["contact"].shape
        (torch.Size([4, 16]), torch.Size([1, 16]))

    Reference: Pfaff et al., ICLR 2021, arXiv:2010.03409, eq. (1).
    """

    citation: ClassVar[str] = """@inproceedings{pfaff2021learning,
  title     = {Learning Mesh-Based Simulation with Graph Networks},
  author    = {Pfaff, Tobias and Fortunato, Meire and Sanchez-Gonzalez, Alvaro and
               Battaglia, Peter W.},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  note      = {arXiv:2010.03409}
}"""
    takes = frozenset({"edge_attr", "edge_sets"})
    picture = ("sum", "network", "edges", "edge state")

    def __init__(
        self,
        dim: int,
        *,
        edge_dim: int | None = None,
        edge_sets: Sequence[str] | None = None,
        hidden: int | None = None,
        num_hidden: int = 2,
        activation: Callable[[], nn.Module] = nn.ReLU,
        layer_norm: bool = True,
        reduce: Literal["sum", "mean", "max"] = "sum",
    ) -> None:
        super().__init__()
        if isinstance(edge_sets, str) or (edge_sets is not None and not edge_sets):
            raise ValueError(f"InteractionBlock: edge_sets must list names, got {edge_sets!r}")
        if reduce not in ("sum", "mean", "max"):
            raise ValueError(f'InteractionBlock: unknown reduce "{reduce}". Known: sum, mean, max.')
        self.dim, self.edge_dim = dim, dim if edge_dim is None else edge_dim
        self.edge_sets = None if edge_sets is None else tuple(edge_sets)
        self.reduce: Literal["sum", "mean", "max"] = reduce
        hidden = dim if hidden is None else hidden

        def mlp(in_dim: int, out_dim: int) -> MLP:
            return MLP(
                in_dim,
                out_dim,
                hidden=hidden,
                num_hidden=num_hidden,
                activation=activation,
                layer_norm=layer_norm,
            )

        count = 1 if self.edge_sets is None else len(self.edge_sets)
        names = ("edge",) if self.edge_sets is None else self.edge_sets
        ends = 2 * dim + self.edge_dim
        self.mlp_edges = nn.ModuleDict({name: mlp(ends, self.edge_dim) for name in names})
        self.mlp_node = mlp(dim + count * self.edge_dim, dim)

    def reset_parameters(self) -> None:
        """Draws the weights of all MLPs anew."""
        for mlp in (*self.mlp_edges.values(), self.mlp_node):
            cast(MLP, mlp).reset_parameters()

    def forward(self, v: Tensor, edges: EdgeSets, e: FeatureSets) -> tuple[Tensor, FeatureSets]:
        """Returns the new v and e."""
        all_edges, all_e = self._listed(edges, "edges"), self._listed(e, "e")
        messages, sums = [], []
        for mlp, given, own in zip(self.mlp_edges.values(), all_edges, all_e, strict=True):
            plan = prepare(
                self, v, given, in_dim=self.dim, edge_attr=own, edge_dim=self.edge_dim
            ).plan
            message = _of_both_ends(cast(MLP, mlp), plan, v, own)
            messages.append(own + message)
            sums.append(scatter(message, plan.dst, plan.num_dst, reduce=self.reduce, plan=plan))
        first = self.mlp_node.first
        cuts = [self.dim + i * self.edge_dim for i in range(len(sums))]
        own_part, *parts = first.weight.tensor_split(cuts, 1)
        h = linear(v, own_part, first.bias)
        for part, total in zip(parts, sums, strict=True):
            h = h + linear(total, part)
        return v + self.mlp_node.finish(h), self._as_given(messages, e)

    def _listed(self, given: Any, word: str) -> list[Any]:
        """Returns one item per set of edges, in the order of the names."""
        names = self.edge_sets
        if names is None:
            if isinstance(given, Mapping | list | tuple):
                raise ValueError(
                    f"InteractionBlock has one set of edges and expected {word} for it alone, got "
                    f"a {type(given).__name__}; name several sets with edge_sets="
                )
            return [given]
        if isinstance(given, Mapping):
            if set(given) != set(names):
                raise ValueError(
                    f"InteractionBlock expected {word} for the sets {', '.join(names)}, got "
                    f"{', '.join(map(str, given)) or 'none'}"
                )
            return [given[name] for name in names]
        if not isinstance(given, list | tuple) or len(given) != len(names):
            what = f"{len(given)}" if isinstance(given, list | tuple) else type(given).__name__
            raise ValueError(
                f"InteractionBlock expected {word} as a dict or a list of {len(names)} "
                f"({', '.join(names)}), got {what}"
            )
        return list(given)

    def _as_given(self, new: list[Tensor], given: FeatureSets) -> FeatureSets:
        """Returns new features of the edges in the form of the old ones."""
        if self.edge_sets is None:
            return new[0]
        if isinstance(given, Mapping):
            return dict(zip(self.edge_sets, new, strict=True))
        return tuple(new) if isinstance(given, tuple) else new

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", edge_dim={self.edge_dim}" * (self.edge_dim != self.dim)
        options += f", edge_sets={self.edge_sets}" * (self.edge_sets is not None)
        return f"{self.dim}{options}" + f", reduce={self.reduce!r}" * (self.reduce != "sum")


def _of_both_ends(mlp: MLP, plan: EdgePlan, v: Tensor, e: Tensor) -> Tensor:
    """Returns ``mlp([v_s, v_r, e])`` for every edge; only hidden layers are made per edge."""
    first, dim = mlp.first, v.shape[1]
    sender, receiver, own = first.weight.tensor_split((dim, 2 * dim), 1)
    ends = sddmm(plan, linear(v, receiver, first.bias), linear(v, sender), op="add")
    return mlp.finish(torch.addmm(ends, e, own.t()))
