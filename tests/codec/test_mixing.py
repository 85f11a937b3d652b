"""The compiled loops that train on CPUs give the values and gradients of the operations that define the network."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from codec import network  # noqa: E402
from codec.models import mixing  # noqa: E402
from codec.models.ops import Arithmetic, TorchOps, products  # noqa: E402
from cpp_ext import _layers  # noqa: E402

TRAINED = (Arithmetic.FLOAT, Arithmetic.CLIP, Arithmetic.ROUND)
SHAPES = ((2, 5, 7, 24), (1, 1, 1, 16), (3, 8, 8, 64), (2, 1, 9, 6))


class Defined(TorchOps):
    """torch's own operators only."""

    def by_loops(self, x: Tensor) -> bool:
        return False


def arrays(c: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"in": (c, c), "mix": (c, 25), "out": (c, c), "gate": (3 * c, c), "back": (c, 3 * c // 2)}
    made = {}
    for layer, (rows, columns) in shapes.items():
        made[f"/{layer}/weight"] = torch.randn(rows, columns, generator=g) * columns**-0.5
        made[f"/{layer}/bias"] = torch.randn(rows, generator=g) * 0.3
    return {n: a.requires_grad_() for n, a in made.items()}


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool((a - b).norm() <= tolerance * a.norm() + 1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", TRAINED)
def test_a_block_is_what_the_network_says(kind: Arithmetic, shape: tuple[int, ...]) -> None:
    given = arrays(shape[-1], 0)
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3).requires_grad_()  # some of it is clipped
    expected = network._token_mixing(Defined(given.__getitem__, kind), x, "")
    found = TorchOps(given.__getitem__, kind).block(network._token_mixing, x, "")
    assert close(expected, found, 1e-6)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    wanted = (x, *given.values())
    # A value that rounds to the limit of its range counts as clipped here, as in the range to torch.
    tolerance = 0.1 if kind == Arithmetic.ROUND else 2e-6
    for a, b in zip(torch.autograd.grad(expected, wanted, g), torch.autograd.grad(found, wanted, g), strict=True):
        assert close(a, b, tolerance)


def test_weights_that_do_not_learn_cost_no_gradients() -> None:
    """As in refinement, where only the symbols change."""
    given = arrays(24, 0)
    x, g = torch.randn(2, 5, 6, 24, requires_grad=True), torch.randn(2, 5, 6, 24)
    learning = TorchOps(given.__getitem__, Arithmetic.CLIP).block(network._token_mixing, x, "")
    frozen = {n: a.detach() for n, a in given.items()}
    fixed = TorchOps(frozen.__getitem__, Arithmetic.CLIP).block(network._token_mixing, x, "")
    assert torch.equal(torch.autograd.grad(learning, x, g)[0], torch.autograd.grad(fixed, x, g)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", (Arithmetic.FLOAT, Arithmetic.CLIP))
def test_a_block_in_bfloat16_is_near(kind: Arithmetic, shape: tuple[int, ...]) -> None:
    given = arrays(shape[-1], 0)
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3).requires_grad_()
    g, wanted = torch.randn(shape, generator=torch.Generator().manual_seed(2)), (x, *given.values())
    with products("medium"):
        found = TorchOps(given.__getitem__, kind).block(network._token_mixing, x, "")
        found_slopes = torch.autograd.grad(found, wanted, g)
    expected = network._token_mixing(Defined(given.__getitem__, kind), x, "")
    assert close(expected, found, 0.01) and not close(expected, found, 1e-5)
    # At one position a value near a limit is a large part of everything.
    for a, b in zip(torch.autograd.grad(expected, wanted, g), found_slopes, strict=True):
        assert close(a, b, 0.05 if x.numel() > 100 else 0.3)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_depthwise_convolution_is_what_torch_says(kind: Arithmetic) -> None:
    given = {n: a for n, a in arrays(24, 3).items() if "mix" in n}
    x = torch.randn(2, 6, 5, 24, generator=torch.Generator().manual_seed(4), requires_grad=True)
    expected = Defined(given.__getitem__, kind).depthwise(x, "/mix")
    found = TorchOps(given.__getitem__, kind).depthwise(x, "/mix")
    assert close(expected, found, 1e-6)
    g, wanted = torch.randn_like(expected), (x, *given.values())
    for a, b in zip(torch.autograd.grad(expected, wanted, g), torch.autograd.grad(found, wanted, g), strict=True):
        assert close(a, b, 2e-6)


def test_wrong_sizes_are_refused() -> None:
    x = torch.zeros(4, 8)
    with pytest.raises(ValueError, match="size"):
        _layers.narrow(1, 0, x, torch.zeros(4, 7))
    with pytest.raises(ValueError, match="batch"):
        _layers.depthwise(1, 0, x, torch.zeros(25, 8), torch.zeros(8), x)
    with pytest.raises(ValueError, match="arithmetic"):
        _layers.narrow(3, 0, x, x.clone())


def test_every_instruction_set_of_this_machine_agrees() -> None:
    program = (
        "import torch; from codec.models.mixing import Depthwise; from cpp_ext import _layers; torch.manual_seed(0);"
        "x = torch.randn(2, 9, 7, 40); w = torch.randn(40, 25, requires_grad=True);"
        "y = Depthwise.apply(1, x, w, torch.zeros(40)); y.sum().backward();"
        "print(_layers.isa(), y.double().square().sum().item(), w.grad.double().square().sum().item())"
    )
    found = {}
    for isa in ("scalar", "avx2", "avx512", "nonsense"):
        run = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "MLIC_CPU": isa}, capture_output=True, text=True
        )
        if run.returncode == 0:
            name, *values = run.stdout.split()
            assert name == isa
            found[isa] = [float(v) for v in values]
        else:
            assert "lacks" in run.stderr or (isa == "nonsense" and "not scalar, avx2, avx512 or neon" in run.stderr)
    assert "scalar" in found and "nonsense" not in found
    for values in found.values():
        assert values == pytest.approx(found["scalar"], rel=1e-5)


def test_gradients_are_of_the_function() -> None:
    """In double precision nothing is compiled, so by differences: along a random direction."""
    given = arrays(8, 5)
    x = torch.randn(1, 4, 4, 8, generator=torch.Generator().manual_seed(6), requires_grad=True)

    def value(x: Tensor) -> Tensor:
        return mixing.TokenMixing.apply(0, x, *given.values()).double().square().sum()

    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    slope = (torch.autograd.grad(value(x), x)[0] * direction).sum().item()
    step = 1e-2
    measured = (value(x + step * direction) - value(x - step * direction)).item() / (2 * step)
    assert measured == pytest.approx(slope, rel=1e-2)
