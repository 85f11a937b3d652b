"""Suite `batch`: folders of many small pictures by `codec encode -r`, one thread a job, in one process and in two.

    python -m bench batch --json results/batch.json

1,000 crops of 64 to 160 pixels a side from scikit-image's photographs, as PNG. Each run is the command from its start
to its end, what it costs to start the processes included; the two in turn, medians. It needs two cores that do nothing
else.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .demo import seconds
from .report import report, row

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png")
SIDES = (64, 160)
JOBS = (1, 2)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", metavar="NAME|FILE", help="model bundle [the default one]")
    parser.add_argument("--files", metavar="N", type=int, default=1000, help="pictures [1000]")
    parser.add_argument("--runs", metavar="N", type=int, default=3, help="of each command [3]")


def crops(folder: Path, count: int) -> int:
    """So many pictures, 100 to a folder, always the same; returns their pixels. Raises ImportError without skimage."""
    kept = resources.files("skimage.data")
    photographs = [Image.open(Path(str(kept / name))).convert("RGB") for name in PHOTOGRAPHS]
    random = np.random.default_rng(0)
    pixels = 0
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width, height = (int(side) for side in random.integers(SIDES[0], SIDES[1], 2, endpoint=True))
        left = int(random.integers(photograph.width - width, endpoint=True))
        top = int(random.integers(photograph.height - height, endpoint=True))
        target = folder / str(number // 100) / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        photograph.crop((left, top, left + width, top + height)).save(target)
        pixels += width * height
    return pixels


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the commands and give the report. Raises ValueError if they do not make the same files."""
    if args.files < max(JOBS) or args.runs < 1:
        raise ValueError(f"--files is at least {max(JOBS)}, --runs at least 1")
    options = ["-r", "-j", 1, "--quiet", *(["--model", args.model] if args.model else [])]
    times: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    with tempfile.TemporaryDirectory() as scratch:
        source, *outs = (Path(scratch) / name for name in ("in", *(f"out{jobs}" for jobs in JOBS)))
        pixels = crops(source, args.files)
        for _ in range(args.runs):
            for jobs, out in zip(JOBS, outs, strict=True):
                shutil.rmtree(out, ignore_errors=True)
                times[jobs].append(seconds("encode", source, out, "--jobs", str(jobs), *map(str, options)))
        made = [{p.relative_to(out): p.read_bytes() for p in out.rglob("*.mlic")} for out in outs]
    if len(made[0]) != args.files or any(files != made[0] for files in made):
        raise ValueError("the commands did not make the same files")
    rows = []
    middle = {jobs: statistics.median(t) for jobs, t in times.items()}
    for jobs, wall in middle.items():
        rows.append(row(f"batch/jobs-{jobs}/files-per-s", args.files / wall, "files/s", 2))
        rows.append(row(f"batch/jobs-{jobs}/mp-per-s", pixels / 1e6 / wall, "MP/s"))
    rows.append(row("batch/speedup", middle[JOBS[0]] / middle[JOBS[-1]], "times", 3))
    for r in rows:
        print(f"{r['name']:28}{r['value']:9.3f} {r['unit']}")
    return report("batch", rows, files=args.files, pixels=pixels, seconds={str(j): t for j, t in times.items()})
