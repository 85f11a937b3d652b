"""Suite `quant-accuracy`: what training in few bits costs in accuracy, on the kernels whose time is told beside it.

    python -m bench quant-accuracy --data DIR --out RUNS --json FILE

Every variant is `python -m quant.train` with the same data, schedule and seeds, one thread each, --jobs at a time; of
3-bit gradients, which tell quantizers apart, with a shorter schedule. Runs are kept in RUNS, and the same command goes
on from there.

accuracy/MODEL/VARIANT/test        mean over seeds: per cent of the test pictures, or bits per character
accuracy/MODEL/VARIANT/deviation   over seeds
accuracy/MODEL/VARIANT/loss        of training, the last epoch's mean
accuracy/MODEL/VARIANT/step        median of a step, with whatever else ran
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rate import data_dir

from .report import Row, report, row

SHIFT = ["--groups", "4"]
RESNET = {"fp32": ["--bits", "32"], "w4a4g4-position-l1": ["--groups", "5", "--scheme", "position"]}
G3 = ["--bits-gradients", "3"]
RESNET_G3 = {
    "w4a4g3-tensor-nearest-l1": [*G3, "--groups", "1", "--rounding", "nearest"],
    "w4a4g3-tensor-l1": [*G3, "--groups", "1"],
    "w4a4g3-shift-l1": [*G3, *SHIFT],
    "w4a4g3-two-sided-l1": [*G3, *SHIFT, "--scheme", "two_sided"],
}
TEXT = ["--data", "text:", "--subset", "2000000", "--batch", "32"]
CHAR = {
    "fp32": ["--bits", "32"],
    "w8a8g8-l2": ["--bits", "8", "--norm", "keep"],
    "w8a8g8-l1": ["--bits", "8"],
    "w6a6g6-two-sided-l2": ["--bits", "6", "--groups", "1", "--scheme", "two_sided", "--norm", "keep"],
}
VARIANTS = {"resnet20": RESNET, "resnet20-g3": RESNET_G3, "char": CHAR}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS", help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="of CIFAR-10 [20]")
    parser.add_argument("--g3-epochs", type=int, default=6, metavar="N", help="of CIFAR-10 with 3-bit gradients [6]")
    parser.add_argument("--text-epochs", type=int, default=2, metavar="N", help="of 2 million characters [2]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="[3]")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="at a time, one thread each [2]")
    parser.add_argument("--models", nargs="+", choices=VARIANTS, default=[*VARIANTS])


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet and give the report."""
    shared = {"char": ["--model", "char", *TEXT, "--epochs", str(args.text_epochs)]}
    if set(args.models) != {"char"}:
        pictures = ["--model", "resnet20", "--data", f"cifar10:{data_dir(args.data) / 'cifar10'}", "--epochs"]
        shared |= {"resnet20": [*pictures, str(args.epochs)], "resnet20-g3": [*pictures, str(args.g3_epochs)]}
    work = [(model, name, options) for model in args.models for name, options in VARIANTS[model].items()]

    def train(job: tuple[str, str, list[str]]) -> dict[str, Any]:
        model, name, options = job
        out = args.out / f"{model}-{name}"
        line = [sys.executable, "-m", "quant.train", "--out", str(out), *shared[model], *options,
                "--seeds", str(args.seeds), "--threads", "1"]  # fmt: skip
        made = subprocess.run(line, capture_output=True, text=True)
        if made.returncode:
            raise ValueError(f"{model} {name}: {made.stderr.strip().splitlines()[-1]}")
        print(f"{model} {name}: {made.stdout.splitlines()[-1].split(': ', 1)[1]}", flush=True)
        return json.loads((out / "result.json").read_text())

    rows: list[Row] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for (model, name, _), found in zip(work, pool.map(train, work), strict=True):
            prefix = f"accuracy/{model}/{name}"
            rows.append(row(f"{prefix}/test", found["mean"], "bit/character" if model == "char" else "%", 3))
            rows.append(row(f"{prefix}/deviation", found["deviation"] or 0.0, "same", 3))
            rows.append(row(f"{prefix}/loss", statistics.mean(found["loss"]), "nats", 4))
            rows.append(row(f"{prefix}/step", statistics.median(found["step_ms"]), "ms", 1))
    schedules = {model: shared[model][4:] for model in args.models}
    return report("quant-accuracy", rows, seeds=args.seeds, jobs=args.jobs, schedules=schedules)
