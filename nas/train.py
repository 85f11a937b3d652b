"""Train the network of an architecture that was found.

    python -m nas.train RUN/penalty-0.001/seed-0/arch.json --data PHOTOS --out NET --seeds 3
    python -m nas.eval NET/seed-0 --pictures Set14

NET gets a folder for each seed: arch.json, network.pt (the weights), frozen.json (sizes), log.jsonl and a checkpoint:
the same command goes on from the last whole epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from nas.cost import CostModel
from nas.data import Crops
from nas.freeze import freeze
from nas.optim import RATE
from nas.runs import Folder, check_device, check_finite, ended, photographs, save, trials, use_threads
from nas.search import INPUT, add_device, check, fast_real
from nas.space import Architecture
from nas.spaces import network
from nas.training import Plan, Training
from quant.training import replace
from rate.cost import BITOPS
from rate.memory import with_huge_pages
from rate.options import Parser

LIMITS = {
    "epochs": (1, 100_000), "steps": (1, 1_000_000), "batch": (1, 4096), "crop": (16, 1024), "seeds": (1, 1000),
    "first_seed": (0, 1 << 31), "jobs": (1, 256), "threads": (0, 512),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    p = Parser(prog="python -m nas.train", description=__doc__)
    p.add_argument("architecture", type=Path, metavar="ARCH.json")
    p.add_argument("--data", type=Path, required=True, metavar="PHOTOS")
    p.add_argument("--out", type=Path, required=True, metavar="NET", help="folder; made if absent")
    p.add_argument("--epochs", type=int, default=60, metavar="N", help="[60]")
    p.add_argument("--steps", type=int, default=50, metavar="N", help="of an epoch [50]")
    p.add_argument("--batch", type=int, default=8, metavar="N", help="[8]")
    p.add_argument("--crop", type=int, default=32, metavar="N", help="side of a reduced crop [32]")
    p.add_argument("--rate", type=float, default=RATE, metavar="R", help=f"of learning, at the top [{RATE}]")
    p.add_argument("--floating", type=float, default=0.15, metavar="F", help="share in floating point first [0.15]")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="[1]")
    p.add_argument("--first-seed", type=int, default=0, metavar="N", help="[0]")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time [1]")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="of each [torch's own, shared by jobs]")
    p.add_argument("--ray", metavar="ADDRESS", help="of a cluster whose machines share the folders; auto: this one's")
    add_device(p)
    return p


def built(path: Path, arch: Architecture) -> torch.nn.Module:
    """The network of an architecture; errors name its file."""
    try:
        return network(arch)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def trial(given: tuple[argparse.Namespace, int]) -> str:
    """One training; what it came to."""
    args, seed = given
    use_threads(args)
    arch = Architecture.load(args.architecture)
    plan = Plan(args.epochs, args.steps, args.rate, args.floating, args.real or fast_real(args.device))
    config = {"architecture": json.loads(arch.to_json()), "plan": vars(plan), "batch": args.batch, "crop": args.crop,
              "seed": seed, "data": str(args.data)}  # fmt: skip
    torch.manual_seed(seed)
    model = built(args.architecture, arch).to(args.device)
    scale = int(arch.options.get("scale", 4))
    pictures = photographs(args.data, args.crop * scale)
    folder = Folder(args.out / f"seed-{seed}", config)
    run = Training(model, plan)
    folder.load(run)
    bar = tqdm(total=plan.epochs, initial=run.epoch, desc=f"seed {seed}", unit="epoch",
               disable=not sys.stderr.isatty() or args.jobs > 1)  # fmt: skip

    def on_epoch(r: Training) -> None:
        folder.save(r)
        folder.log(r.history)
        bar.set_postfix_str(f"loss {r.history[-1]['loss']:.4f}")
        bar.update()

    try:
        run.fit(Crops(pictures, scale, args.crop, args.batch, args.steps, seed, device=args.device), on_epoch)
    except FloatingPointError as error:
        raise ValueError(f"{folder.path}: {error}") from error
    bar.close()
    model.cpu()
    layers = freeze(model)
    sizes = {
        "gbitops": CostModel(BITOPS, model, INPUT).decided() / 1e9,
        "weights": sum(f.levels.size for f in layers.values()),
        "packed_bytes": sum(len(f.packed()) for f in layers.values()),
        "entropy_bytes": sum(f.entropy() for f in layers.values()) / 8,
        "loss": run.history[-1]["loss"],
    }
    replace(folder.path / "frozen.json", json.dumps(sizes, indent=1) + "\n")
    replace(folder.path / "arch.json", arch.to_json())
    save(folder.path / "network.pt", {"architecture": arch.to_json(), "state": model.state_dict()})
    return (
        f"{folder.path}: loss {sizes['loss']:.4f}, {sizes['gbitops']:.3f} GBitOps, {sizes['weights']} weights in "
        f"{sizes['packed_bytes']} bytes, {sizes['entropy_bytes']:.0f} entropy coded"
    )


def run(args: argparse.Namespace) -> None:
    """All trainings; prints what each came to."""
    check(args, LIMITS)
    check_finite(args, rate=1e-12, floating=0)
    check_device(args.device)
    if args.floating >= 1:
        raise ValueError("--floating is a share below 1: the rest is trained in its bits")
    for line in trials(trial, [(args, args.first_seed + i) for i in range(args.seeds)], args.jobs, args.ray):
        print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked, 130 where it was stopped."""
    args = parser().parse_args(argv)
    return ended("nas.train", lambda: run(args))


if __name__ == "__main__":
    with_huge_pages()
    sys.exit(main())
