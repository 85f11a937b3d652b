"""One way to measure any picture codec: real bytes, RGB PSNR, wall-clock seconds."""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rate import bits_per_pixel, psnr

Picture = Image.Image
SUFFIXES = {".png", ".webp", ".ppm", ".bmp", ".tif", ".tiff"}


class Point(NamedTuple):
    """One picture at one level: bytes of the file, bits per pixel, dB, seconds to encode and to decode."""

    bytes: int
    bpp: float
    psnr: float
    encode_s: float
    decode_s: float


COLUMNS = list(Point._fields)
Points = dict[str, dict[str, Point]]  # level ("q50", "qp18") -> picture name -> point


@dataclass(frozen=True)
class Codec:
    """A codec as the bench sees it: two functions on whole files, and the levels at which to draw its curve."""

    name: str
    encode: Callable[[Picture, int], bytes]
    decode: Callable[[bytes], Picture]
    levels: tuple[int, ...]
    letter: str = "q"  # prefix of a level's name


def _pillow(name: str, levels: tuple[int, ...], **options: Any) -> Codec:
    def encode(picture: Picture, quality: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, name, quality=quality, **options)
        return file.getvalue()

    return Codec(name, encode, lambda data: Image.open(io.BytesIO(data)).convert("RGB"), levels)


# The peers, each at the best settings Pillow gives in reasonable time. 4:4:4 where the format has it, since PSNR is
# taken in RGB (lossy WebP is always 4:2:0). One thread for AVIF: its bytes depend on the number of threads.
PEERS = {
    "jpeg": _pillow("jpeg", (10, 20, 35, 50, 70, 85, 92), optimize=True, subsampling="4:4:4"),
    "webp": _pillow("webp", (1, 10, 30, 50, 75, 90, 96), method=6),
    "avif": _pillow("avif", (15, 30, 45, 60, 75, 85, 92), speed=4, subsampling="4:4:4", max_threads=1),
}
PEER_SETTINGS = {
    "jpeg": "optimize, 4:4:4, baseline",
    "webp": "method 6, 4:2:0 (the format has no other)",
    "avif": "speed 4, 4:4:4, one thread",
}


def libraries() -> dict[str, str | None]:
    """Versions of what encodes the peers."""
    import PIL
    from PIL import AvifImagePlugin, features

    versions = {"pillow": PIL.__version__}
    names = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "libavif": "avif"}
    return versions | {k: features.version(v) for k, v in names.items()} | {
        "aom": AvifImagePlugin.get_codec_version("aom")
    }  # fmt: skip


def measure(picture: Picture, codec: Codec, level: int) -> Point:
    """Encode and decode one RGB picture once. Raises ValueError if what comes back has another size."""
    start = time.perf_counter()
    data = codec.encode(picture, level)
    middle = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    quality = psnr(np.asarray(picture), np.asarray(decoded.convert("RGB")))
    return Point(len(data), bits_per_pixel(len(data), *picture.size), quality, middle - start, end - middle)


def load(folder: Path, limit: int | None = None) -> dict[str, Picture]:
    """The lossless pictures of a folder by name, as RGB, sorted. Raises FileNotFoundError where there are none."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise FileNotFoundError(f"no pictures in {folder}")
    return {path.stem: Image.open(path).convert("RGB") for path in paths}


def sweep(pictures: dict[str, Picture], codec: Codec) -> Points:
    """Measure every picture at every level of a codec, telling the progress on stderr."""
    points: Points = {}
    for level in codec.levels:
        name = f"{codec.letter}{level}"
        points[name] = {who: measure(picture, codec, level) for who, picture in pictures.items()}
        bpp, quality = averages(points[name].values())
        print(f"{codec.name:>5} {name:<5} {bpp:8.4f} bpp {quality:8.3f} dB", file=sys.stderr, flush=True)
    return points


def averages(points: Iterable[Point]) -> tuple[float, float]:
    """Bits per pixel and PSNR, each averaged over the pictures: the convention of every curve here."""
    columns = list(points)
    return statistics.fmean(p.bpp for p in columns), statistics.fmean(p.psnr for p in columns)


def to_json(points: dict[str, Points]) -> dict[str, Any]:
    """Per-picture points of several codecs for a results file; columns as the fields of Point."""

    def numbers(p: Point) -> list[float]:
        return [p.bytes, round(p.bpp, 5), round(p.psnr, 4), round(p.encode_s, 4), round(p.decode_s, 4)]

    return {
        codec: {level: {who: numbers(p) for who, p in at.items()} for level, at in levels.items()}
        for codec, levels in points.items()
    }


def from_json(points: dict[str, Any]) -> dict[str, Points]:
    """The other way round."""
    return {
        codec: {level: {who: Point(*p) for who, p in at.items()} for level, at in levels.items()}
        for codec, levels in points.items()
    }
