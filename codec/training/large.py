"""Train a full-size network by a recipe (codec.training.recipe): what `codec train --config` does.

Several processes take parts of every batch, and each takes its part in pieces that fit its memory.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from codec.models.large.model import MLIC, OPTIONS
from codec.training import distributed
from codec.training.data import Photos
from codec.training.recipe import Recipe, Stage
from codec.training.report import Report
from codec.training.run import CHECKPOINT, Checkpointed, reading

WEIGHTS = "weights.pth"  # averaged, as CompressAI's tools read them
MISSED = 4.0  # what a symbol that is worth coding counts in the loss of the selection: to miss it shows in the picture
SELECTION = 0.01  # weight of that loss when all is trained
HELD_OUT = 16  # pictures, their middles, one by one


class LargeRun(Checkpointed):
    """Raises ValueError for a network that is not known."""

    def __init__(self, folder: Path, recipe: Recipe, seed: int, device: str = "cpu", pieces: int = 1):
        if recipe.network not in OPTIONS:
            raise ValueError(f"network is {recipe.network!r}, not one of {', '.join(OPTIONS)}")
        torch.manual_seed(seed)
        self.model = MLIC(OPTIONS[recipe.network]).to(device)
        super().__init__(folder, recipe.to_dict(), dict(self.model.named_parameters()), seed)
        self.recipe, self.pieces, self.decay = recipe, pieces, recipe.average
        quantiles = {n: p for n, p in self.parameters.items() if n.endswith("quantiles")}
        self.weights = {n: p for n, p in self.parameters.items() if n not in quantiles}
        self.optimizers = [
            torch.optim.Adam(self.weights.values(), 1e-4, fused=True),
            torch.optim.Adam(quantiles.values(), recipe.quantile_rate),
        ]

    def learning(self, stage: Stage) -> list[Tensor]:
        """The parameters that a stage trains; the others get no gradients."""
        selects = {"codec": (False,), "selection": (True,), "joint": (False, True)}[stage.learn]
        for n, p in self.weights.items():
            p.requires_grad_(n.startswith("selection.") in selects)
        return [p for p in self.weights.values() if p.requires_grad]

    def loss(self, x: Tensor, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in 0..1 -> loss, bits per pixel and squared error (of 0..255), each (batch,)."""
        out = self.model(x)
        parts = [p.log2().flatten(1).sum(1) for p in out["likelihoods"].values()]
        bpp = -torch.stack(parts).sum(0) / (x.shape[2] * x.shape[3])
        mse = ((out["x_hat"] - x) * 255).square().mean((1, 2, 3))
        loss = bpp + self.recipe.weight * mse
        if stage.learn != "codec":
            logits, targets = (torch.cat([t.flatten(1) for t in ts], 1) for ts in out["selection"])
            entropy = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, targets.float(), pos_weight=logits.new_tensor(MISSED), reduction="none"
            ).mean(1)
            loss = entropy if stage.learn == "selection" else loss + SELECTION * entropy
        return loss, bpp.detach(), mse.detach()

    def update(self, photos: Photos) -> tuple[float, float, float]:
        """One step: loss, bits per pixel and PSNR of the batch. One that is not finite changes nothing and counts."""
        stage, rate = self.recipe.at(self.counts["steps"])
        crops = photos.crops(stage.batch, stage.crop, self.rng)
        seed = int(self.rng.integers(1 << 62))
        learning = self.learning(stage)
        self.model.train()
        self.model.selecting = stage.learn != "codec"
        for o in self.optimizers:
            o.zero_grad(set_to_none=True)
        sums = torch.zeros(3, device=crops.device)
        mine = crops[distributed.rank() :: distributed.world()]
        torch.manual_seed(seed + distributed.rank())
        for piece in mine.chunk(self.pieces) if len(mine) else ():
            loss, bpp, mse = self.loss(piece.permute(0, 3, 1, 2).float() / 255, stage)
            (loss.sum() / stage.batch).backward()
            psnr = 10 * (65025 / mse).log10()
            sums += torch.stack([t.detach().sum() for t in (loss, bpp, psnr)]) / stage.batch
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        *gradients, sums = distributed.total([*gradients, sums])
        for p, g in zip(learning, gradients, strict=True):
            p.grad = g
        finite = bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(learning, self.recipe.clip)))
        if finite:
            if stage.learn != "selection":  # then the codec is frozen, and the medians of z are part of it
                self.model.aux_loss().backward()
            self.optimizers[0].param_groups[0]["lr"] = rate
            for o in self.optimizers:
                o.step()
            self.update_average(self.newest)
        self.counts["skipped"] += not finite
        self.counts["steps"] += 1
        self.counts["crops"] += stage.batch * stage.crop**2 / 65536
        loss, bpp, psnr = sums.tolist()
        return loss, bpp, psnr

    @torch.no_grad()
    def judge(self, pictures: list[NDArray[np.uint8]], size: int) -> list[dict[str, Any]]:
        """Rate and PSNR of the averaged weights, rounding as files do, on the middles of held-out pictures."""
        self.model.eval()
        self.model.selecting = self.recipe.at(max(self.counts["steps"] - 1, 0))[0].learn != "codec"
        stage, found, device = Stage(1, size, 1, 1.0), [], next(iter(self.average.values())).device
        with self.averaged():
            for p in pictures[:HELD_OUT]:
                top, left = (p.shape[0] - size) // 2, (p.shape[1] - size) // 2
                x = torch.from_numpy(p[top : top + size, left : left + size].copy()).to(device)
                _, bpp, mse = self.loss(x.permute(2, 0, 1)[None].float() / 255, stage)
                found.append((float(bpp), 10 * math.log10(65025 / float(mse))))
        bpp, psnr = np.mean(found, 0).tolist()
        return [{"qp": None, "bpp": bpp, "psnr": psnr}]

    def write_weights(self) -> None:
        """The averaged weights."""
        if distributed.rank() == 0:
            self.write(WEIGHTS, {"network": self.recipe.network, "state_dict": self.average})


def start(args: argparse.Namespace, recipe: Recipe, device: str) -> LargeRun:
    """A run at its last checkpoint, or a new one. Raises SystemExit for what cannot be."""
    checkpoint = args.run / CHECKPOINT
    try:
        run = LargeRun(args.run, recipe, args.seed, device, args.pieces)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if checkpoint.exists():
        with reading(checkpoint):
            if torch.load(checkpoint, weights_only=True, mmap=True)["config"] != run.config:
                raise SystemExit(f"{args.run} is a run of another recipe: give this one a folder of its own")
        run.load(checkpoint)
        return run
    if args.start:
        path = args.start / WEIGHTS if args.start.is_dir() else args.start
        with reading(path, f"file of weights of {recipe.network}"):
            run.put(torch.load(path, weights_only=True, map_location=device)["state_dict"])
        run.average = {n: p.detach().clone() for n, p in run.parameters.items()}
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "config.json").write_text(json.dumps(run.config, indent=1) + "\n")
    return run


def train(
    args: argparse.Namespace,
    recipe: Recipe,
    device: str,
    photos: Photos,
    held_out: list[NDArray[np.uint8]],
    stopping: list[int],
) -> int:
    """To the end of the recipe, or until a signal is in `stopping`. The exit status."""
    run = start(args, recipe, device)
    run.model.half = torch.device(device).type == "cuda"
    size = max(stage.crop for stage in recipe.stages)
    report = Report(run, recipe.steps, run.counts["steps"], "step", lambda: run.judge(held_out, size))
    stopped = False
    while run.counts["steps"] < recipe.steps and not stopped:
        began = time.monotonic()
        stage, rate = recipe.at(run.counts["steps"])
        values = run.update(photos)
        took, stopped = distributed.agree(min(time.monotonic() - began, 60.0), bool(stopping))
        run.counts["seconds"] += took
        report.step(run.counts["steps"], values, rate, stage.batch * stage.crop**2 / 65536 / took)
    run.write_weights()
    return report.end(stopped)
