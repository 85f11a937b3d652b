"""Watches a run's loss, and takes the run back when it leaves its course.

A rate of learning that is too high for a network shows late: the loss rises for some hundred steps, then a picture's
synthesis runs away and no later step repairs it. The run goes back to weights from before and goes on, after another
warm-up, at half the rate. (Our choice.)
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from codec.training.run import Run
from codec.training.schedule import WARM_UP, Step

EVERY = 200  # steps between copies
SMOOTH = 0.95
HEALTHY, LOST, FAR = 1.2, 1.6, 8.0  # times the lowest smoothed loss


class Guard:
    """Called after each step. Keeps two copies of what training changes: the older one is surely from before."""

    def __init__(self, run: Run):
        self.run, self.phase, self.copies = run, (0, False), list[list[Tensor]]()
        self.loss, self.lowest, self.steps, self.since = 0.0, float("inf"), 0, WARM_UP

    def __call__(self, now: Step, loss: float) -> None:
        phase = (now.size, now.rounding)
        if phase != self.phase:  # what a loss means has changed
            if not math.isfinite(loss):
                return
            self.phase, self.loss, self.lowest, self.steps = phase, loss, float("inf"), 0
        self.steps, self.since = self.steps + 1, self.since + 1
        worst = FAR * self.lowest  # of what one step can say
        self.loss = SMOOTH * self.loss + (1 - SMOOTH) * (loss if loss < worst else min(worst, FAR * self.loss))
        if self.steps > 1 / (1 - SMOOTH):
            self.lowest = min(self.lowest, self.loss)
        if self.loss > LOST * self.lowest and self.copies:
            self.back()
        elif not self.copies or (self.steps % EVERY == 0 and self.loss < HEALTHY * self.lowest):
            self.copies = [*self.copies[-1:], [t.clone() for t in self._state()]]
        self.run.ease = min(1.0, (self.since + 1) / WARM_UP)

    @torch.no_grad()
    def back(self) -> None:
        """To the older copy, at half the rate."""
        for t, kept in zip(self._state(), self.copies[0], strict=False):  # before the first step optimizers have none
            t.copy_(kept)
        self.copies = self.copies[:1]
        self.run.counts["halvings"] += 1
        self.phase, self.since = (0, False), 0
        print(
            f"{self.run.folder}: the loss rose to {self.loss:.3g} from {self.lowest:.3g}: back to earlier weights, on "
            f"at a rate of {self.run.peak:.3g}",
            file=sys.stderr,
        )

    def _state(self) -> list[Tensor]:
        """Tensors of values that steps change; their places in memory stay."""
        of_optimizers = [t for o in self.run.optimizers for s in o.state.values() for t in s.values()]
        return [p.detach() for p in self.run.parameters.values()] + list(self.run.average.values()) + of_optimizers
