"""Rate and distortion of a model on a folder of pictures, from real files."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import codec
import rate
from codec import picture
from codec.bundle import Bundle
from codec.errors import BadInput, CodecError, install
from rate import LOSSLESS, bits_per_pixel, ms_ssim, psnr


@dataclass(frozen=True)
class Point:
    """One picture at one QP: bytes of its file, bit/pixel, RGB PSNR in dB, MS-SSIM (None where it has no meaning)."""

    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float | None


Points = dict[str, Point]  # by picture


def anchors(names: Iterable[str], levels: int) -> dict[str, rate.Curve]:
    """Curve files that a BD-rate of so many levels can be given against, by name.

    Raises OSError, BadInput for what cannot be, CodecError without the package that computes it.
    """
    found: dict[str, rate.Curve] = {}
    for name in names:
        if levels < rate.bdrate.MIN_POINTS:
            raise BadInput(f"a BD-rate needs at least {rate.bdrate.MIN_POINTS} levels of --qp")
        if not find_spec("bjontegaard"):
            raise CodecError(f"BD-rates need the package bjontegaard: {install('bench')}")
        try:
            curve = found[name] = rate.read_curve(name)
            rate.bd_rate(curve["bpp"], curve["psnr"], curve["bpp"], curve["psnr"])  # now, not after an hour's work
        except ValueError as error:
            raise BadInput(f"no BD-rate against {name}: {error}") from error
    return found


def knows_similarity() -> bool:
    """Whether MS-SSIM can be computed here."""
    return find_spec("pytorch_msssim") is not None


def pictures_in(folder: Path) -> list[Path]:
    """Its files by name, without hidden ones and subfolders."""
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def measure(source: picture.Picture, qp: int, similarity: bool, **options: Any) -> Point:
    """Encode, decode, compare. options: model and threads, as for codec.encode."""
    data = codec.encode(source, qp=qp, **options)
    decoded = np.asarray(codec.decode_picture(data, **options).shallow().image().convert("RGB"))
    height, width = source.rgb.shape[:2]
    alike = ms_ssim(source.rgb, decoded) if similarity and min(height, width) > 160 else None
    return Point(len(data), bits_per_pixel(len(data), width, height), min(psnr(source.rgb, decoded), LOSSLESS), alike)


def evaluate(
    paths: Iterable[Path], qps: list[int], similarity: bool, **options: Any
) -> tuple[dict[int, Points], list[str]]:
    """Points by QP, one picture after the other; and a line for each file that cannot be coded and is left out."""
    results: dict[int, Points] = {qp: {} for qp in qps}
    skipped = []
    for path in paths:
        try:
            source = picture.load(path)
        except (CodecError, OSError) as error:
            skipped.append(str(error))
            continue
        for qp in qps:
            results[qp][path.name] = measure(source, qp, similarity, **options)
    return results, skipped


def averages(points: Points) -> tuple[float, float, float | None]:
    """Means over the pictures of bit/pixel, PSNR and MS-SSIM: the convention of published curves."""
    alike = [p.ms_ssim for p in points.values() if p.ms_ssim is not None]
    bpp, quality = (statistics.fmean(getattr(p, what) for p in points.values()) for what in ("bpp", "psnr"))
    return bpp, quality, statistics.fmean(alike) if alike else None


def report(
    results: dict[int, Points], skipped: list[str], bundle: Bundle, against: dict[str, rate.Curve]
) -> dict[str, Any]:
    """For a JSON file that rate.read_curve takes as a curve: the averages, every picture at every QP, and BD-rates.

    Raises BadInput without pictures, or where a curve shares no range with this one.
    """
    if not any(results.values()):
        raise BadInput("; ".join(["the folder has no picture that can be coded", *skipped]))
    means = [averages(points) for points in results.values()]
    made: dict[str, Any] = {
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
    for name, anchor in against.items():
        found = rate.compare(anchor["bpp"], anchor["psnr"], made["bpp"], made["psnr"])
        if found.rate is None:
            raise BadInput(f"no BD-rate against {name}: {found.warning}")
        made.setdefault("bd_rate", {})[name] = {
            "percent": round(found.rate, 3), "from": found.start, "to": found.end, "warning": found.warning,
        }  # fmt: skip
    return made
