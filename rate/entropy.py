"""Ideal code lengths, in bits and float64: what an entropy coder is measured against, never what it codes with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_FAR = 20.0  # standard deviations from which the tail is a continued fraction; erfc underflows beyond 37
_TERMS = 16  # of that fraction; at 20 standard deviations the error is below one ulp
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _log_upper_tail(z: Floats) -> Floats:
    """log Q(z) of the standard normal, for z >= 0 of any size (Laplace's continued fraction far out)."""
    result = np.empty_like(z)
    far = z > _FAR
    near = z[~far]
    if near.size:
        result[~far] = np.log(0.5 * _erfc(near / math.sqrt(2)))
    x = z[far]
    fraction = x
    for k in range(_TERMS, 0, -1):
        fraction = x + k / fraction
    result[far] = -0.5 * x * x - np.log(fraction) - 0.5 * math.log(2 * math.pi)
    return result


def gaussian_bits(symbols: ArrayLike, mean: ArrayLike, sigma: ArrayLike) -> Floats:
    """Bits of each symbol under a Gaussian integrated over [symbol - 1/2, symbol + 1/2].

    The three arguments broadcast; the result has their common shape. It is exact to about 1e-12 relative, from the
    centre (bits near 0 keep their digits) to tails of thousands of standard deviations, where a likelihood would
    underflow to 0; sum it for a rate.

    Source: the discretised Gaussian conditional of Minnen, Ballé and Toderici (2018), without the lower bound on the
    likelihood that implementations put there.

    Raises ValueError where sigma is not positive and finite, or where symbols or mean are not finite.
    """
    x, mu, scale = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (symbols, mean, sigma)))
    if not (np.isfinite(x).all() and np.isfinite(mu).all()):
        raise ValueError("symbols and mean must be finite")
    if not ((scale > 0) & np.isfinite(scale)).all():
        raise ValueError("sigma must be positive and finite")
    shape = x.shape
    distance, scale = np.abs(x - mu).ravel(), scale.ravel()
    nats = np.empty_like(distance)

    inside = distance < 0.5  # the mean lies in the symbol's own cell: 1 minus both tails
    d, s = distance[inside], scale[inside]
    nats[inside] = -np.log1p(-np.exp(_log_upper_tail((0.5 + d) / s)) - np.exp(_log_upper_tail((0.5 - d) / s)))

    d, s = distance[~inside], scale[~inside]  # the difference of two upper tails, by their logarithms
    near, far = _log_upper_tail((d - 0.5) / s), _log_upper_tail((d + 0.5) / s)
    nats[~inside] = -near - np.log(-np.expm1(far - near))
    return np.asarray(nats / math.log(2)).reshape(shape)


def entropy_bits(histogram: ArrayLike) -> float:
    """Total bits of all counted symbols under their own empirical distribution (zero-order), not bits per symbol.

    `histogram` holds counts >= 0 in any shape; an empty one costs 0 bits. Raises ValueError for a negative count.
    """
    counts = np.asarray(histogram, dtype=np.float64).ravel()
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError("counts must be finite and not negative")
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / counts.sum())).sum()) + 0.0 if counts.size else 0.0


def bits_per_pixel(n_bytes: int, width: int, height: int) -> float:
    """Bits per pixel of a file of `n_bytes` bytes for a picture of width x height pixels (colour counts once).

    Raises ValueError for a negative size or a picture without pixels.
    """
    if n_bytes < 0 or width <= 0 or height <= 0:
        raise ValueError(f"{n_bytes} bytes for {width}x{height} pixels")
    return 8 * n_bytes / (width * height)
