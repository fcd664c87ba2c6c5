"""A third party's package: one toy of each kind of task, to prove the interface."""

from gnnlab_toys.mesh import ToyMesh
from gnnlab_toys.rank import ToyRank
from gnnlab_toys.shop import ToyShop
from gnnlab_toys.signed import ToySigned

__all__ = ["ToyMesh", "ToyRank", "ToyShop", "ToySigned"]
