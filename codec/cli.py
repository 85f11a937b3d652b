"""The `codec` command: parse, call, print. What it prints for people goes to stderr, what it makes goes to stdout.

Exit codes: 0 done, 1 failure, 2 usage, 3 not a .mlic file or an unknown version of it, 4 unknown model, 5 corrupt,
130 interrupted. An error is one line; MLIC_DEBUG=1 gives the traceback instead.

Only `click` and the standard library are imported here: `codec --help` must not wait for numpy or onnxruntime.
"""

import json
import os
import signal
import sys
import threading
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import codec
from codec import files
from codec.container import MAX_PIXELS
from codec.errors import CodecError, Corrupt

_HELP = {"help_option_names": ["-h", "--help"]}
_PASS_ON: dict[str, Any] = {"help_option_names": [], "ignore_unknown_options": True, "allow_interspersed_args": False}

_threads = click.option(
    "-j", "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: all cores]"
)
_model = click.option("--model", metavar="NAME|FILE", help="model bundle, see `codec models`")
_quiet = click.option("--quiet", is_flag=True, help="print errors only")


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib import metadata  # 20 ms that no other command should pay

        try:
            click.echo(f"codec {metadata.version('narrowbit')}")
        except metadata.PackageNotFoundError:
            click.echo("codec, not installed as a package")
        ctx.exit()


@click.group(context_settings=_HELP)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Learned image compression: pictures to .mlic files and back. `-` is stdin or stdout."""


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("-q", "quality", type=click.FloatRange(0, 100), metavar="QUALITY", help="[default: 50]")
@click.option("--qp", type=click.IntRange(0, 63), metavar="LEVEL", help="rate level, in place of -q")
@click.option(
    "-e",
    "--effort",
    type=click.Choice([str(e) for e in codec.EFFORTS]),
    default="5",
    show_default=True,
    help="7, 8, 9: refine for 200, 500, 2000 iterations, minutes to hours a megapixel; needs PyTorch",
)
@click.option("--time-limit", type=click.FloatRange(min=0), metavar="SECONDS", help="of refinement")
@_threads
@_model
@_quiet
def encode(
    source: str,
    target: str,
    quality: float | None,
    qp: int | None,
    effort: str,
    time_limit: float | None,
    threads: int | None,
    model: str | None,
    quiet: bool,
) -> None:
    """Compress a picture (PNG, JPEG, WebP, TIFF, ...) to a .mlic file."""
    if quality is not None and qp is not None:
        raise click.UsageError("-q and --qp say the same thing: give one of them")
    asked = 50.0 if quality is None else quality
    if asked != asked:  # click's range lets "nan" pass
        raise click.BadParameter("nan is not a number", param_hint="'-q'")
    files.check_target(target)
    files.check_apart(source, target)
    start = time.perf_counter()
    picture = _pictures().load(files.stdin() if source == files.STDIO else source)
    refinement: dict[str, Any] = {"effort": int(effort)}
    if time_limit is not None:
        refinement["time_limit"] = time_limit
    iterations = 0 if quiet else codec.EFFORTS[int(effort)]
    with click.progressbar(length=iterations, label="refining", file=sys.stderr, hidden=not iterations) as bar:
        if iterations:
            refinement["progress"] = lambda done, cost: bar.update(1)
        data = codec.encode(picture, asked, qp=qp, model=model, threads=threads, **refinement)
    files.write(target, data)
    if not quiet:
        fact = codec.info(data)
        shown = asked if qp is None else fact["quality"]
        _say(
            f"{source} -> {target}: {fact['width']}x{fact['height']}, {fact['bytes']} bytes, {fact['bpp']:.3f} bpp, "
            f"q {shown:.3g} (qp {fact['qp']}), {time.perf_counter() - start:.2f} s"
        )
        for note in picture.notes:
            _say(f"note: {note}")


@cli.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option("--runtime", type=click.Choice(["native", "onnx", "torch"]), default="native", show_default=True)
@_threads
@_model
@_quiet
def decode(source: str, target: str, runtime: str, threads: int | None, model: str | None, quiet: bool) -> None:
    """Decompress a .mlic file to a picture.

    The extension of OUT says which kind (PNG, JPEG, WebP, TIFF, BMP, PPM); `-` gets PNG.
    """
    start = time.perf_counter()
    files.check_apart(source, target)
    data = files.read(source)
    pictures = _pictures()
    pictures.check_output(target)
    image = codec.decode(data, model=model, threads=threads, runtime=runtime)
    pictures.save(image, target)
    if not quiet:
        _say(f"{source} -> {target}: {image.width}x{image.height}, {time.perf_counter() - start:.2f} s")


@cli.command()
@click.argument("source", metavar="IN")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def info(source: str, as_json: bool) -> None:
    """Show what a .mlic file says about itself."""
    facts = codec.info(files.read(source))
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name + ':':16}{value}")
    if facts["checksums"] != "ok":
        raise Corrupt(f"{source} is damaged or cut short: get a fresh copy")


@cli.command()
@click.argument("source", metavar="IN")
@_threads
@_model
def verify(source: str, threads: int | None, model: str | None) -> None:
    """Check that a .mlic file is whole and decodes.

    Does on this machine all of the decoding but drawing the picture.
    """
    codec.verify(files.read(source), model=model, threads=threads)


@cli.command()
@click.option("--networks", is_flag=True, help="the sizes of all networks instead, installed or not")
def models(networks: bool) -> None:
    """List the model bundles that are installed."""
    if networks:
        from codec.networks import sizes

        click.echo("network      parameters   1000 multiplications per pixel: in all, to decode")
        for size in sizes():
            click.echo(f"{size.name:12} {size.parameters:10,} {size.macs / 1e3:10.1f} {size.decode_macs / 1e3:10.1f}")
        return
    found = codec.installed_models()
    for bundle in found:
        click.echo(
            f"{bundle['name']}  model {bundle['model_id']}  synthesis {bundle['synthesis_id']}  "
            f"{bundle['bytes']} bytes  {bundle['path']}"
        )
    if not found:
        _say("no model bundle is installed")


@cli.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--qp", "levels", metavar="LIST", default="0,9,18,27,36,45,54,63", show_default=True, help="rate levels")
@click.option("--json", "target", metavar="FILE", help="write every picture and the averages; itself a curve file")
@click.option("--against", metavar="FILE[:NAME]", multiple=True, help="curve file to give the BD-rate against")
@_threads
@_model
@_quiet
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
    if not set(qps) <= set(range(codec.MAX_QP + 1)):
        raise click.BadParameter(f"{levels} is not a list like 0,18,36,63 of levels in 0..63", param_hint="'--qp'")
    from codec import evaluate as suite
    from codec.bundle import find

    if target is not None:
        files.check_target(target)
    curves, similarity = suite.anchors(against, len(qps)), suite.knows_similarity()
    with click.progressbar(
        suite.pictures_in(folder), file=sys.stderr, hidden=quiet or not sys.stderr.isatty()
    ) as pictures:
        results, skipped = suite.evaluate(pictures, qps, similarity, model=model, threads=threads)
    made = suite.report(results, skipped, find(model), curves)
    say = (lambda _: None) if quiet else _say
    show = _say if target == files.STDIO else click.echo
    for line in skipped:
        say(f"skipped {line}")
    if not similarity:
        say("note: no MS-SSIM without pip install 'narrowbit[bench]'")
    show("  qp  bit/pixel  PSNR, dB  MS-SSIM")
    for qp, bpp, quality, alike in zip(qps, made["bpp"], made["psnr"], made["ms_ssim"], strict=True):
        show(f"{qp:4} {bpp:10.4f} {quality:9.3f}  {'' if alike is None else f'{alike:7.5f}'}")
    for name, bd in made.get("bd_rate", {}).items():
        show(f"BD-rate against {name}: {bd['percent']:+.2f} % over {bd['from']:.2f} to {bd['to']:.2f} dB")
    say(f"{len(made['pictures'])} pictures, averages of each")
    if target is not None:
        files.write(target, (json.dumps(made, indent=1) + "\n").encode())


@cli.command(context_settings=_PASS_ON)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def train(argv: tuple[str, ...]) -> None:
    """Train a model (needs PyTorch)."""
    _pass_on("train", argv)


@cli.command(context_settings=_PASS_ON)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
def export(argv: tuple[str, ...]) -> None:
    """Turn a checkpoint into a model bundle (needs PyTorch)."""
    _pass_on("export", argv)


def _pass_on(name: str, argv: tuple[str, ...]) -> None:
    """Run `codec.training.NAME.main`, whose imports and options are no business of this file."""
    try:
        tool = import_module(f"codec.training.{name}")
    except ImportError as error:
        raise CodecError(f"`codec {name}` needs PyTorch ({error}): pip install 'narrowbit[train,export]'") from error
    sys.exit(tool.main(list(argv)))


def _pictures() -> Any:
    from PIL import Image  # numpy and Pillow: only when there are pixels to work on

    from codec import picture

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # in this process the file format's limit is the one that counts
    return picture


def _say(line: str) -> None:
    click.echo(line, err=True)


def _fail(message: object, code: int = 1) -> int:
    _say(f"codec: error: {' '.join(str(message).split())}")
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own); returns its exit code."""
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C: an exception, so that a half-written file is removed on the way out.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn in several lines, and to developers
    try:
        return cli.main(argv, prog_name="codec", standalone_mode=False) or 0
    except SystemExit as stop:  # a pipe closed by its reader, and what train and export return
        return _fail(stop.code) if isinstance(stop.code, str) else stop.code or 0
    except Exception as error:
        if os.environ.get("MLIC_DEBUG") == "1" and not isinstance(error, (click.ClickException, click.Abort)):
            raise
        return _report(error)


def _report(error: Exception) -> int:
    """One line on stderr for any failure; returns the exit code."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click before 8.2 has none
        _say(str(error))
        return 2
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "codec"
        return _fail(f"{error.format_message().rstrip('.')} (see `{where} --help`)", 2)
    if isinstance(error, click.Abort):  # Ctrl-C or SIGTERM
        return _fail("interrupted", 130)
    if isinstance(error, CodecError):
        return _fail(error, error.exit_code)
    if isinstance(error, MemoryError):
        return _fail("not enough memory for a picture of this size")
    if isinstance(error, OSError) and error.strerror:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    return _fail(f"unexpected {type(error).__name__}: {error} (MLIC_DEBUG=1 shows where)")


if __name__ == "__main__":
    sys.exit(main())
