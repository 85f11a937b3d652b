"""Suite `rd`: codecs against each other on your pictures, in one page.

    python -m bench rd --pictures FOLDER --out REPORT            # ours, JPEG, WebP, AVIF, JPEG 2000, JPEG XL, ...
    python -m bench rd --pictures FOLDER --out REPORT --quick    # an answer in two minutes
    python -m bench rd --pictures FOLDER --out REPORT --codecs ours,ours@onnx,webp --curve vtm=FILE.json:kodak/vtm
    python -m bench rd ... --command kakadu 'kdu_compress -i {in} -o {out} -rate {level}' 'kdu_expand ...' 1,2,3,4
    python -m bench rd ... --compressai bmshj2018-hyperprior q1.pth,q2.pth,q3.pth,q4.pth

REPORT gets report.html, results.json, and points.jsonl, from which an interrupted run goes on; what has not changed is
not measured again (--fresh does).
"""

from __future__ import annotations

import argparse
import math
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from codec import picture as pictures_
from codec.errors import CodecError
from codec.runtime import cores
from rate import METRICS, Curve, DataMissing, data_dir, published_curve, read_curve

from . import codecs, curves, viewer, workers
from .codecs import Absent, Spec
from .measure import Codec, Picture
from .report import Row, report, row, write
from .store import Store

PUBLISHED = {"vtm": "compressai/vtm", "mlicpp": "mlicplusplus"}  # of rd_summary.json: VTM 9.1 and MLIC++
DEFAULT_METRICS = ("psnr", "psnr_y", "ms_ssim")
QUICK_PICTURES, QUICK_LEVELS = 3, 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    add = parser.add_argument
    add("--pictures", metavar="FOLDER", type=Path, required=True, help="pictures, lossless ones if they are to count")
    add("--out", metavar="REPORT", type=Path, required=True, help="folder for report.html and results.json")
    add(
        "--codecs",
        metavar="NAME,...",
        help="of "
        + ", ".join(n for n in codecs.NAMES if n not in ("compressai", "command"))
        + "; ours:MODEL@RUNTIME+EFFORT, each part optional [all but avif-aom]",
    )
    add(
        "--compressai",
        metavar=("NAME", "CHECKPOINT,..."),
        nargs=2,
        action="append",
        default=[],
        help="a network of CompressAI, a checkpoint a level",
    )
    add(
        "--command",
        metavar=("NAME", "ENCODE", "DECODE", "LEVEL,..."),
        nargs=4,
        action="append",
        default=[],
        help="any codec: templates with {in}, {out}, {level}; pictures are PNG files",
    )
    add("--curve", metavar="NAME=FILE[:KEY]", action="append", default=[], help="a published curve, drawn dashed")
    add("--anchor", metavar="NAME", action="append", help="BD-rates against these alone [all]")
    add("--metrics", metavar="NAME,...", default=",".join(DEFAULT_METRICS), help="of " + ", ".join(METRICS))
    add("--limit", metavar="N", type=int, help="only the first N pictures")
    add("--levels", metavar="N", type=int, help="at most so many levels of each codec, at least 4 [all; --quick: 4]")
    add("--quick", action="store_true", help=f"{QUICK_PICTURES} pictures, {QUICK_LEVELS} levels, busy cores")
    add(
        "--jobs", metavar="N", type=int, help="points at a time; seconds then are of busy cores [1; --quick: all cores]"
    )
    add(
        "--viewer",
        metavar="BPP",
        type=float,
        default=0.25,
        help="bits per pixel of the viewer's pictures, 0: none [0.25]",
    )
    add("--fresh", action="store_true", help="measure everything again")


def specs(args: argparse.Namespace) -> list[Spec]:
    """The codecs that the options name. Raises ValueError for an unknown one."""
    found: list[Spec] = []
    for name in args.codecs.split(",") if args.codecs is not None else ():
        head, _, effort = name.partition("+")
        head, _, runtime = head.partition("@")
        kind, _, model = head.partition(":")
        if kind not in codecs.NAMES or kind in ("compressai", "command") or (kind != "ours" and kind != name):
            raise ValueError(f"no codec {name!r}: see --help")
        found.append((kind, model, runtime or "native", effort or "5") if kind == "ours" else (kind,))
    if args.codecs is None:
        found = list(codecs.DEFAULT)
    found = list(dict.fromkeys(found))
    found += [("compressai", *pair) for pair in args.compressai]
    return found + [("command", *four) for four in args.command]


def load(folder: Path, limit: int | None = None) -> dict[str, Picture]:
    """The pictures of a folder by file name, as `codec encode` takes them, RGB; what it refuses is named on stderr.

    Raises FileNotFoundError where there is no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    found: dict[str, Picture] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if len(found) == limit:
            break
        try:
            name = path.name.encode(errors="backslashreplace").decode()  # a name need not be Unicode
            found[name] = Image.fromarray(pictures_.load(path).rgb)
        except (CodecError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
    if not found:
        raise FileNotFoundError(f"no pictures in {folder}")
    return found


def levels_of(codec: Codec, most: int | None) -> list[int]:
    """All its levels, or so many of them from the first to the last."""
    if most is None or len(codec.levels) <= most:
        return list(codec.levels)
    return [codec.levels[round(i)] for i in np.linspace(0, len(codec.levels) - 1, most)]


def published(args: argparse.Namespace) -> dict[str, Curve]:
    """The curves that the options name; for a whole set of a known name, those of VTM and MLIC++ too.

    Raises ValueError, FileNotFoundError for what --curve names wrongly.
    """
    found: dict[str, Curve] = {}
    if not (args.limit or args.quick):
        try:
            data = data_dir(args.data)
            found = {name: published_curve(data, codec, args.pictures.name) for name, codec in PUBLISHED.items()}
        except (DataMissing, KeyError):
            pass  # another folder, or nobody's data
    for given in args.curve:
        name, _, path = given.partition("=")
        if not path:
            raise ValueError(f"--curve takes NAME=FILE or NAME=FILE:KEY, not {given!r}")
        if name in found and name not in PUBLISHED:
            raise ValueError(f"--curve names {name!r} twice")
        found[name] = read_curve(path)
    return found


def rules(args: argparse.Namespace, pictures: dict[str, Picture]) -> list[str]:
    """How the numbers are made, in sentences."""
    return [
        f"{len(pictures)} pictures of {args.pictures.name}, as codec encode takes them; rates are of whole files.",
        "Rate and quality are averaged over the pictures at each level, then compared: what published curves do.",
        "PSNR is of RGB, one mean square error over all samples; psnr_y of BT.601 luma at full range; equal pictures "
        "count as 100 dB. MS-SSIM is the mean of R, G and B and needs sides above 160; BD-rates take each picture's "
        "-10 log10(1 - x), then average.",
        "BD-rate: percent more (+) or fewer (-) bits at equal quality, PCHIP over log-rate in the common range, Akima "
        f"beside it. Intervals: 95 % of {curves.RESAMPLES} draws of the pictures with replacement, the same for both.",
        f"Seconds are wall clock, medians over the pictures, {args.jobs} at a time on {cores()} cores; MP/s is all "
        "pixels over all seconds. Memory is the peak of a process that codes the largest picture once.",
        "A failure is a bug, and its picture is left out of that codec's averages at every level.",
    ]


def rows_of(result: dict[str, Any]) -> list[Row]:
    """The numbers by name: rd/CODEC/LEVEL/WHAT, rd/CODEC/bdrate/ANCHOR and its interval and range, rd/CODEC/peak."""
    rows = []
    units = {"bpp": "bit/pixel", "psnr": "dB", "encode_s": "s", "decode_s": "s", "bugs": "count"}
    for codec, levels in result["curves"].items():
        for at in levels:
            rows += [row(f"rd/{codec}/{at['level']}/{what}", at.get(what), unit, 5) for what, unit in units.items()]
    for codec, value in result["peak_mib"].items():
        rows.append(row(f"rd/{codec}/peak", value, "MiB", 1))
    for bd in result["bd"]:
        if bd["metric"] == "psnr":
            name = f"rd/{bd['codec']}/bdrate/{bd['anchor']}"
            rows.append(row(name, bd["rate"], "%", 2))
            rows += [row(f"{name}/{end}", bd[end], "dB", 2) for end in ("from", "to")]
    return rows


def shown(result: dict[str, Any]) -> str:
    """The result for a terminal."""
    lines = [
        f"{'codec':16}{'level':>6}{'bpp':>9}{'PSNR dB':>9}{'MS-SSIM':>9}{'enc MP/s':>10}{'dec MP/s':>10}{'bugs':>6}"
    ]
    for codec, levels in result["curves"].items():
        for at in levels:
            cells = [(9, 4, "bpp"), (9, 2, "psnr"), (9, 4, "ms_ssim"), (10, 3, "encode_mps"), (10, 3, "decode_mps")]
            numbers = "".join(f"{'' if at.get(n) is None else format(at[n], f'.{d}f'):>{w}}" for w, d, n in cells)
            lines.append(f"{codec:16}{at['level']:>6}{numbers}{at['bugs']:6}")
    for codec in result["codecs"]:
        if codec["absent"]:
            lines.append(f"{codec['name']:16}absent: {codec['absent']}")
    bd = {(b["codec"], b["anchor"]): b for b in result["bd"] if b["metric"] == "psnr"}
    anchors = list(dict.fromkeys(anchor for _, anchor in bd))
    if bd:
        lines += ["", "BD-rate by PSNR, % (the row against the column; intervals and ranges are in the report)"]
        lines.append(" " * 16 + "".join(f"{anchor:>{max(10, len(anchor) + 2)}}" for anchor in anchors))
    for codec in dict.fromkeys(codec for codec, _ in bd):
        cells = []
        for anchor in anchors:
            value = bd[codec, anchor]["rate"] if (codec, anchor) in bd else 0.0 if codec == anchor else None
            text = "?" if value is None else "" if codec == anchor else f"{value:+.1f}"
            cells.append(f"{text:>{max(10, len(anchor) + 2)}}")
        lines.append(f"{codec:16}{''.join(cells)}")
    lines += [f"{codec} against {anchor}: {b['warning']}" for (codec, anchor), b in bd.items() if b["warning"]]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, compare, write the page; give the report."""
    for name in args.metrics.split(","):
        if name not in METRICS:
            raise ValueError(f"no metric {name!r}, but {', '.join(METRICS)}")
    if args.jobs is None:
        args.jobs = cores() if args.quick else 1
    if args.levels is None:
        args.levels = QUICK_LEVELS if args.quick else None
    elif args.levels < 4:
        raise ValueError(f"--levels is {args.levels}: a curve needs 4")
    if args.jobs < 1:
        raise ValueError(f"--jobs is {args.jobs}, not at least 1")
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit is {args.limit}, not at least 1")
    if not 0 <= args.viewer < math.inf:
        raise ValueError(f"--viewer is {args.viewer}, not a number of bits per pixel")
    wanted, dashed = specs(args), published(args)
    pictures = load(args.pictures, QUICK_PICTURES if args.quick and not args.limit else args.limit)
    found: dict[Spec, Codec] = {}
    about = []
    for spec in wanted:
        try:
            codec = found[spec] = codecs.find(spec)
            about.append({"name": codec.name, "settings": codec.settings, "version": codec.version, "absent": None})
        except Absent as error:
            about.append({"name": codecs.name_of(spec), "settings": "", "version": "", "absent": str(error)})
    if not found:
        raise ValueError("none of these codecs is present: " + "; ".join(f"{a['name']}: {a['absent']}" for a in about))
    names, usable = [*(a["name"] for a in about), *dashed], [*(codec.name for codec in found.values()), *dashed]
    for name in names:
        if not name or names.count(name) > 1:
            raise ValueError(f"the name {name!r} is taken twice or empty: choose another")
    anchors = args.anchor or usable
    for name in anchors:
        if name not in usable:
            raise ValueError(f"no anchor {name!r}, but {', '.join(usable)}")
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "points.jsonl"
    if args.fresh:
        kept.unlink(missing_ok=True)
    metrics = tuple(args.metrics.split(","))
    levels = {codec.name: levels_of(codec, args.levels) for codec in found.values()}
    measured = workers.sweep(found, levels, pictures, Store(kept), metrics, args.jobs)
    pixels = {name: p.width * p.height for name, p in pictures.items()}
    result: dict[str, Any] = {
        "rules": rules(args, pictures),
        "codecs": about,
        "curves": {name: curves.curve(m, pixels) for name, m in measured.items()},
        "peak_mib": workers.peaks(found, pictures),
        "published": dashed,
        "bd": curves.deltas(measured, dashed, metrics, anchors),
        "points": [
            {"codec": codec, "level": level, "picture": who}
            | ({"error": p} if isinstance(p, str) else {"bytes": p.bytes, "bpp": round(p.bpp, 5)}
               | {m: round(v, 5) for m, v in p.quality.items()}
               | {"encode_s": round(p.encode_s, 4), "decode_s": round(p.decode_s, 4), "error": None})
            for codec, levels in measured.items() for level, at in levels.items() for who, p in at.items()
        ],
    }  # fmt: skip
    for name, levels in result["curves"].items():
        for at in levels:
            at["peak_mib"] = result["peak_mib"][name]
    result["libraries"] = {name: metadata.version(name) for name in ("narrowbit", "numpy", "pillow", "bjontegaard")}
    whole = report("rd", rows_of(result), **result)
    write(args.out / "results.json", whole)
    looked_at = dict(list(pictures.items())[: 1 if args.quick else viewer.PICTURES])
    from .page import write as write_page  # wants jinja2 and matplotlib

    write_page(args.out / "report.html", whole, viewer.images(found.values(), looked_at, measured, args.viewer))
    print(shown(result))
    print(f"wrote {args.out / 'report.html'} and results.json", file=sys.stderr)
    return whole
