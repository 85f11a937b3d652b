"""The alpha channel: kept without loss, as a PNG inside the file (1 bit a pixel for hard masks).

Colours are stored straight, not premultiplied; those under alpha 0 are replaced by what costs least.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from codec.errors import Corrupt


def pack(alpha: NDArray[np.uint8]) -> bytes:
    """[H, W] -> a grey PNG of 1 or 8 bits."""
    image = Image.fromarray(alpha)
    if np.isin(alpha, (0, 255)).all():
        image = image.convert("1", dither=Image.Dither.NONE)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=9)
    return out.getvalue()


def unpack(box: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """[H, W]. Raises Corrupt."""
    try:
        # Not Image.open, whose limit is about files of unknown size: this one has to have the picture's.
        with PngImageFile(io.BytesIO(box)) as image:
            if image.size != (width, height) or image.mode not in ("1", "L"):
                raise Corrupt(f"the alpha channel is damaged: it is {image.width}x{image.height} {image.mode}")
            return np.array(image.convert("L"))
    except (MemoryError, Corrupt):
        raise
    except Exception as error:  # damaged files make Pillow raise OSError, SyntaxError, struct.error, ...
        raise Corrupt(f"the alpha channel is damaged: {error}") from error


def fill(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] with the colours under alpha 0 replaced by smooth ones that go on from the visible."""
    seen = alpha > 0
    if seen.all():
        return rgb
    if not seen.any():
        return np.full_like(rgb, 128)
    colours = _fill(rgb.astype(np.float32) * seen[:, :, None], seen.astype(np.float32)[:, :, None])
    return np.where(seen[:, :, None], rgb, np.rint(colours).astype(np.uint8))


def _fill(colours: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
    """Pull and push: where nothing is known, the mean of what is, of as near as there is any."""
    mean = colours / np.maximum(weights, 1e-9)
    if (weights > 0).all():
        return mean
    h, w = weights.shape[:2]
    half = [
        np.pad(a, ((0, h % 2), (0, w % 2), (0, 0))).reshape(-(-h // 2), 2, -(-w // 2), 2, -1).sum((1, 3))
        for a in (colours, weights)
    ]
    coarse = _fill(*half).repeat(2, 0)[:h].repeat(2, 1)[:, :w]
    return np.where(weights > 0, mean, coarse)
