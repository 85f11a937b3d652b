"""A training run: everything that a checkpoint holds, and the folder it lives in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.config import Config
from codec.models.mlicv2 import MLICv2
from codec.training import distributed
from codec.training.optim import Muon
from codec.training.schedule import LEARNING_RATE
from codec.training.step import Gradients

AVERAGE = 0.998  # decay per step of the averaged weights
CHECKPOINT = "checkpoint.pt"


class Run:
    """counts: steps taken, crops of 256x256 seen, seconds of training in this folder, steps skipped as not finite."""

    def __init__(self, folder: Path, model: MLICv2, seed: int):
        self.folder, self.model = folder, model
        matrices = [p for n, p in model.arrays.items() if n.endswith("/weight") and min(p.shape) in range(26, 257)]
        known = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=LEARNING_RATE),
            torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
        ]
        self.average = {n: p.detach().clone() for n, p in model.arrays.items()}
        self.rng = np.random.default_rng(seed)
        self.gradients = Gradients(model, 1)
        self.counts: dict[str, Any] = {"steps": 0, "crops": 0.0, "seconds": 0.0, "skipped": 0}

    def update_average(self) -> None:
        decay = min(AVERAGE, (1 + self.counts["steps"]) / (10 + self.counts["steps"]))
        for n, p in self.model.arrays.items():
            self.average[n].lerp_(p.detach(), 1 - decay)

    def save(self) -> None:
        """Write the checkpoint; whenever this is killed, the one before or the new one is there, whole."""
        if distributed.rank():
            return
        state = {
            "config": self.model.cfg.to_dict(), "arrays": self.model.arrays.state_dict(), "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers], "counts": self.counts,
            "rng": self.rng.bit_generator.state,
        }  # fmt: skip
        temporary = self.folder / f"{CHECKPOINT}.tmp"
        with temporary.open("wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(self.folder / CHECKPOINT)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True, map_location=self.model.arrays["y/gain"].device)
        self.model.arrays.load_state_dict(state["arrays"])
        for o, s in zip(self.optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        self.average, self.counts = state["average"], state["counts"]
        self.rng.bit_generator.state = state["rng"]

    def log(self, **fields: Any) -> None:
        if distributed.rank() == 0:
            with (self.folder / "log.jsonl").open("a") as f:
                f.write(json.dumps({**self.counts, **fields}) + "\n")


def config_of(checkpoint: Path) -> Config:
    return Config.from_dict(torch.load(checkpoint, weights_only=True, mmap=True)["config"])
