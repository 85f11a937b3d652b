"""python -m bench.demo: one photograph through `codec encode` and `codec decode`, beside JPEG, WebP and AVIF.

Needs no torch and no network: the photograph (coffee.png, CC0, by Rachel Michetti) lies in scikit-image's wheel.
Leaves the files and side-by-side.png in demo/ and prints a table.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from codec.compare import HEADER, PEERS, Absent, Point, at_psnr, line, of_size
from rate import bits_per_pixel, psnr
from rate.options import Parser

CAPTION = 34  # pixels of height
ZOOM = 3
CORNER = (0.42, 0.50)  # of the enlarged part, as fractions of width and height: spoon, saucer and wood


def sample() -> Path:
    """The photograph in scikit-image's wheel. Raises ImportError without scikit-image."""
    return Path(str(resources.files("skimage.data") / "coffee.png"))


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


def ours(original: Path, folder: Path, quality: float) -> tuple[Point, Image.Image]:
    """The photograph through the two commands, by way of files in `folder`."""
    coded, decoded = folder / "ours.mlic", folder / "ours.png"
    encode_s = seconds("encode", "-q", f"{quality:g}", original, coded)
    decode_s = seconds("decode", coded, decoded)
    before, after = (Image.open(path).convert("RGB") for path in (original, decoded))
    size = coded.stat().st_size
    alike = psnr(np.asarray(before), np.asarray(after))
    return Point(size, bits_per_pixel(size, *before.size), alike, encode_s, decode_s), after


def side_by_side(panels: list[tuple[str, Image.Image]]) -> Image.Image:
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


def demo(original: Path, folder: Path, quality: float) -> None:
    """Everything: encode, decode, compare, print, write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = Image.open(original).convert("RGB")
    picture.save(folder / "original.png")
    point, decoded = ours(folder / "original.png", folder, quality)
    print(f"{original.name}, {picture.width}x{picture.height}, codec encode -q {quality:g}\n")
    print(HEADER)
    print(line("mlicv2-s", point), flush=True)
    short = []
    for peer in PEERS:
        level, reached = at_psnr(picture, peer, point.psnr)
        short += [peer.name] if reached.psnr < point.psnr else []
        print(line(f"{peer.name} q{level}", reached, point), flush=True)
    print("\nThe others at the lowest quality that reaches our PSNR. Times: ours of the whole command, start and files")
    print("included; theirs of the library call.")
    if short:
        print(f"Not reached by {', '.join(short)} at its best quality.")

    level, jpeg = of_size(picture, PEERS[0], point.bytes)
    data = PEERS[0].encode(picture, level)
    (folder / "jpeg-same-bytes.jpg").write_bytes(data)
    sheet = side_by_side(
        [
            (f"original, {picture.width}x{picture.height}", picture),
            (f"mlicv2-s: {point.bytes:,} bytes, {point.psnr:.2f} dB", decoded),
            (f"JPEG q{level}: {jpeg.bytes:,} bytes, {jpeg.psnr:.2f} dB", Image.open(io.BytesIO(data)).convert("RGB")),
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
    parser = Parser(prog="python -m bench.demo", description="One photograph through our codec.")
    parser.add_argument("-q", "--quality", type=float, default=50, help="0..100 [50]")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="another photograph")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo"), help="where the files go [demo]")
    args = parser.parse_args(arguments)
    try:
        demo(args.picture or sample(), args.out, args.quality)
    except (OSError, ImportError, RuntimeError, Absent) as error:
        print(f"bench.demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
