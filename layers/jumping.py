"""JumpingKnowledge: the outputs of all layers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

__all__ = ["JumpingKnowledge"]


class JumpingKnowledge(nn.Module):
    r"""Puts the outputs of several layers together, so that each node can choose its depth.

    $$ \text{cat: } [h^{(1)}, \dots, h^{(K)}] \qquad
       \text{max: } \max_k h^{(k)} \qquad
       \text{lstm: } \sum_k a_k h^{(k)} $$

    with attention a from a bidirectional LSTM over the layers. torch.compile takes "lstm" whole
    only with ``torch._dynamo.config.allow_rnn``.

    Args:
        mode: "cat", "max" or "lstm".
        dim: number of features; for "lstm".
        num_layers: K; for "lstm", whose hidden size is dim * K / 2.

    Shapes:
        xs: K tensors (N, F).
        returns: (N, K * F) for "cat", else (N, F).

    Raises:
        ValueError: if the mode is unknown, or "lstm" lacks its sizes.

    Example:
        >>> import torch
        >>> from gnnlab.layers import JumpingKnowledge
        >>> JumpingKnowledge("cat")([torch.randn(4, 8), torch.randn(4, 8)]).shape
        torch.Size([4, 16])

    Reference: Xu et al., ICML 2018, arXiv:1806.03536, section 4.
    """

    citation: ClassVar[str] = """@inproceedings{xu2018representation,
  title     = {Representation Learning on Graphs with Jumping Knowledge Networks},
  author    = {Xu, Keyulu and Li, Chengtao and Tian, Yonglong and Sonobe, Tomohiro and
               Kawarabayashi, Ken-ichi and Jegelka, Stefanie},
  booktitle = {International Conference on Machine Learning},
  year      = {2018},
  note      = {arXiv:1806.03536}
}"""

    def __init__(
        self,
        mode: Literal["cat", "max", "lstm"],
        *,
        dim: int | None = None,
        num_layers: int | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("cat", "max", "lstm"):
            raise ValueError(f'JumpingKnowledge: unknown mode "{mode}". Known: cat, max, lstm.')
        self.mode = mode
        self.lstm: nn.LSTM | None = None
        self.att: nn.Linear | None = None
        if mode == "lstm":
            if dim is None or num_layers is None:
                raise ValueError('JumpingKnowledge: mode "lstm" needs dim and num_layers')
            hidden = dim * num_layers // 2
            self.lstm = nn.LSTM(dim, hidden, bidirectional=True, batch_first=True)
            self.att = nn.Linear(2 * hidden, 1)

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        """Returns one row per node."""
        if self.mode == "cat":
            return torch.cat(list(xs), -1)
        stacked = torch.stack(list(xs), 1)
        if self.lstm is None or self.att is None:
            return stacked.amax(1)
        seen, _ = self.lstm(stacked)
        share = self.att(seen).softmax(1)
        out: Tensor = (stacked * share).sum(1)
        return out

    def extra_repr(self) -> str:
        """Returns the mode."""
        return repr(self.mode)
