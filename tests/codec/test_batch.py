"""Folders of pictures: what is done, what is left alone, and what is there however it ends."""

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import codec
from codec import batch, crew, files, folders
from codec.batch import Made, command
from codec.errors import BadInput, CodecError, UnknownModel
from tests.codec.commands import ROOT, lay_out, need_bundle

PHOTO = {"quality": 30}


def pictures(root: Path, count: int) -> None:
    """Small ones, all different, three to a folder."""
    rows, columns = np.mgrid[0:48, 0:64]
    for i in range(count):
        rgb = np.stack([rows * 4 + i, columns * 2, (rows + columns + 7 * i) % 64], axis=2).astype(np.uint8)
        (root / str(i // 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(root / str(i // 3) / f"{i}.png")


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def turned(data: bytes) -> Made:
    return Made(data[::-1], 1, [])


def test_run_goes_on_after_failures(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", "a.png", "b.png", "c/d.png", "e.png", "f.png")
    plan = folders.plan(tmp_path / "in", tmp_path / "out", ".mlic", folders.may_be_a_picture)
    (tmp_path / "in" / "a.png").unlink()  # since it was planned
    (tmp_path / "out" / "b.mlic").mkdir(parents=True)
    (tmp_path / "out" / "c").write_bytes(b"in the way")
    (tmp_path / "out" / "e.mlic").symlink_to(tmp_path / "in" / "e.png")
    done = {d.pair.source.name: d for d in batch.run(plan.pairs, turned)}
    assert "a.png: No such file" in done["a.png"].failure and "b.mlic is a directory" in done["b.png"].failure
    assert "File exists" in done["d.png"].failure or "Not a directory" in done["d.png"].failure
    assert "is the input itself" in done["e.png"].failure and (tmp_path / "in" / "e.png").read_bytes() == b"e.png"
    assert not done["f.png"].failure and (tmp_path / "out" / "f.mlic").read_bytes() == b"gnp.f"
    assert len(done) == 5
    heard: list[batch.Done] = []
    with contextlib.closing(batch.run(plan.pairs, turned, count=heard.append)) as results:  # and however early it ends
        next(results)
    assert "a.png: No such file" in heard[0].failure


def test_a_full_disk_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "in", "a.png", "b.png")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write", full)
    plan = folders.plan(tmp_path / "in", tmp_path / "out", ".mlic", folders.may_be_a_picture)
    seen: list[bytes] = []
    with pytest.raises(OSError, match=r"No space left on device.*a\.mlic"):
        list(batch.run(plan.pairs, lambda data: seen.append(data) or turned(data)))
    assert seen == [b"a.png"]


# processes


def work(marks: Path, data: bytes) -> bytes:
    """What the data say, in a worker."""
    if data == b"die" or (data == b"die once" and not (marks / "died").exists()):
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"leave":
        os._exit(3)
    return data * 10_000_000 if data == b"big" else data + str(os.getpid()).encode()


def test_processes_answer_everything_once(tmp_path: Path) -> None:
    given_out: list[int] = []

    def items() -> Iterator[tuple[int, bytes]]:
        for i in range(40):
            given_out.append(i)
            yield i, b"%03d" % i

    answers = {}
    for item, answer in crew.shared(partial(work, tmp_path), items(), 3):
        assert item not in answers and len(given_out) <= len(answers) + 2 * 3
        answers[item] = answer
    assert {i: a[:3] for i, a in answers.items()} == {i: b"%03d" % i for i in range(40)}
    assert 1 < len({a[3:] for a in answers.values()}) <= 3 and not multiprocessing.active_children()


def test_a_process_that_dies_loses_nothing_else(tmp_path: Path) -> None:
    given_out = [b"1", b"die", b"2", b"die once", b"3", b"leave", b"4", b"5", b"die"]
    answers = dict(crew.shared(partial(work, tmp_path), enumerate(given_out), 2))
    assert sorted(answers) == list(range(9))
    assert {i for i, a in answers.items() if isinstance(a, crew.Lost)} == {1, 5, 8}
    assert "twice, by SIGKILL: perhaps there was not enough memory" in str(answers[1])
    assert str(answers[5]) == "its process died twice, by exit code 3"
    assert answers[3].startswith(b"die once") and not multiprocessing.active_children()


def test_a_process_that_dies_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    """Both answers are larger than a pipe: while we look at one, the process of the other waits within its own."""
    answers = crew.shared(partial(work, tmp_path), enumerate([b"big", b"big"]), 2)
    first, _ = next(answers)
    time.sleep(0.5)
    for process in multiprocessing.active_children():
        process.kill()
    assert [(i, len(a)) for i, a in answers] == [(1 - first, 30_000_000)]


def test_an_iterator_that_is_closed_leaves_no_processes(tmp_path: Path) -> None:
    answers = crew.shared(partial(work, tmp_path), ((i, b"x") for i in range(1000)), 2)
    next(answers)
    assert multiprocessing.active_children()
    answers.close()
    assert not multiprocessing.active_children()


def test_an_interrupt_that_the_work_swallows_counts() -> None:
    """As nanobind does, once in some dozens of times."""
    seen = []

    def swallow(data: bytes) -> bytes:
        seen.append(data)
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return data

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(crew.shared(swallow, enumerate([b"a", b"b"]), 1))
    assert seen == [b"a"] and signal.getsignal(signal.SIGINT) is before


def test_a_process_at_work_ends_with_its_parent() -> None:
    script = "from codec.crew import shared; list(shared(eval, [(0, b\"__import__('time').sleep(60)\")] * 2, 2))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=env, start_new_session=True) as child:
        time.sleep(2)  # they sleep
        assert child.poll() is None
        child.kill()
        child.wait()
        assert soon(lambda: gone(child.pid), 60)  # a busy machine may be slow to bury them


# the commands


@need_bundle
def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out, back = tmp_path / "in", tmp_path / "out", tmp_path / "back"
    pictures(root, 4)
    lay_out(root, "0/bad.png", "note.txt")
    Image.new("RGB", (64, 64)).save(root / "1" / "p.png", dpi=(72, 72))
    assert command("encode", root, out, PHOTO, threads=1) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"codec: error: {root / '0' / 'bad.png'}: the picture is not in a picture format")
    assert any("resolution" in line and line.endswith(" (1 of 5 files)") for line in lines[1:-1])
    assert lines[-1].startswith("encoded 5 of 6 files; 0.0164 MP, ")
    assert lines[-1].endswith(" MP/s; 1 failed; 1 of other kinds")
    made = contents(out)
    assert sorted(made) == ["0/0.mlic", "0/1.mlic", "0/2.mlic", "1/3.mlic", "1/p.mlic"]
    assert made["1/3.mlic"] == codec.encode(root / "1" / "3.png", **PHOTO)
    assert command("decode", out, back, {}, extension="ppm", threads=1) == 0
    assert capsys.readouterr().err.startswith("decoded 5 of 5 files; 0.0164 MP, ")
    assert sorted(contents(back)) == ["0/0.ppm", "0/1.ppm", "0/2.ppm", "1/3.ppm", "1/p.ppm"]
    assert np.array_equal(np.asarray(Image.open(back / "1" / "3.ppm")), np.asarray(codec.decode(made["1/3.mlic"])))
    assert command("encode", root, out, PHOTO, quiet=True) == 1
    assert capsys.readouterr().err.count("\n") == 1  # the failure again, and nothing else
    (root / "0" / "bad.png").unlink()
    assert command("encode", root, out, PHOTO) == 0
    assert capsys.readouterr().err == "encoded 0 of 0 files; 5 up to date (--force takes them too); 1 of other kinds\n"


@need_bundle
def test_processes_make_the_same_files(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 8)
    for jobs in (1, 2):
        assert command("encode", tmp_path / "in", tmp_path / f"out{jobs}", PHOTO, jobs=jobs, quiet=True) == 0
        assert command("decode", tmp_path / f"out{jobs}", tmp_path / f"back{jobs}", {}, jobs=jobs, quiet=True) == 0
    for name in ("out", "back"):
        assert contents(tmp_path / f"{name}1") == contents(tmp_path / f"{name}2") and contents(tmp_path / f"{name}1")


@need_bundle
def test_what_concerns_all_files_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "in", 1)
    with pytest.raises(UnknownModel, match="nobody"):
        command("encode", tmp_path / "in", tmp_path / "out", {"model": "nobody"})
    with pytest.raises(BadInput, match=r"\.xyz; use one of \.png"):
        command("decode", tmp_path / "in", tmp_path / "out", {}, extension="xyz")
    with pytest.raises(CodecError, match="Ray"):  # is not there, or no cluster answers
        command("encode", tmp_path / "in", tmp_path / "out", PHOTO, ray="127.0.0.1:1")
    assert not (tmp_path / "out").exists() and capsys.readouterr().err == ""


DRIVER = """
import json, signal, sys
from codec.cli import main
signal.signal(signal.SIGTERM, signal.default_int_handler)
print("ready", flush=True)
options = [f"--{n}" + ("" if v is True else f"={v}") for n, v in json.loads(sys.argv[4]).items() if v]
sys.exit(main([*sys.argv[1:4], "-r", *(["-q", "30"] if sys.argv[1] == "encode" else []), *options]))
"""


@contextlib.contextmanager
def running(source: Path, out: Path, **options: object) -> Iterator[subprocess.Popen[str]]:
    """`codec encode -r` in a process group of its own, as a terminal starts it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", DRIVER, "encode", str(source), str(out), json.dumps({"threads": 1, **options})]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(line, env=env, text=True, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def soon(happened: Callable[[], object], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not (there := happened()) and time.monotonic() < end:
        time.sleep(0.01)
    return bool(there)


def gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@need_bundle
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM", "SIGKILL"])
def test_an_end_from_outside_leaves_whole_files_and_nobody(tmp_path: Path, way: str, jobs: int) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    pictures(root, 150)
    with running(root, out, jobs=jobs) as child:
        assert soon(lambda: len(list(out.rglob("*.mlic"))) >= 10)
        if way == "Ctrl-C":  # the terminal tells the whole group
            os.killpg(child.pid, signal.SIGINT)
        else:
            child.send_signal(getattr(signal, way))
        _, err = child.communicate(timeout=30)
        assert soon(lambda: gone(child.pid), 60)  # a busy machine may be slow to bury them
    assert child.returncode == (-signal.SIGKILL if way == "SIGKILL" else 130) and "Traceback" not in err
    made = contents(out)
    assert 10 <= len(made) < 150
    if way != "SIGKILL":  # which may hit between writing and renaming
        assert err.startswith(f"encoded {len(made)} of 150 files; ") and not [n for n in made if "partial" in n]
    assert all(codec.info(data)["checksums"] == "ok" for name, data in made.items() if name.endswith(".mlic"))


@need_bundle
@pytest.mark.parametrize("delay", [0, 0.02, 0.1, 0.3])
def test_an_interrupt_at_the_start_makes_no_noise(tmp_path: Path, delay: float) -> None:
    pictures(tmp_path / "in", 60)
    with running(tmp_path / "in", tmp_path / "out", jobs=2) as child:
        time.sleep(delay)
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert soon(lambda: gone(child.pid), 60)  # a busy machine may be slow to bury them
    assert child.returncode == 130 and "Traceback" not in err


@need_bundle
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the workers by /proc")
def test_a_worker_that_is_killed_loses_no_file(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    pictures(root, 60)
    with running(root, out, jobs=2) as child:
        assert soon(lambda: len(list(out.rglob("*.mlic"))) >= 5)
        pids = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        workers = [p for p in pids if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(int(workers[0]), signal.SIGKILL)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 0 and err.startswith("encoded 60 of 60 files; ") and err.count("\n") == 1
    assert len(contents(out)) == 60


@need_bundle
def test_progress_is_for_terminals(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    pictures(tmp_path / "in", 6)
    seen = {}
    for quiet in (False, True):
        ours, theirs = pty.openpty()
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
        options = json.dumps({"quiet": quiet, "force": True})
        line = [sys.executable, "-c", DRIVER, "encode", str(tmp_path / "in"), str(tmp_path / "out"), options]
        done = subprocess.run(line, env=env, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60)
        os.close(theirs)
        seen[quiet] = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 1 << 16):
                seen[quiet] += part
        os.close(ours)
        assert done.returncode == 0
    assert b"100%" in seen[False] and b"6 of 6 files, " in seen[False] and b" MP/s" in seen[False]
    assert seen[True] == b""
