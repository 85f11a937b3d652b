"""BD-rate: its algebra on made-up curves, and the known numbers where the data are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate import DataMissing, bd_rate, data_dir, psnr_overlap, published_curve

pytest.importorskip("bjontegaard", reason="the extra `bench` is not installed")

BPP = np.array([0.1, 0.25, 0.5, 0.9, 1.6])
PSNR = np.array([27.0, 29.5, 32.0, 34.8, 38.0])

rising = st.integers(4, 9).flatmap(
    lambda n: st.tuples(*(st.lists(st.floats(0.05, 2), min_size=n, max_size=n) for _ in range(2)))
)


@given(rising)
def test_a_curve_against_itself_is_zero(steps: tuple[list[float], list[float]]) -> None:
    bpp, psnr = np.cumsum(steps[0]), 25 + np.cumsum(steps[1])
    assert bd_rate(bpp, psnr, bpp, psnr) == pytest.approx(0, abs=1e-9)


@given(rising, st.floats(0.2, 5))
def test_scaled_rates_give_the_scale(steps: tuple[list[float], list[float]], scale: float) -> None:
    bpp, psnr = np.cumsum(steps[0]), 25 + np.cumsum(steps[1])
    assert bd_rate(bpp, psnr, scale * bpp, psnr) == pytest.approx(100 * (scale - 1), abs=1e-6)


def test_ten_percent_more_bits_and_the_sign() -> None:
    assert bd_rate(BPP, PSNR, 1.1 * BPP, PSNR) == pytest.approx(10)
    assert bd_rate(BPP, PSNR, BPP, PSNR + 0.5) < 0 < bd_rate(BPP, PSNR, BPP, PSNR - 0.5)


def test_the_order_of_points_is_free() -> None:
    assert bd_rate(BPP[::-1], PSNR[::-1], 1.1 * BPP, PSNR) == pytest.approx(10)


@pytest.mark.parametrize(
    ("bpp", "psnr", "message"),
    [
        (BPP[:3], PSNR[:3], "too few"),
        (BPP, PSNR + 20, "no overlap"),
        (BPP, PSNR[[0, 2, 1, 3, 4]], "rise strictly"),
        (BPP[[0, 0, 2, 3, 4]], PSNR, "rise strictly"),
        (BPP - 0.1, PSNR, "positive"),
        (BPP, PSNR[:4], "one PSNR per rate"),
        (BPP, PSNR * np.nan, "finite"),
    ],
)
def test_refuses_curves_that_mean_nothing(bpp: np.ndarray, psnr: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(BPP, PSNR, bpp, psnr)
    with pytest.raises(ValueError, match=message):
        bd_rate(bpp, psnr, BPP, PSNR)


def test_overlap() -> None:
    assert psnr_overlap(PSNR, PSNR + 2) == (29.0, 38.0)
    with pytest.raises(ValueError, match="no overlap"):
        psnr_overlap(PSNR, PSNR + 11)


@pytest.mark.parametrize(
    ("codec", "percent"),
    [
        ("mlicplusplus", -15.0),
        ("mlic", -9.7),
        ("compressai/paper-elic2022_mse", -7.0),
        ("compressai/av1", 16.2),
        ("compressai/bpg_444_x265_ycbcr", 22.0),
        ("measured/avif", 36.5),
        ("measured/webp", 78.2),
        ("measured/jpeg", 189.4),
    ],
)
def test_known_numbers_against_vtm_on_kodak(codec: str, percent: float) -> None:
    try:
        data = data_dir()
    except DataMissing as missing:
        pytest.skip(str(missing))
    anchor = published_curve(data, "compressai/vtm")
    if codec.startswith("measured/"):
        path = data / "rd" / "measured_peers_kodak.json"
        curve = json.loads(path.read_text(encoding="utf-8"))["res"][codec.removeprefix("measured/")]
    else:
        curve = published_curve(data, codec)
    assert bd_rate(anchor["bpp"], anchor["psnr"], curve["bpp"], curve["psnr"]) == pytest.approx(percent, abs=0.06)
