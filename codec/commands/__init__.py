"""What the larger commands of `codec` share. Only `click` and the standard library are imported before one runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from codec.completion import paths

threads = click.option(
    "-j", "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads  [default: all cores]"
)
model = click.option("--model", metavar="NAME|FILE", shell_complete=paths, help="model bundle, see `codec models`")
quiet = click.option("--quiet", is_flag=True, help="print errors only")


def say(line: str) -> None:
    """To people: on stderr."""
    click.echo(line, err=True)


def allow_large_pictures() -> None:
    """In this process the file format's limit is the one that counts, not Pillow's."""
    from PIL import Image

    from codec.container import MAX_PIXELS

    Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class Number(click.FloatRange):
    """click's own lets nan and inf pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a number", param, ctx)
        return found


def is_folder(source: str) -> bool:
    return source != "-" and Path(source).is_dir()


Options = dict[str, Any]
