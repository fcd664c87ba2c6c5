"""Job shops made from arrays and lists: what they know, and what they refuse."""

import numpy as np
import pytest

from gnnlab.tasks.dispatch import InstanceError, JobShopInstance

JOBS = [[(0, 3), (1, 0), (0, 4)], [(2, 1)]]


def test_lists_and_arrays_make_the_same_job_shop() -> None:
    shop = JobShopInstance.from_jobs(JOBS, 4, "a")
    same = JobShopInstance(
        "b",
        np.array([[0, 1, 0], [2, 7, 7]]),
        np.array([[3.0, 0.0, 4.0], [1.0, -5.0, 2.0]]),
        np.array([3, 1], np.uint8),
        4,
    )
    assert shop == same
    assert hash(shop) == hash(same)
    assert shop.digest() == same.digest()
    assert same.machines.tolist() == [[0, 1, 0], [2, -1, -1]]
    assert same.times.tolist() == [[3, 0, 4], [1, -1, -1]]
    assert shop.jobs() == JOBS


def test_a_job_shop_knows_its_sizes() -> None:
    shop = JobShopInstance.from_jobs(JOBS, 4)
    assert (shop.num_jobs, shop.num_machines, shop.num_operations, shop.total_time) == (2, 4, 4, 8)
    assert shop.exists.tolist() == [[True, True, True], [True, False, False]]
    assert shop.has_zero_times
    assert not shop.is_square
    assert JobShopInstance.from_jobs([[(1, 1), (0, 1)]]).is_square
    assert not JobShopInstance.from_jobs([[(1, 1), (1, 1)]]).is_square


def test_content_decides_about_equality() -> None:
    shop = JobShopInstance.from_jobs(JOBS, 4)
    assert shop != JobShopInstance.from_jobs(JOBS, 5)
    assert shop != JobShopInstance.from_jobs(JOBS[::-1], 4)
    assert shop != JobShopInstance.from_jobs([JOBS[0], [(2, 2)]], 4)
    assert shop != "shop"


def test_arrays_are_copied_and_cannot_be_written_to() -> None:
    times = np.array([[1, 2]])
    shop = JobShopInstance("x", np.array([[0, 1]]), times, np.array([2]), 2)
    times[0, 0] = 9
    assert shop.times[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        shop.times[0, 0] = 9


@pytest.mark.parametrize(
    ("machines", "times", "lengths", "num_machines", "message"),
    [
        ([[0]], [[1, 2]], [1], 1, "expected machines and times"),
        ([0], [1], [1], 1, "expected machines and times"),
        ([[0]], [[1]], [1, 1], 1, "expected machines and times"),
        (np.zeros((0, 2)), np.zeros((0, 2)), [], 1, "header"),
        ([[0]], [[1]], [1], 0, "header"),
        ([[0]], [[1]], [0], 1, "job 0: has 0 operations"),
        ([[0]], [[1]], [2], 1, "job 0: has 2 operations"),
        ([[0, 2]], [[1, 1]], [2], 2, "job 0, operation 1: machine index out of range: 2"),
        ([[1, 2]], [[1, 1]], [2], 2, "looks 1-based; pass machine_base=1"),
        ([[0, -1]], [[1, 1]], [2], 2, "machine index out of range: -1"),
        ([[0, 1]], [[1, -1]], [2], 2, "job 0, operation 1: negative time -1"),
        ([[0, 1]], [[1, 1.5]], [2], 2, "times: not an integer"),
        ([[0, 1]], [[1, np.nan]], [2], 2, "times: not an integer"),
        ([[0, 1]], [[1, np.inf]], [2], 2, "times: not an integer"),
        ([["a", "b"]], [[1, 1]], [2], 2, "machines: not an integer"),
        ([[0, 1]], [[2**53, 1]], [2], 2, r"more than 2\*\*53"),
        ([[0, 1]], [[2**62, 2**62]], [2], 2, r"more than 2\*\*53"),
        ([[0, 1]], [[10**30, 1]], [2], 2, "times: not an integer"),
        (np.zeros((1, 5_000_001), np.int8),) * 2 + ([1], 1, "too large"),
    ],
)
def test_wrong_arrays_are_refused(machines, times, lengths, num_machines, message) -> None:
    with pytest.raises(InstanceError, match=message):
        JobShopInstance(
            "x", np.array(machines), np.array(times), np.array(lengths, np.int64), num_machines
        )


def test_the_largest_total_time_is_accepted() -> None:
    assert JobShopInstance.from_jobs([[(0, 2**53 - 1), (0, 1)]]).total_time == 2**53


@pytest.mark.parametrize(
    "jobs", [[], [[]], [[(0, 1)], []], [[(0, 1), (1,)]], [[(0, 1, 2)]], [[0, 1]], [[("a", 1)]]]
)
def test_lists_that_are_no_jobs_are_refused(jobs: list) -> None:
    with pytest.raises(InstanceError):
        JobShopInstance.from_jobs(jobs)
