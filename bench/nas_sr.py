"""Suite `nas-sr`: searched networks for super-resolution, and what they have to beat, on Set5 and Set14.

    python -m bench nas-sr --data DIR --out RUNS --json FILE

Searches on DIR/photos for a budget of bit operations, by several seeds, against noise and directly; trains what each
found, uniform networks, the hand rule, what greed makes of 8 bits and random architectures of equal cost by the same
schedule and seeds; judges all on DIR/sr/Set5 and DIR/sr/Set14. RUNS keeps everything: the same command goes on. Rows
nas-sr/NAME/gbitops, nas-sr/NAME/SET in dB (means over seeds; found networks have a seed of their own each) and
nas-sr/NAME/SET/deviation.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rate import data_dir

from .report import Row, report, row

SETS = ("Set5", "Set14")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS")
    parser.add_argument("--space", default="sr-basic", metavar="NAME", help="[sr-basic]")
    parser.add_argument("--scale", default="4", metavar="N", help="[4]")
    parser.add_argument("--width", metavar="C", help="[the paper's]")
    parser.add_argument("--cells", metavar="N", help="[the paper's]")
    parser.add_argument("--target-bitops", default="2.74G", metavar="N", help="[2.74G, what the hand rule costs]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="[3]")
    parser.add_argument("--jobs", default="1", metavar="N", help="trials at a time [1]")
    parser.add_argument("--steps", default="50", metavar="N", help="of an epoch [50]")
    parser.add_argument("--search-epochs", default="24", metavar="N", help="[24]")
    parser.add_argument("--train-epochs", default="60", metavar="N", help="[60]")
    parser.add_argument("--batch", default="8", metavar="N", help="[8]")
    parser.add_argument("--crop", default="32", metavar="N", help="[32]")
    parser.add_argument("--random", type=int, default=3, metavar="N", help="random architectures [3]")


def command(main: Any, arguments: list[str]) -> None:
    """As on the command line. Raises ValueError where that fails."""
    print(" ".join(arguments), file=sys.stderr)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            status = main(arguments)
        except SystemExit as wrong:  # of options
            status = wrong.code
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise ValueError(said.getvalue().strip())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, train, judge, and give the report."""
    from nas import baselines, search, train
    from nas import eval as judging
    from nas.runs import number

    data = data_dir(args.data)
    space = ["--space", args.space, "--scale", args.scale]
    space += [x for n in ("width", "cells") if getattr(args, n) for x in (f"--{n}", getattr(args, n))]
    work = ["--data", str(data / "photos"), "--batch", args.batch, "--crop", args.crop, "--steps", args.steps]
    work += ["--jobs", args.jobs]
    budget, seeds = args.target_bitops, str(args.seeds)
    nets: dict[str, list[tuple[Path, list[int]]]] = {}  # architectures of a name, and the seeds they are trained by
    for name in ("noise", "fake"):
        folder = args.out / f"search-{name}"
        more = ["--target-bitops", budget, "--seeds", seeds, "--epochs", args.search_epochs, "--search", name]
        more += ["--warmup", str(int(args.search_epochs) // 4)]
        command(search.main, [*space, *work, "--out", str(folder), *more])
        found = folder / search.name_of(number(budget))
        key = {"noise": "searched", "fake": "searched-directly"}[name]
        nets[key] = [(found / f"seed-{i}" / "arch.json", [i]) for i in range(args.seeds)]
    folder = args.out / "baselines"
    command(
        baselines.main, [*space, "--out", str(folder), "--bitops", budget, "--random", str(args.random)]
    )  # fmt: skip
    for path in sorted(folder.glob("*.json")):
        name, one = path.stem.rpartition("-")[0] if path.stem.startswith("random") else path.stem, [0]
        nets.setdefault(name, []).append((path, one if name == "random" else list(range(args.seeds))))

    def trained(name: str) -> list[Path]:
        folders = []
        for i, (path, of) in enumerate(nets[name]):
            out = args.out / "nets" / name / str(i)
            # A found network is trained by the seed that found it.
            options = ["--epochs", args.train_epochs, "--seeds", str(len(of)), "--first-seed", str(of[0])]
            command(train.main, [str(path), *work, "--out", str(out), *options])
            folders += [out / f"seed-{seed}" for seed in of]
        return folders

    widest, folder = trained("uniform-8")[0], args.out / "greedy"
    greedy = ["--bitops", budget, "--random", "0", "--greedy", str(widest), "--data", str(data / "photos")]
    command(baselines.main, [*space, "--out", str(folder), *greedy])
    nets["greedy"] = [(folder / "greedy.json", list(range(args.seeds)))]
    rows: list[Row] = []
    for name in nets:
        folders = trained(name)
        for pictures in SETS:
            file = args.out / "nets" / name / f"{pictures}.json"
            where = ["--pictures", str(data / "sr" / pictures), "--json", str(file)]
            command(judging.main, [*map(str, folders), *where])
            scores = json.loads(file.read_text()).values()
            means = [s["mean"] for s in scores]
            if pictures == SETS[0]:
                rows.append(row(f"nas-sr/{name}/gbitops", statistics.mean(s["gbitops"] for s in scores), "G", 3))
            rows.append(row(f"nas-sr/{name}/{pictures}", statistics.mean(means), "dB", 2))
            if len(means) > 1:
                rows.append(row(f"nas-sr/{name}/{pictures}/deviation", statistics.stdev(means), "dB", 2))
    return report("nas-sr", rows)
