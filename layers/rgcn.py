"""RGCNConv: one linear map per relation."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.layers._relations import Relations, relations
from gnnlab.ops import EdgePlan, spmm

__all__ = ["RGCNConv"]


class RGCNConv(Layer):
    r"""Averages the neighbours of each relation, and maps each average by the relation's matrix.

    $$ h_i = W_0 x_i + \sum_{r} W_r \frac{1}{|\mathcal{N}_r(i)|} \sum_{j \in \mathcal{N}_r(i)} x_j
       + b $$

    The matrices may be sums of a few shared ones, $W_r = \sum_b a_{rb} V_b$ (`num_bases`), or block
    diagonal (`num_blocks`). Rows are averaged before the map or mapped before the average, as it
    makes fewer numbers; with many relations only (relation, target) pairs that occur get a row.

    Args:
        in_dim: size of `x`; a pair for sources and targets. The number of nodes, if the layer is
            called with x = None: then W_r x_j is a row of W_r for each node.
        out_dim: size of the output.
        num_relations: number of types of edges, R.
        num_bases: number of shared matrices V_b.
        num_blocks: number of blocks on the diagonal; must divide both sizes.
        reduce: "mean", "sum" or "max", within each relation.
        root: whether the term with W_0 is there.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, a pair (N, in_dim[0]), (M, in_dim[1]), or None;
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_type: (E,) int64, values 0..R-1.
        returns: (N, out_dim), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, or a node or relation does not exist.

    Example:
        >>> import torch
        >>> from gnnlab.layers import RGCNConv
        >>> conv = RGCNConv(16, 32, num_relations=2)
        >>> edge_index, edge_type = torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0, 1, 1])
        >>> conv(torch.randn(4, 16), edge_index, edge_type).shape
        torch.Size([4, 32])

    Reference: Schlichtkrull et al., ESWC 2018, arXiv:1703.06103, eq. (2) to (4).
    """

    citation: ClassVar[str] = """@inproceedings{schlichtkrull2018modeling,
  title     = {Modeling Relational Data with Graph Convolutional Networks},
  author    = {Schlichtkrull, Michael and Kipf, Thomas N. and Bloem, Peter and van den Berg, Rianne
               and Titov, Ivan and Welling, Max},
  booktitle = {European Semantic Web Conference},
  year      = {2018},
  note      = {arXiv:1703.06103}
}"""
    takes = frozenset({"edge_type", "bipartite"})
    picture = ("mean", "root", "types")
    _pyg_classes: ClassVar[tuple[str, ...]] = ("RGCNConv", "FastRGCNConv")
    _pyg_weights: ClassVar[dict[str, str]] = {
        name: name for name in ("weight", "comp", "root", "bias")
    }
    _pyg_options: ClassVar[dict[str, str]] = {
        "reduce": "aggr",
        "num_relations": "num_relations",
        "num_bases": "num_bases",
        "num_blocks": "num_blocks",
    }

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        num_relations: int,
        *,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        reduce: Literal["mean", "sum", "max"] = "mean",
        root: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        src, dst = in_dim if isinstance(in_dim, tuple) else (in_dim, in_dim)
        if num_bases is not None and num_blocks is not None:
            raise ValueError("RGCNConv takes num_bases or num_blocks, not both")
        if num_blocks is not None and (src % num_blocks or out_dim % num_blocks):
            raise ValueError(
                f"RGCNConv: num_blocks={num_blocks} must divide in_dim={src} and out_dim={out_dim}"
            )
        if reduce not in ("mean", "sum", "max"):
            raise ValueError(f'RGCNConv: reduce must be "mean", "sum" or "max", got "{reduce}"')
        self.in_dim, self.out_dim, self.num_relations = in_dim, out_dim, num_relations
        self.num_bases, self.num_blocks, self.reduce = num_bases, num_blocks, reduce
        if num_blocks is None:
            shape: tuple[int, ...] = (num_bases or num_relations, src, out_dim)
        else:
            shape = (num_relations, num_blocks, src // num_blocks, out_dim // num_blocks)
        self.weight = nn.Parameter(torch.empty(shape))
        self.comp = nn.Parameter(torch.empty(num_relations, num_bases)) if num_bases else None
        self.root = nn.Parameter(torch.empty(dst, out_dim)) if root else None
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws matrices after Glorot and Bengio, each for itself; sets the bias to 0."""
        for matrix in (self.weight, self.comp, self.root):
            if matrix is not None:
                bound = (6 / (matrix.shape[-2] + matrix.shape[-1])) ** 0.5
                nn.init.uniform_(matrix, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Nodes | None, edges: Edges, edge_type: Tensor) -> Tensor:
        """Returns h, one row per target."""
        if x is None:
            return self._of_nodes(edges, edge_type)
        given = prepare(self, x, edges, in_dim=self.in_dim)
        kinds = relations(self, given.plan, edge_type, self.num_relations)
        h = _WAYS[self._cheapest(kinds)](kinds, given.x_src, self._blocks(), self.reduce)
        if self.root is not None:
            h = h + given.x_dst @ self.root
        return h if self.bias is None else h + self.bias

    def _of_nodes(self, edges: Edges, edge_type: Tensor) -> Tensor:
        """The layer on x = identity: rows of W_r are taken, nothing is multiplied."""
        if self.num_blocks is not None or self.reduce == "max" or isinstance(self.in_dim, tuple):
            raise ValueError(
                f"{self} cannot be called with x=None: that needs one in_dim, the number of nodes, "
                'no num_blocks, and reduce "mean" or "sum"'
            )
        given = prepare(self, self.weight.new_empty(self.in_dim, 0), edges)
        kinds = relations(self, given.plan, edge_type, self.num_relations)
        table = self._blocks().reshape(-1, self.out_dim)
        share = kinds.share(table.dtype) if self.reduce == "mean" else None
        h = spmm(kinds.by_source(types_first=True), table, share)
        h = h if self.root is None else h + self.root
        return h if self.bias is None else h + self.bias

    def _blocks(self) -> Tensor:
        """Returns W as (R, blocks, in_dim / blocks, out_dim / blocks)."""
        if self.comp is not None:
            whole = (self.comp @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])
            return whole.unsqueeze(1)
        return self.weight if self.num_blocks is not None else self.weight.unsqueeze(1)

    def _cheapest(self, kinds: Relations) -> str:
        """Says which way makes the fewest numbers."""
        src = self.in_dim[0] if isinstance(self.in_dim, tuple) else self.in_dim
        plan, numbers = kinds.plan, {}
        if self.reduce != "max":  # a maximum does not commute with the map
            numbers["source"] = float(plan.num_src * self.num_relations * self.out_dim)
        rows = plan.num_dst * self.num_relations
        numbers["target"] = float(rows * src)
        if rows and not torch.compiler.is_compiling():  # the number of pairs depends on the edges
            filled = -math.expm1(-plan.num_edges / rows)  # the share of rows, for random edges
            numbers["pairs"] = rows * filled * (src + self.out_dim)
        return min(numbers, key=lambda way: numbers[way])

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.RGCNConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            self.num_relations,
            num_bases=self.num_bases,
            num_blocks=self.num_blocks,
            aggr=self.reduce,
            root_weight=self.root is not None,
            bias=self.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", num_bases={self.num_bases}" * (self.num_bases is not None)
        options += f", num_blocks={self.num_blocks}" * (self.num_blocks is not None)
        options += f", reduce={self.reduce!r}" * (self.reduce != "mean")
        options += ", root=False" * (self.root is None) + ", bias=False" * (self.bias is None)
        return f"{self.in_dim}, {self.out_dim}, num_relations={self.num_relations}{options}"


def _reduced(kinds: Relations, plan: EdgePlan, x: Tensor, reduce: Any) -> Tensor:
    """Returns one row per row of the plan; a mean by weights, so that no gradient is divided."""
    if reduce == "mean":
        return spmm(plan, x, kinds.share(x.dtype))
    return spmm(plan, x, reduce=reduce)


def _by_target(kinds: Relations, x: Tensor, weight: Tensor, reduce: Any) -> Tensor:
    """Averages per (target, relation), then one product over all relations at once."""
    types, blocks, rows, columns = weight.shape
    h = _reduced(kinds, kinds.by_target(), x, reduce)
    # (M T, F) -> (blocks, M, T F / blocks): for one block both permutations move nothing.
    h = h.view(-1, types, blocks, rows).permute(2, 0, 1, 3).reshape(blocks, -1, types * rows)
    out = h @ weight.transpose(0, 1).reshape(blocks, types * rows, columns)
    return out.transpose(0, 1).reshape(-1, blocks * columns)


def _by_source(kinds: Relations, x: Tensor, weight: Tensor, reduce: Any) -> Tensor:
    """Maps every source by all matrices, then one sum in which an edge takes its relation's row."""
    types, blocks, rows, columns = weight.shape
    y = x.reshape(-1, blocks, rows).transpose(0, 1)
    y = y @ weight.permute(1, 2, 0, 3).reshape(blocks, rows, types * columns)
    y = y.view(blocks, -1, types, columns).permute(1, 2, 0, 3).reshape(-1, blocks * columns)
    share = kinds.share(y.dtype) if reduce == "mean" else None
    return spmm(kinds.by_source(), y, share)


def _by_pairs(kinds: Relations, x: Tensor, weight: Tensor, reduce: Any) -> Tensor:
    """Averages per (relation, target) pair that occurs, maps each relation's, and adds."""
    blocks, rows = weight.shape[1:3]
    pairs = kinds.pairs()
    parts = torch.split(_reduced(kinds, pairs.plan, x, reduce), pairs.sizes)
    mapped = [
        (part.view(-1, blocks, rows).transpose(0, 1) @ matrix).transpose(0, 1).flatten(1)
        for part, matrix in zip(parts, weight, strict=True)
    ]
    return spmm(pairs.to_targets, torch.cat(mapped))


_WAYS = {"target": _by_target, "source": _by_source, "pairs": _by_pairs}
