"""Suite `process`: what `codec encode` and `codec decode` cost from process start to finished file.

    python -m bench process --json FILE

A 768x512 photograph, whole processes in turn, medians; peak memory is the largest process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from .demo import command, seconds
from .report import report, row

SIZE = (768, 512)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", metavar="NAME|FILE", help="model bundle [the default one]")
    parser.add_argument("--runs", metavar="N", type=int, default=9, help="counted runs of each command [9]")


def photograph() -> Image.Image:
    """A photograph of SIZE: astronaut.png of scikit-image's wheel, enlarged. Raises ImportError without it."""
    path = Path(str(resources.files("skimage.data") / "astronaut.png"))
    return Image.open(path).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)


# A child's peak begins at the memory of the process that started it, so a small one has to.
LAUNCHER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak(*arguments: str | Path) -> float:
    """MiB that `codec` with these arguments needed at most. Raises CalledProcessError if it fails."""
    line = [sys.executable, "-S", "-c", LAUNCHER, command(), *map(str, arguments)]
    return int(subprocess.run(line, check=True, capture_output=True, text=True).stdout) / 1024


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the commands and give the report."""
    model = ["--model", args.model] if args.model else []
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    with tempfile.TemporaryDirectory() as folder:
        source, file, target = (Path(folder) / name for name in ("a.png", "a.mlic", "b.png"))
        photograph().save(source)
        for _ in range(args.runs + 1):  # the first finds cold caches and does not count
            times["encode"].append(seconds("encode", source, file, *model))
            times["decode"].append(seconds("decode", file, target, *model))
        most = max(peak("encode", source, file, *model), peak("decode", file, target, *model))
    rows = [row(f"process/{what}/wall", statistics.median(t[1:]), "s") for what, t in times.items()]
    rows.append(row("process/peak", most, "MiB", 1))
    for r in rows:
        print(f"{r['name']:24}{r['value']:9.3f} {r['unit']}")
    return report("process", rows)
