"""Search for a super-resolution network: operations and bit-widths together.

    python -m nas.search --space sr-basic --data PHOTOS --out RUN --penalty 1e-3
    python -m nas.search --space sr-basic --data PHOTOS --out RUN --target-bitops 4.6G --seeds 3 --jobs 3
    python -m nas.search --space sr-rfdn --scale 2 --data PHOTOS --out RUN --penalty 0 1e-4 1e-3    # a front

PHOTOS holds pictures, or tar archives of pictures. RUN gets a folder for each penalty and seed with the architecture
(arch.json, for python -m nas.train), its report, log.jsonl, probs.png and a checkpoint: the same command goes on from
the last whole epoch, to the same end. Costs are for one input of 32 x 32.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from codec.models.ops import multiplies_bfloat16
from nas.cost import CostModel
from nas.data import Crops
from nas.layers import Noise
from nas.optim import RATE
from nas.quantizers import KINDS, RULES, Bits, said, work
from nas.runs import (
    Folder,
    check_device,
    check_finite,
    ended,
    number,
    photographs,
    save_figure,
    trials,
    use_threads,
)  # fmt: skip
from nas.searcher import Penalty, Plan, Searcher, Target
from nas.space import checked
from nas.spaces import BUILDERS, build, space_of
from quant.training import replace
from rate.cost import BITOPS
from rate.memory import with_huge_pages
from rate.options import Parser

INPUT = (1, 3, 32, 32)


def add_space(p: argparse.ArgumentParser) -> None:
    """Options that make a space."""
    p.add_argument("--space", choices=sorted(BUILDERS), required=True)
    p.add_argument("--scale", type=int, default=4, choices=(2, 3, 4), help="[4]")
    p.add_argument("--width", type=int, metavar="C", help="channels [the paper's]")
    p.add_argument("--cells", type=int, metavar="N", help="[the paper's]")
    p.add_argument("--adq", action="store_true", help="residuals with norms, as in the paper: they learn more slowly")
    p.add_argument(
        "--no-bicubic", dest="bicubic", action="store_false", help="without the picture enlarged, as in the paper"
    )
    p.add_argument("--bits", default="4,8", metavar="B,B", help="candidates, 2 to 16, or 32 for none, or as 4x8: "
                   "weights of 4 bits, activations of 8 [4,8]")  # fmt: skip
    p.add_argument("--quantizer", choices=("lsq", "hwgq"), default="lsq", help="of activations [lsq]")


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    p = Parser(prog="python -m nas.search", description=__doc__)
    add_space(p)
    p.add_argument("--data", type=Path, required=True, metavar="PHOTOS", help="8 or more, sides of crop times scale")
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder; made if absent")
    pressure = p.add_mutually_exclusive_group(required=True)
    pressure.add_argument("--penalty", type=float, nargs="+", metavar="L", help="weights of the relative cost")
    pressure.add_argument("--target-bitops", type=number, metavar="N", help="a budget: 4.6G, 300M")
    p.add_argument("--search", choices=("noise", "fake", "float"), default="noise",
                   help="noise; fake: shared weights rounded directly; float: blind to bits [noise]")  # fmt: skip
    p.add_argument("--noise", choices=RULES, default="var", help="how the noise of several widths mixes [var]")
    p.add_argument("--noise-kind", choices=KINDS, default="fitted", help="of the power that fitted steps leave, or "
                   "half a step over the range of numbers: gaussian (the paper), uniform [fitted]")  # fmt: skip
    p.add_argument("--entropy", type=float, default=2e-3, metavar="K", help="weight of the entropy [0.002]")
    p.add_argument("--single-level", action="store_true", help="weights and choices learn from the same batches")
    p.add_argument("--epochs", type=int, default=24, metavar="N", help="[24]")
    p.add_argument("--warmup", type=int, default=6, metavar="N", help="epochs of weights alone [6]")
    p.add_argument("--steps", type=int, default=50, metavar="N", help="of an epoch [50]")
    p.add_argument("--batch", type=int, default=8, metavar="N", help="[8]")
    p.add_argument("--crop", type=int, default=32, metavar="N", help="side of a reduced crop [32]")
    p.add_argument("--rate", type=float, default=RATE, metavar="R", help=f"of weights, at the top [{RATE}]")
    p.add_argument("--logit-rate", type=float, default=1e-2, metavar="R", help="of choices [0.01]")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="[1]")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at a time, in processes of their own [1]")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="of each trial [torch's own, shared by jobs]")
    p.add_argument("--ray", metavar="ADDRESS", help="of a cluster whose machines share the folders; auto: this one's")
    add_device(p)
    return p


def add_device(p: argparse.ArgumentParser) -> None:
    """Where to compute, and in what."""
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="[a GPU, if there is one]")
    p.add_argument(
        "--real", choices=("bfloat16", "float32"), help="numbers between layers [bfloat16 if the machine multiplies it]"
    )


def fast_real(device: str) -> str:
    """Of numbers between layers."""
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


LIMITS = {
    "epochs": (1, 100_000), "warmup": (0, 100_000), "steps": (1, 1_000_000), "batch": (1, 4096), "crop": (16, 1024),
    "seeds": (1, 1000), "jobs": (1, 256), "threads": (0, 512),
}  # fmt: skip


def bits_of(text: str) -> tuple[Bits, ...]:
    """2,4,4x8,8, by the bit operations that they take. Raises ValueError."""
    given = [b.strip().split("x") for b in text.split(",")]
    if not all(len(b) <= 2 and all(n.isdecimal() for n in b) for b in given):
        raise ValueError(
            f"--bits are numbers from 2 to 16, or 32 for none, or pairs as 4x8, with commas between, not {text!r}"
        )
    found: set[Bits] = set(checked(tuple(int(b[0]) if len(b) == 1 else (int(b[0]), int(b[1])) for b in given)))
    return tuple(sorted(found, key=lambda b: (work(b), said(b))))


def check(args: argparse.Namespace, limits: dict[str, tuple[int, int]]) -> None:
    """Raises ValueError for what is out of bounds."""
    for name, (least, most) in limits.items():
        if not least <= getattr(args, name) <= most:
            raise ValueError(f"--{name.replace('_', '-')} is {least} to {most}")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Of the builder of the space."""
    made: dict[str, Any] = {"scale": args.scale, "adq": args.adq, "bicubic": args.bicubic}
    made |= {n: getattr(args, n) for n in ("width", "cells") if getattr(args, n) is not None}
    return made


def name_of(target: float) -> str:
    """The folder of the trials of a budget."""
    return f"target-{target / 1e9:.15g}G"


def trial(given: tuple[argparse.Namespace, float | None, int]) -> str:
    """One search: the folder it left its architecture in."""
    args, penalty, seed = given
    use_threads(args)
    bits = bits_of(args.bits)
    space = space_of(args.space, bits, args.quantizer, **options_of(args))
    real = args.real or fast_real(args.device)
    plan = Plan(args.epochs, args.warmup, args.rate, args.logit_rate, args.search, not args.single_level, real=real)
    noise = Noise(args.noise, args.noise_kind)
    name = name_of(args.target_bitops) if penalty is None else f"penalty-{penalty:.15g}"
    config = {
        "space": args.space, "options": dict(space.options), "bits": bits, "plan": vars(plan), "noise": vars(noise),
        "entropy": args.entropy, "pressure": name, "seed": seed, "steps": args.steps, "batch": args.batch,
        "crop": args.crop, "data": str(args.data),
    }  # fmt: skip
    torch.manual_seed(seed)
    model = build(space).to(args.device)
    pictures = photographs(args.data, args.crop * args.scale)
    folder = Folder(args.out / name / f"seed-{seed}", config)
    pressure = Penalty(penalty) if penalty is not None else Target(args.target_bitops)
    cost = CostModel(BITOPS, model, INPUT)
    searcher = Searcher(
        model, space, cost, pressure, plan, args.steps, args.entropy, noise, seed
    )  # fmt: skip
    folder.load(searcher)
    of_weights, of_choices = (
        Crops(pictures, args.scale, args.crop, args.batch, args.steps, seed, i, 2, args.device) for i in range(2)
    )
    bar = tqdm(total=plan.epochs, initial=searcher.epoch, desc=f"{name} seed {seed}", unit="epoch",
               disable=not sys.stderr.isatty() or args.jobs > 1)  # fmt: skip

    def on_epoch(s: Searcher) -> None:
        folder.save(s)
        folder.log(s.history)
        bar.set_postfix_str(f"loss {s.history[-1]['loss']:.4f}, {s.history[-1]['cost'] / 1e9:.3f} GBitOps")
        bar.update()

    try:
        found = searcher.fit(of_weights, of_choices, on_epoch)
    except FloatingPointError as error:
        raise ValueError(f"{folder.path}: {error}") from error
    bar.close()
    report = searcher.report()
    replace(folder.path / "report.json", json.dumps({"gbitops": cost.decided() / 1e9, "positions": report}, indent=1))
    draw(searcher, folder.path / "probs.png")
    replace(folder.path / "arch.json", found.to_json())
    lines = [f"{folder.path / 'arch.json'}: {cost.decided() / 1e9:.3f} GBitOps"]
    for r in report:
        mark = "" if r["decided"] else "  undecided"
        op, width = r["choice"].op, said(r["choice"].bits)
        lines.append(f"  {r['position']:14} {op:10} {width:>3} bit  p {r['p']:.2f}  {100 * r['share']:4.1f} %{mark}")
    return "\n".join(lines)


def draw(searcher: Searcher, path: Path) -> None:
    """How likely each option of each position was, epoch by epoch."""
    from matplotlib.figure import Figure

    from nas.space import positions

    found = positions(searcher.model)
    columns = 4
    rows = -(-len(found) // columns)
    figure = Figure((3.2 * columns, 2.4 * rows), layout="constrained")
    figure.supxlabel("epoch")
    figure.supylabel("probability")
    for i, (name, m) in enumerate(found.items()):
        axes = figure.add_subplot(rows, columns, i + 1, title=name, ylim=(0, 1))
        labels = [f"{op.name} {said(b)}" for op in m.ops for b in m.bits]
        values = [h["probs"][name] for h in searcher.history]
        best = sorted(range(len(labels)), key=lambda j: -values[-1][j])
        for j in best:
            label = labels[j] if j in best[:2] else None
            axes.plot(range(1, len(values) + 1), [v[j] for v in values], label=label, alpha=1.0 if label else 0.35)
        axes.legend(fontsize=7)
    save_figure(path, figure)


def run(args: argparse.Namespace) -> None:
    """All trials; prints what each came to."""
    check(args, LIMITS)
    check_finite(args, penalty=0, entropy=0, rate=1e-12, logit_rate=1e-12)
    check_device(args.device)
    if args.warmup >= args.epochs:
        raise ValueError(f"--warmup {args.warmup} leaves none of {args.epochs} epochs to search in")
    model = build(space_of(args.space, bits_of(args.bits), args.quantizer, **options_of(args)))
    if args.target_bitops and (least := CostModel(BITOPS, model, INPUT).reach()[0]) > args.target_bitops:
        raise ValueError(f"the cheapest network of {args.space} costs {least / 1e9:.3g}G, more than the budget")
    penalties = args.penalty if args.penalty is not None else [None]
    given = [(args, penalty, seed) for penalty in penalties for seed in range(args.seeds)]
    for line in trials(trial, given, args.jobs, args.ray):
        print(line, flush=True)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked, 130 where it was stopped."""
    args = parser().parse_args(argv)
    return ended("nas.search", lambda: run(args))


if __name__ == "__main__":
    with_huge_pages()
    sys.exit(main())
