"""Metadata: kept byte for byte, but for the orientation, which is applied once."""

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from codec import metadata
from codec.errors import BadInput, Corrupt


def test_kinds() -> None:
    assert metadata.kinds("all") == ("icc", "exif", "xmp") and metadata.kinds("none") == ()
    assert metadata.kinds("xmp, icc") == metadata.kinds(["xmp", "icc"]) == ("icc", "xmp")
    for wrong in ("everything", "icc,all", "", "icc,"):
        with pytest.raises(BadInput, match="all, none, or some of icc,exif,xmp"):
            metadata.kinds(wrong)


@given(st.dictionaries(st.sampled_from(["icc", "exif", "xmp"]), st.binary(max_size=2000)))
def test_round_trip(found: dict[str, bytes]) -> None:
    assert metadata.unpack(metadata.pack(found)) == {kind: data for kind, data in found.items() if data}


def test_what_deflates_is_deflated() -> None:
    assert len(metadata.pack({"xmp": bytes(10_000)})["xmp_"]) < 100


def test_a_small_box_does_not_become_large() -> None:
    bomb = b"\1" + zlib.compress(bytes(metadata.MAX_BYTES + 1))
    with pytest.raises(Corrupt, match="metadata is damaged"):
        metadata.unpack({"exif": bomb})
    with pytest.raises(BadInput, match="leave them out"):
        metadata.pack({"exif": bytes(metadata.MAX_BYTES + 1)})


@pytest.mark.parametrize(
    "box", [b"", b"\2abc", b"\1abc", b"\1" + zlib.compress(b"abc")[:-1], b"\1" + zlib.compress(b"") + b"x"]
)
def test_damaged_boxes(box: bytes) -> None:
    with pytest.raises(Corrupt, match="metadata is damaged"):
        metadata.unpack({"iccp": box})


@pytest.mark.parametrize("order", "<>")
def test_only_the_orientation_changes(order: str) -> None:
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "H", 6) + b"\0\0"), (0x011A, 5, 1, b"wxyz")]
    exif = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    for tag, kind, count, value in entries:
        exif += struct.pack(order + "HHI", tag, kind, count) + value
    exif += b"\0\0\0\0 and more"
    found = metadata.upright({"exif": exif})["exif"]
    changed = [i for i in range(len(exif)) if exif[i] != found[i]]
    assert len(found) == len(exif) and len(changed) == 1
    tags = Image.Exif()
    tags.load(found)
    assert tags[0x0112] == 1


@given(st.binary(max_size=60))
def test_any_bytes_may_stand_where_exif_should(noise: bytes) -> None:
    for exif in (noise, b"II*\0" + noise, b"MM\0*\0\0\0\x08" + noise):
        assert len(metadata.upright({"exif": exif})["exif"]) == len(exif)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'<a tiff:Orientation="6"/>', b'<a tiff:Orientation="1"/>'),
        (b"<tiff:Orientation>8</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
        (b"<a tiff:Orientation = '3' x=\"6\"/>", b"<a tiff:Orientation = '1' x=\"6\"/>"),
        (b"<other>6</other>", b"<other>6</other>"),
    ],
)
def test_xmp_knows_orientations_too(before: bytes, after: bytes) -> None:
    assert metadata.upright({"xmp": before}) == {"xmp": after}


def test_pillow_reads_what_stays() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 8, "maker"
    found = Image.Exif()
    found.load(metadata.upright({"exif": exif.tobytes().removeprefix(metadata.PREFIX)})["exif"])
    assert dict(found) == {0x0112: 1, 0x010F: "maker"}
    out = io.BytesIO()
    Image.new("L", (2, 2)).save(out, "JPEG", exif=found)
    assert Image.open(out).getexif()[0x010F] == "maker"
