"""A new start for units that have died: of the gated layer of a token-mixing block, those that are zero everywhere.

A hard sigmoid that is closed at every position has no slope, so nothing would ever open it again. A unit gets random
weights that see every input channel at its own scale, and adds nothing at first: the network's output stays as it was.
Four fifths of the units at a sixteenth of the size died in our first 45,832 crops. (Our choice.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.config import QPS
from codec.models.mlicv2 import MLICv2, qp_weights
from codec.models.ops import TorchOps
from codec.training.data import Photos, to_signal

CROPS, SIDE, ROUNDS = 16, 128, 8


class Seen:
    """Of every block: the energy of what its gate sees, by channel, and which units were ever other than zero."""

    def __init__(self) -> None:
        self.energy: dict[str, Tensor] = {}
        self.alive: dict[str, Tensor] = {}

    def note(self, x: Tensor, name: str) -> None:
        rows, block = x.flatten(0, -2), name.rpartition("/")[0]
        if name.endswith("/gate"):
            self.energy[block] = self.energy.get(block, 0.0) + rows.square().mean(0)
        if name.endswith("/back"):
            self.alive[block] = self.alive.get(block, torch.tensor(False)) | (rows != 0).any(0)


@contextmanager
def watching(ops: TorchOps, seen: Seen) -> Iterator[None]:
    conv = ops.conv

    def noted(x: Tensor, name: str, *args: Any, **options: Any) -> Tensor:
        seen.note(x, name)
        return conv(x, name, *args, **options)

    ops.conv = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        ops.conv = conv  # type: ignore[method-assign]


@torch.no_grad()
def revive(model: MLICv2, photos: Photos, rng: np.random.Generator) -> int:
    """Look at some crops at all QPs; give dead units a new start. The number of these."""
    seen = Seen()
    with watching(model.transforms, seen), watching(model.entropy, seen):
        for _ in range(ROUNDS):
            qp = torch.from_numpy(rng.random(CROPS) * (QPS - 1)).float()
            x = photos.crops(CROPS, SIDE, rng)
            model(to_signal(x), qp_weights(qp).to(x.device))
    number = 0
    for block, alive in seen.alive.items():
        dead = (~alive).nonzero().flatten()
        gate, bias, back = (model.arrays[f"{block}/{n}"] for n in ("gate/weight", "gate/bias", "back/weight"))
        scale = (seen.energy[block] / ROUNDS * gate.shape[1]).clamp(min=1e-6).rsqrt()
        for rows in (dead, dead + len(alive)):  # u and v
            gate[rows] = torch.randn(len(dead), len(scale), device=scale.device) * scale
            bias[rows] = 0.0
        back[:, dead] = 0.0
        number += len(dead)
    return number
