"""Suite `kodak`: rate and distortion of our codec on a folder of pictures, against peers measured and published.

    python -m bench kodak --peers results/peers_kodak.json --json results/kodak.json --plot kodak.png

Real file sizes; RGB PSNR; both averaged over the pictures per level; BD-rate by PCHIP over log-rate within the PSNR
range that both curves cover. Without --peers, JPEG, WebP and AVIF are measured in the same run, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rate import DataMissing, bd_rate, data_dir, psnr_overlap, published_curve

from . import peers
from .measure import COLUMNS, PEER_SETTINGS, Codec, Picture, Points, averages, libraries, load, sweep, to_json
from .report import Row, report, row

QPS = tuple(range(0, 64, 9))
PUBLISHED = {"vtm": "compressai/vtm", "mlicpp": "mlicplusplus"}  # of rd_summary.json: VTM 9.1 and MLIC++
AGAINST = [("ours", "jpeg"), ("ours", "webp"), ("ours", "avif"), ("ours", "vtm"), ("ours", "mlicpp"),
           ("jpeg", "vtm"), ("webp", "vtm"), ("avif", "vtm"), ("mlicpp", "vtm")]  # fmt: skip

Curve = tuple[list[float], list[float]]  # bits per pixel, PSNR in dB


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    peers.add_options(parser)
    parser.add_argument("--peers", metavar="FILE", type=Path, help="reuse the peers of this results file")
    parser.add_argument("--model", metavar="NAME|FILE", help="model bundle [the default one]")
    parser.add_argument("--monotone", action="store_true", help="also check bytes and PSNR at -q 0, 10, ..., 100")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the curves")


def ours(model: str | None, levels: tuple[int, ...] = QPS, option: str = "qp") -> Codec:
    """Our codec through its public API; `option` says what a level is, a QP or a quality."""
    import codec

    chosen: dict[str, Any] = {"model": model} if model else {}

    def encode(picture: Picture, level: int) -> bytes:
        at: dict[str, Any] = {option: level}
        return codec.encode(picture, **at, **chosen)

    def decode(data: bytes) -> Picture:
        return codec.decode(data, **chosen)

    return Codec("ours", encode, decode, levels, "qp" if option == "qp" else "q")


def curve(points: Points) -> Curve:
    """The set's averages, level by level."""
    pairs = [averages(at.values()) for at in points.values()]
    return [bpp for bpp, _ in pairs], [quality for _, quality in pairs]


def published(args: argparse.Namespace, pictures: str) -> dict[str, Curve]:
    """The published curves for a whole set of that name; none, with a word why, where they cannot be had."""
    if args.limit:
        return {}
    try:
        data = data_dir(args.data)
        found = {name: published_curve(data, codec, pictures) for name, codec in PUBLISHED.items()}
    except (DataMissing, KeyError) as error:
        print(f"without published curves: {error.args[0]}", file=sys.stderr)
        return {}
    return {name: (c["bpp"], c["psnr"]) for name, c in found.items()}


def bd_rows(pictures: str, curves: dict[str, Curve]) -> list[Row]:
    """BD-rate of each codec against its anchor and the PSNR range it speaks of; None where it is not defined."""
    rows = []
    for codec, anchor in AGAINST:
        if codec not in curves or anchor not in curves:
            continue
        name = f"{pictures}/bd-rate/{codec}-vs-{anchor}"
        value = low = high = None
        try:
            value = bd_rate(*curves[anchor], *curves[codec])
            low, high = psnr_overlap(curves[anchor][1], curves[codec][1])
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
        rows += [row(name, value, "%", 2), row(f"{name}/from", low, "dB", 2), row(f"{name}/to", high, "dB", 2)]
    return rows


def monotone_rows(pictures: str, points: Points) -> list[Row]:
    """1 where in no picture bytes or PSNR fall as the quality rises, and the number of falls."""
    levels = list(points.values())
    falls = [
        f"{who} at {level}"
        for (level, at), before in zip(list(points.items())[1:], levels, strict=False)
        for who in at
        if at[who].bytes < before[who].bytes or at[who].psnr < before[who].psnr
    ]
    if falls:
        print("not monotone: " + ", ".join(falls), file=sys.stderr)
    return [row(f"{pictures}/ours/monotone", not falls, "1 = yes"), row(f"{pictures}/ours/falls", len(falls), "count")]


def table(rows: list[Row]) -> str:
    """The rows for people: one line per codec and level, then the BD-rates."""
    values = {r["name"].split("/", 1)[1]: r["value"] for r in rows}
    lines = [f"{'codec':8}{'level':>6}{'bpp':>9}{'PSNR dB':>9}{'enc s':>9}{'dec s':>9}"]
    for name in values:
        if name.endswith("/bpp"):
            at = name.removesuffix("bpp")
            codec, level = at.strip("/").split("/")
            bpp, psnr, encode, decode = (values[at + what] for what in ("bpp", "psnr", "encode", "decode"))
            lines.append(f"{codec:8}{level:>6}{bpp:9.4f}{psnr:9.2f}{encode:9.3f}{decode:9.3f}")
    lines.append("times: wall clock, median over the pictures")
    for name, value in values.items():
        if name.startswith("bd-rate/") and name.count("/") == 1:
            what = name.removeprefix("bd-rate/").replace("-vs-", " against ")
            known = value is not None
            over = f"over {values[name + '/from']:.2f}..{values[name + '/to']:.2f} dB" if known else "not defined"
            lines.append(f"BD-rate of {what:24}{f'{value:+8.2f} %' if known else '':10}  {over}")
        elif name == "ours/monotone":
            lines.append(f"monotone in -q: {'yes' if value else 'NO'}")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, print the table, draw the plot, give the report."""
    where = peers.folder(args)
    pictures = load(where, args.limit)
    about: dict[str, Any]
    if args.peers:
        before = json.loads(args.peers.read_text(encoding="utf-8"))
        others = peers.cached(before, pictures)
        about = {key: before[key] for key in ("machine", "commit", "command", "libraries", "settings")}
    else:
        others = peers.measured(pictures)
        about = {"libraries": libraries(), "settings": PEER_SETTINGS}
    points = {"ours": sweep(pictures, ours(args.model)), **others}
    curves = {name: curve(p) for name, p in points.items()} | published(args, where.name)
    rows = peers.rows_of(where.name, points) + bd_rows(where.name, curves)
    if args.monotone:
        rows += monotone_rows(where.name, sweep(pictures, ours(args.model, tuple(range(0, 101, 10)), "quality")))
    print(table(rows))
    if args.plot:
        from .plot import draw

        draw(args.plot, curves, f"{where.name}, {len(pictures)} pictures")
    kept = points if not args.peers else {"ours": points["ours"]}  # the others are in the file they came from
    return report("kodak", rows, peers=about, pictures=len(pictures), columns=COLUMNS, points=to_json(kept))
