"""Bytes <-> named fields of a .mlic file, format version 0. Every limit is checked here, before anything is allocated.

All numbers are little-endian. The header has the same 31 bytes for every picture:

    offset  bytes  field
     0      8      signature  89 4D 4C 49 43 0D 0A 1A  ("\\x89MLIC\\r\\n\\x1a": a transfer in text mode destroys it)
     8      1      version    0
     9      1      flags      bit 0: the source had one channel (grey); bits 1-2: rANS lanes, one of 1, 4, 8, 32;
                              bit 3: boxes come before the payload; bit 4: the source had 16 bits per sample;
                              bits 5-7: zero, kept for features that a reader of version 0 must not ignore
    10      4      entropy    first bytes of the SHA-256 of the model's integer part: decoding needs exactly this one
    14      2      synthesis  first bytes of the hash of the float synthesis that the encoder meant to be shown
    16      2      width      1..65535
    18      2      height     1..65535, and width * height <= 2^30
    20      1      QP         0..63
    21      4      latents    CRC-32 of the decoded integer latents; the caller compares it after decoding
    25      4      rest       CRC-32 of all that follows the header
    29      2      header     CRC-16 (CCITT: polynomial 0x1021, start 0xFFFF) of bytes 0..28
    31      ...    the payload: the rANS words, up to the end of the data

With bit 3 of the flags, what follows the header is

    31      4      size of the boxes, in bytes
    35      4      CRC-32 of the boxes
    39      ...    boxes: type (4 ASCII letters), size of the content (4 bytes), content
    ...            the payload

A box whose type begins with a small letter may be ignored by who does not know it; one with a capital may not:
`iccp`, `exif`, `xmp_` hold metadata (codec.metadata), `ALPH` the alpha channel (codec.alpha), `TILE` what a picture
coded in tiles needs: width and height of a tile (2 bytes each, multiples of 64), then for each tile, by rows, the bytes
of its payload (4), the CRC-32 of its latents (4) and its lanes (1). The payload is then that of the tiles, one after
the other, and the header's lanes and latents are zero. A picture without tiles has at most 2^25 pixels, as a tile has.

Why no payload length: the end of the file says the same, and the CRC-32 notices a cut or an appendix. That buys a full
CRC-32 for both the payload and the latents within the 32 bytes a header may cost. Why no varints: two 16-bit sides are
as short as varints for every picture from 128x128 up, and a fixed header is one `struct`.

Two checksums because they answer two questions. The file's (with the header's) says "these are the bytes that were
written", without any network. The latents' says "this machine's network computed what the encoder's did". That of the
boxes is for readers of a part of the file: a region, a preview, a header.

(Layout and limits are our choice.)
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass, field
from typing import IO
from zlib import crc32

from codec.errors import BadInput, Corrupt, NotMLIC, UnsupportedVersion

SIGNATURE = b"\x89MLIC\r\n\x1a"
VERSIONS = (0,)
LANES = (1, 4, 8, 32)
MAX_SIDE = 65535
MAX_PIXELS = 1 << 30
MAX_PIECE = 1 << 25  # pixels that are coded as one piece, at about 140 bytes of memory each
MAX_QP = 63
BLOCK = 64  # tiles are whole numbers of it wide and high

_FIELDS = struct.Struct("<8sBB4s2sHHBII")
_CHECK = struct.Struct("<H")
HEADER_BYTES = _FIELDS.size + _CHECK.size
_BOXES = struct.Struct("<II")
_BOX = struct.Struct("<4sI")
_TILE = struct.Struct("<HH")
_PIECE = struct.Struct("<IIB")

_GREY, _EXTENDED, _DEEP = 0b001, 0b1000, 0b10000
_LANES_SHIFT = 1
_KNOWN_FLAGS = 0b11111
KNOWN_BOXES = ("iccp", "exif", "xmp_", "ALPH", "TILE")


@dataclass(frozen=True, slots=True)
class Piece:
    """What is coded by itself: a picture, or a tile. `latents_crc` is an unsigned 32-bit CRC-32."""

    lanes: int
    latents_crc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Container:
    """The fields of one .mlic file; units and limits are in the table above.

    `entropy_id` has 4 bytes, `synthesis_id` 2; `tile` is the width and height of tiles, None for a picture in one
    piece; `pieces` are by rows of tiles; `boxes` are those of KNOWN_BOXES but TILE, by type.
    """

    width: int
    height: int
    qp: int
    grey: bool
    entropy_id: bytes
    synthesis_id: bytes
    pieces: tuple[Piece, ...]
    tile: tuple[int, int] | None = None
    deep: bool = False
    boxes: dict[str, bytes] = field(default_factory=dict)


def check_size(width: int, height: int) -> None:
    """Raise BadInput unless a .mlic file can hold a picture of `width` x `height` pixels."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BadInput(
            f"{width}x{height} pixels: sides go from 1 to {MAX_SIDE}, the area to {MAX_PIXELS}; resize or split it"
        )


def tiles(width: int, height: int, tile: tuple[int, int] | None) -> tuple[int, int]:
    """Columns and rows of tiles."""
    return (1, 1) if tile is None else (-(-width // tile[0]), -(-height // tile[1]))


def pack(c: Container) -> bytes:
    """The file's bytes.

    Raises BadInput for a picture too large (or empty), ValueError for any other field out of its range.
    """
    check_size(c.width, c.height)
    if problem := _problem(c):
        raise ValueError(problem)
    boxes = dict(c.boxes)
    if c.tile:
        directory = b"".join(_PIECE.pack(len(p.payload), p.latents_crc, p.lanes) for p in c.pieces)
        boxes["TILE"] = _TILE.pack(*c.tile) + directory
        lanes, latents_crc = LANES[0], 0
    else:
        lanes, latents_crc = c.pieces[0].lanes, c.pieces[0].latents_crc
    flags = LANES.index(lanes) << _LANES_SHIFT
    flags |= (_GREY if c.grey else 0) | (_DEEP if c.deep else 0) | (_EXTENDED if boxes else 0)
    rest = b"".join(p.payload for p in c.pieces)
    if boxes:
        packed = b"".join(_BOX.pack(kind.encode(), len(content)) + content for kind, content in boxes.items())
        rest = _BOXES.pack(len(packed), crc32(packed)) + packed + rest
    fields = _FIELDS.pack(
        SIGNATURE, VERSIONS[-1], flags, c.entropy_id, c.synthesis_id, c.width, c.height, c.qp, latents_crc, crc32(rest)
    )
    return fields + _CHECK.pack(crc_hqx(fields, 0xFFFF)) + rest


def _problem(c: Container) -> str:
    """Why the fields cannot be written, or nothing."""
    if not 0 <= c.qp <= MAX_QP:
        return f"qp is {c.qp}, not 0..{MAX_QP}"
    if len(c.entropy_id) != 4 or len(c.synthesis_id) != 2:  # struct would pad or cut them without a word
        return "entropy_id must have 4 bytes and synthesis_id 2"
    if c.tile and not _is_tile(*c.tile):
        return f"tiles are {c.tile}: sides are multiples of {BLOCK}, the area at most {MAX_PIECE}"
    if not c.tile and c.width * c.height > MAX_PIECE:
        return f"one piece has at most {MAX_PIECE} pixels"
    columns, rows = tiles(c.width, c.height, c.tile)
    if len(c.pieces) != columns * rows:
        return f"there are {len(c.pieces)} pieces, not {columns}x{rows}"
    for piece in c.pieces:
        if piece.lanes not in LANES:
            return f"lanes is {piece.lanes}, not one of {LANES}"
        if not 0 <= piece.latents_crc < 1 << 32:
            return f"latents_crc is {piece.latents_crc}, not an unsigned 32-bit number"
    if not set(c.boxes) <= {*KNOWN_BOXES} - {"TILE"}:
        return f"boxes are {', '.join(c.boxes)}: only those of KNOWN_BOXES but TILE can be written"
    return ""


def _is_tile(width: int, height: int) -> bool:
    return width > 0 < height and width % BLOCK == height % BLOCK == 0 and width * height <= MAX_PIECE


def peek(data: bytes) -> tuple[Container, bool]:
    """The fields, and whether all of the file is whole: for showing what a damaged file was, and for reading a part.

    The header is trustworthy whenever this returns, and so are the boxes if there are pieces at all; of a file cut
    short the payloads are. Checks, in order: signature (raises NotMLIC), version and flags (UnsupportedVersion),
    header length and checksum, limits (Corrupt), boxes (UnsupportedVersion for one that must not be ignored).
    """
    if data[: len(SIGNATURE)] != SIGNATURE:
        raise NotMLIC("not a .mlic file" + (": it is empty" if not data else " (the signature is missing)"))
    # Version and flags before the checksum: where another version keeps its checksum is not ours to know.
    if len(data) > 8 and data[8] not in VERSIONS:
        known = ", ".join(map(str, VERSIONS))
        raise UnsupportedVersion(f"format version {data[8]}, but this release reads {known}: install a newer narrowbit")
    if len(data) > 9 and data[9] & ~_KNOWN_FLAGS:
        raise UnsupportedVersion(
            f"the file uses features (flags 0x{data[9]:02x}) that this release does not know: install a newer narrowbit"
        )
    if len(data) < HEADER_BYTES:
        raise Corrupt(f"the file ends after {len(data)} bytes, within its header: get a fresh copy")
    fields = data[: _FIELDS.size]
    if (crc_hqx(fields, 0xFFFF),) != _CHECK.unpack_from(data, _FIELDS.size):
        raise Corrupt("the header is damaged (its checksum differs): get a fresh copy")

    _, _, flags, entropy_id, synthesis_id, width, height, qp, latents_crc, rest_crc = _FIELDS.unpack(fields)
    try:
        check_size(width, height)
    except BadInput as error:
        raise Corrupt(f"the header is out of bounds: {width}x{height} pixels") from error
    if qp > MAX_QP:
        raise Corrupt(f"the header is out of bounds: QP {qp}")
    rest = memoryview(data)[HEADER_BYTES:]
    boxes, payload = _boxes(rest) if flags & _EXTENDED else ({}, bytes(rest))
    tile: tuple[int, int] | None = None
    pieces: tuple[Piece, ...] = ()
    if payload is not None and "TILE" in boxes:
        tile, pieces = _tiles(boxes.pop("TILE"), width, height, payload)
    elif payload is not None:
        if width * height > MAX_PIECE:
            raise Corrupt(f"the header is out of bounds: {width}x{height} pixels without tiles")
        pieces = (Piece(LANES[flags >> _LANES_SHIFT & 3], latents_crc, payload),)
    found = Container(
        width, height, qp, bool(flags & _GREY), entropy_id, synthesis_id, pieces, tile, bool(flags & _DEEP), boxes
    )
    return found, crc32(rest) == rest_crc


def head(stream: IO[bytes]) -> Container:
    """What comes before the payload, of a file open at its begin; raises as `peek` does."""
    data = stream.read(HEADER_BYTES + _BOXES.size)
    found = peek(data)[0]
    if len(data) < HEADER_BYTES + _BOXES.size or not data[9] & _EXTENDED:
        return found
    left = _BOXES.unpack_from(data, HEADER_BYTES)[0]
    parts = [data]
    while left and (part := stream.read(min(left, 1 << 20))):  # not more memory than the file has bytes
        parts.append(part)
        left -= len(part)
    return peek(b"".join(parts))[0]


def _boxes(rest: memoryview) -> tuple[dict[str, bytes], bytes | None]:
    """Known boxes by type, and the payload behind them; nothing and None if they are damaged or not all there."""
    if len(rest) < _BOXES.size:
        return {}, None
    size, check = _BOXES.unpack_from(rest)
    packed, payload = rest[_BOXES.size : _BOXES.size + size], rest[_BOXES.size + size :]
    if len(packed) < size or crc32(packed) != check:
        return {}, None
    found: dict[str, bytes] = {}
    at = 0
    while at < size:
        kind, length = _BOX.unpack_from(packed, at) if at + _BOX.size <= size else (b"", size)
        at += _BOX.size
        name = kind.decode("latin-1")
        if at + length > size or name in found:
            raise Corrupt("the boxes are out of bounds: get a fresh copy")
        if name in KNOWN_BOXES:
            found[name] = bytes(packed[at : at + length])
        elif not name[0].islower():
            raise UnsupportedVersion(
                f"the file uses a feature ({name!a}) that this release does not know: install a newer narrowbit"
            )
        at += length
    return found, bytes(payload)


def _tiles(directory: bytes, width: int, height: int, payload: bytes) -> tuple[tuple[int, int], tuple[Piece, ...]]:
    """Raises Corrupt unless the directory has what the picture needs, and all of the payload belongs to it."""
    tile = _TILE.unpack_from(directory) if len(directory) >= _TILE.size else (0, 0)
    if not _is_tile(*tile):
        raise Corrupt(f"the tiles are out of bounds: {tile[0]}x{tile[1]} pixels")
    columns, rows = tiles(width, height, tile)
    if len(directory) != _TILE.size + columns * rows * _PIECE.size:
        raise Corrupt("the tiles are out of bounds: their number is not the picture's")
    pieces, at = [], 0
    for length, latents_crc, lanes in _PIECE.iter_unpack(directory[_TILE.size :]):
        if lanes not in LANES:
            raise Corrupt(f"the tiles are out of bounds: {lanes} lanes")
        pieces.append(Piece(lanes, latents_crc, payload[at : at + length]))
        at += length
    if at < len(payload):
        raise Corrupt(DAMAGED)
    return tile, tuple(pieces)


DAMAGED = "the file is damaged, cut short or has bytes appended (its checksum differs): get a fresh copy"


def unpack(data: bytes) -> Container:
    """The fields of a file that is whole.

    Raises as `peek` does, and Corrupt when anything is damaged, cut short or followed by anything. Whether the
    model is known (UnknownModel) and whether the decoded latents match `latents_crc` (Corrupt) is the caller's check.
    """
    found, whole = peek(data)
    if not whole:
        raise Corrupt(DAMAGED)
    return found
