"""Bytes <-> named fields of a .mlic file, format version 0. Every limit is checked here, before anything is allocated.

All numbers are little-endian. The header has the same 31 bytes for every picture:

    offset  bytes  field
     0      8      signature  89 4D 4C 49 43 0D 0A 1A  ("\\x89MLIC\\r\\n\\x1a": a transfer in text mode destroys it)
     8      1      version    0
     9      1      flags      bit 0: the source had one channel (grey); bits 1-2: rANS lanes, one of 1, 4, 8, 32;
                              bits 3-7: zero, kept for features that a reader of version 0 must not ignore
    10      4      entropy    first bytes of the SHA-256 of the model's integer part: decoding needs exactly this one
    14      2      synthesis  first bytes of the hash of the float synthesis that the encoder meant to be shown
    16      2      width      1..65535
    18      2      height     1..65535, and width * height <= 2^25
    20      1      QP         0..63
    21      4      latents    CRC-32 of the decoded integer latents; the caller compares it after decoding
    25      4      payload    CRC-32 of the payload
    29      2      header     CRC-16 (CCITT: polynomial 0x1021, start 0xFFFF) of bytes 0..28
    31      ...    the payload: the rANS words, up to the end of the data

Why no payload length: the end of the file says the same, and the payload's CRC-32 notices a cut or an appendix. That
buys a full CRC-32 for both the payload and the latents within the 32 bytes a header may cost. Why no varints: two
16-bit sides are as short as varints for every picture from 128x128 up, and a fixed header is one `struct`.

Two checksums because they answer two questions. The payload's (with the header's) says "these are the bytes that were
written", without any network. The latents' says "this machine's network computed what the encoder's did".

(Layout and limits are our choice.)
"""

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from zlib import crc32

from codec.errors import BadInput, Corrupt, NotMLIC, UnsupportedVersion

SIGNATURE = b"\x89MLIC\r\n\x1a"
VERSIONS = (0,)
LANES = (1, 4, 8, 32)
MAX_SIDE = 65535
MAX_PIXELS = 1 << 25  # version 0 codes a picture as one piece, at about 140 bytes of memory per pixel
MAX_QP = 63

_FIELDS = struct.Struct("<8sBB4s2sHHBII")
_CHECK = struct.Struct("<H")
HEADER_BYTES = _FIELDS.size + _CHECK.size

_GREY = 0b001
_LANES_SHIFT = 1
_KNOWN_FLAGS = 0b111


@dataclass(frozen=True, slots=True)
class Container:
    """The fields of one .mlic file; units and limits are in the table above.

    `entropy_id` has 4 bytes, `synthesis_id` 2; `latents_crc` is an unsigned 32-bit CRC-32.
    """

    width: int
    height: int
    qp: int
    grey: bool
    lanes: int
    entropy_id: bytes
    synthesis_id: bytes
    latents_crc: int
    payload: bytes


def check_size(width: int, height: int) -> None:
    """Raise BadInput unless a .mlic file can hold a picture of `width` x `height` pixels."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise BadInput(
            f"{width}x{height} pixels: sides go from 1 to {MAX_SIDE}, the area to {MAX_PIXELS}; resize or split it"
        )


def pack(c: Container) -> bytes:
    """The file's bytes: `HEADER_BYTES` and the payload.

    Raises BadInput for a picture too large (or empty), ValueError for any other field out of its range.
    """
    check_size(c.width, c.height)
    if not 0 <= c.qp <= MAX_QP:
        raise ValueError(f"qp is {c.qp}, not 0..{MAX_QP}")
    if c.lanes not in LANES:
        raise ValueError(f"lanes is {c.lanes}, not one of {LANES}")
    if len(c.entropy_id) != 4 or len(c.synthesis_id) != 2:  # struct would pad or cut them without a word
        raise ValueError("entropy_id must have 4 bytes and synthesis_id 2")
    if not 0 <= c.latents_crc < 1 << 32:
        raise ValueError(f"latents_crc is {c.latents_crc}, not an unsigned 32-bit number")
    flags = (_GREY if c.grey else 0) | LANES.index(c.lanes) << _LANES_SHIFT
    fields = _FIELDS.pack(
        SIGNATURE,
        VERSIONS[-1],
        flags,
        c.entropy_id,
        c.synthesis_id,
        c.width,
        c.height,
        c.qp,
        c.latents_crc,
        crc32(c.payload),
    )
    return fields + _CHECK.pack(crc_hqx(fields, 0xFFFF)) + c.payload


def peek(data: bytes) -> tuple[Container, bool]:
    """The fields, and whether the payload is undamaged: for showing what a damaged file was.

    The header is trustworthy whenever this returns. Checks, in order: signature (raises NotMLIC), version and flags
    (UnsupportedVersion), header length and checksum, limits (Corrupt).
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

    _, _, flags, entropy_id, synthesis_id, width, height, qp, latents_crc, payload_crc = _FIELDS.unpack(fields)
    try:
        check_size(width, height)
    except BadInput as error:
        raise Corrupt(f"the header is out of bounds: {width}x{height} pixels") from error
    if qp > MAX_QP:
        raise Corrupt(f"the header is out of bounds: QP {qp}")
    payload = data[HEADER_BYTES:]
    lanes = LANES[flags >> _LANES_SHIFT]
    grey = bool(flags & _GREY)
    found = Container(width, height, qp, grey, lanes, entropy_id, synthesis_id, latents_crc, payload)
    return found, crc32(payload) == payload_crc


def unpack(data: bytes) -> Container:
    """The fields of a file that is whole.

    Raises as `peek` does, and Corrupt when the payload is damaged, cut short or followed by anything. Whether the
    model is known (UnknownModel) and whether the decoded latents match `latents_crc` (Corrupt) is the caller's check.
    """
    found, whole = peek(data)
    if not whole:
        raise Corrupt("the file is damaged, cut short or has bytes appended (its checksum differs): get a fresh copy")
    return found
