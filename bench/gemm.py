"""Suite `gemm`: our integer matrix products against oneDNN's bfloat16, on the shapes of layers.

    python -m bench gemm --json FILE

All from float32 inputs, on one thread, contenders in turn; rows are ratios of medians, and times in milliseconds. Also
timed: float32, torch._int_mm (int8-onednn) of codes that are there, and on the smallest shape float16, which few x86
machines have products of: whatever is compared with that wins by hundreds, so nothing is.

gemm/MxNxK/gemm/vs-bf16            our product of codes that are there, against a product of bfloat16 with its two casts
gemm/MxNxK/quantize+gemm/vs-bf16   with ShiftQuant of the left side (4 bits, 4 groups, by chance)
gemm/MxNxK/layer/vs-bf16           a layer's way forward, from and to float32: both sides quantized and packed, codes
                                   kept for the way back. Where the shape is that of a convolution this is quantize+gemm
                                   too: it is not unfolded, while bfloat16 is given its unfolded operand
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from . import timing
from .report import Row, report, row

# M, N, K, and the side of the pictures where the product is a 3x3 convolution of 16 of them.
SHAPES = (
    (512, 512, 512, 0),
    (1024, 1024, 1024, 0),
    (2048, 2048, 2048, 0),
    (4096, 768, 768, 0),
    (16384, 64, 576, 32),
    (4096, 128, 1152, 16),
    (1024, 512, 4608, 8),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="counted runs of each contender [15]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="[1]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time the products and give the report."""
    import torch

    from cpp_ext import _gemm
    from quant import conv, gemm
    from quant.product import columns

    kept = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    rows: list[Row] = []
    found: dict[str, list[float]] = {"gemm": [], "quantize+gemm": [], "layer": []}
    for m, n, k, side in SHAPES:
        a, b = torch.randn(m, k), torch.randn(n, k)
        if side:  # a 3x3 convolution
            pictures, weights = torch.randn(m // side**2, side, side, k // 9), torch.randn(n, k // 9, 3, 3)
        else:  # a linear layer
            pictures, weights = a.view(-1, 1, columns(len(a)), k), b.view(n, k, 1, 1)
        left, right = gemm.shift_quantize(a, 4, 4, 1).bytes, gemm.pack(torch.randint(-7, 8, (n, k), dtype=torch.int8))
        codes = torch.randint(-7, 8, (n, k), dtype=torch.int8).t()
        signed = (left ^ 128).view(torch.int8)[:, :k]

        layer = partial(conv.convolve, pictures.permute(0, 3, 1, 2), weights, 4, 4, 1, int(side > 0), 1)
        work: dict[str, Callable[[], Any]] = {
            "bf16": lambda a=a, b=b: a.bfloat16() @ b.bfloat16().t(),
            "fp32": lambda a=a, b=b: a @ b.t(),
            "int8-onednn": lambda signed=signed, codes=codes: torch._int_mm(signed, codes),
            "gemm": lambda left=left, right=right: gemm.multiply(left, right),
            "layer": layer,
        }
        if not side:
            work["quantize+gemm"] = lambda a=a, right=right: gemm.multiply(gemm.shift_quantize(a, 4, 4, 1).bytes, right)
        times = timing.in_turn(work, args.runs)
        times.setdefault("quantize+gemm", times["layer"])
        shape = f"gemm/{m}x{n}x{k}"
        if m * n * k <= 1 << 27:
            half, other = a.half(), b.half().t()
            times["fp16-no-baseline"] = timing.in_turn({"fp16": lambda h=half, o=other: h @ o}, 2, 0)["fp16"]
        rows += timing.rows_of(shape, times)
        for name, ratios in found.items():
            ratios.append(timing.ratio(times, "bf16", name))
            rows.append(row(f"{shape}/{name}/vs-bf16", ratios[-1], "times", 2))
    for name, ratios in found.items():
        rows.append(row(f"gemm/median/{name}/vs-bf16", statistics.median(ratios), "times", 2))
    torch.set_num_threads(kept)
    timing.show(rows)
    capability = torch.backends.cpu.get_cpu_capability()
    return report("gemm", rows, torch=torch.__version__, capability=capability, isa=_gemm.isa(), threads=args.threads)
