"""A two-dimensional convolution whose three products are of integers, without unfolding: kernels walk the taps.

Pictures are channels last in memory. Scales and rounding are those of quant.linear: gradients are ShiftQuant by output
channel, over which the gradient of the input sums; for that of the weights the same bytes serve.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cpp_ext import _gemm
from quant import gemm
from quant.config import ShiftQuantConfig
from quant.gemm import OFFSET
from quant.shift import per_tensor


def framed(rows: Tensor, shape: tuple[int, int, int], before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Bytes (images * height * width, channels) -> (images, height, width, channels) with code 0 around, so many
    positions before and after in either direction."""
    images, height, width = shape
    made = rows.new_full((images, before[0] + height + after[0], before[1] + width + after[1], rows.shape[1]), OFFSET)
    made[:, before[0] : before[0] + height, before[1] : before[1] + width] = rows.view(*shape, -1)
    return made


def taps(width: int, channels: int, where: list[tuple[int, int]]) -> Tensor:
    """Offsets in bytes of positions (row, column) in pictures of that width."""
    return torch.tensor([(row * width + column) * channels for row, column in where], dtype=torch.int64)


def pack(codes: Tensor) -> gemm.Packed:
    """Codes (n, taps, channels), int8, for `convolve`."""
    return gemm.pack(nn.functional.pad(codes, (0, -codes.shape[2] % gemm.PAD)).flatten(1))


def convolve(
    a: Tensor, packed: gemm.Packed, where: list[tuple[int, int]], stride: int, rows: int, columns: int
) -> Tensor:
    """Framed bytes a, packed codes (n, taps, channels) -> int32 (images, rows, columns, n): sums over the taps, which
    lie at `where`."""
    c = torch.empty(a.shape[0], rows, columns, packed.n, dtype=torch.int32)
    at = taps(a.shape[2], a.shape[3], where)
    _gemm.convolve(torch.get_num_threads(), a, packed.panels, packed.corrections, at, stride, c)
    return c


class Geometry(NamedTuple):
    """Of one call: height and width of the input, rows and columns of the output, ky x kx taps."""

    images: int
    inputs: int
    height: int
    width: int
    outputs: int
    ky: int
    kx: int
    stride: int
    padding: int
    rows: int
    columns: int


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, stride: int, padding: int, config: ShiftQuantConfig, seed: int
    ) -> Tensor:
        (images, inputs, height, width), (outputs, _, ky, kx) = x.shape, w.shape
        made = gemm.shift_quantize(x.permute(0, 2, 3, 1).reshape(-1, inputs), config.bits_a, 1)
        a = framed(made.bytes, (images, height, width), (padding, padding), (padding, padding))
        weights = per_tensor(w.detach(), config.bits_w)
        codes = weights.codes.permute(0, 2, 3, 1).contiguous()  # (outputs, taps_y, taps_x, inputs)
        rows, columns = ((n + 2 * padding - k) // stride + 1 for n, k in ((height, ky), (width, kx)))
        where = [(y, x) for y in range(ky) for x in range(kx)]
        c = convolve(a, pack(codes.flatten(1, 2)), where, stride, rows, columns)
        ctx.save_for_backward(a, made.scale, codes, weights.scale)
        ctx.geometry = Geometry(images, inputs, height, width, outputs, ky, kx, stride, padding, rows, columns)
        ctx.config, ctx.seed = config, seed
        return (c * (made.scale * weights.scale).view(1)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, scale_x, codes, scale_w = ctx.saved_tensors
        outputs = ctx.geometry.outputs
        g = gemm.shift_quantize(
            dy.permute(0, 2, 3, 1).reshape(-1, outputs), ctx.config.bits_g, ctx.config.groups, ctx.seed
        )
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(g.bytes, codes, ctx.geometry) * (g.scale * scale_w).view(1)
            dx = dx.permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(g.bytes, a, ctx.geometry) * (g.scale * scale_x).view(1)
        return dx, dw, None, None, None, None


def _input_gradient(g: Tensor, codes: Tensor, geometry: Geometry) -> Tensor:
    """Input positions of the same remainder by the stride see the same taps: a convolution of g for each remainder."""
    images, inputs, height, width, _, ky, kx, stride, padding, rows, columns = geometry
    made = torch.zeros(images, height, width, inputs, dtype=torch.int32)
    margin = max(ky, kx)
    around = framed(g, (images, rows, columns), (margin, margin), (margin, margin))
    for py in range(min(stride, height)):
        for px in range(min(stride, width)):
            pairs = [
                (y, x) for y in range(ky) for x in range(kx)
                if (py + padding - y) % stride == 0 and (px + padding - x) % stride == 0
            ]  # fmt: skip
            if not pairs:
                continue
            where = [((py + padding - y) // stride + margin, (px + padding - x) // stride + margin) for y, x in pairs]
            part = torch.stack([codes[:, y, x] for y, x in pairs], 1).permute(2, 1, 0).contiguous()
            shape = (-(-(height - py) // stride), -(-(width - px) // stride))
            made[:, py::stride, px::stride] = convolve(around, pack(part), where, 1, *shape)
    return made


def _weight_gradient(g: Tensor, a: Tensor, geometry: Geometry) -> Tensor:
    """Sums over positions, four neighbours of a row at a time: a product for each tap."""
    images, inputs, _, _, outputs, ky, kx, stride, _, rows, columns = geometry
    fours = -(-columns // 4)
    left = framed(g, (images, rows, columns), (0, 0), (0, 4 * fours - columns))
    left = left.view(images * rows, fours, 4, -1).transpose(2, 3).contiguous()  # (row, four, output, 4)
    n, m, lines = a.shape[3], left.shape[2], a.shape[1]
    made = torch.empty(outputs, ky, kx, inputs, dtype=torch.int32)
    at_left = torch.arange(images * rows) * (fours * m * 4)
    image, row = (t.flatten() for t in torch.meshgrid(torch.arange(images), torch.arange(rows), indexing="ij"))
    for x in range(kx):
        line = a[:, :, x : x + stride * (columns - 1) + 1 : stride]
        line = nn.functional.pad(line, (0, 0, 0, 4 * fours - columns), value=OFFSET)
        sums = (line.int() - OFFSET).sum(2)  # (image, line, input)
        right = (line.reshape(images, lines, fours, 4, n).transpose(3, 4) ^ OFFSET).contiguous()
        for y in range(ky):
            used = slice(y, y + stride * (rows - 1) + 1, stride)
            corrections = torch.zeros(-(-n // _gemm.COLUMNS) * _gemm.COLUMNS, dtype=torch.int32)
            corrections[:n] = -OFFSET * sums[:, used].sum((0, 1))
            at_right = (image * lines + y + stride * row) * (fours * n * 4)
            c = torch.empty(m, n, dtype=torch.int32)
            _gemm.multiply_stretches(left, right, corrections, at_left, at_right, fours, c)
            made[:, y, x] = c[:outputs, :inputs]
    return made.permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """nn.Conv2d in integers: square strides, padding by zeros, no dilation. The bias is float32.

    Raises ValueError for what the kernels do not do.
    """

    def __init__(self, *args: Any, config: ShiftQuantConfig, **options: Any):
        super().__init__(*args, **options)
        self.config = config
        self.check()

    def check(self) -> None:
        """Raises ValueError for what the kernels do not do."""
        plain = self.padding_mode == "zeros" and not isinstance(self.padding, str) and self.dilation == (1, 1)
        if not plain or self.groups != 1 or len(set(self.stride)) > 1 or len(set(self.padding)) > 1:
            raise ValueError(f"no integer kernel for {self}")

    def forward(self, x: Tensor) -> Tensor:
        seed = int(torch.randint(1 << 31, ()).item()) if torch.is_grad_enabled() else 0
        y = _Conv2d.apply(x, self.weight, self.stride[0], self.padding[0], self.config, seed)
        return y if self.bias is None else y + self.bias[:, None, None]
