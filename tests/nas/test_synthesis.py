"""The codec's synthesis as a space: with the shipped convolutions it is the codec's; it can be searched and trained."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

import codec  # noqa: E402
from codec.bundle import Bundle  # noqa: E402
from codec.config import CONFIGS  # noqa: E402
from codec.container import unpack  # noqa: E402
from codec.runtime.native import NativeRuntime  # noqa: E402
from codec.runtime.onnx import OnnxRuntime  # noqa: E402
from nas import Architecture, CostModel, synthesis  # noqa: E402
from nas.baselines import uniform  # noqa: E402
from nas.spaces.synthesis import Synthesis, synthesis_space  # noqa: E402
from rate.cost import MACS  # noqa: E402


def test_with_its_own_blocks_it_is_the_codecs(tiny_bundle: Path, photo: NDArray) -> None:
    teacher, space = synthesis.Teacher(Bundle(tiny_bundle)), synthesis_space((8,))
    own_blocks = uniform(synthesis.made(teacher, space, None), space, "depthwise5", 8)
    model = synthesis.made(teacher, space, own_blocks)
    for qp in (5, 60):
        y_hat, psi, own = teacher.latents(photo[:100, :120], qp)
        space.state.mode = "float"
        with torch.no_grad():
            found = model(y_hat, psi, torch.tensor([qp])).numpy()
            assert np.abs(found - own).max() < 1e-3
            space.state.mode = "fake"
            rounded = model.eval()(y_hat, psi, torch.tensor([qp])).numpy()
        assert 0 < np.abs(rounded - own).mean() < 0.1


def test_it_costs_what_the_shipped_synthesis_costs(tiny_bundle: Path) -> None:
    """g_s is most of the 29.0 thousand multiplications a pixel that decoding with mlicv2-s takes."""
    cfg, space = CONFIGS["mlicv2-s"], synthesis_space((8,))
    model = Synthesis(space, cfg)
    example = torch.zeros(1, cfg.latents, 4, 4), torch.zeros(1, cfg.features, 4, 4), torch.zeros(1, dtype=torch.int64)
    cost = CostModel(MACS, model, example)
    macs = cost.of(uniform(model, space, "depthwise5", 8))
    assert 18e3 < macs / 64**2 < 25e3
    smaller = cost.of(uniform(model, space, "depthwise3", 8))
    blocks = cfg.synthesis[0] * cfg.latents * 4**2 + cfg.synthesis[1] * cfg.width * 8**2
    assert macs - smaller == (25 - 9) * blocks


def test_search_train_eval(tiny_bundle: Path, photo: NDArray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(9):
        Image.fromarray(photo[i * 30 : i * 30 + 140, i * 30 : i * 30 + 150]).save(photos / f"{i}.png")
    run, net = tmp_path / "run", tmp_path / "net"
    work = ["--data", str(photos), "--steps", "2", "--batch", "2", "--model", str(tiny_bundle)]
    options = ["search", *work, "--out", str(run), "--epochs", "2", "--budget", "0.4", "--bits", "4,4x8,8"]
    assert synthesis.main(options) == 0 and synthesis.main(options) == 0
    said = capsys.readouterr().out
    assert (
        said.count("bit operations a pixel") == 2
        and "last/mix" in said
        and "last/back" in said
        and "sixteenth" not in said
    )
    assert float(said.split(" a pixel, ")[1].split(" %")[0]) <= 40
    assert synthesis.main(["train", str(run / "arch.json"), *work, "--out", str(net), "--epochs", "1"]) == 0
    judged = ["eval", str(net), "--pictures", str(photos), "--qps", "10", "--model", str(tiny_bundle)]
    capsys.readouterr()
    assert synthesis.main(judged) == 0
    assert "QP 10" in capsys.readouterr().out
    made = tmp_path / "searched.safetensors"
    assert synthesis.main(["export", str(net), "--out", str(made), "--model", str(tiny_bundle)]) == 0
    old, new = Bundle(tiny_bundle), Bundle(made)
    assert old.entropy_id == new.entropy_id and old.synthesis_id != new.synthesis_id and new.synthesis_is_a_graph
    rgb = photo[:70, :90]
    by_old, by_new = (codec.encode(rgb, 50, model=m) for m in (tiny_bundle, made))
    assert unpack(by_old).pieces == unpack(by_new).pieces
    for data in (by_old, by_new):  # each draws either's files, in its own way
        a, b = (np.asarray(codec.decode(data, model=m)).astype(int) for m in (tiny_bundle, made))
        assert 0 < np.abs(a - b).mean() < 40  # a net of a few seconds
    y_hat, psi, _ = synthesis.Teacher(new).latents(rgb, 40)
    with torch.no_grad():
        _, model = synthesis._trained(synthesis.parser().parse_args([*judged[:4], "--model", str(tiny_bundle)]))
        expected = model(y_hat, psi, torch.tensor([40])).numpy()
    units = y_hat.numpy() * synthesis.UNIT, psi.numpy() * synthesis.PSI
    for runtime in (NativeRuntime(new), OnnxRuntime(new)):
        assert np.abs(runtime.synthesise(*units, 40) - expected).mean() < 1e-2
    whole = [*options, "--whole", "--out", str(tmp_path / "whole")]
    assert synthesis.main(whole) == 0 and "sixteenth/0/mix" in capsys.readouterr().out
    hand = tmp_path / "hand.json"
    assert synthesis.main(["uniform", "--bits", "4x8", "--ends", "8", "--out", str(hand), *judged[-2:]]) == 0
    made_by_hand = Architecture.load(hand).choices
    assert {n for n, c in made_by_hand.items() if c.bits == 8} == {"up", "head"}
    assert {c.bits for c in made_by_hand.values()} == {8, (4, 8)}
    odd = tmp_path / "odd.json"
    odd.write_text(hand.read_text().replace("depthwise5", "point"))
    for wrong, message in (
        (["train", str(odd), *work, "--out", str(tmp_path / "odd")], "does not offer"),
        (["eval", str(run), *judged[2:]], "network.pt"),
        ([*judged[:5], "64"], "QPs are 0"),
        ([*judged[:-1], "unheard-of"], "no model unheard-of"),
        ([*options, "--batch", "0"], "at least 1"),
        ([*options, "--budget", "0.01"], "cheapest network"),
        (["uniform", "--bits", "4,8", "--out", str(hand), *judged[-2:]], "one width each"),
        ([*options, "--batch", "3"], "other options"),
    ):
        assert synthesis.main(wrong) == 1 and message in capsys.readouterr().err
