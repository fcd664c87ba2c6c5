"""Recommendation: rank the items a user will want next, from who-took-what.

`Recommend` is the task; `Recommend.Config` its options.
"""

from gnnlab.tasks.recommend.config import RecommendConfig
from gnnlab.tasks.recommend.task import Recommend

__all__ = ["Recommend", "RecommendConfig"]
