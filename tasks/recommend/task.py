"""`Recommend`: the recommendation models behind the common interface."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from gnnlab.errors import ConfigError, DataError
from gnnlab.graph import Graph
from gnnlab.task import Data, Prediction, Shard, Split, Task
from gnnlab.tasks.recommend import data as reading, datasets, fetch as fetching
from gnnlab.tasks.recommend.closed_form import ItemItemModel, Popularity
from gnnlab.tasks.recommend.config import CLOSED_FORM, NEURAL, RecommendConfig
from gnnlab.tasks.recommend.ids import IdMap, as_ids
from gnnlab.tasks.recommend.interactions import Interactions
from gnnlab.tasks.recommend.model import VectorModel
from gnnlab.tasks.recommend.ranking import evaluate_ranking, rank_all
from gnnlab.tasks.recommend.sampling import NegativeSampler

__all__ = ["Recommend"]

Ids = Sequence[Any]


class Recommend(Task):
    """Ranks, for each user, the items not seen yet.

    Args:
        config: see `RecommendConfig`.
        spec: num_users, num_items, num_train of the data.

    Example:
        >>> config = Recommend.Config(model="itemknn")
        >>> data = Recommend.read({"user": ["a", "a", "b"], "item": [1, 2, 1]},
        ...                       Recommend.Config(model="itemknn", split="none"))
        >>> import gnnlab
        >>> run = gnnlab.fit(Recommend(config, data.spec), data)
        >>> print(run.best.predict(users=["b"], k=1)["item_id"])
        [2]
    """

    name = "recommend"
    Config = RecommendConfig
    monitor = "ndcg@20"
    mode = "max"
    headline = ("recall@20", "ndcg@20")
    baselines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"model": name} for name in CLOSED_FORM
    }
    demo: ClassVar[Mapping[str, Any]] = {
        "source": "synthetic",
        "models": [
            {"model": "lightgcn", "name": "lightgcn"},
            {"model": "lightgcl", "name": "lightgcl", "preset": "small"},
        ],
        "values": {
            "epochs": 40,
            "eval_every": 2,
            "patience": 5,
            "batch_size": 512,
            "lr": 5e-3,
            "val_ratio": 0.1,
        },
    }
    divergence_advice = "Raise tau, or lower lr or lambda1."
    citation = """@inproceedings{cai2023lightgcl,
  title = {{LightGCL}: Simple Yet Effective Graph Contrastive Learning for Recommendation},
  author = {Cai, Xuheng and Huang, Chao and Xia, Lianghao and Ren, Xubin},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  eprint = {2302.08191}
}"""

    def __init__(self, config: RecommendConfig, spec: Mapping[str, Any]) -> None:
        super().__init__(config, spec)
        users, items = int(spec["num_users"]), int(spec["num_items"])
        kind = (
            VectorModel
            if config.model in NEURAL
            else (Popularity if config.model == "popularity" else ItemItemModel)
        )
        self.ranker: VectorModel | Popularity | ItemItemModel = kind(config, users, items)
        for name in ("seen_indptr", "seen_items"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
        self.seen_indptr: Tensor
        self.seen_items: Tensor
        for side in ("user", "item"):
            for part, tensor in IdMap(np.empty(0, np.int64)).to_tensors().items():
                self.register_buffer(f"{side}_id_{part}", tensor)
        self._graph: tuple[Tensor, Graph] | None = None
        self._sampler: NegativeSampler | None = None

    # ---- the five methods -------------------------------------------------------------------

    @classmethod
    def read(cls, source: Any, config: RecommendConfig | None = None) -> Data:
        """Reads interactions: a CSV, TSV, Parquet or npz path, a data set's name, or arrays."""
        return reading.read(source, config or RecommendConfig())

    def prepare(self, train: Split) -> None:
        """Takes over ids and histories, and lets the model compute what it needs from them."""
        known: Interactions = train.history
        device = self.device
        indptr, items = known.csr()
        self.seen_indptr = torch.from_numpy(indptr).to(device)
        self.seen_items = torch.from_numpy(items).to(device)
        for side, ids in (("user", known.users), ("item", known.items)):
            for part, tensor in ids.to_tensors().items():
                setattr(self, f"{side}_id_{part}", tensor.to(device))
        self._sampler = None
        steps = known.num_pairs / self.batch_size
        if self.trainable and steps < 50 and self.batch_size != self._auto_batch():
            warnings.warn(
                f"one epoch has only {max(1, round(steps))} steps of {self.batch_size} "
                f"interactions; --batch-size auto would take {self._auto_batch()}."
            )
        self.ranker.prepare(self.graph)

    def batches(
        self, split: Split, *, generator: torch.Generator, shard: Shard
    ) -> Iterator[Mapping[str, Tensor]]:
        """Yields (user, pos, neg) triples: every pair of the split once, or LightGCN's draw."""
        target: Interactions = split.target
        if self._sampler is None:
            keys = torch.from_numpy(target.keys)
            self._sampler = NegativeSampler(keys, target.num_users, target.num_items)
        if self.config.sampler == "user":
            user, pos = self._sampler.draw_by_user(target.num_pairs, generator)
        else:
            order = torch.randperm(target.num_pairs, generator=generator)
            user = torch.from_numpy(target.user)[order]
            pos = torch.from_numpy(target.item)[order]
        neg, valid = self._sampler.draw(user, generator)
        if not bool(valid.all()):
            user, pos, neg = user[valid], pos[valid], neg[valid]
        if len(user) == 0:
            raise DataError("every user has every item: there is no negative to learn from.")
        even = len(user) // shard.count  # every process takes as many steps
        mine = slice(shard.index * even, (shard.index + 1) * even if shard.count > 1 else None)
        user, pos, neg = user[mine], pos[mine], neg[mine]
        for start in range(0, len(user), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield {"user": user[part], "pos": pos[part], "neg": neg[part]}

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns "loss" and its terms: "bpr", "l2" and, for lightgcl, "contrast"."""
        if not isinstance(self.ranker, VectorModel):
            raise ConfigError(f"{self.config.model} has a closed form and no loss.")
        return self.ranker.loss(batch, self.graph)

    def evaluate(self, split: Split) -> dict[str, float]:
        """Ranks all items for every user with targets; propagation uses train edges only."""
        return self.evaluate_users(split)[0]

    def predict(
        self,
        *,
        users: Ids | None = None,
        k: int = 20,
        filter_seen: bool = True,
        exclude: Ids | None = None,
        candidates: Ids | None = None,
        include_untrained: bool = False,
        on_unknown: Literal["error", "popular", "skip"] = "error",
    ) -> Prediction:
        """Returns the k best items per user, as a table user_id, rank, item_id, score, fallback.

        Args:
            users: raw ids; None answers for every user.
            k: length of each list; shorter when fewer items remain.
            filter_seen: leave out what the user had in the training data.
            exclude: raw item ids never to recommend.
            candidates: raw item ids to choose from; None is all.
            include_untrained: also recommend items without any training interaction.
            on_unknown: for a user the model does not know: stop, recommend what is popular
                (marked in the column fallback), or leave the user out.

        Raises:
            DataError: for unknown users (naming up to 5) or items.
            ConfigError: for k below 1.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; it must be 1 or more.")
        user_ids, item_ids = self.ids("user"), self.ids("item")
        raw = user_ids.raw if users is None else as_ids(users, parse=user_ids.kind == "int")
        index = torch.from_numpy(user_ids.encode(raw, what="user"))
        unknown = index < 0
        if bool(unknown.any()):
            if on_unknown == "error":
                names = ", ".join(str(u) for u in raw[unknown.numpy()][:5])
                raise DataError(
                    f"{int(unknown.sum())} users are not in the training data: {names}. "
                    "Pass on_unknown=popular or on_unknown=skip."
                )
            if on_unknown == "skip":
                raw, index = raw[~unknown.numpy()], index[~unknown]
                unknown = unknown[~unknown]
        items, scores = self._rank(
            index, k, filter_seen, self._blocked(exclude, candidates, include_untrained)
        )
        rows, ranks = np.nonzero(items >= 0)
        return Prediction(
            {
                "user_id": raw[rows],
                "rank": ranks + 1,
                "item_id": item_ids.decode(items[rows, ranks]),
                "score": scores[rows, ranks],
                "fallback": unknown.numpy()[rows],
            }
        )

    def query(self, source: Path) -> dict[str, Any]:
        """Reads the users to answer for: the user column of a CSV, TSV or Parquet file."""
        return {"users": reading.read_users(source, self.config, self.ids("user"))}

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:
        """Returns the data sets that `read` knows by name, and where they lie on this machine."""
        return [{"name": "synthetic", "users": 1000, "items": 500, "where": "generated"}] + [
            {
                "name": name,
                "users": facts.users,
                "items": facts.items,
                "where": _place(name),
                "source": facts.source,
                "terms": facts.terms,
            }
            for name, facts in datasets.DATASETS.items()
        ]

    @classmethod
    def fetch(cls, name: str) -> str:
        """Fetches gowalla, lastfm or ml-1m from its public source; see `gnnlab.tasks.recommend`."""
        return fetching.fetch(name)

    # ---- beside the interface ---------------------------------------------------------------

    def evaluate_users(self, split: Split) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Returns the metrics and the per-user vectors behind them, for paired tests."""
        with torch.no_grad():
            return evaluate_ranking(
                self.score, split.history, split.target, self.config.ks, self.config.budget_bytes
            )

    def score(self, users: Tensor) -> Tensor:
        """Returns float32 scores (B, num_items) for the 0-based users (B,)."""
        return self.ranker.score(users.to(self.device), self.graph)

    def ids(self, side: Literal["user", "item"]) -> IdMap:
        """Returns the map between raw ids and rows of the tables."""
        parts = IdMap(np.empty(0, np.int64)).to_tensors()
        return IdMap.from_tensors({p: getattr(self, f"{side}_id_{p}") for p in parts})

    @property
    def graph(self) -> Graph:
        """The bipartite training graph: items are sources, users are targets."""
        if self._graph is None or self._graph[0] is not self.seen_items:
            count = self.seen_indptr.diff()
            users = torch.repeat_interleave(count)
            sizes = (int(self.spec["num_items"]), int(self.spec["num_users"]))
            self._graph = (self.seen_items, Graph(torch.stack([self.seen_items, users]), sizes))
        return self._graph[1]

    @property
    def batch_size(self) -> int:
        """Interactions per step, "auto" resolved."""
        size = self.config.batch_size
        return self._auto_batch() if size == "auto" else int(size)

    def _auto_batch(self) -> int:
        pairs = max(1, int(self.spec["num_train"]))
        return int(2 ** np.clip(np.round(np.log2(max(pairs / 200, 1))), 8, 12))

    def _blocked(
        self, exclude: Ids | None, candidates: Ids | None, include_untrained: bool
    ) -> Tensor:
        items = self.ids("item")
        blocked = torch.zeros(len(items), dtype=torch.bool)
        if not include_untrained:
            blocked |= torch.bincount(self.seen_items.cpu(), minlength=len(items)) == 0
        for name, given in (("exclude", exclude), ("candidates", candidates)):
            if given is None:
                continue
            raw = as_ids(given, what="item", parse=items.kind == "int")
            index = torch.from_numpy(items.encode(raw, what="item"))
            if bool((index < 0).any()):
                names = ", ".join(str(i) for i in raw[(index < 0).numpy()][:5])
                raise DataError(f"{name} names items that are not in the training data: {names}.")
            chosen = torch.zeros(len(items), dtype=torch.bool)
            chosen[index] = True
            blocked |= chosen if name == "exclude" else ~chosen
        return blocked

    def _rank(
        self, index: Tensor, k: int, filter_seen: bool, blocked: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        popular = torch.bincount(self.seen_items, minlength=len(blocked)).float()
        blocked = blocked.to(self.device)

        def score(users: Tensor) -> Tensor:
            known = users.to(self.device)
            scores = self.score(known.clamp(min=0))
            scores = torch.where((known < 0)[:, None], popular, scores)
            return scores.masked_fill(blocked, -torch.inf)

        indptr = self.seen_indptr if filter_seen else torch.zeros_like(self.seen_indptr)
        with torch.no_grad():
            items, scores = rank_all(
                score,
                index.to(self.device),
                indptr,
                self.seen_items,
                k,
                budget_bytes=self.config.budget_bytes,
            )
        return items.cpu().numpy(), scores.cpu().numpy()


def _place(name: str) -> str:
    try:
        return str(datasets.find(name))
    except DataError:
        return "not on this machine"
