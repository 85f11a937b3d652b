"""Full-size networks trained by recipes: the loop, its stages, resuming, several processes, and bad recipes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from codec.models.large.model import MLIC, OPTIONS  # noqa: E402
from codec.models.ops import fast_precision, products  # noqa: E402
from codec.training import data, recipe, train  # noqa: E402
from codec.training.large import LargeRun  # noqa: E402
from codec.training.recipe import Recipe, Stage  # noqa: E402
from codec.training.run import CHECKPOINT  # noqa: E402

TINY = Recipe("mlicv2-l-tiny", 0.013, (Stage(4, 64, 2, 1e-3),), warm_up=2, average=0.5)


@pytest.fixture(scope="module")
def pictures(photo: NDArray) -> list[NDArray]:
    return [photo[i * 16 : i * 16 + 96, i * 20 : i * 20 + 128] for i in range(10)]


@pytest.fixture
def folder(tmp_path: Path, pictures: list[NDArray]) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for i, p in enumerate(pictures):
        Image.fromarray(p).save(root / f"{i}.png")
    return root


def steps(run: LargeRun, pictures: list[NDArray], count: int) -> list[float]:
    photos = data.Photos(pictures, 64)
    return [run.update(photos)[0] for _ in range(count)]


def test_training_lowers_the_loss(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = LargeRun(tmp_path, replace(TINY, stages=(Stage(60, 64, 4, 2e-3),)), 0)
    losses = steps(run, pictures, 60)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert run.counts == {"steps": 60, "crops": 15.0, "seconds": 0.0, "skipped": 0}


def test_a_batch_in_pieces_is_the_batch(tmp_path: Path, pictures: list[NDArray]) -> None:
    """Up to the noise that stands for rounding, which is drawn for each piece."""
    found = [steps(LargeRun(tmp_path, TINY, 0, pieces=n), pictures, 3) for n in (1, 2)]
    assert found[0] == pytest.approx(found[1], rel=0.05) and found[0] != found[1]


def test_selection_learns_alone_and_then_with_the_rest(tmp_path: Path, pictures: list[NDArray]) -> None:
    stages = (Stage(1, 64, 2, 1e-3), Stage(1, 64, 2, 1e-3, "selection"), Stage(1, 64, 2, 1e-3, "joint"))
    run = LargeRun(tmp_path, replace(TINY, stages=stages, warm_up=0), 0)
    for selects, others in ((False, True), (True, False), (True, True)):
        before = {n: p.detach().clone() for n, p in run.weights.items()}
        steps(run, pictures, 1)
        moved = {n.startswith("selection.") for n, p in run.weights.items() if not torch.equal(p, before[n])}
        assert moved == {flag for flag, wanted in ((True, selects), (False, others)) if wanted}
    assert run.model.selecting


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = LargeRun(tmp_path, TINY, 0)
    with torch.no_grad():
        run.weights["g_a.6.bias"][0] = np.nan
    before = {n: p.detach().clone() for n, p in run.parameters.items()}
    steps(run, pictures, 1)
    assert run.counts["skipped"] == 1 and run.counts["steps"] == 1
    assert all(torch.equal(p, before[n]) or n == "g_a.6.bias" for n, p in run.parameters.items())


def test_the_command_resumes_and_leaves_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Stopped half-way and started again: the weights of a run that was never stopped."""
    whole, halved, config = tmp_path / "whole", tmp_path / "halved", tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY.to_dict()))
    common = ["--data", str(folder), "--config", str(config), "--device", "cpu", "--threads", "1"]
    assert train.main([str(whole), *common]) == 0
    assert "finished after 0 crops of 256x256" in capsys.readouterr().err  # half a one, as a whole number
    assert {"config.json", CHECKPOINT, "log.jsonl", "progress.png", "weights.pth"} <= set(os.listdir(whole))

    pictures, _ = data.load_pictures(folder, 64)
    run = LargeRun(halved, TINY, 0)
    halved.mkdir()
    with products(fast_precision("cpu")):
        steps(run, pictures, 2)
    run.save()
    assert train.main([str(halved), *common]) == 0
    made = [torch.load(r / "weights.pth", weights_only=True)["state_dict"] for r in (whole, halved)]
    assert all(torch.equal(a, made[1][n]) for n, a in made[0].items())

    net = MLIC.from_state_dict(made[0], OPTIONS["mlicv2-l-tiny"]).eval()
    net.update()
    assert net.compress(torch.rand(1, 3, 64, 64))["strings"]
    last = json.loads((whole / "log.jsonl").read_text().splitlines()[-1])
    assert last["finished"] and last["held_out"][0]["psnr"] > 3
    with pytest.raises(SystemExit, match="another recipe"):
        train.main([str(whole), *common, "--lambda", "0.05"])
    assert train.main([str(tmp_path / "next"), *common, "--lambda", "0.05", "--from", str(whole)]) == 0


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"version": 1}, "version 0, this one 1"),
        ({"version": 0, "network": "mlicv2-l"}, "not a recipe: 'stages'"),
        ({**TINY.to_dict(), "colour": 1}, "not a recipe: .*colour"),
        ({**TINY.to_dict(), "network": "vgg"}, "'vgg', not one of mlicv2-l, mlicpp"),
        ({**TINY.to_dict(), "stages": [{"steps": 1, "crop": 100, "batch": 1, "rate": 1e-4}]}, "multiples of 64"),
        ({**TINY.to_dict(), "stages": [{"steps": 1, "crop": 64, "batch": 1, "rate": 1, "learn": "x"}]}, "learn is 'x'"),
        ({**TINY.to_dict(), "stages": []}, "it has no stages"),
        ([], "has no attribute|not a recipe"),
    ],
)
def test_what_is_no_recipe_is_told_in_a_line(folder: Path, tmp_path: Path, made: Any, message: str) -> None:
    config = tmp_path / "bad.json"
    config.write_text(json.dumps(made))
    with pytest.raises(SystemExit, match=message):
        train.main([str(tmp_path / "run"), "--data", str(folder), "--config", str(config), "--device", "cpu"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "mlicpp", "--model", "tiny"], "--model does not go with --config"),
        (["--config", "mlicpp", "--batch", "2", "--model", "mlicv2-s"], "--model, --batch does not go with --config"),
        (["--hours", "1", "--lambda", "0.01"], "--lambda goes only with --config"),
        (["--config", "mlicpp", "--pieces", "0"], "--pieces is 0"),
        (["--config", "mlicpp", "--rate", "1e-4"], "--rate does not go with --config"),
        (["--release", "0"], "--release is 0.0, not above 0"),
        (["--hours", "nan"], "--hours is nan, not above 0"),
        (["--hours", "1", "--threads", "0"], "--threads is 0, not above 0"),
        (["--hours", "1", "--threads", "99999999999"], "--threads is 99999999999, above 1024"),
        (["--hours", "1", "--seed", "99999999999999999999999"], "--seed is 99999999999999999999999, not in"),
        (["--hours", "1", "--device", "foo"], "there is no foo here"),
        (["--hours", "1", "--device", "cuda:99"], "there is no cuda:99 here"),
        (["--hours", "1", "--data", "nowhere"], "nowhere is not a folder"),
        (["--config", "nothing"], "neither a file nor one of"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main([str(tmp_path / "run"), "--data", str(tmp_path), *options])
    assert message in f"{stop.value} {capsys.readouterr().err}"


def test_weights_of_another_network_are_told_in_a_line(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(TINY.to_dict()))
    line = [str(tmp_path / "run"), "--data", str(folder), "--config", str(config), "--device", "cpu", "--from"]
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "other.pth")
    for path in ("missing.pth", "other.pth", "tiny.json"):
        with pytest.raises(SystemExit, match=f"{path} .*file of weights of mlicv2-l-tiny"):
            train.main([*line, str(tmp_path / path)])


def test_the_shipped_recipes_are_whole() -> None:
    assert {"mlicv2-l", "mlicv2-l-short", "mlicpp"} <= set(recipe.shipped())
    for name in recipe.shipped():
        made = recipe.load(name)
        assert made.network in OPTIONS and made.weight in recipe.POINTS
        assert Recipe.from_dict(made.to_dict()) == made
    published = recipe.load("mlicpp")
    assert published.steps == 2_000_000 and published.at(0)[1] < published.at(6000)[1] == 1e-4
    assert [published.at(n)[0].crop for n in (1_199_999, 1_200_000)] == [256, 512]
    with pytest.raises(ValueError, match="neither a file nor one of"):
        recipe.load("nothing")


def test_two_processes_are_one(tmp_path: Path, pictures: list[NDArray]) -> None:
    """By torchrun, with two gloo processes: the losses of one, but for the noise."""
    np.save(tmp_path / "pictures.npy", np.stack(pictures))
    program = tmp_path / "losses.py"
    program.write_text("""
import sys, numpy as np, torch
from pathlib import Path
from codec.training import data, distributed
from codec.training.large import LargeRun
from codec.training.recipe import Recipe, Stage
distributed.start("cpu")
torch.set_num_threads(1)
run = LargeRun(Path(), Recipe("mlicv2-l-tiny", 0.013, (Stage(4, 64, 4, 1e-3),), warm_up=2), 0)
photos = data.Photos(list(np.load(sys.argv[1])), 64)
losses = [run.update(photos)[0] for _ in range(4)]
if distributed.rank() == 0:
    Path(sys.argv[2]).write_text(" ".join(map(str, losses)))
distributed.stop()
""")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, launcher in (("one", []), ("two", torchrun)):
        line = [sys.executable, *launcher, str(program), str(tmp_path / "pictures.npy"), str(tmp_path / name)]
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append([float(v) for v in (tmp_path / name).read_text().split()])
    assert len(found[0]) == 4 and found[0] == pytest.approx(found[1], rel=0.05)
