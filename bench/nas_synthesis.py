"""Suite `nas-synthesis`: the codec's synthesis searched for half of the bit operations, and what it has to beat.

    python -m bench nas-synthesis --data DIR --out RUNS --json FILE

Searches on DIR/photos; trains what it found, the same bits everywhere for the same cost (the hand rule: more for
upsampling and head), and 8 bits everywhere, alike; exports each as a bundle. Judged on real files of DIR/kodak: each is
decoded by the shipped bundle and by those, in turn. RUNS keeps everything: the same command goes on. Rows
nas-synthesis/NAME/share (of the bit operations of 8 bits everywhere), NAME/qpN/loss in dB of PSNR (mean of the
pictures), NAME/bdrate, NAME/decode in ms (median of the files; by ONNX Runtime, as all bundles with a graph),
nas-synthesis/codec/decode and codec/decode-onnx (the shipped bundle by its own loops and by ONNX Runtime).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rate import data_dir

from .nas_sr import command
from .report import Row, report, row


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUNS")
    parser.add_argument("--model", metavar="BUNDLE", help="[the installed one]")
    parser.add_argument("--search-epochs", default="14", metavar="N", help="[14]")
    parser.add_argument("--search-steps", default="40", metavar="N", help="of an epoch [40]")
    parser.add_argument("--epochs", default="30", metavar="N", help="of each training [30]")
    parser.add_argument("--steps", default="100", metavar="N", help="of an epoch [100]")
    parser.add_argument("--batch", default="8", metavar="N", help="[8]")
    parser.add_argument("--qps", type=int, nargs="+", default=[8, 18, 28, 38, 48], metavar="QP", help="four or more")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Search, train, export, judge, and give the report."""
    from nas import synthesis
    from nas.space import Architecture

    data = data_dir(args.data)
    model = ["--model", args.model] if args.model else []
    work = ["--data", str(data / "photos"), "--batch", args.batch, *model]
    args.out.mkdir(parents=True, exist_ok=True)
    more = ["--epochs", args.search_epochs, "--steps", args.search_steps, "--out", str(args.out / "search")]
    command(synthesis.main, ["search", *work, *more])
    architectures = {"searched": args.out / "search" / "arch.json"}
    for name, bits in (("hand", ["4x7", "--ends", "10"]), ("uniform-8", ["8"])):
        architectures[name] = args.out / f"{name}.json"
        command(synthesis.main, ["uniform", "--bits", *bits, "--out", str(architectures[name]), *model])
    teacher = synthesis.Teacher(synthesis.find(args.model))
    rows: list[Row] = []
    bundles = {}
    for name, path in architectures.items():
        net, bundles[name] = args.out / name, args.out / f"{name}.safetensors"
        more = ["--epochs", args.epochs, "--steps", args.steps, "--out", str(net)]
        command(synthesis.main, ["train", str(path), *work, *more])
        command(synthesis.main, ["export", str(net), "--out", str(bundles[name]), *model])
        arch = Architecture.load(path)
        cost = teacher.cost(synthesis.made(teacher, synthesis.space_of(arch), arch)).decided()
        rows.append(row(f"nas-synthesis/{name}/share", cost / synthesis.at_8_bits(teacher), "", 3))
    files = sorted((data / "kodak").glob("*.png"))
    if not files:
        raise ValueError(f"{data / 'kodak'} holds no pictures")
    rows += judged(files, args.qps, args.model, bundles)
    return report("nas-synthesis", rows, pictures=len(files))


def judged(files: list[Path], qps: list[int], model: str | None, bundles: dict[str, Path]) -> list[Row]:
    """Rows of real files."""
    import numpy as np
    from tqdm import tqdm

    import codec
    from rate import bd_rate, psnr

    ways: dict[str, dict[str, Any]] = {"codec": {"model": model}, "codec-onnx": {"model": model, "runtime": "onnx"}}
    ways |= {name: {"model": path} for name, path in bundles.items()}
    found: dict[tuple[str, int], list[float]] = {}
    bpp: dict[int, list[float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for path in tqdm(files, unit="picture", disable=not sys.stderr.isatty()):
        for qp in qps:
            data = codec.encode(path, qp=qp, model=model)
            rgb = codec.picture.load(path).rgb
            bpp.setdefault(qp, []).append(8 * len(data) / (rgb.shape[0] * rgb.shape[1]))
            for name, how in ways.items():
                start = time.perf_counter()
                drawn = np.asarray(codec.decode(data, **how))
                seconds[name].append(time.perf_counter() - start)
                found.setdefault((name, qp), []).append(psnr(rgb, drawn))
    rates = [statistics.mean(bpp[qp]) for qp in qps]
    curves = {name: [statistics.mean(found[name, qp]) for qp in qps] for name in ways}
    rows = []
    for name in bundles:
        losses = zip(qps, curves["codec"], curves[name], strict=True)
        rows += [row(f"nas-synthesis/{name}/qp{qp}/loss", a - b, "dB", 3) for qp, a, b in losses]
        try:
            lost = bd_rate(rates, curves["codec"], rates, curves[name])
        except ValueError as error:  # of a network that draws next to nothing
            print(f"{name} has no BD-rate: {error}", file=sys.stderr)
            lost = None
        rows.append(row(f"nas-synthesis/{name}/bdrate", lost, "%", 2))
    return rows + [row(f"nas-synthesis/{n}/decode", 1e3 * statistics.median(s), "ms", 1) for n, s in seconds.items()]
