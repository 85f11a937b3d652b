"""Exported networks have the same integers in torch, ONNX Runtime and QONNX, in files as small as their bits."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from torch import Tensor, nn  # noqa: E402

from quant import export, quantize_, training  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.freeze import Frozen, Quantize, best_power, freeze  # noqa: E402
from quant.product import quantize_outputs  # noqa: E402
from quant.train import main as train  # noqa: E402

CONFIGS = {
    3: ShiftQuantConfig(3, 3, 3),
    4: ShiftQuantConfig(),
    6: ShiftQuantConfig(6, 6, 6, 3),
    8: ShiftQuantConfig(8, 8, 8, 1),
}


def network(model: str, bits: int) -> tuple[nn.Module, Tensor]:
    """With weights of two steps of training, so that norms have seen something."""
    options = training.Options(model, "", CONFIGS[bits], "float32", 1, 8, 0, 0, bits)
    made = training.build(options, 128 if model == "char" else 10)
    x = torch.randint(128, (8, 20)) if model == "char" else torch.randn(8, 3, 32, 32)
    optimizer, _ = training.optimizer_of(options, made)
    for _ in range(2):
        made(x).square().mean().backward()
        optimizer.step()
    return made, x


def run(model: "onnx.ModelProto", x: Tensor, optimized: bool) -> np.ndarray:
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x.numpy()})[0]


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_onnx_runtime_has_the_same_integers(bits: int) -> None:
    made, x = network("resnet20", bits)
    frozen = freeze(made, [x])
    exported = export.qcdq(export.traced(frozen, x[:2]))
    names = [n.output[0] for n in exported.graph.node if n.op_type in ("DequantizeLinear", "Conv")]
    expected: list[np.ndarray] = []
    for m in frozen.modules():
        if isinstance(m, Frozen):
            m.register_forward_pre_hook(lambda m, a: expected.append(
                Quantize.apply(a[0], m.power, m.lowest, m.largest, m.bits_a).numpy()))  # fmt: skip
    with torch.no_grad():
        y = frozen(x).numpy()
    for name in names:
        exported.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(exported.SerializeToString())
    found = dict(zip(["y", *names], session.run(["y", *names], {"x": x.numpy()}), strict=True))
    codes = [found[n] for n in names if "Activation" in n]
    assert len(codes) == len(expected) == 20
    # All but the last, which follows a mean of floating point.
    assert all(np.array_equal(a, b) for a, b in zip(codes[:-1], expected[:-1], strict=True))
    assert np.allclose(found["y"], y, atol=1e-4)
    assert np.allclose(run(export.qcdq(export.traced(frozen, x[:2])), x, False), y, atol=1e-4)


@pytest.mark.parametrize("model", ["vit-tiny", "char"])
def test_transformers_run_too(model: str) -> None:
    made, x = network(model, 6)
    frozen = freeze(made, [x])
    with torch.no_grad():
        y = frozen(x).numpy()
    found = run(export.qcdq(export.traced(frozen, x[:2])), x, True)
    assert found.shape == y.shape
    # Norms are floating point there: a code may fall to the other side.
    assert np.abs(found - y).mean() < 0.02 * np.abs(y).mean()


def test_qonnx_executes_to_the_same_numbers() -> None:
    execution = pytest.importorskip("qonnx.core.onnx_exec")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    made, x = network("resnet20", 4)
    frozen = freeze(made, [x])
    wrapped = ModelWrapper(export.qonnx(export.traced(frozen, x[:2])))
    wrapped.set_tensor_shape("x", [2, 3, 32, 32])
    found = execution.execute_onnx(wrapped.transform(InferShapes()), {"x": x[:2].numpy()})["y"]
    with torch.no_grad():
        assert np.allclose(found, frozen(x[:2]).numpy(), atol=1e-4)


def test_codes_after_gelu_are_the_same_in_both_forms() -> None:
    execution = pytest.importorskip("qonnx.core.onnx_exec")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    made = nn.Sequential(nn.LeakyReLU(2.0**-5), nn.Linear(64, 8))  # as GELU, but that ties stay ties
    quantize_(made, ShiftQuantConfig(6, 6, 6, 3))
    x = torch.arange(-512, 512).view(16, 64) / 64
    frozen = freeze(made, [x])
    assert (frozen[1].lowest, frozen[1].largest) == (-2, 61)
    with torch.no_grad():
        y = frozen(x).numpy()
    assert np.array_equal(run(export.qcdq(export.traced(frozen, x)), x, False), y)
    wrapped = ModelWrapper(export.qonnx(export.traced(frozen, x)))
    wrapped.set_tensor_shape("x", [16, 64])
    found = execution.execute_onnx(wrapped.transform(InferShapes()), {"x": x.numpy()})["y"]
    assert np.allclose(found, y, atol=1e-6)


def test_outputs_keep_scales_of_their_own() -> None:
    made = nn.Sequential(nn.Linear(64, 8))
    quantize_(made, ShiftQuantConfig(6, 6, 6, 1, "two_sided"))
    with torch.no_grad():
        made[0].weight.mul_(torch.logspace(-2, 0, 8)[:, None])
    x = torch.randn(16, 64)
    frozen, (codes, scale) = freeze(made, [x]), quantize_outputs(made[0].weight, 6)
    assert torch.equal(frozen[0].codes, codes)
    assert torch.allclose(frozen[0].factor * 2.0 ** frozen[0].power_w, scale) and 1 <= float(frozen[0].factor.max()) < 2
    assert np.allclose(run(export.qcdq(export.traced(frozen, x)), x, False), frozen(x).detach(), rtol=1e-5, atol=1e-6)


def test_files_are_as_small_as_their_bits() -> None:
    sizes = {}
    for bits in (4, 6, 8):
        made, x = network("resnet20", bits)
        frozen = freeze(made, [x])
        sizes[bits] = len(export.qcdq(export.traced(frozen, x[:2])).SerializeToString())
        cost = export.cost(frozen)
        assert bits - 0.1 < cost["bits"] < bits + 0.1 and cost["entropy_bits"] < cost["bits"]
    graph = 110_000  # bytes of nodes and names
    for bits, size in sizes.items():
        assert cost["weights"] * bits / 8 < size < cost["weights"] * bits / 8 + graph
    assert sizes[4] < sizes[6] < sizes[8]


def test_scales_fit_what_they_saw() -> None:
    sample = torch.linspace(0, 15, 1000)
    assert best_power(sample, 0, 15) == 0 and best_power(sample / 64, 0, 15) == -6
    assert best_power(torch.zeros(3), 0, 15) == 0
    outlier = torch.cat((torch.rand(10_000), torch.tensor([4.0])))
    assert best_power(outlier, 0, 15) == -4


def test_a_layer_whose_output_is_used_twice_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + 5 * y

    model = quantize_(Twice(), ShiftQuantConfig())
    model(torch.randn(2, 3, 8, 8) * 3 + 1)
    with pytest.raises(ValueError, match="used elsewhere too"):
        freeze(model, [torch.randn(2, 3, 8, 8)])
    with pytest.raises(ValueError, match="quantize_ it first"):
        freeze(nn.Conv2d(3, 4, 3), [torch.randn(2, 3, 8, 8)])
    with pytest.raises(ValueError, match="no examples"):
        freeze(model, [])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(20):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n" * 400)
    options = ["--data", f"text:{tmp_path}", "--model", "char", "--batch", "4", "--epochs", "1", "--subset", "2000"]
    assert train([*options, "--bits", "6", "--out", str(tmp_path / "run")]) == 0
    out = tmp_path / "net.onnx"
    command = [str(tmp_path / "run" / "seed-0"), "--out", str(out), "--json", str(tmp_path / "net.json")]
    assert export.main(command) == 0
    assert "bits per character" in capsys.readouterr().out
    found = json.loads((tmp_path / "net.json").read_text())
    assert found["bytes"] == out.stat().st_size and abs(found["exported"] - found["trained"]) < 0.5
    assert train([*options, "--bits", "32", "--out", str(tmp_path / "float")]) == 0
    assert export.main([str(tmp_path / "float" / "seed-0"), "--out", str(out)]) == 1
    assert export.main([str(tmp_path / "m0.py"), "--out", str(out)]) == 1
    assert export.main([str(tmp_path), "--out", str(out)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "trained in floating point" in said[0] and "config.json" in said[1] and len(said) == 3
    assert "among the files of the run" in said[2]
