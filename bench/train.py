"""Suite `train`: crops a second of `codec train`, and of the same step by torch's own operators, one by one.

    python -m bench train --json FILE

Whole steps (crops, loss, gradients, clipping, optimizers, averaged weights) on made-up pictures, in turn, medians. Rows
train/MODEL/crops-per-s and train/MODEL/vs-eager are for batches of 256x256 pixels, train/MODEL/trunk/crops-per-s for
those of the trunk, counted as so many crops of 256x256.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .report import Row, report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", default="mlicv2-s", metavar="NAME", help="network to train [mlicv2-s]")
    parser.add_argument("--steps", type=int, default=9, metavar="N", help="counted steps of each kind [9]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="[all cores]")


@contextmanager
def eager(run: Any, threads: int) -> Iterator[None]:
    """Neither our loops, precision nor division of a batch among threads: torch as it comes."""
    from codec.models.ops import TorchOps, products
    from codec.training.step import Gradients

    ours, by_loops = run.gradients, TorchOps.by_loops
    run.gradients = Gradients(run.model, 1)
    TorchOps.by_loops = lambda self, x: False  # type: ignore[method-assign]
    import torch

    torch.set_num_threads(threads)
    try:
        with products("highest"):
            yield
    finally:
        run.gradients, TorchOps.by_loops = ours, by_loops  # type: ignore[method-assign]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps and give the report."""
    import torch

    from codec.config import CONFIGS
    from codec.models.mlicv2 import MLICv2
    from codec.models.ops import fast_precision, products
    from codec.training.data import Photos, to_signal
    from codec.training.run import Run
    from codec.training.schedule import TRUNK_CROPS, Step
    from codec.training.step import Gradients
    from codec.training.train import update

    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (8, 48, 48, 3)).astype(np.uint8)
    photos = Photos([c.repeat(8, 0).repeat(8, 1) for c in coarse], 256)
    torch.set_num_threads(args.threads)
    kinds = {"256": Step(1e-3, 4, 256, False), "trunk": Step(1e-3, *TRUNK_CROPS, False)}
    times: dict[str, list[float]] = {"256": [], "trunk": [], "eager": []}
    with tempfile.TemporaryDirectory() as folder, products(fast_precision("cpu")):
        training = Run(Path(folder), MLICv2(CONFIGS[args.model]), 0)
        training.model.fit_to(to_signal(photos.crops(64, 128, training.rng)))
        training.gradients = Gradients(training.model, args.threads)

        def seconds(step: Step) -> float:
            start = time.perf_counter()
            update(training, photos, step)
            return time.perf_counter() - start

        for number in range(args.steps + 1):
            measured = {kind: seconds(step) for kind, step in kinds.items()}
            with eager(training, args.threads):
                measured["eager"] = seconds(kinds["256"])
            if number:  # the first is a warm-up
                for kind, value in measured.items():
                    times[kind].append(value)

    def crops(step: Step, kind: str) -> float:
        return step.crops * step.size**2 / 65536 / statistics.median(times[kind])

    name = f"train/{args.model}"
    rows: list[Row] = [
        row(f"{name}/crops-per-s", crops(kinds["256"], "256"), "1/s", 2),
        row(f"{name}/trunk/crops-per-s", crops(kinds["trunk"], "trunk"), "1/s", 2),
        row(f"{name}/eager/crops-per-s", crops(kinds["256"], "eager"), "1/s", 2),
        row(f"{name}/vs-eager", statistics.median(times["eager"]) / statistics.median(times["256"]), "times", 2),
    ]
    for r in rows:
        print(f"{r['name']:40} {r['value']:>8} {r['unit']}")
    return report("train", rows, torch=torch.__version__)
