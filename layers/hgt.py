"""HGTConv: transformer attention whose maps depend on the types of nodes and edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gnnlab.hetero import EdgeType
from gnnlab.layers._hetero import HeteroEdges, joined
from gnnlab.layers._layer import Layer
from gnnlab.ops import attention_aggregate

__all__ = ["HGTConv"]


class HGTConv(Layer):
    r"""Averages neighbours of all types by dot products under maps of their types.

    $$ h_i = \sigma(s_{\tau(i)})\, W^A_{\tau(i)}\, \mathrm{gelu}\Bigl( \sum_{j \to i} \alpha_{ji}\,
       W^V_{\tau(j)} x_j\, M_{\phi(ji)} \Bigr) + (1 - \sigma(s_{\tau(i)}))\, x_i, \qquad
       \alpha_{ji} = \operatorname*{softmax}_{j}\, \frac{\mu_{\phi(ji)}}{\sqrt{D}}
       \bigl\langle W^Q_{\tau(i)} x_i,\; W^K_{\tau(j)} x_j\, A_{\phi(ji)} \bigr\rangle $$

    per head of D numbers; $\tau$ is the type of a node, $\phi$ that of an edge. The softmax runs
    over all in-edges of a target, whatever their type: all edge types are one plan, and scores,
    softmax and sum one kernel. The second term is there where sizes agree. Linear maps have a bias.

    Args:
        in_dim: size of `x`; a dictionary by node type if sizes differ.
        out_dim: size of the output, all heads together.
        metadata: node types, and edge types (source type, relation, target type), as
            `HeteroGraph.metadata` gives them.
        heads: number of heads; must divide `out_dim`.

    Shapes:
        x: node type -> (N_t, in_dim) float; edges: `HeteroGraph` (joined and sorted once), or
        edge type -> edge_index, `Graph` or `EdgePlan`; edge types may be left out.
        returns: node type -> (N_t, out_dim), for the node types of `x` that are targets of some
        edge type in `metadata`.

    Raises:
        ValueError: if shapes do not fit, or a type or node does not exist.

    Example:
        >>> import torch
        >>> from gnnlab import HeteroGraph
        >>> from gnnlab.layers import HGTConv
        >>> buys = torch.tensor([[0, 1, 2], [0, 0, 1]])
        >>> graph = HeteroGraph({"user": 3, "item": 2}, {("user", "buys", "item"): buys})
        >>> conv = HGTConv({"user": 4, "item": 8}, 16, graph.metadata, heads=2)
        >>> out = conv({"user": torch.randn(3, 4), "item": torch.randn(2, 8)}, graph)
        >>> {name: h.shape for name, h in out.items()}
        {'item': torch.Size([2, 16])}

    Reference: Hu et al., WWW 2020, arXiv:2003.01332, eq. (1) to (5). Differs from it in: no
    relative temporal encoding, and the gate of the second term is learned, as in the authors' code.
    """

    citation: ClassVar[str] = """@inproceedings{hu2020heterogeneous,
  title     = {Heterogeneous Graph Transformer},
  author    = {Hu, Ziniu and Dong, Yuxiao and Wang, Kuansan and Sun, Yizhou},
  booktitle = {Proceedings of The Web Conference},
  year      = {2020},
  note      = {arXiv:2003.01332}
}"""
    takes = frozenset({"heterogeneous"})
    picture = ("sum", "root", "attention", "types")
    _pyg_options: ClassVar[dict[str, str]] = {"heads": "heads", "out_dim": "out_channels"}

    def __init__(
        self,
        in_dim: int | Mapping[str, int],
        out_dim: int,
        metadata: tuple[Sequence[str], Sequence[EdgeType]],
        *,
        heads: int = 1,
    ) -> None:
        super().__init__()
        if heads < 1 or out_dim % heads:
            raise ValueError(f"HGTConv: heads={heads} must divide out_dim={out_dim}")
        self.node_types = tuple(metadata[0])
        self.edge_types: tuple[EdgeType, ...] = tuple(metadata[1])
        for kind in self.edge_types:
            if not {kind[0], kind[2]} <= set(self.node_types):
                raise ValueError(f"HGTConv: edge type {kind} joins a type not in {self.node_types}")
        dims = {
            name: in_dim if isinstance(in_dim, int) else in_dim[name] for name in self.node_types
        }
        self.in_dim, self.out_dim, self.heads = dims, out_dim, heads
        width, count = out_dim // heads, len(self.edge_types)
        # Lists in the order of the types: a module's name may not hold every character.
        self.lin_kqv = nn.ModuleList(nn.Linear(dim, 3 * out_dim) for dim in dims.values())
        self.lin_out = nn.ModuleList(nn.Linear(out_dim, out_dim) for _ in dims)
        self.map_key = nn.Parameter(torch.empty(heads, count, width, width))
        self.map_value = nn.Parameter(torch.empty(heads, count, width, width))
        self.priority = nn.ParameterList(torch.empty(heads) for _ in range(count))
        self.skip = nn.ParameterList(torch.empty(1) for _ in dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws matrices after Glorot and Bengio; priorities and gates begin at 1, biases at 0."""
        for lin in (*self.lin_kqv, *self.lin_out):
            nn.init.xavier_uniform_(lin.weight)
            nn.init.zeros_(lin.bias)
        bound = (3 * self.heads / self.out_dim) ** 0.5
        for matrices in (self.map_key, self.map_value):
            nn.init.uniform_(matrices, -bound, bound)
        for parameter in (*self.priority, *self.skip):
            nn.init.ones_(parameter)

    def forward(self, x: Mapping[str, Tensor], edges: HeteroEdges) -> dict[str, Tensor]:
        """Returns h for each node type that is a target."""
        self._check(x)
        types = [name for name in self.node_types if name in x]
        keys, queries, values = {}, [], {}
        for name in types:
            lin = self.lin_kqv[self.node_types.index(name)]
            parts = lin(x[name]).view(-1, 3, self.heads, self.out_dim // self.heads)
            keys[name], values[name] = parts[:, 0], parts[:, 2]
            queries.append(parts[:, 1])
        sizes = {name: x[name].shape[0] for name in types}
        plan, kinds = joined("HGTConv", edges, sizes, self.edge_types)
        q = torch.cat(queries)
        if kinds:
            k = torch.cat([self._mapped(keys[kind[0]], kind, self.map_key) for kind in kinds])
            k = k * self._priorities(kinds, sizes)
            v = torch.cat([self._mapped(values[kind[0]], kind, self.map_value) for kind in kinds])
            h = attention_aggregate(plan, q, k.to(q.dtype), v).flatten(1)
        else:
            h = torch.zeros_like(q).flatten(1)
        return self._finished(x, torch.split(h, [*sizes.values()]), types)

    def _mapped(self, rows: Tensor, kind: EdgeType, matrices: Tensor) -> Tensor:
        """Returns the rows of one node type under the matrix of each head, (N_t, H, D)."""
        matrix = matrices[:, self.edge_types.index(kind)]
        return (rows.transpose(0, 1) @ matrix).transpose(0, 1)

    def _priorities(self, kinds: Sequence[EdgeType], sizes: Mapping[str, int]) -> Tensor:
        """Returns mu of each row of the keys, (sum of N_t, H, 1)."""
        rows = [
            self.priority[self.edge_types.index(kind)].expand(sizes[kind[0]], -1) for kind in kinds
        ]
        return torch.cat(rows).unsqueeze(-1)

    def _finished(
        self, x: Mapping[str, Tensor], parts: Sequence[Tensor], types: Sequence[str]
    ) -> dict[str, Tensor]:
        """Maps what targets collected, and mixes it with what they had."""
        targets = {kind[2] for kind in self.edge_types}
        out = {}
        for name, part in zip(types, parts, strict=True):
            if name not in targets:
                continue
            place = self.node_types.index(name)
            h = self.lin_out[place](functional.gelu(part))
            if self.in_dim[name] == self.out_dim:
                gate = self.skip[place].sigmoid()
                h = gate * h + (1 - gate) * x[name]
            out[name] = h
        return out

    def _check(self, x: Mapping[str, Tensor]) -> None:
        if not isinstance(x, Mapping):
            raise TypeError(f"HGTConv expected x as node type -> tensor, got {type(x).__name__}")
        if not x:
            raise ValueError(f"HGTConv got an empty x; it knows {list(self.node_types)}")
        for name, given in x.items():
            if name not in self.in_dim:
                raise ValueError(
                    f"HGTConv was not made for node type {name!r}; it knows {list(self.node_types)}"
                )
            if given.dim() != 2 or given.shape[1] != self.in_dim[name]:
                raise ValueError(
                    f"HGTConv expected x[{name!r}] of shape (N, {self.in_dim[name]}), "
                    f"got {tuple(given.shape)}"
                )

    def _pyg_names(self) -> dict[str, str]:
        names = {"map_key": "k_rel.weight", "map_value": "v_rel.weight"}
        for place, name in enumerate(self.node_types):
            names[f"lin_kqv.{place}."] = f"kqv_lin.lins.{name}."
            names[f"lin_out.{place}."] = f"out_lin.lins.{name}."
            names[f"skip.{place}"] = f"skip.{name}"
        for place, kind in enumerate(self.edge_types):
            names[f"priority.{place}"] = f"p_rel.{'__'.join(kind).replace('.', '#')}"
        return names

    def _make_pyg(self, library: Any) -> nn.Module:
        metadata = (list(self.node_types), list(self.edge_types))
        return library.HGTConv(  # type: ignore[no-any-return]
            dict(self.in_dim), self.out_dim, metadata, heads=self.heads
        )

    def extra_repr(self) -> str:
        """Returns sizes and types."""
        kinds = ", ".join("-".join(kind) for kind in self.edge_types)
        heads = f", heads={self.heads}" * (self.heads != 1)
        return f"{self.in_dim}, {self.out_dim}, edge_types=[{kinds}]{heads}"
