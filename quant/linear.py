"""A linear layer whose three products are of integers: forward, gradient of the input, gradient of the weights.

Weights and activations have one scale and round to the nearest, gradients are ShiftQuant by output channel and round by
chance (our defaults). Master weights stay float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant import gemm
from quant.config import ShiftQuantConfig
from quant.conv import Convolution, Geometry
from quant.shift import two_sided

MOST_ROWS = 1 << 17  # whose sums fit 32 bits


@torch.library.custom_op("narrowbit::linear", mutates_args=())
def multiply(x: Tensor, w: Tensor, bits_a: int, bits_w: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x (rows, inputs), w (outputs, inputs) -> y of the type of x; the codes of x, packed; those of w; the scales of
    x and of w and the least code of x."""
    codes, scale_w = gemm.quantize_weights(w, bits_w)
    sums, kept = gemm.multiply_activations(x, gemm.pack(codes), bits_a)
    found = torch.cat([kept.scale, scale_w, torch.tensor([float(kept.lowest)])])
    return gemm.scaled(sums, kept.scale * scale_w, x.dtype), kept.codes, codes, found


@multiply.register_fake
def _(x: Tensor, w: Tensor, bits_a: int, bits_w: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    kept = x.shape[0] * ((x.shape[1] + gemm.PAD - 1) // gemm.PAD * gemm.PAD) * gemm.saved_bits(bits_a) // 8
    return (
        x.new_empty(x.shape[0], w.shape[0]), x.new_empty(kept, dtype=torch.uint8),
        w.new_empty(w.shape, dtype=torch.int8), w.new_empty(3, dtype=torch.float32),
    )  # fmt: skip


@torch.library.custom_op("narrowbit::linear_backward", mutates_args=())
def gradients(
    dy: Tensor, saved: Tensor, codes: Tensor, found: Tensor, bits_a: int, bits_g: int, groups: int, scheme: str,
    seed: Tensor | None, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Of x, with the type of dy, and of w, float32; empty where they are not wanted."""
    (outputs, inputs), chance = codes.shape, None if seed is None else int(seed)
    if not dy.numel():
        dx = dy.new_zeros(len(dy), inputs) if wanted[0] else dy.new_empty(0)
        return dx, found.new_zeros(codes.shape) if wanted[1] else found.new_empty(0)
    scale_x, scale_w, lowest = found[0], found[1], int(found[2])
    if scheme == "two_sided":
        # One scale for each row of the first product, for each column of the second.
        of_rows, of_columns = (two_sided(dy.float(), bits_g, groups, chance, dim) for dim in (1, 0))
        power = 2.0 ** (1 - groups)
        for_dx, scale_g = gemm.to_bytes(of_rows.shifted()), of_rows.scale * power
        for_dw, scale_dw = gemm.to_bytes(of_columns.shifted()), of_columns.scale.t() * power
    else:
        made = gemm.shift_quantize(dy, bits_g, groups, chance)
        for_dx, for_dw, scale_g, scale_dw = made.bytes, made.bytes, made.scale, made.scale
    dx, dw = dy.new_empty(0), found.new_empty(0)
    if wanted[0]:
        # Rows are shifted along the output channels, over which this product sums.
        sums = gemm.multiply(for_dx, gemm.pack(codes.t().contiguous()))
        if scale_g.numel() == 1:
            dx = gemm.scaled(sums, scale_g * scale_w, dy.dtype)
        else:
            dx = (sums * (scale_g * scale_w)).to(dy.dtype)
    if wanted[1]:
        x = gemm.Kept(saved, scale_x, lowest).bytes(bits_a, len(dy), inputs)
        parts = zip(for_dw.split(MOST_ROWS), x.split(MOST_ROWS), strict=True)
        sums = torch.stack([gemm.interleaved(g, a) for g, a in parts]).sum(0)  # int64
        dw = sums[:outputs, :inputs] * (scale_dw * scale_x)
    return dx, dw


@gradients.register_fake
def _(
    dy: Tensor, saved: Tensor, codes: Tensor, found: Tensor, bits_a: int, bits_g: int, groups: int, scheme: str,
    seed: Tensor | None, wanted: list[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    dx = dy.new_empty(dy.shape[0], codes.shape[1]) if wanted[0] else dy.new_empty(0)
    return dx, found.new_empty(codes.shape) if wanted[1] else found.new_empty(0)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, config: ShiftQuantConfig) -> Tensor:
        y, *saved = multiply(x, w, config.bits_a, config.bits_w)
        seed = torch.randint(1 << 31, ()) if config.rounding == "stochastic" else None
        ctx.save_for_backward(*saved, seed)
        ctx.config = config
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *saved, seed = ctx.saved_tensors
        c, wanted = ctx.config, list(ctx.needs_input_grad[:2])
        dx, dw = gradients(dy, *saved, c.bits_a, c.bits_g, c.groups, c.scheme, seed, wanted)
        return dx if wanted[0] else None, dw if wanted[1] else None, None


class Linear(nn.Linear):
    """nn.Linear in integers. Draws a new seed from torch's generator at every forward pass; the bias is float32."""

    def __init__(self, *args: Any, config: ShiftQuantConfig, **options: Any):
        super().__init__(*args, **options)
        self.config = config

    def check(self) -> None:
        """All of them can be done."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"a linear layer of {self.in_features} inputs was given {tuple(x.shape)}")
        if x.is_cpu:
            y = _Linear.apply(x.reshape(-1, self.in_features), self.weight, self.config)
            y = y.view(*x.shape[:-1], self.out_features)
        else:  # as a convolution of pictures of one position
            rows, w = x.reshape(-1, self.in_features, 1, 1), self.weight[:, :, None, None]
            y = Convolution.apply(rows, w, Geometry(1, 0, 1), self.config).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)
