"""The `codec` command: parse, call, print. What it prints for people goes to stderr, what it makes goes to stdout.

Exit codes: 0 done, 1 failure, 2 usage, 3 not a .mlic file or an unknown version of it, 4 unknown model, 5 corrupt,
6 a target out of reach, 130 interrupted. An error is one line; MLIC_DEBUG=1 gives the traceback instead.

Only `click` and the standard library are imported here: `codec --help` must not wait for numpy or onnxruntime.
"""

import json
import os
import signal
import sys
import threading
import warnings
from importlib import import_module
from typing import Any

import click

import codec
from codec import commands, files
from codec.commands import coding, measuring
from codec.commands import say as _say
from codec.completion import SHELLS, paths, script
from codec.errors import CodecError, Corrupt, install
from codec.interrupts import noted

_HELP = {"help_option_names": ["-h", "--help"]}
_PASS_ON: dict[str, Any] = {"help_option_names": [], "ignore_unknown_options": True, "allow_interspersed_args": False}


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


for _command in (coding.encode, coding.decode, measuring.evaluate, measuring.compare):
    cli.add_command(_command)


@cli.command()
@click.argument("source", metavar="IN", shell_complete=paths)
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
@click.argument("source", metavar="IN", shell_complete=paths)
@commands.threads
@commands.model
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


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete this command's words.

    In ~/.bashrc or ~/.zshrc: source <(codec completion bash)
    """
    click.echo(script(shell, cli), nl=False)


def _pass_on(name: str, argv: tuple[str, ...]) -> None:
    """Run `codec.training.NAME.main`, whose imports and options are no business of this file."""
    try:
        tool = import_module(f"codec.training.{name}")
    except ImportError as error:
        raise CodecError(f"`codec {name}` needs PyTorch ({error}): {install('train,export')}") from error
    sys.exit(tool.main(list(argv)))


def _fail(message: object, code: int = 1) -> int:
    _say(f"codec: error: {' '.join(str(message).split())}")
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's own); returns its exit code."""
    if argv is None and sys.argv[1:2] == ["train"]:
        import_module("rate.memory").with_huge_pages()
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C: an exception, so that a half-written file is removed on the way out.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn in several lines, and to developers
    came: list[int] = []
    try:
        with noted() as came:
            code = cli.main(argv, prog_name="codec", standalone_mode=False) or 0
        return _fail("interrupted", 130) if came else code
    except SystemExit as stop:  # a pipe closed by its reader, and what train and export return
        return _fail(stop.code) if isinstance(stop.code, str) else stop.code or 0
    except Exception as error:
        if came:  # imports, for one, make other errors of it
            return _fail("interrupted", 130)
        if os.environ.get("MLIC_DEBUG") == "1" and not isinstance(error, (click.ClickException, click.Abort)):
            raise
        return _report(error)


def _report(error: Exception) -> int:
    """One line on stderr for any failure; returns the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
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
