"""python -m quant.train: data in both forms, a run that resumes as if it had not stopped, what it says of bad input."""

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from quant import data, networks, training  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.train import main  # noqa: E402


def pictures(n: int, seed: int) -> tuple[NDArray, NDArray]:
    """Ten classes by colour and direction of stripes: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n)
    y, x = np.mgrid[:32, :32]
    stripes = np.where((labels % 2)[:, None, None], y, x) // 4 % 2 * 80
    made = np.repeat(stripes[..., None], 3, 3) + 40 * (labels // 2)[:, None, None, None] * np.array([1, 0, 0])
    return np.clip(made + rng.integers(0, 40, made.shape), 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cifar")
    labels = {}
    for name, n, seed in (("train", 320, 0), ("test", 160, 1)):
        made, labels[name] = pictures(n, seed)
        rows = made.reshape(n // 40, 40, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(n // 40 * 32, 1280, 3)
        Image.fromarray(rows).save(folder / f"{name}-00.webp", lossless=True)
    np.savez(folder / "labels.npz", **labels)
    return folder


def test_both_forms_of_the_files_are_read(sheets: Path, tmp_path: Path) -> None:
    found = data.load(f"cifar10:{sheets}")
    expected, labels = pictures(320, 0)
    assert np.array_equal(found.train, expected) and np.array_equal(found.train_labels, labels)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        made, labels = pictures(20, i)
        content = {b"data": made.transpose(0, 3, 1, 2).reshape(20, -1), b"labels": labels.tolist()}
        (batches / name).write_bytes(pickle.dumps(content))
    found = data.load(f"cifar10:{tmp_path}")
    assert found.train.shape == (100, 32, 32, 3) and np.array_equal(found.test, pictures(20, 5)[0])
    (batches / "data_batch_3").write_bytes(pickle.dumps(len))
    with pytest.raises(data.NoData, match=r"does not hold builtins\.len"):
        data.load(f"cifar10:{tmp_path}")


def run(sheets: Path, out: Path, *options: str) -> int:
    return main(["--data", f"cifar10:{sheets}", "--model", "resnet20", "--batch", "32", "--out", str(out), *options])


def test_a_run_learns_and_says_so(sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sheets, tmp_path, "--epochs", "8", "--lr", "0.05") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["mean"] > 60 and result["options"]["config"]["bits_g"] == 4 and result["step_ms"][0] > 0
    assert "test" in capsys.readouterr().out
    log = [json.loads(line) for line in (tmp_path / "seed-0" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [*range(1, 9)] and log[-1]["loss"] < 0.7 * log[0]["loss"]
    assert (tmp_path / "seed-0" / "log.csv").read_text().count("\n") == 9
    assert Image.open(tmp_path / "seed-0" / "progress.png").size == (700, 320)


def test_a_stopped_run_goes_on_as_if_it_had_not(sheets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--epochs", "3", "--seeds", "2", "--subset", "64")
    assert run(sheets, tmp_path / "whole", *options) == 0
    epoch = training.Run._epoch

    def stops(self: training.Run, n: int, *rest: object) -> dict:
        if n == 2:
            raise KeyboardInterrupt
        return epoch(self, n, *rest)

    monkeypatch.setattr(training.Run, "_epoch", stops)
    assert run(sheets, tmp_path / "parts", *options) == 130
    monkeypatch.setattr(training.Run, "_epoch", epoch)
    assert run(sheets, tmp_path / "parts", *options) == 0
    whole, parts = (json.loads((tmp_path / p / "result.json").read_text()) for p in ("whole", "parts"))
    assert whole["test"] == parts["test"] and whole["loss"] == parts["loss"]
    for seed in (0, 1):
        a, b = (torch.load(tmp_path / p / f"seed-{seed}" / "checkpoint.pt") for p in ("whole", "parts"))
        assert all(torch.equal(v, b["model"][k]) for k, v in a["model"].items())


@pytest.mark.parametrize(("model", "example"), [
    ("resnet20", lambda: torch.randn(2, 3, 32, 32)), ("resnet18", lambda: torch.randn(2, 3, 32, 32)),
    ("vit-tiny", lambda: torch.randn(2, 3, 32, 32)), ("char", lambda: torch.randint(128, (2, 40))),
])  # fmt: skip
def test_no_float_product_is_computed_in_converted_layers(
    model: str, example: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends and attention's own products are floating point; all else must be integers."""
    config = ShiftQuantConfig(6, 6, 6, 3) if model in ("vit-tiny", "char") else ShiftQuantConfig()
    options = training.Options(model, "", config, "bfloat16", 1, 2, 0, 0, 0)
    made = training.build(options, 10 if model != "char" else 128)
    allowed = {m for name, m in made.named_modules() if name in networks.ends(made)}
    inside: list[nn.Module] = []
    for m in allowed:
        m.register_forward_pre_hook(lambda m, _: inside.append(m))
        m.register_forward_hook(lambda m, *_: inside.remove(m))
    real = {name: getattr(nn.functional, name) for name in ("linear", "conv2d")}

    def only_there(name: str) -> Callable:
        def called(*args: object, **options: object) -> Tensor:
            assert inside, f"a float {name}"
            return real[name](*args, **options)

        return called

    for name in real:
        monkeypatch.setattr(nn.functional, name, only_there(name))
    for name in ("mm", "matmul", "addmm", "bmm"):
        monkeypatch.setattr(torch, name, lambda *_: pytest.fail("a float product"))
    with training.numbers(options):
        made(example()).float().square().mean().backward()
    kinds = {type(m).__module__ for m in made.modules() if type(m).__name__ in ("Linear", "Conv2d")}
    assert {"quant.linear", "quant.conv"} & kinds
    assert all(p.grad is not None for p in made.parameters())


def test_what_is_kept_for_the_way_back_takes_less_than_three_tenths_of_bfloat16() -> None:
    x = torch.randn(32, 3, 32, 32)
    kept = []
    for config in (None, ShiftQuantConfig()):
        options = training.Options("resnet20", "", config, "bfloat16", 1, 32, 0, 0, 0)
        kept.append(training.saved_bytes(options, training.build(options, 10), x))
    assert kept[1] < 0.3 * kept[0]


@pytest.mark.parametrize(("options", "said"), [
    (["--data", "cifar10:/nowhere", "--model", "resnet20"], "/nowhere is not a folder"),
    (["--data", "cifar10:/", "--model", "resnet20"], "holds neither"),
    (["--data", "pictures", "--model", "resnet20"], "data are cifar10:FOLDER"),
    (["--data", "text:", "--model", "resnet20"], "resnet20 does not train on text:"),
    (["--data", "text:", "--model", "char", "--bits", "6", "--groups", "4"], "do not fit a byte"),
    (["--data", "text:", "--model", "char", "--bits", "32", "--groups", "4"], "floating point"),
    (["--data", "text:", "--model", "char", "--epochs", "0"], "--epochs is 1 to"),
    (["--data", "text:", "--model", "char", "--bits", "1"], "2 to 8 bits"),
    (["--data", "text:", "--model", "char", "--groups", "0"], "at least one group, not 0"),
    (["--data", "text:", "--model", "char", "--subset", "-5"], "--subset is 0 to"),
    (["--data", "text:", "--model", "char", "--subset", "100"], "100 examples are too few"),
    (["--data", "text:", "--model", "char", "--lr", "nan"], "--lr is 0 to"),
    (["--data", "text:", "--model", "char", "--threads", "1000000"], "--threads is 0 to"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_another_run_is_not_overwritten(sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--epochs", "1", "--subset", "32")
    assert run(sheets, tmp_path, *options) == 0 and run(sheets, tmp_path, *options, "--bits", "3") == 1
    assert "with other options" in capsys.readouterr().err


def test_help_and_the_command_itself() -> None:
    made = subprocess.run([sys.executable, "-m", "quant.train", "--help"], capture_output=True, text=True)
    assert made.returncode == 0 and "cifar10:FOLDER" in made.stdout


@pytest.mark.parametrize(("name", "damage", "said"), [
    ("labels.npz", lambda b: b[: len(b) // 2], "labels.npz"), ("labels.npz", lambda b: b"", "labels.npz"),
    ("train-00.webp", lambda b: b[:100], "train-00.webp"), ("test-00.webp", lambda b: b"text", "test-00.webp"),
])  # fmt: skip
def test_damaged_data_are_named(
    name: str,
    damage: Callable[[bytes], bytes],
    said: str,
    sheets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for f in sheets.iterdir():
        (tmp_path / f.name).write_bytes(damage(f.read_bytes()) if f.name == name else f.read_bytes())
    assert run(tmp_path, tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_wrong_labels_are_named(sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for f in sheets.glob("*.webp"):
        (tmp_path / f.name).write_bytes(f.read_bytes())
    good = dict(np.load(sheets / "labels.npz"))
    for bad in (good | {"test": good["test"] + 200}, good | {"train": good["train"][:5]}, {"train": good["train"]},
                good | {"train": good["train"].astype(float)}):  # fmt: skip
        np.savez(tmp_path / "labels.npz", **bad)
        assert run(tmp_path, tmp_path / "run") == 1
        error = capsys.readouterr().err
        assert "labels.npz" in error and error.count("\n") == 1


def test_damaged_runs_are_named(sheets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--epochs", "1", "--subset", "32")
    assert run(sheets, tmp_path, *options) == 0
    folder = tmp_path / "seed-0"
    whole = (folder / "checkpoint.pt").read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", b"text", whole[:middle], whole[:middle] + b"\x00\x01" * 50 + whole[middle + 100 :]):
        (folder / "checkpoint.pt").write_bytes(damaged)
        capsys.readouterr()
        assert run(sheets, tmp_path, *options) == 1
        assert "checkpoint.pt is damaged: delete it to train again" in capsys.readouterr().err
    (folder / "checkpoint.pt").write_bytes(whole)
    for name in ("log.jsonl", "log.csv", "progress.png"):
        (folder / name).unlink()
    assert run(sheets, tmp_path, *options) == 0 and (folder / "log.csv").exists() and (folder / "progress.png").exists()
    with training._alone(folder):
        assert run(sheets, tmp_path, *options) == 1 and "another process trains" in capsys.readouterr().err
    assert run(sheets, tmp_path, "--epochs", "2", "--subset", "32") == 1
    assert "other options (epochs)" in capsys.readouterr().err
    (folder / "config.json").write_text("[1]")
    assert run(sheets, tmp_path, *options) == 1 and "config.json is damaged" in capsys.readouterr().err


def test_sigterm_ends_as_ctrl_c_does(sheets: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "quant.train", "--data", f"cifar10:{sheets}", "--model", "resnet20", "--batch", "32",
            "--epochs", "500", "--threads", "1", "--out", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "seed-0" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    assert "goes on from the last whole epoch" in process.communicate(timeout=30)[1] and process.returncode == 130
