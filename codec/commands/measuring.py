"""`codec evaluate` and `codec compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from codec import files
from codec.commands import Number, allow_large_pictures, say
from codec.commands import model as model_option
from codec.commands import quiet as quiet_option
from codec.commands import threads as threads_option
from codec.completion import paths
from codec.container import MAX_QP
from codec.errors import install


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--qp", "levels", metavar="LIST", default="0,9,18,27,36,45,54,63", show_default=True, help="rate levels")
@click.option(
    "--json",
    "target",
    metavar="FILE",
    shell_complete=paths,
    help="write every picture and the averages; itself a curve file",
)
@click.option(
    "--against",
    metavar="FILE[:NAME]",
    multiple=True,
    shell_complete=paths,
    help="curve file to give the BD-rate against",
)
@threads_option
@model_option
@quiet_option
def evaluate(
    folder: Path,
    levels: str,
    target: str | None,
    against: tuple[str, ...],
    threads: int | None,
    model: str | None,
    quiet: bool,
) -> None:
    """Measure rate and distortion on a folder of pictures.

    Real files are made and decoded in memory. Needs the extra `bench` for MS-SSIM and BD-rates.
    """
    try:
        qps = sorted({int(part) for part in levels.split(",")})
    except ValueError:
        qps = [-1]
    if not set(qps) <= set(range(MAX_QP + 1)):
        raise click.BadParameter(f"{levels} is not a list like 0,18,36,63 of levels in 0..63", param_hint="'--qp'")
    from codec import evaluate as suite
    from codec.bundle import find

    if target is not None:
        files.check_target(target)
    allow_large_pictures()
    curves, similarity = suite.anchors(against, len(qps)), suite.knows_similarity()
    with click.progressbar(
        suite.pictures_in(folder), file=sys.stderr, hidden=quiet or not sys.stderr.isatty()
    ) as pictures:
        results, skipped = suite.evaluate(pictures, qps, similarity, model=model, threads=threads)
    made = suite.report(results, skipped, find(model), curves)
    tell = (lambda _: None) if quiet else say
    show = say if target == files.STDIO else click.echo
    for line in skipped:
        tell(f"skipped {line}")
    if not similarity:
        tell(f"note: no MS-SSIM without {install('bench')}")
    show("  qp  bit/pixel  PSNR, dB  MS-SSIM")
    for qp, bpp, quality, alike in zip(qps, made["bpp"], made["psnr"], made["ms_ssim"], strict=True):
        show(f"{qp:4} {bpp:10.4f} {quality:9.3f}  {'' if alike is None else f'{alike:7.5f}'}")
    for name, bd in made.get("bd_rate", {}).items():
        show(f"BD-rate against {name}: {bd['percent']:+.2f} % over {bd['from']:.2f} to {bd['to']:.2f} dB")
    tell(f"{len(made['pictures'])} pictures, averages of each")
    if target is not None:
        files.write(target, (json.dumps(made, indent=1) + "\n").encode())


@click.command()
@click.argument("source", metavar="PICTURE", shell_complete=paths)
@click.option("-q", "quality", type=Number(0, 100), metavar="QUALITY", help="[default: 50]")
@click.option("--qp", type=click.IntRange(0, 63), metavar="LEVEL", help="rate level, in place of -q")
@click.option("--same-size", is_flag=True, help="also what the others reach in as many bytes")
@click.option("--json", "target", metavar="FILE", shell_complete=paths, help="write the table")
@threads_option
@model_option
def compare(
    source: str,
    quality: float | None,
    qp: int | None,
    same_size: bool,
    target: str | None,
    threads: int | None,
    model: str | None,
) -> None:
    """Compare with JPEG, WebP and AVIF on a picture of your own.

    Each at the lowest quality that reaches the same PSNR.
    """
    if quality is not None and qp is not None:
        raise click.UsageError("-q and --qp say the same thing: give one of them")
    if target is not None:
        files.check_target(target)
    allow_large_pictures()
    from codec.compare import compare as table
    from codec.picture import load

    show = say if target == files.STDIO else click.echo
    picture = load(files.stdin() if source == files.STDIO else source)
    asked = 50 if quality is None else quality
    made = table(picture, asked, qp=qp, same_size=same_size, model=model, threads=threads, say=show)
    if target is not None:
        files.write(target, (json.dumps({"picture": source, **made}, indent=1) + "\n").encode())
