"""The `codec` command as its users meet it: exit codes, one-line errors, whole files or none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import codec
from codec.cli import main
from codec.commands import coding
from tests.codec.commands import HEAVY, ORPHAN, ROOT, fails, python


@pytest.fixture
def fake_encoder(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """Stands in for the network; returns the calls made."""
    calls = []

    def encode(*args: object, **kwargs: object) -> bytes:
        calls.append((args, kwargs))
        return ORPHAN

    monkeypatch.setattr(codec, "encode", encode)
    return calls


@pytest.mark.parametrize("command", ["", "encode", "decode", "info", "verify", "models"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert f"Usage: codec {command}".strip() in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("codec")


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: codec" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        "shrink a.png b.mlic",
        "encode",
        "encode a.png",
        "encode a.png b.mlic c.mlic",
        "encode a.png b.mlic -q 101",
        "encode a.png b.mlic -q nan",
        "encode a.png b.mlic -q high",
        "encode a.png b.mlic --qp 64",
        "encode a.png b.mlic -q 50 --qp 32",
        "encode a.png b.mlic -j 0",
        "encode . b.mlic",
        "encode a.png b -r",
        "encode . - -r",
        "encode a.png b.mlic --jobs 2",
        "encode a.png b.mlic --time-limit 3",
        "decode orphan.mlic b.png --as jpg",
        "encode . b -r --jobs 2 --ray 127.0.0.1:1",
        "encode a.png b.mlic --target-size 10x",
        "encode a.png b.mlic --target-size 1k --target-psnr 30",
        "encode a.png b.mlic --target-bpp 0",
        "encode a.png b.mlic --tile -1",
        "encode a.png b.png",
        "encode a.png B.JPEG",
        "encode a.png b.mlic --target-bpp nan",
        "encode a.png b.mlic --target-psnr inf",
        "encode a.png b.mlic --metadata some",
        "decode . b -r --as gif",
        "decode orphan.mlic b.png --crop 1,2,3",
        "decode orphan.mlic b.png --crop 1,2,3,x",
        "decode . b -r --preview",
        "completion tcsh",
        "encode a.png b.mlic --lossless",
        "decode orphan.mlic b.png --runtime cuda",
        "--frobnicate",
    ],
)
def test_usage_errors(here: Path, capsys: pytest.CaptureFixture[str], argv: str) -> None:
    assert "--help`)" in fails(capsys, 2, *argv.split())


@pytest.mark.parametrize("argv", [["encode", "", "b.mlic"], ["encode", "", "b", "-r"], ["decode", "a", ""]])
def test_empty_names(here: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert "an empty name" in fails(capsys, 2, *argv)


def test_the_kinds_of_pictures_are_those_that_can_be_written() -> None:
    from codec.output import FORMATS

    assert {f".{kind}" for kind in coding.KINDS} == set(FORMATS)
    assert all(coding.PICTURES.search(f"a{extension}") for extension in FORMATS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("encode none.png b.mlic", "none.png: No such file or directory"),
        ("encode orphan.mlic b.mlic", "orphan.mlic is a .mlic file already"),
        ("encode a.png no/b.mlic", "there is no directory no: create it first"),
        ("encode a.png .", ". is a directory: name a file in it"),
        ("decode none.mlic b.png", "none.mlic: No such file or directory"),
        ("decode orphan.mlic b.xyz", "no picture format goes by this extension; use one of .png"),
        ("decode orphan.mlic no/b.png", "there is no directory no"),
        ("info none.mlic", "none.mlic: No such file or directory"),
        ("verify .", ".: Is a directory"),
    ],
)
def test_files_that_cannot_be_used(here: Path, capsys: pytest.CaptureFixture[str], argv: str, message: str) -> None:
    assert message in fails(capsys, 1, *argv.split())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").chmod(0)
    assert "a.png: Permission denied" in fails(capsys, 1, "encode", "a.png", "b.mlic")


@pytest.mark.parametrize("argv", ["decode x.mlic b.png", "info x.mlic", "verify x.mlic"])
@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", 3, "empty"),
        (b"GIF89a", 3, "not a .mlic file"),
        (ORPHAN[:8] + b"\x09" + ORPHAN[9:], 3, "version 9, but this release reads 0"),
        (ORPHAN[:20], 5, "within its header"),
        (ORPHAN[:17] + b"\xff" + ORPHAN[18:], 5, "header is damaged"),
    ],
    ids=["empty", "GIF", "version", "cut", "header"],
)
def test_files_that_are_not_whole_mlic(
    here: Path, capsys: pytest.CaptureFixture[str], argv: str, data: bytes, code: int, message: str
) -> None:
    Path("x.mlic").write_bytes(data)
    start = time.perf_counter()
    assert message in fails(capsys, code, *argv.split())
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("argv", ["decode orphan.mlic b.png", "verify orphan.mlic"])
def test_an_unknown_model_is_named(here: Path, capsys: pytest.CaptureFixture[str], argv: str) -> None:
    assert "01020304" in fails(capsys, 4, *argv.split())


def test_an_unknown_model_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nobody" in fails(capsys, 4, "encode", "a.png", "b.mlic", "--model", "nobody")


def test_info_needs_no_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "orphan.mlic", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["width"] == 768 and facts["height"] == 512 and facts["qp"] == 32
    assert facts["grey"] is False and facts["model"] is None and facts["model_id"] == "01020304"
    assert facts["bytes"] == len(ORPHAN) and facts["bpp"] == pytest.approx(8 * len(ORPHAN) / (768 * 512), rel=0.01)
    assert round(facts["quality"]) == 51 and facts["checksums"] == "ok"
    assert main(["info", "orphan.mlic"]) == 0
    assert "width:          768\n" in capsys.readouterr().out


def test_info_on_a_damaged_payload(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.mlic").write_bytes(ORPHAN[:-1])
    assert main(["info", "x.mlic", "--json"]) == 5
    out, err = capsys.readouterr()
    assert json.loads(out)["checksums"] == "bad" and "x.mlic is damaged" in err


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == len(codec.installed_models()) and bool(out) != bool(err)


def test_encode_says_what_it_did(here: Path, capsys: pytest.CaptureFixture[str], fake_encoder: list) -> None:
    Image.open("a.png").save("dpi.png", dpi=(72, 72))
    assert main(["encode", "dpi.png", "b.mlic"]) == 0
    line, note = capsys.readouterr().err.splitlines()
    assert line.startswith("dpi.png -> b.mlic: 768x512, 49 bytes, 0.001 bpp, q 50 (qp 32), ") and line.endswith(" s")
    assert note == "note: not kept: resolution"
    assert main(["encode", "dpi.png", "b.mlic", "--qp", "32", "--quiet", "-j", "2", "--model", "x"]) == 0
    assert capsys.readouterr() == ("", "")
    (_, options), (_, others) = fake_encoder
    assert options == {"quality": 50, "effort": 5, "metadata": "all", "tile": None, "model": None, "threads": None}
    assert others == {"qp": 32, "effort": 5, "metadata": "all", "tile": None, "model": "x", "threads": 2}


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("first\nsecond"), 1, "unexpected RuntimeError: first second (MLIC_DEBUG=1"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ],
)
def test_failures_within(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
    code: int,
    message: str,
) -> None:
    def encode(*_: object, **__: object) -> bytes:
        raise failure

    monkeypatch.delenv("MLIC_DEBUG", raising=False)
    monkeypatch.setattr(codec, "encode", encode)
    assert message in fails(capsys, code, "encode", "a.png", "b.mlic")
    monkeypatch.setenv("MLIC_DEBUG", "1")
    with pytest.raises(type(failure)):
        main(["encode", "a.png", "b.mlic"])


def test_a_failed_write_leaves_nothing(here: Path, capsys: pytest.CaptureFixture[str], fake_encoder: list) -> None:
    assert "No space left on device" in fails(capsys, 1, "encode", "a.png", "/dev/full")


SLOW_WRITE = """
import os, sys, time, codec
from codec.cli import main
codec.encode = lambda *_, **__: bytes(9)
def replace(*_):
    print("writing", os.listdir(), flush=True)
    time.sleep(30)
os.replace = replace
sys.exit(main(["encode", "a.png", "b.mlic"]))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_write_leaves_nothing(here: Path, sent: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", SLOW_WRITE], env=env, text=True, **pipes) as child:
        assert ".partial" in child.stdout.readline()
        child.send_signal(sent)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130 and err.split() == ["codec:", "error:", "interrupted"]
    assert sorted(os.listdir()) == ["a.png", "orphan.mlic"]


def test_a_reader_that_leaves_early() -> None:
    script = "import sys; from codec.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == b""


def test_help_and_info_load_nothing_heavy(here: Path) -> None:
    script = (
        "import sys; from codec.cli import main; code = main(sys.argv[1:]);"
        f"sys.exit(code or str([m for m in {HEAVY} if m in sys.modules]))"
    )
    for argv in (["--help"], ["info", "orphan.mlic"], ["encode", "--help"]):
        done = python(script, *argv)
        assert done.stderr.strip() == "[]", argv


@pytest.mark.parametrize("command", ["train", "export"])
def test_train_and_export_pass_everything_on(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import types

    seen = []
    tool = types.ModuleType(f"codec.training.{command}")
    tool.main = lambda argv: seen.append(argv)
    monkeypatch.setitem(sys.modules, f"codec.training.{command}", tool)
    assert main([command, "--steps", "5", "-h", "data", "--help", "--lr=1"]) == 0
    assert seen == [["--steps", "5", "-h", "data", "--help", "--lr=1"]]
    tool.main = lambda argv: 7
    assert main([command]) == 7
    monkeypatch.setitem(sys.modules, f"codec.training.{command}", None)
    monkeypatch.chdir(tmp_path)
    message = fails(capsys, 1, command)
    assert f"`codec {command}` needs PyTorch" in message and "pip install -e '.[train,export]'" in message


def test_the_input_is_never_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("a.png").read_bytes()
    Path("link.mlic").symlink_to("a.png")
    assert "extension of a picture" in fails(capsys, 2, "encode", "a.png", "a.png")
    assert "is the input itself" in fails(capsys, 1, "encode", "a.png", "link.mlic")
    assert "is the input itself" in fails(capsys, 1, "decode", "link.mlic", "a.png")
    assert Path("a.png").read_bytes() == before


def test_an_unbuffered_pipe_gets_every_byte(here: Path) -> None:
    """A raw stream may take a part of what it is given: here seven bytes at a time."""
    script = """
import io, sys
from codec import files

class Slow(io.RawIOBase):
    taken = b""
    def writable(self): return True
    def write(self, data):
        Slow.taken += bytes(data[:7])
        return len(data[:7])

class Out:
    buffer = Slow()
    def isatty(self): return False
    def flush(self): pass

sys.stdout = Out()
files.write("-", bytes(range(100)))
sys.exit(Slow.taken != bytes(range(100)))
"""
    assert python(script, cwd=here).returncode == 0
    for stream, line in (("<&-", "stdin is closed"), (">&-", "stdout is closed")):
        command = f"{sys.executable} -m codec.cli encode - - {stream} < a.png" if stream == ">&-" else None
        command = command or f"{sys.executable} -m codec.cli encode - x.mlic {stream}"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(command, shell=True, cwd=here, env=env, capture_output=True, text=True)
        assert run.returncode == 1 and line in run.stderr and run.stderr.count("\n") == 1
