"""Files that Pillow cannot write, 16 bits per sample, or not without one more copy of a large picture: PPM."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # of PNG, by channels


def ppm(samples: NDArray[Any]) -> bytes:
    """[H, W, 1 or 3], uint8 or uint16, as a PPM or PGM."""
    height, width, channels = samples.shape
    kind, most = (b"P5" if channels == 1 else b"P6"), np.iinfo(samples.dtype).max
    head = b"%s\n%d %d\n%d\n" % (kind, width, height, most)
    pixels = np.ascontiguousarray(samples, ">u2" if most > 255 else np.uint8)
    return b"".join((head, pixels.data))


def png(samples: NDArray[np.uint16], metadata: dict[str, bytes]) -> bytes:
    """[H, W, channels 1..4], with its metadata."""
    height, width, channels = samples.shape
    pack = zlib.compressobj(3)
    rows = []
    for row in samples.astype(">u2").reshape(height, -1):
        line = row.view(np.uint8)
        # PNG's filter "sub", each byte less that of the sample before: half the size of "none" on photographs.
        less = np.concatenate((line[: 2 * channels], line[2 * channels :] - line[: -2 * channels]))
        rows.append(pack.compress(b"\1" + less.tobytes()))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))]
    if "icc" in metadata:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(metadata["icc"])))
    if "exif" in metadata:
        chunks.append((b"eXIf", metadata["exif"]))
    if "xmp" in metadata:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata["xmp"]))
    chunks += [(b"IDAT", b"".join([*rows, pack.flush()])), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
