"""Suite `l1norm`: L1 normalization in integers against torch's L2 normalization, forward and back.

    python -m bench l1norm --json FILE

On one thread, contenders in turn; a run is a forward pass, its way back and the gradients of weight and bias. Malloc
keeps its memory, as that of a long training does: fresh pages would cost the contender with more of them most. Shapes
are rows x numbers of layer norms, and pictures x height x width x channels of batch norms.

l1norm/SHAPE/vs-fp32-l2         ours on bfloat16 numbers, against L2 on float32
l1norm/SHAPE/vs-same-width-l2   against L2 on bfloat16
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from . import timing
from .report import Row, report, row

LAYERS = ((1024, 1024), (4096, 768), (256, 16384), (8192, 192))
BATCHES = ((128, 32, 32, 16), (128, 16, 16, 32), (128, 8, 8, 64), (32, 28, 28, 128))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--runs", type=int, default=25, metavar="N", help="counted runs of each contender [25]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="[1]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the layers and give the report."""
    import torch
    from torch import nn

    from cpp_ext import _gemm
    from quant.norm import L1BatchNorm2d, L1LayerNorm

    def step(layer: nn.Module, x: Any, dz: Any) -> Callable[[], Any]:
        inputs = (x.requires_grad_(), layer.weight, layer.bias)
        return lambda: torch.autograd.grad(layer(x), inputs, dz)

    rows: list[Row] = []
    timing.keep_memory()
    found: dict[str, list[float]] = {"fp32-l2": [], "same-width-l2": []}
    with timing.threads(args.threads):
        for shape in (*LAYERS, *BATCHES):
            x = torch.randn(*shape)
            if len(shape) == 4:
                x, kinds = x.permute(0, 3, 1, 2), (nn.BatchNorm2d, L1BatchNorm2d)
            else:
                kinds = (nn.LayerNorm, L1LayerNorm)
            dz, half = torch.randn_like(x), torch.bfloat16
            usual, ours = (kind(shape[-1]) for kind in kinds)
            narrow = kinds[0](shape[-1]) if len(shape) == 4 else kinds[0](shape[-1], dtype=half)
            work = {
                "fp32-l2": step(usual, x, dz),
                "same-width-l2": step(narrow, x.to(half), dz.to(half)),
                "l1": step(ours, x.to(half), dz.to(half)),
                "l1-of-fp32": step(kinds[1](shape[-1]), x.clone(), dz),
            }
            times = timing.in_turn(work, args.runs)
            name = f"l1norm/{'x'.join(map(str, shape))}"
            rows += timing.rows_of(name, times)
            for other, ratios in found.items():
                ratios.append(timing.ratio(times, other, "l1"))
                rows.append(row(f"{name}/vs-{other}", ratios[-1], "times", 2))
    rows += [row(f"l1norm/median/vs-{other}", statistics.median(r), "times", 2) for other, r in found.items()]
    timing.show(rows)
    capability = torch.backends.cpu.get_cpu_capability()
    return report("l1norm", rows, torch=torch.__version__, capability=capability, isa=_gemm.isa(), threads=args.threads)
