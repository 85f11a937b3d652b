"""Rate and distortion of a model on a folder of pictures, from real files."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import codec
from codec import picture
from codec.bundle import Bundle
from codec.errors import CodecError
from rate import bits_per_pixel, ms_ssim, psnr


@dataclass(frozen=True)
class Point:
    """One picture at one QP: bytes of its file, bit/pixel, RGB PSNR in dB, MS-SSIM (None where it has no meaning)."""

    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float | None


Points = dict[str, Point]  # by picture


def measure(source: picture.Picture, qp: int, similarity: bool, **options: Any) -> Point:
    """Encode, decode, compare. options: model and threads, as for codec.encode."""
    data = codec.encode(source, qp=qp, **options)
    decoded = np.asarray(codec.decode(data, **options).convert("RGB"))
    height, width = source.rgb.shape[:2]
    alike = ms_ssim(source.rgb, decoded) if similarity and min(height, width) > 160 else None
    return Point(len(data), bits_per_pixel(len(data), width, height), psnr(source.rgb, decoded), alike)


def evaluate(
    paths: Iterable[Path], qps: list[int], similarity: bool, say: Callable[[str], None], **options: Any
) -> dict[int, Points]:
    """Points by QP, one picture after the other. Files that cannot be coded are told to `say` and left out."""
    results: dict[int, Points] = {qp: {} for qp in qps}
    for path in paths:
        try:
            source = picture.load(path)
        except (CodecError, OSError) as error:
            say(str(error))
            continue
        for qp in qps:
            results[qp][path.name] = measure(source, qp, similarity, **options)
    return results


def averages(points: Points) -> tuple[float, float, float | None]:
    """Means over the pictures of bit/pixel, PSNR and MS-SSIM: the convention of published curves."""
    alike = [p.ms_ssim for p in points.values() if p.ms_ssim is not None]
    bpp, quality = (statistics.fmean(getattr(p, what) for p in points.values()) for what in ("bpp", "psnr"))
    return bpp, quality, statistics.fmean(alike) if alike else None


def report(results: dict[int, Points], bundle: Bundle, skipped: list[str]) -> dict[str, Any]:
    """For a JSON file that rate.read_curve takes as a curve: the averages, and every picture at every QP."""
    means = [averages(points) for points in results.values()]
    return {
        "suite": "evaluate",
        "source": f"{bundle.name} {bundle.entropy_id.hex()}",
        "command": " ".join(["codec", *sys.argv[1:]]),
        "skipped": skipped,
        "qp": list(results),
        "bpp": [round(m[0], 5) for m in means],
        "psnr": [round(m[1], 4) for m in means],
        "ms_ssim": [None if m[2] is None else round(m[2], 5) for m in means],
        "pictures": {
            name: {
                "bytes": [points[name].bytes for points in results.values()],
                "bpp": [round(points[name].bpp, 5) for points in results.values()],
                "psnr": [round(points[name].psnr, 4) for points in results.values()],
                "ms_ssim": [points[name].ms_ssim for points in results.values()],
            }
            for name in next(iter(results.values()))
        },
    }
