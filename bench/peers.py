"""Suite `peers`: JPEG, WebP and AVIF as Pillow writes them, picture by picture.

    python -m bench peers --json results/peers_kodak.json

takes minutes, nearly all of them AVIF's; `python -m bench kodak --peers results/peers_kodak.json` then reuses them.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from rate import data_dir

from .measure import (
    COLUMNS,
    PEER_SETTINGS,
    PEERS,
    Picture,
    Points,
    averages,
    from_json,
    libraries,
    load,
    sweep,
    to_json,
)
from .report import Row, report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the suites on picture folders have in common."""
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="folder of lossless pictures [<data>/kodak]")
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N pictures, for a quick look")


def folder(args: argparse.Namespace) -> Path:
    """The folder of pictures that the options name. Raises rate.DataMissing."""
    return Path(args.pictures) if args.pictures else data_dir(args.data) / "kodak"


def measured(pictures: dict[str, Picture]) -> dict[str, Points]:
    """All peers on these pictures, now."""
    return {name: sweep(pictures, codec) for name, codec in PEERS.items()}


def cached(result: dict[str, Any], pictures: dict[str, Picture]) -> dict[str, Points]:
    """The peers of an earlier report, for these pictures alone. Raises ValueError where one is not in it."""
    points = from_json(result["points"])
    chosen: dict[str, Points] = {}
    for name, levels in points.items():
        missing = [who for who in pictures if any(who not in at for at in levels.values())]
        if missing:
            raise ValueError(f"no earlier {name} points of {', '.join(missing)}: measure the peers again")
        chosen[name] = {level: {who: at[who] for who in pictures} for level, at in levels.items()}
    return chosen


def rows_of(pictures: str, points: dict[str, Points]) -> list[Row]:
    """Averages over the set for each codec and level; times are medians over the pictures."""
    rows = []
    for codec, levels in points.items():
        for level, at in levels.items():
            bpp, quality = averages(at.values())
            name = f"{pictures}/{codec}/{level}"
            rows += [row(f"{name}/bpp", bpp, "bit/pixel", 5), row(f"{name}/psnr", quality, "dB")]
            rows += [
                row(f"{name}/encode", statistics.median(p.encode_s for p in at.values()), "s"),
                row(f"{name}/decode", statistics.median(p.decode_s for p in at.values()), "s"),
            ]
    return rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the peers and give the report."""
    where = folder(args)
    points = measured(load(where, args.limit))
    versions = {"libraries": libraries(), "settings": PEER_SETTINGS}
    return report("peers", rows_of(where.name, points), **versions, columns=COLUMNS, points=to_json(points))
