"""Every option of the recommendation task, with the defaults of the published code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gnnlab.config import implying
from gnnlab.errors import ConfigError, did_you_mean

__all__ = ["CLOSED_FORM", "NEURAL", "RecommendConfig"]

ModelName = Literal["lightgcl", "lightgcn", "bpr-mf", "popularity", "itemknn", "ease"]
NEURAL = ("lightgcl", "lightgcn", "bpr-mf")
CLOSED_FORM = ("popularity", "itemknn", "ease")
PresetName = Literal["small", "yelp", "gowalla", "ml10m", "tmall", "amazon-book", "reference"]

# What the choice of a model or preset implies, below anything the user writes. Sources: LightGCN's
# public PyTorch code, LightGCL's README (release variant).
_MODELS: dict[str, dict[str, Any]] = {
    "lightgcl": {},
    "lightgcn": {"layers": 3, "lambda2": 1e-4, "batch_size": 2048, "sampler": "user"},
    "bpr-mf": {"layers": 0, "lambda2": 1e-4, "batch_size": 2048},
    "popularity": {},
    "itemknn": {},
    "ease": {},
}
_PRESETS: dict[str, dict[str, Any]] = {
    "small": {"lambda1": 0.005, "tau": 1.0, "batch_size": "auto", "val_ratio": 0.1},
    "yelp": {"layers": 2, "lambda2": 1e-7, "tau": 0.2},
    "gowalla": {"layers": 2, "lambda2": 0.0, "tau": 0.2},
    "ml10m": {"layers": 2, "lambda2": 1e-7, "tau": 0.5},
    "tmall": {"layers": 1, "lambda2": 1e-7, "tau": 0.2},
    "amazon-book": {"layers": 1, "lambda2": 0.0, "tau": 0.1},
    "reference": {"svd_oversample": 0, "svd_niter": 2},
}


_CHOICES: dict[str, tuple[str, ...]] = {
    "model": tuple(_MODELS),
    "preset": tuple(_PRESETS),
    "cl_pool": ("pos+neg", "pos", "unique"),
    "sampler": ("edge", "user"),
    "mask": ("train", "train+valid"),
    "on_null": ("drop", "error"),
    "split": ("random", "leave-one-out", "temporal-global", "none"),
}


@implying
@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """Options of `Recommend`: model, optimiser, evaluation and data."""

    model: ModelName = "lightgcl"
    """Which model ranks the items."""
    preset: PresetName | None = None
    """Published settings of a data set, or "small" for fewer than about 200,000 pairs."""
    dim: int = 64
    """Width d of the user and item vectors."""
    layers: int = 2
    """Number L of propagation layers (lightgcn: 3, bpr-mf: 0)."""
    svd_rank: int = 5
    """Rank q of LightGCL's low-rank view."""
    svd_oversample: int = 10
    """Extra columns of the randomised SVD; 0 in the reference code."""
    svd_niter: int = 4
    """Power iterations of the randomised SVD; 2 in the reference code."""
    tau: float = 0.2
    """Temperature of the contrast; dense or small data wants 1 or more."""
    lambda1: float = 0.2
    """Weight of the contrast."""
    lambda2: float = 1e-7
    """Weight of the L2 term (lightgcl: whole tables; lightgcn, bpr-mf: rows of the batch, 1e-4)."""
    clamp: float | None = 5.0
    """Bound on the attraction of the contrast; none turns it off."""
    cl_pool: Literal["pos+neg", "pos", "unique"] = "pos+neg"
    """Which items of the batch enter the contrast."""
    edge_dropout: float = 0.0
    """Share of edges dropped in each propagation while training."""
    batch_size: int | Literal["auto"] = 4096
    """Interactions per step; auto is the power of two nearest E/200 within 256..4096."""
    sampler: Literal["edge", "user"] = "edge"
    """Draw training pairs by edge, or by user as LightGCN's code does."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    ease_lambda: float = 200.0
    """L2 regularisation of EASE."""
    knn_neighbors: int | None = None
    """Neighbours kept per item by itemknn; none keeps all."""
    knn_shrinkage: float = 10.0
    """Shrinkage h of itemknn's cosine."""
    ks: tuple[int, ...] = (10, 20, 40)
    """Lengths of the ranked lists that are scored; 20 is always one, it picks the epoch."""
    mask: Literal["train", "train+valid"] = "train"
    """Interactions removed from the ranking when testing."""
    memory_budget: str = "1GB"
    """Bound on the blocks of contrast, evaluation and export, and on closed-form tables."""
    user_col: str = "user"
    """Column of user ids; user_id is found too."""
    item_col: str = "item"
    """Column of item ids; item_id is found too."""
    time_col: str = "timestamp"
    """Column of times, read only by splits that need it."""
    weight_col: str | None = None
    """Column of weights or ratings, checked and used by min_rating only."""
    min_rating: float | None = None
    """Keep rows whose weight_col (default: rating) is at least this."""
    delimiter: str | None = None
    """Column separator of text files; none guesses comma, tab or semicolon."""
    on_null: Literal["drop", "error"] = "drop"
    """What to do with rows whose user or item id is empty."""
    split: Literal["random", "leave-one-out", "temporal-global", "none"] = "random"
    """How data without a split of its own is cut."""
    test_ratio: float = 0.2
    """Share of the interactions that become the test part."""
    val_ratio: float | None = None
    """Share of train held out for validation; none: 0.1, or 0 for data already split."""
    split_seed: int = 0
    """Seed of the split, apart from the seed of the training."""

    @classmethod
    def implied(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the defaults implied by the chosen model and preset, weaker than `values`."""
        model = values.get("model", cls.model)
        preset = values.get("preset")
        return {**_MODELS.get(model, {}), **_PRESETS.get(preset or "", {})}

    def __post_init__(self) -> None:
        for name in ("dim", "svd_rank"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "a positive whole number")
        for name in ("layers", "svd_oversample", "svd_niter"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _check("tau", self.tau, self.tau > 0, "greater than 0")
        _check("lr", self.lr, self.lr > 0, "greater than 0")
        _check("edge_dropout", self.edge_dropout, 0 <= self.edge_dropout < 1, "in [0, 1)")
        _check("clamp", self.clamp, self.clamp is None or self.clamp > 0, "greater than 0 or none")
        for name in ("lambda1", "lambda2", "knn_shrinkage"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _check("ease_lambda", self.ease_lambda, self.ease_lambda > 0, "greater than 0")
        neighbors = self.knn_neighbors
        _check("knn_neighbors", neighbors, neighbors is None or neighbors > 0, "1 or more, or none")
        size = self.batch_size
        good = size == "auto" if isinstance(size, str) else size > 0
        _check("batch_size", size, good, 'a positive whole number or "auto"')
        _check("ks", self.ks, len(self.ks) > 0 and min(self.ks) > 0, "positive whole numbers")
        object.__setattr__(self, "ks", tuple(sorted({*self.ks, 20})))
        _check("test_ratio", self.test_ratio, 0 < self.test_ratio < 1, "in (0, 1)")
        ratio = self.val_ratio
        _check("val_ratio", ratio, ratio is None or 0 <= ratio < 1, "in [0, 1) or none")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ConfigError(f'unknown {name} "{value}".{did_you_mean(str(value), known)}')
        self.budget_bytes  # noqa: B018  (raises early)

    @property
    def budget_bytes(self) -> int:
        """`memory_budget` in bytes."""
        text = self.memory_budget.strip().upper().replace(" ", "")
        units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
        for unit, scale in units.items():
            if text.endswith(unit):
                try:
                    value = float(text[: -len(unit)])
                except ValueError:
                    break
                if value > 0:
                    return int(value * scale)
        raise ConfigError(f'memory_budget is "{self.memory_budget}"; write it like 500MB or 2GB.')


def _check(name: str, value: object, good: bool, rule: str) -> None:
    if not good:
        raise ConfigError(f"{name} is {value!r}; it must be {rule}.")
