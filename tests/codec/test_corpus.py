"""Every kind of picture comes back as it was: size, mode, depth, alpha, metadata; and looks like it."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import codec
from codec import output, picture
from rate import psnr

EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
METADATA = {
    "icc_profile": b"\0" * 40 + b"a profile",
    "exif": b"Exif\0\0" + EXIF,
    "xmp": b"<x:xmpmeta>\xc3\xa9</x:xmpmeta>",
}
SIZES = [(1, 1), (2, 65), (17, 16), (31, 33), (64, 64), (65, 63)]
FLOOR = {10: 17, 50: 29}  # dB, by QP; the corner of a photograph
RESTORED = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGB", "P key": "RGBA", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA",
    "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB", "CMYK": "RGB", "I;16": "I;16", "I": "I;16", "RGBa": "RGBA",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not codec.installed_models(), reason="no model bundle is installed")


def made(photo: NDArray, mode: str, size: tuple[int, int]) -> Image.Image:
    """A smooth part of a photograph in any of Pillow's modes, with a hard mask where there is alpha."""
    rgb = Image.fromarray(photo[20:84, 20:84]).resize((64, 64)).resize(size)
    grey = rgb.convert("L")
    mask = Image.fromarray(np.where(np.indices(size[::-1]).sum(0) % 7 < 5, 255, 0).astype(np.uint8))
    if mode in ("I;16", "I"):
        return Image.fromarray(np.asarray(grey).astype(np.uint16 if mode == "I;16" else np.int32) * 257)
    if mode == "P":
        return rgb.quantize(200)
    if mode == "P key":
        image = rgb.quantize(4)
        image.info["transparency"] = 0
        return image
    if mode == "PA":
        return rgb.quantize(200).convert("PA")
    if mode == "LA":
        return Image.merge("LA", (grey, mask))
    if mode in ("RGBA", "RGBa"):
        straight = rgb.copy()
        straight.putalpha(mask)
        return straight.convert(mode)
    if mode == "1":
        return Image.new("1", size, 1)
    return rgb.convert(mode)


@pytest.mark.parametrize("mode", RESTORED)
@pytest.mark.parametrize("size", SIZES)
def test_size_and_mode_come_back(photo: NDArray, mode: str, size: tuple[int, int]) -> None:
    image = made(photo, mode, size)
    source = picture.load(image)
    for qp, floor in FLOOR.items():
        shown = codec.decode(codec.encode(image, qp=qp))
        expected = RESTORED[mode]
        if expected.endswith("A") and source.alpha is None:
            expected = expected[:-1]  # opaque by chance, which a note says
        assert shown.size == size and shown.mode == expected
        again = picture.load(shown)
        seen = np.ones(size[::-1], bool) if source.alpha is None else source.alpha > 0
        if mode not in ("P key",):  # four colours: not what the network knows
            assert psnr(source.rgb[seen][None], again.rgb[seen][None]) > floor
        if source.alpha is not None and again.alpha is not None:
            assert (source.alpha == again.alpha).all()


def test_every_side_to_65(photo: NDArray) -> None:
    image = made(photo, "RGBA", (66, 66))
    for side in range(1, 66):
        part = image.crop((0, 0, side, 66 - side))
        shown = codec.decode(codec.encode(part, qp=40))
        assert shown.size == part.size
        assert shown.mode == "RGB" or (np.asarray(shown)[:, :, 3] == np.asarray(part)[:, :, 3]).all()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("keep", ["all", "none", "icc", "exif,xmp"])
def test_metadata_comes_back(photo: NDArray, tmp_path: Path, format: str, keep: str) -> None:
    out = io.BytesIO()
    options = dict(METADATA)
    if format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp").decode())
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(options.pop("exif"))
        tags[700] = options.pop("xmp")
        options["exif"] = tags
    Image.fromarray(photo[:40, :70]).save(out, format, **options)
    data = codec.encode(out.getvalue(), qp=30, metadata=keep)
    kinds = {"all": {"icc", "exif", "xmp"}, "none": set(), "icc": {"icc"}, "exif,xmp": {"exif", "xmp"}}[keep]
    if format == "TIFF":  # whose tags describe the file itself
        kinds -= {"exif"}
    assert set(codec.info(data)["metadata"]) == kinds
    found = codec.decode_picture(data)
    assert found.rgb.shape == (70, 40, 3)  # turned, whether EXIF is kept or not
    image = found.image()
    assert image.info.get("icc_profile") == (METADATA["icc_profile"] if "icc" in kinds else None)
    assert image.info.get("xmp") == (METADATA["xmp"] if "xmp" in kinds else None)
    if "exif" in kinds:
        assert image.info["exif"] == EXIF.replace(b"\x01\0\x06", b"\x01\0\x01")
    assert image.getexif().get(0x0112, 1) == 1
    output.save(found, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as shown:
        assert shown.size == (40, 70) and shown.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied_once(photo: NDArray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(photo[20:60, 20:90]).save(out, "PNG", exif=exif)
    expected = picture.load(out.getvalue()).rgb
    shown = picture.load(codec.decode(codec.encode(out.getvalue(), qp=50)))
    assert shown.rgb.shape == expected.shape and psnr(expected, shown.rgb) > FLOOR[50]


def test_16_bits_give_more_than_8(photo: NDArray) -> None:
    """Decoding rounds the network's answer to 16 bits, not to 8 of them."""
    samples = photo[:64, :64, 0].astype(np.uint16) * 257
    shown = np.asarray(codec.decode(codec.encode(samples, qp=60)))
    assert shown.dtype == np.uint16 and len(np.unique(shown % 257)) > 100
    assert np.abs(shown.astype(int) - samples).mean() < 257 * 4


def test_alpha_costs_little(photo: NDArray) -> None:
    rgba = np.dstack([photo, np.zeros((512, 512), np.uint8)])
    rgba[100:400, 100:400, 3] = 255
    hidden = codec.encode(rgba, qp=40)
    rgba[rgba[:, :, 3] == 0] = 0
    assert codec.encode(rgba, qp=40) == hidden  # colours that nobody sees are not stored
    assert len(hidden) < 0.8 * len(codec.encode(photo, qp=40))


def test_tiles_keep_all_of_it(photo: NDArray) -> None:
    rgba = np.dstack([photo[:200, :300], photo[:200, :300, 0]])
    data = codec.encode(Image.fromarray(rgba), qp=40, tile=128)
    shown = np.asarray(codec.decode(data, crop=(50, 60, 200, 100)))
    assert shown.shape == (100, 200, 4) and (shown[:, :, 3] == rgba[60:160, 50:250, 3]).all()
