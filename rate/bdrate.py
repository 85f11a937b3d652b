"""Bjøntegaard delta rate: how many percent more bits one codec needs than another for the same PSNR."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_POINTS = 4  # fewer make any interpolation an opinion (our choice; the usual test has four)


def _curve(bpp: ArrayLike, psnr: ArrayLike, whose: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points sorted by rate; ValueError unless they make a strictly rising curve."""
    rates, quality = np.asarray(bpp, dtype=np.float64), np.asarray(psnr, dtype=np.float64)
    if rates.ndim != 1 or rates.shape != quality.shape:
        raise ValueError(f"{whose}: one PSNR per rate is needed, got shapes {rates.shape} and {quality.shape}")
    if rates.size < MIN_POINTS:
        raise ValueError(f"{whose}: {rates.size} points are too few, at least {MIN_POINTS} are needed")
    if not (np.isfinite(rates).all() and np.isfinite(quality).all() and (rates > 0).all()):
        raise ValueError(f"{whose}: rates must be positive and everything finite")
    order = np.argsort(rates)
    rates, quality = rates[order], quality[order]
    if not ((np.diff(rates) > 0).all() and (np.diff(quality) > 0).all()):
        raise ValueError(f"{whose}: PSNR must rise strictly with the rate")
    return rates, quality


def psnr_overlap(anchor_psnr: ArrayLike, psnr: ArrayLike) -> tuple[float, float]:
    """The PSNR range in dB that both curves cover: what a BD-rate between them speaks of, and all it speaks of.

    Raises ValueError where they share none.
    """
    a, b = np.asarray(anchor_psnr, dtype=np.float64), np.asarray(psnr, dtype=np.float64)
    low, high = float(max(a.min(), b.min())), float(min(a.max(), b.max()))
    if low >= high:
        raise ValueError(f"no overlap: {a.min():.2f}..{a.max():.2f} dB against {b.min():.2f}..{b.max():.2f} dB")
    return low, high


def bd_rate(anchor_bpp: ArrayLike, anchor_psnr: ArrayLike, bpp: ArrayLike, psnr: ArrayLike) -> float:
    """Mean rate difference against the anchor at equal PSNR, in percent: negative means fewer bits than the anchor.

    Four arrays of shape (points,), at least four points per curve, in any order; the curves need not have equally
    many. Log-rate over PSNR is interpolated by PCHIP and averaged over the common PSNR range (`psnr_overlap`).
    Source: Bjøntegaard, VCEG-M33 (2001), computed by the package `bjontegaard` (FAU-LMS).

    Raises ValueError for too few points, curves that do not rise strictly, or ranges without overlap.
    """
    anchor_rates, anchor_quality = _curve(anchor_bpp, anchor_psnr, "anchor")
    rates, quality = _curve(bpp, psnr, "codec")
    psnr_overlap(anchor_quality, quality)
    import bjontegaard

    return float(
        bjontegaard.bd_rate(
            anchor_rates, anchor_quality, rates, quality,
            method="pchip", require_matching_points=False, min_overlap=0,
        )
    )  # fmt: skip
