"""python -m bench.readme [--check]: the tables of the README, from the committed results.

Each stands between lines like `<!-- rd-table -->` and `<!-- /rd-table -->`. --check changes nothing and exits with
status 1 where the README does not say what the results say.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from rate.options import Parser

from .report import source
from .tables import fpga, gemm, l1norm, nas_sr, nas_step, nas_synthesis, quant_accuracy, quant_train

ROOT = Path(__file__).parent.parent
NAMES = {
    "mlicpp": "MLIC++ (published)",
    "vtm": "VTM 9.1 (published)",
    "avif": "AVIF (aom)",
    "avif-svt": "AVIF (SVT-AV1)",
    "heic": "HEIC (x265)",
    "ours": "**mlicv2-s**",
    "webp": "WebP",
    "jpeg2000": "JPEG 2000",
    "jxl": "JPEG XL",
    "jpeg": "JPEG",
}


def table(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `rd`."""
    values: dict[str, float | None] = {r["name"].removeprefix("rd/"): r["value"] for r in result["rows"]}

    def percent(codec: str, anchor: str) -> str:
        value = values.get(f"{codec}/bdrate/{anchor}")
        return "" if value is None else f"{value:+.1f} %"

    lines = ["| QP | bit/pixel | PSNR, dB | encode, s | decode, s |", "|---:|---:|---:|---:|---:|"]
    for name in values:
        if at := re.fullmatch(r"ours/qp(\d+)/bpp", name):
            cells = [values[f"ours/qp{at[1]}/{what}"] or 0.0 for what in ("bpp", "psnr", "encode_s", "decode_s")]
            lines.append("| {} | {:.3f} | {:.2f} | {:.2f} | {:.2f} |".format(at[1], *cells))
    lines += ["", "| codec | BD-rate against VTM | mlicv2-s against it | compared over |", "|---|---:|---:|---:|"]
    for codec, name in NAMES.items():
        if codec not in {c["name"] for c in result["codecs"]} | set(result["published"]):
            continue
        low, high = (values.get(f"ours/bdrate/{codec}/{end}") for end in ("from", "to"))
        over = "" if low is None or high is None else f"{low:.1f} to {high:.1f} dB"
        lines.append(f"| {name} | {percent(codec, 'vtm')} | {percent('ours', codec)} | {over} |")
    peers = "; ".join(
        f"{c['name']}: {c['settings']}, {c['version']}"
        for c in result["codecs"]
        if c["name"] != "ours" and not c["absent"]
    )
    lines += ["", *(f"* {rule}" for rule in result["rules"]), "", f"{peers}.", "", f"Source: {source(result)}."]
    return "\n".join(lines)


def learning(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `learning`."""
    values = {r["name"]: r["value"] for r in result["rows"]}
    lines = ["| crops seen | against JPEG | WebP | AVIF | VTM |", "|---:|---:|---:|---:|---:|"]
    for crops in dict.fromkeys(name.split("/")[1] for name in values):
        cells = (values.get(f"learning/{crops}/{anchor}") for anchor in ("jpeg", "webp", "avif", "vtm"))
        shown = " | ".join("" if v is None else f"{v:+.1f} %" for v in cells)
        lines.append(f"| {int(crops):,} | {shown} |")
    lines += ["", f"BD-rate on {result['pictures']} pictures, real files. Source: {source(result)}."]
    return "\n".join(lines)


def process(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `process`."""
    values = {r["name"].removeprefix("process/"): r["value"] for r in result["rows"]}
    return (
        f"From process start to finished file, 768x512: encode {values['encode/wall']:.2f} s, decode "
        f"{values['decode/wall']:.2f} s, at most {values['peak']:.0f} MiB. Source: {source(result)}."
    )


def big(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `big`."""
    values = {r["name"].removeprefix("big/"): r["value"] for r in result["rows"]}
    lines = [
        "| megapixels | encode | peak | decode | peak | a region of 1024x768 |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size in dict.fromkeys(name.split("/")[0] for name in values if name[0].isdigit()):
        cells = [
            values[f"{size}/{what}"] for what in ("encode/s", "encode/peak", "decode/s", "decode/peak", "region/s")
        ]
        lines.append("| {} | {:.1f} s | {:.0f} MiB | {:.1f} s | {:.0f} MiB | {:.1f} s |".format(size[:-2], *cells))
    levels = dict.fromkeys(name.split("/")[1] for name in values if name.startswith("tiles/"))
    costs = "; ".join(
        f"QP {level[2:]}: {values[f'tiles/{level}/bytes']:+.2f} % bytes, {values[f'tiles/{level}/psnr']:+.3f} dB, "
        f"along borders {values[f'tiles/{level}/seam']:+.3f} dB more"
        for level in levels
    )
    lines += [
        "",
        "Whole processes, PPM in and out. Tiles of 256 pixels against one piece, on three photographs: "
        f"{costs}. Source: {source(result)}.",
    ]
    return "\n".join(lines)


def batch(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `batch`."""
    values = {r["name"].removeprefix("batch/"): r["value"] for r in result["rows"]}
    return (
        f"1,000 pictures of 64 to 160 pixels: {values['jobs-1/files-per-s']:.0f} files a second, with `--jobs 2` "
        f"{values['jobs-2/files-per-s']:.0f}, {values['speedup']:.2f} times as many. Source: {source(result)}."
    )


CODERS = {
    "ours/avx512": "ours, AVX-512",
    "ours/avx2": "ours, AVX2",
    "ours/neon": "ours, NEON",
    "ours/scalar": "ours, scalar",
    "compressai/as-called": "CompressAI `ans`, as its models call it",
    "compressai/lists-prepared": "the same, its Python lists made before",
    "constriction/ans": "constriction, Gaussians per symbol",
    "torchac/int16": "torchac, 16-bit tables per symbol",
}


def coder(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `coder`."""
    values = {r["name"].removeprefix("coder/"): r["value"] for r in result["rows"]}
    lines = [
        "| coder | codec-like: encode, decode | uniform: encode, decode | bytes over the ideal |",
        "|---|---:|---:|---:|",
    ]
    for who, name in CODERS.items():
        cells = []
        for source_name in ("codec-like", "uniform"):
            pair = [values.get(f"{who}/{source_name}/{way}") for way in ("encode", "decode")]
            cells.append("" if None in pair else "{:.0f}, {:.0f}".format(*pair))
        if not any(cells):
            continue
        over = [values[f"{who.split('/')[0]}/overhead/{s}"] for s in ("codec-like", "uniform")]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {over[0]:+.2f} %, {over[1]:+.2f} % |")
    shares = (values["share/encode"], values["share/decode"])
    lines += [
        "",
        "Million symbols a second of one thread's CPU time, best of five, all in one process. Of encoding and decoding "
        "a 768x512 picture the coder takes {:.1f} % and {:.1f} %. Source: {}.".format(*shares, source(result)),
    ]
    return "\n".join(lines)


def large(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `large`."""
    values = {r["name"].removeprefix("large/"): r["value"] for r in result["rows"]}
    lines = [
        "| picture | compress, decompress | the entropy part of it | in float32 | in float32, as MLIC++'s code works |",
        "|---|---:|---:|---:|---:|",
    ]
    for size in dict.fromkeys(name.split("/")[0] for name in values if name[0].isdigit()):
        pairs = [("", ""), ("entropy/", "/ours"), ("entropy/", "/float32"), ("entropy/", "/listed")]
        cells = [
            ", ".join(f"{values[f'{size}/{part}{way}{how}']:.2f}" for way in ("compress", "decompress"))
            for part, how in pairs
        ]
        lines.append(f"| {size} | " + " | ".join(f"{c} s" for c in cells) + " |")
    lines += [
        "",
        f"Untrained weights. A training step of mlicv2-l on one crop of 256x256 takes {values['step/256x256']:.1f} s; "
        f"at most {values['peak'] / 1024:.1f} GiB of memory for all of this. Source: {source(result)}.",
    ]
    return "\n".join(lines)


def ablation(result: dict[str, Any]) -> str:
    """The Markdown of one result of the suite `ablation`."""
    values = {r["name"].removeprefix("ablation/"): r["value"] for r in result["rows"]}
    names = {
        "whole": "everything",
        "guided": "without the hyperprior-guided context of slice 0",
        "reweighting": "without channel reweighting",
        "rotary": "without rotary positions",
        "none": "without any of them",
        "guided-anchors": "everything, and that context for anchors as well",
        "again": "everything, another seed",
    }
    lines = ["| entropy model | bit/pixel | more rate |", "|---|---:|---:|"]
    for name, text in names.items():
        more = "" if name == "whole" else f"{values[f'{name}/rate']:+.1f} %"
        lines.append(f"| {text} | {values[f'{name}/bpp']:.4f} | {more} |")
    codecs = {
        "codec": "token mixing",
        "residual": "residual blocks instead",
        "longer": "token mixing, more steps",
        "selecting": "the same with selective coding in them",
    }
    lines += ["", "| codec | bit/pixel | PSNR, dB | kMAC a pixel |", "|---|---:|---:|---:|"]
    for name, text in codecs.items():
        cost = f"{values[f'{name}/kmacs']:.1f}" if f"{name}/kmacs" in values else ""
        lines.append(f"| {text} | {values[f'{name}/bpp']:.3f} | {values[f'{name}/psnr']:.2f} | {cost} |")
    lines += [
        "",
        "Narrow networks, few steps: entropy models on the same latents, the first 64 channels of mlicv2-s at QP 27; "
        "codecs from nothing, at lambda 0.013, which shows how fast they learn and not where they end. "
        f"Source: {source(result)}.",
    ]
    return "\n".join(lines)


TABLES = {
    "rd-table": ("rd", table),
    "learning": ("learning", learning),
    "process": ("process", process),
    "big": ("big", big),
    "batch": ("batch", batch),
    "coder": ("coder", coder),
    "large": ("large", large),
    "ablation": ("ablation", ablation),
    "gemm": ("gemm", gemm),
    "l1norm": ("l1norm", l1norm),
    "quant-accuracy": ("quant-accuracy", quant_accuracy),
    "quant-train": ("quant-train", quant_train),
    "nas-sr": ("nas-sr", nas_sr),
    "nas-step": ("nas-step", nas_step),
    "nas-synthesis": ("nas-synthesis", nas_synthesis),
    "fpga": ("fpga", fpga),
}


def updated(text: str, marker: str, content: str) -> str:
    """`text` with `content` between the markers. Raises ValueError unless each marker stands there once, in order."""
    first, last = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if text.count(first) != 1 or text.count(last) != 1 or text.index(first) > text.index(last):
        raise ValueError(f"the README needs one {first} and after it one {last}")
    head, tail = text.split(first)[0], text.split(last)[1]
    return f"{head}{first}\n{content}\n{last}{tail}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check the table. Exit status 1 with one line on stderr where something is missing or out of date."""
    parser = Parser(prog="python -m bench.readme", description="The README's tables.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the README is out of date")
    parser.add_argument("--results", metavar="DIR", type=Path, default=ROOT / "results")
    parser.add_argument("--readme", metavar="FILE", type=Path, default=ROOT / "README.md")
    args = parser.parse_args(arguments)
    try:
        before = args.readme.read_text(encoding="utf-8")
        after = before
        for marker, (suite, make) in TABLES.items():
            result = json.loads((args.results / f"{suite}.json").read_text(encoding="utf-8"))
            after = updated(after, marker, make(result))
    except (OSError, ValueError) as error:
        print(f"bench.readme: {error}", file=sys.stderr)
        return 1
    if before == after:
        return 0
    if args.check:
        print(f"bench.readme: {args.readme.name} is out of date: run python -m bench.readme", file=sys.stderr)
        return 1
    args.readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
