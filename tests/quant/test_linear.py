"""The integer linear layer against float64 arithmetic on what its codes stand for, and what it refuses."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import quant  # noqa: E402
from quant import product  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402
from quant.linear import Linear  # noqa: E402
from quant.product import columns  # noqa: E402
from quant.quantizers import clipping_ratio, code_range, nearest, stochastic  # noqa: E402


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


@pytest.mark.parametrize(
    ("shape", "bits", "kind"),
    [
        ((6, 9, 20), 4, "normal"),
        ((2, 3, 9, 16), 6, "normal"),
        ((11, 70), 8, "normal"),
        ((1031, 64), 6, "after GELU"),
        ((300, 128), 6, "bfloat16 after GELU"),
        ((40, 12), 4, "positive"),
        ((1, 1), 2, "normal"),
    ],
)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_two_sided_products_have_exact_scales_of_rows_and_outputs(
    shape: tuple[int, ...], bits: int, kind: str, rounding: str
) -> None:
    g = torch.Generator().manual_seed(len(shape) + bits)
    layer = Linear(shape[-1], 12, bias=False, config=ShiftQuantConfig(bits, bits, bits, 1, "two_sided", rounding))
    x = torch.randn(shape, generator=g) * torch.logspace(-1, 1, shape[-2]).view(-1, 1)
    x = nn.functional.gelu(x) if "GELU" in kind else x.abs() if kind == "positive" else x
    dy = torch.randn((*shape[:-1], 12), generator=g) * torch.logspace(-3, 0, shape[0]).view(-1, *[1] * (len(shape) - 1))
    real = torch.bfloat16 if "bfloat16" in kind else torch.float32
    x, dy = x.to(real).requires_grad_(), dy.to(real)
    torch.manual_seed(4)
    seed = int(torch.randint(1 << 31, ()).item())
    torch.manual_seed(4)
    y = layer(x)
    y.backward(dy)

    q, rows, given = (
        quant.quantizers.largest_code(bits),
        x.detach().float().view(-1, shape[-1]),
        dy.float().view(-1, 12),
    )
    peak, negative = rows.abs().amax(1), (-rows).amax(1).clamp(min=0)
    lowest, largest = code_range(bits, float(negative.max()), float(peak.max()))
    ratio = clipping_ratio(bits)
    of_x = torch.maximum(peak / largest, negative / max(-lowest, 1)) * ratio
    of_w = layer.weight.detach().abs().amax(1) / q * ratio
    xs = nearest(rows, (1 / of_x)[:, None], lowest, largest).double() * of_x.double()[:, None]
    codes_w = nearest(layer.weight.detach(), (1 / of_w)[:, None], -q, q).double()

    def rounded(inverse: Tensor) -> Tensor:
        made = nearest(given, inverse, -q, q) if rounding == "nearest" else stochastic(given, inverse, bits, seed)
        return made.double()

    of_rows, of_outputs = (given * of_w).abs().amax(1) / q, (given * of_x[:, None]).abs().amax(0) / q
    dx = rounded((1 / of_rows)[:, None] * of_w) * of_rows.double()[:, None] @ codes_w
    dw = (rounded((1 / of_outputs) * of_x[:, None]) * of_outputs.double()).T @ (xs / of_x.double()[:, None])
    near = {"rtol": 2**-7, "atol": 1e-2} if real is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    assert x.grad is not None and layer.weight.grad is not None
    assert torch.allclose(y.detach().double().view(-1, 12), xs @ (codes_w * of_w.double()[:, None]).T, **near)
    assert torch.allclose(x.grad.double().view(rows.shape), dx, **near)
    assert torch.allclose(layer.weight.grad.double(), dw, rtol=1e-5, atol=1e-6)


def test_rows_and_outputs_of_nothing_but_zeros_change_no_other() -> None:
    g = torch.Generator().manual_seed(2)
    x, dy, w = (torch.randn(s, generator=g) for s in ((64, 32), (64, 24), (24, 32)))
    layer = Linear(32, 24, bias=False, config=ShiftQuantConfig(6, 6, 6, 1, "two_sided", "nearest"))

    def found(x: Tensor, dy: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        layer.weight = nn.Parameter(w.clone())
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(dy)
        assert given.grad is not None and layer.weight.grad is not None
        return y.detach(), given.grad, layer.weight.grad

    x[3], w[5] = 0, 0
    y, dx, dw = found(x, dy, w)
    for near, exact in ((y, x @ w.T), (dx, dy @ w), (dw, dy.T @ x)):
        assert (near - exact).norm() < 0.05 * exact.norm()
    assert not y[3].any() and not y[:, 5].any()


@pytest.mark.parametrize("scheme", ["channel", "two_sided"])
def test_types_stay_and_nothing_is_multiplied_by_nothing(scheme: str) -> None:
    layer = Linear(8, 4, config=ShiftQuantConfig(scheme=scheme))
    for real in (torch.float16, torch.float64, torch.bfloat16):
        x = torch.randn(5, 8, dtype=real).t().contiguous().t().requires_grad_()
        y = layer(x)
        y.sum().backward()
        assert y.dtype is real and x.grad is not None and x.grad.dtype is real
    with pytest.raises(TypeError, match="take real numbers"):
        layer(torch.ones(5, 8, dtype=torch.int64))
    for inputs, outputs in ((8, 0), (0, 4)):
        empty = Linear(inputs, outputs, bias=False, config=ShiftQuantConfig(scheme=scheme))
        assert empty(torch.randn(5, inputs)).shape == (5, outputs) and not empty(torch.randn(5, inputs)).any()


def test_operators_of_two_sided_products_trace() -> None:
    x, w = torch.randn(48, 20), torch.randn(20, 12).t()
    torch.library.opcheck(product.multiply, (x, w, 6, 4))
    _, *kept = product.multiply(x, w, 6, 4)
    torch.library.opcheck(product.gradients, (torch.randn(48, 12), *kept, 6, 6, torch.tensor(3), [True, False]))


def test_no_rows_and_any_number_of_them() -> None:
    layer = Linear(8, 4, config=ShiftQuantConfig())
    assert layer(torch.empty(0, 8)).shape == (0, 4) and layer(torch.empty(3, 0, 8)).shape == (3, 0, 4)
    for rows, expected in ((1, 1), (150, 150), (4096, 128), (1031, 1031), (514, 514), (200_003, 1), (3 * 601, 1803)):
        assert columns(rows) == expected
    layer = Linear(8, 4, config=ShiftQuantConfig(scheme="two_sided"))
    x = torch.empty(3, 0, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is not None and not layer.weight.grad.any()


@pytest.mark.parametrize("scheme", ["channel", "two_sided"])
def test_no_float_product_is_computed(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    layer, x, dy = given(8, 16, 16)
    layer.config = ShiftQuantConfig(scheme=scheme)

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


@pytest.mark.parametrize("scheme", ["channel", "two_sided"])
def test_gradients_that_are_not_finite_are_named(scheme: str) -> None:
    layer, x, dy = given(4, 8, 8)
    layer.config = ShiftQuantConfig(scheme=scheme)
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
