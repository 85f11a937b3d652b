"""Suite `all`: the README's tables of the codec's rates, times and coder again, from pictures and a quiet machine.

    python -m bench all --data DIR

runs the suites rd, process and coder, and writes the README; half an hour. The learning curve keeps its rows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from rate import data_dir

from . import readme
from .report import report


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this suite."""
    parser.add_argument("--out", metavar="REPORT", type=Path, default=Path("report"), help="of the suite rd [report]")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Each suite in a process of its own, so that its results name its own command."""
    data, results = data_dir(args.data), readme.ROOT / "results"
    suites = {
        "rd": ["--data", str(data), "--pictures", str(data / "kodak"), "--out", str(args.out.absolute())],
        "process": ["--runs", "9"],
        "coder": [],
    }
    for name, options in suites.items():
        line = [sys.executable, "-m", "bench", name, *options, "--json", f"results/{name}.json"]
        if subprocess.run(line, cwd=readme.ROOT).returncode:
            raise ValueError(f"the suite {name} failed: see above")
    if readme.main([]):
        raise ValueError("the README could not be written")
    print(f"wrote {', '.join(f'{name}.json' for name in suites)} to {results}, and the README", file=sys.stderr)
    return report("all", [])
