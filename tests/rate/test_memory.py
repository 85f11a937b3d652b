"""A program starts again with huge pages: once, with the same arguments, and not where it was told otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rate.memory import MODE, TUNABLES

PROGRAM = f"""
import os, sys
print("started", flush=True)
from rate.memory import with_huge_pages
with_huge_pages()
print(os.environ.get("{TUNABLES}"), sys.argv[1:])
"""


def said(arguments: list[str], **environment: str) -> list[str]:
    others = {name: value for name, value in os.environ.items() if name != TUNABLES}
    run = subprocess.run([sys.executable, *arguments], env=others | environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def program(folder: Path, way: str) -> list[str]:
    (folder / "program.py").write_text(PROGRAM)
    return {"file": [str(folder / "program.py")], "text": ["-c", PROGRAM]}[way] + ["a b", "--c", "\u00e4"]


@pytest.mark.skipif(
    not MODE.exists() or "[madvise]" not in MODE.read_text(), reason="Linux gives no huge pages on request"
)
@pytest.mark.parametrize("way", ["file", "text"])
def test_it_starts_again_once(tmp_path: Path, way: str) -> None:
    lines = said(program(tmp_path, way))
    assert lines == ["started", "started", "glibc.malloc.hugetlb=1 ['a b', '--c', '\u00e4']"]


def test_what_a_user_set_stays(tmp_path: Path) -> None:
    lines = said(program(tmp_path, "file"), **{TUNABLES: "glibc.malloc.check=0"})
    assert lines == ["started", "glibc.malloc.check=0 ['a b', '--c', '\u00e4']"]
