"""The command lines of this project's programs, but for those of `codec` itself, which are click's."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


def one_line(error: Exception) -> str:
    """An error in one line: of a file, its name and what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


class Parser(argparse.ArgumentParser):
    """argparse's, whose description keeps its lines, and which says what is wrong in one line, as `codec` does."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **({"formatter_class": argparse.RawDescriptionHelpFormatter} | options))

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (see `{self.prog} --help`)\n")
