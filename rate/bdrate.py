"""Bjøntegaard deltas: how many percent more bits one codec needs than another for the same quality, and the reverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_POINTS = 4  # fewer make any interpolation an opinion (our choice; the usual test has four)
THIN = 0.5  # share of the shorter curve's quality range; a smaller overlap gets a warning (our choice)
METHODS = ("pchip", "akima")


def _curve(bpp: ArrayLike, quality: ArrayLike, whose: str, least: int = MIN_POINTS) -> tuple[NDArray, NDArray]:
    """Points sorted by rate, equal ones merged; ValueError unless they make a strictly rising curve."""
    rates, heights = np.asarray(bpp, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if rates.ndim != 1 or rates.shape != heights.shape:
        raise ValueError(f"{whose}: one PSNR per rate is needed, got shapes {rates.shape} and {heights.shape}")
    if not (np.isfinite(rates).all() and np.isfinite(heights).all() and (rates > 0).all()):
        raise ValueError(f"{whose}: rates must be positive and everything finite")
    rates, heights = np.unique(np.stack([rates, heights]), axis=1)
    if rates.size < least:
        raise ValueError(f"{whose}: {rates.size} points are too few, at least {least} are needed")
    if not ((np.diff(rates) > 0).all() and (np.diff(heights) > 0).all()):
        raise ValueError(f"{whose}: PSNR must rise strictly with the rate")
    return rates, heights


def psnr_overlap(anchor_psnr: ArrayLike, psnr: ArrayLike) -> tuple[float, float]:
    """The PSNR range in dB that both curves cover: what a BD-rate between them speaks of, and all it speaks of.

    Raises ValueError where they share none.
    """
    a, b = np.asarray(anchor_psnr, dtype=np.float64), np.asarray(psnr, dtype=np.float64)
    low, high = float(max(a.min(), b.min())), float(min(a.max(), b.max()))
    if low >= high:
        raise ValueError(f"no overlap: {a.min():.2f}..{a.max():.2f} dB against {b.min():.2f}..{b.max():.2f} dB")
    return low, high


def _rate(anchor: tuple[NDArray, NDArray], curve: tuple[NDArray, NDArray], method: str) -> float:
    import bjontegaard

    psnr_overlap(anchor[1], curve[1])
    options = {"method": method, "require_matching_points": False, "min_overlap": 0}
    return float(bjontegaard.bd_rate(*anchor, *curve, **options))


def bd_rate(
    anchor_bpp: ArrayLike, anchor_psnr: ArrayLike, bpp: ArrayLike, psnr: ArrayLike, method: str = "pchip"
) -> float:
    """Mean rate difference against the anchor at equal PSNR, in percent: negative means fewer bits than the anchor.

    Four arrays of shape (points,), at least four points per curve, in any order, equal ones counted once; the curves
    need not have equally many. Log-rate over PSNR is interpolated by `method`, "pchip" or "akima", and averaged over
    the common PSNR range (`psnr_overlap`). Any quality that rises with the rate may stand for PSNR.
    Source: Bjøntegaard, VCEG-M33 (2001), computed by the package `bjontegaard` (FAU-LMS).

    Raises ValueError for too few points, curves that do not rise strictly, or ranges without overlap.
    """
    return _rate(_curve(anchor_bpp, anchor_psnr, "anchor"), _curve(bpp, psnr, "codec"), method)


def bd_psnr(
    anchor_bpp: ArrayLike, anchor_psnr: ArrayLike, bpp: ArrayLike, psnr: ArrayLike, method: str = "pchip"
) -> float:
    """Mean PSNR difference against the anchor at equal rate, in dB: positive is better. As `bd_rate` otherwise; the
    average runs over the common range of log-rate. Raises ValueError as bd_rate, or where no rate is common."""
    import bjontegaard

    anchor, curve = _curve(anchor_bpp, anchor_psnr, "anchor"), _curve(bpp, psnr, "codec")
    low, high = max(anchor[0][0], curve[0][0]), min(anchor[0][-1], curve[0][-1])
    if low >= high:
        raise ValueError("no overlap: the curves share no rate")
    options = {"method": method, "require_matching_points": False, "min_overlap": 0}
    return float(bjontegaard.bd_psnr(*anchor, *curve, **options))


@dataclass(frozen=True)
class Comparison:
    """One curve against another, numbers as `bd_rate` and `bd_psnr` give them; None where they are not defined.

    rate, akima: percent; db: dB. start, end: the common quality range. warning: what a reader should know, or why
    there is no number.
    """

    rate: float | None = None
    akima: float | None = None
    db: float | None = None
    start: float | None = None
    end: float | None = None
    warning: str | None = None


def compare(anchor_bpp: ArrayLike, anchor_psnr: ArrayLike, bpp: ArrayLike, psnr: ArrayLike) -> Comparison:
    """All that can be said of a curve against an anchor. Never raises for bad curves: the warning says what is wrong.

    Two points are enough here; fewer than four are warned of, and an overlap of less than half the shorter curve.
    """
    try:
        anchor, curve = _curve(anchor_bpp, anchor_psnr, "anchor", 2), _curve(bpp, psnr, "codec", 2)
        start, end = psnr_overlap(anchor[1], curve[1])
    except ValueError as error:
        return Comparison(warning=str(error))
    warnings = []
    if (fewest := min(anchor[0].size, curve[0].size)) < MIN_POINTS:
        warnings.append(f"only {fewest} points")
    share = (end - start) / min(np.ptp(anchor[1]), np.ptp(curve[1]))
    if share < THIN:
        warnings.append(f"thin overlap: {100 * share:.0f} % of the shorter curve")
    rate = _rate(anchor, curve, "pchip")
    enough = fewest >= MIN_POINTS
    akima = _rate(anchor, curve, "akima") if enough else None
    try:
        db = bd_psnr(*anchor, *curve) if enough else None
    except ValueError as error:
        db = None
        warnings.append(str(error))
    return Comparison(rate, akima, db, start, end, "; ".join(warnings) or None)
