"""Suite `quant-train`: whole training steps in integers against bfloat16, and what they keep for the way back.

    python -m bench quant-train --json FILE

On one thread, contenders in turn, the same network, data and optimizer: torch's autocast to bfloat16 with its own norms
and quant.quantize_ with integer products and L1 norms, bfloat16 between layers, its first and last layers as autocast
has them.

train-step/MODEL/vs-bf16         times as fast as bfloat16
train-step/MODEL/kept-vs-bf16    share of the bytes that a forward pass keeps
"""

from __future__ import annotations

import argparse
from typing import Any

from . import timing
from .report import Row, report, row

MODELS = {
    "resnet20": (128, 4, 4),
    "resnet18": (32, 4, 4),
    "vit-tiny": (64, 6, 3),
    "char": (32, 6, 3),
}  # batch, bits, groups


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="[all]")
    parser.add_argument("--runs", type=int, default=11, metavar="N", help="counted runs of each contender [11]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="[1]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the steps and give the report."""
    import torch
    from torch import nn

    from cpp_ext import _gemm
    from quant import training
    from quant.config import ShiftQuantConfig
    from quant.networks import CONTEXT

    def step_of(options: training.Options, x: Any, y: Any) -> Any:
        model = training.build(options, 128 if options.model == "char" else 10)
        optimizer, _ = training.optimizer_of(options, model)

        def step() -> None:
            with training.numbers(options):
                said = model(x)
            loss = nn.functional.cross_entropy(said.float().flatten(0, -2), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step, training.saved_bytes(options, model, x)

    rows: list[Row] = []
    with timing.threads(args.threads):
        for name in args.models:
            batch, bits, groups = MODELS[name]
            if name == "char":
                x = torch.randint(128, (batch, CONTEXT))
                y = torch.randint(128, (batch, CONTEXT))
            else:
                x = torch.randn(batch, 32, 32, 3).permute(0, 3, 1, 2)
                y = torch.randint(10, (batch,))
            made = {}
            for kind, config in (("bf16", None), ("integers", ShiftQuantConfig(bits, bits, bits, groups))):
                made[kind] = step_of(training.Options(name, "", config, "bfloat16", 1, batch, 0, 0, 0), x, y)
            times = timing.in_turn({kind: step for kind, (step, _) in made.items()}, args.runs)
            rows += timing.rows_of(f"train-step/{name}", times)
            rows.append(row(f"train-step/{name}/vs-bf16", timing.ratio(times, "bf16", "integers"), "times", 2))
            kept = {kind: bytes_kept for kind, (_, bytes_kept) in made.items()}
            rows += [row(f"train-step/{name}/kept/{kind}", b / 2**20, "MiB", 2) for kind, b in kept.items()]
            rows.append(row(f"train-step/{name}/kept-vs-bf16", kept["integers"] / kept["bf16"], "times", 3))
    timing.show(rows)
    capability = torch.backends.cpu.get_cpu_capability()
    shapes = {name: {"batch": b, "bits": bits, "groups": g} for name, (b, bits, g) in MODELS.items()}
    return report(
        "quant-train", rows, torch=torch.__version__, capability=capability, isa=_gemm.isa(), threads=args.threads,
        models=shapes,
    )  # fmt: skip
