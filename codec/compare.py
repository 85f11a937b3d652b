"""One picture through our codec and through Pillow's JPEG, WebP and AVIF, at the same PSNR or at the same bytes.

    codec compare photo.jpg -q 50

For curves, BD-rates and more codecs there is `python -m bench rd`; here the answer is one table, in seconds.
"""

from __future__ import annotations

import io
import math
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

import codec
from codec import picture
from codec.bundle import find
from rate import LOSSLESS, bits_per_pixel, psnr

SLOPE = 0.2  # dB per quality step, roughly, of all three peers
HEADER = f"{'codec':<12}{'bytes':>9}{'bpp':>8}{'PSNR dB':>9}{'enc s':>9}{'dec s':>9}{'than ours':>12}"


class Absent(Exception):
    """A peer cannot do it here; the message says why."""


@dataclass(frozen=True)
class Point:
    """One picture by one codec: bytes of the file, bits per pixel, RGB PSNR in dB, wall-clock seconds."""

    bytes: int
    bpp: float
    psnr: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class Peer:
    """One of Pillow's encoders at the best settings that it gives in reasonable time (our choice).

    `feature` is what Pillow calls its library; `grey` holds options that replace others for a picture of mode L.
    """

    name: str
    feature: str
    options: dict[str, Any]
    grey: dict[str, Any] = field(default_factory=dict)

    def encode(self, image: Image.Image, quality: int) -> bytes:
        """The file of an RGB or L image at quality 0..100. Raises Absent."""
        if not features.check(self.feature):
            raise Absent(f"this Pillow has no {self.name}")
        file = io.BytesIO()
        try:
            image.save(file, self.name, quality=quality, **self.options | (self.grey if image.mode == "L" else {}))
        except (OSError, ValueError) as error:  # such as a side that is too long for WebP
            raise Absent(f"it cannot hold this picture ({error})") from error
        return file.getvalue()

    def measure(self, image: Image.Image, quality: int) -> Point:
        """As `measure`. Raises Absent."""
        return measure(image, lambda: self.encode(image, quality), lambda data: Image.open(io.BytesIO(data)))


# 4:4:4 where the format has it, since PSNR is taken in RGB (lossy WebP is always 4:2:0). AVIF's bytes depend on the
# number of threads.
PEERS = (
    Peer("JPEG", "jpg", {"optimize": True, "subsampling": "4:4:4"}),
    Peer("WEBP", "webp", {"method": 6}),
    Peer("AVIF", "avif", {"speed": 4, "max_threads": 1, "subsampling": "4:4:4"}, {"subsampling": "4:0:0"}),
)


def measure(image: Image.Image, encode: Callable[[], bytes], decode: Callable[[bytes], Image.Image]) -> Point:
    """Encode and decode one RGB or L image once, both timed. Raises what the codec raises."""
    start = time.perf_counter()
    data = encode()
    middle = time.perf_counter()
    decoded = np.asarray(decode(data).convert("RGB"))  # Pillow decodes no earlier than here
    end = time.perf_counter()
    quality = min(psnr(np.asarray(image.convert("RGB")), decoded), LOSSLESS)
    return Point(len(data), bits_per_pixel(len(data), *image.size), quality, middle - start, end - middle)


def ours(image: Image.Image, quality: float, *, qp: int | None = None, **options: Any) -> Point:
    """Our codec on one RGB or L image, by library calls. options: model and threads, as for codec.encode.

    A corner goes through it first, untimed: loading a network is paid once a process, not once a picture.
    """
    corner = codec.encode(image.crop((0, 0, min(64, image.width), min(64, image.height))), quality, qp=qp, **options)
    codec.decode(corner, **options)
    return measure(
        image, lambda: codec.encode(image, quality, qp=qp, **options), lambda data: codec.decode(data, **options)
    )


def at_psnr(image: Image.Image, peer: Peer, target: float) -> tuple[int, Point]:
    """The lowest quality (0..100) at which a peer reaches `target` dB, or 100, and what it gives there.

    Raises Absent.
    """
    seen: dict[int, Point] = {}
    low, high, guess = 0, 100, 50  # bisection would take seven AVIF files, a step along the slope takes three or four
    while low < high:
        seen[guess] = peer.measure(image, guess)
        missing = target - seen[guess].psnr
        low, high = (low, guess) if missing <= 0 else (guess + 1, high)
        guess = max(low, min(guess + math.ceil(missing / SLOPE), high - 1))
    return high, seen.get(high) or peer.measure(image, high)


def of_size(image: Image.Image, peer: Peer, size: int) -> tuple[int, Point]:
    """The best quality (1..100) at which a peer's file has at most `size` bytes, and what it gives there.

    1 where all files have more. Raises Absent.
    """
    quality = bisect_right(range(1, 101), size, key=lambda q: len(peer.encode(image, q))) or 1
    return quality, peer.measure(image, quality)


def line(name: str, point: Point, reference: Point | None = None) -> str:
    """One line of the table; bytes against `reference` in percent where there is one."""
    more = f"{percent(point, reference):+8.1f} %" if reference else ""
    return (
        f"{name:<12}{point.bytes:>9,}{point.bpp:>8.3f}{point.psnr:>9.2f}"
        f"{point.encode_s:>9.2f}{point.decode_s:>9.2f}{more:>12}"
    )


def percent(point: Point, reference: Point) -> float:
    """How many percent more bytes than the reference's."""
    return 100 * (point.bytes / reference.bytes - 1)


def against(
    reference: Point, search: Callable[[Peer], tuple[int, Point]], say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """What a search finds for each peer, told line by line as it comes; by the peer's name, for JSON."""
    found: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        try:
            quality, point = search(peer)
        except Absent as reason:
            say(f"{peer.name:<12}absent: {reason}")
            found[peer.name] = {"absent": str(reason)}
        else:
            say(line(f"{peer.name} q{quality}", point, reference))
            found[peer.name] = {"quality": quality, **asdict(point), "percent": round(percent(point, reference), 2)}
    return found


def compare(
    source: picture.Source,
    quality: float = 50,
    *,
    qp: int | None = None,
    same_size: bool = False,
    model: str | Path | None = None,
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The table, line by line to `say`, and the same for JSON.

    Arguments as for codec.encode; alpha is left out. Each peer is taken at its lowest quality that reaches our PSNR;
    with same_size also at its best quality whose file is no larger than ours. Raises what codec.encode raises.
    """
    bundle = find(model)
    loaded = picture.load(source)
    colours = Image.fromarray(loaded.rgb)
    image = colours.convert("L") if loaded.grey else colours  # as one channel: what grey costs least in, for all
    point = ours(image, quality, qp=qp, model=bundle.path, threads=threads)
    say(HEADER)
    say(line(bundle.name, point))
    made: dict[str, Any] = {
        "width": image.width, "height": image.height, "grey": loaded.grey, "model": bundle.entropy_id.hex(),
        "qp": codec.quality_to_qp(quality) if qp is None else qp, "ours": asdict(point),
    }  # fmt: skip
    made["same_psnr"] = against(point, lambda peer: at_psnr(image, peer, point.psnr), say)
    short = [name for name, at in made["same_psnr"].items() if at.get("psnr", math.inf) < point.psnr]
    if same_size:
        say("at most our size:")
        made["same_size"] = against(point, lambda peer: of_size(image, peer, point.bytes), say)
        large = [name for name, at in made["same_size"].items() if at.get("bytes", 0) > point.bytes]
    say("The others at the lowest quality that reaches our PSNR. Seconds of library calls, the network loaded.")
    if short:
        say(f"Not reached by {', '.join(short)} at its best quality.")
    if same_size and large:
        say(f"Larger than ours even at its worst quality: {', '.join(large)}.")
    return made
