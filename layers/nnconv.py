"""NNConv: a network of the edge makes the matrix that its message goes through."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, Nodes, prepare
from gnnlab.ops import EdgePlan, gather, scatter, spmm

__all__ = ["NNConv"]


class NNConv(Layer):
    r"""Sends each neighbour through a matrix that a network makes of the edge's features.

    $$ h_i = W x_i + \operatorname*{reduce}_{j \in \mathcal{N}(i)}
       x_j^\top\, \mathrm{net}(e_{ji}) + b $$

    with net(e) read as a matrix of in_dim x out_dim. A network that ends with a linear map gives
    net(e) = sum_c n_c(e) A_c + B. Sums and means then take n_c(e) x_j over the edges first and the
    matrices A_c once per node: no matrix per edge is made, where that takes no more memory.

    Args:
        in_dim: size of `x`; a pair for sources and targets.
        out_dim: size of the output.
        net: from (E, edge features) to (E, in_dim * out_dim).
        reduce: "sum", "mean" or "max".
        root: whether the term with W is there.
        bias: whether to add b.

    Shapes:
        x: (N, in_dim) float, or a pair (N, in_dim[0]), (M, in_dim[1]);
        edges: (2, E) int64, `Graph` or `EdgePlan`; edge_attr: (E, *).
        returns: (N, out_dim), or (M, out_dim) for a pair.

    Raises:
        ValueError: if shapes do not fit, or `edges` refers to a node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import NNConv
        >>> conv = NNConv(4, 8, torch.nn.Linear(2, 4 * 8))
        >>> edges = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> conv(torch.randn(4, 4), edges, torch.randn(3, 2)).shape
        torch.Size([4, 8])

    Reference: Gilmer et al., ICML 2017, arXiv:1704.01212, section 5.
    """

    citation: ClassVar[str] = """@inproceedings{gilmer2017neural,
  title     = {Neural Message Passing for Quantum Chemistry},
  author    = {Gilmer, Justin and Schoenholz, Samuel S. and Riley, Patrick F. and Vinyals, Oriol and
               Dahl, George E.},
  booktitle = {International Conference on Machine Learning},
  year      = {2017},
  note      = {arXiv:1704.01212}
}"""
    takes = frozenset({"edge_attr", "bipartite"})
    picture = ("sum", "root", "network", "edges")
    _pyg_weights: ClassVar[dict[str, str]] = {
        "net.": "nn.",
        "weight": "lin.weight",
        "bias": "bias",
    }
    _pyg_options: ClassVar[dict[str, str]] = {"reduce": "aggr"}

    def __init__(
        self,
        in_dim: int | tuple[int, int],
        out_dim: int,
        net: nn.Module,
        *,
        reduce: Literal["sum", "mean", "max"] = "sum",
        root: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if reduce not in ("sum", "mean", "max"):
            raise ValueError(f'NNConv: unknown reduce "{reduce}". Known: sum, mean, max.')
        self.in_dim, self.out_dim, self.net = in_dim, out_dim, net
        self.reduce: Literal["sum", "mean", "max"] = reduce
        dst = in_dim[1] if isinstance(in_dim, tuple) else in_dim
        self.weight = nn.Parameter(torch.empty(out_dim, dst)) if root else None
        self.bias = nn.Parameter(torch.empty(out_dim)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W anew and sets b to 0; the network keeps its weights."""
        if self.weight is not None:
            nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Nodes, edges: Edges, edge_attr: Tensor) -> Tensor:
        """Returns h, one row per target."""
        given = prepare(self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr)
        plan, x_src = given.plan, given.x_src
        last, before = split_last(self.net)
        if last is not None and self.reduce != "max" and _pays(plan, last, self.out_dim):
            for module in before:
                edge_attr = module(edge_attr)
            h = self._factored(plan, x_src, edge_attr, last, self.reduce)
        else:
            matrices = self.net(edge_attr).view(-1, x_src.shape[1], self.out_dim)
            rows = gather(x_src, plan.src, plan=plan.T)
            messages = torch.bmm(rows.unsqueeze(1), matrices).squeeze(1)
            h = scatter(messages, plan.dst, plan.num_dst, reduce=self.reduce, plan=plan)
        if self.weight is not None:
            h = h + nn.functional.linear(given.x_dst, self.weight)
        return h if self.bias is None else h + self.bias

    def _factored(
        self,
        plan: EdgePlan,
        x: Tensor,
        c: Tensor,
        last: nn.Linear,
        reduce: Literal["sum", "mean"],
    ) -> Tensor:
        """Returns the messages' reduction: sums of c_e x_j come first, matrices after them."""
        size, terms = x.shape[1], c.shape[1]
        x = x.to(c.dtype)
        z = spmm(plan, x.unsqueeze(1).expand(-1, terms, -1), c, reduce=reduce)
        matrices = last.weight.view(size, self.out_dim, terms).permute(2, 0, 1)
        h = z.flatten(1) @ matrices.reshape(terms * size, self.out_dim).to(z.dtype)
        if last.bias is not None:
            h = h + spmm(plan, x, reduce=reduce) @ last.bias.view(size, self.out_dim).to(z.dtype)
        return h

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.NNConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            copy.deepcopy(self.net),
            aggr=self.reduce,
            root_weight=self.weight is not None,
            bias=self.bias is not None,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", reduce={self.reduce!r}" * (self.reduce != "sum")
        return f"{self.in_dim}, {self.out_dim}{options}" + ", root=False" * (self.weight is None)


def split_last(net: nn.Module) -> tuple[nn.Linear | None, list[nn.Module]]:
    """Returns the linear map that a network ends with, and what comes before; None without one."""
    parts = list(net) if type(net) is nn.Sequential else [net]
    last = parts[-1] if parts else None
    return (last, parts[:-1]) if type(last) is nn.Linear else (None, parts)


def _pays(plan: EdgePlan, last: nn.Linear, out_dim: int) -> bool:
    """Whether sums of c_e x_j per node are no larger than a matrix per edge."""
    return last.in_features * plan.num_dst <= out_dim * plan.num_edges
