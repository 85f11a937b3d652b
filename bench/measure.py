"""One way to measure any picture codec: real bytes, quality after decoding, wall-clock seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from rate import LOSSLESS, METRICS, bits_per_pixel

Picture = Image.Image


@dataclass(frozen=True)
class Codec:
    """A codec as the bench sees it: two functions on whole files, and the levels at which to draw its curve.

    letter: prefix of a level's name; settings: for people; version: of everything else that its bytes depend on;
    between: whether integers between two levels are levels too.
    """

    name: str
    encode: Callable[[Picture, int], bytes]
    decode: Callable[[bytes], Picture]
    levels: tuple[int, ...]
    letter: str = "q"
    settings: str = ""
    version: str = ""
    between: bool = True


@dataclass(frozen=True)
class Point:
    """One picture at one level: bytes of the file, bits per pixel, seconds, and each metric's value by its name.

    A metric that is not defined for a picture, such as MS-SSIM of a small one, is absent.
    """

    bytes: int
    bpp: float
    encode_s: float
    decode_s: float
    quality: dict[str, float] = field(default_factory=dict)

    @property
    def psnr(self) -> float:
        """RGB PSNR in dB."""
        return self.quality["psnr"]


def measure(picture: Picture, codec: Codec, level: int, metrics: Iterable[str] = ("psnr",)) -> Point:
    """Encode and decode one RGB picture once. Raises what the codec raises, ValueError for another size."""
    start = time.perf_counter()
    data = codec.encode(picture, level)
    middle = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    if decoded.size != picture.size:
        raise ValueError(f"{codec.name} gave back {decoded.width}x{decoded.height} of {picture.width}x{picture.height}")
    a, b = np.asarray(picture), np.asarray(decoded.convert("RGB"))
    quality = {}
    for name in metrics:
        try:
            quality[name] = min(METRICS[name](a, b), LOSSLESS)
        except ValueError:
            continue  # not for pictures of this size
    return Point(len(data), bits_per_pixel(len(data), *picture.size), middle - start, end - middle, quality)
