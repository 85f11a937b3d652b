"""Suite `rounding`: what the integers of the entropy path cost against the same weights in floating point.

    python -m bench rounding --json FILE

Released weights on the held-out photographs of <data>/photos, middles of 256x256 pixels, latents rounded in both cases.
Row rounding/MODEL/bd-rate is percent more bits at equal PSNR with 8-bit weights and activations and skipped symbols.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rate import bd_rate, data_dir

from .report import report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--model", type=Path, metavar="FILE", help="bundle with its .float.npz beside it [the default]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate both and give the report."""
    from codec.bundle import find
    from codec.models.ops import Arithmetic
    from codec.training import weights
    from codec.training.data import load_pictures
    from codec.training.held_out import PICTURES, evaluate
    from codec.training.schedule import LARGEST
    from codec.training.train import SKIP

    path = args.model or find(None).path
    model = weights.load(path)
    _, held_out = load_pictures(data_dir(args.data) / "photos", LARGEST)
    curves = {}
    for name, arithmetic, skip in (("float", Arithmetic.CLIP, 0), ("integer", Arithmetic.ROUND, SKIP)):
        model.set_arithmetic(arithmetic)
        model.skip = skip
        curves[name] = evaluate(model, held_out)
    rows = [
        row(f"rounding/{model.cfg.name}/{name}/qp{at['qp']:.0f}/{what}", at[what], unit)
        for name, curve in curves.items()
        for at in curve
        for what, unit in (("bpp", "bit/pixel"), ("psnr", "dB"))
    ]
    lists = [[at[what] for at in curves[name]] for name in ("float", "integer") for what in ("bpp", "psnr")]
    rows.append(row(f"rounding/{model.cfg.name}/bd-rate", bd_rate(*lists), "%", 2))
    for r in rows:
        print(f"{r['name']:40} {r['value']:>10} {r['unit']}")
    return report("rounding", rows, pictures=min(PICTURES, len(held_out)))
