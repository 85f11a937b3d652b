"""Decoded pictures as files: whole or not there, with all that the format can hold."""

import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from codec import files, output, picture
from codec.errors import BadInput
from codec.picture import Picture

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = np.repeat(RNG.integers(0, 256, (6, 9, 1), dtype=np.uint8), 3, axis=2)
ALPHA = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"  # orientation 1
METADATA = {"icc": b"a profile", "exif": EXIF, "xmp": b"<x:xmpmeta/>"}


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".bmp", ".ppm", ".jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_save_and_load(tmp_path: Path, suffix: str, grey: bool) -> None:
    planes = GREY if grey else COLOUR
    assert output.save(Picture(planes, grey), tmp_path / f"a{suffix}") == []
    found = picture.load(tmp_path / f"a{suffix}")
    assert np.abs(found.rgb.astype(int) - planes).max() <= (30 if suffix == ".jpg" else 0)
    assert found.grey == (grey and suffix != ".webp")  # WebP has no grey
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_alpha(tmp_path: Path, suffix: str, grey: bool) -> None:
    output.save(Picture(GREY if grey else COLOUR, grey, ALPHA), tmp_path / f"a{suffix}")
    found = picture.load(tmp_path / f"a{suffix}")
    seen = ALPHA > 0
    assert (found.alpha == ALPHA).all() and (found.rgb[seen] == (GREY if grey else COLOUR)[seen]).all()


@pytest.mark.parametrize("suffix", [".jpg", ".ppm", ".bmp"])
def test_formats_without_alpha_say_so(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(BadInput, match=r"holds no alpha channel.*\.png"):
        output.save(Picture(COLOUR, alpha=ALPHA), tmp_path / f"a{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
@pytest.mark.parametrize("deep", [False, True])
def test_metadata(tmp_path: Path, suffix: str, deep: bool) -> None:
    rgb = COLOUR.astype(np.uint16) * 257 if deep else COLOUR
    output.save(Picture(rgb, deep=deep, metadata=METADATA), tmp_path / f"a{suffix}")
    found = picture.load(tmp_path / f"a{suffix}").metadata
    assert found["icc"] == METADATA["icc"] and found["xmp"] == METADATA["xmp"]
    if suffix == ".tif":  # EXIF are tags of the file itself there
        assert Image.open(tmp_path / "a.tif").getexif()[0x0112] == 1
    else:
        assert found["exif"] == EXIF


def test_metadata_that_a_format_cannot_hold_is_told(tmp_path: Path) -> None:
    assert output.save(Picture(COLOUR, metadata=METADATA), tmp_path / "a.ppm") == ["PPM does not hold icc, exif, xmp"]
    large = {"xmp": bytes(100_000)}
    assert output.save(Picture(COLOUR, metadata=large), tmp_path / "a.jpg") == ["JPEG does not hold xmp"]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_16_bits(tmp_path: Path, grey: bool, alpha: bool) -> None:
    rgb = np.repeat(RNG.integers(0, 65536, (6, 9, 1 if grey else 3), dtype=np.uint16), 3 if grey else 1, axis=2)
    made = Picture(rgb, grey, ALPHA if alpha else None, deep=True)
    assert output.save(made, tmp_path / "a.png") == []
    found = picture.load(tmp_path / "a.png")
    assert found.deep and found.grey == grey and np.abs(found.rgb.astype(int) - rgb / 257).max() <= 1
    assert (found.alpha == ALPHA).all() if alpha else found.alpha is None
    if not alpha:
        output.save(made, tmp_path / "a.ppm")
        assert (tmp_path / "a.ppm").read_bytes().endswith((rgb[:, :, :1] if grey else rgb).astype(">u2").tobytes())
    if grey and not alpha:
        output.save(made, tmp_path / "a.tif")
        assert (np.asarray(Image.open(tmp_path / "a.tif")) == rgb[:, :, 0]).all()
        assert (np.asarray(Image.open(tmp_path / "a.png")) == rgb[:, :, 0]).all()
        assert made.image().mode == "I;16"
    assert "8 bits of the 16" in output.save(made, tmp_path / "a.webp")[0]


CAMERA = Image.Exif()
CAMERA[0x010F] = "maker"
CAMERA.get_ifd(0x8769)[0x9003] = "2026:11:26 12:00:00"


def test_a_camera_s_exif_in_a_tiff(tmp_path: Path) -> None:
    exif = CAMERA.tobytes().removeprefix(b"Exif\0\0")
    made = Picture(COLOUR, metadata={"exif": exif, "xmp": b"<x/>"})
    assert output.save(made, tmp_path / "a.tif") == ["TIFF holds of EXIF its main directory only"]
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif()[0x010F] == "maker" and image.info["xmp"] == b"<x/>"
    assert output.save(made, tmp_path / "a.png") == []
    assert picture.load(tmp_path / "a.png").metadata["exif"] == exif


@pytest.mark.parametrize("exif", [b"garbage", b"\xff\xff", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff"])
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_exif_that_is_none(tmp_path: Path, exif: bytes, suffix: str) -> None:
    output.save(Picture(COLOUR, metadata={"exif": exif}), tmp_path / f"a{suffix}")
    assert picture.load(tmp_path / f"a{suffix}").rgb.shape == COLOUR.shape


def test_save_to_a_stream() -> None:
    out = io.BytesIO()
    output.save(Picture(COLOUR), out)
    assert (picture.load(out.getvalue()).rgb == COLOUR).all()


def test_outputs_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("a.xyz", "a", "a.gif"):
        with pytest.raises(BadInput, match=r"use one of \.png"):
            output.check(str(tmp_path / name))
    with pytest.raises(BadInput, match=r"there is no directory .*create it"):
        output.check(str(tmp_path / "no" / "a.png"))
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(BadInput, match="is a directory"):
        output.check(str(tmp_path / "dir.png"))
    assert output.check("-") == output.check("/dev/null") == "PNG"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_protected_outputs_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(BadInput, match="not writable"):
        output.check(str(target))


def test_a_format_that_cannot_hold_the_picture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write 16400x1 RGB as WEBP"):
        output.save(Picture(np.zeros((1, 16400, 3), np.uint8)), tmp_path / "a.webp")
    assert os.listdir(tmp_path) == []


def test_write_gives_the_permissions_of_a_plain_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        files.write(str(tmp_path / "new"), b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    files.write(str(tmp_path / "new"), b"2")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
    assert (tmp_path / "new").read_bytes() == b"2"


def test_write_follows_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    link = tmp_path / "link"
    link.symlink_to("sub/real")
    for data in (b"made", b"replaced"):
        files.write(str(link), data)
        assert link.is_symlink() and (tmp_path / "sub" / "real").read_bytes() == data
    assert os.listdir(tmp_path / "sub") == ["real"]


def test_write_to_pipes_and_devices(tmp_path: Path) -> None:
    files.write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    reader, writer = os.pipe()
    files.write(f"/dev/fd/{writer}", b"piped")
    assert os.read(reader, 9) == b"piped"
    with open(tmp_path / "open", "wb") as stream:  # as `/dev/stdout` with stdout redirected to a file
        files.write(f"/dev/fd/{stream.fileno()}", b"same file")
        assert os.fstat(stream.fileno()).st_ino == (tmp_path / "open").stat().st_ino
    assert (tmp_path / "open").read_bytes() == b"same file"


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise failure

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(failure)):
        files.write(str(tmp_path / "a"), b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]
