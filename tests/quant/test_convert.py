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
    layer, other = nn.Linear(4, 4), nn.Linear(4, 4)
    model = quant.quantize_(nn.Sequential(layer, other, layer), quant.ShiftQuantConfig(skip=("2",)))
    assert model[0] is model[2] is layer and isinstance(model[1], Linear)


@pytest.mark.parametrize(("layer", "x", "error"), [
    (nn.Linear(8, 4), torch.ones(2, 8, dtype=torch.int64), TypeError),
    (nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8, dtype=torch.uint8), TypeError),
    (nn.BatchNorm2d(3), torch.ones(1, 3, 8, 8, dtype=torch.uint8), TypeError),
    (nn.Linear(8, 4), torch.ones(2, 7), ValueError), (nn.Conv2d(3, 4, 3), torch.ones(3, 8, 8), ValueError),
    (nn.LayerNorm(4), torch.ones(2, 8), ValueError), (nn.LayerNorm((2, 3)), torch.ones(5, 3, 2), ValueError),
    (nn.BatchNorm2d(3), torch.ones(1, 4, 8, 8), ValueError),
])  # fmt: skip
def test_what_no_layer_takes_is_refused(layer: nn.Module, x: Tensor, error: type[Exception]) -> None:
    model = quant.quantize_(nn.Sequential(layer), quant.ShiftQuantConfig())
    with pytest.raises(error):
        model(x)


@pytest.mark.parametrize("real", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_numbers(real: torch.dtype) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10), nn.LayerNorm(10)
    )
    quant.quantize_(model, quant.ShiftQuantConfig(skip=("4",))).to(real)
    y = model(torch.randn(2, 3, 8, 8, dtype=real))
    y.sum().backward()
    assert y.dtype is real and all(p.grad is not None and p.grad.dtype is real for p in model.parameters())


def test_torch_does_not_go_around_the_layers_of_its_transformer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0, batch_first=True)
    model = quant.quantize_(nn.Sequential(layer), quant.ShiftQuantConfig(2, 2, 2, 1)).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        without = model(x)
    assert (without - model(x).detach()).abs().mean() < 1e-3  # but for attention's own arithmetic


def test_skip_is_names_with_all_in_them() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4))
    quant.quantize_(model, quant.ShiftQuantConfig(skip=("0",)))
    assert type(model[0][0]) is nn.Linear and isinstance(model[1], Linear)
    with pytest.raises(ValueError, match="a tuple of names"):
        quant.ShiftQuantConfig(skip="fc")
    with pytest.raises(ValueError, match="no Linear, Conv2d or norm"):
        quant.quantize_(nn.Sequential(nn.ReLU()), quant.ShiftQuantConfig())


def test_more_rows_than_one_product_takes() -> None:
    rows = (1 << 17) + 300
    layer = quant.quantize_(nn.Sequential(nn.Linear(4, 4, bias=False)), quant.ShiftQuantConfig(rounding="nearest"))[0]
    x = torch.randn(rows, 4)
    layer(x).backward(torch.ones(rows, 4))
    xs = quant.activations(x, 4).values().double().sum(0)
    assert torch.allclose(layer.weight.grad.double(), xs.expand(4, 4), rtol=1e-4)


def test_nan_is_not_hidden_by_relu() -> None:
    model = quant.quantize_(nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), quant.ShiftQuantConfig())
    with pytest.raises(quant.NonFinite):
        model(torch.tensor([[1.0, torch.nan, 2.0, 3.0]]))


def test_an_encoder_with_a_padding_mask_stays_one() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = quant.quantize_(
        nn.TransformerEncoder(layer, 2), quant.ShiftQuantConfig(bits_w=8, bits_a=8, groups=1)
    ).eval()
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3:] = True
    with torch.no_grad():
        assert model(torch.randn(3, 5, 16), src_key_padding_mask=mask).shape == (3, 5, 16)


def test_gradients_of_too_many_positions_are_refused_before_they_are_wanted() -> None:
    model = quant.quantize_(nn.Sequential(nn.Conv2d(1, 1, 1)), quant.ShiftQuantConfig())
    x = torch.randn(1, 1, 400, 400)
    with pytest.raises(ValueError, match="not 400x400: train on smaller pictures"):
        model(x)
    with torch.no_grad():
        assert model(x).shape == x.shape


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.LayerNorm(6)])
def test_a_compiled_norm_takes_any_batch(norm: nn.Module) -> None:
    model = quant.quantize_(nn.Sequential(norm), quant.ShiftQuantConfig())
    graphs = torch._dynamo.utils.counters["stats"]
    before = graphs["unique_graphs"]
    compiled = torch.compile(model, backend="aot_eager")
    for n in range(2, 8):
        x = torch.randn(n, 4, 5, 6, requires_grad=True)
        compiled(x).sum().backward()
    assert graphs["unique_graphs"] - before <= 2
