"""The codec's synthesis as a space: with the shipped blocks it is the codec's, and it can be searched and trained."""

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
from nas import CostModel, synthesis  # noqa: E402
from nas.spaces.synthesis import Synthesis, synthesis_space  # noqa: E402
from rate.cost import BITOPS, MACS  # noqa: E402


def test_with_its_own_blocks_it_is_the_codecs(tiny_bundle: Path, photo: NDArray) -> None:
    teacher, space = synthesis.Teacher(Bundle(tiny_bundle)), synthesis_space((8,), ("mixing5",))
    model = synthesis.made(teacher, space, None)
    for qp in (5, 60):
        y_hat, psi, own = teacher.latents(photo[:100, :120], qp)
        space.state.mode = "float"
        with torch.no_grad():
            found = model(y_hat, psi, torch.tensor([qp])).numpy()
            assert np.abs(found - own).max() < 1e-3
            space.state.mode = "fake"
            rounded = model.eval()(y_hat, psi, torch.tensor([qp])).numpy()
        assert 0 < np.abs(rounded - own).mean() < 0.1


def test_it_costs_what_the_shipped_synthesis_costs() -> None:
    """g_s is most of the 29.0 thousand multiplications a pixel that decoding with mlicv2-s takes."""
    cfg = CONFIGS["mlicv2-s"]
    model = Synthesis(synthesis_space((8,), ("mixing5",)), cfg)
    example = torch.zeros(1, cfg.latents, 4, 4), torch.zeros(1, cfg.features, 4, 4), torch.zeros(1, dtype=torch.int64)
    macs = CostModel(MACS, model, example).decided()
    assert 18e3 < macs / 64**2 < 25e3
    # Of 64x64 pixels: upsampling and head, of 10 and 12 bits; prediction of the latent residual, of 4 and 6.
    ends = cfg.latents * 4 * cfg.width * 4**2 + cfg.width * 192 * 8**2
    prediction = (cfg.features + 2 * cfg.latents) * cfg.latents * 4**2
    assert CostModel(BITOPS, model, example).decided() == 64 * (macs - ends - prediction) + 120 * ends + 24 * prediction


def test_search_train_eval(tiny_bundle: Path, photo: NDArray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(9):
        Image.fromarray(photo[i * 30 : i * 30 + 140, i * 30 : i * 30 + 150]).save(photos / f"{i}.png")
    run, net = tmp_path / "run", tmp_path / "net"
    work = ["--data", str(photos), "--steps", "2", "--batch", "2", "--model", str(tiny_bundle)]
    options = ["search", *work, "--out", str(run), "--epochs", "2", "--penalty", "1", "--bits", "4,4x8,8"]
    assert synthesis.main(options) == 0 and synthesis.main(options) == 0
    said = capsys.readouterr().out
    assert said.count("bit operations a pixel") == 2 and "sixteenth0" in said and "last" in said
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
    for wrong, message in (
        (["eval", str(run), *judged[2:]], "network.pt"),
        ([*judged[:5], "64"], "QPs are 0"),
        ([*judged[:-1], "unheard-of"], "no model unheard-of"),
        ([*options, "--batch", "0"], "at least 1"),
        ([*options, "--batch", "3"], "other options"),
    ):
        assert synthesis.main(wrong) == 1 and message in capsys.readouterr().err
