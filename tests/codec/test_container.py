"""The file format: golden bytes, what every kind of damage raises, and what the header costs."""

import io
import struct
from binascii import crc_hqx, unhexlify
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import container
from codec.container import (
    HEADER_BYTES,
    LANES,
    MAX_PIECE,
    MAX_PIXELS,
    SIGNATURE,
    Container,
    Piece,
    check_size,
    head,
    pack,
    peek,
    tiles,
    unpack,
)
from codec.errors import BadInput, CodecError, Corrupt, NotMLIC, UnsupportedVersion

KODAK = Container(768, 512, 32, False, b"\xde\xad\xbe\xef", b"\xca\xfe", (Piece(8, 0x01020304, b"latents"),))
TILED = Container(
    300, 70, 5, True, b"\xde\xad\xbe\xef", b"\xca\xfe",
    (Piece(1, 1, b"first"), Piece(32, 2, b""), Piece(4, 3, b"third")),
    tile=(128, 128), deep=True, boxes={"exif": b"\0II*", "ALPH": b"PNG"},
)  # fmt: skip


@st.composite
def containers(draw: st.DrawFn) -> Container:
    width, height = draw(st.integers(1, 65535)), draw(st.integers(1, 512))
    tile = None
    if draw(st.booleans()):
        width, height = draw(st.integers(1, 700)), draw(st.integers(1, 300))
        tile = (64 * draw(st.integers(1, 5)), 64 * draw(st.integers(1, 5)))
    columns, rows = tiles(width, height, tile)
    piece = st.builds(Piece, st.sampled_from(LANES), st.integers(0, 2**32 - 1), st.binary(max_size=50))
    return Container(
        width, height, draw(st.integers(0, 63)), draw(st.booleans()),
        draw(st.binary(min_size=4, max_size=4)), draw(st.binary(min_size=2, max_size=2)),
        tuple(draw(st.lists(piece, min_size=columns * rows, max_size=columns * rows))), tile, draw(st.booleans()),
        draw(st.dictionaries(st.sampled_from(["iccp", "exif", "xmp_", "ALPH"]), st.binary(max_size=50))),
    )  # fmt: skip


def forge(data: bytes, offset: int, field: bytes) -> bytes:
    """`data` with a header field replaced and the header checksum made good: what a hostile writer can do."""
    fields = data[:offset] + field + data[offset + len(field) : HEADER_BYTES - 2]
    return fields + struct.pack("<H", crc_hqx(fields, 0xFFFF)) + data[HEADER_BYTES:]


def test_golden_bytes() -> None:
    golden = unhexlify(
        "894d4c49430d0a1a"  # signature
        "00"  # version
        "04"  # flags: lane code 2 (8 lanes), not grey
        "deadbeef"
        "cafe"
        "0003"  # 768
        "0002"  # 512
        "20"  # QP 32
        "04030201"  # latents
        "701e6ed2"  # payload
        "6d95"  # header
        "6c6174656e7473"
    )
    assert pack(KODAK) == golden
    assert unpack(golden) == KODAK
    assert crc32(b"latents") == 0xD26E1E70


def test_golden_bytes_with_boxes_and_tiles() -> None:
    golden = unhexlify(
        "894d4c49430d0a1a" "00"
        "19"  # flags: grey, boxes, deep
        "deadbeef" "cafe" "2c01" "4600" "05"
        "00000000"  # latents: those of the tiles count
        "ac5fe441"  # rest
        "cd42"  # header
        "3e000000" "2dff99ce"  # boxes
        "65786966" "04000000" "0049492a"
        "414c5048" "03000000" "504e47"
        "54494c45" "1f000000" "8000" "8000"
        "05000000" "01000000" "01"
        "00000000" "02000000" "20"
        "05000000" "03000000" "04"
        "6669727374" "7468697264"
    )  # fmt: skip
    assert pack(TILED) == golden
    assert unpack(golden) == TILED


@given(containers())
def test_round_trip(c: Container) -> None:
    data = pack(c)
    assert unpack(data) == c
    if not c.boxes and not c.tile:
        assert len(data) == len(c.pieces[0].payload) + HEADER_BYTES


def test_header_fits_in_32_bytes() -> None:
    assert HEADER_BYTES <= 32


def test_the_largest_and_the_smallest_picture() -> None:
    for width, height in [(1, 1), (65535, 512), (4096, 8192)]:
        c = replace(KODAK, width=width, height=height)
        assert unpack(pack(c)) == c
    tile = (16384, 2048)
    c = replace(KODAK, width=65535, height=16384, tile=tile, pieces=KODAK.pieces * 32)
    assert unpack(pack(c)) == c


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (65536, 1), (1, 65536), (65535, 16385), (-3, 5)])
def test_size_limits(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="resize or split"):
        check_size(*size)
    with pytest.raises(BadInput):
        pack(replace(KODAK, width=size[0], height=size[1]))


@pytest.mark.parametrize(
    "change",
    [
        {"qp": 64},
        {"qp": -1},
        {"pieces": (Piece(2, 0, b""),)},
        {"pieces": (Piece(1, 2**32, b""),)},
        {"pieces": ()},
        {"pieces": KODAK.pieces * 2},
        {"tile": (100, 64)},
        {"tile": (0, 64)},
        {"tile": (65536 - 64, 1024)},
        {"tile": (64, 64)},
        {"width": 8192, "height": 8192},
        {"boxes": {"TILE": b""}},
        {"boxes": {"what": b""}},
        {"entropy_id": b"abc"},
        {"synthesis_id": b"abc"},
    ],
)
def test_pack_refuses_what_unpack_could_not_give_back(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        pack(replace(KODAK, **change))


@pytest.mark.parametrize("whole", [KODAK, TILED])
def test_truncation_at_every_length(whole: Container) -> None:
    data = pack(whole)
    for length in range(len(data)):
        with pytest.raises(NotMLIC if length < len(SIGNATURE) else Corrupt):
            unpack(data[:length])


@pytest.mark.parametrize("whole", [KODAK, TILED])
def test_every_flipped_bit_is_noticed(whole: Container) -> None:
    data = pack(whole)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        offset = bit // 8
        expected: tuple[type[CodecError], ...] = (Corrupt,)
        if offset < 8:
            expected = (NotMLIC,)
        elif offset == 8:
            expected = (UnsupportedVersion,)
        elif offset == 9:
            expected = (UnsupportedVersion, Corrupt)
        with pytest.raises(expected):
            unpack(bytes(damaged))


@given(st.binary(max_size=100), st.booleans())
def test_random_bytes_are_refused(noise: bytes, signed: bool) -> None:
    with pytest.raises(CodecError):
        unpack((SIGNATURE + b"\0\0" if signed else b"") + noise)


@given(containers(), st.integers(0, HEADER_BYTES - 3), st.binary(min_size=1, max_size=8))
def test_forged_headers_give_legal_fields_or_an_error(c: Container, offset: int, field: bytes) -> None:
    try:
        found = unpack(forge(pack(c), offset, field[: HEADER_BYTES - 2 - offset]))
    except CodecError:
        return
    assert found == unpack(pack(found))
    assert found.width * found.height <= (MAX_PIXELS if found.tile else MAX_PIECE)


@pytest.mark.parametrize(
    ("offset", "field"),
    [(16, b"\xff\xff\xff\xff"), (16, b"\0\0"), (18, b"\0\0"), (20, b"\x40"), (20, b"\xff")],
    ids=["too many pixels", "no width", "no height", "QP 64", "QP 255"],
)
def test_limits_hold_for_forged_headers(offset: int, field: bytes) -> None:
    with pytest.raises(Corrupt, match="out of bounds"):
        unpack(forge(pack(KODAK), offset, field))


def test_appended_bytes() -> None:
    for tail in (b"\0", b"\0" * 100, pack(KODAK)):
        for whole in (KODAK, TILED):
            with pytest.raises(Corrupt, match="appended"):
                unpack(pack(whole) + tail)


def test_other_versions_and_features_are_named() -> None:
    data = pack(KODAK)
    with pytest.raises(UnsupportedVersion, match=r"version 7, but this release reads 0"):
        unpack(forge(data, 8, b"\x07"))
    with pytest.raises(UnsupportedVersion, match="version 1"):
        unpack(data[:8] + b"\x01")  # its header may be shorter than ours
    with pytest.raises(UnsupportedVersion, match="0x84"):
        unpack(forge(data, 9, b"\x84"))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", SIGNATURE[:7], SIGNATURE.replace(b"\r\n", b"\n") + bytes(40)]
)
def test_what_is_not_mlic(data: bytes) -> None:
    with pytest.raises(NotMLIC):
        unpack(data)


def test_peek_shows_what_a_damaged_file_was() -> None:
    found, whole = peek(pack(KODAK)[:-2])
    assert (found.width, found.height, whole) == (768, 512, False)
    assert peek(pack(KODAK)) == (KODAK, True)
    cut = pack(TILED)[:-7]
    found, whole = peek(cut)
    assert not whole and [p.payload for p in found.pieces] == [b"fir", b"", b""] and found.boxes == TILED.boxes
    found, whole = peek(cut[:60])
    assert not whole and (found.width, found.pieces, found.boxes) == (300, (), {})
    with pytest.raises(Corrupt, match="header"):
        peek(forge(pack(KODAK), 16, b"\x01")[:29] + b"\0\0")


def test_errors_are_one_line_and_carry_their_exit_code() -> None:
    codes = {NotMLIC: 3, UnsupportedVersion: 3, Corrupt: 5, BadInput: 1, CodecError: 1}
    assert {kind: kind.exit_code for kind in codes} == codes
    for data in (b"", SIGNATURE, SIGNATURE + b"\x01", pack(KODAK) + b"x"):
        with pytest.raises(CodecError) as caught:
            unpack(data)
        assert "\n" not in str(caught.value)


def boxed(*boxes: tuple[bytes, bytes], flags: int = 0x0C, payload: bytes = b"latents") -> bytes:
    """A file whose boxes are what a hostile writer likes."""
    packed = b"".join(kind + struct.pack("<I", len(content)) + content for kind, content in boxes)
    rest = struct.pack("<II", len(packed), crc32(packed)) + packed + payload
    data = pack(KODAK)[:HEADER_BYTES] + rest
    return forge(forge(data, 9, bytes([flags])), 25, struct.pack("<I", crc32(rest)))


def test_boxes_that_are_not_known() -> None:
    assert unpack(boxed((b"what", b"?"), (b"exif", b"\0"))).boxes == {"exif": b"\0"}
    with pytest.raises(UnsupportedVersion, match="'WHAT'"):
        unpack(boxed((b"WHAT", b"?")))
    with pytest.raises(UnsupportedVersion, match=r"x00"):
        unpack(boxed((b"\0\n\xff\x80", b"?")))


def directory(width: int, height: int, *pieces: tuple[int, int]) -> tuple[bytes, bytes]:
    return b"TILE", struct.pack("<HH", width, height) + b"".join(
        struct.pack("<IIB", n, 0, lanes) for n, lanes in pieces
    )


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([(b"exif", b""), (b"exif", b"")], "boxes"),
        ([directory(0, 64)], "tiles"),
        ([directory(64, 63)], "tiles"),
        ([directory(65472, 1024)], "tiles"),
        ([(b"TILE", b"\0")], "tiles"),
        ([directory(768, 512)], "number"),
        ([directory(64, 64, (7, 1))], "number"),
        ([directory(768, 512, (7, 1), (0, 1))], "number"),
        ([directory(768, 512, (7, 3))], "3 lanes"),
        ([directory(768, 512, (6, 1))], "appended"),
    ],
)
def test_hostile_boxes(boxes: list[tuple[bytes, bytes]], says: str) -> None:
    with pytest.raises(Corrupt, match=says):
        unpack(boxed(*boxes))


def test_a_piece_may_claim_more_than_there_is_but_gets_no_more() -> None:
    found = unpack(boxed(directory(768, 512, (2**32 - 1, 1))))
    assert found.pieces[0].payload == b"latents"  # for the decoder, which notices


def test_a_box_that_goes_beyond_its_end() -> None:
    for packed in (b"exif" + struct.pack("<I", 9) + b"short", b"exif\0\0"):
        rest = struct.pack("<II", len(packed), crc32(packed)) + packed
        data = forge(pack(KODAK)[:HEADER_BYTES] + rest, 9, b"\x0c")
        with pytest.raises(Corrupt, match="boxes"):
            unpack(forge(data, 25, struct.pack("<I", crc32(rest))))


def test_a_header_that_claims_gigabytes_of_boxes_gets_what_is_there() -> None:
    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None and 0 <= size <= 1 << 20
            return super().read(size)

    data = bytearray(pack(replace(KODAK, boxes={"exif": b"x" * 50})))
    data[HEADER_BYTES : HEADER_BYTES + 4] = b"\xff\xff\xff\xff"
    assert head(Stream(data)).width == KODAK.width
    data[20] ^= 1
    with pytest.raises(Corrupt, match="header is damaged"):
        head(Stream(data))


def test_a_picture_in_one_piece_is_not_large() -> None:
    with pytest.raises(Corrupt, match="without tiles"):
        unpack(forge(pack(KODAK), 16, b"\0\x20\0\x20"))
    assert container.MAX_PIECE < 8192 * 8192
