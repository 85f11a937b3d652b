"""The integer convolution against float64 arithmetic on what its codes stand for."""

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import quant  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.conv import Conv2d  # noqa: E402

CASES = [  # inputs, outputs, kernel, stride, padding, groups, height, width
    (3, 5, 3, 1, 1, 1, 6, 7),
    (16, 16, 3, 1, 1, 1, 8, 8),
    (17, 70, 3, 2, 1, 1, 9, 12),
    (16, 32, 1, 2, 0, 1, 8, 8),
    (8, 8, 1, 1, 0, 1, 5, 4),
    (4, 6, (3, 1), 1, 0, 1, 6, 5),
    (2, 3, 5, 3, 2, 1, 11, 10),
    (6, 9, 3, 2, 1, 3, 7, 8),
    (5, 10, 3, 1, 1, 5, 40, 6),
    (1, 1, 2, 3, 3, 1, 3, 3),
]
KINDS = (
    "channel",
    "position",
    "two_sided",
    "bfloat16",
    "position, bfloat16",
    "positive",
    "six bits",
    "six bits after GELU",
)


def exact(made: quant.Codes) -> Tensor:
    return made.codes.double() * made.scale.double() * torch.exp2(-made.exponents.double())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_three_products_are_those_of_the_codes(case: tuple, kind: str) -> None:
    inputs, outputs, kernel, stride, padding, groups, height, width = case
    random = torch.Generator().manual_seed(height)
    bits = 6 if "six bits" in kind else 4
    scheme = next((s for s in ("position", "two_sided") if s in kind), "channel")
    config = ShiftQuantConfig(bits, bits, bits, 3 if bits == 6 else 4, scheme)
    layer = Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, config=config)
    real = torch.bfloat16 if "bfloat16" in kind else torch.float32
    x = torch.randn(2, inputs, height, width, generator=random).to(real)
    x = nn.functional.gelu(2 * x) if "GELU" in kind else x.abs() if kind == "positive" else x
    x.requires_grad_()
    torch.manual_seed(5)
    seed = int(torch.randint(1 << 31, ()).item())
    torch.manual_seed(5)
    y = layer(x)
    dy = torch.randn(y.shape, generator=random) * torch.logspace(-2, 0, outputs)[:, None, None]
    dy = (dy * torch.tensor([1.0, 0.1])[:, None, None, None]).to(real)
    y.backward(dy)

    samples = dy.permute(0, 2, 3, 1).flatten(1, 2).float()

    def gradient(dim: int) -> Tensor:
        if scheme == "two_sided":
            made = exact(quant.two_sided(samples, bits, config.groups, seed, dim))
        else:
            dim = 0 if scheme == "position" else 1
            made = exact(quant.channel(samples.flatten(0, 1), bits, config.groups, seed, dim))
        return made.view(2, *y.shape[2:], outputs).permute(0, 3, 1, 2)

    xs = exact(quant.activations(x.detach().float().permute(0, 2, 3, 1), bits)).permute(0, 3, 1, 2).requires_grad_()
    ws = exact(quant.weights(layer.weight.detach(), bits)).requires_grad_()
    expected = torch.nn.functional.conv2d(xs, ws, None, stride, padding, groups=groups)
    dx, dw = (torch.autograd.grad(expected, of, gradient(dim), retain_graph=True)[0] for of, dim in ((xs, 2), (ws, 0)))
    wanted = (expected + layer.bias[:, None, None], dx, dw, dy.sum((0, 2, 3)))
    for found, value in zip((y, x.grad, layer.weight.grad, layer.bias.grad), wanted, strict=True):
        near = {"rtol": 2**-7, "atol": 2e-2} if "bfloat16" in kind else {"rtol": 1e-5, "atol": 1e-6}
        assert found is not None and torch.allclose(found.double(), value.double(), **near)


def test_every_instruction_set_and_any_threads_give_the_same_numbers(everywhere: Callable[[str], list[str]]) -> None:
    program = (
        "import hashlib, sys, torch; from quant import ShiftQuantConfig; from quant.conv import Conv2d;"
        "torch.set_num_threads(THREADS); g = torch.Generator().manual_seed(1); made = [];\n"
        "for c, scheme in ((16, 'position'), (70, 'position'), (16, 'channel'), (70, 'two_sided')):\n"
        "    torch.manual_seed(2); layer = Conv2d(c, c, 3, padding=1, config=ShiftQuantConfig(scheme=scheme))\n"
        "    x = torch.randn(4, c, 12, 12, generator=g).requires_grad_(); y = layer(x)\n"
        "    y.backward(torch.randn(y.shape, generator=g) * torch.logspace(-3, 0, 12))\n"
        "    made += [y, x.grad, layer.weight.grad]\n"
        "print(hashlib.sha256(b''.join(a.detach().contiguous().numpy().tobytes() for a in made)).hexdigest())"
    )
    assert len(set(everywhere(program))) == 1


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 1}, {"stride": (1, 2)}],
)
def test_what_no_kernel_does_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="no integer kernel for"):
        Conv2d(4, 4, 3, config=ShiftQuantConfig(), **options)
