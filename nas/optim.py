"""Muon for the kernels of convolutions, Adam for steps, norms, biases and depthwise kernels, as one optimizer.

Our choice: QuantNAS trains by Adam. After 400 batches of 16 crops a network for super-resolution is 0.84 dB above
bicubic interpolation on held-out photographs, by Adam with its best rate 0.25 (measured, in floating point).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from codec.training.optim import Muon
from nas.layers import QConv2d

RATE, OF_ADAM = 3e-3, 1 / 3  # of Muon at the top; of that, Adam's
RISE = 0.05  # share of all steps


def rate_at(top: float, done: float) -> float:
    """After a share of all steps: up on a line, down to zero by a cosine."""
    return top * min(1.0, (done + 1e-3) / RISE) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Both:
    """rate: of Muon. muon: False leaves everything to Adam, which changes trained weights less."""

    def __init__(self, model: nn.Module, rate: float, without: Iterable[nn.Parameter] = (), muon: bool = True):
        kernels = [m.weight for m in model.modules() if isinstance(m, QConv2d) and m.weight.shape[1] > 1 and muon]
        dense = {id(w): w for w in kernels}
        left = {id(p) for p in without} | set(dense)
        others = [p for p in model.parameters() if id(p) not in left]
        self.parts: dict[torch.optim.Optimizer, float] = {}  # and the share of the rate
        if dense:
            self.parts[Muon(dense.values())] = 1.0
        if others:
            self.parts[torch.optim.Adam(others)] = OF_ADAM
        self.set_rate(rate)

    def set_rate(self, rate: float) -> None:
        """From the next step on."""
        for part, share in self.parts.items():
            part.param_groups[0]["lr"] = rate * share

    def zero_grad(self) -> None:
        """Of all."""
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        """Of all."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Of all."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Of all."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
