"""`codec encode` and `codec decode`, of files and of folders."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import click

import codec
from codec import files
from codec.commands import Number, Options, allow_large_pictures, is_folder, say
from codec.commands import model as model_option
from codec.commands import quiet as quiet_option
from codec.commands import threads as threads_option
from codec.completion import paths
from codec.errors import BadInput
from codec.metadata import kinds

# What the output of `encode` is not to be called: `codec encode *.png` would cost the second picture.
PICTURES = re.compile(r"\.(png|jpe?g?|webp|tiff?|bmp|p[gnp]m|gif|avif|hei[cf]|jp2|jxl|psd|dng|cr2|nef)$", re.IGNORECASE)
KINDS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "ppm", "pgm", "pnm")  # as codec.output.FORMATS
_GOALS = {"quality": "-q", "qp": "--qp", "target_size": "--target-size", "target_bpp": "--target-bpp",
          "target_psnr": "--target-psnr"}  # fmt: skip


class Bytes(click.ParamType):
    """1500, 200k, 1.5M: k is 1000."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"([0-9]*\.?[0-9]+)([kKmM]?)[bB]?", str(value))
        if not found:
            self.fail(f"{value} is not a number of bytes like 1500, 200k or 1.5M", param, ctx)
        return int(min(float(found[1]) * {"": 1, "k": 1000, "m": 1000000}[found[2].lower()], 1 << 62))


class Region(click.ParamType):
    """X,Y,WIDTH,HEIGHT."""

    name = "region"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not re.fullmatch(r"\d{1,9}(,\d{1,9}){3}", str(value)):
            self.fail(f"{value} is not X,Y,WIDTH,HEIGHT in pixels, like 0,0,640,480", param, ctx)
        return tuple(int(number) for number in str(value).split(","))


def _known(ctx: click.Context, param: click.Parameter, asked: str) -> str:
    try:
        kinds(asked)
    except BadInput as error:
        raise click.BadParameter(str(error)) from error
    return asked


_metadata = click.option(
    "--metadata",
    default="all",
    callback=_known,
    metavar="all|none|LIST",
    help="of icc,exif,xmp: what to keep  [default: all]",
)
_recursive = click.option("-r", "--recursive", is_flag=True, help="IN and OUT are folders: all files in IN")
_jobs = click.option("--jobs", type=click.IntRange(1, 1024), default=1, metavar="N", help="with -r: so many processes")
_ray = click.option("--ray", metavar="ADDRESS", help="with -r: on a Ray cluster, in place of --jobs")
_force = click.option("--force", is_flag=True, help="with -r: files that are up to date too")


def _folders(source: str, target: str, recursive: bool, jobs: int, ray: str | None, force: bool) -> bool:
    """Whether this is about folders. Raises UsageError where the options do not go together."""
    if not source or not target:
        raise click.UsageError("an empty name: IN and OUT name files or folders")
    if recursive and not is_folder(source):
        raise click.UsageError(f"-r is for folders, and {source} is none")
    if not recursive and (jobs > 1 or ray or force):
        raise click.UsageError("--jobs, --ray and --force are for folders: add -r")
    if not recursive and is_folder(source):
        raise click.UsageError(f"{source} is a folder: add -r to take all files in it")
    if recursive and target == files.STDIO:
        raise click.UsageError("with -r the output is a folder, not stdout")
    if ray and jobs > 1:
        raise click.UsageError("--jobs and --ray exclude each other: the cluster says how many")
    return recursive


@click.command()
@click.argument("source", metavar="IN", shell_complete=paths)
@click.argument("target", metavar="OUT", shell_complete=paths)
@click.option("-q", "quality", type=Number(0, 100), metavar="QUALITY", help="[default: 50]")
@click.option("--qp", type=click.IntRange(0, 63), metavar="LEVEL", help="rate level, in place of -q")
@click.option("--target-size", type=Bytes(), metavar="BYTES", help="the best file of at most 1500, 200k, 1.5M, ...")
@click.option("--target-bpp", type=Number(0, min_open=True), metavar="BITS", help="the same, by bits a pixel")
@click.option("--target-psnr", type=Number(0, 100), metavar="DB", help="the least of at least so many dB")
@click.option(
    "-e",
    "--effort",
    type=click.Choice([str(e) for e in codec.EFFORTS]),
    default="5",
    show_default=True,
    help="7, 8, 9: refine for 200, 500, 2000 iterations, minutes to hours a megapixel; needs PyTorch",
)
@click.option("--time-limit", type=Number(min=0), metavar="SECONDS", help="of refinement")
@_metadata
@click.option(
    "--tile",
    type=click.IntRange(0, 4096),
    metavar="SIDE",
    help="in pixels, rounded up to a multiple of 64; 0: none  [default: 1024 above 4 MP]",
)
@_recursive
@_jobs
@_ray
@_force
@threads_option
@model_option
@quiet_option
def encode(
    source: str,
    target: str,
    quality: float | None,
    qp: int | None,
    target_size: int | None,
    target_bpp: float | None,
    target_psnr: float | None,
    effort: str,
    time_limit: float | None,
    metadata: str,
    tile: int | None,
    recursive: bool,
    jobs: int,
    ray: str | None,
    force: bool,
    threads: int | None,
    model: str | None,
    quiet: bool,
) -> int:
    """Compress a picture (PNG, JPEG, WebP, AVIF, TIFF, ...) to a .mlic file; or a folder of them with -r.

    Colours, alpha, metadata and 16-bit depth come back on decoding; what cannot be kept, is said.
    """
    asked = {
        "quality": quality,
        "qp": qp,
        "target_size": target_size,
        "target_bpp": target_bpp,
        "target_psnr": target_psnr,
    }
    goal: Options = {name: value for name, value in asked.items() if value is not None} or {"quality": 50.0}
    if len(goal) > 1:
        raise click.UsageError(f"{' and '.join(_GOALS[name] for name in goal)} say the same thing: give one of them")
    options: Options = {**goal, "effort": int(effort), "metadata": metadata, "tile": tile, "model": model}
    if time_limit is not None:
        if not codec.EFFORTS[int(effort)]:
            raise click.UsageError("--time-limit is of refinement: add -e 7, 8 or 9")
        options["time_limit"] = time_limit
    if _folders(source, target, recursive, jobs, ray, force):
        from codec import batch

        spread: Options = {"jobs": jobs, "ray": ray, "threads": threads}
        return batch.command("encode", Path(source), Path(target), options, **spread, force=force, quiet=quiet)
    if PICTURES.search(target):
        raise click.UsageError(f"{target} has the extension of a picture, and OUT gets a .mlic file: name it so")
    files.check_target(target)
    files.check_apart(source, target)
    start = time.perf_counter()
    allow_large_pictures()
    from codec import picture

    loaded = picture.load(files.stdin() if source == files.STDIO else source)
    iterations = 0 if quiet else codec.EFFORTS[int(effort)]
    with click.progressbar(length=iterations, label="refining", file=sys.stderr, hidden=not iterations) as bar:
        if iterations:
            options["progress"] = lambda done, cost: bar.update(1)
        data = codec.encode(loaded, threads=threads, **options)
    files.write(target, data)
    if not quiet:
        fact = codec.info(data)
        shown = goal.get("quality", fact["quality"])
        say(
            f"{source} -> {target}: {fact['width']}x{fact['height']}, {fact['bytes']} bytes, {fact['bpp']:.3f} bpp, "
            f"q {shown:.3g} (qp {fact['qp']}), {time.perf_counter() - start:.2f} s"
        )
        for note in loaded.notes:
            say(f"note: {note}")
    return 0


@click.command()
@click.argument("source", metavar="IN", shell_complete=paths)
@click.argument("target", metavar="OUT", shell_complete=paths)
@click.option("--crop", type=Region(), metavar="X,Y,W,H", help="only this region, in pixels")
@click.option("--preview", is_flag=True, help="what the first bytes give, of a file cut short too")
@_metadata
@click.option("--runtime", type=click.Choice(["native", "onnx", "torch"]), default="native", show_default=True)
@_recursive
@click.option("--as", "extension", type=click.Choice(KINDS), help="with -r: the kind of pictures  [png]")
@_jobs
@_ray
@_force
@threads_option
@model_option
@quiet_option
def decode(
    source: str,
    target: str,
    crop: tuple[int, int, int, int] | None,
    preview: bool,
    metadata: str,
    runtime: str,
    recursive: bool,
    extension: str | None,
    jobs: int,
    ray: str | None,
    force: bool,
    threads: int | None,
    model: str | None,
    quiet: bool,
) -> int:
    """Decompress a .mlic file to a picture; or a folder of them with -r.

    The extension of OUT says which kind (PNG, JPEG, WebP, TIFF, BMP, PPM); `-` gets PNG.
    """
    options: Options = {"metadata": metadata, "runtime": runtime, "model": model}
    if _folders(source, target, recursive, jobs, ray, force):
        if crop or preview:
            raise click.UsageError("--crop and --preview are for single files")
        from codec import batch

        spread: Options = {"jobs": jobs, "ray": ray, "threads": threads, "extension": extension or "png"}
        return batch.command("decode", Path(source), Path(target), options, **spread, force=force, quiet=quiet)
    if extension:
        raise click.UsageError("--as is for folders: add -r")
    start = time.perf_counter()
    files.check_apart(source, target)
    data = files.read(source)
    allow_large_pictures()
    from codec import output

    output.check(target)
    picture = codec.decode_picture(data, crop=crop, preview=preview, threads=threads, **options)
    notes = output.save(picture, target)
    if not quiet:
        height, width = picture.rgb.shape[:2]
        say(f"{source} -> {target}: {width}x{height}, {time.perf_counter() - start:.2f} s")
        for note in notes:
            say(f"note: {note}")
    return 0
