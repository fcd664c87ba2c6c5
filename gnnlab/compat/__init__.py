"""Ways in for code that is written for other libraries: torch-scatter and PyG.

`gnnlab.compat.torch_scatter` has the functions of the package of that name, and
`gnnlab.compat.pyg.accelerate` lets PyG's own layers run on the operators of `gnnlab.ops`.
"""

from __future__ import annotations

__all__: list[str] = []
