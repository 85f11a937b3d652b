"""Picture files and Pillow images <-> 8-bit RGB planes.

A .mlic file of version 0 holds 8 bits of red, green and blue (or grey) per pixel and nothing else. So `load` refuses
what would change the picture's look without that being said (alpha, more than 8 bits, other colour spaces), and lists
in `Picture.notes` the remarks about what is left out: colour profile, metadata, further frames.
"""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from codec import files
from codec.container import check_size
from codec.errors import BadInput, CodecError

Source = Union[str, Path, bytes, BinaryIO, Image.Image, NDArray[np.uint8], "Picture"]

# What `save` writes, and how it stays as close to the decoded pixels as the format can.
# Formats that would do more than that on the way (GIF: 256 colours) are left to a picture editor.
_FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {"compress_level": 3}),  # on photographs 2 % smaller than 6, in 40 % of the time
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".pnm": ("PPM", {}),
}

_GREY_MODES = {"1", "L", "LA"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"}
_EXIF_IFD = 0x8769
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Picture:
    """`rgb`: uint8 [H, W, 3], sRGB assumed; `grey`: the source had one channel, so that the three planes are equal;
    `notes`: one line each on what was in the source and is not kept."""

    rgb: NDArray[np.uint8]
    grey: bool = False
    notes: list[str] = field(default_factory=list)


def load(source: Source) -> Picture:
    """The pixels of a picture, upright (the EXIF orientation is applied); of several frames the first.

    `source` is a path, the bytes of a picture file, an open binary file (read to its end), a Pillow image, an array
    uint8 [H, W, 3] or [H, W], or a Picture (returned as it is).

    Raises BadInput for what a .mlic file cannot hold and for what is no picture, OSError when a path cannot be read.
    Size limits are checked before pixels are decoded; Pillow's own limit, `Image.MAX_IMAGE_PIXELS`, holds as well.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _guarded("the image", source)
    if isinstance(source, bytes):
        return _guarded("the picture", io.BytesIO(source))
    if isinstance(source, (str, Path)):
        with open(source, "rb") as stream:
            return _guarded(str(source), stream if stream.seekable() else io.BytesIO(stream.read()))
    return _guarded("the picture", io.BytesIO(source.read()))


def to_image(rgb: NDArray[np.uint8], grey: bool) -> Image.Image:
    """Planes uint8 [H, W, 3] as a Pillow image of mode RGB, or of mode L when `grey`."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return image.convert("L") if grey else image


def check_output(target: str) -> str:
    """Raise BadInput unless `save` can write a picture to `target`; returns Pillow's name of the format.

    `-` and devices get PNG. To be called before the work starts, not after.
    """
    name = "PNG" if target == files.STDIO else _FORMATS.get(Path(target).suffix.lower(), ("", {}))[0]
    if not name and files.is_special(target) and not os.path.isdir(target):
        name = "PNG"
    if not name:
        raise BadInput(f"{target}: no picture format goes by this extension; use one of {' '.join(_FORMATS)}")
    files.check_target(target)
    return name


def save(image: Image.Image, target: str | Path | BinaryIO, format: str | None = None) -> None:
    """Write `image` to a path (`-`: stdout) in the format of its extension, whole or not at all; or to a stream,
    as `format` (Pillow's name, PNG unless given). Raises BadInput, OSError.
    """
    name = format or (check_output(str(target)) if isinstance(target, (str, Path)) else "PNG")
    options = next((options for known, options in _FORMATS.values() if known == name), {})
    encoded = io.BytesIO()  # TIFF seeks, pipes cannot
    try:
        image.save(encoded, format=name, **options)
    except (OSError, ValueError, KeyError) as error:  # no I/O here: Pillow's ways to say that the format cannot
        raise BadInput(f"cannot write {image.width}x{image.height} {image.mode} as {name}: {error}") from error
    if isinstance(target, (str, Path)):
        files.write(str(target), encoded.getvalue())
    else:
        target.write(encoded.getvalue())


def _guarded(name: str, source: BinaryIO | Image.Image) -> Picture:
    """Decode with Pillow, with every failure told as one BadInput that names the picture."""
    try:
        if isinstance(source, Image.Image):
            return _from_image(source)
        head = source.read(_HEAD_BYTES)
        source.seek(0)
        with Image.open(source) as image:
            return _from_image(image, head)
    except BadInput as error:
        raise BadInput(f"{name} {error}") from None
    except (CodecError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise BadInput(f"{name} is not in a picture format that can be read: convert it to PNG first") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name} has more pixels than Pillow allows: raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except Exception as error:  # damaged files make Pillow's plugins raise OSError, SyntaxError, struct.error, ...
        raise BadInput(f"{name} is damaged or cut short and cannot be read: {error}") from error


def _from_image(image: Image.Image, head: bytes = b"") -> Picture:
    """Messages of the BadInput raised here go on from the picture's name."""
    try:
        check_size(image.width, image.height)
    except BadInput as error:
        raise BadInput(f"has {error}") from None
    mode = image.mode
    if mode.startswith("I") or mode == "F" or _is_deep(image, head):
        raise BadInput("has more than 8 bits per sample, which version 0 does not keep: reduce it to 8 bits first")
    alpha_refused = BadInput("has an alpha channel, which version 0 does not keep: flatten it first")
    if mode in ("La", "RGBa"):
        raise alpha_refused
    if mode not in _GREY_MODES | _COLOUR_MODES:
        raise BadInput(f"has the colour mode {mode}, which version 0 does not keep: convert it to RGB or grey first")

    frames = max(getattr(image, "n_frames", 1), len(image.info.get("sizes", ())))
    image.load()  # before the notes: PNG metadata may follow the pixels
    notes = _not_kept(image)
    if frames > 1:
        notes.append(f"only the first of {frames} frames is kept")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:  # by an alpha channel, a palette entry or a colour key: RGBA shows them all
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema() != (255, 255):
            raise alpha_refused
        notes.append("the alpha channel is dropped: it is opaque everywhere")
    return Picture(np.array(upright.convert("RGB"), dtype=np.uint8), mode in _GREY_MODES, notes)


def _from_array(array: NDArray[np.uint8]) -> Picture:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise BadInput(
            f"the array is {array.dtype} {list(array.shape)}: make it uint8 [height, width, 3] or [height, width]"
        )
    check_size(array.shape[1], array.shape[0])
    if array.ndim == 2:
        return Picture(np.repeat(array[:, :, None], 3, axis=2), grey=True)
    return Picture(np.ascontiguousarray(array))


def _is_deep(image: Image.Image, head: bytes) -> bool:
    """Whether Pillow is about to cut samples of more than 8 bits down to 8, which it does without a word."""
    for tile in getattr(image, "tile", ()):  # what the decoders of an image not loaded yet will be told
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(arg, str) and ";16" in arg for arg in args):
            return True
        if tile[0] in ("ppm", "ppm_plain") and isinstance(args[-1], int) and args[-1] > 255:
            return True
    if image.format == "JPEG2000" and (at := head.find(b"\xff\x4f\xff\x51")) >= 0:
        return any(depth & 0x7F >= 8 for depth in head[at + 42 : at + 43])  # SIZ: depth - 1 of the first component
    if image.format == "AVIF" and (at := head.find(b"av1C")) >= 0:
        return any(flags & 0x40 for flags in head[at + 6 : at + 7])  # high_bitdepth
    return False


def _not_kept(image: Image.Image) -> list[str]:
    info = image.info
    notes = []
    if info.get("icc_profile"):
        notes.append("the ICC colour profile is not kept: viewers will take the colours as sRGB")
    exif = info.get("exif") or "Raw profile type exif" in info or _EXIF_IFD in image.getexif()
    kinds = {
        "EXIF data (the orientation is applied)": exif,
        "XMP data": info.get("xmp") or "XML:com.adobe.xmp" in info,
        "comments": info.get("comment") or getattr(image, "text", None),
        "gamma": "gamma" in info,
        "resolution": "dpi" in info,
    }
    if lost := [kind for kind, present in kinds.items() if present]:
        notes.append(f"not kept: {', '.join(lost)}")
    return notes
