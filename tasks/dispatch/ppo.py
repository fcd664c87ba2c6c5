"""`PPO`: proximal policy optimisation of dispatching policies, as batches and a loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch.rollout import Actor, Rollout, Shop, collect, device_of

__all__ = ["PPO", "PPOConfig", "advantages"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Options of proximal policy optimisation."""

    gamma: float = 1.0
    """Discount of later rewards."""
    gae_lambda: float = 0.98
    """Weight of longer returns in advantages: 0 trusts the critic, 1 the rewards."""
    epochs: int = 3
    """Passes over the decisions of a rollout."""
    minibatch: int | None = 512
    """Largest number of decisions in a step; none takes all at once."""
    clip: float = 0.2
    """How far a probability may move, as a ratio, before its gradient is cut off."""
    policy_coef: float = 1.0
    """Weight of the policy's loss."""
    value_coef: float = 0.5
    """Weight of the critic's loss."""
    value_loss: Literal["huber", "mse"] = "huber"
    """Form of the critic's loss."""
    entropy: tuple[float, float] = (0.01, 0.001)
    """Weight of the entropy at the beginning and at the end of training, linear between."""
    lr: tuple[float, float] = (3e-4, 3e-5)
    """Learning rate of Adam at the beginning and at the end of training, linear between."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    grad_clip: float | None = 0.5
    """Largest gradient norm; none does not clip."""
    max_kl: float | None = 0.03
    """Divergence from the rollout's policy after which no further pass is made; none is never."""
    baseline: Literal["critic", "group", "return"] = "critic"
    """What a decision is compared with: the critic by generalised advantages, the other episodes
    of the same instance and trace, or the critic by normalised returns (as L2D does)."""
    normalize: bool = True
    """Whether advantages of a rollout are brought to mean 0 and deviation 1 (not with "group")."""

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be in 0..1.")
        if self.clip <= 0 or min(self.lr) < 0:
            raise ConfigError(f"clip is {self.clip} and lr {self.lr}; they must be positive.")
        if self.baseline not in ("critic", "group", "return"):
            raise ConfigError(f'unknown baseline "{self.baseline}": critic, group or return.')

    @classmethod
    def l2d(cls) -> PPOConfig:
        """Returns the options with which L2D was trained (Zhang et al. 2020), on 4 episodes a time.

        Its loss is the sum over the episodes where this is the mean: Adam sees no difference.
        """
        return cls(
            gae_lambda=1.0,
            epochs=1,
            minibatch=None,
            policy_coef=2.0,
            value_coef=1.0,
            value_loss="mse",
            entropy=(0.01, 0.01),
            lr=(2e-5, 2e-5),
            adam_eps=1e-8,
            grad_clip=None,
            max_kl=None,
            baseline="return",
            normalize=False,
        )

    def entropy_at(self, progress: float) -> float:
        """Returns the weight of the entropy when a share `progress` (0..1) of training is done."""
        return _between(self.entropy, progress)

    def lr_factor(self, progress: float) -> float:
        """Returns what the first learning rate is multiplied by at `progress` (0..1)."""
        return _between(self.lr, progress) / self.lr[0] if self.lr[0] else 1.0


class PPO:
    """Collects episodes with the present weights and learns from them for a few passes.

    It fits a loop that asks for batches and steps down a loss; see the example.

    Args:
        config: options; None takes those of the ISB policy.

    Attributes:
        report: of the last rollout: mean, least and largest return, decisions, episodes, explained
            variance of the critic and decisions per second.

    Example:
        >>> from gnnlab.tasks.dispatch import JobShopInstance
        >>> from gnnlab.tasks.dispatch.l2d import L2DPolicy
        >>> from gnnlab.tasks.dispatch.l2d_shop import L2DShop
        >>> one = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])
        >>> policy, ppo = L2DPolicy(), PPO(PPOConfig.l2d())
        >>> adam = torch.optim.Adam(policy.parameters(), 2e-5)
        >>> generator = torch.Generator().manual_seed(0)
        >>> for update in range(2):
        ...     make_shop = lambda generator: L2DShop([one], copies=4)
        ...     for batch in ppo.batches(policy, make_shop, generator, progress=update / 2):
        ...         adam.zero_grad()
        ...         ppo.loss(policy, batch)["loss"].backward()
        ...         adam.step()
        >>> ppo.report["episodes"], ppo.report["decisions"]
        (4.0, 16.0)

    Reference: Schulman et al. 2017, arXiv:1707.06347.
    """

    def __init__(self, config: PPOConfig | None = None) -> None:
        self.config = config or PPOConfig()
        self.report: dict[str, float] = {}
        self._kl: list[Tensor] = []

    def batches(
        self,
        policy: Actor,
        make_shop: Callable[[torch.Generator], Shop],
        generator: torch.Generator,
        progress: float = 0.0,
    ) -> Iterator[dict[str, Any]]:
        """Plays episodes to their end, then yields minibatches of their decisions, pass by pass.

        Args:
            policy: plays, and should be trained with each batch before the next is asked for.
            make_shop: draws the episodes; for `baseline="group"` a shop with copies.
            generator: of all randomness.
            progress: share of training that is done, for the weight of the entropy.

        Yields:
            "view", "action", "log_prob", "advantage", "return", "weight" (0 where no choice was),
            each of C decisions, and "entropy_coef".

        Raises:
            ConfigError: for `baseline="group"` without copies.
        """
        shop = make_shop(generator)
        if self.config.baseline == "group" and shop.copies < 2:
            raise ConfigError('PPO: baseline="group" compares copies; make a shop with copies=8.')
        begun = time.perf_counter()
        rollout = collect(policy, shop, generator)
        seconds = time.perf_counter() - begun
        if not len(rollout.action):
            return
        advantage, target = advantages(rollout, self.config, shop.copies)
        weight = (rollout.view.mask.sum(1) > 1).to(advantage)
        self._describe(rollout, target, seconds)
        if self.config.normalize and self.config.baseline != "group":
            advantage = _normalized(advantage, weight)
        count = len(advantage)
        pieces = 1 if self.config.minibatch is None else -(-count // self.config.minibatch)
        for _ in range(self.config.epochs):
            self._kl.clear()
            for rows in torch.randperm(count, generator=generator).tensor_split(pieces):
                yield {
                    "view": rollout.view if pieces == 1 else rollout.view.take(rows),
                    **{
                        name: value if pieces == 1 else value[rows]
                        for name, value in (
                            ("action", rollout.action),
                            ("log_prob", rollout.log_prob),
                            ("advantage", advantage),
                            ("return", target),
                            ("weight", weight),
                        )
                    },
                    "entropy_coef": self.config.entropy_at(progress),
                }
            limit = self.config.max_kl
            if limit is not None and self._kl and torch.stack(self._kl).mean() > limit:
                return

    def loss(self, policy: Actor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Returns what a batch costs.

        Args:
            policy: with the weights to train.
            batch: from `batches`.

        Returns:
            "loss", to be minimised, and for the log "policy", "value", "entropy", "kl" (from the
            rollout's policy, approximate) and "clip_fraction"; all scalars.
        """
        config, device = self.config, device_of(policy)
        view = batch["view"].to(device)
        action, old, advantage, target, weight = (
            batch[name].to(device)
            for name in ("action", "log_prob", "advantage", "return", "weight")
        )
        logits, value = policy(view)
        log_probs = logits.log_softmax(1)
        change = log_probs.gather(1, action[:, None]).squeeze(1) - old
        ratio = change.exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        finite = torch.where(view.mask, log_probs, 0.0)
        share = weight / weight.sum().clamp(min=1)
        policy_loss = -(share * torch.minimum(ratio * advantage, clipped * advantage)).sum()
        entropy = -(share * (finite.exp() * finite * view.mask).sum(1)).sum()
        if config.baseline == "group":
            value_loss = 0 * value.sum()  # no critic, but every parameter has a gradient
        elif config.value_loss == "huber":
            value_loss = nn.functional.huber_loss(value, target)
        else:
            value_loss = nn.functional.mse_loss(value, target)
        with torch.no_grad():
            kl = (share * (ratio - 1 - change)).sum()
            clip_fraction = (share * ((ratio - 1).abs() > config.clip)).sum()
        self._kl.append(kl.cpu())
        loss = config.policy_coef * policy_loss + config.value_coef * value_loss
        return {
            "loss": loss - batch["entropy_coef"] * entropy,
            "policy": policy_loss.detach(),
            "value": value_loss.detach(),
            "entropy": entropy.detach(),
            "kl": kl,
            "clip_fraction": clip_fraction,
        }

    def _describe(self, rollout: Rollout, target: Tensor, seconds: float) -> None:
        spread = float(target.var(correction=0))
        error = float((target - rollout.value).var(correction=0))
        self.report = {
            "return": float(rollout.total.mean()),
            "return_min": float(rollout.total.min()),
            "return_max": float(rollout.total.max()),
            "episodes": float(len(rollout.total)),
            "decisions": float(len(target)),
            "explained_variance": 1 - error / spread if spread > 0 else 0.0,
            "decisions_per_second": len(target) / max(seconds, 1e-9),
        }


def advantages(rollout: Rollout, config: PPOConfig, copies: int = 1) -> tuple[Tensor, Tensor]:
    """Returns how much better each decision turned out than its baseline, and the critic's target.

    Args:
        rollout: D decisions of complete episodes.
        config: says which baseline.
        copies: G, episodes r * G .. r * G + G - 1 play the same instance and trace.

    Returns:
        (D,) advantages and (D,) targets.
    """
    steps, rows = int(rollout.step.max()) + 1, len(rollout.total)
    at = (rollout.step, rollout.row)
    reward, value, has = (rollout.reward.new_zeros(steps, rows) for _ in range(3))
    reward[at], value[at], has[at] = rollout.reward, rollout.value, 1.0
    lam = config.gae_lambda if config.baseline == "critic" else 1.0
    gain, togo = torch.zeros_like(reward), torch.zeros_like(reward)
    next_gain, next_value, next_togo = (reward.new_zeros(rows) for _ in range(3))
    for t in reversed(range(steps)):
        surprise = reward[t] + config.gamma * next_value - value[t]
        gain[t] = next_gain = has[t] * (surprise + config.gamma * lam * next_gain)
        togo[t] = next_togo = has[t] * (reward[t] + config.gamma * next_togo)
        next_value = value[t]
    if config.baseline == "critic":
        return gain[at], gain[at] + rollout.value
    if config.baseline == "group":
        groups = rollout.total.view(-1, copies)
        spread = groups.std(1, correction=0, keepdim=True)
        better = (groups - groups.mean(1, keepdim=True)) / spread.clamp(min=1e-8)
        better = better * (spread > 1e-8)
        return better.flatten()[rollout.row].to(rollout.reward), togo[at]
    count = has.sum(0).clamp(min=1)
    mean = togo.sum(0) / count
    var = (has * (togo - mean) ** 2).sum(0) / (count - 1).clamp(min=1)
    target = ((togo - mean) / (var.sqrt() + 1e-5))[at]
    return target - rollout.value, target


def _normalized(advantage: Tensor, weight: Tensor) -> Tensor:
    """Returns advantages with mean 0 and deviation 1 over the decisions of weight 1."""
    count = weight.sum().clamp(min=1)
    centred = advantage - (weight * advantage).sum() / count
    spread = ((weight * centred**2).sum() / count).sqrt()
    return centred / spread if spread > 1e-8 else centred


def _between(ends: tuple[float, float], progress: float) -> float:
    share = min(max(progress, 0.0), 1.0)
    return ends[0] + (ends[1] - ends[0]) * share
