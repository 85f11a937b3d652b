"""What a training run shows and writes along the way: by the first process only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from codec.training import distributed, plot
from codec.training.run import Checkpointed

CHECKPOINT_SECONDS, EVALUATE_SECONDS = 180, 1200
LOG_STEPS = 50


class Report:
    """total: what `done` will come to, in units of `unit`; held_out: rate and distortion of the averaged weights."""

    def __init__(self, run: Checkpointed, total: float, done: float, unit: str, held_out: Callable[[], list[dict]]):
        self.run, self.held_out, self.smooth = run, held_out, np.zeros(3)
        shown = distributed.rank() == 0 and sys.stderr.isatty()
        self.bar = tqdm(total=round(total), initial=round(done), unit=unit, disable=not shown)
        self.saved = self.evaluated = run.counts["seconds"]

    def step(self, done: float, values: Sequence[float], rate: float, speed: float, **facts: Any) -> None:
        """values: loss, bits per pixel, PSNR of a batch; rate: of learning; speed: crops of 256x256 a second."""
        counts = self.run.counts
        if np.isfinite(values).all():
            self.smooth = 0.98 * self.smooth + 0.02 * np.array(values) if self.smooth.any() else np.array(values)
        self.bar.update(round(done) - self.bar.n)
        self.bar.set_postfix_str("loss {:.3f} bpp {:.3f} psnr {:.2f}".format(*self.smooth)
                                 + f" crops {counts['crops']:.0f}")  # fmt: skip
        if counts["steps"] % LOG_STEPS == 0:
            named = dict(zip(("loss", "bpp", "psnr"), self.smooth.tolist(), strict=True))
            self.run.log(**named, lr=rate, speed=speed, **facts)
        if counts["seconds"] - self.saved > CHECKPOINT_SECONDS:
            self.run.save()
            self.saved = counts["seconds"]
        if counts["seconds"] - self.evaluated > EVALUATE_SECONDS:
            self.judge()
            self.evaluated = counts["seconds"]

    def judge(self, **fields: Any) -> None:
        """Log and draw how the averaged weights do on held-out pictures."""
        if distributed.rank() == 0:
            self.run.log(held_out=self.held_out(), **fields)
            plot.draw(self.run.folder)

    def end(self, stopped: bool) -> int:
        """Write the checkpoint and say where things are. The exit status."""
        self.run.save()
        if not stopped:
            self.judge(finished=True)
        self.bar.close()
        counts = self.run.counts
        if distributed.rank() == 0:
            print(
                f"{self.run.folder}: {'stopped' if stopped else 'finished'} after {counts['crops']:.0f} crops of "
                f"256x256, {counts['seconds']:.0f} s of training, {counts['skipped']} steps skipped",
                file=sys.stderr,
            )
        distributed.stop()
        return 130 if stopped else 0
