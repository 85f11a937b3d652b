"""Suite `probes`: networks whose widths and depths differ, each trained from nothing for equal time, by one seed.

    python -m bench probes --data DIR --out RUNS --minutes 25 --json FILE

The first three fifths of the time are a trunk, the rest a branch off it, as of a release. RUNS keeps the runs: the same
command goes on. Rates are on held-out photographs, at the QPs of codec.training.held_out. Rows probes/NAME/crops,
probes/NAME/kmacs (to encode and to decode), probes/NAME/qpN/bpp, probes/NAME/qpN/psnr, and probes/NAME/rate: BD-rate
against the first one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.config import CONFIGS, Config
from rate import bd_rate, data_dir

from .report import Row, report, row


def evenly(c: Config, count: int) -> tuple[int, ...]:
    """Slices of about equal size, multiples of 8."""
    size = c.latents // count // 8 * 8
    return (*[size] * (count - 1), c.latents - size * (count - 1))


PROBES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "as-it-is": lambda c: {},
    "trunk-shallower": lambda c: {"trunk": c.trunk - 1},
    "trunk-narrower-deeper": lambda c: {"trunk": c.trunk + 1, "features": c.features * 3 // 4},
    "context-halved": lambda c: {"context": c.context // 2},
    "context-doubled": lambda c: {"context": c.context * 2},
    "slices-even": lambda c: {"slices": evenly(c, len(c.slices))},
    "slices-three": lambda c: {"slices": (*c.slices[:2], c.latents - sum(c.slices[:2]))},
    "heads-narrower": lambda c: {"head_anchor": c.head_anchor // 2, "head_other": c.head_other // 2},
    "transforms-narrower-deeper": lambda c: {
        "width": c.width * 3 // 4, "analysis": (c.analysis[0] * 2, 1), "synthesis": (2, c.synthesis[1] * 2)
    },
    "transforms-wider-shallower": lambda c: {
        "width": c.width * 3 // 2, "analysis": (c.analysis[0] // 2, 1), "synthesis": (1, c.synthesis[1] // 2)
    },
    "twice-as-large": lambda c: CONFIGS["mlicv2-m"].to_dict(),
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS", help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=25, metavar="N", help="of training for each [25]")
    parser.add_argument("--model", choices=sorted(CONFIGS), default="mlicv2-s", help="what they are changes of")
    parser.add_argument("--probes", nargs="+", choices=PROBES, default=[*PROBES], metavar="NAME", help="[all]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="[all cores]")


def train(args: argparse.Namespace, config: Config, photos: Path) -> list[dict[str, Any]]:
    """Lines of the log of a branch that is at its end."""
    from codec.training import train as training

    trunk, branch = args.out / config.name, args.out / config.name / "release-1"
    shared, hours = [str(trunk), "--data", str(photos), "--threads", str(args.threads)], args.minutes / 60
    CONFIGS[config.name] = config
    try:
        for length in (["--model", config.name, "--hours", str(0.6 * hours)], ["--release", str(0.4 * hours)]):
            if not (branch / "finished").exists() and training.main([*shared, *length]):
                raise KeyboardInterrupt
    finally:
        del CONFIGS[config.name]
    return [json.loads(line) for line in (branch / "log.jsonl").read_text().splitlines()]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet and give the report."""
    from codec.ops.shapes import count

    photos = data_dir(args.data) / "photos"
    rows: list[Row] = []
    first: tuple[list[float], list[float]] | None = None
    base = CONFIGS[args.model]
    for name in args.probes:
        config = Config(**base.to_dict() | PROBES[name](base) | {"name": name})
        log = train(args, config, photos)
        parts = {part: counts.macs / 1000 for part, counts in count(config).items()}
        both = parts["h_s"] + parts["slices"]
        points = next(line["held_out"] for line in reversed(log) if "held_out" in line)
        curve = [p["bpp"] for p in points], [p["psnr"] for p in points]
        first = first or curve
        rows.append(row(f"probes/{name}/crops", max(line["crops"] for line in log), "crops of 256x256", 0))
        rows.append(row(f"probes/{name}/kmacs/encode", both + parts["g_a"] + parts["h_a"], "kMAC/pixel", 2))
        rows.append(row(f"probes/{name}/kmacs/decode", both + parts["g_s"], "kMAC/pixel", 2))
        for p in points:
            rows.append(row(f"probes/{name}/qp{p['qp']}/bpp", p["bpp"], "bit/pixel"))
            rows.append(row(f"probes/{name}/qp{p['qp']}/psnr", p["psnr"], "dB", 2))
        rows.append(row(f"probes/{name}/rate", bd_rate(*first, *curve), "%", 2))
        print(f"{rows[-1]['name']:44} {rows[-1]['value']:>8} %")
    return report("probes", rows)
