"""Rounding of the encoder: each symbol is the cheaper of two in bits and squared error together."""

import numpy as np
import pytest

from codec.modes import SQUARED_ERROR_WORTH, UNIT, Encode
from codec.tables import scale
from rate import gaussian_bits


@pytest.mark.parametrize("index", [4, 12, 25, 35])
def test_symbols_trade_bits_for_squared_error(index: int) -> None:
    rng = np.random.default_rng(index)
    y = rng.normal(0, 2 * scale(index), (1, 8, 16, 16)).astype(np.float32)
    mean = np.rint(rng.normal(0, 100, (1, 8, 16, 8))).astype(np.float32)
    mode = Encode(y, np.zeros((1, 1, 1, 1), np.float32), (8,), skip=4)
    target = mode.targets[0, 0] - mean / UNIT
    values = mode.code(0, 0, mean, np.full_like(mean, index))
    symbols = (values - mean) / UNIT
    nearest = np.rint(target)
    smaller = nearest - np.sign(nearest)

    bits_saved = gaussian_bits(nearest, 0.0, scale(index)) - gaussian_bits(smaller, 0.0, scale(index))
    error_added = (smaller - target) ** 2 - (nearest - target) ** 2
    worth_it = bits_saved > SQUARED_ERROR_WORTH * error_added

    assert np.all((symbols == nearest) | (symbols == smaller))
    usual = (np.abs(nearest) < 17) & (bits_saved < SQUARED_ERROR_WORTH)  # an escape costs less than a Gaussian's tail
    clear = np.abs(bits_saved - SQUARED_ERROR_WORTH * error_added) > 1e-3
    assert np.array_equal((symbols != nearest)[usual & clear], worth_it[usual & clear])
    assert (symbols != nearest).any()


def test_the_hyperprior_is_rounded_to_nearest() -> None:
    z = np.random.default_rng(1).normal(0, 2, (1, 4, 8, 8)).astype(np.float32)
    mode = Encode(np.zeros((1, 1, 2, 2), np.float32), z, (1,), skip=4)
    values = mode.code(-1, 0, np.zeros((1, 4, 1, 1), np.float32), np.full((1, 4, 1, 1), 20, np.float32))
    assert np.array_equal(values, UNIT * np.rint(z))
