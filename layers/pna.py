"""PNAConv: several statistics of the neighbours, scaled by degree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from gnnlab.layers._layer import Layer
from gnnlab.layers._message_passing import Edges, prepare
from gnnlab.ops import EdgePlan, gather, scatter, sddmm, spmm_multi

__all__ = ["PNAConv"]

_STATISTICS = ("mean", "sum", "max", "min", "std")
_SCALERS = ("identity", "amplification", "attenuation", "linear", "inverse_linear")
_LEAST = 1e-5  # variances up to here count as 0


class PNAConv(Layer):
    r"""Reduces messages in several ways, scales each by the degree, and mixes everything linearly.

    $$ m_{ji} = W_1 x_i + W_2 x_j + W_3 e_{ji} + b, \qquad
       h_i = U\,\bigl[x_i,\; s(d_i)\, \operatorname*{reduce}_{j \in \mathcal{N}(i)} m_{ji}
       \;\text{for all } s, \text{reduce}\bigr] $$

    per tower; the towers' results are laid side by side and mixed by another linear map. Without
    edge features all statistics come from one pass over the edges, and no message is ever made:
    W_1 x_i only shifts them.

    Args:
        in_dim: size of `x`.
        out_dim: size of the output, a multiple of `towers`.
        degrees: how many nodes of the training graphs have 0, 1, 2, ... in-edges; gives the mean
            degree that scalers refer to.
        reduce: any of "mean", "sum", "max", "min" and "std".
        scalers: any of "identity", "amplification" (log(d + 1) over its mean), "attenuation" (the
            inverse), "linear" and "inverse_linear".
        edge_dim: size of the edge features; None: there are none.
        towers: number of towers.
        divide_input: whether each tower gets its share of the features instead of all of them.

    Shapes:
        degrees: (D,) int64; x: (N, in_dim) float; edges: (2, E) int64, `Graph` or `EdgePlan`;
        edge_attr: (E, edge_dim) or None.
        returns: (N, out_dim), dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, a reduction or scaler is unknown, or `edges` refers to a
            node that x does not have.

    Example:
        >>> import torch
        >>> from gnnlab.layers import PNAConv
        >>> conv = PNAConv(16, 32, torch.tensor([0, 2, 5, 1]), towers=4)
        >>> conv(torch.randn(4, 16), torch.tensor([[0, 1, 2], [1, 2, 3]])).shape
        torch.Size([4, 32])

    Reference: Corso et al., NeurIPS 2020, arXiv:2004.05718, eq. (8).
    """

    citation: ClassVar[str] = """@inproceedings{corso2020principal,
  title     = {Principal Neighbourhood Aggregation for Graph Nets},
  author    = {Corso, Gabriele and Cavalleri, Luca and Beaini, Dominique and Li{\\`o}, Pietro and
               Veli{\\v{c}}kovi{\\'c}, Petar},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  note      = {arXiv:2004.05718}
}"""
    takes = frozenset({"edge_attr"})
    picture = ("statistics", "root")
    mean_degree: Tensor
    mean_log_degree: Tensor
    _pyg_weights: ClassVar[dict[str, str]] = {
        "pre_nns.": "pre_nns.",
        "post_nns.": "post_nns.",
        "edge_encoder.": "edge_encoder.",
        "lin.": "lin.",
        "mean_degree": "aggr_module.avg_deg_lin",
        "mean_log_degree": "aggr_module.avg_deg_log",
    }

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        degrees: Tensor,
        *,
        reduce: Sequence[str] = ("mean", "max", "min", "std"),
        scalers: Sequence[str] = ("identity", "amplification", "attenuation"),
        edge_dim: int | None = None,
        towers: int = 1,
        divide_input: bool = False,
    ) -> None:
        super().__init__()
        for words, known in ((reduce, _STATISTICS), (scalers, _SCALERS)):
            for word in words:
                if word not in known:
                    raise ValueError(f'PNAConv: unknown "{word}". Known: {", ".join(known)}.')
        if out_dim % towers or (divide_input and in_dim % towers):
            raise ValueError(f"PNAConv: {towers} towers must divide in_dim={in_dim}, {out_dim=}")
        self.in_dim, self.out_dim, self.edge_dim = in_dim, out_dim, edge_dim
        self.reduce, self.scalers = tuple(reduce), tuple(scalers)
        self.towers, self.divide_input = towers, divide_input
        self.size = size = in_dim // towers if divide_input else in_dim
        count = degrees.to(torch.float32)
        degree = torch.arange(len(count), dtype=torch.float32)
        total = count.sum().clamp(min=1)
        self.register_buffer("mean_degree", ((degree * count).sum() / total).view(1))
        mean_log = ((degree + 1).log() * count).sum() / total
        self.register_buffer("mean_log_degree", mean_log.view(1))
        self.edge_encoder = None if edge_dim is None else nn.Linear(edge_dim, size)
        ends = 2 if edge_dim is None else 3
        mixed = (len(self.reduce) * len(self.scalers) + 1) * size
        self.pre_nns = nn.ModuleList(
            nn.Sequential(nn.Linear(ends * size, size)) for _ in range(towers)
        )
        self.post_nns = nn.ModuleList(
            nn.Sequential(nn.Linear(mixed, out_dim // towers)) for _ in range(towers)
        )
        self.lin = nn.Linear(out_dim, out_dim)

    def reset_parameters(self) -> None:
        """Draws all maps anew, as `nn.Linear` does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def forward(self, x: Tensor, edges: Edges, edge_attr: Tensor | None = None) -> Tensor:
        """Returns h, one row per node."""
        given = prepare(
            self, x, edges, in_dim=self.in_dim, edge_attr=edge_attr, edge_dim=self.edge_dim
        )
        plan, size = given.plan, self.size
        parts = x.view(-1, self.towers, size) if self.divide_input else x.unsqueeze(1)
        parts = parts.expand(-1, self.towers, size)
        weights = torch.stack([net[0].weight for net in self._nets(self.pre_nns)])
        shift = torch.stack([net[0].bias for net in self._nets(self.pre_nns)])
        own = torch.einsum("ntf,tgf->ntg", parts, weights[:, :, :size]) + shift
        other = torch.einsum("ntf,tgf->ntg", parts, weights[:, :, size : 2 * size])
        if self.edge_encoder is not None and edge_attr is not None:
            e = self.edge_encoder(edge_attr)
            message = sddmm(plan, own.to(other.dtype), other, op="add")
            message = message + torch.einsum("ef,tgf->etg", e, weights[:, :, 2 * size :])
            statistics = [_statistic(plan, message, name) for name in self.reduce]
        else:
            has_edges = (plan.counts > 0).view(-1, 1, 1)
            statistics = [
                self._shifted(name, value, own, has_edges, plan)
                for name, value in zip(
                    self.reduce, spmm_multi(plan, other, reduce=self.reduce), strict=True
                )
            ]
        statistics = [
            torch.where(value <= _LEAST**0.5, 0.0, value) if name == "std" else value
            for name, value in zip(self.reduce, statistics, strict=True)
        ]
        together = torch.cat(statistics, -1)
        scales = self._scales(plan, x.dtype)
        towers = [
            self._mixed(net[0], parts[:, t], together[:, t], scales)
            for t, net in enumerate(self._nets(self.post_nns))
        ]
        out: Tensor = self.lin(torch.cat(towers, 1))
        return out

    def _mixed(
        self, lin: nn.Linear, x: Tensor, together: Tensor, scales: list[Tensor | None]
    ) -> Tensor:
        """Returns ``lin([x, s_1 t, s_2 t, ...])``; scales of a node are multiplied in last."""
        first, rest = lin.weight[:, : self.size], lin.weight[:, self.size :]
        h = linear(x, first, lin.bias)
        for scale, weight in zip(scales, rest.chunk(len(scales), 1), strict=True):
            mixed = linear(together, weight)
            h = h + (mixed if scale is None else scale * mixed)
        return h

    @staticmethod
    def _nets(modules: nn.ModuleList) -> list[Any]:
        return list(modules)

    def _shifted(
        self, name: str, value: Tensor, own: Tensor, has_edges: Tensor, plan: EdgePlan
    ) -> Tensor:
        """Returns the statistic of own + q from that of q: every row shifts by its own part."""
        if name == "std":
            return value
        if name == "sum":
            return value + own * plan.counts.view(-1, 1, 1)
        return value + torch.where(has_edges, own, 0.0)

    def _scales(self, plan: EdgePlan, dtype: torch.dtype) -> list[Tensor | None]:
        """Returns what a node's statistics are multiplied by, (N, 1) each; None: by nothing."""
        degree = plan.counts.to(dtype).view(-1, 1)
        one = degree.clamp(min=1)
        mean, mean_log = self.mean_degree, self.mean_log_degree
        found: dict[str, Callable[[], Tensor | None]] = {
            "identity": lambda: None,
            "amplification": lambda: (degree + 1).log() / mean_log,
            "attenuation": lambda: mean_log / (one + 1).log(),
            "linear": lambda: degree / mean,
            "inverse_linear": lambda: mean / one,
        }
        return [found[name]() for name in self.scalers]

    def _make_pyg(self, library: Any) -> nn.Module:
        return library.PNAConv(  # type: ignore[no-any-return]
            self.in_dim,
            self.out_dim,
            list(self.reduce),
            list(self.scalers),
            torch.ones(2, dtype=torch.long),
            edge_dim=self.edge_dim,
            towers=self.towers,
            divide_input=self.divide_input,
        )

    def extra_repr(self) -> str:
        """Returns sizes, and the options that differ from the default."""
        options = f", edge_dim={self.edge_dim}" * (self.edge_dim is not None)
        options += f", towers={self.towers}" * (self.towers > 1)
        return f"{self.in_dim}, {self.out_dim}{options}" + ", divide_input=True" * self.divide_input


def _statistic(plan: EdgePlan, message: Tensor, name: str) -> Tensor:
    """Returns one statistic of the messages of each node, (N, T, F)."""
    if name != "std":
        reduce = cast(Literal["mean", "sum", "max", "min"], name)
        return scatter(message, plan.dst, plan.num_dst, reduce=reduce, plan=plan)
    mean = scatter(message, plan.dst, plan.num_dst, reduce="mean", plan=plan)
    away = (message - gather(mean, plan.dst, plan=plan)).square()
    variance = scatter(away, plan.dst, plan.num_dst, reduce="mean", plan=plan)
    return variance.clamp(min=_LEAST).sqrt()
