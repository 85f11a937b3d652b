"""From points to curves, and from curves to statements: averages over pictures, BD-rates, intervals by bootstrap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate import METRICS, Comparison, bd_rate, compare

from .measure import Point

Measured = dict[str, dict[str, Point | str]]  # level -> picture -> point, or what went wrong
RESAMPLES = 300


def height(metric: str, value: float) -> float:
    """The quality that curves and BD-rates use: MS-SSIM in dB, -10 log10(1 - x); everything else as it is."""
    return -10 * math.log10(max(1 - value, 1e-10)) if metric == "ms_ssim" else value


def whole(measured: Measured) -> list[str]:
    """The pictures that came back at every level: an average over others would be no curve."""
    levels = list(measured.values())
    return [who for who in levels[0] if all(isinstance(at.get(who), Point) for at in levels)] if levels else []


def table(measured: Measured, metric: str, pictures: Sequence[str]) -> tuple[NDArray, NDArray] | None:
    """Rates and qualities, each (levels, pictures); None where the metric is not defined for one of them."""
    rows = [[at[who] for who in pictures] for at in measured.values()]
    if not pictures or any(metric not in p.quality for row in rows for p in row):
        return None
    return (
        np.array([[p.bpp for p in row] for row in rows]),
        np.array([[height(metric, p.quality[metric]) for p in row] for row in rows]),
    )


def curve(measured: Measured, pixels: dict[str, int]) -> list[dict[str, Any]]:
    """A level a row: means over the pictures that came back at every level, pixels a second, and failures."""
    pictures = whole(measured)
    rows = []
    for level, at in measured.items():
        bugs = sum(isinstance(p, str) for p in at.values())
        points = [p for who in pictures if isinstance(p := at[who], Point)]
        if not points:
            rows.append({"level": level, "bpp": None, "psnr": None, "bugs": bugs})
            continue
        row: dict[str, Any] = {"level": level, "bpp": round(statistics.fmean(p.bpp for p in points), 5)}
        for metric in METRICS:
            values = [p.quality[metric] for p in points if metric in p.quality]
            if len(values) == len(points):
                row[metric] = round(statistics.fmean(values), 5 if metric == "ms_ssim" else 4)
        for way in ("encode", "decode"):
            seconds = [getattr(p, f"{way}_s") for p in points]
            row[f"{way}_s"] = round(statistics.median(seconds), 4)
            row[f"{way}_mps"] = round(sum(pixels[who] for who in pictures) / 1e6 / sum(seconds), 4)
        rows.append({**row, "bugs": bugs})
    return rows


def _interval(anchor: tuple[NDArray, NDArray], codec: tuple[NDArray, NDArray]) -> tuple[float, float] | None:
    """95 % of the BD-rates of averages over pictures drawn with replacement, the same for both codecs."""
    count = anchor[0].shape[1]
    if count < 4:  # an interval of so few would be an opinion
        return None
    random, rates = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, count, count)
        curves = [a[:, drawn].mean(axis=1) for a in (*anchor, *codec)]
        try:
            rates.append(bd_rate(*curves))
        except ValueError:
            continue
    if len(rates) < 0.9 * RESAMPLES:
        return None
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)


def _row(
    codec: str, anchor: str, metric: str, made: Comparison, interval: tuple[float, float] | None
) -> dict[str, Any]:
    def short(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    low, high = interval or (None, None)
    return {
        "codec": codec, "anchor": anchor, "metric": metric, "rate": short(made.rate, 2),
        "low": short(low, 2), "high": short(high, 2), "akima": short(made.akima, 2), "db": short(made.db, 3),
        "from": short(made.start, 2), "to": short(made.end, 2), "warning": made.warning,
    }  # fmt: skip


def deltas(
    measured: dict[str, Measured], published: dict[str, Any], metrics: Sequence[str], anchors: Sequence[str]
) -> list[dict[str, Any]]:
    """Every codec against every anchor, by every metric; published curves by PSNR alone and without intervals.

    Two measured codecs are compared over the pictures that both gave back at every level.
    """
    rows = []
    for anchor in anchors:
        for codec in (*measured, *published):
            if codec == anchor:
                continue
            for metric in metrics if anchor in measured and codec in measured else ("psnr",):
                both = [set(whole(measured[name])) for name in (codec, anchor) if name in measured]
                pictures = sorted(set.intersection(*both)) if both else []
                tables = [table(measured[n], metric, pictures) if n in measured else None for n in (anchor, codec)]
                flat: list[Any] = []
                for name, found in zip((anchor, codec), tables, strict=True):
                    if found:
                        flat += [a.mean(axis=1) for a in found]
                    elif name in published:
                        flat += [published[name]["bpp"], published[name]["psnr"]]
                if len(flat) < 4:
                    if pictures and metric != "psnr":
                        continue  # not defined for pictures of this size
                    rows.append(_row(codec, anchor, metric, Comparison(warning="no picture came back from both"), None))
                    continue
                made = compare(*flat)
                can = made.rate is not None and metric == "psnr" and tables[0] and tables[1]
                rows.append(_row(codec, anchor, metric, made, _interval(*tables) if can else None))  # type: ignore
    return rows
