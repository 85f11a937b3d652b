"""Suite `learning`: BD-rate of bundles from different moments of training.

    python -m bench learning --peers results/peers_kodak.json --json results/learning.json 800=a.safetensors ...

Each point is CROPS=BUNDLE, crops of 256x256 seen until then. `python -m bench.readme` makes the README's table of it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import kodak, peers
from .measure import load, sweep
from .report import report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    peers.add_options(parser)
    parser.add_argument("--peers", metavar="FILE", type=Path, required=True, help="results of the suite peers")
    parser.add_argument("bundles", nargs="+", metavar="CROPS=BUNDLE")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the bundles and give the report."""
    where = peers.folder(args)
    pictures = load(where, args.limit)
    others = peers.cached(json.loads(args.peers.read_text(encoding="utf-8")), pictures)
    anchors = {name: kodak.curve(p) for name, p in others.items()} | kodak.published(args, where.name)
    rows = []
    for point in args.bundles:
        crops, _, bundle = point.partition("=")
        ours = kodak.curve(sweep(pictures, kodak.ours(bundle)))
        for r in kodak.bd_rows(where.name, anchors | {"ours": ours}):
            if "/ours-vs-" in r["name"] and r["name"].count("/") == 2:
                name = f"learning/{int(crops)}/{r['name'].rpartition('/ours-vs-')[2]}"
                rows.append(row(name, r["value"], "%", 2))
                print(f"{name:28}{r['value']:+8.2f} %")
    return report("learning", rows, pictures=len(pictures))
