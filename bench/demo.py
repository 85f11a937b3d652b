"""python -m bench.demo: one photograph through `codec encode` and `codec decode`, beside JPEG, WebP and AVIF.

Needs no torch and no network: the photograph (coffee.png, CC0, by Rachel Michetti) lies in scikit-image's wheel.
Leaves the files and side-by-side.png in demo/ and prints a table.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rate import bits_per_pixel, psnr

from . import codecs
from .measure import Picture, Point, measure

PEERS = ("jpeg", "webp", "avif")
CAPTION = 34  # pixels of height
ZOOM = 3
SLOPE = 0.2  # dB per quality step, roughly, of all three peers
CORNER = (0.42, 0.50)  # of the enlarged part, as fractions of width and height: spoon, saucer and wood


def sample() -> Path:
    """The photograph in scikit-image's wheel. Raises ImportError without scikit-image."""
    return Path(str(resources.files("skimage.data") / "coffee.png"))


def smallest(low: int, high: int, true_from: Callable[[int], bool]) -> int:
    """The smallest integer of low..high at which a condition that stays true holds; high where it never does."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if true_from(middle) else (middle + 1, high)
    return low


def command() -> str:
    """The console script `codec`: of this environment if it is there. Raises FileNotFoundError."""
    found = shutil.which("codec", path=str(Path(sys.executable).parent)) or shutil.which("codec")
    if not found:
        raise FileNotFoundError("no `codec` command: pip install the package first")
    return found


def seconds(*arguments: str | Path) -> float:
    """Run `codec` with these arguments; wall-clock seconds of the whole command. Raises RuntimeError if it fails."""
    line = [command(), *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`codec {' '.join(line[1:])}` failed with status {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - start


def ours(original: Path, folder: Path, quality: float) -> tuple[Point, Picture]:
    """The photograph through the two commands, by way of files in `folder`."""
    coded, decoded = folder / "ours.mlic", folder / "ours.png"
    encode_s = seconds("encode", "-q", f"{quality:g}", original, coded)
    decode_s = seconds("decode", coded, decoded)
    before, after = (Image.open(path).convert("RGB") for path in (original, decoded))
    size = coded.stat().st_size
    bpp = bits_per_pixel(size, *before.size)
    alike = {"psnr": psnr(np.asarray(before), np.asarray(after))}
    return Point(size, bpp, encode_s, decode_s, alike), after


def at_psnr(picture: Picture, name: str, target: float) -> tuple[int, Point]:
    """The lowest quality (0..100) at which a peer reaches `target` dB, or 100, and what it gives there."""
    codec, seen = codecs.find((name,)), {}
    low, high, guess = 0, 100, 50  # bisection would take seven AVIF files, a step along the slope takes three or four
    while low < high:
        seen[guess] = measure(picture, codec, guess)
        missing = target - seen[guess].psnr
        low, high = (low, guess) if missing <= 0 else (guess + 1, high)
        guess = max(low, min(guess + math.ceil(missing / SLOPE), high - 1))
    return high, seen.get(high) or measure(picture, codec, high)


def jpeg_of_size(picture: Picture, size: int) -> tuple[int, bytes]:
    """Quality and file of the best JPEG of at most `size` bytes (of quality 1 where all are larger)."""
    jpeg = codecs.find(("jpeg",))
    quality = smallest(2, 101, lambda q: len(jpeg.encode(picture, q)) > size) - 1
    return quality, jpeg.encode(picture, quality)


def side_by_side(panels: list[tuple[str, Picture]]) -> Picture:
    """Pictures of one size next to each other under their captions, and below each the same part enlarged."""
    width, height = panels[0][1].size
    part = (width // ZOOM, height // ZOOM)
    left, top = (int(fraction * side) for fraction, side in zip(CORNER, (width, height), strict=True))
    box = (left, top, left + part[0], top + part[1])
    gap = 6
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, CAPTION + 2 * height + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for number, (caption, picture) in enumerate(panels):
        x = number * (width + gap)
        draw.text((x + 4, 5), caption, fill="black", font=font)
        sheet.paste(picture, (x, CAPTION))
        enlarged = picture.crop(box).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (x, CAPTION + height + gap))
    return sheet


def line(name: str, point: Point, reference: Point | None = None) -> str:
    """One line of the table; bytes against `reference` in percent where there is one."""
    more = f"{100 * (point.bytes / reference.bytes - 1):+8.1f} %" if reference else ""
    return (
        f"{name:<12}{point.bytes:>9,}{point.bpp:>8.3f}{point.psnr:>9.2f}"
        f"{point.encode_s:>9.2f}{point.decode_s:>9.2f}{more:>12}"
    )


def demo(original: Path, folder: Path, quality: float) -> None:
    """Everything: encode, decode, compare, print, write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.open(original).convert("RGB")
    picture.save(folder / "original.png")
    point, decoded = ours(folder / "original.png", folder, quality)
    print(f"{original.name}, {picture.width}x{picture.height}, codec encode -q {quality:g}\n")
    print(f"{'codec':<12}{'bytes':>9}{'bpp':>8}{'PSNR dB':>9}{'enc s':>9}{'dec s':>9}{'than ours':>12}")
    print(line("mlicv2-s", point), flush=True)
    short = []
    for name in PEERS:
        level, peer = at_psnr(picture, name, point.psnr)
        short += [name.upper()] if peer.psnr < point.psnr else []
        print(line(f"{name.upper()} q{level}", peer, point), flush=True)
    print("\nThe others at the lowest quality that reaches our PSNR. Times: ours of the whole command, start and files")
    print("included; theirs of the library call.")
    if short:
        print(f"Not reached by {', '.join(short)} at its best quality.")

    level, data = jpeg_of_size(picture, point.bytes)
    (folder / "jpeg-same-bytes.jpg").write_bytes(data)
    jpeg = Image.open(folder / "jpeg-same-bytes.jpg").convert("RGB")
    jpeg_psnr = psnr(np.asarray(picture), np.asarray(jpeg))
    sheet = side_by_side(
        [
            (f"original, {picture.width}x{picture.height}", picture),
            (f"mlicv2-s: {point.bytes:,} bytes, {point.psnr:.2f} dB", decoded),
            (f"JPEG q{level}: {len(data):,} bytes, {jpeg_psnr:.2f} dB", jpeg),
        ]
    )
    sheet.save(folder / "side-by-side.png")
    print(f"\nIn {folder}/:")
    for name, what in (
        ("original.png", "the photograph"),
        ("ours.mlic", "compressed"),
        ("ours.png", "and decompressed"),
        ("jpeg-same-bytes.jpg", "JPEG of at most as many bytes"),
        ("side-by-side.png", f"the three, and a part enlarged {ZOOM} times"),
    ):
        print(f"  {name:<20} {what}")


def main(arguments: list[str] | None = None) -> int:
    """Run the demo. Exit status 1 with one line on stderr where something is missing or fails."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description="One photograph through our codec.")
    parser.add_argument("-q", "--quality", type=float, default=50, help="0..100 [50]")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="another photograph")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="where the files go [demo]")
    args = parser.parse_args(arguments)
    try:
        demo(args.picture or sample(), args.out, args.quality)
    except (OSError, ImportError, RuntimeError) as error:
        print(f"bench.demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
