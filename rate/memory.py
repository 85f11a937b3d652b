"""Memory of programs that train for hours."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES = "GLIBC_TUNABLES"


def with_huge_pages() -> None:
    """Start this program again, with its arguments, where Linux gives huge pages to programs that ask for them and
    malloc was not told what to do: it asks only if the environment says so before a program starts (glibc 2.35).

    For the first line of a program. Tensors come and go by the thousand in a training step, each in fresh pages:
    on two cores steps of codec train take 9 % less time, of nas.train 20 %.
    """
    with suppress(OSError):
        if TUNABLES not in os.environ and "[madvise]" in MODE.read_text():
            os.execve(
                sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {TUNABLES: "glibc.malloc.hugetlb=1"}
            )
