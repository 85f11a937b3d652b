"""Train a network of the MLICv2 family on a folder of photographs.

    codec train RUN --data FOLDER --hours 2                 # from scratch, or on from RUN's last checkpoint
    codec train RUN --data FOLDER --hours 8 --model mlicv2-m
    codec train RUN --data FOLDER --hours 1 --from codec/weights/mlicv2-s.safetensors     # from released weights

FOLDER holds pictures, or tar archives of pictures, at any depth. RUN gets config.json, log.jsonl, checkpoint.pt
(written every few minutes and on Ctrl-C or SIGTERM; the same command goes on from it) and trunk.pt (the state before
the learning rate decays, from which a longer training can go on). Then: codec export RUN OUT.safetensors.

The schedule runs over the hours given, counted in training time: a pause of the process does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.config import CONFIGS, QPS, Config, rate_lambda
from codec.models.mlicv2 import MLICv2, qp_weights
from codec.models.ops import Arithmetic
from codec.training import weights
from codec.training.data import Photos, load_pictures, to_signal
from codec.training.optim import Muon
from codec.training.step import Gradients, loss_of

# Crops of a batch and their size, from this share of the schedule on. Small crops first: steps are cheap.
STAGES = ((0.0, 16, 128), (0.7, 4, 256))
DECAY_FROM = 0.3  # share of the schedule after which the learning rate falls linearly to zero
ROUND_FROM = 0.85  # ... after which the entropy path rounds as the integers will, and near-certain symbols are skipped
SKIP = 4  # scale indexes below this (deviation under 0.165 steps) are not coded
LEARNING_RATE = 1.5e-3
WARM_UP = 100  # steps
CLIP = 1.0  # norm of the gradient
AVERAGE = 0.998  # decay per step of the averaged weights
HELD_OUT_QPS = (4, 20, 36, 52)
HELD_OUT_PICTURES = 16
CHECKPOINT_SECONDS, EVALUATE_SECONDS = 180, 1200


class Run:
    """Everything that a checkpoint holds, and the folder it lives in."""

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
        self.counts: dict[str, Any] = {"steps": 0, "crops": 0.0, "seconds": 0.0, "skipped": 0}  # crops of 256 x 256

    def update_average(self) -> None:
        decay = min(AVERAGE, (1 + self.counts["steps"]) / (10 + self.counts["steps"]))
        for n, p in self.model.arrays.items():
            self.average[n].lerp_(p.detach(), 1 - decay)

    def save(self, name: str) -> None:
        state = {
            "config": self.model.cfg.to_dict(), "arrays": self.model.arrays.state_dict(), "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers], "counts": self.counts,
            "rng": self.rng.bit_generator.state,
        }  # fmt: skip
        torch.save(state, self.folder / f"{name}.tmp")
        os.replace(self.folder / f"{name}.tmp", self.folder / name)

    def load(self, name: str) -> None:
        state = torch.load(self.folder / name, weights_only=True, map_location=self.model.arrays["y/gain"].device)
        self.model.arrays.load_state_dict(state["arrays"])
        for o, s in zip(self.optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        self.average, self.counts = state["average"], state["counts"]
        self.rng.bit_generator.state = state["rng"]

    def log(self, **fields: Any) -> None:
        with (self.folder / "log.jsonl").open("a") as f:
            f.write(json.dumps({**self.counts, **fields}) + "\n")


def schedule(share: float, steps: int) -> tuple[float, int, int, bool]:
    """Share of the schedule done, steps done -> learning-rate factor, crops, their size, rounding?"""
    factor = min(1.0, (steps + 1) / WARM_UP) * min(1.0, max(0.0, (1 - share) / (1 - DECAY_FROM)))
    _, count, size = [stage for stage in STAGES if share >= stage[0]][-1]
    return factor, count, size, share >= ROUND_FROM


def step(run: Run, photos: Photos, factor: float, count: int, size: int) -> tuple[float, Tensor, Tensor]:
    """One update on `count` crops with stratified QPs. A step that is not finite changes nothing and is counted."""
    qp = torch.from_numpy((np.arange(count) + run.rng.random(count)) * (QPS / count)).float().clamp(max=QPS - 1)
    lambdas = torch.tensor([rate_lambda(q) for q in qp.tolist()])
    x = photos.crops(count, size, run.rng)
    loss, bpp, mse = run.gradients(x, qp.to(x.device), lambdas.to(x.device), run.rng)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), CLIP)
    finite = bool(torch.isfinite(norm))
    for o in run.optimizers:
        for group in o.param_groups:
            group["lr"] = LEARNING_RATE * factor
        if finite:
            o.step()
        o.zero_grad(set_to_none=True)
    if finite:
        run.update_average()
    run.counts["skipped"] += not finite
    run.counts["steps"] += 1
    run.counts["crops"] += count * size * size / 65536
    return loss, bpp, mse


@torch.no_grad()
def evaluate(model: MLICv2, held_out: list[np.ndarray], size: int = 256) -> list[dict[str, float]]:
    """Rate and PSNR on the middles of held-out pictures at a few QPs, latents rounded; averages over pictures."""
    held_out = held_out[:HELD_OUT_PICTURES]
    middles = [p[(p.shape[0] - size) // 2 :, (p.shape[1] - size) // 2 :][:size, :size] for p in held_out]
    device = model.arrays["y/gain"].device
    x = torch.from_numpy(np.stack(middles)).to(device)
    rows = []
    for qp in HELD_OUT_QPS:
        results = []
        for part in x.split(4):
            x_hat, bits = model(to_signal(part), qp_weights(torch.full((len(part),), float(qp), device=device)))
            error = ((x_hat.clamp(-1, 1) - to_signal(part)) * 127.5).square().mean((1, 2, 3))
            results.append(torch.stack((sum(bits.values()) / size**2, 10 * torch.log10(65025 / error))))
        bpp, psnr = torch.cat(results, 1).mean(1).tolist()
        rows.append({"qp": qp, "bpp": bpp, "psnr": psnr})
    return rows


def with_average(run: Run, held_out: list[np.ndarray]) -> list[dict[str, float]]:
    """Evaluate the averaged weights, then put the training weights back."""
    model = run.model
    kept = {n: p.detach().clone() for n, p in model.arrays.items()}
    compiled, model.transforms.compiled, model.entropy.compiled = model.transforms.compiled, False, False
    model.arrays.load_state_dict(run.average)
    try:
        return evaluate(model, held_out)
    finally:
        model.arrays.load_state_dict(kept)
        model.transforms.compiled = model.entropy.compiled = compiled


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="codec train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run; made if absent, resumed if it has a checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures or tar archives of pictures")
    parser.add_argument("--hours", type=float, required=True, help="length of the whole schedule in training hours")
    parser.add_argument("--model", choices=sorted(CONFIGS), default="mlicv2-s")
    parser.add_argument("--from", dest="start", type=Path, help="a run or released bundle whose weights to start from")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=float, default=1.0, help="batches so many times as large as on a CPU")
    parser.add_argument(
        "--compile",
        choices=("none", "blocks", "all"),
        help="on GPUs: blocks takes a minute or two, all longer [none on a CPU, whose loops are compiled, else blocks]",
    )
    return parser.parse_args(argv)


def start(args: argparse.Namespace, photos: Photos) -> Run:
    """A run at its last checkpoint, or a new one whose network starts as a PCA transform of the pictures."""
    checkpoint = args.run / "checkpoint.pt"
    torch.manual_seed(args.seed)
    if checkpoint.exists():
        fields = torch.load(checkpoint, weights_only=True, mmap=True)["config"]
        run = Run(args.run, MLICv2(Config.from_dict(fields)).to(args.device), args.seed)
        run.load("checkpoint.pt")
    else:
        args.run.mkdir(parents=True, exist_ok=True)
        model = weights.load(args.start) if args.start else MLICv2(CONFIGS[args.model])
        run = Run(args.run, model.to(args.device), args.seed)
        if not args.start:
            run.model.fit_to(to_signal(photos.crops(256, STAGES[0][2], run.rng)))
        run.average = {n: p.detach().clone() for n, p in run.model.arrays.items()}
        (args.run / "config.json").write_text(json.dumps(run.model.cfg.to_dict(), indent=1) + "\n")
    compiled = args.compile or ("none" if torch.device(args.device).type == "cpu" else "blocks")
    run.model.transforms.compiled = run.model.entropy.compiled = compiled == "blocks"
    on_cpu = torch.device(args.device).type == "cpu"
    loss = torch.compile(loss_of, dynamic=False) if compiled == "all" else loss_of
    run.gradients = Gradients(run.model, args.threads if on_cpu else 1, loss)
    run.model.half = torch.device(args.device).type == "cuda"
    return run


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch._dynamo.config.recompile_limit = 64  # every block shape of every stage; beyond the limit it would not compile
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs: it holds the products of 8-bit integers exactly
    pictures, held_out = load_pictures(args.data, max(size for _, _, size in STAGES))
    photos = Photos(pictures, max(size for _, _, size in STAGES), args.device)
    run = start(args, photos)
    stop: list[int] = []
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda number, _: stop.append(number))
    budget, counts = args.hours * 3600, run.counts
    bar = tqdm(total=round(budget), initial=round(counts["seconds"]), unit="s", disable=not sys.stderr.isatty())
    saved = evaluated = counts["seconds"]
    smooth = np.zeros(3)
    while counts["seconds"] < budget and not stop:
        began, share = time.monotonic(), counts["seconds"] / budget
        factor, count, size, rounding = schedule(share, counts["steps"])
        count = round(count * args.batch)
        if share >= DECAY_FROM and not (run.folder / "trunk.pt").exists():
            run.save("trunk.pt")
        run.model.set_arithmetic(Arithmetic.ROUND if rounding else Arithmetic.CLIP)
        run.model.skip = SKIP if rounding else 0
        loss, bpp, mse = step(run, photos, factor, count, size)
        took = min(time.monotonic() - began, 60.0)  # longer: the process was suspended
        counts["seconds"] += took
        values = np.array((loss, bpp.sum(0).mean().item(), (10 * torch.log10(65025 / mse)).mean().item()))
        smooth = values if not smooth.any() else 0.98 * smooth + 0.02 * values
        bar.update(round(counts["seconds"]) - bar.n)
        bar.set_postfix_str("loss {:.3f} bpp {:.3f} psnr {:.2f}".format(*smooth) + f" crops {counts['crops']:.0f}")
        if counts["steps"] % 50 == 0:
            speed = count * size * size / 65536 / took
            run.log(
                loss=smooth[0],
                bpp=smooth[1],
                psnr=smooth[2],
                lr=factor * LEARNING_RATE,
                speed=speed,
                parts=bpp.mean(1).tolist(),
            )
        if counts["seconds"] - saved > CHECKPOINT_SECONDS:
            run.save("checkpoint.pt")
            saved = counts["seconds"]
        if counts["seconds"] - evaluated > EVALUATE_SECONDS:
            run.log(held_out=with_average(run, held_out))
            evaluated = counts["seconds"]
    run.save("checkpoint.pt")
    if not stop:
        run.log(held_out=with_average(run, held_out), finished=True)
    bar.close()
    print(
        f"{'stopped' if stop else 'finished'} after {counts['crops']:.0f} crops of 256x256, "
        f"{counts['seconds']:.0f} s of training, {counts['skipped']} steps skipped",
        file=sys.stderr,
    )
    return 130 if stop else 0


if __name__ == "__main__":
    sys.exit(main())
