"""Train a network in integers on a CPU.

    python -m quant.train --data cifar10:FOLDER --model resnet20 --bits 4 --epochs 10 --out RUN
    python -m quant.train --data cifar10:FOLDER --model resnet20 --bits 32 --out RUN     # floating point, to compare
    python -m quant.train --data text: --model char --bits 6 --groups 3 --seeds 3 --out RUN

cifar10:FOLDER holds the distributed files (cifar-10-batches-py) or sheets with labels.npz; text:FOLDER holds .py files,
and text: means those of Python's own library. Convolutions, linear layers and their gradients are products of integers
of so many bits, batch and layer norms are L1 and integer too; the first and the last layer stay. RUN gets a folder for
each seed (config.json, log.jsonl, log.csv, progress.png, checkpoint.pt) and result.json. The same command goes on from
the last whole epoch.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from quant import data
from quant.config import NORMS, ROUNDINGS, SCHEMES, ShiftQuantConfig, most_groups
from quant.networks import NETWORKS
from quant.training import Options, Run, replace
from rate.memory import with_huge_pages
from rate.options import Parser, one_line


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    p = Parser(prog="python -m quant.train", description=__doc__)
    p.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder; made if absent")
    p.add_argument("--data", required=True, metavar="KIND:FOLDER")
    p.add_argument("--model", choices=sorted(NETWORKS), required=True)
    p.add_argument(
        "--bits", type=int, default=4, metavar="B", help="of weights, activations and gradients; 32: float [4]"
    )
    for name in ("weights", "activations", "gradients"):
        p.add_argument(f"--bits-{name}", type=int, metavar="B", help="where other than --bits")
    p.add_argument(
        "--groups", type=int, metavar="G", help="of gradients [as many as fit a byte, at most 4, by position 5]"
    )
    p.add_argument("--scheme", choices=SCHEMES, default="channel", help="[channel]")
    p.add_argument("--rounding", choices=ROUNDINGS, default="stochastic", help="of gradients [stochastic]")
    p.add_argument("--norm", choices=NORMS, default="l1", help="[l1]")
    p.add_argument(
        "--real", choices=("bfloat16", "float32"), help="numbers between layers [bfloat16; float32 for --bits 32]"
    )
    p.add_argument("--epochs", type=int, default=10, metavar="N", help="[10]")
    p.add_argument("--batch", type=int, default=128, metavar="N", help="[128]")
    p.add_argument("--lr", type=float, default=0.0, help="at the top of a cosine [0: 0.1 for ResNets, 0.001 else]")
    p.add_argument("--subset", type=int, default=0, metavar="N", help="train on the first N examples only")
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="runs, of which mean and spread are told [1]")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="[torch's own]")
    return p


LIMITS = (
    ("epochs", 1, 100_000), ("batch", 1, 1 << 20), ("seeds", 1, 1000), ("subset", 0, 1 << 40), ("threads", 0, 512),
    ("lr", 0, 1000),
)  # fmt: skip


def config_of(args: argparse.Namespace) -> ShiftQuantConfig | None:
    """None for floating point. Raises ValueError."""
    if args.bits == 32:
        given = ("bits_weights", "bits_activations", "bits_gradients", "groups")
        if any(getattr(args, name) is not None for name in given) or args.scheme != "channel":
            raise ValueError("--bits 32 is floating point: the options of integers do not go with it")
        return None
    w, a, g = (args.bits if b is None else b for b in (args.bits_weights, args.bits_activations, args.bits_gradients))
    most = 5 if args.scheme == "position" else 4  # groups of more, of 3-bit codes, were not measured
    groups = min(most_groups(g), most) if args.groups is None else args.groups
    return ShiftQuantConfig(w, a, g, groups, args.scheme, args.rounding, args.norm)


def summary(options: Options, ends: list[dict[str, float]]) -> dict[str, Any]:
    """Of all seeds."""
    tests = [end["test"] for end in ends]
    return {
        "options": options.to_dict(), "seeds": len(ends), "test": tests, "mean": statistics.mean(tests),
        "deviation": statistics.stdev(tests) if len(tests) > 1 else None,
        "loss": [end["loss"] for end in ends], "step_ms": [end["step_ms"] for end in ends],
        "threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 1 with one line for what went wrong, 130 where it was stopped."""
    p = parser()
    args = p.parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, even where that is ignored
    try:
        for name, least, most in LIMITS:
            if not least <= getattr(args, name) <= most:
                raise ValueError(f"--{name} is {least} to {most}")
        config, examples = config_of(args), data.load(args.data)
        if (args.model == "char") == bool(examples.test_labels.size):
            raise ValueError(f"{args.model} does not train on {args.data}")
        n = len(examples.train[: args.subset or None])
        if n < (args.batch if examples.test_labels.size else 1000):
            few = "give more, or a smaller --batch" if examples.test_labels.size else "1,000 characters at least"
            raise ValueError(f"{n} examples are too few: {few}")
        if args.threads:
            torch.set_num_threads(args.threads)
        real = args.real or ("bfloat16" if config else "float32")
        ends = []
        for seed in range(args.seeds):
            options = Options(
                args.model, args.data, config, real, args.epochs, args.batch, args.lr, args.subset, seed
            )  # fmt: skip
            run = Run(args.out / f"seed-{seed}", options, examples)
            with tqdm(desc=f"seed {seed}", unit="step", disable=not sys.stderr.isatty()) as bar:

                def show(epoch: int, step: int, loss: float, bar: Any = bar) -> None:
                    bar.set_postfix_str(f"epoch {epoch + 1}/{args.epochs} loss {loss:.3f}")
                    bar.update()

                ends.append(run.train(show))
            end = ends[-1]
            print(
                f"seed {seed}: test {end['test']:.2f}, loss {end['loss']:.4f}, {end['step_ms']:.1f} ms a step",
                flush=True,
            )
        found = summary(options, ends)
        replace(args.out / "result.json", json.dumps(found, indent=1) + "\n")
        spread = f" +- {found['deviation']:.2f}" if found["deviation"] is not None else ""
        print(f"{args.out}: test {found['mean']:.2f}{spread}")
    except (ValueError, OSError) as error:
        print(f"quant.train: {one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from the last whole epoch of {args.out}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    with_huge_pages()
    sys.exit(main())
