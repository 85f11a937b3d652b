"""What there is to do in a folder of pictures: which files, and what they become. All of it our choice.

* The output has the tree of the source. photo.jpg becomes photo.mlic; where files of one folder would become the same
  one, all of them keep their names whole: photo.jpg.mlic, photo.png.mlic.
* A file whose output is there and not older is left alone, so that the same command goes on where it was stopped.
* Hidden files and folders are left out, links to folders not followed (as find and rsync do), nor the output entered.
* Encoding tries every file but those without extension, and those whose extension says that they are something
  else: text, films, sidecars, .mlic. They are counted. A picture that cannot be read, a raw one for instance, is a
  failure: nobody should believe it stored.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from codec.errors import BadInput

SUFFIX = ".mlic"
# What lies beside pictures and is unknown to Python's table.
SIDECARS = {SUFFIX, ".aae", ".db", ".ini", ".log", ".md", ".thm", ".toml", ".xmp", ".yaml", ".yml"}
_TYPES = mimetypes.MimeTypes()  # Python's own table; the system's differs from machine to machine


class Pair(NamedTuple):
    """A file to make: from where, to where, and the bytes of the source."""

    source: Path
    target: Path
    size: int


@dataclass
class Plan:
    """What there is to do; and what there is not: files that are up to date, files of other kinds, links to folders,
    and a line for each file or folder that cannot be looked at."""

    pairs: list[Pair] = field(default_factory=list)
    fresh: int = 0
    others: int = 0
    links: int = 0
    unseen: list[str] = field(default_factory=list)


def may_be_a_picture(name: str) -> bool:
    """By its extension: whether encoding tries it."""
    extension = Path(name).suffix.lower()
    kind, packed = _TYPES.guess_type(f"x{extension}")
    return bool(extension) and extension not in SIDECARS and not packed and (kind is None or kind.startswith("image/"))


def is_ours(name: str) -> bool:
    """By its extension: whether decoding takes it."""
    return Path(name).suffix.lower() == SUFFIX


def plan(source: Path, out: Path, suffix: str, wanted: Callable[[str], bool], force: bool = False) -> Plan:
    """The files of wanted names under `source`, by name, and what they become under `out`, with `suffix` (".png").

    force: those that are up to date as well. Raises BadInput where `source` is no folder, or `out` is it, or a file.
    """
    if not source.is_dir():
        raise BadInput(f"{source} is {'not a folder' if source.exists() else 'not there'}: -r takes a folder")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file: name a folder to write to")
    if out.exists() and out.samefile(source):
        raise BadInput(f"{out} is the folder of the sources: name another to write to")
    found = Plan()
    avoided = os.path.realpath(out)

    def unseen(error: OSError) -> None:
        found.unseen.append(f"{error.filename}: {error.strerror}")

    for folder, inside, names in os.walk(source, onerror=unseen):
        inside[:] = sorted(d for d in inside if not d.startswith("."))
        found.links += sum(os.path.islink(os.path.join(folder, d)) for d in inside)
        inside[:] = [d for d in inside if os.path.realpath(os.path.join(folder, d)) != avoided]
        visible = [n for n in names if not n.startswith(".")]
        taken = sorted(n for n in visible if wanted(n))
        found.others += len(visible) - len(taken)
        beside = out / Path(folder).relative_to(source)
        for name, target in targets(taken, suffix).items():
            pair = Path(folder, name), beside / target
            try:
                facts = pair[0].stat()
                if not stat.S_ISREG(facts.st_mode):  # a pipe would be waited for
                    found.others += 1
                elif not force and pair[1].is_file() and pair[1].stat().st_mtime_ns >= facts.st_mtime_ns:
                    found.fresh += 1
                else:
                    found.pairs.append(Pair(*pair, facts.st_size))
            except OSError as error:  # a link to nowhere, for one
                unseen(error)
    return found


def targets(names: list[str], suffix: str) -> dict[str, str]:
    """Files of one folder -> what they become: no two the same, not even where case makes no difference."""
    whole: set[str] = set()
    while True:
        made = {name: (name if name in whole else Path(name).stem) + suffix for name in names}
        count = Counter(target.casefold() for target in made.values())
        clashing = {name for name, target in made.items() if count[target.casefold()] > 1}
        if clashing <= whole:
            return made
        whole |= clashing
