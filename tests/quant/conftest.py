"""What several of these tests need."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture
def everywhere() -> Callable[[str], list[str]]:
    """What a program prints on every instruction set that the machine has, with 1 and 3 THREADS."""

    def run(program: str) -> list[str]:
        found = []
        for isa in ("scalar", "avx2", "avx512"):
            for threads in ("1", "3") if "THREADS" in program else ("",):
                line = [sys.executable, "-c", program.replace("THREADS", threads)]
                made = subprocess.run(line, env={**os.environ, "MLIC_CPU": isa}, capture_output=True, text=True)
                assert made.returncode == 0 or "lacks" in made.stderr, made.stderr
                found += made.stdout.split()
        return found

    return run
