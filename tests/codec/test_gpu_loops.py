"""The Triton loops that train on GPUs give the values and gradients of cpp_ext's: on a GPU, and on any machine that has
Triton in its interpreter, which runs the same kernels one program after the other."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")

PROGRAM = """
import sys, torch
from codec import network
from codec.models import gpu_loops, mixing
from codec.models.ops import Arithmetic, TorchOps, products

device = sys.argv[1]
products("highest").__enter__()
given = mixing._storage
class Defined(TorchOps):
    def by_loops(self, x): return False
def found(ops, storage, x, arrays, g, kind):
    mixing._storage = storage
    y = ops(arrays.__getitem__, Arithmetic(kind)).block(network._token_mixing, x, "")
    d = ops(arrays.__getitem__, Arithmetic(kind)).depthwise(x, "/mix")
    wanted = (x, *arrays.values())
    return [y, d, *torch.autograd.grad(y, wanted, g), *torch.autograd.grad(d, (x, arrays["/mix/weight"]), g)]
for shape in ((2, 5, 7, 24), (1, 1, 1, 16), (2, 8, 8, 72), (2, 1, 9, 6)):
    c = shape[-1]
    for kind in (0, 1, 2):
        torch.manual_seed(0)
        arrays = {}
        for layer, size in {"in": (c, c), "mix": (c, 25), "out": (c, c), "gate": (3*c, c), "back": (c, 3*c//2)}.items():
            arrays[f"/{layer}/weight"] = (torch.randn(size) * size[1] ** -0.5).to(device).requires_grad_()
            arrays[f"/{layer}/bias"] = (torch.randn(size[0]) * 0.3).to(device).requires_grad_()
        x, g = (torch.randn(shape) * 3).to(device).requires_grad_(), torch.randn(shape).to(device)
        of_gpu = lambda kind, x: (gpu_loops, torch.float32, torch.float32)
        loops = found(TorchOps, of_gpu, x, arrays, g, kind)
        other = found(*((TorchOps, given) if device == "cpu" else (Defined, given)), x, arrays, g, kind)
        for a, b in zip(other, loops, strict=True):
            # torch's operators pass gradients at the limit of a range where the loops do not
            tolerance = 0.2 if kind == 2 and device != "cpu" else 2e-5
            assert (a - b).norm() <= tolerance * a.norm() + 1e-6, (shape, kind)
        twice = found(TorchOps, of_gpu, x, arrays, g, kind)
        assert all(torch.equal(a, b) for a, b in zip(loops, twice, strict=True)), (shape, kind)
print("equal")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch for CUDA brings along")
@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
        ),
    ],
)
def test_they_are_those_of_the_cpu(device: str) -> None:
    environment = {**os.environ, **({"TRITON_INTERPRET": "1"} if device == "cpu" else {})}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, device], env=environment, capture_output=True, text=True, timeout=250
    )
    assert run.returncode == 0 and run.stdout == "equal\n", run.stderr
