"""What pictures are taken, refused and noted; and that outputs are whole or not there."""

import io
import os
import stat
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from PIL import features as pillow_features

from codec import files, picture
from codec.errors import BadInput

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "PNG", **options)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def rgb() -> Image.Image:
    return Image.fromarray(COLOUR)


def test_rgb_from_every_kind_of_source(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(rgb()))
    kept = picture.Picture(COLOUR)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), rgb(), COLOUR, kept):
        found = picture.load(source)
        assert (found.rgb == COLOUR).all() and found.rgb.dtype == np.uint8
        assert not found.grey and found.notes == []


def test_a_pipe_can_be_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, png(rgb()))
    os.close(writer)
    assert (picture.load(f"/dev/fd/{reader}").rgb == COLOUR).all()
    os.close(reader)


def test_grey_sources() -> None:
    for source in (Image.fromarray(GREY), png(Image.fromarray(GREY)), GREY):
        found = picture.load(source)
        assert found.grey and (found.rgb == GREY[:, :, None]).all()
    bilevel = picture.load(png(Image.fromarray(GREY).convert("1")))
    assert bilevel.grey and set(np.unique(bilevel.rgb)) == {0, 255}
    assert picture.to_image(found.rgb, True).mode == "L"
    assert (np.asarray(picture.to_image(found.rgb, True)) == GREY).all()


def test_palette_without_transparency() -> None:
    image = rgb().quantize(8)
    found = picture.load(png(image))
    assert (found.rgb == np.asarray(image.convert("RGB"))).all() and not found.grey


def test_ycbcr_is_converted() -> None:
    assert np.abs(picture.load(rgb().convert("YCbCr")).rgb.astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, -1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }[orientation]
    for source in (png(rgb(), exif=exif), Image.open(io.BytesIO(png(rgb(), exif=exif)))):
        found = picture.load(source)
        assert found.rgb.shape == upright.shape and (found.rgb == upright).all()
        assert any("EXIF" in note for note in found.notes)


def with_alpha(value: int) -> Image.Image:
    image = rgb().convert("RGBA")
    image.putpixel((2, 3), (1, 2, 3, value))
    return image


def palette_with_alpha(value: int) -> bytes:
    return png(rgb().quantize(8), transparency=bytes([255] * 7 + [value]))


ALPHA = {
    "RGBA": lambda v: png(with_alpha(v)),
    "RGBA image": with_alpha,
    "LA": lambda v: png(with_alpha(v).convert("LA")),
    "PA": lambda v: with_alpha(v).convert("PA"),
    "P": palette_with_alpha,
    "RGB key": lambda v: png(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9 if v < 255 else 8)),
    "L key": lambda v: png(Image.new("L", (4, 4), 9), transparency=9 if v < 255 else 8),
    "1 key": lambda v: png(Image.new("1", (4, 4), 1), transparency=255 if v < 255 else 0),
}


@pytest.mark.parametrize("kind", ALPHA)
def test_alpha_is_refused_unless_it_is_opaque(kind: str) -> None:
    with pytest.raises(BadInput, match="alpha channel, which version 0 does not keep: flatten it first"):
        picture.load(ALPHA[kind](254))
    found = picture.load(ALPHA[kind](255))
    assert any("alpha channel is dropped" in note for note in found.notes)
    assert found.grey == (kind[0] in "1L") and found.rgb.shape[2] == 3
    if kind.startswith("RGBA"):
        assert (found.rgb == np.asarray(with_alpha(255).convert("RGB"))).all()


def deep_png(colour_type: int, channels: int) -> bytes:
    """A PNG of 16 bits per sample, which Pillow cannot write itself."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + RNG.bytes(4 * channels * 2) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DEEP = {
    "PNG grey": lambda: deep_png(0, 1),
    "PNG RGB": lambda: deep_png(2, 3),
    "PNG RGBA": lambda: deep_png(6, 4),
    "PPM RGB": lambda: b"P6 2 2 65535\n" + bytes(24),
    "PPM RGB, 10 bits": lambda: b"P6 2 2 1023\n" + bytes(24),
    "PPM plain": lambda: b"P3 1 1 1023\n1 2 3\n",
    "TIFF I;16": lambda: encoded(Image.new("I;16", (3, 3)), "TIFF"),
    "TIFF F": lambda: encoded(Image.new("F", (3, 3)), "TIFF"),
    "I": lambda: Image.new("I", (3, 3)),
    "JPEG 2000": lambda: encoded(Image.new("I;16", (32, 32)), "JPEG2000"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_are_refused(kind: str) -> None:
    with pytest.raises(BadInput, match="more than 8 bits per sample"):
        picture.load(DEEP[kind]())


def test_more_than_8_bits_hidden_by_pillow_are_refused() -> None:
    """Pillow opens colour JPEG 2000 of any depth as 8-bit RGB; only the codestream says otherwise."""
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "JPEG2000", no_jp2=True))
    assert picture.load(bytes(data)).rgb.shape == (32, 32, 3)
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at] == 7
    data[at : at + 9 : 3] = b"\x0b" * 3
    with pytest.raises(BadInput, match="more than 8 bits"):
        picture.load(bytes(data))


@pytest.mark.skipif(not pillow_features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_of_10_bits_is_recognised() -> None:
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "AVIF"))
    assert picture.load(bytes(data)).rgb.shape == (32, 32, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert not picture._is_deep(image, bytes(data))
        data[data.index(b"av1C") + 6] |= 0x40  # high_bitdepth; Pillow's encoder writes 8 bits only
        assert picture._is_deep(image, bytes(data))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "HSV"])
def test_other_colour_spaces_are_refused(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    sources = [image, encoded(image, "TIFF" if mode == "LAB" else "JPEG")] if mode != "HSV" else [image]
    for source in sources:
        with pytest.raises(BadInput, match=f"colour mode {mode}, .* convert it to RGB"):
            picture.load(source)


def test_further_frames_are_noted() -> None:
    others = [Image.new("RGB", (9, 6), c) for c in ("red", "blue")]
    for format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(rgb(), format, save_all=True, append_images=others, **options)
        found = picture.load(data)
        assert (found.rgb == COLOUR).all()
        assert "only the first of 3 frames is kept" in found.notes
    gif = encoded(Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 99)])
    assert "only the first of 2 frames is kept" in picture.load(gif).notes


def test_metadata_is_noted() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello")
    data = png(rgb(), icc_profile=b"profile", exif=exif, pnginfo=text, dpi=(72, 72))
    icc, rest = picture.load(data).notes
    assert "ICC" in icc and "sRGB" in icc
    assert rest == "not kept: EXIF data (the orientation is applied), comments, resolution"
    jpeg = picture.load(encoded(rgb(), "JPEG", xmp=b"<x/>", comment=b"hi"))
    assert jpeg.notes == ["not kept: XMP data, comments"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\x89MLIC\r\n\x1a" + bytes(40)])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(BadInput, match="the picture is "):
        picture.load(data)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    for format in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), format)
        (tmp_path / "cut").write_bytes(data[: len(data) // 2])
        with pytest.raises(BadInput, match="/cut is "):
            picture.load(tmp_path / "cut")


@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "PPM"]), st.integers(0, 10**6), st.binary(max_size=8))
def test_damaged_files_are_read_or_refused(format: str, at: int, noise: bytes) -> None:
    data = bytearray(encoded(rgb(), format))
    at %= len(data)
    data[at : at + len(noise)] = noise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = picture.load(bytes(data))
        except BadInput as error:
            assert "\n" not in str(error) or str(error).startswith("the picture")
        else:
            assert found.rgb.dtype == np.uint8 and found.rgb.ndim == 3


def test_size_limits_come_before_the_pixels() -> None:
    with pytest.raises(BadInput, match="65536x1 pixels"):
        picture.load(Image.new("1", (65536, 1)))
    with pytest.raises(BadInput, match="0x3 pixels"):
        picture.load(Image.new("RGB", (0, 3)))
    bomb = b"P6 65000 65000 255\n"  # claims 12 GiB
    with pytest.raises(BadInput, match="pixels"):
        picture.load(bomb)


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 3), np.float32), ((4, 4, 4), np.uint8), ((4,), np.uint8)])
def test_arrays_of_another_shape_or_type_are_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(BadInput, match="make it uint8"):
        picture.load(np.zeros(shape, dtype))


def test_missing_files_raise_what_open_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        picture.load(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        picture.load(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".bmp", ".ppm", ".jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_save_and_load(tmp_path: Path, suffix: str, grey: bool) -> None:
    planes = np.repeat(GREY[:, :, None], 3, axis=2) if grey else COLOUR
    picture.save(picture.to_image(planes, grey), tmp_path / f"a{suffix}")
    found = picture.load(tmp_path / f"a{suffix}")
    assert np.abs(found.rgb.astype(int) - planes).max() <= (30 if suffix == ".jpg" else 0)
    assert found.grey == (grey and suffix != ".webp")  # WebP has no grey
    assert len(os.listdir(tmp_path)) == 1


def test_save_to_a_stream() -> None:
    out = io.BytesIO()
    picture.save(rgb(), out)
    assert (picture.load(out.getvalue()).rgb == COLOUR).all()


def test_outputs_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    for name in ("a.xyz", "a", "a.gif"):
        with pytest.raises(BadInput, match=r"use one of \.png"):
            picture.check_output(str(tmp_path / name))
    with pytest.raises(BadInput, match=r"there is no directory .*create it"):
        picture.check_output(str(tmp_path / "no" / "a.png"))
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(BadInput, match="is a directory"):
        picture.check_output(str(tmp_path / "dir.png"))
    assert picture.check_output("-") == picture.check_output("/dev/null") == "PNG"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_write_protected_outputs_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(BadInput, match="not writable"):
        picture.check_output(str(target))


def test_a_format_that_cannot_hold_the_picture(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot write 16400x1 RGB as WEBP"):
        picture.save(Image.new("RGB", (16400, 1)), tmp_path / "a.webp")
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
