"""Ideal code lengths against high-precision values and against what they must add up to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate import bits_per_pixel, entropy_bits, gaussian_bits


@pytest.mark.parametrize(
    ("symbol", "mean", "sigma", "bits"),
    [  # from mpmath at 60 digits
        (0, 0, 0.05, 2.1986248340518445e-23),
        (0, 0.49, 0.11, 0.899109557729672),
        (0, 0, 1000, 11.29153240951054),
        (7, 0.3, 0.11, 2298.762620726998),
        (100, 0, 0.05, 2856620.6000133366),
        (1000, 3.3, 0.01, 7158756973.4028845),
    ],
)
def test_agrees_with_high_precision(symbol: float, mean: float, sigma: float, bits: float) -> None:
    assert float(gaussian_bits(symbol, mean, sigma)) == pytest.approx(bits, rel=1e-12)


@given(mean=st.floats(-3, 3), sigma=st.floats(0.05, 20))
def test_probabilities_add_up_to_one(mean: float, sigma: float) -> None:
    bits = gaussian_bits(np.arange(-300, 301), mean, sigma)
    assert np.isfinite(bits).all() and (bits >= 0).all()
    assert np.exp2(-bits).sum() == pytest.approx(1, abs=1e-12)


@given(symbol=st.integers(-(10**6), 10**6), mean=st.floats(-100, 100), sigma=st.floats(1e-3, 1e3))
def test_finite_and_symmetric_everywhere(symbol: int, mean: float, sigma: float) -> None:
    bits = float(gaussian_bits(symbol, mean, sigma))
    assert math.isfinite(bits) and bits >= 0
    assert bits == float(gaussian_bits(-symbol, -mean, sigma))


def test_the_two_tail_formulas_meet() -> None:
    """Around 20 standard deviations erfc hands over to the continued fraction; the third difference shows no step."""
    bits = gaussian_bits(np.linspace(19.5, 21.5, 2001), 0, 1)
    assert np.abs(np.diff(bits, 3)).max() < 1e-9


def test_broadcasts_and_keeps_the_shape() -> None:
    bits = gaussian_bits(np.zeros((2, 3, 4), np.int8), np.zeros((3, 1)), np.ones(4, np.float32))
    assert bits.shape == (2, 3, 4) and bits.dtype == np.float64
    assert gaussian_bits([], 0, 1).shape == (0,)


@pytest.mark.parametrize(("symbol", "mean", "sigma"), [(0, 0, 0), (0, 0, -1), (0, 0, math.nan), (math.inf, 0, 1)])
def test_refuses_what_is_no_gaussian(symbol: float, mean: float, sigma: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        gaussian_bits(symbol, mean, sigma)


def test_entropy_is_the_total_of_the_symbols() -> None:
    assert entropy_bits([4, 4, 4, 4]) == 32
    assert entropy_bits([[7, 0], [0, 0]]) == 0
    assert entropy_bits([]) == 0
    with pytest.raises(ValueError, match="negative"):
        entropy_bits([1, -1])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_entropy_lies_between_zero_and_uniform(counts: list[int]) -> None:
    assert 0 <= entropy_bits(counts) <= sum(counts) * math.log2(len(counts)) + 1e-6


def test_bits_per_pixel() -> None:
    assert bits_per_pixel(4915, 768, 512) == pytest.approx(0.1, abs=1e-4)
    with pytest.raises(ValueError, match="pixels"):
        bits_per_pixel(1, 0, 512)
