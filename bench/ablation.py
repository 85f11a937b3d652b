"""Suite `ablation`: what each mechanism of MLICv2 is worth, at small width and equal budget.

    python -m bench ablation --data DIR --json FILE

Trains a narrow network by a recipe with everything in it, and again without one mechanism at a time: same pictures,
crops, steps and seed. `guided-anchors` has one more instead; `none` is MLIC++'s setting; `selecting` goes on from the
whole one with the two stages of selective coding, and is held against `longer`, which goes on without.

Rows ablation/NAME/rate: how much more rate it takes than the whole one at equal cost, in per cent of its rate, where
cost is bits per pixel + lambda * squared error on held-out photographs; ablation/NAME/bpp, psnr and kmacs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rate import data_dir

from .report import Row, report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="of each network [1500]")
    parser.add_argument("--lambda", dest="weight", type=float, default=0.013, metavar="L", help="[0.013]")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each network, averaged [1]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="[all cores]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train on DIR/photos, judge, and give the report."""
    import torch

    from codec.models.large.model import MLIC, OPTIONS, Options
    from codec.models.ops import fast_precision, products
    from codec.training.data import Photos, load_pictures
    from codec.training.large import LargeRun
    from codec.training.recipe import Recipe, Stage
    from rate import macs

    whole = Options("ablation", hidden=48, latents=80, slices=5, mixing=1, heads=(96, 64))
    variants = {
        "whole": whole,
        "token-mixing": replace(whole, mixing=0),
        "guided": replace(whole, guided=False),
        "reweighting": replace(whole, reweighted=()),
        "rotary": replace(whole, rotary=()),
        "guided-anchors": replace(whole, guided_anchors=True),
        "none": replace(whole, mixing=0, guided=False, reweighted=(), rotary=()),
    }
    folder = data_dir(args.data) / "photos"
    torch.set_num_threads(args.threads)
    size, joint = 256, args.steps // 5
    stages = (
        Stage(args.steps // 2, 128, 8, 1e-3),
        Stage(args.steps // 4, 128, 8, 5e-4),
        Stage(args.steps - args.steps // 2 - args.steps // 4, 256, 2, 2e-4),
    )
    pictures, held_out = load_pictures(folder, size)
    photos = Photos(pictures, size)

    def trained(options: Options, seed: int, more: tuple[Stage, ...] = ()) -> dict[str, Any]:
        OPTIONS[options.name] = options  # where a recipe finds it
        recipe = Recipe(options.name, args.weight, stages + more, warm_up=100, average=0.99)
        made, start = LargeRun(Path(tempfile.gettempdir()), recipe, seed), time.monotonic()
        for _ in range(recipe.steps):
            made.update(photos)
        found = made.judge(held_out, size)[0]
        found["cost"] = found["bpp"] + args.weight * 65025 * 10 ** (-found["psnr"] / 10)
        print(f"{options.name} {seed}: {found} {time.monotonic() - start:.0f} s", file=sys.stderr)
        return found

    found: dict[str, list[dict[str, Any]]] = {}
    with products(fast_precision("cpu")):
        for name, options in variants.items():
            found[name] = [trained(options, seed) for seed in range(args.seeds)]
        # Selection comes last, with as many steps as the one that goes on without it.
        last = (Stage(joint, 256, 2, 1e-4),)
        found["longer"] = [trained(whole, seed, last) for seed in range(args.seeds)]
        picks = (Stage(joint // 2, 256, 2, 1e-3, "selection"), Stage(joint - joint // 2, 256, 2, 1e-4, "joint"))
        found["selecting"] = [trained(whole, seed, picks) for seed in range(args.seeds)]

    def mean(name: str, what: str) -> float:
        return sum(f[what] for f in found[name]) / args.seeds

    rows: list[Row] = []
    for name in found:
        against = "longer" if name == "selecting" else "whole"
        more = 100 * (mean(name, "cost") - mean(against, "cost")) / mean(against, "bpp")
        rows.append(row(f"ablation/{name}/rate", more, "%", 2))
        rows.append(row(f"ablation/{name}/bpp", mean(name, "bpp"), "bit/pixel"))
        rows.append(row(f"ablation/{name}/psnr", mean(name, "psnr"), "dB", 3))
        if name in variants:
            with torch.device("meta"):
                products_per_pixel = macs(MLIC(variants[name]), torch.zeros(1, 3, 256, 256)) / 65536
            rows.append(row(f"ablation/{name}/kmacs", products_per_pixel / 1000, "kMAC/pixel", 2))
    for r in rows:
        print(f"{r['name']:40} {r['value']:>9} {r['unit']}")
    return report("ablation", rows, torch=torch.__version__)
