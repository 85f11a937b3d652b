"""Each way to run a graph runs it, tells what it needs in memory, and says how to get what is not here."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from rate.devices import Absent, OnnxRuntime, Torch, arrays, cuda, cuda_seconds, needed, peak_bytes

LINUX = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells what a process needs")
MIB = 1 << 20


def filled(path: Path, times: int) -> OnnxRuntime:
    """x, 1 MiB, filled up with ones to so many, and the sum of that."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Pad", ["x", "pads", "one"], ["t"]),
        helper.make_node("ReduceSum", ["t"], ["y"], keepdims=0),
    ]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, [1, MIB // 4])], [info("y", TensorProto.FLOAT, [])],
        [helper.make_tensor("pads", TensorProto.INT64, [4], [0, 0, times - 1, 0]),
         helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )  # fmt: skip
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return OnnxRuntime([path], [{"x": np.ones((1, MIB // 4), np.float32)}])


def test_onnx_runtime_runs_files_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    ways = [filled(tmp_path / f"{n}.onnx", n) for n in (2, 3)]
    both = OnnxRuntime([w.files[0] for w in ways], [w.feeds[0] for w in ways])
    for threads in (1, 2):
        found = arrays(pickle.loads(pickle.dumps(both)).open(threads)())
        assert [int(a) for a in found] == [2 * MIB // 4, 3 * MIB // 4]


def test_torch_runs_with_its_threads_and_without_gradients() -> None:
    torch = pytest.importorskip("torch")
    kept, seen = torch.get_num_threads(), []
    x = torch.ones(3, requires_grad=True)

    def double(x: object) -> object:
        seen.append(torch.get_num_threads())
        return x * 2

    for threads in (1, 2):
        y = Torch(double, (x,)).open(threads)()
        assert y.tolist() == [2, 2, 2] and not y.requires_grad
    assert seen == [1, 2] and torch.get_num_threads() == kept
    assert [a.tolist() for a in arrays([x, (y, np.zeros(1))])] == [[1, 1, 1], [2, 2, 2], [0]]


@LINUX
def test_memory_of_onnx_runtime_is_what_the_graph_takes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    small, large = (peak_bytes(filled(tmp_path / "net.onnx", times), 1) for times in (1, 100))
    # It keeps what the first call took, and the second takes it as one piece.
    assert 95 * MIB < large - small < 250 * MIB and small < 60 * MIB


@LINUX
def test_memory_of_torch_is_what_the_call_takes() -> None:
    torch = pytest.importorskip("torch")
    pads = (torch.nn.ConstantPad2d((0, 0, 0, n - 1), 1.0) for n in (1, 100))
    small, large = (peak_bytes(Torch(pad, (torch.ones(1, MIB // 4),)), 1) for pad in pads)
    assert 95 * MIB < large - small < 130 * MIB and small < 60 * MIB


@LINUX
def test_a_process_that_fails_is_said(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with pytest.raises(ValueError, match=r"measuring memory failed: .*gone\.onnx"):
        peak_bytes(OnnxRuntime([tmp_path / "gone.onnx"], [{}]), 1)
    with pytest.raises(ValueError, match="cannot run the graph"):
        OnnxRuntime([tmp_path / "gone.onnx"], [{}]).open(1)


def test_what_is_absent_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Absent, match="nowhere is not installed: buy one"):
        needed("nowhere", "buy one")
    for module, way in (("onnxruntime", OnnxRuntime([], [])), ("torch", Torch(len, ([],)))):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(Absent, match=f"{module} is not installed: pip install {module}"):
            way.open(1)


def test_a_provider_that_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(Absent, match="without CUDAExecutionProvider: pip install onnxruntime-gpu"):
        OnnxRuntime([tmp_path / "x.onnx"], [{}], "CUDAExecutionProvider").open(1)


def test_a_gpu_that_is_absent_says_how_to_get_one() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(Absent, match=r"without CUDA: install a build|finds no CUDA device: run this on"):
        cuda()


@pytest.mark.gpu
def test_a_gpu_is_timed_by_its_own_events() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = torch.ones(4096, 4096, device="cuda")
    once = Torch(torch.matmul, (x, x)).open(1)

    def often() -> None:
        for _ in range(20):
            once()

    one, twenty = (min(cuda_seconds(call, 5)) for call in (once, often))
    assert 10 < twenty / one < 30
    assert not torch.backends.cuda.matmul.allow_tf32
