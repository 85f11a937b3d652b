"""Train a network of the MLICv2 family on a folder of photographs.

    codec train RUN --data FOLDER --hours 8                 # the trunk; the same again goes on from where it was
    codec train RUN --data FOLDER --release 2               # a branch of 2 hours off the trunk, fit to be released
    codec export RUN/release-1 OUT.safetensors
    codec train RUN --data FOLDER --hours 8 --from codec/weights/mlicv2-s.safetensors     # from released weights
    torchrun --nproc-per-node 4 -m codec.training.train RUN --data FOLDER --hours 8       # on four GPUs
    codec train RUN --data FOLDER --config mlicv2-l-short    # a full-size network, by a recipe: a name or a file

FOLDER holds pictures, or tar archives of pictures, at any depth. The trunk trains at a constant rate until RUN has had
that many hours in all; give it more and it goes on. A branch takes the trunk as it is, lets the rate fall to zero and
rounds as a release does; the trunk stays as it was. Each folder gets config.json, log.jsonl, progress.png and
checkpoint.pt, which is written every few minutes and on Ctrl-C or SIGTERM: the same command goes on from it. Hours are
of training: a pause of the process does not count. A recipe ends with its steps, and leaves averaged weights besides,
in weights.pth (codec.training.recipe says what a recipe is).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.config import CONFIGS, QPS, rate_lambda
from codec.models.mlicv2 import MLICv2
from codec.models.ops import Arithmetic, fast_precision, products
from codec.runtime import cores
from codec.training import distributed, large, schedule, weights
from codec.training.captured import CLIP, Captured
from codec.training.data import Photos, load_pictures, to_signal
from codec.training.guard import Guard
from codec.training.held_out import with_average
from codec.training.recipe import Recipe, shipped
from codec.training.recipe import load as load_recipe
from codec.training.report import Report
from codec.training.revive import revive
from codec.training.run import CHECKPOINT, Run, config_of
from codec.training.schedule import LEARNING_RATE, Step
from codec.training.step import Gradients
from rate.memory import with_huge_pages
from rate.options import Parser

SKIP = 4  # scale indexes below this (deviation under 0.165 steps) are not coded
THREADS = 1024  # at most


def update(run: Run, photos: Photos, now: Step) -> tuple[float, Tensor, Tensor]:
    """One step on crops with stratified QPs. A step that is not finite changes nothing and is counted."""
    count = now.crops
    qp = torch.from_numpy((np.arange(count) + run.rng.random(count)) * (QPS / count)).float().clamp(max=QPS - 1)
    lambdas = torch.tensor([rate_lambda(q) for q in qp.tolist()])
    x = photos.crops(count, now.size, run.rng)
    rate = run.peak * now.rate
    if run.captured:
        loss, bpp, mse, finite = run.captured(x, qp, lambdas, rate, run.newest, run.rng)
    else:
        loss, bpp, mse = run.gradients(x, qp.to(x.device), lambdas.to(x.device), run.rng)
        finite = bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(run.model.parameters(), CLIP)))
        for o in run.optimizers:
            for group in o.param_groups:
                group["lr"] = rate
            if finite:
                o.step()
            o.zero_grad(set_to_none=True)
        if finite:
            run.update_average(run.newest)
    run.model.hold_gains()
    run.counts["skipped"] += not finite
    run.counts["steps"] += 1
    run.counts["crops"] += count * now.size**2 / 65536
    return loss, bpp, mse


def _device(name: str) -> str:
    """For argparse. Touches no GPU: each process of torchrun has one of its own."""
    with suppress(RuntimeError):
        device = torch.device(name)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()):
            return name
    raise argparse.ArgumentTypeError(f"there is no {name} here: it is cpu, or cuda where torch sees a GPU")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="codec train", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run; made if absent, resumed if it has a checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures or tar archives of pictures")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--hours", type=float, help="train the trunk until it has had so many hours")
    length.add_argument("--release", type=float, metavar="HOURS", help="a branch of so many hours off the trunk")
    length.add_argument("--config", metavar="RECIPE", help=f"full-size: a JSON file, or one of {', '.join(shipped())}")
    parser.add_argument("--lambda", dest="weight", type=float, metavar="L", help="in place of the recipe's")
    parser.add_argument("--pieces", type=int, metavar="N", help="take a recipe's batch in so many pieces")
    parser.add_argument("--model", choices=sorted(CONFIGS), help="[mlicv2-s]")
    parser.add_argument("--from", dest="start", type=Path, help="a run or released bundle whose weights to start from")
    parser.add_argument("--threads", type=int, default=cores(), metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=_device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=float, metavar="F", help="batches so many times as large as on a CPU")
    parser.add_argument("--rate", type=float, metavar="R", help=f"of learning [{LEARNING_RATE}]")
    args = parser.parse_args(argv)
    of_recipes = {"--lambda": args.weight, "--pieces": args.pieces}
    of_others = {"--model": args.model, "--batch": args.batch, "--rate": args.rate}
    if alien := [name for name, given in (of_others if args.config else of_recipes).items() if given is not None]:
        parser.error(f"{', '.join(alien)} {'does not go' if args.config else 'goes only'} with --config")
    for name in ("hours", "release", "weight", "pieces", "threads", "batch", "rate"):
        given = getattr(args, name)
        if given is not None and not 0 < given < math.inf:
            parser.error(f"--{'lambda' if name == 'weight' else name} is {given}, not above 0")
    if args.threads > THREADS:
        parser.error(f"--threads is {args.threads}, above {THREADS}")
    if not 0 <= args.seed < 1 << 64:
        parser.error(f"--seed is {args.seed}, not in 0..2^64-1")
    args.rate, args.batch, args.pieces = args.rate or LEARNING_RATE, args.batch or 1.0, args.pieces or 1
    return args


def branch_folder(trunk: Path) -> Path:
    """The branch that was interrupted, or a new one."""
    number = 1
    while (trunk / f"release-{number}" / "finished").exists():
        number += 1
    return trunk / f"release-{number}"


def start(args: argparse.Namespace, device: str, photos: Photos) -> Run:
    """A trunk or branch at its last checkpoint; a new branch at the trunk's; or a new trunk, whose network starts as a
    PCA transform of the pictures."""
    folder = branch_folder(args.run) if args.release else args.run
    trunk, checkpoint = args.run / CHECKPOINT, folder / CHECKPOINT
    if args.release and not trunk.exists():
        raise SystemExit(f"{args.run} has no trunk to branch from: train it first with --hours")
    torch.manual_seed(args.seed)
    known = checkpoint if checkpoint.exists() else trunk if args.release else None
    if known:
        model = MLICv2(config_of(known))
    else:
        model = weights.load(args.start) if args.start else MLICv2(CONFIGS[args.model or "mlicv2-s"])
    if args.model not in (None, model.cfg.name):
        raise SystemExit(f"{known or args.start} is of {model.cfg.name}, not {args.model}: leave --model out")
    run = Run(folder, model.to(device), args.seed)
    if known:
        run.load(known)
    else:
        if args.start:
            run.model.hold_gains()
            revive(run.model, photos, run.rng)
        else:
            run.model.fit_to(to_signal(photos.crops(256, schedule.TRUNK_CROPS[1], run.rng)))
        run.average = {n: p.detach().clone() for n, p in run.model.arrays.items()}
    if known != checkpoint:
        run.counts["seconds"] = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(run.model.cfg.to_dict(), indent=1) + "\n")
    on_cpu = torch.device(device).type == "cpu"
    run.gradients = Gradients(run.model, args.threads if on_cpu else 1)
    run.rate = args.rate
    if not on_cpu and distributed.world() == 1:
        run.captured = Captured(run.model, run.optimizers, run.update_average)
    return run


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        recipe = load_recipe(args.config, args.weight) if args.config else None
    except ValueError as error:
        raise SystemExit(str(error)) from error
    device = distributed.start(args.device)
    torch.set_num_threads(args.threads)
    with products(fast_precision(device)):
        return train(args, recipe, device)


def train(args: argparse.Namespace, recipe: Recipe | None, device: str) -> int:
    """To the end, or until a signal asks to stop. The exit status."""
    smallest = max(stage.crop for stage in recipe.stages) if recipe else schedule.LARGEST
    pictures, held_out = load_pictures(args.data, smallest)
    photos = Photos(pictures, smallest, device)
    stopping: list[int] = []
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda number, _: stopping.append(number))
    if recipe:
        return large.train(args, recipe, device, photos, held_out, stopping)
    run = start(args, device, photos)
    budget, counts, stopped, guard = 3600 * (args.release or args.hours), run.counts, False, Guard(run)
    report = Report(run, budget, counts["seconds"], "s", lambda: with_average(run, held_out))
    while counts["seconds"] < budget and not stopped:
        began = time.monotonic()
        now = schedule.branch(counts["seconds"] / budget) if args.release else schedule.trunk(counts["steps"])
        now = now._replace(crops=max(1, round(now.crops * args.batch)))
        run.model.set_arithmetic(Arithmetic.ROUND if now.rounding else Arithmetic.CLIP)
        run.model.skip = SKIP if now.rounding else 0
        loss, bpp, mse = update(run, photos, now)
        guard(now, loss)
        took, stopped = distributed.agree(min(time.monotonic() - began, 60.0), bool(stopping))  # longer: suspended
        counts["seconds"] += took
        values = loss, bpp.sum(0).mean().item(), (10 * torch.log10(65025 / mse)).mean().item()
        speed = now.crops * now.size**2 / 65536 / took
        report.step(counts["seconds"], values, now.rate * run.peak, speed, parts=bpp.mean(1).tolist())
    status = report.end(stopped)
    if args.release and not stopped:
        (run.folder / "finished").touch()
    return status


if __name__ == "__main__":
    with_huge_pages()
    sys.exit(main())
