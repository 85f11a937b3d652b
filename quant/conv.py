"""A two-dimensional convolution whose three products are of integers, without unfolding, by kernels that quantize,
multiply and write one picture after the other (cpp_ext/conv.hpp).

Pictures are channels last in memory, float32 or bfloat16. Activations have the codes that they need on either side of 0
and round to the nearest, weights have one scale; gradients are ShiftQuant by output channel, over which the gradient of
the input sums, or by position, over which that of the weights does, and the same codes serve for both; or they are made
twice ("two_sided").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cpp_ext import _gemm
from quant import gemm, portable
from quant.config import ShiftQuantConfig
from quant.operators import operator
from quant.quantizers import clipping_ratio, code_range
from quant.shift import exponents, scales, two_sided_scales


class Geometry(NamedTuple):
    """Of a convolution: strides and padding of both directions, and groups."""

    stride: int
    padding: int
    groups: int


def _last(x: Tensor) -> Tensor:
    """(images, channels, height, width) -> (images, height, width, channels), as kernels take real numbers."""
    return gemm.reals(x.permute(0, 2, 3, 1))


def _empty(images: int, rows: int, columns: int, channels: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(
        images, rows, columns, channels, dtype=torch.bfloat16 if dtype is torch.bfloat16 else torch.float32
    )


def _sides(height: int, width: int, kernel: torch.Size | list[int], stride: int, padding: int) -> tuple[int, int]:
    rows, columns = ((n + 2 * padding - k) // stride + 1 for n, k in zip((height, width), kernel, strict=True))
    return rows, columns


@operator("conv2d")
def convolve(
    x: Tensor, w: Tensor, bits_a: int, bits_w: int, stride: int, padding: int, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (images, inputs, height, width), w (outputs, inputs / groups, ky, kx) -> y of the type of x; the codes of x,
    packed; those of w (outputs, ky, kx, inputs / groups); the scales of x and of w and the least code of x."""
    if stride < 1 or groups < 1:
        raise ValueError(f"strides and groups are at least 1, not {stride} and {groups}")
    (images, inputs, height, width), (outputs, _, ky, kx) = x.shape, w.shape
    if not x.is_cpu:
        return portable.convolve(x, w, bits_a, bits_w, stride, padding, groups)
    rows, columns = _sides(height, width, [ky, kx], stride, padding)
    if rows < 1 or columns < 1 or min(height, width) < 1:
        raise ValueError(f"a kernel of {ky}x{kx} on {height}x{width} and {padding} around: nothing is left")
    codes, scale_w = gemm.quantize_weights(w.permute(0, 2, 3, 1), bits_w)
    real = _last(x)
    ranges, negative = gemm.ranges(real.view(-1, inputs))
    peak = ranges.amax()
    lowest, largest = code_range(bits_a, float(negative.amax()), float(peak))
    none = torch.zeros(inputs, dtype=torch.int64)
    inverse, scale = scales(peak * clipping_ratio(bits_a), none, largest)
    y = _empty(images, rows, columns, outputs, x.dtype)
    bits = gemm.saved_bits(bits_a)
    saved = torch.empty(_gemm.saved_size(images, height, width, inputs, groups, bits), dtype=torch.uint8)
    from_x, inverses, shifts, from_w, to, kept = gemm.arrays(
        real, inverse, none.to(torch.uint8), codes, gemm.reals(y), saved
    )
    _gemm.convolve_forward(
        torch.get_num_threads(), from_x, inverses, shifts, lowest, largest, bits, from_w, groups, stride, padding,
        float(scale * scale_w), to, kept,
    )  # fmt: skip
    found = torch.stack([scale, scale_w.view(()), torch.tensor(float(lowest))])
    return y.to(x.dtype).permute(0, 3, 1, 2), saved, codes, found


@torch.library.register_fake("narrowbit::conv2d")
def _(
    x: Tensor, w: Tensor, bits_a: int, bits_w: int, stride: int, padding: int, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (images, _, height, width), (outputs, of_group, ky, kx) = x.shape, w.shape
    rows, columns = _sides(height, width, [ky, kx], stride, padding)
    y = x.new_empty(images, rows, columns, outputs).permute(0, 3, 1, 2)
    bits = gemm.saved_bits(bits_a)
    line = (width * groups * ((of_group + 3) // 4 * 4) + 7) // 8 * bits
    return (
        y,
        x.new_empty(images * height * line, dtype=torch.uint8),
        x.new_empty(outputs, ky, kx, of_group, dtype=torch.int8),
        x.new_empty(3, dtype=torch.float32),
    )


@operator("conv2d_backward")
def gradients(
    dy: Tensor, saved: Tensor, codes: Tensor, found: Tensor, sides: list[int], bits_a: int, bits_g: int,
    groups_g: int, scheme: str, seed: Tensor | None, stride: int, padding: int, groups: int, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Of x, with the type of dy, and of w, float32; empty where they are not wanted. sides: height and width of x."""
    if not dy.is_cpu:
        return portable.gradients(
            dy, saved, codes, found, sides, bits_g, groups_g, scheme, seed, stride, padding, groups, wanted
        )
    images, outputs, (height, width) = dy.shape[0], dy.shape[1], sides
    inputs = codes.shape[3] * groups
    if not dy.numel():
        dx = dy.new_zeros(images, inputs, height, width) if wanted[0] else dy.new_empty(0)
        return dx, found.new_zeros(codes.shape).permute(0, 3, 1, 2) if wanted[1] else found.new_empty(0)
    real = _last(dy)
    q = gemm.check_groups(bits_g, groups_g)
    scale_x, scale_w, lowest = found[0], found[1], int(found[2])
    inverse_w = shifts_w = None
    of_rows, largest = 0, 0.0
    if scheme == "two_sided":
        ranges = torch.stack([gemm.ranges(picture)[0] for picture in real.view(images, -1, outputs)])
        sample, e, inverse, scale = two_sided_scales(ranges, bits_g, groups_g, 1)
        shifts = (groups_g - 1 - e).expand(images, outputs)
        factors = scale * sample.view(-1)
        by_channel, e, inverse_w, scale_dw = two_sided_scales(ranges, bits_g, groups_g, 0)
        scale_dw = (scale_dw * by_channel).view(-1, 1, 1, 1)
        shifts_w = (groups_g - 1 - e).expand(images, outputs).to(torch.uint8).contiguous()
    else:
        ranges, _ = gemm.ranges(real.view(-1, outputs))
        scope = ranges.amax()
        e = exponents(ranges, scope, groups_g)
        if scheme == "position":  # exponents of theirs are for the kernel to find
            e, of_rows, largest = torch.zeros_like(e), groups_g, float(scope)
        inverse, scale_dw = scales(scope, e, q)
        shifts, factors = groups_g - 1 - e, scale_dw.expand(images)
    power = 2.0 ** (1 - groups_g)
    dx = _empty(images, height, width, inputs, dy.dtype)
    dw = torch.empty(codes.shape, dtype=torch.int64) if wanted[1] else None
    from_dy, inverses, by, kept, from_w, factors_of, to = gemm.arrays(
        real, inverse, shifts.to(torch.uint8).contiguous(), saved, codes, (factors * scale_w * power).contiguous(),
        gemm.reals(dx),
    )  # fmt: skip
    _gemm.convolve_backward(
        torch.get_num_threads(), from_dy, inverses, by, inverse_w, shifts_w, of_rows, largest, q,
        None if seed is None else int(seed), gemm.saved_bits(bits_a), lowest, kept, from_w, groups, stride, padding,
        factors_of, to, wanted[0], dw,
    )  # fmt: skip
    dx = dx.to(dy.dtype).permute(0, 3, 1, 2) if wanted[0] else dy.new_empty(0)
    if dw is None:
        return dx, found.new_empty(0)
    return dx, (dw * (scale_dw * scale_x * power)).permute(0, 3, 1, 2)


@torch.library.register_fake("narrowbit::conv2d_backward")
def _(
    dy: Tensor, saved: Tensor, codes: Tensor, found: Tensor, sides: list[int], bits_a: int, bits_g: int,
    groups_g: int, scheme: str, seed: Tensor | None, stride: int, padding: int, groups: int, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx = dy.new_empty(dy.shape[0], *sides, codes.shape[3] * groups).permute(0, 3, 1, 2)
    dw = found.new_empty(codes.shape).permute(0, 3, 1, 2)
    return dx if wanted[0] else dy.new_empty(0), dw if wanted[1] else found.new_empty(0)


class Convolution(torch.autograd.Function):
    """x (images, inputs, height, width), w as of nn.Conv2d -> y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry, config: ShiftQuantConfig) -> Tensor:
        y, *saved = convolve(x, w, config.bits_a, config.bits_w, *geometry)
        # A seed for each pass, from torch's generator.
        seed = torch.randint(1 << 31, ()) if config.rounding == "stochastic" else None
        ctx.save_for_backward(*saved, seed)
        ctx.sides, ctx.geometry, ctx.config = list(x.shape[2:]), geometry, config
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *saved, seed = ctx.saved_tensors
        c, wanted = ctx.config, list(ctx.needs_input_grad[:2])
        dx, dw = gradients(
            dy, *saved, ctx.sides, c.bits_a, c.bits_g, c.groups, c.scheme, seed, *ctx.geometry, wanted
        )  # fmt: skip
        return dx if wanted[0] else None, dw if wanted[1] else None, None, None


def convolution(x: Tensor, w: Tensor, geometry: Geometry, config: ShiftQuantConfig) -> Tensor:
    """As of nn.functional.conv2d. Raises ValueError where gradients will be wanted that no kernel sums."""
    y: Tensor = Convolution.apply(gemm.autocast(x), w, geometry, config)
    rows, columns = y.shape[2:]
    if y.requires_grad and y.is_cpu and rows * columns > _gemm.MOST_POSITIONS:
        raise ValueError(
            f"gradients are summed over {_gemm.MOST_POSITIONS} positions at most, not {rows}x{columns}: train on "
            "smaller pictures, or on shorter sequences"
        )
    return y


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
        if not plain or len(set(self.stride)) > 1 or len(set(self.padding)) > 1:
            raise ValueError(f"no integer kernel for {self}")

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"a convolution of {self.in_channels} inputs was given {tuple(x.shape)}")
        geometry = Geometry(self.stride[0], self.padding[0], self.groups)
        y = convolution(x, self.weight, geometry, self.config)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]
