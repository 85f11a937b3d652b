"""Where bytes come from and go to: paths, and `-` for stdin and stdout. Outputs are written whole or not at all."""

import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codec.errors import BadInput

STDIO = "-"


def read(source: str) -> bytes:
    """All bytes of the file `source`, or of stdin for `-`. Raises OSError."""
    return stdin().read() if source == STDIO else Path(source).read_bytes()


def stdin() -> BinaryIO:
    """Raises BadInput where there is none."""
    if sys.stdin is None:
        raise BadInput("stdin is closed: name an input file")
    return sys.stdin.buffer


def is_special(target: str) -> bool:
    """Whether `target` must be written in place: a pipe, a device, or another name of an open file."""
    if os.path.abspath(target).startswith(("/dev/std", "/dev/fd/", "/proc/")):
        return True  # /dev/stdout may lead to a regular file, which must not be swapped under the shell's feet
    return os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode)


def check_target(target: str) -> None:
    """Raise BadInput now for what would make `write` fail after the work is done."""
    if target == STDIO:
        if sys.stdout is None:
            raise BadInput("stdout is closed: name an output file")
        if sys.stdout.isatty():
            raise BadInput("stdout is a terminal: name an output file, or pipe the output into one")
        return
    real = os.path.realpath(target)
    if os.path.isdir(real):
        raise BadInput(f"{target} is a directory: name a file in it")
    if is_special(target):
        return
    folder = os.path.dirname(real)
    if not os.path.isdir(folder):
        raise BadInput(f"there is no directory {os.path.dirname(target) or folder}: create it first")
    # Replacing needs a writable directory only; a file that its owner write-protected is still not ours to replace.
    if not os.access(real if os.path.exists(real) else folder, os.W_OK):
        raise BadInput(f"{target} is not writable: choose another output or change its permissions")


def check_apart(source: str, target: str) -> None:
    """Raise BadInput if the output would take the place of the input."""
    paths = STDIO not in (source, target) and os.path.exists(source) and os.path.exists(target)
    if paths and os.path.samefile(source, target) and not is_special(target):
        raise BadInput(f"{target} is the input itself: name another output")


@contextmanager
def _named(target: str) -> Iterator[None]:
    """A full disk says of which file."""
    try:
        yield
    except OSError as error:
        error.filename = target
        raise


def write(target: str, data: bytes) -> None:
    """Write `data` to the file `target` (or to stdout for `-`), so that no reader ever sees a part of it.

    The bytes go to a new file beside it, which then takes its name; symbolic links are followed, and a file that is
    replaced leaves its permissions to the new one. Raises OSError, BadInput; nothing is left behind then, nor after
    an interrupt. Pipes and devices are written directly.
    """
    check_target(target)
    if target == STDIO:
        rest = memoryview(data)
        while rest:  # without a buffer (PYTHONUNBUFFERED) a pipe may take a part
            rest = rest[sys.stdout.buffer.write(rest) or 0 :]
        sys.stdout.buffer.flush()
        return
    if is_special(target):
        with open(target, "wb") as stream:
            stream.write(data)
        return
    real = os.path.realpath(target)
    partial = os.path.join(os.path.dirname(real), f".{secrets.token_hex(8)}.partial")
    try:
        # O_CREAT with 0o666 lets the kernel apply the umask; `tempfile` would make the file private.
        with _named(target), os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as stream:
            stream.write(data)
        if os.path.exists(real):
            os.chmod(partial, stat.S_IMODE(os.stat(real).st_mode))
        os.replace(partial, real)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
