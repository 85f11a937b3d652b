"""CompressAI's own tools drive our full-size networks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch")

from codec.compressai import register  # noqa: E402
from codec.models.large.model import MLIC, OPTIONS  # noqa: E402

NAME = "mlicv2-l-tiny"

try:
    register()
except ImportError as error:
    pytest.skip(f"compressai: {error}", allow_module_level=True)


def test_they_are_models_of_compressai() -> None:
    from compressai.models import CompressionModel
    from compressai.optimizers import net_aux_optimizer
    from compressai.registry import MODELS
    from compressai.zoo import image_models

    net = image_models[NAME](quality=3, metric="mse")
    assert isinstance(net, CompressionModel) and isinstance(net, MLIC) and MODELS[NAME] is type(net)
    with pytest.raises(ValueError, match="no weights of mlicv2-l-tiny"):
        image_models[NAME](quality=3, pretrained=True)
    # A step as its training examples take it: two optimizers, told apart by the name of the quantiles.
    optimizers = net_aux_optimizer(net, {"net": {"type": "Adam", "lr": 1e-3}, "aux": {"type": "Adam", "lr": 1e-3}})
    out = net(torch.rand(2, 3, 64, 64))
    loss = out["x_hat"].square().mean() - sum(p.log2().mean() for p in out["likelihoods"].values())
    before = net.entropy_bottleneck.quantiles.detach().clone()
    loss.backward()
    optimizers["net"].step()
    assert torch.equal(before, net.entropy_bottleneck.quantiles)
    net.aux_loss().backward()
    optimizers["aux"].step()
    assert not torch.equal(before, net.entropy_bottleneck.quantiles)


def test_its_eval_model_measures_our_files(tmp_path: Path, photo: NDArray) -> None:
    torch.manual_seed(0)
    net = MLIC(OPTIONS[NAME]).eval()
    torch.save({"state_dict": net.state_dict()}, tmp_path / "tiny.pth")
    (tmp_path / "pictures").mkdir()
    picture = photo[:192, :256]
    Image.fromarray(picture).save(tmp_path / "pictures" / "one.png")
    line = [sys.executable, "-m", "codec.compressai", "checkpoint", str(tmp_path / "pictures"), "-a", NAME, "-p"]
    run = subprocess.run([*line, str(tmp_path / "tiny.pth")], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout[run.stdout.index("{") :])["results"]
    net.update()
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255
    made = net.compress(x)
    assert results["bpp"][0] == pytest.approx(sum(len(s[0]) for s in made["strings"]) * 8 / picture[..., 0].size)
    shown = (net.decompress(made["strings"], made["shape"])["x_hat"] * 255).round()
    error = np.square(shown[0].permute(1, 2, 0).numpy() - picture).mean()
    assert results["psnr-rgb"][0] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
