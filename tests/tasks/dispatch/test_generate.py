"""Random job shops: what they promise, their statistics, and Taillard's published instances."""

import hashlib

import numpy as np
import pytest

from gnnlab.errors import ConfigError
from gnnlab.tasks.dispatch import generate
from gnnlab.tasks.dispatch.datasets import published
from gnnlab.tasks.dispatch.files import standard_text


def test_a_batch_has_permutations_and_uniform_times() -> None:
    machines, times = generate.random_batch(np.random.default_rng(1), 4000, 3, 4, 1, 99)
    assert machines.shape == times.shape == (4000, 3, 4)
    assert machines.dtype == times.dtype == np.int64
    assert (np.sort(machines, 2) == np.arange(4)).all()
    assert (times.min(), times.max()) == (1, 99)
    # 48,000 draws of mean 50 and standard deviation 28.6: five standard errors are 0.65
    assert abs(times.mean() - 50) < 0.65
    orders = np.unique(machines.reshape(-1, 4), axis=0, return_counts=True)[1]
    # 12,000 draws of 24 orders: 500 each, standard deviation 22
    assert len(orders) == 24
    assert abs(orders - 500).max() < 5 * 22


def test_the_same_seed_gives_the_same_job_shop() -> None:
    first, again, other = (generate.taillard(5, 4, seed=s) for s in (3, 3, 4))
    assert first == again
    assert first != other
    assert first.is_square
    narrow = generate.taillard(5, 4, 7, 7)
    assert (narrow.times == 7).all()


def test_two_sets_of_machines_are_visited_one_after_the_other() -> None:
    shop = generate.two_set(200, 5, seed=2)
    assert shop.is_square
    assert (np.sort(shop.machines[:, :2], 1) == [0, 1]).all()
    assert (np.sort(shop.machines[:, 2:], 1) == [2, 3, 4]).all()
    assert len(np.unique(shop.machines, axis=0)) == 2 * 6


def test_general_jobs_have_lengths_in_their_range() -> None:
    shop = generate.general(300, (2, 5), 3, low=0, high=2, seed=1)
    assert set(shop.lengths.tolist()) == {2, 3, 4, 5}
    assert shop.has_zero_times
    assert any(len({k for k, _ in job}) < len(job) for job in shop.jobs())
    once = generate.general(300, (1, 3), 3, recirculation=False)
    assert all(len({k for k, _ in job}) == len(job) for job in once.jobs())


def test_the_random_stream_is_that_of_park_and_miller() -> None:
    # Communications of the ACM 31, 1988, p. 1195: from 1, the 10,000th number is 1043618065
    draw = generate._Lehmer(1)
    for _ in range(10_000):
        draw.uniform(0, 1)
    assert draw.state == 1_043_618_065


def test_taillards_generator_gives_ta01_to_the_byte() -> None:
    shop = generate.taillard_exact(15, 15, 840612802, 398197754)
    digest = hashlib.sha256(standard_text(shop).encode()).hexdigest()
    assert digest == published("ta01").sha256


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate.taillard(0, 4), "0 jobs on 4 machines"),
        (lambda: generate.taillard(4, 4, 9, 5), r"times are 9\.\.5"),
        (lambda: generate.taillard(4, 4, seed=-1), "seed is -1"),
        (lambda: generate.two_set(4, 4, -1, 5), r"times are -1\.\.5"),
        (lambda: generate.general(4, (3, 2), 4), r"lengths are \(3, 2\)"),
        (lambda: generate.general(4, (3, 5), 4, False), "pass recirculation=True"),
        (lambda: generate.taillard_exact(4, 4, 0, 1), "seed is 0"),
        (lambda: generate.taillard_exact(9**9, 9, 1, 1), "operations at most"),
        (lambda: generate.random_batch(np.random.default_rng(0), 0, 2, 2), "count is 0"),
    ],
)
def test_impossible_wishes_are_refused(call, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()
