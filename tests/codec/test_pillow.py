"""Pillow opens and saves .mlic files, lazily and with all that belongs to them."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import codec
import codec.pillow
from rate import psnr

pytestmark = pytest.mark.skipif(not codec.installed_models(), reason="no model bundle is installed")
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6


@pytest.fixture
def file(photo: NDArray, tmp_path: Path) -> Path:
    Image.fromarray(photo[:80, :120]).save(tmp_path / "a.mlic", quality=70, icc_profile=b"icc", xmp=b"<x/>")
    return tmp_path / "a.mlic"


def test_save_and_open(photo: NDArray, file: Path) -> None:
    assert codec.info(file.read_bytes())["qp"] == codec.quality_to_qp(70)
    with Image.open(file) as image:
        assert (image.format, image.mode, image.size, image.get_format_mimetype()) == (
            "MLIC", "RGB", (120, 80), "image/x-mlic",
        )  # fmt: skip
        assert image.info["icc_profile"] == b"icc" and image.info["xmp"] == b"<x/>"
        assert psnr(photo[:80, :120], np.asarray(image)) > 30
        assert (np.asarray(image) == np.asarray(codec.decode(file.read_bytes()))).all()
        image.load()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_modes(photo: NDArray, mode: str) -> None:
    image = Image.fromarray(photo[:64, :64])
    image = Image.fromarray(photo[:64, :64, 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(photo[64:128, :64, 0]))
    out = io.BytesIO()
    image.save(out, "MLIC")
    with Image.open(out) as found:
        assert found.mode == mode
        found.load()
        assert found.mode == mode and found.size == (64, 64)
        if mode.endswith("A"):
            assert (np.asarray(found.getchannel("A")) == photo[64:128, :64, 0]).all()


def test_opening_reads_the_header_only(file: Path) -> None:
    script = f"""
import sys
import codec.pillow
from PIL import Image
image = Image.open({str(file)!r})
assert image.size == (120, 80)
assert not [m for m in ("torch", "onnxruntime", "codec.bundle", "cpp_ext._layers") if m in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    data = file.read_bytes()
    cut = io.BytesIO(data[: len(data) // 2])
    assert Image.open(cut).size == (120, 80)
    with pytest.raises(OSError, match="damaged"):
        Image.open(cut).load()


def test_verify(file: Path) -> None:
    with Image.open(file) as image:
        image.verify()
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    with pytest.raises(OSError, match="damaged"):
        Image.open(io.BytesIO(data)).verify()


def test_damaged_headers_and_other_files(file: Path) -> None:
    data = file.read_bytes()
    with pytest.raises(OSError, match="header is damaged"):
        Image.open(io.BytesIO(data[:17] + b"\xff" + data[18:]))
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(b"\x89MLIC?" + data[6:]))


def test_metadata_follows_the_image(photo: NDArray, file: Path, tmp_path: Path) -> None:
    with Image.open(file) as image:
        image.save(tmp_path / "again.mlic")
        image.save(tmp_path / "bare.mlic", icc_profile=None, xmp=b"")
        image.save(tmp_path / "a.png", xmp=image.info["xmp"])
    assert codec.info((tmp_path / "again.mlic").read_bytes())["metadata"] == ["icc", "xmp"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"] == b"icc"


def test_orientation_is_applied_once(photo: NDArray, tmp_path: Path) -> None:
    Image.fromarray(photo[:40, :70]).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + EXIF)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.mlic")
    with Image.open(tmp_path / "a.mlic") as image:
        assert image.size == (40, 70) and image.getexif()[0x0112] == 1


@pytest.mark.parametrize("kind", [EXIF, EXIF.replace(b"\0\x03\0\0\0\x01\0\x06\0\0", b"\0\x04\0\0\0\x01\0\0\0\x06")])
def test_metadata_given_for_a_turned_picture_is_upright(photo: NDArray, tmp_path: Path, kind: bytes) -> None:
    Image.fromarray(photo[:40, :64]).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + kind)
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.mlic", exif=image.info["exif"], xmp=b"<x tiff:Orientation='6'/>")
    with Image.open(tmp_path / "a.mlic") as found:
        assert found.size == (40, 64) and found.getexif()[0x0112] == 1
        assert found.info["xmp"] == b"<x tiff:Orientation='1'/>"


def test_options_of_encode(photo: NDArray, tmp_path: Path) -> None:
    Image.fromarray(photo[:64, :64]).save(tmp_path / "a.mlic", target_size=800)
    assert (tmp_path / "a.mlic").stat().st_size <= 800
    Image.fromarray(photo[:64, :64]).save(tmp_path / "b.mlic", optimize=True, xmp="<x/>")  # as Pillow's others do
    assert codec.info((tmp_path / "b.mlic").read_bytes())["metadata"] == ["xmp"]
    with pytest.raises(OSError, match="out of reach"):
        Image.fromarray(photo[:64, :64]).save(io.BytesIO(), "MLIC", target_size=5)


def test_closed_images(file: Path) -> None:
    for end in (Image.Image.close, codec.pillow.MlicImageFile.verify):
        image = Image.open(file)
        end(image)
        with pytest.raises(ValueError, match="closed"):
            image.load()
