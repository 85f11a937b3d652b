"""Judge trained networks: PSNR of luma as the field counts it, on a folder of whole pictures.

    python -m nas.eval NET/seed-0 NET/seed-1 --pictures Set14 --json set14.json

Pictures are cut to multiples of 12 and reduced as MATLAB's imresize does; grey ones become RGB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from nas.data import judge, judged_pictures
from nas.runs import write
from nas.space import Architecture
from nas.spaces import network


def load(folder: Path) -> tuple[torch.nn.Module, Architecture]:
    """What nas.train left. Raises ValueError where it did not finish there."""
    arch, weights = folder / "arch.json", folder / "network.pt"
    if not arch.is_file() or not weights.is_file():
        raise ValueError(f"{folder} has no trained network (arch.json and network.pt): run python -m nas.train")
    made = Architecture.load(arch)
    model = network(made)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model, made


def main(argv: list[str] | None = None) -> int:
    """The exit status: 2 for what was asked."""
    p = argparse.ArgumentParser(
        prog="python -m nas.eval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("networks", type=Path, nargs="+", metavar="NET/seed-N")
    p.add_argument("--pictures", type=Path, required=True, metavar="FOLDER")
    p.add_argument("--json", type=Path, metavar="FILE")
    args = p.parse_args(argv)
    try:
        pictures, found = judged_pictures(args.pictures), dict[str, Any]()
        for folder in args.networks:
            model, arch = load(folder)
            scores = judge(model, pictures, int(arch.options.get("scale", 4)))
            found[str(folder)] = {"mean": statistics.mean(scores.values()), "pictures": scores}
            print(f"{folder}: {found[str(folder)]['mean']:.2f} dB over {len(scores)} pictures", flush=True)
        means = [f["mean"] for f in found.values()]
        if len(means) > 1:
            print(f"mean {statistics.mean(means):.2f} +- {statistics.stdev(means):.2f} dB")
        if args.json:
            write(args.json, json.dumps(found, indent=1) + "\n")
    except (ValueError, OSError) as error:
        print(f"nas.eval: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
