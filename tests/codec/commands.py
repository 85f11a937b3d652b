"""What the tests of the command line share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import codec
from codec.cli import main
from codec.container import Container, Piece, pack

ROOT = Path(__file__).resolve().parents[2]
ORPHAN = pack(Container(768, 512, 32, False, b"\x01\x02\x03\x04", b"\x05\x06", (Piece(8, 0, b"a model nobody has"),)))
HEAVY = ("numpy", "onnxruntime", "PIL", "torch", "compressai")

need_bundle = pytest.mark.skipif(not codec.installed_models(), reason="no model bundle is installed")


def fails(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> str:
    """Run, expect `code` and one line on stderr; returns that line's message."""
    before = sorted(os.listdir())
    assert main(list(argv)) == code
    _out, err = capsys.readouterr()
    assert err.startswith("codec: error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(os.listdir()) == before
    return err.removeprefix("codec: error: ").rstrip()


def python(script: str, *argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, *argv]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=60, **options)


def lay_out(root: Path, *names: str) -> None:
    """Files of these names, each holding its own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
