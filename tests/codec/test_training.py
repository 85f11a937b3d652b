"""The trainer on a few pictures: it learns, resumes without a trace and says what is wrong; its export decodes."""

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

import codec  # noqa: E402
from codec import network  # noqa: E402
from codec.bundle import Bundle  # noqa: E402
from codec.cli import main  # noqa: E402
from codec.config import CONFIGS, rate_lambda  # noqa: E402
from codec.models.mlicv2 import MLICv2, gaussian_bits  # noqa: E402
from codec.training import data, export, held_out, report, schedule, step, train, weights  # noqa: E402
from codec.training.revive import revive  # noqa: E402
from codec.training.run import CHECKPOINT, Run, config_of  # noqa: E402
from codec.training.schedule import Step  # noqa: E402
from rate import gaussian_bits as analytic_bits  # noqa: E402


@pytest.fixture(scope="module")
def pictures(photo: NDArray) -> list[NDArray]:
    return [photo[i * 16 : i * 16 + 256, i * 20 : i * 20 + 300] for i in range(10)]


@pytest.fixture
def folder(tmp_path: Path, pictures: list[NDArray]) -> Path:
    """Pictures in a folder and in an archive, one broken, one too small."""
    root = tmp_path / "photos"
    (root / "deeper").mkdir(parents=True)
    for i, p in enumerate(pictures[:8]):
        Image.fromarray(p).save(root / "deeper" / f"{i}.png")
    Image.fromarray(pictures[8]).save(tmp_path / "in.jpg")
    with tarfile.open(root / "more.tar", "w") as tar:
        tar.add(tmp_path / "in.jpg", "in.jpg")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (root / "readme.txt").write_text("no")
    Image.fromarray(pictures[9][:100]).save(root / "small.png")
    return root


def test_loading_names_what_it_skips(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_on, held_out = data.load_pictures(folder, 256)
    err = capsys.readouterr().err
    assert len(trained_on) + len(held_out) == 9 and held_out
    assert "broken.jpg" in err and "small.png" in err and err.count("\n") == 3
    assert "readme.txt: it is no picture" in err and "0x" not in err


def test_too_few_pictures_is_an_error_that_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="at least 8"):
        data.load_pictures(tmp_path, 256)


def new_run(folder: Path, pictures: list[NDArray]) -> Run:
    torch.manual_seed(1)
    folder.mkdir(exist_ok=True)
    run = Run(folder, MLICv2(CONFIGS["tiny"]), 0)
    run.model.fit_to(data.to_signal(data.Photos(pictures, 64).crops(16, 128, run.rng)))
    run.average = {n: p.detach().clone() for n, p in run.model.arrays.items()}
    return run


def test_training_lowers_the_loss(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)

    def cost() -> float:
        rows = held_out.with_average(run, pictures)
        return sum(np.log2(row["bpp"]) - row["psnr"] / 6 for row in rows)

    before = cost()
    for i in range(100):
        train.update(run, data.Photos(pictures, 64), Step(1 - i / 100, 4, 64, False))
    assert cost() < before - 0.1  # a tenth of a bit in the exponent, about 7 % rate


def test_resuming_leaves_no_trace(tmp_path: Path, pictures: list[NDArray]) -> None:
    def steps(run: Run, n: int) -> None:
        for _ in range(n):
            train.update(run, data.Photos(pictures, 64), Step(1.0, 2, 64, False))

    straight = new_run(tmp_path / "a", pictures)
    steps(straight, 4)
    broken = new_run(tmp_path / "b", pictures)
    steps(broken, 2)
    broken.save()
    resumed = Run(tmp_path / "b", MLICv2(CONFIGS["tiny"]), 99)
    resumed.load(tmp_path / "b" / CHECKPOINT)
    steps(resumed, 2)
    assert resumed.counts == straight.counts
    for name, p in straight.model.arrays.items():
        assert torch.equal(p, resumed.model.arrays[name]), name
        assert torch.equal(straight.average[name], resumed.average[name]), name


def test_threads_share_a_batch(tmp_path: Path, pictures: list[NDArray]) -> None:
    """Without noise, each crop gives what it gives alone, whoever takes it; with noise, the same every time."""
    model, photos = new_run(tmp_path / "run", pictures).model, data.Photos(pictures, 64)
    x, qp = photos.crops(5, 64, np.random.default_rng(0)), torch.linspace(0, 63, 5)
    lambdas = torch.tensor([rate_lambda(float(q)) for q in qp])

    def silent(*arguments: Any) -> tuple[Any, ...]:
        return step.loss_of(*arguments[:-1], None)

    def gradients(workers: int, loss: Any) -> list[Any]:
        value, bpp, mse = step.Gradients(model, workers, loss)(x, qp, lambdas, np.random.default_rng(1))
        return [torch.tensor(value), bpp, mse, *(p.grad for p in model.parameters() if p.requires_grad)]

    for a, b in zip(gradients(1, silent), gradients(3, silent), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max()) + 1e-9)
    for a, b in zip(gradients(2, step.loss_of), gradients(2, step.loss_of), strict=True):
        assert torch.equal(a, b)


def test_gradients_lie_as_weights_do(tmp_path: Path, pictures: list[NDArray]) -> None:
    """torch's fused AdamW walks through both in memory: on a CPU it took transposed gradients for others, silently."""
    run = new_run(tmp_path / "run", pictures)
    with torch.no_grad():
        for name, p in run.model.arrays.items():
            if name.endswith("/out/weight"):  # at zero nothing reaches the depthwise weights
                p.normal_(std=0.1)
    before = {n: p.detach().clone() for n, p in run.model.arrays.items()}
    grads: dict[str, Any] = {}
    kept = run.optimizers[1].step

    def step_and_keep() -> None:
        grads.update({n: p.grad.clone() for n, p in run.model.arrays.items() if p.grad is not None})
        kept()

    run.optimizers[1].step = step_and_keep  # type: ignore[method-assign]
    train.update(run, data.Photos(pictures, 64), Step(1.0, 4, 64, False))
    adamw = {id(p) for p in run.optimizers[1].param_groups[0]["params"]}
    depthwise = [n for n in grads if n.endswith("mix/weight")]
    assert depthwise and all(id(run.model.arrays[n]) in adamw for n in depthwise)
    for name, g in grads.items():
        if id(run.model.arrays[name]) in adamw:
            moved = run.model.arrays[name] - before[name]
            assert torch.equal(moved.sign()[g.abs() > 1e-6], -g.sign()[g.abs() > 1e-6]), name


def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)
    with torch.no_grad():
        run.model.arrays["g_s/head/bias"][0] = float("nan")
    before = {n: p.detach().clone() for n, p in run.model.arrays.items()}
    train.update(run, data.Photos(pictures, 64), Step(1.0, 2, 64, False))
    assert run.counts["skipped"] == 1
    assert all(torch.equal(p, before[n]) for n, p in run.model.arrays.items() if n != "g_s/head/bias")


def test_train_release_export_encode_decode(
    folder: Path, tmp_path: Path, photo: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's commands, on a small net for a few seconds of training."""
    monkeypatch.setattr(schedule, "TRUNK_CROPS", (2, 64))
    monkeypatch.setattr(schedule, "BRANCH_CROPS", ((0.0, 2, 64), (0.5, 1, 128)))
    monkeypatch.setattr(schedule, "LARGEST", 128)
    monkeypatch.setattr(report, "LOG_STEPS", 1)
    monkeypatch.setattr(report, "EVALUATE_SECONDS", 1)
    run, out = tmp_path / "run", tmp_path / "tiny.safetensors"
    common = ["--data", str(folder), "--model", "tiny", "--threads", "2"]
    with pytest.raises(SystemExit, match="no trunk"):
        train.main([str(run), *common, "--release", "1"])
    assert train.main([str(run), *common, "--hours", str(3 / 3600)]) == 0
    trunk = (run / CHECKPOINT).read_bytes()
    for number in (1, 2):  # each release is a branch of its own, and the trunk stays as it was
        assert train.main([str(run), *common, "--release", str(3 / 3600)]) == 0
        branch = run / f"release-{number}"
        assert {"config.json", CHECKPOINT, "log.jsonl", "progress.png", "finished"} <= {
            p.name for p in branch.iterdir()
        }
    assert (run / CHECKPOINT).read_bytes() == trunk
    rows = [json.loads(line) for line in (branch / "log.jsonl").read_text().splitlines()]
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.7 * rates[0]
    assert rows[-1]["finished"] and [row["qp"] for row in rows[-1]["held_out"]] == list(held_out.QPS)
    assert export.main([str(branch), str(out)]) == 0
    file = codec.encode(photo[:100, :100], model=out)
    codec.decode(file, model=out)
    # Tables fitted to pictures change nothing but the rate.
    fitted = tmp_path / "fitted.safetensors"
    assert export.main([str(branch), str(fitted), "--data", str(folder)]) == 0
    before, after = Bundle(out).arrays, Bundle(fitted).arrays
    assert {n for n in before if not np.array_equal(before[n], after[n])} <= {
        f"integer/tables/{n}" for n in ("raw_bits", "sizes", "freqs")
    }
    smaller = codec.encode(photo[:100, :100], model=fitted)
    assert len(smaller) < len(file)
    shown = (codec.decode_picture(f, model=m).rgb for f, m in ((file, out), (smaller, fitted)))
    assert np.array_equal(*shown)
    # What was released is what was trained, but for float16.
    released, trained = weights.load(out), weights.load(branch)
    for name, a in trained.arrays.items():
        assert torch.allclose(a, released.arrays[name], rtol=1e-3, atol=1e-3), name
    assert train.main([str(tmp_path / "again"), *common, "--hours", "0.0001", "--from", str(out)]) == 0


def test_a_killed_run_goes_on(folder: Path, tmp_path: Path) -> None:
    """kill -9 loses what was done since the last checkpoint, and nothing else."""
    program = (
        "import sys; from codec.training import report, schedule, train;"
        "schedule.TRUNK_CROPS, schedule.LARGEST = (1, 64), 64;"
        "report.CHECKPOINT_SECONDS = 0.1; sys.exit(train.main(sys.argv[1:]))"
    )
    run = tmp_path / "run"
    argv = [sys.executable, "-c", program, str(run), "--data", str(folder), "--model", "tiny", "--threads", "1"]
    process = subprocess.Popen([*argv, "--hours", "1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.kill()
    process.wait()
    counts = torch.load(run / CHECKPOINT, weights_only=True)["counts"]
    hours = (counts["seconds"] + 0.5) / 3600
    done = subprocess.run([*argv, "--hours", str(hours)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.load(run / CHECKPOINT, weights_only=True)["counts"]["steps"] > counts["steps"]


def test_two_processes_are_one_with_the_joint_batch(tmp_path: Path) -> None:
    """torchrun with two gloo processes of one thread: the losses of one process with two threads."""
    program = tmp_path / "losses.py"
    program.write_text("""
import sys, numpy as np, torch
from pathlib import Path
from codec.config import CONFIGS
from codec.models.mlicv2 import MLICv2
from codec.training import data, distributed, train
from codec.training.run import Run
from codec.training.schedule import Step
from codec.training.step import Gradients
distributed.start("cpu")
torch.manual_seed(0)
photos = data.Photos([np.random.default_rng(i).integers(0, 255, (128, 128, 3), np.uint8) for i in range(8)], 128)
run = Run(Path(), MLICv2(CONFIGS["tiny"]), 0)
run.model.fit_to(data.to_signal(photos.crops(16, 128, run.rng)))
run.gradients = Gradients(run.model, 2 // distributed.world())
losses = [train.update(run, photos, Step(1.0, 3, 64, False))[0] for _ in range(4)]
if distributed.rank() == 0:
    Path(sys.argv[1]).write_text(" ".join(map(str, losses)))
distributed.stop()
""")
    root = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": str(root)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, *launcher, str(program), str(tmp_path / name)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append([float(v) for v in (tmp_path / name).read_text().split()])
    assert len(found[0]) == 4 and found[0] == pytest.approx(found[1], rel=1e-4)


def test_dead_units_get_a_new_start(tmp_path: Path, pictures: list[NDArray]) -> None:
    run, photos = new_run(tmp_path, pictures), data.Photos(pictures, 128)
    arrays, block = run.model.arrays, "g_s/sixteenth/0"
    with torch.no_grad():
        arrays[f"{block}/back/weight"].normal_()
        units = arrays[f"{block}/back/weight"].shape[1]
        arrays[f"{block}/gate/weight"][units : units + 3] = 0.0
        arrays[f"{block}/gate/bias"][units : units + 3] = -5.0  # closed, wherever

    def bits_and_slopes() -> tuple[float, torch.Tensor]:
        shares = torch.full((4,), 0.25)
        x = photos.crops(4, 128, np.random.default_rng(5))
        noise = torch.Generator().manual_seed(6)
        loss, _, _ = step.loss_of(
            run.model, x, torch.linspace(0, 60, 4), shares, shares, lambda v: torch.rand(v.shape, generator=noise)
        )
        return loss.item(), torch.autograd.grad(loss, arrays[f"{block}/back/weight"])[0]

    before, slopes = bits_and_slopes()
    assert not slopes[:, :3].any() and slopes[:, 3:].any(0).all()
    assert revive(run.model, photos, run.rng) == 3
    after, slopes = bits_and_slopes()
    assert after == pytest.approx(before, rel=1e-5) and slopes.any(0).all()
    assert revive(run.model, photos, run.rng) == 0


def test_latents_cannot_run_away(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)
    arrays, x = run.model.arrays, data.to_signal(data.Photos(pictures, 64).crops(2, 64, run.rng))
    with torch.no_grad():
        arrays["g_a/down/weight"].mul_(1e9)
        arrays["y/gain"][3] = -39.0
    run.model.hold_gains()
    qp = torch.eye(9)[[3, 8]]
    y, _ = run.model.analyse(x, qp)
    assert 1e-4 < y[0].abs().max() <= 1.001e-3  # of a step
    assert (y[1].abs() <= 1.001 * network.BOUND * arrays["y/deviation"] * arrays["y/gain"][8].exp()).all()
    assert torch.autograd.grad(y.square().sum(), arrays["g_a/down/weight"])[0].any()  # they can come back


def test_one_crop_cannot_outweigh_the_others(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)
    x = data.Photos(pictures, 64).crops(2, 64, run.rng)
    with torch.no_grad():
        run.model.arrays["g_s/head/weight"].mul_(1e4)
    lambdas = torch.tensor([0.001, 0.1])
    shares = step.shares_of(lambdas)
    loss, _, mse = step.loss_of(run.model, x, torch.tensor([0.0, 60.0]), lambdas, shares, torch.rand_like)
    assert mse.min() > 1e6
    assert loss.item() == pytest.approx((shares * step.OUTLIER * lambdas**-step.RATE_WEIGHT).sum().item(), rel=1e-4)


def test_a_run_of_another_trainer_is_named(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)
    run.optimizers.reverse()
    run.save()
    with pytest.raises(SystemExit, match="another version of codec train"):
        new_run(tmp_path / "other", pictures).load(tmp_path / "run" / "checkpoint.pt")


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "text", "pickle", "recipe", "missing"])
def test_what_is_no_checkpoint_is_told_in_a_line(tmp_path: Path, pictures: list[NDArray], damage: str) -> None:
    run = new_run(tmp_path / "run", pictures)
    run.save()
    path = run.folder / CHECKPOINT
    if damage == "missing":
        path.unlink()
    elif damage in ("cut", "empty", "text"):
        path.write_bytes({"cut": path.read_bytes()[:9999], "empty": b"", "text": b"hello"}[damage])
    else:
        torch.save({"foreign": {}, "pickle": tmp_path, "recipe": {"config": {"network": "mlicpp"}}}[damage], path)
    for read in (lambda: weights.load(run.folder), lambda: config_of(path), lambda: run.load(path)):
        with pytest.raises(SystemExit, match=r"checkpoint.pt .*checkpoint of .*codec train") as stop:
            read()
        assert len(str(stop.value)) < 300 and "\n" not in str(stop.value)


def test_export_replaces_bundles_alone(
    tmp_path: Path, pictures: list[NDArray], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new_run(tmp_path / "run", pictures).save()
    (tmp_path / "a.float.npz").mkdir()
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    for out in ("run/checkpoint.pt", "k.png", "run"):
        assert main(["export", "run", out]) == 2
        assert f"{out} is no name for a bundle: end it in .safetensors" in capsys.readouterr().err
    assert main(["export", "run", "a.safetensors"]) == main(["export", "run", "no/b.safetensors"]) == 1
    assert "a.float.npz is a directory" in capsys.readouterr().err
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert sorted(os.listdir()) == ["a.float.npz", "run"] and os.listdir("run") == [CHECKPOINT]
    assert main(["export", "run", "b.safetensors"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("b.safetensors: ") and "b.float.npz" in err and err.count("\n") == 1
    assert sorted(os.listdir()) == ["a.float.npz", "b.float.npz", "b.safetensors", "run"]


def test_a_run_of_another_network_is_named(tmp_path: Path, pictures: list[NDArray]) -> None:
    run = new_run(tmp_path / "run", pictures)
    run.save()
    line = ["--data", "", "--hours", "1", "--model"]
    assert train.start(train.parse([str(run.folder), *line, "tiny"]), "cpu", data.Photos(pictures, 64))
    for extra in ([str(run.folder)], [str(tmp_path / "new"), "--from", str(run.folder)]):
        with pytest.raises(SystemExit, match="is of tiny, not mlicv2-s"):
            train.start(train.parse([*extra, *line, "mlicv2-s"]), "cpu", data.Photos(pictures, 64))
    assert not (tmp_path / "new").exists()


def test_the_trained_rate_is_the_analytic_rate() -> None:
    from codec.tables import scale

    v = torch.tensor([[0.0, 1.0, -2.0, 3.0]])
    index = torch.tensor([[10.0, 20.0, 35.0, 50.0]])
    sigmas = np.array([scale(int(i)) for i in index[0]])
    assert gaussian_bits(v, index).item() == pytest.approx(analytic_bits(v.numpy(), 0.0, sigmas).sum(), rel=2e-3)


def test_crops_are_pieces_of_the_pictures() -> None:
    marked = (np.arange(24 * 20 * 3) % 251).astype(np.uint8).reshape(24, 20, 3)
    photos = data.Photos([marked], 16)
    found = {q.tobytes() for r in range(9) for c in range(5) for q in turns(marked[r : r + 16, c : c + 16])}
    assert {crop.tobytes() for crop in photos.crops(50, 16, np.random.default_rng(0)).numpy()} <= found
    doubled = np.repeat(np.repeat(marked, 2, 0), 2, 1)
    halved = data.Photos([doubled], 16)
    assert len(halved.sizes) == 2 and np.array_equal(halved.pixels[-24 * 20 :], marked.reshape(-1, 3))


def turns(p: NDArray) -> list[NDArray]:
    return [q for t in (p, p.transpose(1, 0, 2)) for s in (t, t[::-1]) for q in (s, s[:, ::-1])]
