"""Distortion of pictures made here."""

import math

import numpy as np
import pytest

from rate import ms_ssim, psnr, psnr_y, ssimulacra2

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (176, 192, 3), dtype=np.uint8)


def test_psnr() -> None:
    assert psnr(PICTURE, PICTURE) == math.inf
    assert psnr(PICTURE, PICTURE ^ 1) == pytest.approx(20 * math.log10(255))
    black = np.zeros((1, 1, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == 0
    one = black.copy()
    one[0, 0, 2] = 255  # one colour of three
    assert psnr(black, one) == pytest.approx(10 * math.log10(3))


@pytest.mark.parametrize("measure", [psnr, psnr_y, ms_ssim, ssimulacra2])
@pytest.mark.parametrize("other", [PICTURE[:100], PICTURE[..., :1], PICTURE.astype(np.float32)])
def test_refuses_other_shapes_and_types(measure, other) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="must"):
        measure(PICTURE, other)


def test_psnr_of_luma() -> None:
    assert psnr_y(PICTURE, PICTURE) == math.inf
    assert psnr_y(PICTURE, PICTURE ^ 1) > psnr(PICTURE, PICTURE ^ 1)  # errors of three colours cancel out in part
    black = np.zeros((1, 1, 3), np.uint8)
    green = black.copy()
    green[0, 0, 1] = 255
    assert psnr_y(black, green) == pytest.approx(-20 * math.log10(0.587))


def test_ssimulacra2() -> None:
    pytest.importorskip("ssimulacra2", reason="the extra `bench` is not installed")
    assert ssimulacra2(PICTURE, PICTURE) == pytest.approx(100)
    noise = RANDOM.integers(-4, 5, PICTURE.shape)
    assert ssimulacra2(PICTURE, np.clip(PICTURE + noise, 0, 255).astype(np.uint8)) < 100
    with pytest.raises(ValueError, match="at least 8"):
        ssimulacra2(PICTURE[:7], PICTURE[:7])


def test_ms_ssim() -> None:
    pytest.importorskip("pytorch_msssim", reason="the extra `bench` is not installed")
    assert ms_ssim(PICTURE, PICTURE) == pytest.approx(1)
    noise = RANDOM.integers(-20, 21, PICTURE.shape)
    assert 0.5 < ms_ssim(PICTURE, np.clip(PICTURE + noise, 0, 255).astype(np.uint8)) < 1
    with pytest.raises(ValueError, match="160"):
        ms_ssim(PICTURE[:160], PICTURE[:160])
