"""Suite `ablation`: what each mechanism of MLICv2 is worth, at small width and equal budget.

    python -m bench ablation --data DIR --json FILE

Entropy models are compared by the rate of the same latents: those of the first channels that mlicv2-s makes at one QP.
Each network is trained on them from nothing without one mechanism at a time; the same pictures, crops and steps.
`guided-anchors` has one more instead, `none` has no mechanism, and `again` is the whole one with another seed: what
chance makes of it. Rows ablation/NAME/bpp, of held-out photographs, and ablation/NAME/rate: how much more that is, in
per cent, than with everything.

Transforms are compared by whole narrow codecs: `codec`, and `residual` with MLIC++'s residual blocks in place of
token mixing. `longer` goes on from the former, and so does `selecting`, with the two stages of selective coding: rows
ablation/NAME/bpp and psnr.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rate import data_dir

from .report import Row, report, row

if TYPE_CHECKING:
    from codec.models.large.model import Options
    from codec.training.recipe import Stage

Found = dict[str, dict[str, Any]]  # by name of a network
SIZE = 256  # of the largest crops, and of what is judged
QP, CHANNELS = 27, 64  # of latents; those channels, three of five slices, have some two thirds of the bits


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="of each network [1500]")
    parser.add_argument("--lambda", dest="weight", type=float, default=0.013, metavar="L", help="of codecs [0.013]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="networks at a time [all cores]")


def _stages(steps: int) -> tuple[Stage, ...]:
    from codec.training.recipe import Stage

    half, quarter = steps // 2, steps // 4
    return (Stage(half, 128, 8, 1e-3), Stage(quarter, 128, 8, 5e-4), Stage(steps - half - quarter, SIZE, 2, 2e-4))


def _train(name: str, run: Any, data: tuple[Any, list[Any]]) -> dict[str, Any]:
    from codec.models.ops import fast_precision, products

    start = time.monotonic()
    with products(fast_precision("cpu")):
        while run.counts["steps"] < run.recipe.steps:
            run.update(data[0])
        found: dict[str, Any] = run.judge(data[1], SIZE)[0]
    print(f"{name}: {found['bpp']:.4f} {found['psnr']:.3f} {time.monotonic() - start:.0f} s", file=sys.stderr)
    return found


def _data(folder: Path) -> tuple[Any, list[Any]]:
    """In a process of its own, on one thread: two small networks side by side are faster than one after the other."""
    import torch

    from codec.training.data import Photos, load_pictures

    torch.set_num_threads(1)
    pictures, held_out = load_pictures(folder, SIZE)
    return Photos(pictures, SIZE), held_out


def entropy_model(name: str, options: Options, steps: int, seed: int, folder: Path) -> Found:
    """One that is trained on latents: bpp."""
    import torch
    from torch import Tensor

    from codec import bundle, network
    from codec.models.large.model import OPTIONS, Likelihoods
    from codec.runtime.torch import TorchRuntime
    from codec.training.large import LargeRun
    from codec.training.recipe import Recipe

    made = TorchRuntime(bundle.find("mlicv2-s"), device="cpu")
    data = _data(folder)

    class Rate(LargeRun):
        def loss(self, x: Tensor, stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad():
                signal = network.g_a(made.transforms, made.cfg, (2 * x - 1).permute(0, 2, 3, 1), QP)
                y = (signal * made.transforms.vector("y/gain", QP)).permute(0, 3, 1, 2)[:, :CHANNELS].contiguous()
            self.model.code(mode := Likelihoods(self.model, y, self.model.h_a(y)))
            bits = -torch.stack([p.log2().flatten(1).sum(1) for p in mode.found().values()]).sum(0)
            bpp = bits / (x.shape[2] * x.shape[3])
            return bpp, bpp.detach(), torch.ones_like(bits.detach())

    OPTIONS[options.name] = options  # where a recipe finds it
    recipe = Recipe(options.name, 0.0, _stages(steps), warm_up=100, average=0.99)
    return {name: _train(name, Rate(Path(tempfile.gettempdir()), recipe, seed), data)}


def codec(name: str, options: Options, steps: int, weight: float, goes_on: bool, folder: Path) -> Found:
    """A whole one: bpp and psnr, and those of the two that go on from it."""
    from codec.models.large.model import OPTIONS
    from codec.training.large import LargeRun
    from codec.training.recipe import Recipe, Stage

    data = _data(folder)
    OPTIONS[options.name] = options
    recipe = Recipe(options.name, weight, _stages(steps), warm_up=100, average=0.99)
    whole = LargeRun(Path(tempfile.gettempdir()), recipe, 0)
    found = {name: _train(name, whole, data)}
    if goes_on:
        half = max(1, steps // 10)
        more = {
            "longer": (Stage(2 * half, SIZE, 2, 1e-4),),
            "selecting": (Stage(half, SIZE, 2, 1e-3, "selection"), Stage(half, SIZE, 2, 1e-4, "joint")),
        }
        for name, stages in more.items():
            next_one = LargeRun(Path(tempfile.gettempdir()), replace(recipe, stages=stages), 0)
            next_one.put(whole.average)
            next_one.average = {n: p.detach().clone() for n, p in next_one.parameters.items()}
            found[name] = _train(name, next_one, data)
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train on DIR/photos, judge, and give the report."""
    import torch

    from codec.models.large.model import MLIC, Options
    from rate import macs

    whole = Options("ablation", hidden=48, latents=CHANNELS, slices=4, mixing=1, heads=(96, 64))
    without = {
        "whole": whole,
        "guided": replace(whole, guided=False),
        "reweighting": replace(whole, reweighted=()),
        "rotary": replace(whole, rotary=()),
        "guided-anchors": replace(whole, guided_anchors=True),
        "none": replace(whole, guided=False, reweighted=(), rotary=()),
    }
    narrow = replace(whole, latents=80, slices=5)
    codecs = {"codec": narrow, "residual": replace(narrow, mixing=0)}
    folder = data_dir(args.data) / "photos"
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        futures = [
            pool.submit(codec, name, options, args.steps, args.weight, name == "codec", folder)
            for name, options in codecs.items()
        ]
        for name, options, seed in [(n, o, 0) for n, o in without.items()] + [("again", whole, 1)]:
            futures.append(pool.submit(entropy_model, name, options, args.steps, seed, folder))
        found: Found = {name: f for future in futures for name, f in future.result().items()}

    rows: list[Row] = []
    for name, f in found.items():
        rows.append(row(f"ablation/{name}/bpp", f["bpp"], "bit/pixel"))
        if name in (*without, "again"):
            rows.append(row(f"ablation/{name}/rate", 100 * (f["bpp"] / found["whole"]["bpp"] - 1), "%", 2))
        else:
            rows.append(row(f"ablation/{name}/psnr", f["psnr"], "dB", 3))
        if name in codecs:
            with torch.device("meta"):
                products_per_pixel = macs(MLIC(codecs[name]), torch.zeros(1, 3, 256, 256)) / 65536
            rows.append(row(f"ablation/{name}/kmacs", products_per_pixel / 1000, "kMAC/pixel", 2))
    for r in rows:
        print(f"{r['name']:40} {r['value']:>9} {r['unit']}")
    return report("ablation", rows, torch=torch.__version__)
