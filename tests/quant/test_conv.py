"""The integer convolution against float64 arithmetic on what its codes stand for."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

import quant  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.conv import Conv2d  # noqa: E402

CASES = [  # inputs, outputs, kernel, stride, padding, height, width
    (3, 5, 3, 1, 1, 6, 7),
    (16, 16, 3, 1, 1, 8, 8),
    (17, 70, 3, 2, 1, 9, 12),
    (16, 32, 1, 2, 0, 8, 8),
    (8, 8, 1, 1, 0, 5, 4),
    (4, 6, (3, 1), 1, 0, 6, 5),
    (2, 3, 5, 3, 2, 11, 10),
]


def exact(made: quant.Codes) -> Tensor:
    return made.codes.double() * made.scale.double() * torch.exp2(-made.exponents.double())


@pytest.mark.parametrize("case", CASES)
def test_all_three_products_are_those_of_the_codes(case: tuple) -> None:
    inputs, outputs, kernel, stride, padding, height, width = case
    random = torch.Generator().manual_seed(height)
    layer = Conv2d(inputs, outputs, kernel, stride, padding, config=ShiftQuantConfig())
    x = torch.randn(2, inputs, height, width, generator=random).requires_grad_()
    torch.manual_seed(5)
    seed = int(torch.randint(1 << 31, ()).item())
    torch.manual_seed(5)
    y = layer(x)
    dy = torch.randn(y.shape, generator=random) * torch.logspace(-2, 0, outputs)[:, None, None]
    y.backward(dy)

    rows = dy.permute(0, 2, 3, 1).reshape(-1, outputs)
    gs = exact(quant.channel(rows, 4, 4, seed)).view(2, *y.shape[2:], outputs).permute(0, 3, 1, 2)
    xs = exact(quant.per_tensor(x.detach(), 4)).requires_grad_()
    ws = exact(quant.per_tensor(layer.weight.detach(), 4)).requires_grad_()
    expected = torch.nn.functional.conv2d(xs, ws, None, stride, padding)
    wanted = (expected + layer.bias[:, None, None], *torch.autograd.grad(expected, (xs, ws), gs), dy.sum((0, 2, 3)))
    for found, value in zip((y, x.grad, layer.weight.grad, layer.bias.grad), wanted, strict=True):
        assert found is not None and torch.allclose(found.double(), value.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"dilation": 2}, {"padding": "same"}, {"padding_mode": "reflect", "padding": 1}, {"stride": (1, 2)}],
)
def test_what_no_kernel_does_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="no integer kernel for"):
        Conv2d(4, 4, 3, config=ShiftQuantConfig(), **options)
