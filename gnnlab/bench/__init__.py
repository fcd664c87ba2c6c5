"""Measurements of gnnlab against its peers; mounted by `gnnlab bench`."""
