"""The suites `kodak` and `peers` end to end on made-up pictures, and the one way to measure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import codec
from bench import kodak, peers
from bench.__main__ import main
from bench.measure import PEERS, Codec, Point, from_json, load, measure, to_json
from bench.readme import ROOT
from bench.report import command, dump

pytest.importorskip("bjontegaard", reason="the extra `bench` is not installed")


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_DATA", raising=False)


def test_measures_real_bytes_and_pixels(folder: Path) -> None:
    image = load(folder)["p1"]
    raw = Codec("raw", lambda p, level: p.tobytes(), lambda b: Image.frombytes("RGB", (64, 48), b), (0,))
    point = measure(image, raw, 0)
    assert (point.bytes, point.bpp, point.psnr) == (64 * 48 * 3, 24, float("inf"))
    low, high = (measure(image, PEERS["jpeg"], q) for q in (10, 90))
    assert low.bytes < high.bytes and low.psnr < high.psnr


def test_points_survive_the_file() -> None:
    points = {"ours": {"qp0": {"a": Point(100, 0.25, 30.5, 0.1, 0.2)}}}
    assert from_json(json.loads(dump(to_json(points)))) == points


def test_command_line_is_kept_without_absolute_paths() -> None:
    line = command(["kodak", "--data", "/a/b/data", "--json", "results/x.json", "--pictures=/c/d"])
    assert line == "python -m bench kodak --data data --json results/x.json --pictures=d"


def test_kodak_and_peers(folder: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer_file, result_file, plot = (folder.parent / name for name in ("peers.json", "out/result.json", "plot.png"))
    assert main(["peers", "--pictures", str(folder), "--json", str(peer_file)]) == 0
    options = [
        "--pictures",
        str(folder),
        "--peers",
        str(peer_file),
        "--plot",
        str(plot),
        "--monotone",
        "--model",
        str(tiny_bundle),
    ]
    assert main(["kodak", *options, "--json", str(result_file)]) == 0

    result = json.loads(result_file.read_text(encoding="utf-8"))
    assert {"suite", "machine", "commit", "command", "rows"} <= set(result)
    assert set(result["machine"]) == {"cpu", "cores", "platform"}
    rows = {row["name"]: row for row in result["rows"]}
    assert all(set(row) == {"name", "value", "unit"} for row in result["rows"]) and len(rows) == len(result["rows"])
    assert rows["set/ours/qp18/bpp"]["unit"] == "bit/pixel" and rows["set/webp/q50/psnr"]["unit"] == "dB"
    per_picture = result["points"]["ours"]["qp18"]
    bpp = sum(numbers[1] for numbers in per_picture.values()) / len(per_picture)
    assert rows["set/ours/qp18/bpp"]["value"] == pytest.approx(bpp, abs=1e-4)
    files = [codec.encode(p, qp=18, model=tiny_bundle) for p in load(folder).values()]
    assert [numbers[0] for numbers in per_picture.values()] == [len(f) for f in files]
    assert rows["set/bd-rate/ours-vs-webp"]["unit"] == "%"
    assert "set/bd-rate/ours-vs-vtm" not in rows  # no data, no published curves
    assert rows["set/ours/monotone"]["value"] in (0, 1)
    assert Image.open(plot).width > 500
    shown = capsys.readouterr().out
    assert "BD-rate of ours against webp" in shown and "monotone in -q: " in shown


def test_cached_peers_must_have_every_picture(folder: Path) -> None:
    points = {"jpeg": {"q10": {"p1": Point(100, 0.25, 30.5, 0.1, 0.2)}}}
    with pytest.raises(ValueError, match="no earlier jpeg points of p2"):
        peers.cached({"points": to_json(points)}, load(folder))
    assert peers.cached({"points": to_json(points)}, load(folder, limit=1)) == points


def test_falls_are_seen() -> None:
    good, small, poor = (Point(b, 1.0, p, 0.1, 0.1) for b, p in ((200, 30.0), (100, 31.0), (300, 29.0)))
    for second in (small, poor):
        yes, falls = kodak.monotone_rows("set", {"q0": {"a": good}, "q10": {"a": second}})
        assert (yes["value"], falls["value"]) == (0, 1)
    assert kodak.monotone_rows("set", {"q0": {"a": good}, "q10": {"a": good}})[0]["value"] == 1


def test_an_undefined_bd_rate_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    bpp = [0.1, 0.2, 0.3, 0.4]
    curves = {"ours": (bpp, [30.0, 29.0, 31.0, 32.0]), "webp": (bpp, [29.0, 30.0, 31.0, 32.0])}
    rows = kodak.bd_rows("set", curves)
    assert [row["value"] for row in rows] == [None, None, None]
    assert "rise strictly" in capsys.readouterr().err
    assert "not defined" in kodak.table(rows)


def test_missing_data_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peers"]) == 1
    assert "set MLIC_DATA" in capsys.readouterr().err


def test_coder_suite(tmp_path: Path) -> None:
    """The real thing on a small source: rows by name, and every coder gives back what it was given."""
    file = tmp_path / "coder.json"
    options = ["coder", "--symbols", "20000", "--only", "ours/scalar", "--json", str(file)]
    run = subprocess.run([sys.executable, "-m", "bench", *options], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(file.read_text())
    values = {r["name"]: (r["value"], r["unit"]) for r in result["rows"]}
    for source in ("codec-like", "uniform"):
        for way in ("encode", "decode"):
            assert values[f"coder/ours/scalar/{source}/{way}"][0] > 1
        assert -2 < values[f"coder/ours/overhead/{source}"][0] < 2  # 20 000 symbols are not their expectation
    assert values["coder/ours/scalar/pass/decode"][1] == "ns" and 0 < values["coder/share/decode"][0] < 20
    assert set(result["libraries"]) == {"compressai", "constriction", "torchac"}


def test_train_suite(tmp_path: Path) -> None:
    """Real steps of the smallest network, by our loops and by torch's operators; both leave finite weights."""
    pytest.importorskip("torch")
    file = tmp_path / "train.json"
    assert main(["train", "--model", "tiny", "--steps", "1", "--threads", "1", "--json", str(file)]) == 0
    values = {r["name"].removeprefix("train/tiny/"): r["value"] for r in json.loads(file.read_text())["rows"]}
    assert set(values) == {"crops-per-s", "trunk/crops-per-s", "eager/crops-per-s", "vs-eager"}
    assert all(value > 0 for value in values.values())
    assert values["vs-eager"] == pytest.approx(values["crops-per-s"] / values["eager/crops-per-s"], rel=0.05)


def test_rounding_suite(tmp_path: Path) -> None:
    """The shipped weights on one held-out picture: integers move the curve a little, not by an order."""
    data = pytest.importorskip("skimage.data")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        Image.fromarray(data.astronaut()[number : number + 400, :400]).save(photos / f"{number}.png")
    file = tmp_path / "rounding.json"
    assert main(["rounding", "--data", str(tmp_path), "--json", str(file)]) == 0
    values = {r["name"].removeprefix("rounding/mlicv2-s/"): r["value"] for r in json.loads(file.read_text())["rows"]}
    assert values["float/qp20/bpp"] != values["integer/qp20/bpp"]
    assert abs(values["bd-rate"]) < 10
