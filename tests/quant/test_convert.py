"""quantize_ on whole models, and L1 normalization."""

import math

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

import quant  # noqa: E402
from quant.conv import Conv2d  # noqa: E402
from quant.linear import Linear  # noqa: E402
from quant.norm import K, L1BatchNorm2d, L1LayerNorm, l1_normalize  # noqa: E402


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 32), nn.LayerNorm(32), nn.Linear(32, 4),
    )  # fmt: skip


def test_layers_become_low_bit_in_place() -> None:
    model = small()
    before = dict(model.named_parameters())
    state = {n: t.clone() for n, t in model.state_dict().items()}
    assert quant.quantize_(model, quant.ShiftQuantConfig(skip=("0", "9"))) is model
    kinds = [type(m) for m in model]
    assert kinds[0] is nn.Conv2d and kinds[9] is nn.Linear
    assert (kinds[3], kinds[7], kinds[1], kinds[8]) == (Conv2d, Linear, L1BatchNorm2d, L1LayerNorm)
    assert all(p is before[n] for n, p in model.named_parameters())
    assert {n: t.tolist() for n, t in model.state_dict().items()} == {n: t.tolist() for n, t in state.items()}
    small().load_state_dict(model.state_dict())
    model.load_state_dict(small().state_dict())
    kept = quant.quantize_(small(), quant.ShiftQuantConfig(norm="keep"))
    assert type(kept[1]) is nn.BatchNorm2d and type(kept[0]) is Conv2d


def test_a_converted_model_trains() -> None:
    model = quant.quantize_(small(), quant.ShiftQuantConfig(skip=("0", "9")))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    x, label = torch.randn(32, 3, 8, 8), torch.arange(32) % 4
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_what_cannot_be_converted_is_named_and_nothing_changes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 3, dilation=2))
    with pytest.raises(ValueError, match=r"^1: no integer kernel for Conv2d.*name it in skip"):
        quant.quantize_(model, quant.ShiftQuantConfig())
    assert type(model[0]) is nn.Linear
    with pytest.raises(ValueError, match="skip names head, which"):
        quant.quantize_(model, quant.ShiftQuantConfig(skip=("1", "head")))
    with pytest.raises(ValueError, match="into a Sequential"):
        quant.quantize_(nn.Linear(2, 2), quant.ShiftQuantConfig())


def defined_gradient(x: Tensor, dz: Tensor) -> Tensor:
    """Of c / (K s1) over the last dimension, derived by hand."""
    c = x - x.mean(-1, keepdim=True)
    scale = K * c.abs().mean(-1, keepdim=True)
    y, sign = c / scale, c.sign()
    correction = (K * dz * y).mean(-1, keepdim=True) * (sign - sign.mean(-1, keepdim=True))
    return (dz - dz.mean(-1, keepdim=True) - correction) / scale


def test_l1_norm_and_its_gradient_are_the_formulas() -> None:
    x = torch.randn(5, 33, dtype=torch.double, requires_grad=True)
    y, _, _ = l1_normalize(x, (1,), 0.0)
    assert torch.allclose(y.abs().mean(-1) * K, torch.ones(5, dtype=torch.double))
    assert abs(float(y.detach().mean())) < 1e-12
    dz = torch.randn_like(x)
    (found,) = torch.autograd.grad(y, x, dz)
    assert torch.allclose(found, defined_gradient(x.detach(), dz), atol=1e-9)


def test_batch_norm_follows_its_data() -> None:
    layer = L1BatchNorm2d(3, momentum=0.5)
    x = torch.randn(64, 3, 16, 16) * torch.tensor([1.0, 2.0, 5.0])[:, None, None] + 3
    for _ in range(12):
        y = layer(x)
    assert torch.allclose(layer.running_var.sqrt(), torch.tensor([1.0, 2.0, 5.0]), rtol=0.03)
    assert torch.allclose(layer.eval()(x), y, atol=0.01)
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(layer.state_dict())
    assert torch.allclose(plain.eval()(x), y, atol=0.1)  # Gaussian data
    assert math.isclose(float(y.detach().mean()), 0, abs_tol=1e-3)


def test_torch_compile_goes_around_the_kernels() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10), nn.LayerNorm(10)
    )
    quant.quantize_(model, quant.ShiftQuantConfig(rounding="nearest"))  # compiled, seeds are drawn in another order
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = []
    for f in (model, compiled):
        torch.manual_seed(0)
        model.zero_grad()
        y = f(torch.linspace(-1, 1, 768).view(4, 3, 8, 8))
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_examples_and_no_deviations_are_no_trouble() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10), nn.LayerNorm(10))
    quant.quantize_(model, quant.ShiftQuantConfig())
    for images in (0, 2):
        y = model(torch.zeros(images, 3, 8, 8))
        assert y.shape == (images, 10)
        y.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    with pytest.raises(quant.NonFinite):
        model(torch.full((1, 3, 8, 8), torch.nan))
    with pytest.raises(ValueError, match="nothing is left"):
        model[0](torch.zeros(1, 3, 2, 2))


def test_a_module_of_two_names_stays_one() -> None:
    layer = nn.Linear(4, 4)
    model = quant.quantize_(nn.Sequential(layer, nn.ReLU(), layer), quant.ShiftQuantConfig())
    assert model[0] is model[2] and isinstance(model[0], Linear) and model[0].weight is layer.weight
    model = quant.quantize_(nn.Sequential(layer, nn.ReLU(), layer), quant.ShiftQuantConfig(skip=("2",)))
    assert model[0] is model[2] is layer
