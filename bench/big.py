"""Suite `big`: pictures of 12.5 to 100 megapixels, as whole processes: seconds, and memory at the peak.

    python -m bench big --json FILE

A photograph, repeated with its mirrorings; a PPM encoded, decoded to a PPM (which cost next to nothing to read and to
write), and a region of it decoded. Also what tiles cost at a size that fits one piece.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import codec
from rate import psnr

from .demo import seconds
from .process import command, peak, photograph
from .report import Row, report, row

SIDES = ((4096, 3072), (8192, 3072), (8192, 6144), (12288, 8192))  # the area doubles each time


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", metavar="NAME|FILE", help="model bundle [the default one]")


def picture(width: int, height: int) -> Image.Image:
    """RGB, of a photograph's statistics at any size."""
    part = np.asarray(photograph())
    both = np.concatenate((part, part[:, ::-1]), 1)
    block = np.concatenate((both, both[::-1]), 0)
    h, w = block.shape[:2]
    return Image.fromarray(np.tile(block, (-(-height // h), -(-width // w), 1))[:height, :width])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the commands and give the report."""
    model = ["--model", args.model] if args.model else []
    rows: list[Row] = []
    before: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, file, target = (Path(folder) / name for name in ("a.ppm", "a.mlic", "b.ppm"))
        for width, height in SIDES:
            picture(width, height).save(source)
            megapixels = width * height / 1e6
            commands: dict[str, list[str | Path]] = {
                "encode": [source, file],
                "decode": [file, target],
                "region": [file, target, "--crop", "1000,1000,1024,768"],
            }
            for verb, arguments in commands.items():
                words = ["encode" if verb == "encode" else "decode", *map(str, arguments), "--quiet", *model]
                took = seconds(command(), *words)
                name = f"big/{megapixels:.1f}MP/{verb}"
                rows += [row(f"{name}/s", took, "s", 2), row(f"{name}/peak", peak(*words), "MiB", 0)]
                if verb in before:
                    rows.append(row(f"{name}/vs-half", took / before[verb], "times", 3))
                before[verb] = took
    rows += tiling(args.model)
    for r in rows:
        print(f"{r['name']:40} {r['value']:>8} {r['unit']}")
    return report("big", rows)


def tiling(model: str | None) -> list[Row]:
    """Tiles of 1024 against one piece, 2048x1536: bytes and quality, and quality along the borders."""
    original = np.asarray(photograph().resize((2048, 1536), Image.Resampling.LANCZOS))
    rows = []
    near = np.zeros(original.shape[:2], bool)
    near[:, 1020:1028] = near[764:772] = True
    for qp in (9, 27, 45):
        files = {side: codec.encode(original, qp=qp, tile=side, model=model) for side in (0, 1024)}
        shown = {side: np.asarray(codec.decode(data, model=model)) for side, data in files.items()}
        gap = [
            psnr(original[where][None], shown[1024][where][None]) - psnr(original[where][None], shown[0][where][None])
            for where in (near, ~near)
        ]
        rows += [
            row(f"big/tiles/qp{qp}/bytes", 100 * (len(files[1024]) / len(files[0]) - 1), "% more", 2),
            row(f"big/tiles/qp{qp}/psnr", psnr(original, shown[1024]) - psnr(original, shown[0]), "dB", 3),
            row(f"big/tiles/qp{qp}/seam", gap[0] - gap[1], "dB", 3),
        ]
    return rows
