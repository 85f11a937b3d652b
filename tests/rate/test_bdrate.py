"""BD-rate: its algebra on made-up curves, and the known numbers where the data are."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate import Comparison, DataMissing, bd_psnr, bd_rate, compare, data_dir, psnr_overlap, published_curve

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


def test_crossing_lines_by_hand() -> None:
    """Log-rates that are lines over PSNR: their mean difference is that in the middle, 0 where they cross there."""
    psnr = np.array([30.0, 31.0, 32.0, 33.0, 34.0])
    anchor = 10 ** ((psnr - 30) / 10)
    for method in ("pchip", "akima"):
        assert bd_rate(anchor, psnr, 10 ** ((psnr - 31) / 5), psnr, method) == pytest.approx(0, abs=1e-9)
        lower = 10 ** ((psnr - 32) / 5)  # at 32 dB 10^0 against 10^0.2
        assert bd_rate(anchor, psnr, lower, psnr, method) == pytest.approx(100 * (10**-0.2 - 1))


def test_half_a_decibel_more() -> None:
    assert bd_psnr(BPP, PSNR, BPP, PSNR + 0.5) == pytest.approx(0.5)
    assert bd_psnr(BPP, PSNR, BPP[::-1], PSNR[::-1] - 0.5, "akima") == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="share no rate"):
        bd_psnr(BPP, PSNR, BPP * 100, PSNR)


def test_equal_points_count_once() -> None:
    twice = np.r_[BPP, BPP[2]], np.r_[PSNR, PSNR[2]]
    assert bd_rate(*twice, 1.1 * BPP, PSNR) == pytest.approx(10)
    with pytest.raises(ValueError, match="too few"):
        bd_rate(BPP[[0, 0, 1, 2]], PSNR[[0, 0, 1, 2]], BPP, PSNR)


def test_compare_says_everything_and_warns() -> None:
    whole = compare(BPP, PSNR, 1.1 * BPP, PSNR)
    assert (whole.start, whole.end, whole.warning) == (27, 38, None)
    assert whole.rate == pytest.approx(10) and whole.akima == pytest.approx(10) and whole.db and whole.db < 0
    few = compare(BPP, PSNR, 1.1 * BPP[1:3], PSNR[1:3])
    assert few.warning == "only 2 points" and few.rate is not None and few.akima is None
    thin = compare(BPP, PSNR, BPP, PSNR + 9)
    assert thin.rate is not None and thin.warning == "thin overlap: 18 % of the shorter curve"
    apart = compare(BPP, PSNR, BPP, PSNR + 20)
    assert apart == Comparison(warning="no overlap: 27.00..38.00 dB against 47.00..58.00 dB")
    assert "rise strictly" in str(compare(BPP, PSNR, BPP, PSNR[::-1]).warning)


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
