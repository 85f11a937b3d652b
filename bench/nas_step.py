"""Suite `nas-step`: what a step of the search costs against noise and by rounding shared weights directly.

    python -m bench nas-step --json FILE

One step is one of the weights and one of the choices on the basic space of super-resolution. Contenders take turns in
one run: noise, direct (every bit-width rounded, then mixed), float (blind to bits), with numbers between layers as
python -m nas.search has them here. Rows nas-step/B/NAME in milliseconds and nas-step/B/noise-vs-direct, the share of
direct's time, for B bit-widths.
"""

from __future__ import annotations

import argparse
from typing import Any

from .report import Row, report, row
from .timing import in_turn, ratio, rows_of, threads

WIDTHS = {1: (8,), 2: (4, 8), 4: (2, 4, 6, 8)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="steps of each, by turns [15]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="[1]")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="[8]")
    parser.add_argument("--crop", type=int, default=32, metavar="N", help="[32]")
    parser.add_argument("--real", choices=("bfloat16", "float32"), help="numbers between layers [what is fast here]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time, and give the report."""
    import torch

    from nas import CostModel, Penalty, Searcher
    from nas.search import fast_real
    from nas.searcher import Plan
    from nas.spaces import build, space_of
    from rate.cost import BITOPS

    batch = tuple(
        torch.rand(args.batch, 3, n, n).contiguous(memory_format=torch.channels_last)
        for n in (args.crop, 4 * args.crop)
    )
    rows: list[Row] = []
    real = args.real or fast_real("cpu")
    with threads(args.threads):
        for count, bits in WIDTHS.items():
            searchers = {}
            for name, mode in (("noise", "noise"), ("direct", "fake"), ("float", "float")):
                torch.manual_seed(0)
                space = space_of("sr-basic", bits)
                model = build(space)
                made = Searcher(
                    model,
                    space,
                    CostModel(BITOPS, model, (1, 3, 32, 32)),
                    Penalty(1e-3),
                    Plan(warmup=0, search=mode, real=real),
                    1,
                )
                model.train()
                searchers[name] = made

            def step(s: Searcher) -> None:
                s.logit_step(batch)
                s.weight_step(batch, 1e-3)

            times = in_turn({n: lambda s=s: step(s) for n, s in searchers.items()}, args.runs)
            rows += rows_of(f"nas-step/{count}", times)
            rows.append(row(f"nas-step/{count}/noise-vs-direct", ratio(times, "noise", "direct"), "times", 3))
            rows.append(row(f"nas-step/{count}/noise-vs-float", ratio(times, "noise", "float"), "times", 3))
    for r in rows:
        print(f"{r['name']:40} {r['value']} {r['unit']}")
    return report("nas-step", rows, real=real)
