"""cite: what to put into the bibliography for a model."""

from __future__ import annotations

import re

from torch import nn

__all__ = ["cite"]


def cite(model: nn.Module) -> str:
    """Returns the BibTeX of every layer and task in a model, each entry once, ordered by key.

    Args:
        model: a layer, a model of layers, or a task.

    Example:
        >>> import gnnlab
        >>> from gnnlab.layers import GATConv, GCNConv
        >>> entries = gnnlab.cite(nn.Sequential(GCNConv(4, 4), GATConv(4, 4), GCNConv(4, 2)))
        >>> [line for line in entries.splitlines() if line.startswith("@")]
        ['@inproceedings{kipf2017semi,', '@inproceedings{velickovic2018graph,']
    """
    found = {str(getattr(type(module), "citation", "")).strip() for module in model.modules()}
    return "\n\n".join(sorted(found - {""}, key=_key))


def _key(entry: str) -> str:
    match = re.match(r"@\w+\{([^,]*)", entry)
    return match[1] if match else entry
