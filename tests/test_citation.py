"""`gnnlab.cite`, and that everything has something to cite."""

import pytest
from torch import nn

import gnnlab
from gnnlab import layers
from gnnlab.layers import GATConv, GCNConv, SAGEConv

CONVOLUTIONS = [
    getattr(layers, name)
    for name in layers.__all__
    if isinstance(getattr(layers, name), type)
    and issubclass(getattr(layers, name), layers.Layer)
    and getattr(layers, name) is not layers.Layer
]


def test_entries_come_once_and_sorted():
    model = nn.ModuleDict({"b": nn.Sequential(SAGEConv(4, 4), GCNConv(4, 4)), "a": GCNConv(4, 4)})
    entries = gnnlab.cite(model)
    assert entries.count("@") == 2
    assert entries.index("hamilton2017") < entries.index("kipf2017")
    assert gnnlab.cite(GATConv(2, 2)).startswith("@inproceedings{velickovic2018graph")
    assert gnnlab.cite(nn.Linear(2, 2)) == ""


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=lambda layer: layer.__name__)
def test_every_layer_has_an_entry_and_a_picture(layer):
    assert layer.citation.strip().startswith("@")
    assert layer.citation.strip().endswith("}")
    assert layer.picture
