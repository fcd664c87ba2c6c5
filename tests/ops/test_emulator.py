"""The emulator of CUDA finds mistakes: toy kernels that are right, and broken on purpose."""

from pathlib import Path

import pytest
import torch

from gnnlab.ops._gpu._emulator import EmulationError, Emulator
from gnnlab.ops._gpu._launch import unit

TOYS = Path(__file__).parent / "kernels"
SIZES = (1, 31, 32, 128, 129, 300)


@pytest.fixture(scope="module")
def emulator():
    try:
        return Emulator(folder=TOYS)
    except OSError as error:
        pytest.skip(str(error))


def run(emulator, mistake, kernel="toy", count=300, shared=4 * 128):
    """Starts a toy; returns its input, its output and the sums of its blocks."""
    x = torch.arange(count, dtype=torch.float32)
    out, total = torch.full((count,), -1.0), torch.full((-(-count // 128),), -1.0)
    code = unit("toys", MISTAKE=mistake)
    emulator.launch(code, kernel, len(total), 128, shared, x, count, out, total)
    return x, out, total


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_a_right_kernel_passes(emulator, count, seed, monkeypatch):
    monkeypatch.setattr(emulator, "seed", seed)
    x, out, total = run(emulator, "NONE", count=count)
    expected = torch.stack([block.sum() for block in x.split(128)])
    assert torch.equal(total, expected)
    assert torch.equal(out, expected.repeat_interleave(128)[:count])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("mistake", "finding"),
    [
        ("NO_BARRIER", "race in shared memory|shared memory, which nobody has written"),
        ("WRITE_AFTER_READ", "race in shared memory"),
        ("UNWRITTEN", "shared memory, which nobody has written"),
        ("SHARED_END", "writes 4 bytes at offset 512 of shared memory|race in shared memory"),
        ("WRONG_TAIL", r"writes 4 bytes at offset 1[2-5]\d\d of argument 2, which has 1200"),
        ("READS_BEFORE", r"reads 4 bytes at offset (-4|1[2-5]\d\d) of argument 0"),
        ("TAIL_SHUFFLE", "has left the kernel|does not reach"),
        ("WRONG_MASK", "lacks it"),
        ("LOST_LANES", "meet at different places"),
        ("BARRIER_IN_BRANCH", "race in shared|barrier|nobody has written"),
        ("MISALIGNED", "no multiple of its size"),
        ("BLOCKS_RACE", "race in argument 3"),
        ("FOREVER", "does not end"),
    ],
)
def test_a_mistake_is_found(emulator, mistake, finding, seed, monkeypatch):
    monkeypatch.setattr(emulator, "seed", seed)
    monkeypatch.setattr(emulator, "access_limit", 10**6)
    with pytest.raises(EmulationError, match=finding):
        run(emulator, mistake)


def test_a_missing_warp_barrier_is_found(emulator):
    x, out, _ = run(emulator, "NONE", "turn", count=256)
    assert torch.equal(out.view(-1, 32), x.view(-1, 32).flip(1) + 1)
    with pytest.raises(EmulationError, match="race in shared memory"):
        run(emulator, "NO_SYNCWARP", "turn", count=256)


def test_groups_of_lanes_go_their_own_ways(emulator):
    x, out, _ = run(emulator, "NONE", "groups", count=128)
    group = torch.arange(16)
    factor = torch.tensor([1.0, 3.0, 6.0, 10.0])[group % 4]  # 1 + 2 + ... rounds
    expected = x.view(16, 8).sum(1) * factor
    assert torch.equal(out.view(16, 8), expected[:, None].expand(16, 8))


def test_tensors_are_the_limits_not_their_storage(emulator):
    storage = torch.zeros(400)
    x, out = torch.zeros(300), storage[50:350]
    code = unit("toys", MISTAKE="WRONG_TAIL")
    with pytest.raises(EmulationError, match="argument 2"):
        emulator.launch(code, "toy", 3, 128, 512, x, 300, out, torch.zeros(3))
    assert storage[350:].eq(0).all()


def test_too_many_threads_and_empty_grids(emulator):
    code, x = unit("toys", MISTAKE="NONE"), torch.zeros(300)
    with pytest.raises(EmulationError, match="compiled for 128"):
        emulator.launch(code, "toy", 1, 256, 1024, x, 300, x, x)
    emulator.launch(code, "toy", 0, 128, 512, x, 300, x, x)


def test_16_bit_floats_round_to_nearest_even(emulator):
    bits = torch.arange(0, 2**32, 65537 * 3, dtype=torch.int64)
    edges = torch.arange(2**16, dtype=torch.int64) << 16  # every bfloat16
    ties = torch.arange(0, 2**32, 2**13, dtype=torch.int64)[::7] | 0x1000  # half-way in float16
    small = torch.arange(0x33000000, 0x38800000, 0x1FFF)  # where float16 is subnormal
    bits = torch.cat([bits, edges, edges | 0x8000, edges | 0x7FFF, ties, small])
    x = bits.to(torch.int32).view(torch.float32)
    x = torch.cat(
        [x, torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()]
    )
    x = x.contiguous()
    count = len(x)
    out, brain_values, half_values = (torch.zeros(count) for _ in range(3))
    brain, half = (torch.zeros(count, dtype=torch.int16) for _ in range(2))
    code, grid = unit("toys", MISTAKE="NONE"), -(-count // 128)
    args = (x, count, out, brain, half, brain_values, half_values)
    emulator.launch(code, "rounding", grid, 128, 0, *args)
    nan = x.isnan()
    for bits, values, dtype in (
        (brain, brain_values, torch.bfloat16),
        (half, half_values, torch.float16),
    ):
        expected = x.to(dtype)
        assert torch.equal(bits[~nan], expected.view(torch.int16)[~nan])
        assert torch.equal(bits.view(dtype).isnan(), nan)
        assert torch.equal(values[~nan], expected.float()[~nan])
        assert values[nan].isnan().all()
