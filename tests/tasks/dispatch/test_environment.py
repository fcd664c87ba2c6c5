import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import (
    Cuts,
    IllegalAction,
    JobShopInstance,
    ShopOptions,
    Shutdowns,
    Simulator,
    WindowTrace,
)
from gnnlab.tasks.dispatch.features import (
    MACHINE_FEATURES,
    OPERATION_FEATURES,
    graph_arrays,
    machine_features,
    operation_features,
)

OP = {name: column for column, name in enumerate(OPERATION_FEATURES)}
MACHINE = {name: column for column, name in enumerate(MACHINE_FEATURES)}
SWAP = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 3), (0, 2)]])


def _env(*arguments: Any, **options: Any) -> Any:
    pytest.importorskip("gymnasium")
    from gnnlab.tasks.dispatch import ShopEnv

    return ShopEnv(*arguments, **options)


def _draw(generator: np.random.Generator, n: int | None = None) -> JobShopInstance:
    n, m = n or int(generator.integers(2, 7)), int(generator.integers(2, 5))
    jobs = [[(int(k), int(generator.integers(1, 30))) for k in generator.permutation(m)]] * n
    return JobShopInstance.from_jobs(jobs)


# Numbers of operations and machines.


def test_features_of_a_shop_in_the_middle_are_those_computed_by_hand() -> None:
    jobs = [[(0, 4), (1, 6)], [(1, 8)], [(0, 2), (1, 2)], [(2, 1), (1, 5), (2, 4)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), WindowTrace([[], [(3, 5)], [(4, 9)]]))
    for action in (0, 1, 3):
        shop.step(action)
    # Machine 1 is down on [3, 5), so job 1 is complete at 10; jobs 0 and 3 wait for it, blocking.
    assert shop.time == 10
    assert shop.legal() == [0, 3]
    bound = 21  # machine 1: 8 + 6 + 2 + 5, and nothing before or after
    rows = operation_features(shop)
    assert rows.shape == (4, 3, 16)
    expected = {
        "blocking": 1,
        "time / longest time": 4 / 8,
        "share of the job's time up to its end": 4 / 10,
        "share of the job's operations after it": 1 / 2,
        "remaining time of the job / bound": 6 / bound,
        "job is inside": 1,
    }
    assert rows[0, 0] == pytest.approx([expected.get(name, 0) for name in OPERATION_FEATURES])
    expected = {
        "not started": 1,
        "time / longest time": 5 / 8,
        "share of the job's time up to its end": 6 / 10,
        "share of the job's operations after it": 1 / 3,
        "waiting time / bound, at most 1": 9 / bound,
        "candidate": 1,
        "remaining time of the job / bound": 9 / bound,
        "job is inside": 1,
    }
    assert rows[3, 1] == pytest.approx([expected.get(name, 0) for name in OPERATION_FEATURES])
    assert rows[3, 2, OP["earliest start from now / bound"]] == pytest.approx(5 / bound)
    assert not rows[1].any()  # departed
    assert not rows[0, 2].any()  # no such operation
    table = machine_features(shop)
    assert table.shape == (3, 8)
    assert table[0] == pytest.approx([0, 1, 0, 0, 2 / bound, 1 / 4, 0, 2 / 4])
    assert table[1] == pytest.approx([0, 0, 0, 0, 13 / bound, 2 / 4, 0, 2 / 4])


@pytest.mark.parametrize("known", [True, False])
def test_features_show_shutdowns_of_now_and_none_to_come(known: bool) -> None:
    jobs = [[(0, 6)], [(1, 3), (0, 1)], [(1, 4)]]
    windows = [[(2, 7), (8, 50)], [], []]
    shop = Simulator(JobShopInstance.from_jobs(jobs), WindowTrace(windows))
    for action in (0, 2):
        shop.step(action)
    assert (shop.time, shop.legal()) == (4, [1])
    bound = 7
    row = operation_features(shop, known)[0, 0]
    assert row[OP["in process"]] == 1
    assert row[OP["remaining time in process / longest time"]] == pytest.approx(4 / 6)
    assert row[OP["machine is down"]] == 1
    assert row[OP["time to the repair / bound"]] == pytest.approx(3 / bound if known else 0)
    wait = operation_features(shop, known)[1, 1, OP["earliest start from now / bound"]]
    assert wait == pytest.approx((7 if known else 4) / bound)
    machine = machine_features(shop, known)[0]
    assert machine == pytest.approx([1, 0, 1, 3 / bound if known else 0, 1 / 7, 0, 4 / 7, 1 / 3])


@pytest.mark.parametrize(("restart", "left"), [(False, [4, 2, 2, 1]), (True, [4, 4, 4, 3])])
def test_work_left_counts_out_the_repair_of_a_cut(restart: bool, left: list[int]) -> None:
    after = np.array([[2], [-1], [-1], [-1], [-1]])
    cuts = Cuts(after, np.where(after >= 0, 3, 0))
    jobs = [[(0, 4)], [(1, 2)], [(1, 2)], [(1, 2)], [(1, 9)]]
    options = ShopOptions(restart=restart)
    shop = Simulator(JobShopInstance.from_jobs(jobs), options=options, cuts=cuts)
    shop.step(0)
    found = []
    for action in (1, 2, 3, 4):
        row = operation_features(shop)[0, 0]
        found.append(row[OP["remaining time in process / longest time"]] * 9)
        shop.step(action)
    assert found == pytest.approx(left)


def test_jobs_of_a_rotation_that_waits_for_a_repair_are_marked() -> None:
    jobs = [[(0, 3), (1, 2)], [(1, 3), (0, 2)], [(2, 3)], [(2, 1)]]
    shop = Simulator(JobShopInstance.from_jobs(jobs), WindowTrace([[], [(3, 6)]]))
    for action in (0, 1, 2):
        shop.step(action)
    assert (shop.time, shop.legal()) == (3, [3])
    marks = operation_features(shop)[..., OP["in a rotation that waits for a repair"]]
    assert marks.tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


# The environment.


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_environment_passes_the_checks_of_gymnasium() -> None:
    checker = pytest.importorskip("gymnasium.utils.env_checker")
    checker.check_env(_env(SWAP))
    instances = lambda generator: _draw(generator, 4)  # noqa: E731
    checker.check_env(_env(instances, Shutdowns(prob=0.01), size=(4, 5, 5)))


def test_the_environment_plays_what_the_simulator_plays() -> None:
    env, shop = _env(SWAP, options=ShopOptions(allow_wait=True)), None
    for seed in range(20):
        env.reset(seed=seed)
        shop = Simulator(SWAP, options=ShopOptions(allow_wait=True))
        rng, over = random.Random(seed), False
        while not over:
            assert np.flatnonzero(env.action_masks()).tolist() == shop.legal()
            action = rng.choice(shop.legal())
            _, reward, done, cut, info = env.step(action)
            assert reward == shop.step(action)
            over = done or cut
        assert shop.over
        assert info["makespan"] == shop.makespan
        assert env.schedule() == shop.schedule()


def test_drawn_shops_fit_the_spaces_and_waiting_is_the_last_action() -> None:
    options = ShopOptions(allow_wait=True)
    env = _env(_draw, Shutdowns(prob=0.02), options, size=(9, 6, 5))
    waits = 0
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            assert env.observation_space.contains(observation)
            assert (observation["action_mask"] == info["action_mask"]).all()
            waits += int(info["action_mask"][9])
            action = 9 if info["action_mask"][9] else env.action_space.sample()
            observation, _, done, cut, info = env.step(action)
            over = done or cut
        assert done
        assert not info["action_mask"].any()
        assert not observation["op_mask"].any()
    assert waits
    env.reset(options={"instance": SWAP})
    env.step(0)
    with pytest.raises(IllegalAction, match="action 2: the shop has 2 jobs only"):
        env.step(2)
    env.step(9)
    assert env.shop.time == 3


def test_the_same_seeds_give_the_same_episode() -> None:
    ends = []
    for _ in range(2):
        env = _env(_draw, Shutdowns(prob=0.02), size=(7, 5, 5))
        for reset in ({"seed": 3}, {"options": {"instance": SWAP, "trace_seed": 5}}):
            env.reset(**reset)
            env.action_space.seed(1)
            while not env.shop.over:
                env.step(env.action_space.sample())
            ends.append(env.schedule())
    assert ends[:2] == ends[2:]


def test_a_clone_of_the_environment_goes_its_own_way() -> None:
    env = _env(SWAP)
    env.reset(seed=0)
    env.step(0)
    twin = env.clone()
    twin.step(1)
    assert (env.shop.time, twin.shop.over) == (0, True)
    assert env.action_masks().tolist() == [0, 1, 0]
    assert env.action_space.sample() == 1


def test_deadlock_ends_an_episode_without_makespan() -> None:
    env = _env(SWAP, options=ShopOptions(mode="bns"))
    env.reset()
    env.step(0)
    _, reward, done, cut, info = env.step(1)
    assert (done, cut, info["deadlock"], info["makespan"]) == (True, False, True, math.inf)
    assert reward == -3 / 5 - 10 / 5


def test_an_episode_of_single_choices_still_has_a_decision() -> None:
    env = _env(JobShopInstance.from_jobs([[(0, 3)]]), options=ShopOptions(auto_trivial=True))
    _, info = env.reset()
    assert info["action_mask"].tolist() == [1, 0]
    assert env.step(0)[1:3] == (-1.0, True)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"need a size \(J, L, M\)"):
        _env(_draw)
    with pytest.raises(ConfigError, match=r'unknown obs_mode "grph".*"graph"'):
        _env(SWAP, obs_mode="grph")
    env = _env(SWAP)
    with pytest.raises(ConfigError, match="call reset first"):
        env.step(0)
    with pytest.raises(ConfigError, match=r'unknown option "trace"\. Did you mean "trace_seed"'):
        env.reset(options={"trace": 1})
    with pytest.raises(ConfigError, match=r"needs the size .* \(1, 3, 2\)"):
        env.reset(options={"instance": JobShopInstance.from_jobs([[(0, 1), (1, 1), (0, 1)]])})
    env.reset()
    for action in (2, 7, "x", None, 0.0):
        with pytest.raises(IllegalAction):
            env.step(action)


def test_the_task_does_without_gymnasium_until_it_is_needed() -> None:
    program = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import gnnlab.tasks.dispatch as dispatch\n"
        "try:\n    dispatch.ShopEnv\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "ShopEnv needs gymnasium: pip install 'gnnlab[dispatch]'"


def test_a_graph_observation_is_that_of_the_simulator_and_lies_in_its_space() -> None:
    env = _env(
        _draw, Shutdowns(prob=0.02), ShopOptions(allow_wait=True), size=(6, 4, 4), obs_mode="graph"
    )
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(200):
        assert env.observation_space.contains(observation)
        expected = graph_arrays(env.shop)
        assert np.array_equal(observation["x_op"], expected["x_op"])
        for name, index in expected["edge_index"].items():
            assert np.array_equal(observation[f"edge_{name}"], index)
        mask = observation["action_mask"][:-1]
        legal = np.flatnonzero(mask)
        assert (observation["x_op"][observation["candidate"][legal], OP["candidate"]] == 1).all()
        observation, _, done, cut, _ = env.step(env.action_space.sample())
        if done or cut:
            observation, _ = env.reset()
