"""The integer linear layer against float64 arithmetic on what its codes stand for, and what it refuses."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import quant  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.linear import Linear, columns  # noqa: E402


def given(rows: int, inputs: int, outputs: int) -> tuple[Linear, Tensor, Tensor]:
    g = torch.Generator().manual_seed(rows)
    layer = Linear(inputs, outputs, config=ShiftQuantConfig())
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(generator=g)
    x = torch.randn(rows, inputs, generator=g).requires_grad_()
    return layer, x, torch.randn(rows, outputs, generator=g) * torch.logspace(-2, 0, outputs)


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 1, 1), (5, 7, 3), (64, 40, 70), (300, 128, 10), (1031, 16, 8), (1200, 24, 20)]
)
def test_all_three_products_are_those_of_the_codes(rows: int, inputs: int, outputs: int) -> None:
    layer, x, dy = given(rows, inputs, outputs)
    torch.manual_seed(9)
    seed = int(torch.randint(1 << 31, ()).item())
    torch.manual_seed(9)
    y = layer(x)
    y.backward(dy)

    def exact(made: quant.Codes) -> Tensor:
        return made.codes.double() * made.scale.double() * torch.exp2(-made.exponents.double())

    xs, ws = exact(quant.activations(x.detach(), 4)), exact(quant.weights(layer.weight.detach(), 4))
    gs = exact(quant.channel(dy, 4, 4, seed))
    for found, expected in (
        (y.detach(), xs @ ws.T + layer.bias.double()), (x.grad, gs @ ws), (layer.weight.grad, gs.T @ xs),
        (layer.bias.grad, dy.sum(0).double()),
    ):  # fmt: skip
        assert found is not None and torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 9, 20), (2, 3, 9, 20), (11, 20)])
def test_two_sided_scales_are_those_of_sequences(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    layer = Linear(20, 12, bias=False, config=ShiftQuantConfig(scheme="two_sided", rounding="nearest"))
    x = torch.randn(shape, generator=g).requires_grad_()
    dy = torch.randn((*shape[:-1], 12), generator=g) * torch.logspace(-3, 0, shape[0]).view(-1, *[1] * (len(shape) - 1))
    layer(x).backward(dy)
    samples = dy.view(-1, shape[-2] if len(shape) > 2 else 1, 12)
    for_x, for_w = (quant.two_sided(samples, 4, 4, dim=dim).values().view(-1, 12) for dim in (2, 0))
    w, xs = quant.weights(layer.weight.detach(), 4).values(), quant.activations(x.detach(), 4).values()
    assert x.grad is not None and torch.allclose(x.grad.view(-1, 20), for_x @ w, rtol=1e-4, atol=1e-6)
    assert layer.weight.grad is not None
    assert torch.allclose(layer.weight.grad, for_w.T @ xs.view(-1, 20), rtol=1e-4, atol=1e-5)


def test_no_rows_and_any_number_of_them() -> None:
    layer = Linear(8, 4, config=ShiftQuantConfig())
    assert layer(torch.empty(0, 8)).shape == (0, 4) and layer(torch.empty(3, 0, 8)).shape == (3, 0, 4)
    for rows, expected in ((1, 1), (150, 150), (4096, 128), (1031, 1031), (514, 514), (200_003, 1), (3 * 601, 1803)):
        assert columns((rows, 8), "channel") == expected
    assert columns((7, 640, 8), "two_sided") == 640 and columns((7, 8), "two_sided") == 1


def test_no_float_product_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, dy = given(8, 16, 16)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a float product")

    for name in ("mm", "matmul", "addmm", "conv2d"):
        monkeypatch.setattr(torch, name, never)
    monkeypatch.setattr(nn.functional, "linear", never)
    monkeypatch.setattr(Tensor, "__matmul__", never)
    layer(x).backward(dy)
    assert layer.weight.grad is not None


def test_higher_dimensions_and_unwanted_gradients() -> None:
    layer, x, _ = given(12, 6, 5)
    y = layer(x.view(3, 4, 6))
    assert y.shape == (3, 4, 5)
    layer.weight.requires_grad_(False)
    layer(x.view(3, 4, 6)).sum().backward()
    assert layer.weight.grad is None and x.grad is not None


def test_gradients_that_are_not_finite_are_named() -> None:
    layer, x, dy = given(4, 8, 8)
    dy[1, 2] = torch.nan
    with pytest.raises(quant.NonFinite):
        layer(x).backward(dy)


def test_training_finds_a_linear_map() -> None:
    torch.manual_seed(0)
    target, layer = torch.randn(16, 24) * 0.3, Linear(24, 16, config=ShiftQuantConfig())
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(150):
        x = torch.randn(64, 24)
        loss = (layer(x) - x @ target.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


def test_configs_carry_a_version_and_refuse_what_cannot_be() -> None:
    config = ShiftQuantConfig(bits_g=3, groups=6, skip=("conv1", "fc"))
    assert ShiftQuantConfig.from_dict(config.to_dict()) == config and config.to_dict()["version"] == 0
    for made, message in (
        ({"version": 7}, "version 0, this one 7"), ({"version": 0, "colour": 1}, "not a config"),
        ({"version": 0, "bits_g": 6}, "do not fit a byte"), ({"version": 0, "bits_w": 1}, "2 to 8 bits"),
        ({"version": 0, "norm": "l3"}, "norm is one of l1, keep"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            ShiftQuantConfig.from_dict(made)


def test_autocast_gives_its_type() -> None:
    layer, x, _ = given(12, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype is torch.bfloat16 and x.grad is not None and x.grad.dtype is torch.float32
    assert torch.equal(y, layer(x.detach().bfloat16()))
