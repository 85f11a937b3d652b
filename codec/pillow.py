"""Pillow's plugin: after `import codec.pillow`, `Image.open` reads .mlic files and `Image.save` writes them.

    import codec.pillow
    from PIL import Image

    Image.open("photo.jpg").save("photo.mlic", quality=60)
    Image.open("photo.mlic").crop((0, 0, 100, 100)).show()

Opening reads the header and the boxes before the payload; pixels are decoded when they are first needed. Options of
`save` are those of codec.encode, and Pillow's own icc_profile, exif and xmp. An image that was opened from a file keeps
its colour profile, EXIF and XMP unless they are given anew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import IO, Any

from PIL import Image, ImageFile

import codec
from codec import container, metadata
from codec.errors import CodecError, NotMLIC
from codec.picture import is_turned, load

_KINDS = {"icc_profile": "icc", "exif": "exif", "xmp": "xmp"}


class MlicImageFile(ImageFile.ImageFile):
    """A .mlic file. Raises OSError where it is damaged, or its model is not here."""

    format = "MLIC"
    format_description = "MLIC learned image"

    def _open(self) -> None:
        assert self.fp is not None
        with _as_pillow_does():
            found = container.head(self.fp)
            kept = metadata.unpack(found.boxes)
        self._size = found.width, found.height
        if "ALPH" in found.boxes:
            self._mode = "LA" if found.grey else "RGBA"
        else:
            self._mode = ("I;16" if found.deep else "L") if found.grey else "RGB"
        self.info |= {ours: kept[kind] for ours, kind in _KINDS.items() if kind in kept}
        self.info["qp"] = found.qp
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]

    def load(self) -> Any:
        if self.tile:
            with _as_pillow_does():
                pixels = codec.decode(self._whole(), metadata="none").tobytes()
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = io.BytesIO(pixels)
        return super().load()

    def verify(self) -> None:
        """Raise OSError unless the file is whole and all but the drawing works."""
        with _as_pillow_does():
            codec.verify(self._whole())
        super().verify()

    def _whole(self) -> bytes:
        if self.fp is None or self.fp.closed:
            raise ValueError("Operation on closed image")  # in Pillow's words
        self.fp.seek(0)
        return self.fp.read()


@contextmanager
def _as_pillow_does() -> Iterator[None]:
    """Its users expect SyntaxError from a plugin whose file it is not, and OSError for damage."""
    try:
        yield
    except NotMLIC as error:
        raise SyntaxError(str(error)) from error
    except CodecError as error:
        raise OSError(str(error)) from error


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.SIGNATURE)


def _save(image: Image.Image, stream: IO[bytes], filename: str | bytes) -> None:
    options = dict(image.encoderinfo)
    turned = is_turned(image)
    with _as_pillow_does():
        picture = load(image)
    given = {kind: _bytes(options.pop(name)) for name, kind in _KINDS.items() if name in options}
    picture.metadata.update(metadata.upright(given) if turned else given)
    # As Pillow's other formats do, which ignore what they do not know.
    known = {name: value for name, value in options.items() if name in signature(codec.encode).parameters}
    with _as_pillow_does():
        data = codec.encode(picture, **known)
    stream.write(data)


def _bytes(value: Any) -> bytes:
    data: bytes = value.tobytes() if isinstance(value, Image.Exif) else value or b""
    return (data.encode() if isinstance(data, str) else data).removeprefix(metadata.PREFIX)


Image.register_open(MlicImageFile.format, MlicImageFile, _accept)
Image.register_save(MlicImageFile.format, _save)
Image.register_extension(MlicImageFile.format, ".mlic")
Image.register_mime(MlicImageFile.format, "image/x-mlic")
