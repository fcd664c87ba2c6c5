"""check_task catches each kind of broken promise, and says which."""

import random
from dataclasses import dataclass

import pytest
import torch

from gnnlab import Data, Split
from gnnlab.testing import check_task


@dataclass(frozen=True, kw_only=True)
class UndocumentedConfig:
    """Options."""

    lr: float = 0.05
    """Learning rate."""
    dim: int = 4


@dataclass(frozen=True, kw_only=True)
class CollidingConfig:
    """Options."""

    lr: float = 0.05
    """Learning rate."""
    dim: int = 4
    """Width."""
    epochs: int = 3
    """Passes over the data."""


@dataclass(kw_only=True)
class ThawedConfig:
    """Options."""

    dim: int = 4
    """Width."""


def mutants(base):
    """Tasks that break one promise each: what the sentence says -> class."""

    class EvaluateWrites(base):
        """Mutant."""

        def evaluate(self, split):
            with torch.no_grad():
                self.users.add_(0.01)
            return super().evaluate(split)

    class EvaluateWritesBuffer(base):
        """Mutant: the scores stay, only a buffer moves."""

        def evaluate(self, split):
            self.seen = ~self.seen
            return super().evaluate(split)

    class EvaluateRemembers(base):
        """Mutant: what training left behind, outside the state dict, changes the score."""

        def loss(self, batch):
            self.leftover = 0.25
            return super().loss(batch)

        def evaluate(self, split):
            shift = getattr(self, "leftover", 0.0)
            return {k: v + shift for k, v in super().evaluate(split).items()}

    class EvaluateRolls(base):
        """Mutant: a random score."""

        def evaluate(self, split):
            return {"recall@5": random.random()}

    class PeeksAtTest(base):
        """Mutant: trains on the answers."""

        stash = None

        @classmethod
        def read(cls, source, config):
            cls.stash = super().read(source, config)
            return cls.stash

        def batches(self, split, *, generator, shard):
            both = split.target | self.stash.test.target
            more = Split(name="train", history=split.history, target=both)
            return super().batches(more, generator=generator, shard=shard)

    class PeeksQuietly(PeeksAtTest):
        """Mutant: the same, and copes when the test split is empty."""

        def batches(self, split, *, generator, shard):
            hidden = self.stash.test.target
            both = split.target if hidden is None else split.target | hidden
            more = Split(name="train", history=split.history, target=both)
            return base.batches(self, more, generator=generator, shard=shard)

    class GlobalRandom(base):
        """Mutant: a random state that nobody seeds."""

        def loss(self, batch):
            return {"loss": super().loss(batch)["loss"] * (1 + random.random())}

    class CountsSteps(base):
        """Mutant: training depends on a number that no checkpoint holds."""

        count = 0

        def loss(self, batch):
            self.count += 1
            return {"loss": super().loss(batch)["loss"] / self.count**0.5 + self.users.sum() * 1e-3}

    class LosesBuffer(base):
        """Mutant: predicts from a mask that is not saved."""

        def __init__(self, config, spec):
            super().__init__(config, spec)
            empty = torch.zeros(spec["num_users"], spec["num_items"], dtype=torch.bool)
            self.register_buffer("seen", empty, persistent=False)

    class LosesSizedBuffer(base):
        """Mutant: the same, and the empty mask does not even fit."""

        def __init__(self, config, spec):
            super().__init__(config, spec)
            self.register_buffer("seen", torch.zeros(0, dtype=torch.bool), persistent=False)

    class PredictWrites(base):
        """Mutant."""

        def predict(self, *, k: int = 3):
            answer = super().predict(k=k)
            with torch.no_grad():
                self.users.zero_()
            return answer

    class PredictsTuple(base):
        """Mutant."""

        def predict(self, *, k: int = 3):
            answer = super().predict(k=k)
            answer.__class__ = type("Answer", (), {"columns": answer.columns})
            return answer

    class Undocumented(base):
        """Mutant."""

        Config = UndocumentedConfig

    class Colliding(base):
        """Mutant."""

        Config = CollidingConfig

    class Thawed(base):
        """Mutant."""

        Config = ThawedConfig

    class Shouts(base):
        """Mutant."""

        name = "ToyRank"

    class Sideways(base):
        """Mutant."""

        mode = "up"

    class HidesMonitor(base):
        """Mutant."""

        headline = ("ndcg@5",)

    class MissesHeadline(base):
        """Mutant."""

        headline = ("recall@5", "ndcg@5")

    class TensorScores(base):
        """Mutant."""

        def evaluate(self, split):
            return {k: torch.tensor(v) for k, v in super().evaluate(split).items()}

    class TupleSpec(base):
        """Mutant."""

        @classmethod
        def read(cls, source, config):
            data = super().read(source, config)
            spec = {**data.spec, "shape": (20, 20)}
            return Data(train=data.train, val=data.val, test=data.test, spec=spec)

    class NothingHeldOut(base):
        """Mutant."""

        @classmethod
        def read(cls, source, config):
            data = super().read(source, config)
            return Data(train=data.train, spec=data.spec)

    changed = "evaluate (twice gave|changed the state of the task)"
    peeks = "training without the test split "
    lost = "a loaded checkpoint predicts another "
    return {
        EvaluateWrites: changed,
        EvaluateWritesBuffer: r"evaluate changed the state of the task \(tensor seen\)",
        EvaluateRemembers: "the live model scores .*, the loaded one ",
        EvaluateRolls: "evaluate twice gave ",
        PeeksAtTest: peeks + "fails, so training looks at it",
        PeeksQuietly: peeks + "gave other weights, so training looks at it",
        GlobalRandom: "the same seed gave other weights; take all randomness from `generator`",
        CountsSteps: "a resumed run differs from the uninterrupted one",
        LosesBuffer: lost,
        LosesSizedBuffer: "a loaded checkpoint does not predict: ",
        PredictWrites: r"predict changed the state of the task \(tensor users\)",
        PredictsTuple: "predict did not return a Prediction",
        Undocumented: r"options without a doc line under them: dim\.",
        Colliding: r"options that the loop has already: epochs\.",
        Thawed: "Config is no frozen dataclass",
        Shouts: 'the name "ToyRank" is not one lowercase word',
        Sideways: 'mode is "up", not "max" or "min"',
        HidesMonitor: "headline does not show recall@5",
        MissesHeadline: r"evaluate does not return ndcg@5\.",
        TensorScores: "evaluate returned something else than plain numbers",
        TupleSpec: "Data.spec does not survive JSON",
        NothingHeldOut: "read gave neither a val nor a test split",
    }


def test_the_healthy_task_passes(toys):
    check_task(toys.ToyRank, "3", query={"k": 2})


NAMES = [cls.__name__ for cls in mutants(type("Base", (), {}))]


@pytest.mark.parametrize("name", NAMES)
def test_mutant_is_caught_with_its_sentence(toys, name):
    table = {cls.__name__: (cls, sentence) for cls, sentence in mutants(toys.ToyRank).items()}
    task, sentence = table[name]
    with pytest.raises(AssertionError, match=sentence):
        check_task(task, "3")


def test_closed_form_task_is_checked_without_training(scripted):
    check_task(scripted.Counted, "x")


def test_closed_form_task_that_does_not_repeat_is_caught(scripted):
    class Moody(scripted.Counted):
        """Mutant."""

        def prepare(self, train):
            self.weight = torch.tensor(random.random())

    with pytest.raises(AssertionError, match="the same seed gave other weights"):
        check_task(Moody, "x")
