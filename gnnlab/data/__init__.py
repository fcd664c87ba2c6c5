"""Feature tables that are too large for the device: they stay in host memory or in a file."""

from __future__ import annotations

from gnnlab.data._prefetch import Prefetch
from gnnlab.data._stats import FeatureStats
from gnnlab.data.host_features import HostFeatures

__all__ = ["FeatureStats", "HostFeatures", "Prefetch"]
