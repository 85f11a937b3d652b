"""Pictures -> picture files, whole or not at all, as close to the decoded pixels as the format can."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from codec import deep, files
from codec.errors import BadInput
from codec.metadata import PREFIX
from codec.picture import Picture

# Formats that would do more than that on the way (GIF: 256 colours) are left to a picture editor.
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {"compress_level": 3}),  # on photographs 2 % smaller than 6, in 40 % of the time
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".pnm": ("PPM", {}),
}
_OPAQUE = ("JPEG", "PPM", "BMP")
_JPEG_SEGMENT = 65000  # bytes that a marker of a JPEG holds, about
_XMP_TAG = 700  # of TIFF
_DIRECTORIES = (0x8769, 0x8825, 0xA005)  # of EXIF's own, of GPS, of what devices have to agree on


def check(target: str) -> str:
    """Raise BadInput unless `save` can write a picture to `target`; returns Pillow's name of the format.

    `-` and devices get PNG. To be called before the work starts, not after.
    """
    name = "PNG" if target == files.STDIO else FORMATS.get(Path(target).suffix.lower(), ("", {}))[0]
    if not name and files.is_special(target) and not os.path.isdir(target):
        name = "PNG"
    if not name:
        raise BadInput(f"{target}: no picture format goes by this extension; use one of {' '.join(FORMATS)}")
    files.check_target(target)
    return name


def save(picture: Picture, target: str | Path | BinaryIO, format: str | None = None) -> list[str]:
    """Write to a path (`-`: stdout) in the format of its extension, whole or not at all; or to a stream, as `format`
    (Pillow's name, PNG unless given). Returns notes on what the format cannot hold. Raises BadInput, OSError.
    """
    name = format or (check(str(target)) if isinstance(target, (str, Path)) else "PNG")
    encoded, notes = _encoded(picture, name)
    if isinstance(target, (str, Path)):
        files.write(str(target), encoded)
    else:
        target.write(encoded)
    return notes


def _encoded(picture: Picture, name: str) -> tuple[Any, list[str]]:
    if picture.alpha is not None and name in _OPAQUE:
        raise BadInput(f"{name} holds no alpha channel, and the picture has one: write a .png, .webp or .tif")
    notes = []
    beside, dropped = _beside(picture.metadata, name)
    if name == "PPM":
        return deep.ppm(picture.samples()), dropped
    if picture.rgb.dtype == np.uint16:
        if name == "PNG":
            return deep.png(picture.samples(), picture.metadata), dropped
        if name != "TIFF" or not picture.grey or picture.alpha is not None:  # of which Pillow writes 16 bits
            notes.append(f"{name} gets 8 bits of the 16 per sample that the source had")
            picture = picture.shallow()
    image = picture.image()
    out = io.BytesIO()  # TIFF seeks, pipes cannot
    options = next((options for known, options in FORMATS.values() if known == name), {})
    try:
        image.save(out, format=name, **options, **beside)
    except MemoryError:
        raise
    except Exception as error:  # no I/O here: Pillow has many ways to say that the format cannot
        raise BadInput(f"cannot write {image.width}x{image.height} {image.mode} as {name}: {error}") from error
    return out.getbuffer(), notes + dropped


def _beside(metadata: dict[str, bytes], name: str) -> tuple[dict[str, Any], list[str]]:
    """Pillow's options that write metadata, and notes on what the format cannot hold."""
    limit = {"JPEG": _JPEG_SEGMENT, "PPM": 0, "BMP": 0}.get(name, 1 << 30)
    fits = {kind: data for kind, data in metadata.items() if len(data) <= limit or (kind == "icc" and limit)}
    options: dict[str, Any] = {}
    if "icc" in fits:
        options["icc_profile"] = fits["icc"]
    if "exif" in fits:
        options["exif"] = PREFIX + fits["exif"]
    if "xmp" in fits and name == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + fits["xmp"])
    elif "xmp" in fits and name != "TIFF":
        options["xmp"] = fits["xmp"]
    notes = []
    if name == "TIFF":
        options["exif"], whole = _tags(fits)
        notes += [] if whole else ["TIFF holds of EXIF its main directory only"]
    lost = [kind for kind in metadata if kind not in fits]
    return options, notes + ([f"{name} does not hold {', '.join(lost)}"] if lost else [])


def _tags(metadata: dict[str, bytes]) -> tuple[Image.Exif, bool]:
    """EXIF and XMP as a TIFF has them, and whether all of EXIF is there: Pillow's compressed TIFFs have no directories
    within directories."""
    tags, made = Image.Exif(), Image.Exif()
    found: dict[int, Any] = {}
    try:
        tags.load(PREFIX + metadata["exif"] if "exif" in metadata else b"")
        found = dict(tags)
        whole = not any(tag in found for tag in _DIRECTORIES)
    except Exception:  # damaged, which Pillow says in many ways
        whole = False
    for tag in set(found) - set(_DIRECTORIES):
        made[tag] = found[tag]
    if "xmp" in metadata:
        made[_XMP_TAG] = metadata["xmp"]
    return made, whole
