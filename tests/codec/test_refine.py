"""Refinement pays, never costs, keeps its time, and leaves the decoder as it is."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import codec
from codec.cli import main
from codec.config import rate_lambda
from tests.codec.commands import need_bundle, python

torch = pytest.importorskip("torch")


def cost(rgb: NDArray, data: bytes, qp: int, model: Path | None = None) -> float:
    """Bits per pixel + lambda * squared error, of the file itself."""
    shown = np.asarray(codec.decode(data, model=model), np.float64)
    pixels = rgb.shape[0] * rgb.shape[1]
    return 8 * len(data) / pixels + rate_lambda(qp) * float(np.square(shown - rgb).mean())


@pytest.fixture
def iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Effort 7 of few iterations."""
    monkeypatch.setitem(codec.EFFORTS, 7, 30)


@need_bundle
@pytest.mark.parametrize("qp", [10, 40])
def test_refined_files_are_better(iterations: None, photo: NDArray, qp: int) -> None:
    """By more than 1 % of the rate at equal quality in no more than 30 iterations; in full it is five times as much."""
    rgb = np.ascontiguousarray(photo[100:180, 150:290])  # no multiple of 64
    plain, heard = codec.encode(rgb, qp=qp), list[tuple[int, float]]()
    refined = codec.encode(rgb, qp=qp, effort=7, progress=lambda done, best: heard.append((done, best)))
    bits = 8 * len(plain) / (rgb.shape[0] * rgb.shape[1])
    assert cost(rgb, refined, qp) < cost(rgb, plain, qp) - 0.01 * bits
    assert [done for done, _ in heard] == list(range(1, 31))
    assert all(a[1] >= b[1] for a, b in pairwise(heard))
    codec.verify(refined)
    assert refined == codec.encode(rgb, qp=qp, effort=7)  # the same every time


def test_never_worse_even_with_an_untrained_network(
    iterations: None, tiny_bundle: Path, photo: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps that only do harm the unrefined file comes out."""
    from codec import refine

    rgb = np.ascontiguousarray(photo[:64, :64])
    monkeypatch.setattr(refine, "RATE", 3.0)
    plain = codec.encode(rgb, qp=30, model=tiny_bundle)
    refined = codec.encode(rgb, qp=30, model=tiny_bundle, effort=7)
    assert cost(rgb, refined, 30, tiny_bundle) <= cost(rgb, plain, 30, tiny_bundle)


def test_stops_on_time(tiny_bundle: Path, photo: NDArray) -> None:
    rgb, heard = np.ascontiguousarray(photo[:64, :64]), list[int]()
    start = time.monotonic()
    data = codec.encode(
        rgb, qp=30, model=tiny_bundle, effort=9, time_limit=0.5, progress=lambda done, best: heard.append(done)
    )
    assert time.monotonic() - start < 30 and 1 <= len(heard) < 2000
    codec.verify(data, model=tiny_bundle)


def test_bad_efforts_and_large_pictures(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="effort is 6, not one of 5, 7, 8, 9"):
        codec.encode(np.zeros((8, 8, 3), np.uint8), effort=6, model=tiny_bundle)
    with pytest.raises(codec.BadInput, match="too many for an effort above 5"):
        codec.encode(np.zeros((1449, 1449, 3), np.uint8), effort=7, model=tiny_bundle)


@need_bundle
def test_the_command(iterations: None, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "a.png", "plain.mlic", "--qp", "20", "--quiet"]) == 0
    assert main(["encode", "a.png", "best.mlic", "--qp", "20", "-e", "7", "--time-limit", "60"]) == 0
    assert "a.png -> best.mlic" in capsys.readouterr().err
    assert Path("best.mlic").read_bytes() != Path("plain.mlic").read_bytes()
    script = """
import sys
sys.modules["torch"] = None
from codec.cli import main
assert main(["decode", "best.mlic", "b.png", "--quiet"]) == 0
sys.exit(main(["encode", "a.png", "c.mlic", "-e", "8"]))
"""
    run = python(script, cwd=here)
    assert run.returncode == 1 and "needs PyTorch" in run.stderr and not Path("c.mlic").exists(), run.stderr
    assert main(["encode", "a.png", "d.mlic", "-e", "6"]) == 2 and sys.exc_info()[0] is None
