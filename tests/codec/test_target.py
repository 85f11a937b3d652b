"""Rate control: the level that reaches a goal, in few probes, and what is said where none does."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import codec
from codec.container import MAX_QP
from codec.errors import OutOfReach
from codec.target import Goal, largest, smallest
from rate import psnr


@given(st.lists(st.integers(0, 1000), min_size=64, max_size=64), st.integers(0, 1000))
def test_bisection_finds_the_level_in_seven_probes(steps: list[int], limit: int) -> None:
    values, probes = sorted(steps), []

    def measure(level: int) -> int:
        probes.append(level)
        return values[level]

    fits = [level for level in range(MAX_QP + 1) if values[level] <= limit]
    if fits:
        assert largest(measure, limit, "bytes") == fits[-1]
    else:
        with pytest.raises(OutOfReach, match=f"the least is {values[0]}, at --qp 0"):
            largest(measure, limit, "bytes")
    enough = [level for level in range(MAX_QP + 1) if values[level] >= limit]
    if enough:
        assert smallest(measure, limit, "dB") == enough[0]
    else:
        with pytest.raises(OutOfReach, match=f"the most is {values[-1]}, at --qp 63"):
            smallest(measure, limit, "dB")
    assert len(probes) <= 14


@pytest.mark.parametrize("tile", [0, 128])
def test_goals_are_met_and_no_better_level_would(tiny_bundle: Path, photo: NDArray, tile: int) -> None:
    part = photo[:200, :264]
    files = [codec.encode(part, qp=qp, model=tiny_bundle, tile=tile) for qp in range(MAX_QP + 1)]
    target = len(files[40]) + 3
    data = codec.encode(part, target_size=target, model=tiny_bundle, tile=tile)
    assert len(data) <= target and (codec.info(data)["qp"] == 63 or len(files[codec.info(data)["qp"] + 1]) > target)
    assert codec.encode(part, target_bpp=8 * target / part[:, :, 0].size, model=tiny_bundle, tile=tile) == data
    values = [psnr(part, np.asarray(codec.decode(f, model=tiny_bundle))) for f in files]
    limit = (min(values) + max(values)) / 2
    found = codec.info(codec.encode(part, target_psnr=limit, model=tiny_bundle, tile=tile))["qp"]
    assert values[found] >= limit and values[found - 1] < limit


def test_only_one_goal(tiny_bundle: Path, photo: NDArray) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        codec.encode(photo[:64, :64], qp=3, target_size=500, model=tiny_bundle)


def test_alpha_and_metadata_count(tiny_bundle: Path, photo: NDArray) -> None:
    rgba = np.dstack([photo[:64, :64], np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)])
    with pytest.raises(OutOfReach, match="4000 bytes is out of reach: the least is"):
        codec.encode(rgba, target_size=4000, model=tiny_bundle)


def test_psnr_is_of_what_is_visible(tiny_bundle: Path, photo: NDArray) -> None:
    rgba = np.dstack([photo[:64, :128], np.zeros((64, 128), np.uint8)])
    rgba[:, :64, 3] = 255
    data = codec.encode(rgba, target_psnr=12, model=tiny_bundle)
    assert psnr(rgba[:, :64, :3], np.asarray(codec.decode(data, model=tiny_bundle))[:, :64, :3]) >= 12


def test_a_refined_file_that_misses_is_not_taken() -> None:
    goal = Goal("size", 100)
    assert goal.met(bytes(100), lambda _: 0.0, 1) and not goal.met(bytes(101), lambda _: 0.0, 1)
    assert Goal("psnr", 30).met(b"", lambda _: 30.0, 1) and not Goal("psnr", 30).met(b"", lambda _: 29.9, 1)
    assert Goal("bpp", 8).bytes(100) == 100
