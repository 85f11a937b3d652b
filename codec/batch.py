"""`codec encode DIR OUTDIR -r` and `codec decode DIR OUTDIR -r`: in this process, in several, or on a cluster.

This process alone reads and writes; workers get bytes and give bytes. So a worker may be lost at any moment without a
trace, files are whole or not there however this ends, and a cluster needs no common disk. Our choice.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import click

import codec
from codec import cluster, crew, files, folders
from codec.container import MAX_PIXELS, peek
from codec.crew import Lost
from codec.errors import BadInput, CodecError
from codec.folders import Pair, Plan
from codec.interrupts import held

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other file will fare better


class Made(NamedTuple):
    """The bytes of a file, the pixels of the picture, and notes on what is not kept."""

    data: bytes
    pixels: int
    notes: list[str]


class Done(NamedTuple):
    """What became of a pair: its target was made; or in a line why not."""

    pair: Pair
    made: Made | None
    failure: str = ""


Answer = Made | str
Work = Callable[[bytes], Answer]
Answers = Generator[tuple[Pair, Answer | Lost], None, None]


@dataclass
class Coder:
    """What a worker does: the bytes of a file -> Made, or in a line why not. Can be pickled.

    verb: encode or decode. options: of codec.encode or codec.decode_picture. format: Pillow's, of decoded pictures.
    model: the bytes of the bundle to use, where the worker's machine may not have it.
    """

    verb: str
    options: dict[str, Any]
    format: str = "PNG"
    model: bytes | None = None

    def __call__(self, data: bytes) -> Answer:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # as in the command's own process: the file format's limit counts
        options = {**self.options, "model": self._bundle[0]} if self.model else self.options
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _encode(data, options) if self.verb == "encode" else _decode(data, self.format, options)
        except Exception as error:  # the others go on
            return _line(error)

    @cached_property
    def _bundle(self) -> tuple[str, Any]:
        """The name of a file that holds `model` for as long as the other is open."""
        if os.path.isdir("/proc/self/fd"):  # one without a name in any folder: Ray ends processes without a warning
            file: Any = tempfile.TemporaryFile()  # noqa: SIM115
            name = f"/proc/self/fd/{file.fileno()}"
        else:
            file = tempfile.NamedTemporaryFile(suffix=".safetensors")  # noqa: SIM115
            name = file.name
        file.write(self.model or b"")
        file.flush()
        return name, file


def _encode(data: bytes, options: dict[str, Any]) -> Made:
    from codec import picture

    loaded = picture.load(data)
    made = codec.encode(loaded, **options)
    head, _ = peek(made)
    return Made(made, head.width * head.height, loaded.notes)


def _decode(data: bytes, format: str, options: dict[str, Any]) -> Made:
    from codec import output

    made = io.BytesIO()
    notes = output.save(codec.decode_picture(data, **options), made, format)
    head, _ = peek(data)
    return Made(made.getvalue(), head.width * head.height, notes)


def _line(error: Exception) -> str:
    if isinstance(error, CodecError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory for a picture of this size"
    return f"unexpected {type(error).__name__}: {error}"


HERE: Callable[..., Answers] = partial(crew.shared, jobs=1)


def run(
    pairs: Iterable[Pair],
    work: Work,
    spread: Callable[..., Answers] = HERE,
    count: Callable[[Done], None] = lambda done: None,
) -> Generator[Done, None, None]:
    """Read, code and write each pair; yields what became of it, as they come. After a failure it goes on.

    spread: crew.shared or cluster.shared with their options. count: hears of each; no interrupt comes between a file
    and its count. Closing the iterator ends all workers.
    Raises OSError where the disk is full or read-only, and what `spread` raises.
    """
    unread: list[Done] = []

    def sources() -> Iterator[tuple[Pair, bytes]]:
        for pair in pairs:
            try:
                data = pair.source.read_bytes()
            except (OSError, MemoryError) as error:
                unread.append(Done(pair, None, f"{pair.source}: {getattr(error, 'strerror', None) or _line(error)}"))
                count(unread[-1])
            else:
                yield pair, data

    with closing(spread(work, sources())) as answers:
        for pair, answer in answers:
            with held():
                done = _written(pair, answer)
                count(done)
            yield done
    yield from unread


def _written(pair: Pair, answer: Answer | Lost) -> Done:
    if not isinstance(answer, Made):
        return Done(pair, None, f"{pair.source}: {answer}")
    try:
        pair.target.parent.mkdir(parents=True, exist_ok=True)
        files.check_apart(str(pair.source), str(pair.target))
        files.write(str(pair.target), answer.data)
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(error.errno, error.strerror, str(pair.target)) from error
        return Done(pair, None, f"{pair.target}: {error.strerror}")
    except CodecError as error:
        return Done(pair, None, f"{pair.source}: {error}")
    return Done(pair, answer)


def command(
    verb: str,
    source: Path,
    out: Path,
    options: dict[str, Any],
    *,
    extension: str = "png",
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> int:
    """The commands `codec encode -r` and `codec decode -r`: 0, or 1 if a file failed, each told in a line on stderr.

    verb: encode or decode. options: of codec.encode or codec.decode_picture, for every file. extension: of decoded
    pictures. jobs: processes. ray: address of a cluster, in place of them. threads: of each job; cores / jobs unless
    given, 1 on a cluster. force: files that are up to date too. quiet: errors only.
    Raises CodecError for what concerns all files, OSError where the disk is full; KeyboardInterrupt leaves whole files.
    """
    from codec.bundle import find
    from codec.output import FORMATS
    from codec.runtime import cores

    suffix = folders.SUFFIX if verb == "encode" else f".{extension.lower().lstrip('.')}"
    if verb == "decode" and suffix not in FORMATS:
        raise BadInput(f"no picture format goes by the extension {suffix}; use one of {' '.join(FORMATS)}")
    bundle = find(options.get("model")) if verb == "encode" or options.get("model") else None
    wanted = folders.may_be_a_picture if verb == "encode" else folders.is_ours
    plan = folders.plan(source, out, suffix, wanted, force)
    jobs = max(1, min(jobs, len(plan.pairs)))
    threads = threads or (1 if ray else max(1, cores() // jobs))
    work = Coder(verb, {**options, "threads": threads}, "" if verb == "encode" else FORMATS[suffix][0])
    spread: Callable[..., Answers] = partial(crew.shared, jobs=jobs)
    if ray and plan.pairs:
        spread = partial(cluster.shared, address=ray, threads=threads)
        work.model = bundle.path.read_bytes() if bundle else None
    tally = Tally(verb, plan)
    try:
        with _bar(plan, quiet) as bar, closing(run(plan.pairs, work, spread, tally.add)) as results:
            for done in results:
                bar.update(done.pair.size, tally.progress())
    except BaseException:
        if tally.done or tally.failures:  # else the error says it all
            tally.tell(quiet)
        raise
    tally.tell(quiet)
    return 1 if tally.failures else 0


def _bar(plan: Plan, quiet: bool) -> Any:
    """By bytes of the sources, which tell best how long it takes."""
    return click.progressbar(
        length=sum(pair.size for pair in plan.pairs),
        item_show_func=lambda text: text,
        show_percent=True,
        file=sys.stderr,
        hidden=quiet or not plan.pairs or not sys.stderr.isatty(),
    )


class Tally:
    """What a run came to. `tell` prints it on stderr."""

    def __init__(self, verb: str, plan: Plan):
        self.verb, self.plan = verb, plan
        self.done = self.pixels = self.taken = self.given = 0
        self.notes: Counter[str] = Counter()
        self.failures = list(plan.unseen)
        self.start = time.perf_counter()

    def add(self, done: Done) -> None:
        """One more."""
        if done.made is None:
            self.failures.append(done.failure)
            return
        self.done += 1
        self.pixels += done.made.pixels
        self.taken += done.pair.size
        self.given += len(done.made.data)
        self.notes.update(done.made.notes)

    def speed(self) -> str:
        """So far."""
        return f"{self.pixels / 1e6 / (time.perf_counter() - self.start):.3g} MP/s"

    def progress(self) -> str:
        """Beside the bar."""
        return f"{self.done} of {len(self.plan.pairs)} files, {self.speed()}"

    def tell(self, quiet: bool) -> None:
        """A line for each failure; then, unless quiet, a line for each kind of note, and one for all."""
        for failure in sorted(self.failures):
            click.echo(f"codec: error: {' '.join(failure.split())}", err=True)
        if quiet:
            return
        for note, count in sorted(self.notes.items()):
            click.echo(f"note: {note} ({count} of {self.done} files)", err=True)
        seconds = time.perf_counter() - self.start
        parts = [f"{self.verb}d {self.done} of {len(self.plan.pairs)} files"]
        if self.done:
            sizes = f"{self.taken / 1e6:.3g} MB -> {self.given / 1e6:.3g} MB"
            parts.append(f"{self.pixels / 1e6:.3g} MP, {sizes}, {seconds:.3g} s, {self.speed()}")
        counts = {
            "failed": len(self.failures), "up to date (--force takes them too)": self.plan.fresh,
            "of other kinds": self.plan.others,
            "not followed, links to folders": self.plan.links,
        }  # fmt: skip
        parts += [f"{count} {what}" for what, count in counts.items() if count]
        click.echo("; ".join(parts), err=True)
