"""The integer convolution against float64 arithmetic on what its codes stand for."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

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


def exact(made: quant.Codes) -> Tensor:
    return made.codes.double() * made.scale.double() * torch.exp2(-made.exponents.double())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["channel", "two_sided", "bfloat16", "positive", "six bits"])
def test_all_three_products_are_those_of_the_codes(case: tuple, kind: str) -> None:
    inputs, outputs, kernel, stride, padding, groups, height, width = case
    random = torch.Generator().manual_seed(height)
    bits = 6 if kind == "six bits" else 4
    config = ShiftQuantConfig(
        bits, bits, bits, 3 if bits == 6 else 4, scheme="two_sided" if kind == "two_sided" else "channel"
    )
    layer = Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, config=config)
    real = torch.bfloat16 if kind == "bfloat16" else torch.float32
    x = torch.randn(2, inputs, height, width, generator=random).to(real)
    x = (x.abs() if kind == "positive" else x).requires_grad_()
    torch.manual_seed(5)
    seed = int(torch.randint(1 << 31, ()).item())
    torch.manual_seed(5)
    y = layer(x)
    dy = torch.randn(y.shape, generator=random) * torch.logspace(-2, 0, outputs)[:, None, None]
    dy = (dy * torch.tensor([1.0, 0.1])[:, None, None, None]).to(real)
    y.backward(dy)

    samples = dy.permute(0, 2, 3, 1).flatten(1, 2).float()

    def gradient(dim: int) -> Tensor:
        if kind == "two_sided":
            made = exact(quant.two_sided(samples, bits, config.groups, seed, dim))
        else:
            made = exact(quant.channel(samples.flatten(0, 1), bits, config.groups, seed))
        return made.view(2, *y.shape[2:], outputs).permute(0, 3, 1, 2)

    xs = exact(quant.activations(x.detach().float().permute(0, 2, 3, 1), bits)).permute(0, 3, 1, 2).requires_grad_()
    ws = exact(quant.weights(layer.weight.detach(), bits)).requires_grad_()
    expected = torch.nn.functional.conv2d(xs, ws, None, stride, padding, groups=groups)
    dx, dw = (torch.autograd.grad(expected, of, gradient(dim), retain_graph=True)[0] for of, dim in ((xs, 2), (ws, 0)))
    wanted = (expected + layer.bias[:, None, None], dx, dw, dy.sum((0, 2, 3)))
    for found, value in zip((y, x.grad, layer.weight.grad, layer.bias.grad), wanted, strict=True):
        near = {"rtol": 2**-7, "atol": 2e-2} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-6}
        assert found is not None and torch.allclose(found.double(), value.double(), **near)


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 1}, {"stride": (1, 2)}],
)
def test_what_no_kernel_does_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="no integer kernel for"):
        Conv2d(4, 4, 3, config=ShiftQuantConfig(), **options)
