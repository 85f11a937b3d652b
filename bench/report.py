"""What every suite writes: rows, and the machine, commit and command they come from."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

from codec import files


class Row(TypedDict):
    """One number. `value` is None where it could not be had (the suite says why on the terminal)."""

    name: str
    value: float | None
    unit: str


def row(name: str, value: float | None, unit: str, digits: int = 4) -> Row:
    """A row, its value rounded to `digits` decimals."""
    return {"name": name, "value": None if value is None else round(float(value), digits), "unit": unit}


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, and platform. No host name."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"cpu": cpu, "cores": cores, "platform": system}


def commit(folder: str = "") -> str | None:
    """Short hash of the checked-out commit, or of a folder in it, which other commits may share; None outside a
    repository or before its first commit."""
    what = f"HEAD:{folder}" if folder else "HEAD"
    git = ["git", "-C", str(Path(__file__).parents[1]), "rev-parse", "--short", what]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def command(arguments: list[str]) -> str:
    """The command line to write down; of absolute paths, which mean nothing elsewhere, only the last part stays."""
    return re.sub(r"(^|[ =])/\S*/(?=[^\s/])", r"\1", " ".join(["python -m bench", *arguments]))


def report(suite: str, rows: list[Row], **extra: Any) -> dict[str, Any]:
    """The whole result of a suite; `extra` fields (per-picture points, library versions) follow the rows."""
    head = {"suite": suite, "machine": machine(), "commit": commit(), "command": command(sys.argv[1:])}
    return {**head, "rows": rows, **extra}


def dump(value: Any, indent: int = 0) -> str:
    """JSON with one line per row or innermost list, so that results files can be read and compared."""
    inner, outer = "  " * (indent + 1), "  " * indent
    flat = json.dumps(value, ensure_ascii=False)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(child, dict | list) for child in children):
        return flat
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key)}: {dump(child, indent + 1)}" for key, child in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    return "[\n" + ",\n".join(inner + dump(child, indent + 1) for child in value) + f"\n{outer}]"


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, making the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(str(path), (dump(result) + "\n").encode())


def source(result: dict[str, Any]) -> str:
    """Where numbers come from, in one line."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['platform']}"
    return f"`{result['command']}`, commit {result['commit'] or 'none'}, {where}"
