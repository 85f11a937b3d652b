"""Judge trained networks: PSNR of luma as the field counts it, on a folder of whole pictures.

    python -m nas.eval NET/seed-0 NET/seed-1 --pictures Set14 --json set14.json --plot front.png

Pictures are cut to multiples of 12 and reduced as MATLAB's imresize does; grey ones become RGB. The plot has a point
for each NET, bit operations against PSNR, with the spread of its seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from nas.cost import CostModel
from nas.data import judge, judged_pictures
from nas.runs import check_outputs, ended, read, save_figure
from nas.search import INPUT
from nas.space import Architecture
from nas.train import built
from quant.training import replace
from rate.cost import BITOPS
from rate.options import Parser


def load(folder: Path) -> tuple[torch.nn.Module, Architecture]:
    """What nas.train left. Raises ValueError where it did not finish there."""
    arch, weights = folder / "arch.json", folder / "network.pt"
    if not arch.is_file() or not weights.is_file():
        raise ValueError(f"{folder} has no trained network (arch.json and network.pt): run python -m nas.train")
    made, found = Architecture.load(arch), read(weights)
    if not isinstance(found, dict) or found.get("architecture") != made.to_json():
        raise ValueError(f"{weights} is not of {arch}: train it again")
    model = built(arch, made)
    try:
        model.load_state_dict(found["state"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{weights} is damaged: train it again") from error
    return model, made


def front(found: dict[str, Any], path: Path) -> None:
    """Bit operations against PSNR: one point for the seeds of a folder."""
    from matplotlib.figure import Figure

    groups: dict[str, list[dict[str, Any]]] = {}
    for folder, score in found.items():
        groups.setdefault(str(Path(folder).parent), []).append(score)
    figure = Figure((7, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="G bit operations at 32x32", ylabel="PSNR of luma, dB", xscale="log")
    for name, scores in groups.items():
        means = [s["mean"] for s in scores]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        x, y = scores[0]["gbitops"], statistics.mean(means)
        axes.errorbar(x, y, spread, marker="o", capsize=3)
        axes.annotate(Path(name).name, (x, y), (5, 5), textcoords="offset points", fontsize=8)
    axes.grid(alpha=0.3)
    save_figure(path, figure)


def run(args: argparse.Namespace) -> None:
    """Judge and tell."""
    check_outputs(args.json, args.plot)
    pictures, found = judged_pictures(args.pictures), dict[str, Any]()
    for folder in args.networks:
        model, arch = load(folder)
        scores = judge(model, pictures, int(arch.options.get("scale", 4)))
        gbitops = CostModel(BITOPS, model, INPUT).decided() / 1e9
        found[str(folder)] = {"mean": statistics.mean(scores.values()), "gbitops": gbitops, "pictures": scores}
        print(f"{folder}: {found[str(folder)]['mean']:.2f} dB over {len(scores)} pictures", flush=True)
    means = [f["mean"] for f in found.values()]
    if len(means) > 1:
        print(f"mean {statistics.mean(means):.2f} +- {statistics.stdev(means):.2f} dB")
    if args.plot:
        front(found, args.plot)
    if args.json:
        replace(args.json, json.dumps(found, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked."""
    p = Parser(prog="python -m nas.eval", description=__doc__)
    p.add_argument("networks", type=Path, nargs="+", metavar="NET/seed-N")
    p.add_argument("--pictures", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--plot", type=Path, metavar="FILE", help="PNG")
    args = p.parse_args(argv)
    return ended("nas.eval", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
