"""Picture files and Pillow images -> upright 8-bit RGB planes, and what belongs to them; and back to Pillow images.

What cannot be kept as it is, is converted, and `Picture.notes` says so: colour spaces, samples of more than 8 bits,
further frames, comments.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from codec import metadata
from codec.alpha import fill
from codec.container import SIGNATURE, check_size
from codec.errors import BadInput, CodecError

Source = Union[str, Path, bytes, BinaryIO, Image.Image, NDArray[np.uint8], NDArray[np.uint16], "Picture"]

_GREY_MODES = {"1", "L", "LA", "La"}
_CONVERTED = {"CMYK": "CMYK", "LAB": "L*a*b*", "HSV": "HSV"}
_ORIENTATION, _RESOLUTION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x011A, 0x8769, 0x8825
_DESCRIPTIONS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298}  # what, by which camera, program, whom, when
_HEAD_BYTES = 1 << 16
_STRIP = 1024  # rows that are converted at a time: a large picture is not held in one more form than it must be


@dataclass(frozen=True, slots=True)
class Picture:
    """`rgb`: [H, W, 3], sRGB unless a profile says otherwise, uint8 (or, decoded from a deep file, uint16); `grey`: the
    source had one channel, so that the three planes are equal; `alpha`: uint8 [H, W] or None for an opaque picture;
    `deep`: the source had 16 bits per sample; `metadata`: "icc", "exif", "xmp" -> bytes; `notes`: one line each on
    what was in the source and is not kept."""

    rgb: NDArray[Any]
    grey: bool = False
    alpha: NDArray[np.uint8] | None = None
    deep: bool = False
    metadata: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def samples(self) -> NDArray[Any]:
        """[H, W, channels]: grey or RGB, and alpha if there is any, in the type of `rgb`."""
        colours = _luma(self.rgb) if self.grey else self.rgb
        if self.alpha is None:
            return colours
        scale = np.iinfo(self.rgb.dtype).max // 255
        return np.concatenate((colours, self.alpha[:, :, None].astype(self.rgb.dtype) * scale), 2)

    def shallow(self) -> Picture:
        """With 8 bits per sample."""
        if self.rgb.dtype == np.uint8:
            return self
        return replace(self, rgb=_shallow(self.rgb))

    def image(self) -> Image.Image:
        """A Pillow image: L, LA, RGB or RGBA; I;16 for deep grey, while other deep ones are rounded to 8 bits.

        Its `info` has what there is of icc_profile, exif and xmp.
        """
        samples = self.samples()
        if samples.dtype == np.uint16 and samples.shape[2] > 1:
            return self.shallow().image()
        image = Image.fromarray(np.ascontiguousarray(samples[:, :, 0] if samples.shape[2] == 1 else samples))
        image.info |= {"icc_profile" if kind == "icc" else kind: data for kind, data in self.metadata.items()}
        return image


def load(source: Source) -> Picture:
    """The pixels of a picture, upright (the EXIF orientation is applied); of several frames the first.

    `source` is a path, the bytes of a picture file, an open binary file (read to its end), a Pillow image, an array
    uint8 or uint16, [H, W], [H, W, 3] or [H, W, 4], or a Picture (returned as it is).

    Raises BadInput for what a .mlic file cannot hold and for what is no picture, OSError when a path cannot be read.
    Size limits are checked before pixels are decoded; Pillow's own limit, `Image.MAX_IMAGE_PIXELS`, holds as well.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _guarded("the image", source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _guarded("the picture", io.BytesIO(source))
    if isinstance(source, (str, Path)):
        with open(source, "rb") as stream:
            return _guarded(str(source), stream if stream.seekable() else io.BytesIO(stream.read()))
    if not hasattr(source, "read"):
        raise TypeError(f"a picture is a path, bytes, a file, an image or an array, not {type(source).__name__}")
    return _guarded("the picture", io.BytesIO(source.read()))


def _guarded(name: str, source: BinaryIO | Image.Image) -> Picture:
    """Decode with Pillow, with every failure told as one BadInput that names the picture."""
    try:
        if isinstance(source, Image.Image):
            return _from_image(source)
        head = source.read(_HEAD_BYTES)
        source.seek(0)
        if head.startswith(SIGNATURE):
            raise BadInput("is a .mlic file already: decode it first")
        with _opened(source) as image:
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


def _opened(source: BinaryIO) -> Image.Image:
    try:
        return Image.open(source)
    except Image.UnidentifiedImageError:
        if not find_spec("pillow_heif"):
            raise
        from pillow_heif import register_heif_opener  # for those who have it

        register_heif_opener()
        source.seek(0)
        return Image.open(source)


def _from_image(image: Image.Image, head: bytes = b"") -> Picture:
    """Messages of the BadInput raised here go on from the picture's name."""
    try:
        check_size(image.width, image.height)
    except BadInput as error:
        raise BadInput(f"has {error}") from None
    if image.mode == "F":
        raise BadInput("has floating-point samples: scale them to 8 or 16 bits first")
    deep = _is_deep(image, head) or image.mode.startswith("I")
    grey = image.mode in _GREY_MODES or image.mode.startswith("I") or _layout(image).startswith("LA;")
    frames = max(getattr(image, "n_frames", 1), len(image.info.get("sizes", ())))
    turned = is_turned(image)  # of a TIFF Pillow says so only before it loads
    image.load()  # before the notes: PNG metadata may follow the pixels
    kept, notes = _beside_pixels(image)
    if frames > 1:
        notes.append(f"only the first of {frames} frames is kept")
    if deep:
        notes.append("samples are reduced to 8 bits; decoding gives 16 again")
    if image.mode in _CONVERTED:
        notes.append(f"{_CONVERTED[image.mode]} colours are converted to RGB")
    if is_turned(image):
        turned, image = True, ImageOps.exif_transpose(image)
    if turned:
        kept = metadata.upright(kept)
    if image.mode in _CONVERTED:
        image = _to_srgb(image, kept.pop("icc", b""))
    if image.mode == "La":
        image = image.convert("LA")
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    key = image.info.get("transparency") if image.mode.startswith("I") else None
    transparent = image.has_transparency_data
    alpha = np.empty((image.height, image.width), np.uint8) if transparent else None
    for top in range(0, image.height, _STRIP):
        rows = slice(top, min(top + _STRIP, image.height))
        strip = image if image.height <= _STRIP else image.crop((0, rows.start, image.width, rows.stop))
        if alpha is None or image.mode.startswith("I"):
            rgb[rows] = _eight_bits(strip)
            if alpha is not None:
                alpha[rows] = np.where(np.asarray(strip) == key, 0, 255)
                rgb[rows] = fill(rgb[rows], alpha[rows])
        else:
            both = np.asarray(
                strip.convert("RGBA")
            )  # an alpha channel, a palette entry, a colour key: it shows them all
            alpha[rows] = both[:, :, 3]
            rgb[rows] = fill(both[:, :, :3], alpha[rows])
    if alpha is not None and alpha.min() == 255:
        alpha = None
        notes.append("the alpha channel is dropped: it is opaque everywhere")
    return Picture(rgb, grey, alpha, deep, kept, notes)


def _eight_bits(strip: Image.Image) -> NDArray[np.uint8]:
    """[rows, W, 3], or [rows, W, 1] of grey with 16 bits."""
    if not strip.mode.startswith("I"):
        return np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    samples = np.asarray(strip).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise BadInput("has samples outside of 0..65535: scale them to 16 bits first")
    return _shallow(samples)[:, :, None]


def _shallow(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Of 0..65535, a strip at a time: sample / 257 to the nearest."""
    made = np.empty(samples.shape, np.uint8)
    for top in range(0, len(samples), _STRIP):
        made[top : top + _STRIP] = (samples[top : top + _STRIP].astype(np.uint32) + 128) // 257
    return made


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """By its profile; without one that works, CMYK and HSV by Pillow's own formulas."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        if profile or image.mode == "LAB":
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted or image
    except (ImageCms.PyCMSError, OSError):
        pass
    return image.convert("RGB")


def _from_array(array: NDArray[Any]) -> Picture:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype not in (np.uint8, np.uint16) or not shaped:
        raise BadInput(
            f"the array is {array.dtype} {list(array.shape)}: make it uint8 or uint16, "
            "[height, width], [height, width, 3] or [height, width, 4]"
        )
    check_size(array.shape[1], array.shape[0])
    deep = array.dtype == np.uint16
    if deep:
        array = _shallow(array)
    if array.ndim == 2:
        return Picture(np.repeat(array[:, :, None], 3, axis=2), grey=True, deep=deep)
    alpha = np.ascontiguousarray(array[:, :, 3]) if array.shape[2] == 4 else None
    rgb = np.ascontiguousarray(array[:, :, :3])
    if alpha is None or alpha.min() == 255:
        return Picture(rgb, deep=deep)
    return Picture(fill(rgb, alpha), alpha=alpha, deep=deep)


def _luma(rgb: NDArray[Any]) -> NDArray[Any]:
    """[H, W, 1], BT.601: what Pillow makes of 8 bits."""
    if rgb.dtype == np.uint8:
        return np.asarray(Image.fromarray(rgb).convert("L"))[:, :, None]
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(rgb.dtype)[:, :, None]


def _layout(image: Image.Image) -> str:
    """Of the samples in the file: what the decoder of an image not loaded yet will be told. Deep grey with alpha, for
    one, becomes RGBA."""
    for tile in getattr(image, "tile", ()):
        for arg in tile[3] if isinstance(tile[3], tuple) else (tile[3],):
            if isinstance(arg, str):
                return arg
    return ""


def _is_deep(image: Image.Image, head: bytes) -> bool:
    """Whether Pillow is about to cut samples of more than 8 bits down to 8, which it does without a word."""
    if ";16" in _layout(image):
        return True
    for tile in getattr(image, "tile", ()):
        if tile[0] in ("ppm", "ppm_plain") and isinstance(tile[3][-1], int) and tile[3][-1] > 255:
            return True
    if image.format == "JPEG2000" and (at := head.find(b"\xff\x4f\xff\x51")) >= 0:
        return any(depth & 0x7F >= 8 for depth in head[at + 42 : at + 43])  # SIZ: depth - 1 of the first component
    if image.format == "AVIF" and (at := head.find(b"av1C")) >= 0:
        return any(flags & 0x40 for flags in head[at + 6 : at + 7])  # high_bitdepth
    return False


def _tags(image: Image.Image) -> Image.Exif:
    """None where what should be EXIF is none: no reason to refuse a picture."""
    try:
        return image.getexif()
    except Exception:  # which Pillow says in many ways
        return Image.Exif()


def is_turned(image: Image.Image) -> bool:
    """Whether its EXIF says that what it shows is stored otherwise than upright."""
    return _tags(image).get(_ORIENTATION, 1) in range(2, 9)


def _described(tags: Image.Exif) -> bytes:
    """Of a TIFF's tags, those that are about what it shows, as EXIF; the others are about the file."""
    kept = Image.Exif()
    for tag in _DESCRIPTIONS & set(tags):
        kept[tag] = tags[tag]
    for directory in (_EXIF_IFD, _GPS_IFD):
        if inside := tags.get_ifd(directory):
            kept.get_ifd(directory).update(inside)
    return kept.tobytes() if len(kept) or any(kept.get_ifd(d) for d in (_EXIF_IFD, _GPS_IFD)) else b""


def _beside_pixels(image: Image.Image) -> tuple[dict[str, bytes], list[str]]:
    """What is kept, and notes on what is not."""
    info = image.info
    exif = info.get("exif") or b""
    if not exif and (tags := _tags(image)):  # TIFF, or the text that old programs put into PNG
        exif = _described(tags) if image.format == "TIFF" else tags.tobytes()
    found = {"icc": info.get("icc_profile"), "exif": exif.removeprefix(metadata.PREFIX), "xmp": info.get("xmp")}
    kept = {kind: data.encode() if isinstance(data, str) else bytes(data) for kind, data in found.items() if data}
    texts = [k for k in getattr(image, "text", {}) if k not in ("XML:com.adobe.xmp", "Raw profile type exif")]
    resolution = "dpi" in info and (image.format != "JPEG" or info.get("jfif_unit"))
    if image.format == "TIFF":
        resolution = _RESOLUTION in _tags(image)
    lost = {"comments": info.get("comment") or texts, "gamma": "gamma" in info, "resolution": resolution}
    names = [name for name, present in lost.items() if present]
    return kept, [f"not kept: {', '.join(names)}"] if names else []
