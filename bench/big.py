"""Suite `big`: pictures of 12.5 to 100 megapixels, as whole processes: seconds, and memory at the peak.

    python -m bench big --json FILE

A photograph, repeated with its mirrorings; a PPM encoded, decoded to a PPM (which cost next to nothing to read and to
write), and a region of it decoded. Also what tiles of 256 pixels cost on photographs that fit one piece.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import codec
from codec.tiles import tile_for

from .batch import PHOTOGRAPHS
from .demo import seconds
from .process import peak, photograph
from .report import Row, report, row

TILE = 256
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
                took = seconds(*words)
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
    """Tiles against one piece, on three photographs as they are: bytes and PSNR, within four pixels of borders and
    elsewhere. Small tiles, so that there are borders enough to measure."""
    rows = []
    for qp in (9, 27, 45):
        sizes, errors = np.zeros(2), np.zeros((2, 2))  # whole, in tiles; elsewhere, near
        for original in photographs():
            width, height = original.shape[1], original.shape[0]
            w, h = tile_for(width, height, TILE) or (width, height)
            x, y = np.arange(width), np.arange(height)
            near = np.minimum(*((a + 4) % side for a, side in ((x[None, :], w), (y[:, None], h)))) < 8
            near[:4] = near[:, :4] = False
            for i, side in enumerate((0, TILE)):
                data = codec.encode(original, qp=qp, tile=side, model=model)
                error = np.square(np.asarray(codec.decode(data, model=model)).astype(float) - original).mean(2)
                sizes[i] += len(data)
                errors[i] += error[~near].sum(), error[near].sum()
        far, close = 10 * np.log10(errors[0] / errors[1])
        rows += [
            row(f"big/tiles/qp{qp}/bytes", 100 * (sizes[1] / sizes[0] - 1), "% more", 2),
            row(f"big/tiles/qp{qp}/psnr", 10 * np.log10(errors[0].sum() / errors[1].sum()), "dB", 3),
            row(f"big/tiles/qp{qp}/seam", close - far, "dB", 3),
        ]
    return rows


def photographs() -> list[np.ndarray]:
    """uint8 [H, W, 3], of scikit-image's wheel. Raises ImportError without it."""
    kept = resources.files("skimage.data")
    return [np.asarray(Image.open(Path(str(kept / name))).convert("RGB")) for name in PHOTOGRAPHS]
