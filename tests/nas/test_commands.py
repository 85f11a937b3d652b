"""The commands: a search, a training of what it found, and its score; going on; what is said of wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from nas import baselines, search, train  # noqa: E402
from nas import eval as judging  # noqa: E402
from nas.runs import CHECKPOINT, number  # noqa: E402
from nas.space import Architecture  # noqa: E402

TINY = ["--scale", "2", "--width", "6", "--cells", "1", "--steps", "2", "--batch", "2", "--crop", "16"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: NDArray) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(9):
        Image.fromarray(photo[i * 40 : i * 40 + 120, i * 30 : i * 30 + 140]).save(folder / f"{i}.png")
    return folder


def searching(photos: Path, out: Path, *more: str) -> list[str]:
    return [
        "--space",
        "sr-basic",
        *TINY,
        "--data",
        str(photos),
        "--out",
        str(out),
        "--epochs",
        "3",
        "--warmup",
        "1",
        *more,
    ]


def test_search_train_eval(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search.main(searching(photos, tmp_path / "run", "--penalty", "0", "0.1", "--seeds", "2")) == 0
    said = capsys.readouterr().out
    assert said.count("GBitOps") == 4 and "head0" in said
    folder = tmp_path / "run" / "penalty-0.1" / "seed-1"
    assert {"arch.json", "report.json", "log.jsonl", "probs.png", CHECKPOINT, "config.json"} <= {
        p.name for p in folder.iterdir()
    }
    arch = Architecture.load(folder / "arch.json")
    assert arch.space == "sr-basic" and len(arch.choices) == 8
    net = tmp_path / "net"
    options = [*TINY[6:], "--epochs", "2", "--data", str(photos), "--out", str(net), "--seeds", "2"]
    assert train.main([str(folder / "arch.json"), *options]) == 0
    sizes = json.loads((net / "seed-0" / "frozen.json").read_text())
    assert 0 < sizes["entropy_bytes"] <= sizes["packed_bytes"] and sizes["gbitops"] == pytest.approx(
        json.loads((folder / "report.json").read_text())["gbitops"]
    )
    capsys.readouterr()
    both = [str(net / "seed-0"), str(net / "seed-1"), "--pictures", str(photos), "--json", str(tmp_path / "s.json")]
    assert judging.main([*both, "--plot", str(tmp_path / "front.png")]) == 0
    assert Image.open(tmp_path / "front.png").size[0] > 100
    said = capsys.readouterr().out
    assert "over 9 pictures" in said and "+-" in said
    scores = json.loads((tmp_path / "s.json").read_text())
    assert all(15 < s["mean"] < 60 and len(s["pictures"]) == 9 for s in scores.values())


def test_baselines_are_architectures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--space", "sr-basic", *TINY[:6], "--out", str(tmp_path / "b")]
    assert baselines.main([*options, "--bitops", "60M", "--random", "2"]) == 0
    names = {p.stem: Architecture.load(p) for p in (tmp_path / "b").glob("*.json")}
    assert set(names) == {"uniform-4", "uniform-8", "hand", "hand-ends", "random-0", "random-1"}
    assert capsys.readouterr().out.count("GBitOps") == 6
    assert baselines.main([*options, "--bitops", "1"]) == 1
    assert "architectures of sr-basic cost" in capsys.readouterr().err


def test_greed_takes_bits_from_a_trained_network(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--space", "sr-basic", *TINY[:6], "--out", str(tmp_path)]
    assert baselines.main(options) == 0
    net = ["--data", str(photos), "--out", str(tmp_path / "net"), "--epochs", "1", *TINY[6:]]
    assert train.main([str(tmp_path / "uniform-8.json"), *net]) == 0
    capsys.readouterr()
    given = ["--bitops", "120M", "--random", "0", "--greedy", str(tmp_path / "net" / "seed-0"), "--data", str(photos)]
    assert baselines.main([*options, *given]) == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if "greedy" in line)
    assert 0.06 < float(said.split()[-2]) <= 0.12
    found = Architecture.load(tmp_path / "greedy.json")
    assert {c.bits for c in found.choices.values()} == {4, 8}
    for wrong, message in (
        ([*options, *given[:-2]], "by the photographs of --data"),
        ([*options, "--adq", *given], "which are not those given here"),
        ([*options, "--bitops", "120M", "--greedy", str(tmp_path), "--data", str(photos)], "has no trained network"),
    ):
        assert baselines.main(wrong) == 1
        assert message in capsys.readouterr().err


def test_trials_in_processes_are_those_in_one(photos: Path, tmp_path: Path) -> None:
    for jobs, name in (("1", "a"), ("2", "b")):
        options = searching(
            photos, tmp_path / name, "--penalty", "0.1", "--seeds", "2", "--jobs", jobs, "--threads", "1"
        )
        assert search.main(options) == 0
    for seed in (0, 1):
        a, b = ((tmp_path / n / "penalty-0.1" / f"seed-{seed}" / "log.jsonl").read_text() for n in "ab")
        assert a == b


def test_a_search_that_is_killed_goes_on_to_the_same_end(photos: Path, tmp_path: Path) -> None:
    options = searching(photos, tmp_path / "whole", "--target-bitops", "50M", "--threads", "1")
    assert search.main(options) == 0
    options[options.index("--out") + 1] = str(tmp_path / "killed")
    options[options.index("--epochs") + 1] = "3"
    run = subprocess.Popen([sys.executable, "-m", "nas.search", *options], stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "target-0.05G" / "seed-0" / CHECKPOINT
    end = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert checkpoint.exists()
    assert search.main(options) == 0
    whole, killed = (tmp_path / n / "target-0.05G" / "seed-0" for n in ("whole", "killed"))
    assert (whole / "arch.json").read_text() == (killed / "arch.json").read_text()
    assert (whole / "log.jsonl").read_text() == (killed / "log.jsonl").read_text()


def test_a_trial_whose_machine_is_lost_begins_again_elsewhere(photos: Path, tmp_path: Path) -> None:
    """Two nodes of one processor each take a trial each; one node is killed in the middle."""
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[cluster]'")
    from ray.cluster_utils import Cluster

    here = searching(photos, tmp_path / "here", "--penalty", "0.1", "--seeds", "2", "--threads", "1")
    assert search.main(here) == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = cluster.add_node(num_cpus=1)
    try:
        there = [str(tmp_path / "there") if o == str(tmp_path / "here") else o for o in here]
        command = [sys.executable, "-m", "nas.search", *there, "--ray", cluster.address]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        configs = [tmp_path / "there" / "penalty-0.1" / f"seed-{i}" / "config.json" for i in (0, 1)]
        end = time.monotonic() + 120
        while not all(c.exists() for c in configs) and time.monotonic() < end:
            time.sleep(0.01)
        cluster.remove_node(lost, allow_graceful=False)
        out, err = run.communicate(timeout=200)
    finally:
        cluster.shutdown()
    assert run.returncode == 0, err
    assert out.count("GBitOps") == 2
    for seed in (0, 1):
        a, b = ((tmp_path / n / "penalty-0.1" / f"seed-{seed}" / "log.jsonl").read_text() for n in ("here", "there"))
        assert a == b


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--penalty", "0", "--epochs", "0"], "--epochs is 1"),
        (["--penalty", "0", "--bits", "4,x"], "--bits are numbers"),
        (["--penalty", "0", "--bits", "1,4"], "bit-widths are 2 to 16"),
        (["--penalty", "0", "--bits", "4x8x8"], "--bits are numbers"),
        (["--penalty", "0", "--bits", "8,4x32"], "bit-widths are 2 to 16"),
        (["--penalty", "0", "--width", "7"], "multiple of 3"),
        (["--penalty", "0", "--cells", "0"], "cells are 1 to 256"),
        (["--penalty", "0", "--quantizer", "hwgq", "--bits", "5,8"], "HWGQ has steps"),
        (["--penalty", "0", "nan"], "--penalty is at least 0, not nan"),
        (["--penalty", "-1"], "--penalty is at least 0"),
        (["--penalty", "0", "--logit-rate", "inf"], "--logit-rate is at least"),
        (["--penalty", "0", "--warmup", "3"], "leaves none of 3 epochs"),
        (["--penalty", "0", "--width", "300000"], "up to 3072"),
        (["--penalty", "0", "--device", "cuda:9"], "--device cuda:9 is not there"),
        (["--penalty", "0", "--data", "nowhere"], "nowhere is not a folder"),
        (["--target-bitops", "1k"], "cheapest network of sr-basic costs"),
        (["--penalty", "0", "--ray", "127.0.0.1:1"], "Ray"),  # is not there, or no cluster answers
    ],
)
def test_wrong_options_are_said(
    more: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(searching(photos, tmp_path / "x", *more)) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_wrong_files_are_said(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    options = ["--data", str(photos), "--out", str(tmp_path / "net")]
    assert train.main([str(bad), *options]) == 1
    assert train.main([str(tmp_path / "none.json"), *options]) == 1
    assert judging.main([str(tmp_path / "nowhere"), "--pictures", str(photos)]) == 1
    err = capsys.readouterr().err
    assert "bad.json" in err and "none.json" in err and "run python -m nas.train" in err and "Traceback" not in err
    for text in ('{"version": 0, "space": "sr-basic", "options": {}, "choices": {"a": ["conv3", 4.7, 4]}}',
                 '{"version": 0, "space": "sr-basic", "options": null, "choices": {}}',
                 '{"version": 0, "space": "sr-basic", "options": {"scale": 0}, "choices": {}}'):  # fmt: skip
        bad.write_text(text)
        assert train.main([str(bad), *options]) == 1
        assert "bad.json" in capsys.readouterr().err and not (tmp_path / "net").exists()
    run = searching(photos, tmp_path / "run", "--penalty", "0")
    assert search.main(run) == 0
    assert search.main([*run, "--batch", "3"]) == 1
    assert "begun with other options: batch" in capsys.readouterr().err
    poisoned = searching(tmp_path / "photoz", tmp_path / "poison", "--penalty", "0")
    assert search.main(poisoned) == 1
    assert search.main(searching(photos, tmp_path / "poison", "--penalty", "0")) == 0
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "penalty-0" / "seed-0" / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert search.main(run) == 1
    assert "remove it to begin again" in capsys.readouterr().err


def test_numbers_have_units() -> None:
    assert [number(t) for t in ("4.6G", "300M", "12k", "7")] == [4.6e9, 3e8, 12e3, 7.0]


def test_trials_end_when_they_are_told_to(photos: Path, tmp_path: Path) -> None:
    options = searching(photos, tmp_path / "run", "--penalty", "0", "--seeds", "4", "--jobs", "2", "--threads", "1")
    options[options.index("--epochs") + 1] = "1000"
    run = subprocess.Popen([sys.executable, "-m", "nas.search", *options], stderr=subprocess.PIPE, text=True)
    checkpoints = [tmp_path / "run" / "penalty-0" / f"seed-{i}" / CHECKPOINT for i in (0, 1)]
    end = time.monotonic() + 120
    while not all(c.exists() for c in checkpoints) and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130 and "goes on from the last whole epoch" in err
    assert not (tmp_path / "run" / "penalty-0" / "seed-2").exists()


def test_a_network_of_another_architecture_is_not_taken(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert baselines.main(["--space", "sr-basic", *TINY[:6], "--out", str(tmp_path)]) == 0
    for bits in (4, 8):
        options = ["--data", str(photos), "--out", str(tmp_path / f"n{bits}"), "--epochs", "1", *TINY[6:]]
        assert train.main([str(tmp_path / f"uniform-{bits}.json"), *options]) == 0
    mixed = tmp_path / "n4" / "seed-0" / "network.pt"
    mixed.write_bytes((tmp_path / "n8" / "seed-0" / "network.pt").read_bytes())
    judged = [str(tmp_path / "n4" / "seed-0"), "--pictures", str(photos)]
    capsys.readouterr()
    assert judging.main(judged) == 1 and "train it again" in capsys.readouterr().err
    for damage in (b"", b"text", mixed.read_bytes()[:5000]):
        mixed.write_bytes(damage)
        assert judging.main(judged) == 1
        err = capsys.readouterr().err
        assert "network.pt is damaged" in err and err.count("\n") == 1
    assert judging.main([*judged, "--json", str(tmp_path / "no" / "x.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_worked_example_works() -> None:
    text = (Path(__file__).parents[2] / "docs" / "nas.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["enter", "deep", "leave"] and "bit operations" in lines[3]
