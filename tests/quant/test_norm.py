"""Integer L1 batch normalization against its definition in numpy's integers, and against exact arithmetic."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import quant  # noqa: E402
from quant.activation import ReLU  # noqa: E402
from quant.norm import K, L1BatchNorm2d, L1LayerNorm, l1_normalize  # noqa: E402


def power(x: NDArray, bits: int) -> NDArray:
    """2^k with x * 2^k below 2^bits."""
    _, exponent = np.frexp(np.abs(x).max(0))
    return np.where(np.abs(x).max(0) > 0, np.exp2(np.clip(bits - exponent, -126, 126)), 1.0)


LINE, LINES = 64, 256  # rows of few channels side by side to so many places, and such lines in a block


def block_sums(x: NDArray, kept: NDArray | int = 1) -> NDArray:
    """Sums of x times what is kept, each block of a place's numbers as codes by its own power."""
    channels = x.shape[1]
    together = max(LINE // channels, 1)
    whole = len(x) // together
    ends = [*range(LINES, whole, LINES), whole] if whole else []
    kept = np.broadcast_to(kept, x.shape)
    total = np.zeros(channels)
    for first, last in zip([0, *ends], [*ends, (len(x) / together)], strict=True):
        rows = slice(first * together, round(last * together))
        for place in range(together):
            part = x[rows][place::together].astype(np.float64)
            if len(part):
                p = power(part, 14)
                total += (np.rint(part * p).astype(np.int64) * kept[rows][place::together]).sum(0) / p
    return total


def defined(x: NDArray, gamma: NDArray, beta: NDArray, dz: NDArray, eps: float) -> tuple[NDArray, ...]:
    """What cpp_ext/norm.hpp says, x and dz (rows, channels) float32: z, dx, dgamma, dbeta."""
    m, p = len(x), power(x, 14)
    q = np.rint(x.astype(np.float64) * p).astype(np.int64)
    d = np.clip(q - np.floor(block_sums(x) / m * p + 0.5).astype(np.int64), -32767, 32767)
    peak = np.abs(d).max(0)
    with np.errstate(divide="ignore"):
        size = K * (np.abs(d).sum(0) / m)
        square = size * size + eps * (p * p)
        inverse = np.where(square > 0, 1 / np.sqrt(square), 0)
        slope = gamma.astype(np.float64) * inverse
        most = np.abs(slope) * peak + np.abs(beta.astype(np.float64))
        bits = np.where(most > 0, 14 - np.frexp(most)[1], 0)
        slope = np.ldexp(slope, bits)
    up = np.where(peak > 0, 15 - np.frexp(peak)[1], 0)
    factor = np.clip(np.rint(np.ldexp(slope, 15 - up)), -32767, 32767).astype(np.int64)
    offset = np.rint(np.ldexp(beta.astype(np.float64), bits)).astype(np.int64)
    z = np.float32((((d << up) * factor + 16384) >> 15) + offset) * np.float32(np.exp2(-bits.astype(np.float64)))
    octave = np.maximum(np.frexp(np.abs(d))[1] - np.frexp(peak)[1] + 7, 0)
    octave = np.where(d == 0, 0, octave)
    sign = np.where(d < 0, -1, 1)
    lowest = np.abs(d).sum(0) / (1 << octave).sum(0)

    pg = power(dz, 14)
    g = np.rint(dz.astype(np.float64) * pg).astype(np.int64)
    total = block_sums(dz)
    along = block_sums(dz, sign << octave) * pg * lowest * inverse
    tilt = 256 * K * along / m * (size * inverse)
    mean_sign = 1 - 2 * (d < 0).sum(0) / m
    mean = np.rint(256 * (total * pg) / m - tilt * mean_sign).astype(np.int64)
    factor_x = np.float32(gamma.astype(np.float64) * (inverse * p) / (256 * pg))
    dx = np.float32(g * 256 - mean - sign * np.rint(tilt).astype(np.int64)) * factor_x
    return z, dx, np.float32(along / pg), np.float32(total)


def example(rows: int, channels: int, seed: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, channels)) * np.logspace(-2, 2, channels) + rng.standard_normal(channels)
    x[:, 0] = 3.0  # a channel without deviations
    dz = rng.standard_normal((rows, channels)) * np.logspace(-3, 0, channels)
    dz[:, -1] = 0
    gamma, beta = rng.standard_normal((2, channels))
    return x.astype(np.float32), dz.astype(np.float32), gamma.astype(np.float32), beta.astype(np.float32)


def through(x: Tensor, dz: Tensor, gamma: NDArray, beta: NDArray) -> tuple[Tensor, ...]:
    layer = L1BatchNorm2d(x.shape[1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(gamma)), layer.bias.copy_(torch.from_numpy(beta))
    pictures = x.view(1, len(x), 1, -1).permute(0, 3, 1, 2).requires_grad_()
    z = layer(pictures)
    z.backward(dz.view(1, len(x), 1, -1).permute(0, 3, 1, 2))

    def rows(t: Tensor) -> Tensor:
        return t.detach().permute(0, 2, 3, 1).reshape(len(x), -1)

    return rows(z), rows(pictures.grad), layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("channels", [1, 3, 16, 32, 64, 100, 128, 200])
@pytest.mark.parametrize("rows", [1, 7, 300, 9000])
def test_kernels_give_the_defined_numbers(rows: int, channels: int) -> None:
    x, dz, gamma, beta = example(rows, channels, rows + channels)
    found = through(torch.from_numpy(x), torch.from_numpy(dz), gamma, beta)
    for a, b in zip(found, defined(x, gamma, beta, dz, 1e-5), strict=True):
        assert np.array_equal(a.numpy(), b)


def test_bfloat16_is_the_same_but_for_its_rounding() -> None:
    x, dz, gamma, beta = example(500, 48, 1)
    half = [torch.from_numpy(a).bfloat16() for a in (x, dz)]
    found = through(*half, gamma, beta)
    x, dz = (t.float().numpy() for t in half)
    for a, b in zip(found, defined(x, gamma, beta, dz, 1e-5), strict=True):
        expected = torch.from_numpy(b)
        if a.dtype is torch.bfloat16:  # to the nearest, ties away from 0
            expected = ((expected.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)
        assert torch.equal(a, expected)


def test_every_instruction_set_and_any_threads_give_the_same_numbers(everywhere: Callable[[str], list[str]]) -> None:
    program = (
        "import hashlib, sys, torch; sys.path[:0] = ['tests/quant']; import test_norm as t; import numpy as np;"
        "torch.set_num_threads(THREADS); x, dz, g, b = t.example(5000, 24, 3);"
        "made = t.through(torch.from_numpy(x), torch.from_numpy(dz), g, b);"
        "y = torch.from_numpy(x).requires_grad_(); r = t.ReLU()(y); r.backward(torch.from_numpy(dz));"
        "l = t.L1LayerNorm(24); v = torch.from_numpy(x.copy()).requires_grad_(); w = l(v);"
        "w.backward(torch.from_numpy(dz));"
        "all = (*made, r, y.grad, w, v.grad, l.weight.grad, l.bias.grad);"
        "print(hashlib.sha256(b''.join(a.detach().numpy().tobytes() for a in all)).hexdigest())"
    )
    assert len(set(everywhere(program))) == 1


def test_it_is_near_exact_arithmetic() -> None:
    """Within one 4-bit code of the exact gradient, and far nearer for as many numbers as training has."""
    torch.manual_seed(0)
    layer = L1BatchNorm2d(16)
    x = (torch.randn(8, 16, 24, 24) * torch.logspace(-1, 1, 16)[:, None, None]).requires_grad_()
    dz = torch.randn_like(x) + 0.3 * x.detach().sign()
    z = layer(x)
    z.backward(dz)
    exact = x.detach().double().requires_grad_()
    y, mean, scale = l1_normalize(exact, (0, 2, 3), layer.eps)
    y.backward(dz.double())
    assert (z - y).abs().max() < 2e-3
    off = (x.grad - exact.grad).abs() / exact.grad.abs().amax((0, 2, 3), keepdim=True)
    on_a_side = y.abs() > 1e-3  # at the mean itself the gradient jumps
    assert off[on_a_side].max() < 0.01 < 1 / quant.largest_code(4) and on_a_side.float().mean() > 0.99
    assert torch.allclose(layer.running_mean.double(), 0.1 * mean.flatten(), atol=1e-4)
    assert torch.allclose(layer.running_var.double().sqrt(), 0.9 + 0.1 * scale.flatten(), rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (300, 192), (64, 768), (40, 129)])
@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16])
def test_layers_are_near_exact_arithmetic(shape: tuple[int, int], real: torch.dtype) -> None:
    torch.manual_seed(shape[0])
    layer = L1LayerNorm(shape[1])
    with torch.no_grad():
        layer.weight.normal_(), layer.bias.normal_()
    x = (torch.randn(shape) * torch.logspace(-2, 2, shape[0])[:, None]).to(real).requires_grad_()
    dz = torch.randn(shape).to(real)
    z = layer(x)
    z.backward(dz)
    exact = x.detach().double().requires_grad_()
    y, _, _ = l1_normalize(exact, (1,), layer.eps)
    wanted = y * layer.weight.detach().double() + layer.bias.detach().double()
    wanted.backward(dz.double())
    coarse = 2.0**-7 if real is torch.bfloat16 else 0
    assert torch.allclose(z.double(), wanted, rtol=1e-3 + coarse, atol=5e-3)
    assert torch.allclose(layer.bias.grad.double(), dz.double().sum(0), atol=1e-4)
    if shape[1] > 100:  # else a level of 3 bits is not far from the mean of few products
        off = (x.grad - exact.grad).abs() / exact.grad.abs().amax(1, keepdim=True)
        assert off[y.abs() > 1e-2].max() < 1 / quant.largest_code(4) and off.median() < 1e-2 + coarse


def defined_layer(x: NDArray, gamma: NDArray, beta: NDArray, dz: NDArray, eps: float) -> tuple[NDArray, NDArray]:
    """What cpp_ext/norm.hpp says of rows, x and dz (rows, length) float32: z and dx."""
    m, p = x.shape[1], power(x.T, 14)[:, None]
    q = np.rint(x.astype(np.float64) * p).astype(np.int64)
    d = q - (2 * q.sum(1, keepdims=True) + m) // (2 * m)
    peak = np.abs(d).max(1, keepdims=True)
    with np.errstate(divide="ignore"):
        size = K * (np.abs(d).sum(1, keepdims=True) / m)
        square = size * size + eps * (p * p)
        inverse = np.where(square > 0, 1 / np.sqrt(square), 0)
    up = np.where(peak > 0, 15 - np.frexp(peak)[1], 0)
    slope = np.where(peak > 0, np.ldexp(inverse, -up), 0)
    exponent = np.where(slope > 0, np.frexp(slope)[1] - 1, 0)
    factor = np.minimum(np.rint(np.ldexp(slope, 14 - exponent)), 32767).astype(np.int64)
    unit = np.float32(np.exp2(np.where(slope > 0, exponent + 1.0, 0)))
    z = np.float32(((d << up) * factor + 16384) >> 15) * unit * gamma + beta
    octave = np.where(d == 0, 0, np.maximum(np.frexp(np.abs(d))[1] - np.frexp(peak)[1] + 7, 0))
    sign = np.where(d < 0, -1, 1)
    lowest = np.abs(d).sum(1, keepdims=True) / (1 << octave).sum(1, keepdims=True)

    pg = power((dz * gamma).T, 14)[:, None]
    g = np.rint((dz * gamma) * np.float32(pg)).astype(np.int64)
    along = (g * sign << octave).sum(1, keepdims=True) * lowest * inverse
    tilt = 256 * K * along / m * (size * inverse)
    mean_sign = 1 - 2 * (d < 0).sum(1, keepdims=True) / m
    mean = np.rint(256 * g.sum(1, keepdims=True) / m - tilt * mean_sign).astype(np.int64)
    off = g * 256 - mean - sign * np.rint(tilt).astype(np.int64)
    return z, np.float32(off) * np.float32(inverse * p / (256 * pg))


@pytest.mark.parametrize("length", [1, 7, 33, 64, 65, 127, 192, 1000, 1024, 4097, 20000])
@pytest.mark.parametrize("kind", ["gauss", "signs", "sparse", "offset"])
def test_kernels_of_layers_give_the_defined_numbers(length: int, kind: str) -> None:
    rng = np.random.default_rng(length)
    x = rng.standard_normal((11, length)) * np.logspace(-6, 6, 11)[:, None]
    x[3] = 2.0
    dz = rng.standard_normal((11, length)) * np.logspace(-3, 3, 11)[:, None]
    if kind == "signs":  # products as large as they are
        x, dz = np.sign(x), 0.99999 * np.sign(x)
    if kind == "sparse":
        x = x * (rng.random(x.shape) < 0.05)
    if kind == "offset":
        x = x + np.abs(x).max(1, keepdims=True) * 5
    gamma, beta = rng.standard_normal((2, length))
    if kind == "signs":
        gamma = np.ones(length)
    x, dz, gamma, beta = (np.float32(a) for a in (x, dz, gamma, beta))
    layer = L1LayerNorm(length)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(gamma)), layer.bias.copy_(torch.from_numpy(beta))
    v = torch.from_numpy(x).requires_grad_()
    z = layer(v)
    z.backward(torch.from_numpy(dz))
    expected = defined_layer(x, gamma, beta, dz, layer.eps)
    assert np.array_equal(z.detach().numpy(), expected[0]) and np.array_equal(v.grad.numpy(), expected[1])
    assert np.allclose(layer.bias.grad.numpy(), dz.astype(np.float64).sum(0), rtol=1e-5, atol=1e-6 * np.abs(dz).max())


def test_a_channel_does_not_see_the_others() -> None:
    """Neither their outliers nor their weights."""
    torch.manual_seed(0)
    x, dz = torch.randn(2000, 4), torch.randn(2000, 4)
    usual = through(x, dz, np.ones(4, np.float32), np.zeros(4, np.float32))
    x[:, 0], dz[:, 0] = 0, 1e4
    x[7, 0] = 1e6
    found = through(x, dz, np.float32([1e20, 1, 1, 1]), np.float32([1e6, 0, 0, 0]))
    assert all(torch.equal(a[..., 1:], b[..., 1:]) for a, b in zip(usual, found, strict=True))


@pytest.mark.parametrize("real", [torch.float64, torch.float16, torch.bfloat16])
def test_running_statistics_do_not_depend_on_the_default_type(real: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 9, 9, dtype=torch.float32) + 5
    layer = L1BatchNorm2d(3, dtype=torch.float32)
    kept = torch.get_default_dtype()
    torch.set_default_dtype(real)
    try:
        layer(x)
    finally:
        torch.set_default_dtype(kept)
    assert torch.allclose(layer.running_mean, 0.1 * x.mean((0, 2, 3)), atol=1e-3)


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(name: str, value: float) -> None:
    layer = L1BatchNorm2d(3)
    with torch.no_grad():
        getattr(layer, name)[1] = value
    with pytest.raises(quant.NonFinite, match="weight or bias"):
        layer(torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("layer", [L1BatchNorm2d(4), L1LayerNorm(4), ReLU()])
def test_second_derivatives_are_refused(layer: nn.Module) -> None:
    x = torch.randn(2, 4, 4, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.square().sum().backward()


def test_operators_refuse_what_kernels_do_not_read() -> None:
    one, zero = torch.ones(6), torch.zeros(6)
    for x in (torch.randn(6, 6).t(), torch.randn(6, 6, dtype=torch.float64), torch.randn(6, 6).half()):
        with pytest.raises(ValueError, match="dense float32 or bfloat16"):
            torch.ops.narrowbit.l1_batch_norm(x, one, zero, 1e-5)
        with pytest.raises(ValueError, match="dense float32 or bfloat16"):
            torch.ops.narrowbit.l1_layer_norm(x, one, zero, 1e-5)
    with pytest.raises(ValueError, match="dense float32 or bfloat16"):
        torch.ops.narrowbit.relu(torch.randn(4, 8)[:, ::2])


def test_layers_give_the_same_numbers_on_any_threads() -> None:
    kept, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        layer, x = L1LayerNorm(70), torch.randn(1000, 70, requires_grad=True)
        layer(x).backward(torch.randn(1000, 70))
        found.append((x.grad, layer.weight.grad, layer.bias.grad))
    torch.set_num_threads(kept)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_inference_is_an_affine_map_of_the_running_statistics() -> None:
    layer = L1BatchNorm2d(5).eval()
    with torch.no_grad():
        layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2), layer.weight.normal_()
    x = torch.randn(2, 5, 3, 3)
    usual = nn.BatchNorm2d(5).eval()
    usual.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(x), usual(x), atol=1e-6)


def test_state_dicts_of_the_usual_norm_load() -> None:
    usual, ours = nn.BatchNorm2d(6), L1BatchNorm2d(6)
    usual(torch.randn(4, 6, 5, 5) * 3)
    ours.load_state_dict(usual.state_dict())
    assert torch.equal(ours.running_var, usual.running_var)
    usual.load_state_dict(ours.state_dict())


def test_what_cannot_be_normalized_is_named() -> None:
    layer = L1BatchNorm2d(2)
    x = torch.randn(1, 2, 3, 3)
    x[0, 0, 0, 0] = torch.inf
    with pytest.raises(quant.NonFinite, match="to be normalized"):
        layer(x)
    z = layer(torch.randn(1, 2, 3, 3).requires_grad_())
    with pytest.raises(quant.NonFinite, match="gradient of a normalization"):
        z.backward(torch.full_like(z, torch.nan))
    with pytest.raises(ValueError, match="channels are needed"):
        layer(torch.empty(0, 2, 3, 3))


@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16])
def test_numbers_may_be_as_large_as_is_said(real: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3, 4, 4).sign() * torch.tensor([1.0, 2.0**116, 1e-38])[:, None, None]
    for layer in (L1BatchNorm2d(3, eps=0), L1LayerNorm([4, 4], eps=0)):
        z = layer(x.to(real))
        assert torch.allclose(z.float().abs().mean(), torch.tensor(1 / K), rtol=0.03), layer
        with pytest.raises(quant.NonFinite, match=r"2\^117"):
            layer((2 * x).to(real))


@pytest.mark.parametrize("size", [1, 511, 512, 513, 5000])
@pytest.mark.parametrize("real", [torch.float32, torch.bfloat16])
def test_relu_is_relu(size: int, real: torch.dtype) -> None:
    x = torch.randn(size).to(real)
    x[::7] = 0
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    dy = torch.randn(size).to(real)
    for v, f in ((a, ReLU()), (b, nn.ReLU())):
        f(v).backward(dy)
    assert torch.equal(ReLU()(x), x.relu()) and torch.equal(a.grad, b.grad)


def test_what_is_constant_has_small_gradients() -> None:
    """A channel or row without deviations is eps's, as of L2 norms."""
    for layer, usual in ((L1BatchNorm2d(4), nn.BatchNorm2d(4)), (L1LayerNorm(4), nn.LayerNorm(4))):
        x = torch.randn(64, 4, 4, 4)
        x[:, 0] = 0
        x[:, 1] = 7
        if isinstance(usual, nn.LayerNorm):
            x[3:9] = 1
        dz, found = torch.randn_like(x), []
        for m in (layer, usual):
            v = x.clone().requires_grad_()
            m(v).backward(dz)
            found.append((v.grad, m.weight.grad))
        assert found[0][0].abs().max() < 2 * found[1][0].abs().max()
        assert found[0][1].abs().max() < 2 * found[1][1].abs().max()


def test_sums_hold_the_largest_products() -> None:
    """Two values a channel and a gradient of their signs: every product is as large as products are."""
    x = torch.ones(4096, 128)
    x[1::2] = -1
    dz = x * 0.99999
    kept = torch.get_num_threads()
    torch.set_num_threads(1)  # more take shorter pieces
    _, dx, gamma, _ = through(x, dz, np.ones(128, np.float32), np.zeros(128, np.float32))
    torch.set_num_threads(kept)
    assert torch.allclose(gamma, torch.full((128,), 0.99999 * 4096 / K), rtol=1e-3)
    assert dx.abs().max() < 1e-3
