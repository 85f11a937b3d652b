"""The suite `rd` end to end on made-up pictures: real codecs, real files, a page."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import codec
from bench import codecs
from bench.__main__ import main
from bench.codecs import Absent
from bench.curves import curve, deltas
from bench.measure import LOSSLESS, Codec, Point, measure
from bench.readme import ROOT
from bench.store import Store
from bench.viewer import nearest

pytest.importorskip("bjontegaard", reason="the extra `bench` is not installed")
pytest.importorskip("jinja2", reason="the extra `bench` is not installed")
COPY = f'{sys.executable} -c "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])" {{in}} {{out}}'


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_DATA", raising=False)


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_measures_real_bytes_and_pixels(picture: Any) -> None:
    image = picture(1)
    raw = Codec("raw", lambda p, level: p.tobytes(), lambda b: Image.frombytes("RGB", (64, 48), b), (0,))
    point = measure(image, raw, 0, ("psnr", "ms_ssim"))
    assert (point.bytes, point.bpp, point.quality) == (64 * 48 * 3, 24, {"psnr": LOSSLESS})  # too small for MS-SSIM
    low, high = (measure(image, codecs.find(("jpeg",)), q) for q in (10, 90))
    assert low.bytes < high.bytes and low.psnr < high.psnr
    wrong = Codec("wrong", raw.encode, lambda b: Image.new("RGB", (1, 1)), (0,))
    with pytest.raises(ValueError, match="gave back 1x1 of 64x48"):
        measure(image, wrong, 0)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "jpeg2000", "jxl", "heic", "avif-svt", "avif-aom"])
def test_each_codec_rises_with_its_levels(picture: Any, name: str) -> None:
    try:
        found = codecs.find((name,))
    except Absent as absent:
        pytest.skip(str(absent))
    image = picture(2, 128, 96)
    points = [measure(image, found, level) for level in (found.levels[0], found.levels[3], found.levels[-1])]
    assert points[0].bytes < points[1].bytes < points[2].bytes
    assert points[0].psnr < points[1].psnr < points[2].psnr > 33


def test_the_whole_suite(folder: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, line = folder.parent / "report", ["--pictures", str(folder), "--metrics", "psnr,psnr_y", "--anchor", "webp"]
    (folder / "notes.txt").write_text("not a picture")
    line += ["--codecs", f"ours:{tiny_bundle},jpeg,webp", "--command", "copy", COPY, COPY, "1,2"]
    line += ["--command", "none", "no-such-program {in} {out}", "x {in} {out}", "1"]
    line += ["--command", "broken", f"{sys.executable} -c 1/0 {{in}} {{out}}", COPY, "1"]
    (folder.parent / "known.json").write_text(json.dumps({"bpp": [1, 2, 4, 8], "psnr": [20, 25, 30, 35]}))
    line += ["--curve", f"known={folder.parent / 'known.json'}"]
    assert main(["rd", *line, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "left out: " in said.err and "notes.txt" in said.err
    assert "none            absent: no program no-such-program" in said.out
    made = results(out)
    ours = f"ours-{tiny_bundle.stem}"
    assert [c["name"] for c in made["codecs"]] == [ours, "jpeg", "webp", "copy", "none", "broken"]
    assert all(p["error"] is None for p in made["points"] if p["codec"] != "broken")
    broken = [p for p in made["points"] if p["codec"] == "broken"]
    assert len(broken) == 2 and all("ZeroDivisionError" in p["error"] for p in broken)
    assert made["curves"]["broken"][0]["bugs"] == 2 and made["curves"]["jpeg"][0]["bugs"] == 0
    sizes = [p["bytes"] for p in made["points"] if (p["codec"], p["level"]) == (ours, "qp18")]
    files = [codec.encode(folder / f"p{n}.png", qp=18, model=tiny_bundle) for n in (1, 2)]
    assert sizes == [len(f) for f in files]
    bpp = sum(len(f) * 8 / (64 * 48) for f in files) / 2
    assert made["curves"][ours][2]["bpp"] == pytest.approx(bpp, abs=1e-5)
    rows = {r["name"]: (r["value"], r["unit"]) for r in made["rows"]}
    assert len(rows) == len(made["rows"]) and rows["rd/jpeg/bdrate/webp"][1] == "%"
    assert rows["rd/jpeg/bdrate/webp"][0] is not None and rows["rd/copy/bdrate/webp"][0] is None
    assert {b["anchor"] for b in made["bd"]} == {"webp"} and made["published"]["known"]["bpp"] == [1, 2, 4, 8]
    assert all(value > 20 for name, value in made["peak_mib"].items() if name not in ("copy", "broken"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "no program no-such-program" in page and 10_000 < len(page) < 10 << 20

    before = (out / "points.jsonl").stat().st_size
    assert main(["rd", *line, "--out", str(out)]) == 0
    assert (out / "points.jsonl").stat().st_size == before  # nothing was measured again
    again = [p for p in results(out)["points"] if not p["error"]]
    assert again == [p for p in made["points"] if not p["error"]]


def test_a_network_of_compressai(folder: Path, tmp_path: Path) -> None:
    """Real files of an untrained network, whose two checkpoints are two levels."""
    torch = pytest.importorskip("torch")
    try:
        networks = codecs._compressai_networks()
    except Absent as absent:
        pytest.skip(str(absent))
    files = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        files.append(str(tmp_path / f"{seed}.pth"))
        torch.save({"state_dict": networks["bmshj2018-hyperprior"](8, 12).state_dict()}, files[-1])
    spec = ("compressai", "bmshj2018-hyperprior", ",".join(files))
    made, image = codecs.find(spec), Image.open(folder / "p1.png")
    assert made.levels == (0, 1) and made.decode(made.encode(image, 1)).size == (64, 48)
    assert made.encode(image, 0) != made.encode(image, 1)
    out = folder.parent / "report"
    line = ["--pictures", str(folder), "--codecs", "jpeg", "--viewer", "1", "--metrics", "psnr"]
    assert main(["rd", *line, "--compressai", *spec[1:], "--out", str(out)]) == 0
    points = [p for p in results(out)["points"] if p["codec"] == "compressai-bmshj2018-hyperprior"]
    assert len(points) == 4 and all(p["error"] is None and p["bytes"] > 12 for p in points)


def test_our_runtimes_write_the_same_bytes(folder: Path, tiny_bundle: Path) -> None:
    out, ours = folder.parent / "report", f"ours:{tiny_bundle}"
    line = ["--pictures", str(folder), "--codecs", f"{ours},{ours}@onnx", "--viewer", "0", "--metrics", "psnr"]
    assert main(["rd", *line, "--out", str(out)]) == 0
    sizes: dict[str, list[int]] = {}
    for p in results(out)["points"]:
        sizes.setdefault(p["codec"], []).append(p["bytes"])
    one, other = sizes
    assert other == f"{one}@onnx" and sizes[one] == sizes[other]


def test_an_interrupted_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, line = folder.parent / "report", ["--pictures", str(folder), "--codecs", "jpeg,webp", "--viewer", "0"]

    kept: list[str] = []
    real = Store.add

    def add(self: Store, name: str, point: Point) -> None:
        real(self, name, point)
        kept.append(name)
        if len(kept) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", add)
    assert main(["rd", *line, "--out", str(out)]) == 130
    assert not (out / "results.json").exists()
    text = (out / "points.jsonl").read_text()
    (out / "points.jsonl").write_text(text[:-20])  # as kill -9 in the middle of a line would leave it
    monkeypatch.setattr(Store, "add", real)
    assert main(["rd", *line, "--out", str(out), "--jobs", "2"]) == 0
    fresh = folder.parent / "fresh"
    assert main(["rd", *line, "--out", str(fresh)]) == 0
    assert [(p["codec"], p["level"], p["picture"], p["bytes"], p["psnr"]) for p in results(out)["points"]] == [
        (p["codec"], p["level"], p["picture"], p["bytes"], p["psnr"]) for p in results(fresh)["points"]
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pictures", "nowhere"], "no folder nowhere"),
        (["--pictures", "empty"], "no pictures in empty"),
        (["--pictures", "set", "--codecs", "gif"], "no codec 'gif'"),
        (["--pictures", "set", "--codecs", "jpeg@onnx"], "no codec 'jpeg@onnx'"),
        (["--pictures", "set", "--codecs", "ours+6"], "effort is 6, not one of 5, 7, 8, 9"),
        (["--pictures", "set", "--metrics", "beauty"], "no metric 'beauty'"),
        (["--pictures", "set", "--anchor", "vtm", "--codecs", "jpeg", "--viewer", "0"], "no anchor 'vtm'"),
        (["--pictures", "set", "--curve", "vtm"], "--curve takes NAME=FILE"),
        (["--pictures", "set", "--jobs", "0"], "--jobs is 0"),
        (["--pictures", "set", "--limit", "0"], "--limit is 0"),
        (["--pictures", "set", "--levels", "3"], "--levels is 3"),
        (["--pictures", "set", "--viewer", "nan"], "--viewer is nan"),
        (["--pictures", "set", "--codecs", ""], "no codec ''"),
        (["--pictures", "set", "--codecs", "jpeg", "--command", "jpeg", COPY, COPY, "1"], "name 'jpeg' is taken twice"),
        (["--pictures", "set", "--command", "x", "true {in}", COPY, "1"], "needs {in} and {out}"),
        (["--pictures", "set", "--command", "x", "true '{in} {out}", COPY, "1"], "No closing quotation"),
        (["--pictures", "set", "--command", "x", COPY, COPY, "1,"], "not integers and commas"),
        (["--pictures", "set", "--codecs", "ours:nowhere.safetensors"], "nowhere.safetensors"),
        (["--pictures", "set", "--curve", "a=bad.json"], "as many finite numbers"),
        (["--pictures", "set", "--curve", "a=empty"], "empty"),
    ],
)
def test_bad_options_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    Path("bad.json").write_text('{"bpp": [1, 2], "psnr": [30, NaN]}')
    assert main(["rd", *options, "--out", "report"]) == 1
    assert message in capsys.readouterr().err


def test_odd_names_and_a_damaged_store(folder: Path) -> None:
    """A name that is no Unicode, and garbage among the kept points, cost nothing."""
    odd = os.fsdecode(os.fsencode(folder) + b"/bad\xff\xfe.png")
    shutil.copy(folder / "p1.png", odd)
    out = folder.parent / "report"
    line = ["rd", "--pictures", str(folder), "--codecs", "jpeg", "--viewer", "1", "--out", str(out)]
    assert main(line) == 0
    kept = (out / "points.jsonl").read_bytes().splitlines()
    (out / "points.jsonl").write_bytes(b"\n".join([b"null", b"[1, 2]", b"\xff\xfe\0", *kept[1:], b'{"key": 1}']))
    assert main(line) == 0
    assert {p["picture"] for p in results(out)["points"]} == {"bad\\udcff\\udcfe.png", "p1.png", "p2.png"}


def test_what_a_command_leaves_running_holds_up_nothing(folder: Path) -> None:
    background = "sh -c 'sleep 600 & cp {in} {out}'"
    made, start = codecs.command("x", background, COPY, (1,)), time.monotonic()
    image = Image.open(folder / "p1.png")
    assert made.decode(made.encode(image, 1)).size == image.size and time.monotonic() - start < 60


@pytest.mark.parametrize(("signal_", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_end_ends_everything(folder: Path, signal_: signal.Signals, status: int) -> None:
    """Ctrl-C, a polite and an impolite end, in the middle of a command that hangs: no process stays."""
    mark = f"{secrets.randbelow(10**9) + 10**6}"
    slow = f"sh -c 'sleep {mark}; cp {{in}} {{out}}'"
    line = [sys.executable, "-m", "bench", "rd", "--pictures", str(folder), "--out", str(folder.parent / "report")]
    line += ["--codecs", "jpeg", "--command", "slow", slow, COPY, "1", "--jobs", "2"]
    run = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def left() -> str:
        found = subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True).stdout.split()
        return " ".join(found)

    deadline = time.monotonic() + 60
    while len(subprocess.run(["pgrep", "-fx", f"sleep {mark}"], capture_output=True, text=True).stdout.split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    if signal_ == signal.SIGINT:
        os.killpg(run.pid, signal_)
    else:
        run.send_signal(signal_)
    _, said = run.communicate(timeout=60)  # which waits for every process that holds stderr
    assert run.returncode == status and "Traceback" not in said, said
    if status == 130:
        assert said.rstrip().endswith("bench rd: interrupted")
    deadline = time.monotonic() + 60
    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left()


def test_one_picture_of_one_pixel(tmp_path: Path) -> None:
    folder = tmp_path / "dot"
    folder.mkdir()
    Image.new("RGB", (1, 1), (10, 20, 30)).save(folder / "dot.png")
    assert main(["rd", "--pictures", str(folder), "--codecs", "jpeg,webp", "--out", str(tmp_path / "out")]) == 0
    rates = [b for b in results(tmp_path / "out")["bd"] if b["metric"] == "psnr"]
    assert all(b["rate"] is None and b["warning"] for b in rates)


def points(scale: float, pictures: int = 8, seed: int = 1) -> dict[str, dict[str, Point | str]]:
    """Curves of made-up pictures, each of its own height; the rates are scaled."""
    height = np.random.default_rng(seed).normal(0, 2, pictures)
    return {
        f"q{n}": {
            f"p{i}": Point(1, scale * 0.1 * 2**n, 0.1, 0.2, {"psnr": 28 + 3 * n + h}) for i, h in enumerate(height)
        }
        for n in range(5)
    }


def test_intervals_are_paired_over_pictures() -> None:
    """Half the rate in every picture is -50 % in any draw; with pictures of its own the interval is wide."""
    row = deltas({"a": points(1), "b": points(0.5)}, {}, ["psnr"], ["a"])[0]
    assert (row["codec"], row["anchor"], row["rate"], row["low"], row["high"]) == ("b", "a", -50, -50, -50)
    row = deltas({"a": points(1), "b": points(0.5, seed=2)}, {}, ["psnr"], ["a"])[0]
    assert row["low"] < row["rate"] < row["high"] and row["high"] - row["low"] > 5


def test_a_failure_takes_its_picture_out_of_every_average() -> None:
    measured = points(1)
    measured["q2"]["p3"] = "ValueError: no"
    rows = curve(measured, dict.fromkeys(measured["q0"], 1_000_000))
    assert [r["bugs"] for r in rows] == [0, 0, 1, 0, 0]
    rest = [p.quality["psnr"] for who, p in measured["q0"].items() if who != "p3" and isinstance(p, Point)]
    assert rows[0]["psnr"] == pytest.approx(sum(rest) / 7, abs=1e-4)
    assert (rows[0]["encode_mps"], rows[0]["decode_mps"]) == (10, 5)


def test_equal_sizes_for_the_viewer(picture: Any) -> None:
    image, jpeg = picture(4, 160, 120), codecs.find(("jpeg",))
    sizes = {level: len(jpeg.encode(image, level)) for level in jpeg.levels}
    level, data = nearest(jpeg, image, 1.5, sizes)
    every = {q: abs(len(jpeg.encode(image, q)) - 1.5 * 160 * 120 / 8) for q in range(10, 93)}
    assert len(data) == len(jpeg.encode(image, level)) and every[level] <= max(min(every.values()), 0.02 * 3600)


def test_the_default_codecs_are_known() -> None:
    assert {spec[0] for spec in codecs.DEFAULT} <= set(codecs.NAMES)
    assert shutil.which("no-such-program") is None
    with pytest.raises(Absent, match="no program no-such-program"):
        codecs.command("x", "no-such-program {in} {out}", "no-such-program {in} {out}", (1,))
