"""What a picture file says beside its pixels: colour profile, EXIF, XMP. Kept byte for byte, but for the orientation.

Pixels are stored upright, so the orientation that EXIF and XMP may name is set to "upright" in place: else viewers
would turn the picture once more.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

from codec.errors import BadInput, Corrupt

BOXES = {"icc": "iccp", "exif": "exif", "xmp": "xmp_"}  # our names -> those of the container
MAX_BYTES = 1 << 26  # of one kind
PREFIX = b"Exif\0\0"  # of EXIF in a JPEG, no part of it elsewhere
_ORIENTATION = 0x0112
_WHOLE = {3: "H", 4: "I"}  # TIFF's types of whole numbers
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)[2-8]""")


def kinds(asked: str | Iterable[str]) -> tuple[str, ...]:
    """ "all", "none" or "icc,exif,xmp" (or a list) -> the kinds. Raises BadInput."""
    if asked == "all":
        return tuple(BOXES)
    names = [] if asked == "none" else [n.strip() for n in asked.split(",")] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in BOXES:
            raise BadInput(f"there is no metadata {name!r}: say all, none, or some of {','.join(BOXES)}")
    return tuple(n for n in BOXES if n in names)


def pack(metadata: dict[str, bytes]) -> dict[str, bytes]:
    """Boxes: a byte, 1 for deflated content, and the content. Raises BadInput beyond MAX_BYTES."""
    boxes = {}
    for kind, content in metadata.items():
        if not content:
            continue
        if len(content) > MAX_BYTES:
            raise BadInput(f"there are {len(content)} bytes of {kind}, more than {MAX_BYTES}: leave them out")
        deflated = zlib.compress(content, 9)
        boxes[BOXES[kind]] = b"\1" + deflated if len(deflated) < len(content) else b"\0" + content
    return boxes


def unpack(boxes: dict[str, bytes]) -> dict[str, bytes]:
    """By our names. Raises Corrupt."""
    return {kind: _unpack(boxes[box]) for kind, box in BOXES.items() if box in boxes}


def _unpack(box: bytes) -> bytes:
    if box[:1] == b"\0" and len(box) <= MAX_BYTES + 1:
        return box[1:]
    if box[:1] != b"\1":
        raise Corrupt("the metadata is damaged: get a fresh copy")
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(box[1:], MAX_BYTES)
    except zlib.error as error:
        raise Corrupt(f"the metadata is damaged: {error}") from error
    if not inflate.eof or inflate.unused_data:
        raise Corrupt("the metadata is damaged: it does not end where it should")
    return content


def upright(metadata: dict[str, bytes]) -> dict[str, bytes]:
    """The same for pixels that have been turned: orientation 1."""
    found = dict(metadata)
    if "exif" in found:
        found["exif"] = _upright_exif(found["exif"])
    if "xmp" in found:
        found["xmp"] = _XMP_ORIENTATION.sub(rb"\g<1>1", found["xmp"])
    return found


def _upright_exif(exif: bytes) -> bytes:
    """EXIF is a TIFF file: byte order, where the first directory lies, its entries of 12 bytes."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return exif
    at = struct.unpack_from(order + "I", exif, 4)[0]
    if at + 2 > len(exif):
        return exif
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from(order + "H", exif, at)[0], 12):
        if entry + 12 > len(exif):
            break
        tag, kind, count = struct.unpack_from(order + "HHI", exif, entry)
        if tag == _ORIENTATION and kind in _WHOLE and count == 1:
            one = struct.pack(order + _WHOLE[kind], 1)
            return exif[: entry + 8] + one + exif[entry + 8 + len(one) :]
    return exif
