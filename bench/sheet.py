"""Suite `sheet`: parts of decoded pictures, enlarged, beside the original and another codec's at the same size.

    python -m bench sheet --data DIR --out docs/contact-sheet.webp

Sheets are for eyes: edges of blocks, shifted colours, rings around what is flat. The parts are chosen once, where such
would show; the rows sheet/PICTURE/CODEC/... are of whole pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from codec import picture as pictures
from rate import bits_per_pixel, data_dir, psnr

from . import codecs, viewer
from .report import Row, report, row

# Left and top of the part, in Kodak's pictures: sky and edges, hair, blur and feathers, a fence, water, a slope.
PARTS = {
    "kodim20": (250, 190),
    "kodim04": (150, 150),
    "kodim23": (470, 60),
    "kodim19": (90, 420),
    "kodim12": (300, 250),
    "kodim08": (60, 60),
}
SIDE, TIMES, LINE = 144, 2, 14  # pixels of a part, how much larger they are shown, and a label's height


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a picture, of any kind Pillow writes")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.2, 0.5], metavar="BPP", help="[0.2 0.5]")
    others = [name for name in codecs.NAMES if name not in ("ours", "compressai", "command")]
    parser.add_argument("--against", default="avif", choices=others, help="[avif]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Code, cut, and write the sheet. Raises FileNotFoundError without Kodak's pictures or a folder for the sheet,
    ValueError for a kind of picture Pillow does not write, and codecs.Absent."""
    if args.out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out {args.out}: not the name of a picture")
    if not args.out.parent.is_dir():
        raise FileNotFoundError(f"--out {args.out}: no such folder")
    ours, other = codecs.find(("ours",)), codecs.find((args.against,))
    rows: list[Row] = []
    columns = 1 + 2 * len(args.bpp)
    cell = SIDE * TIMES, SIDE * TIMES + LINE
    sheet = Image.new("RGB", (columns * cell[0], len(PARTS) * cell[1]), "white")
    for down, (name, (left, top)) in enumerate(PARTS.items()):
        picture = Image.fromarray(pictures.load(data_dir(args.data) / "kodak" / f"{name}.png").rgb)
        shown = [("original", picture)]
        sizes = {c.name: {level: len(c.encode(picture, level)) for level in c.levels} for c in (ours, other)}
        for bpp in args.bpp:
            data = viewer.nearest(ours, picture, bpp, sizes[ours.name])[1]
            rate = bits_per_pixel(len(data), *picture.size)  # the other at our size, which is the nearest to bpp
            for codec, file in ((ours, data), (other, viewer.nearest(other, picture, rate, sizes[other.name])[1])):
                decoded = codec.decode(file).convert("RGB")
                quality = psnr(np.asarray(picture), np.asarray(decoded))
                shown.append((f"{codec.name}, {len(file):,} bytes, {quality:.2f} dB", decoded))
                rows.append(row(f"sheet/{name}/{codec.name}/{bpp}/bytes", len(file), "byte", 0))
                rows.append(row(f"sheet/{name}/{codec.name}/{bpp}/psnr", quality, "dB", 2))
        for across, (label, decoded) in enumerate(shown):
            part = decoded.crop((left, top, left + SIDE, top + SIDE))
            at = across * cell[0], down * cell[1]
            sheet.paste(part.resize((cell[0], cell[0]), Image.Resampling.NEAREST), (at[0], at[1] + LINE))
            ImageDraw.Draw(sheet).text((at[0] + 2, at[1] + 1), f"{name}: {label}" if not across else label, "black")
    sheet.save(args.out, quality=88)
    print(f"wrote {args.out}")
    return report("sheet", rows)
