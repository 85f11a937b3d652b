"""Exported networks compute in ONNX Runtime, and under QONNX, what they compute in torch, on pictures of any size."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from nas import export  # noqa: E402
from nas.baselines import edges8, uniform  # noqa: E402
from nas.spaces import build, network, space_of  # noqa: E402
from quant.export import qcdq, qonnx, traced  # noqa: E402
from rate.graph import count, fixed  # noqa: E402


def trained(name: str, bits: int, quantizer: str = "lsq", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    space = space_of(name, tuple(sorted({bits, 8})), quantizer, scale=2, **options)
    model = build(space)
    op = "conv3 g3" if name == "sr-basic" else "double3"
    net = network(edges8(model, space, op, bits) if bits < 8 else uniform(model, space, op, bits))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    for _ in range(3):
        net(torch.rand(2, 3, 24, 24)).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize(("name", "width"), [("sr-basic", 6), ("sr-rfdn", 12)])
@pytest.mark.parametrize("bits", [3, 4, 6, 8, 12, 16])
@pytest.mark.parametrize("bicubic", [False, True])
def test_onnx_runtime_computes_the_same(name: str, width: int, bits: int, bicubic: bool) -> None:
    net = trained(name, bits, width=width, cells=2, bicubic=bicubic)
    deployed = export.deployed(net)
    made = qcdq(traced(deployed, torch.rand(1, 3, 24, 32), export.FREE))
    onnx.checker.check_model(made)
    session = ort.InferenceSession(made.SerializeToString())
    for size in ((1, 3, 24, 32), (2, 3, 40, 28)):
        x = torch.rand(size)
        with torch.no_grad():
            expected = deployed(x).numpy()
            # In torch products are of real numbers: a sum that rounds otherwise flips a code of the next layer.
            assert np.abs(net(x).numpy() - expected).mean() < 0.02 * expected.std()
            found = session.run(None, {"x": x.numpy()})[0]
            # Norms between the layers are floating point, and may flip one as well.
            assert np.abs(found - expected).mean() < 1e-3 * expected.std()


def test_bits_of_weights_and_activations_are_exported() -> None:
    torch.manual_seed(0)
    space = space_of("sr-basic", ((4, 8), (8, 4)), scale=2, width=6, cells=1)
    net = network(edges8(build(space), space, "conv3", (4, 12))).eval()
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        net(x), (expected := net(x))
        deployed = export.deployed(net)
        made = qcdq(traced(deployed, x))
        found = ort.InferenceSession(made.SerializeToString()).run(None, {"x": x.numpy()})[0]
        assert np.abs(found - expected.numpy()).mean() < 0.02 * expected.std()
    products = count(fixed(made, {"x": x.shape})).products
    assert {(p.w_bits, p.a_bits) for p in products[1:]} == {(4, 12)} and (products[0].w_bits, products[0].a_bits) == (
        8,
        8,
    )


def test_qonnx_computes_the_same() -> None:
    executor = pytest.importorskip("qonnx.core.onnx_exec")
    wrapper = pytest.importorskip("qonnx.core.modelwrapper")
    shapes = pytest.importorskip("qonnx.transformation.infer_shapes")
    net = trained("sr-basic", 4, width=6, cells=1)
    x = torch.rand(1, 3, 16, 16)
    made = wrapper.ModelWrapper(qonnx(traced(export.deployed(net), x)))
    made.set_tensor_shape("x", list(x.shape))
    found = executor.execute_onnx(made.transform(shapes.InferShapes()), {"x": x.numpy()})["y"]
    expected = net(x).detach().numpy()
    assert np.abs(found - expected).max() < 1e-4 * expected.std()  # codes go down to -2^(bits - 1)


def test_files_are_as_small_as_their_bits(tmp_path: Path) -> None:
    sizes = {}
    for bits in (4, 8):
        net = trained("sr-basic", bits, width=36, cells=3)
        sizes[bits] = len(qcdq(traced(export.deployed(net), torch.rand(1, 3, 16, 16))).SerializeToString())
    count = sum(m.weight.numel() for m in net.modules() if isinstance(m, export.QConv2d))
    assert sizes[8] - sizes[4] > 0.35 * count  # the first position has 8 bits in both


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(tmp_path), "--out", str(tmp_path / "x.onnx")]) == 1
    assert "run python -m nas.train" in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()
