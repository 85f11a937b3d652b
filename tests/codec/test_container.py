"""The file format: golden bytes, what every kind of damage raises, and what the header costs."""

import struct
from binascii import crc_hqx, unhexlify
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.container import HEADER_BYTES, LANES, MAX_PIXELS, SIGNATURE, Container, check_size, pack, peek, unpack
from codec.errors import BadInput, CodecError, Corrupt, NotMLIC, UnsupportedVersion

KODAK = Container(768, 512, 32, False, 8, b"\xde\xad\xbe\xef", b"\xca\xfe", 0x01020304, b"latents")

containers = st.builds(
    Container,
    width=st.integers(1, 65535),
    height=st.integers(1, 512),
    qp=st.integers(0, 63),
    grey=st.booleans(),
    lanes=st.sampled_from(LANES),
    entropy_id=st.binary(min_size=4, max_size=4),
    synthesis_id=st.binary(min_size=2, max_size=2),
    latents_crc=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=200),
)


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


@given(containers)
def test_round_trip(c: Container) -> None:
    data = pack(c)
    assert unpack(data) == c
    assert len(data) == len(c.payload) + HEADER_BYTES


def test_header_fits_in_32_bytes() -> None:
    assert HEADER_BYTES <= 32


def test_the_largest_and_the_smallest_picture() -> None:
    for width, height in [(1, 1), (65535, 512), (4096, 8192)]:
        c = replace(KODAK, width=width, height=height, payload=b"")
        assert unpack(pack(c)) == c


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (65536, 1), (1, 65536), (65535, 513), (-3, 5)])
def test_size_limits(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="resize or split"):
        check_size(*size)
    with pytest.raises(BadInput):
        pack(replace(KODAK, width=size[0], height=size[1]))


@pytest.mark.parametrize(
    "change",
    [{"qp": 64}, {"qp": -1}, {"lanes": 2}, {"entropy_id": b"abc"}, {"synthesis_id": b"abc"}, {"latents_crc": 2**32}],
)
def test_pack_refuses_what_unpack_could_not_give_back(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        pack(replace(KODAK, **change))


def test_truncation_at_every_length() -> None:
    data = pack(KODAK)
    for length in range(len(data)):
        with pytest.raises(NotMLIC if length < len(SIGNATURE) else Corrupt):
            unpack(data[:length])


def test_every_flipped_bit_is_noticed() -> None:
    data = pack(KODAK)
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


@given(containers, st.integers(0, HEADER_BYTES - 3), st.binary(min_size=1, max_size=8))
def test_forged_headers_give_legal_fields_or_an_error(c: Container, offset: int, field: bytes) -> None:
    try:
        found = unpack(forge(pack(c), offset, field[: HEADER_BYTES - 2 - offset]))
    except CodecError:
        return
    assert found == unpack(pack(found))
    assert found.width * found.height <= MAX_PIXELS


@pytest.mark.parametrize(
    ("offset", "field"),
    [(16, b"\xff\xff\xff\xff"), (16, b"\0\0"), (18, b"\0\0"), (20, b"\x40"), (20, b"\xff")],
    ids=["2^32 pixels", "no width", "no height", "QP 64", "QP 255"],
)
def test_limits_hold_for_forged_headers(offset: int, field: bytes) -> None:
    with pytest.raises(Corrupt, match="out of bounds"):
        unpack(forge(pack(KODAK), offset, field))


def test_appended_bytes() -> None:
    for tail in (b"\0", b"\0" * 100, pack(KODAK)):
        with pytest.raises(Corrupt, match="appended"):
            unpack(pack(KODAK) + tail)


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
    with pytest.raises(Corrupt, match="header"):
        peek(forge(pack(KODAK), 16, b"\x01")[:29] + b"\0\0")


def test_errors_are_one_line_and_carry_their_exit_code() -> None:
    codes = {NotMLIC: 3, UnsupportedVersion: 3, Corrupt: 5, BadInput: 1, CodecError: 1}
    assert {kind: kind.exit_code for kind in codes} == codes
    for data in (b"", SIGNATURE, SIGNATURE + b"\x01", pack(KODAK) + b"x"):
        with pytest.raises(CodecError) as caught:
            unpack(data)
        assert "\n" not in str(caught.value)
