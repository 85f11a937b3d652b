"""A training run: everything that a checkpoint holds, and the folder it lives in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from codec.config import Config
from codec.models.mlicv2 import MLICv2
from codec.training import distributed
from codec.training.captured import Captured
from codec.training.optim import Muon, follow
from codec.training.schedule import LEARNING_RATE
from codec.training.step import Gradients

AVERAGE = 0.998  # decay per step of the averaged weights
CHECKPOINT = "checkpoint.pt"


@contextmanager
def reading(path: Path, what: str = "checkpoint of codec train") -> Iterator[None]:
    """Around the reading of a file and what is made of it: where it is no `what`, one line instead of torch's many.
    Raises SystemExit; OSError where the file is there and cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise SystemExit(f"{path} does not exist: it should be a {what}") from error
    except Exception as error:  # whatever bytes are taken for
        if isinstance(error, OSError) and error.filename:  # of the system: torch's own, from a cut file, names none
            raise
        raise SystemExit(
            f"{path} is damaged, or no {what} ({type(error).__name__}): get a whole copy, or start a new run"
        ) from error


class Checkpointed:
    """counts: steps taken, crops of 256x256 seen, seconds of training in this folder, steps skipped as not finite.

    config: what the folder's config.json says. parameters: by name, the trained ones; their averages follow them.
    """

    def __init__(self, folder: Path, config: dict[str, Any], parameters: dict[str, Parameter], seed: int):
        self.folder, self.config, self.parameters = folder, config, parameters
        self.optimizers: list[torch.optim.Optimizer] = []
        self.decay = AVERAGE
        self.average = {n: p.detach().clone() for n, p in parameters.items()}
        self.rng = np.random.default_rng(seed)
        self.counts: dict[str, Any] = {"steps": 0, "crops": 0.0, "seconds": 0.0, "skipped": 0}

    @property
    def newest(self) -> float:
        """Share of the newest weights in the average."""
        return 1 - min(self.decay, (1 + self.counts["steps"]) / (10 + self.counts["steps"]))

    def update_average(self, newest: float | Tensor) -> None:
        follow([self.average[n] for n in self.parameters], list(self.parameters.values()), newest)

    def save(self) -> None:
        """Write the checkpoint; whenever this is killed, the one before or the new one is there, whole."""
        if distributed.rank():
            return
        state = {
            "config": self.config, "arrays": dict(self.parameters), "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers], "counts": self.counts,
            "rng": self.rng.bit_generator.state,
        }  # fmt: skip
        self.write(CHECKPOINT, state)

    def write(self, name: str, state: Any) -> None:
        """A file in the folder, by torch.save: the one before or the new one is there, whole."""
        temporary = self.folder / f"{name}.tmp"
        with temporary.open("wb") as f:
            torch.save(state, f)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(self.folder / name)

    def load(self, path: Path) -> None:
        with reading(path):
            state = torch.load(path, weights_only=True, map_location=next(iter(self.parameters.values())).device)
            self.put(state["arrays"])
            for o, s in zip(self.optimizers, state["optimizers"], strict=True):
                for group in s["param_groups"]:  # a GPU keeps them where its graph reads them
                    group["lr"] = float(group["lr"])
                try:
                    o.load_state_dict(s)
                except ValueError as error:  # optimizers shared the arrays out otherwise
                    raise SystemExit(
                        f"{path} was written by another version of codec train: start a new run --from {path.parent}"
                    ) from error
            self.average = state["average"]
            self.counts |= state["counts"]
            self.rng.bit_generator.state = state["rng"]

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Set the parameters to these values."""
        for n, p in self.parameters.items():
            p.copy_(values[n])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones."""
        kept = {n: p.detach().clone() for n, p in self.parameters.items()}
        self.put(self.average)
        try:
            yield
        finally:
            self.put(kept)

    def log(self, **fields: Any) -> None:
        if distributed.rank() == 0:
            with (self.folder / "log.jsonl").open("a") as f:
                f.write(json.dumps({**self.counts, **fields}) + "\n")


class Run(Checkpointed):
    """Of a network of the deployed family. Counts besides how often it left its course: codec.training.guard."""

    def __init__(self, folder: Path, model: MLICv2, seed: int):
        super().__init__(folder, model.cfg.to_dict(), dict(model.arrays), seed)
        self.model = model
        matrices = [p for n, p in model.arrays.items() if n.endswith("/weight") and min(p.shape) > 25]
        known = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
        self.optimizers = [
            Muon(matrices, lr=LEARNING_RATE),
            torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.97), weight_decay=0.0, fused=True),
        ]
        self.gradients = Gradients(model, 1)
        self.captured: Captured | None = None
        self.rate, self.ease = LEARNING_RATE, 1.0
        self.counts["halvings"] = 0

    @property
    def peak(self) -> float:
        """The highest rate of learning: half as much after each time that the run left its course, and less than that
        at first."""
        return self.rate * self.ease * 0.5 ** self.counts["halvings"]


def config_of(checkpoint: Path) -> Config:
    """Of a trunk or branch. Raises SystemExit."""
    with reading(checkpoint, "checkpoint of a trunk or branch of codec train"):
        return Config.from_dict(torch.load(checkpoint, weights_only=True, mmap=True)["config"])
