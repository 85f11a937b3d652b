"""What pictures are taken, refused and noted; and that outputs are whole or not there."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from PIL import features as pillow_features

from codec import picture
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
    assert found.image().mode == "L" and (np.asarray(found.image()) == GREY).all()


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
        kept = Image.Exif()
        kept.load(found.metadata["exif"])
        assert kept[0x0112] == 1 and found.notes == []


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
def test_alpha_is_kept_unless_it_is_opaque(kind: str) -> None:
    found = picture.load(ALPHA[kind](0))
    assert found.alpha is not None and found.alpha.min() == 0 and found.alpha.dtype == np.uint8
    assert found.alpha.shape == found.rgb.shape[:2] and found.image().mode == ("LA" if found.grey else "RGBA")
    found = picture.load(ALPHA[kind](255))
    assert found.alpha is None and any("alpha channel is dropped" in note for note in found.notes)
    assert found.grey == (kind[0] in "1L") and found.rgb.shape[2] == 3
    if kind.startswith("RGBA"):
        assert (found.rgb == np.asarray(with_alpha(255).convert("RGB"))).all()


def test_a_colour_key_of_16_bits() -> None:
    samples = np.full((4, 5), 1000, np.uint16)
    samples[2, 3] = 40000
    found = picture.load(png(Image.fromarray(samples), transparency=40000))
    assert found.deep and found.grey and (found.alpha == np.where(samples == 40000, 0, 255)).all()


def test_what_a_colour_key_hides_in_deep_grey_goes_on_from_the_visible() -> None:
    samples = np.full((40, 40), 30000, np.uint16)
    samples[10:20, 10:20] = 7
    image = Image.fromarray(samples)
    image.info["transparency"] = 7
    found = picture.load(image)
    assert found.alpha is not None and (found.alpha == 0).sum() == 100
    assert (found.rgb == round(30000 / 257)).all()


def test_an_upright_tiff_has_no_other_orientation_in_its_xmp() -> None:
    data = encoded(rgb(), "TIFF", tiffinfo={0x0112: 6, 700: b"<x tiff:Orientation='6'/>"})
    found = picture.load(data)
    assert found.rgb.shape[:2] == COLOUR.shape[1::-1] and found.metadata["xmp"] == b"<x tiff:Orientation='1'/>"


def test_what_a_tiff_says_of_its_picture_is_kept() -> None:
    tags = Image.Exif()
    tags[0x010F], tags[0x013B] = "maker", "artist"
    found = picture.load(encoded(rgb(), "TIFF", exif=tags))
    kept = Image.Exif()
    kept.load(found.metadata["exif"])
    assert dict(kept) == {0x010F: "maker", 0x013B: "artist"} and found.notes == []


def test_premultiplied_images_become_straight() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    found = picture.load(image.convert("RGBa"))
    assert np.abs(found.rgb[0, 0].astype(int) - (200, 100, 50)).max() <= 2 and found.alpha[0, 0] == 128
    grey = picture.load(Image.new("LA", (4, 4), (200, 128)).convert("La"))
    assert grey.grey and abs(int(grey.rgb[0, 0, 0]) - 200) <= 2 and grey.alpha[0, 0] == 128


def test_hidden_colours_go_on_from_the_visible() -> None:
    rgba = RNG.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    rgba[:, :, 3] = 255
    rgba[10:30, 5:25, 3] = 0
    rgba[:, :10, :3], rgba[:, 10:, :3] = (250, 0, 0), (0, 0, 250)
    found = picture.load(rgba)
    seen = found.alpha > 0
    assert (found.rgb[seen] == rgba[:, :, :3][seen]).all()
    assert found.rgb[20, 6, 0] > 150 and found.rgb[20, 24, 2] > 150  # near the borders, what is beyond them
    assert (picture.load(np.zeros((9, 9, 4), np.uint8)).rgb == 128).all()


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
def test_more_than_8_bits_are_reduced_and_noted(kind: str) -> None:
    if kind == "TIFF F":
        with pytest.raises(BadInput, match="floating-point"):
            picture.load(DEEP[kind]())
        return
    found = picture.load(DEEP[kind]())
    assert found.deep and found.rgb.dtype == np.uint8
    assert "samples are reduced to 8 bits; decoding gives 16 again" in found.notes
    assert found.grey == ("RGB" not in kind and kind != "PPM plain")


def test_16_bits_are_rounded() -> None:
    samples = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    for source in (Image.fromarray(samples), png(Image.fromarray(samples)), samples):
        found = picture.load(source)
        assert (found.rgb == np.rint(samples / 257).astype(np.uint8)[:, :, None]).all() and found.deep and found.grey
    with pytest.raises(BadInput, match=r"outside of 0\.\.65535"):
        picture.load(Image.fromarray(np.full((2, 2), 70000, np.int32)))


def test_more_than_8_bits_hidden_by_pillow_are_noted() -> None:
    """Pillow opens colour JPEG 2000 of any depth as 8-bit RGB; only the codestream says otherwise."""
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "JPEG2000", no_jp2=True))
    assert not picture.load(bytes(data)).deep
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at] == 7
    with Image.open(io.BytesIO(data)) as image:
        assert not picture._is_deep(image, bytes(data))
        data[at : at + 9 : 3] = b"\x0b" * 3
        assert picture._is_deep(image, bytes(data))


@pytest.mark.skipif(not pillow_features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_of_10_bits_is_recognised() -> None:
    data = bytearray(encoded(Image.new("RGB", (32, 32)), "AVIF"))
    assert picture.load(bytes(data)).rgb.shape == (32, 32, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert not picture._is_deep(image, bytes(data))
        data[data.index(b"av1C") + 6] |= 0x40  # high_bitdepth; Pillow's encoder writes 8 bits only
        assert picture._is_deep(image, bytes(data))


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "HSV"])
def test_other_colour_spaces_are_converted_and_noted(mode: str) -> None:
    image = rgb().convert("RGB").convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4), (128, 128, 128))
    sources = [image, encoded(image, "TIFF" if mode == "LAB" else "JPEG")] if mode != "HSV" else [image]
    for source in sources:
        found = picture.load(source)
        assert "colours are converted to RGB" in found.notes[-1] and not found.grey
    if mode == "HSV":
        assert np.abs(found.rgb.astype(int) - COLOUR).mean() < 5
    if mode == "LAB":
        assert np.ptp(found.rgb[0, 0].astype(int)) <= 3 and 90 < found.rgb[0, 0, 0] < 140  # grey of L* 50


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


def test_metadata_is_kept_and_the_rest_noted() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "hello")
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    data = png(rgb(), icc_profile=b"profile", exif=exif, pnginfo=text, dpi=(72, 72))
    found = picture.load(data)
    assert found.notes == ["not kept: comments, resolution"]
    assert found.metadata == {"icc": b"profile", "exif": exif.tobytes().removeprefix(b"Exif\0\0"), "xmp": b"<x/>"}
    jpeg = picture.load(encoded(rgb(), "JPEG", xmp=b"<x/>", comment=b"hi"))
    assert jpeg.notes == ["not kept: comments"] and jpeg.metadata == {"xmp": b"<x/>"}


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


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4, 3), np.float32), ((4, 4, 5), np.uint8), ((4,), np.uint8)])
def test_arrays_of_another_shape_or_type_are_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(BadInput, match="make it uint8 or uint16"):
        picture.load(np.zeros(shape, dtype))


def test_missing_files_raise_what_open_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        picture.load(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        picture.load(tmp_path)


def test_heic_with_its_plugin(tmp_path: Path) -> None:
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    smooth = np.stack(np.indices((48, 64)), 2).repeat(2, 2)[:, :, :3].astype(np.uint8)
    plugin.from_pillow(Image.fromarray(smooth)).save(tmp_path / "a.heic", quality=95)
    script = f"from codec import picture; print(picture.load({str(tmp_path / 'a.heic')!r}).rgb.shape)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(48, 64, 3)\n", done.stderr
