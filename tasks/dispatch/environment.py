"""`ShopEnv`: the shop as a Gymnasium environment; needs the package gymnasium."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gnnlab.errors import ConfigError, did_you_mean, needs
from gnnlab.tasks.dispatch.features import (
    EDGE_TYPES,
    MACHINE_FEATURES,
    OPERATION_FEATURES,
    graph_arrays,
    machine_features,
    operation_features,
)
from gnnlab.tasks.dispatch.illegal import IllegalAction
from gnnlab.tasks.dispatch.instance import JobShopInstance
from gnnlab.tasks.dispatch.options import ShopOptions
from gnnlab.tasks.dispatch.schedule import Schedule
from gnnlab.tasks.dispatch.simulator import Simulator
from gnnlab.tasks.dispatch.trace import RandomTrace, Shutdowns

if TYPE_CHECKING:
    import gymnasium
    from gymnasium import spaces
else:
    gymnasium = needs("gymnasium", "ShopEnv", "dispatch")
    spaces = gymnasium.spaces

__all__ = ["ShopEnv"]

LARGEST = 10.0
Observation = dict[str, np.ndarray]
Instances = Callable[[np.random.Generator], JobShopInstance]


class LegalActions(spaces.Discrete):
    """The actions 0..J, of which `sample` draws a legal one unless it is given another mask."""

    legal: np.ndarray | None = None

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """Draws an action; see `gymnasium.spaces.Discrete.sample`."""
        if mask is None and probability is None:
            mask = self.legal
        return super().sample(mask, probability)


class AnySize(spaces.Space[np.ndarray]):
    """Arrays of a dtype and shape, where None in the shape stands for any size."""

    def __init__(self, shape: tuple[int | None, ...], dtype: Any) -> None:
        super().__init__(None, dtype)
        self.sizes = shape

    def contains(self, x: Any) -> bool:
        """Returns whether `x` is such an array."""
        return (
            isinstance(x, np.ndarray)
            and x.dtype == self.dtype
            and len(x.shape) == len(self.sizes)
            and all(b is None or a == b for a, b in zip(x.shape, self.sizes, strict=True))
        )


class ShopEnv(gymnasium.Env[Observation, Any]):
    """Dispatching as a Gymnasium environment.

    Action j < J moves job j to the machine of its next operation; action J waits. An illegal action
    raises `IllegalAction`: mask the policy with `action_masks()` or `info["action_mask"]`.
    `action_space.sample()` draws a legal action.

    Observations are a dict of padded arrays: `operations` (J, L, 16) and `machines` (M, 8) float32
    in 0..10 with the columns `OPERATION_FEATURES` and `MACHINE_FEATURES`, `op_mask` (J, L) int8,
    1 for operations that have not departed, `op_machine` (J, L) int64, -1 where there is none, and
    `action_mask` (J + 1) int8.

    With `obs_mode="graph"` they are a dict of the arrays of the dynamic disjunctive graph, whose
    sizes change from step to step: `x_op` (N, 16) and `x_machine` (M, 8) float32, `op_job` and
    `op_machine` (N,), `candidate` (J + 1,), the node of each job's next operation or -1, and
    `edge_NAME` (2, E) for each of `EDGE_TYPES`, all int64, `action_mask` (J + 1,) int8 and `time`
    (1,) int64. Where `size` has room for more jobs, they have no candidate.

    Args:
        instance: the job shop, or a function that draws one for each episode from a generator.
        shutdowns: how machines fail; None is never. Each episode draws its own trace.
        options: the rules of the game.
        size: (J, L, M), jobs, operations of a job and machines that arrays have room for; None
            takes those of the instance.
        repair_known: whether the time to the repair of a machine may be seen.
        obs_mode: form of the observations.

    Raises:
        ConfigError: for options that do not go together.
        MissingExtraError: at import, if gymnasium is absent.

    Example:
        >>> env = ShopEnv(JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]]))
        >>> observation, info = env.reset(seed=0)
        >>> info["action_mask"].tolist()
        [1, 1, 0]
        >>> observation, reward, terminated, truncated, info = env.step(0)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        instance: JobShopInstance | Instances,
        shutdowns: Shutdowns | None = None,
        options: ShopOptions | None = None,
        *,
        size: tuple[int, int, int] | None = None,
        repair_known: bool = True,
        obs_mode: Literal["padded", "graph"] = "padded",
    ) -> None:
        if obs_mode not in ("padded", "graph"):
            known = did_you_mean(obs_mode, ["padded", "graph"])
            raise ConfigError(f'unknown obs_mode "{obs_mode}".{known}')
        if size is None:
            if not isinstance(instance, JobShopInstance):
                raise ConfigError("ShopEnv: instances that are drawn need a size (J, L, M).")
            size = (*instance.machines.shape, instance.num_machines)
        self._instance = instance
        self._shutdowns = shutdowns or Shutdowns()
        self._options = options or ShopOptions()
        self._size = size
        jobs = size[0]
        self._repair_known = repair_known
        self._shop: Simulator | None = None
        self.action_space = LegalActions(jobs + 1)
        self._is_graph = obs_mode == "graph"
        self._arrays = _graph_spaces(jobs) if self._is_graph else _padded_spaces(*size)
        self.observation_space: spaces.Space[Any] = spaces.Dict(self._arrays)

    @property
    def shop(self) -> Simulator:
        """The simulator of the episode."""
        if self._shop is None:
            raise ConfigError("ShopEnv: no episode has begun; call reset first.")
        return self._shop

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: of the generator that draws instances and traces; None goes on with it.
            options: "instance", a job shop for this episode; "trace_seed", that of its trace.

        Returns:
            The observation, and info with "action_mask", "time", "swaps", "steps", "deadlock".

        Raises:
            ConfigError: for other options, or an instance larger than `size`.
        """
        super().reset(seed=seed)
        chosen = dict(options or {})
        instance = chosen.pop("instance", None) or self._instance
        trace_seed = chosen.pop("trace_seed", None)
        for name in chosen:
            known = did_you_mean(name, ["instance", "trace_seed"])
            raise ConfigError(f'ShopEnv.reset: unknown option "{name}".{known}')
        if not isinstance(instance, JobShopInstance):
            instance = instance(self.np_random)
        needed = (*instance.machines.shape, instance.num_machines)
        if any(n > room for n, room in zip(needed, self._size, strict=True)):
            raise ConfigError(
                f"{instance!r} needs the size (J, L, M) = {needed}, and the environment has room "
                f"for {self._size}. Make it with a larger size=."
            )
        if trace_seed is None:
            trace_seed = int(self.np_random.integers(2**31))
        trace = RandomTrace(trace_seed, self._shutdowns)
        self._shop = Simulator(instance, trace, self._options)
        if self._shop.over:  # no decision is left to the agent: leave it the trivial ones
            self._shop = Simulator(instance, trace, replace(self._options, auto_trivial=False))
        return self._observe()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Does an action, and what follows until the next decision.

        Args:
            action: a job, or J to wait.

        Returns:
            The observation, the reward, whether the shop is done or stuck, whether the episode is
            cut off, and info; at the end with "makespan".

        Raises:
            IllegalAction: saying why the action is not legal now.
        """
        shop = self.shop
        if isinstance(action, int | np.integer) and action >= shop.num_jobs:
            if action < self._size[0]:
                raise IllegalAction(f"action {action}: the shop has {shop.num_jobs} jobs only.")
            action = action - self._size[0] + shop.num_jobs
        reward = shop.step(action)
        observation, info = self._observe()
        return observation, reward, shop.done or shop.deadlock, shop.truncated, info

    def action_masks(self) -> np.ndarray:
        """Returns (J + 1) int8: 1 for the actions that are legal now."""
        mask = np.zeros(self._size[0] + 1, np.int8)
        for action in self.shop.legal():
            mask[action if action < self.shop.num_jobs else -1] = 1
        return mask

    def schedule(self) -> Schedule:
        """Returns the operations that have started so far."""
        return self.shop.schedule()

    def clone(self) -> ShopEnv:
        """Returns an independent copy of the environment in the middle of its episode."""
        other = copy.copy(self)
        other._shop = self.shop.clone()
        other.action_space = copy.deepcopy(self.action_space)
        other._np_random = copy.deepcopy(self._np_random)
        return other

    def _observe(self) -> tuple[Observation, dict[str, Any]]:
        shop = self.shop
        mask = self.action_masks()
        self.action_space.legal = mask.copy()  # type: ignore[attr-defined]
        observation = self._graph(mask) if self._is_graph else self._padded(mask)
        info = {"action_mask": mask, "time": shop.time, **shop.info}
        if shop.over:
            info["makespan"] = shop.makespan
        return observation, info

    def _padded(self, mask: np.ndarray) -> Observation:
        shop = self.shop
        observation = {
            name: np.zeros(space.shape or (), space.dtype) for name, space in self._arrays.items()
        }
        jobs, length = shop.instance.machines.shape
        operations = operation_features(shop, self._repair_known)
        machines = machine_features(shop, self._repair_known)
        observation["operations"][:jobs, :length] = operations.clip(0, LARGEST)
        observation["machines"][: shop.num_machines] = machines.clip(0, LARGEST)
        observation["op_mask"][:jobs, :length] = operations[..., :3].any(-1)
        observation["op_machine"][:] = -1
        observation["op_machine"][:jobs, :length] = shop.instance.machines
        observation["action_mask"][:] = mask
        return observation

    def _graph(self, mask: np.ndarray) -> Observation:
        graph = graph_arrays(self.shop, repair_known=self._repair_known)
        edges = graph.pop("edge_index")
        candidate = np.full(self._size[0] + 1, -1, np.int64)
        candidate[: self.shop.num_jobs] = graph.pop("candidate")
        return {
            **graph,
            **{f"edge_{name}": index for name, index in edges.items()},
            "candidate": candidate,
            "action_mask": mask.copy(),
            "time": np.array([self.shop.time]),
        }


def _padded_spaces(jobs: int, length: int, machines: int) -> dict[str, spaces.Space[Any]]:
    operations = (jobs, length, len(OPERATION_FEATURES))
    return {
        "operations": spaces.Box(0.0, LARGEST, operations, np.float32),
        "machines": spaces.Box(0.0, LARGEST, (machines, len(MACHINE_FEATURES)), np.float32),
        "op_mask": spaces.MultiBinary((jobs, length)),
        "op_machine": spaces.Box(-1, machines - 1, (jobs, length), np.int64),
        "action_mask": spaces.MultiBinary(jobs + 1),
    }


def _graph_spaces(jobs: int) -> dict[str, spaces.Space[Any]]:
    return {
        "x_op": AnySize((None, len(OPERATION_FEATURES)), np.float32),
        "x_machine": AnySize((None, len(MACHINE_FEATURES)), np.float32),
        "op_job": AnySize((None,), np.int64),
        "op_machine": AnySize((None,), np.int64),
        **{f"edge_{name}": AnySize((2, None), np.int64) for name in EDGE_TYPES},
        "candidate": AnySize((jobs + 1,), np.int64),
        "action_mask": spaces.MultiBinary(jobs + 1),
        "time": AnySize((1,), np.int64),
    }
