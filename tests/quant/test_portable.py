"""The integers of other devices are those of the CPU's kernels; on a GPU where there is one."""

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from quant import conv, gemm, portable, product, quantize_, quantizers  # noqa: E402
from quant.config import ShiftQuantConfig  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
CASES = [  # inputs, outputs, kernel, stride, padding, groups, height, width
    (3, 5, 3, 1, 1, 1, 6, 7), (16, 16, 3, 1, 1, 1, 8, 8), (17, 70, 3, 2, 1, 1, 9, 12), (16, 32, 1, 2, 0, 1, 8, 8),
    (6, 9, 3, 2, 1, 3, 7, 8),
]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("scheme", ["channel", "position", "two_sided"])
@pytest.mark.parametrize("positive", [False, True])
def test_all_numbers_are_those_of_the_kernels(device: str, case: tuple, scheme: str, positive: bool) -> None:
    inputs, outputs, kernel, stride, padding, groups, height, width = case
    g = torch.Generator().manual_seed(height)
    x, w = torch.randn(2, inputs, height, width, generator=g), torch.randn(outputs, inputs // groups, kernel, kernel)
    x = x.relu() if positive else x
    y, *kept = conv.convolve(x, w, 4, 4, stride, padding, groups)
    there, *kept_there = portable.convolve(x.to(device), w.to(device), 4, 4, stride, padding, groups)
    assert torch.equal(y, there.cpu())
    dy = torch.randn(y.shape, generator=g) * torch.logspace(-2, 0, outputs)[:, None, None]
    rest = (4, 4, scheme, torch.tensor(7), stride, padding, groups, [True, True])
    expected = conv.gradients(dy, *kept, [height, width], 4, *rest)
    found = portable.gradients(dy.to(device), *kept_there, [height, width], *rest)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b.cpu(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (30, 17, 70), (256, 64, 24)])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_products_of_rows_are_those_of_the_kernels(
    device: str, rows: int, inputs: int, outputs: int, bits: int
) -> None:
    g = torch.Generator().manual_seed(rows)
    x, w = nn.functional.gelu(torch.randn(rows, inputs, generator=g)), torch.randn(outputs, inputs, generator=g)
    y, *kept = product.multiply(x, w, bits, bits)
    _, codes, scale, scale_w, _ = kept
    dy = torch.randn(rows, outputs, generator=g) * torch.logspace(-2, 0, outputs)
    expected = product.gradients(dy, *kept, bits, bits, torch.tensor(7), [True, True])
    peak, negative = (t.cpu() for t in portable.row_ranges(x.to(device), torch.ones(inputs, device=device)))
    assert all(
        torch.equal(a, b) for a, b in zip((peak, negative), product.row_ranges(x, torch.ones(inputs)), strict=True)
    )
    _, lowest, largest = product.row_scales(x, bits)
    there = [t.to(device) for t in (codes, scale, scale_w)]
    found, made = portable.multiply_rows(x.to(device), *there, lowest, largest)
    assert torch.equal(y, found.cpu())
    q = quantizers.largest_code(bits)
    of_rows, of_outputs = product.row_ranges(dy, scale_w)[0] / q, portable.column_range(dy, scale) / q
    rest = (*there, of_rows.to(device), of_outputs.to(device), bits, 7, [True, True])
    for a, b in zip(expected, portable.multiply_rows_backward(dy.to(device), made, *rest), strict=True):
        assert torch.allclose(a, b.cpu(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_products_of_any_size(device: str) -> None:
    for m, k, n in ((1, 1, 1), (17, 9, 3), (40, 64, 130)):
        a, b = (torch.randint(-127, 128, s, dtype=torch.int8) for s in ((m, k), (n, k)))
        assert torch.equal(portable.multiply(a.to(device), b.to(device).t()).cpu(), gemm.multiply(a, gemm.pack(b)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_converted_network_trains_on_a_gpu() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    quantize_(model, ShiftQuantConfig()).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    x, y = torch.randn(64, 3, 8, 8).cuda(), torch.randint(10, (64,)).cuda()
    losses: list[Tensor] = []
    for _ in range(30):
        losses.append(nn.functional.cross_entropy(model(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
