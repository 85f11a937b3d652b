"""The smaller suites end to end on made-up data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.__main__ import main
from bench.readme import ROOT
from bench.report import command, commit

pytest.importorskip("bjontegaard", reason="the extra `bench` is not installed")


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLIC_DATA", raising=False)


def test_command_line_is_kept_without_absolute_paths() -> None:
    line = command(["rd", "--data", "/a/b/data", "--json", "results/x.json", "--pictures=/c/d"])
    assert line == "python -m bench rd --data data --json results/x.json --pictures=d"


def test_learning_suite(folder: Path, tiny_bundle: Path) -> None:
    """A bundle against the anchors of an rd report: the same numbers as there."""
    out, file = folder.parent / "report", folder.parent / "learning.json"
    line = ["rd", "--pictures", str(folder), "--viewer", "0", "--metrics", "psnr"]
    assert main([*line, "--codecs", f"ours:{tiny_bundle},webp", "--out", str(out)]) == 0
    report = out / "results.json"
    rd = {r["name"]: r["value"] for r in json.loads(report.read_text())["rows"]}
    arguments = ["learning", "--pictures", str(folder), "--anchors", str(report), "--json", str(file)]
    assert main([*arguments, f"800={tiny_bundle}"]) == 0
    rows = {r["name"]: r["value"] for r in json.loads(file.read_text())["rows"]}
    assert rows["learning/800/webp"] == rd[f"rd/ours-{tiny_bundle.stem}/bdrate/webp"]


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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data folder with parts of a photograph."""
    data = pytest.importorskip("skimage.data")
    (tmp_path / "photos").mkdir()
    for number in range(10):
        Image.fromarray(data.astronaut()[number : number + 400, :400]).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def test_probes_suite(photos: Path, tmp_path: Path) -> None:
    """Two small networks for a second each; a second time nothing is trained again."""
    file = tmp_path / "probes.json"
    options = ["--data", str(photos), "--out", str(tmp_path / "runs"), "--minutes", "0.02", "--model", "tiny"]
    options += ["--probes", "as-it-is", "context-doubled", "--threads", "1", "--json", str(file)]
    found = []
    for _ in range(2):
        assert main(["probes", *options]) == 0
        found.append(json.loads(file.read_text())["rows"])
    values = {r["name"].removeprefix("probes/"): r["value"] for r in found[0]}
    assert found[0] == found[1] and values["as-it-is/crops"] > 0 and values["as-it-is/rate"] == 0
    assert values["context-doubled/kmacs/decode"] > values["as-it-is/kmacs/decode"]


def test_rounding_suite(photos: Path, tmp_path: Path) -> None:
    """The shipped weights on one held-out picture: integers move the curve a little, not by an order."""
    file = tmp_path / "rounding.json"
    assert main(["rounding", "--data", str(photos), "--json", str(file)]) == 0
    values = {r["name"].removeprefix("rounding/mlicv2-s/"): r["value"] for r in json.loads(file.read_text())["rows"]}
    assert values["float/qp20/bpp"] != values["integer/qp20/bpp"]
    assert abs(values["bd-rate"]) < 10


@pytest.mark.parametrize(("suite", "options", "ratios"), [
    ("gemm", ["--runs", "1"], {"512x512x512/gemm/vs-bf16", "median/quantize+gemm/vs-bf16"}),
    ("l1norm", ["--runs", "1"], {"128x8x8x64/vs-fp32-l2", "median/vs-same-width-l2"}),
    ("quant-train", ["--runs", "1", "--models", "resnet20"], {"resnet20/vs-bf16", "resnet20/kept-vs-bf16"}),
])  # fmt: skip
def test_suites_of_integers(
    suite: str, options: list[str], ratios: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contenders in turn, with medians and least, threads and capability told."""
    pytest.importorskip("torch")
    file = tmp_path / "suite.json"
    assert main([suite, *options, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    values = {r["name"].split("/", 1)[1]: r["value"] for r in result["rows"]}
    assert ratios <= set(values) and all(v > 0 for v in values.values())
    assert any(name.endswith("/least") for name in values) and result["threads"] == 1 and result["capability"]
    assert all(name in capsys.readouterr().out for name in list(ratios)[:1])


def test_accuracy_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All variants and two seeds on a small text; a second time nothing is trained again."""
    pytest.importorskip("torch")
    from bench import quant_accuracy

    for i in range(20):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n" * 400)
    monkeypatch.setattr(quant_accuracy, "TEXT", ["--data", f"text:{tmp_path}", "--subset", "3000", "--batch", "4"])
    monkeypatch.chdir(ROOT)
    file = tmp_path / "accuracy.json"
    options = ["--models", "char", "--text-epochs", "1", "--seeds", "2", "--out", str(tmp_path / "runs")]
    for _ in range(2):
        assert main(["quant-accuracy", *options, "--json", str(file)]) == 0
    values = {r["name"]: r["value"] for r in json.loads(file.read_text())["rows"]}
    assert 1 < values["accuracy/char/w6a6g6-two-sided-l2/test"] < 7 and values["accuracy/char/fp32/deviation"] > 0
    assert len(list((tmp_path / "runs").glob("*/seed-*/checkpoint.pt"))) == 8


def test_nas_step_suite(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "step.json"
    assert main(["nas-step", "--runs", "1", "--batch", "1", "--crop", "8", "--json", str(file)]) == 0
    rows = {r["name"]: r["value"] for r in json.loads(file.read_text())["rows"]}
    assert all(rows[f"nas-step/{n}/noise-vs-direct"] > 0 for n in (1, 2, 4))


def test_nas_sr_suite(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything once, on hardly anything; and again, when all is there."""
    pytest.importorskip("torch")
    data = tmp_path / "data"
    for name in ("photos", "sr/Set5", "sr/Set14"):
        (data / name).mkdir(parents=True)
    source = Image.open(next(p for p in sorted(folder.iterdir()) if p.suffix == ".png")).convert("RGB")
    for i in range(9):
        source.resize((80 + i, 72)).save(data / "photos" / f"{i}.png")
    for name in ("Set5", "Set14"):
        source.resize((60, 48)).save(data / "sr" / name / "a.png")
    file = tmp_path / "sr.json"
    line = [
        "nas-sr",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "runs"),
        "--scale",
        "2",
        "--width",
        "6",
        "--cells",
        "1",
    ]
    line += ["--target-bitops", "60M", "--seeds", "1", "--search-epochs", "2", "--train-epochs", "1"]
    line += ["--steps", "2", "--batch", "1", "--crop", "16", "--random", "1", "--json", str(file)]
    assert main(line) == 0
    rows = {r["name"]: r["value"] for r in json.loads(file.read_text())["rows"]}
    for name in ("searched", "searched-directly", "uniform-4", "uniform-8", "hand", "hand-ends", "greedy", "random"):
        assert rows[f"nas-sr/{name}/gbitops"] > 0 and rows[f"nas-sr/{name}/Set14"] > 15
    first = file.read_text()
    assert main(line) == 0 and json.loads(file.read_text())["rows"] == json.loads(first)["rows"]
    line[line.index("60M")] = "1"
    assert main(line) == 1 and "more than the budget" in capsys.readouterr().err


def test_nas_synthesis_suite(folder: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    """Everything once, on hardly anything; and again, when all is there."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    data = tmp_path / "data"
    for name in ("photos", "kodak"):
        (data / name).mkdir(parents=True)
    source = Image.open(next(p for p in sorted(folder.iterdir()) if p.suffix == ".png")).convert("RGB")
    for i in range(9):
        source.resize((140 + i, 130)).save(data / "photos" / f"{i}.png")
    source.resize((70, 50)).save(data / "kodak" / "a.png")
    file = tmp_path / "synthesis.json"
    line = ["nas-synthesis", "--data", str(data), "--out", str(tmp_path / "runs"), "--model", str(tiny_bundle)]
    line += ["--search-epochs", "2", "--search-steps", "1", "--epochs", "1", "--steps", "1", "--batch", "1"]
    line += ["--qps", "8", "24", "40", "56", "--json", str(file)]
    for _ in range(2):
        assert main(line) == 0
    rows = {r["name"].removeprefix("nas-synthesis/"): r["value"] for r in json.loads(file.read_text())["rows"]}
    assert rows["searched/share"] <= 0.5 and rows["uniform-8/share"] == 1
    for name in ("searched", "hand", "uniform-8"):
        assert rows[f"{name}/decode"] > 0 and abs(rows[f"{name}/qp24/loss"]) < 20 and f"{name}/bdrate" in rows
    assert rows["codec/decode"] > 0 and rows["codec-onnx/decode"] > 0


def test_a_folder_has_a_hash_of_its_own() -> None:
    """What is kept of a codec is measured again when its code changed, not with every commit."""
    if not commit():
        pytest.skip("not in a repository")
    hashes = [commit(), commit("codec"), commit("cpp_ext")]
    assert len(set(hashes)) == 3 and None not in hashes and commit("no/such/folder") is None
