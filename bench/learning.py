"""Suite `learning`: BD-rate of bundles from different moments of training.

    python -m bench learning --pictures FOLDER --anchors results/rd.json --json results/learning.json 800=a.safetensors

Each point is CROPS=BUNDLE, crops of 256x256 seen until then, or CROPS=REPORT with the curve `ours` of a report of
`bench rd`; the anchors are the other curves of such a report on the same pictures. `python -m bench.readme` makes the
README's table of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rate import compare

from . import codecs, curves, rd
from .measure import measure
from .report import report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--pictures", metavar="FOLDER", type=Path, required=True)
    parser.add_argument("--anchors", metavar="FILE", type=Path, required=True, help="results.json of the suite rd")
    parser.add_argument("--keep", metavar="FILE", type=Path, help="an earlier result, whose rows come first")
    parser.add_argument("bundles", nargs="+", metavar="CROPS=BUNDLE")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _pairs(levels: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [at["bpp"] for at in levels], [at["psnr"] for at in levels]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the bundles and give the report."""
    pictures = rd.load(args.pictures)
    before = _read(args.anchors)
    anchors = {name: _pairs(levels) for name, levels in before["curves"].items() if name != "ours"}
    anchors |= {name: (c["bpp"], c["psnr"]) for name, c in before["published"].items()}
    pixels = {name: p.width * p.height for name, p in pictures.items()}
    rows = _read(args.keep)["rows"] if args.keep else []
    for point in args.bundles:
        crops, _, bundle = point.partition("=")
        if bundle.endswith(".json"):
            made = _read(Path(bundle))["curves"]["ours"]
        else:
            ours = codecs.find(("ours", bundle, "native"))
            measured: curves.Measured = {
                str(qp): {name: measure(p, ours, qp) for name, p in pictures.items()} for qp in ours.levels
            }
            made = curves.curve(measured, pixels)
        for name, anchor in anchors.items():
            found = compare(*anchor, *_pairs(made))
            rows.append(row(f"learning/{int(crops)}/{name}", found.rate, "%", 2))
            print(f"{rows[-1]['name']:28}{found.rate or float('nan'):+8.2f} %", file=sys.stderr)
    return report("learning", rows, pictures=len(pictures))
