"""Pictures for the page's slider: the original and each codec's at as nearly the same size as its levels allow."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np

from rate import bits_per_pixel, psnr

from .curves import Measured
from .measure import Codec, Picture, Point

PICTURES = 3  # time
SIDE = 512  # pixels of the part that is shown
TOLERANCE = 0.02  # near enough
BUDGET = 6 << 20  # bytes of all of them: the page stays below 10 MB


def nearest(codec: Codec, picture: Picture, bpp: float, sizes: dict[int, int]) -> tuple[int, bytes]:
    """The level whose file is nearest to so many bits per pixel, and the file; sizes are those already known, bytes.

    Raises what the codec raises.
    """
    target = bpp * picture.width * picture.height / 8
    files: dict[int, bytes] = {}
    known = dict(sizes)

    def distance(level: int) -> float:
        return abs(known[level] - target)

    below, above = ([at for at in sizes if (sizes[at] < target) == side] for side in (True, False))
    if codec.between and below and above:
        low, high = max(below, key=sizes.__getitem__), min(above, key=sizes.__getitem__)
        while abs(high - low) > 1 and min(map(distance, known)) > TOLERANCE * target:
            middle = (low + high) // 2  # a level may mean a quality or a quantizer: low is the smaller file
            files[middle] = codec.encode(picture, middle)
            known[middle] = len(files[middle])
            low, high = (middle, high) if known[middle] < target else (low, middle)
    level = min(known, key=distance)
    return level, files.get(level) or codec.encode(picture, level)


def _source(picture: Picture, box: tuple[int, int, int, int]) -> str:
    file = io.BytesIO()
    picture.crop(box).save(file, "WEBP", lossless=True, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def images(
    codecs: Iterable[Codec], pictures: dict[str, Picture], measured: dict[str, Measured], bpp: float
) -> list[dict[str, Any]]:
    """For these pictures, as many as the page has room for; none where bpp is 0. Not shown: codecs that fail."""
    shown: list[dict[str, Any]] = []
    used, codecs = 0, list(codecs)
    for name, picture in pictures.items() if bpp else ():
        width, height = (min(SIDE, side) for side in picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        box = (left, top, left + width, top + height)
        made = [{"codec": "original", "label": "original", "src": _source(picture, box)}]
        for codec in codecs:
            try:
                points = {int(at[len(codec.letter) :]): p.get(name) for at, p in measured[codec.name].items()}
                sizes = {at: p.bytes for at, p in points.items() if isinstance(p, Point)}
                level, data = nearest(codec, picture, bpp, sizes)
                decoded = codec.decode(data).convert("RGB")
                quality = psnr(np.asarray(picture), np.asarray(decoded))
            except Exception:  # counted as a bug by the measurements
                continue
            rate = bits_per_pixel(len(data), *picture.size)
            label = f"{codec.name} {codec.letter}{level}, {len(data):,} bytes, {rate:.3f} bit/pixel, {quality:.2f} dB"
            made.append({"codec": codec.name, "label": label, "src": _source(decoded, box)})
        used += sum(len(i["src"]) for i in made)
        if used > BUDGET and shown:
            break
        shown.append({"picture": name, "crop": [left, top, width, height], "images": made})
    return shown
