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


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, config: ShiftQuantConfig) -> Tensor:
        rows, lowest = gemm.quantize_activations(x.flatten(0, -2), config.bits_a)
        codes, scale_w = gemm.quantize_weights(w, config.bits_w)
        seed = torch.randint(1 << 31, ()) if config.rounding == "stochastic" else None
        saved = gemm.pack_codes(rows.bytes, config.bits_a, lowest)
        ctx.save_for_backward(saved, rows.scale, codes, scale_w, seed)
        ctx.config, ctx.lowest = config, lowest
        sums = gemm.multiply(rows.bytes, gemm.pack(codes))
        return gemm.scaled(sums, rows.scale * scale_w, x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        saved, scale_x, w, scale_w, seed = ctx.saved_tensors
        outputs, inputs = w.shape
        c, g = ctx.config, dy.flatten(0, -2)
        chance = None if seed is None else int(seed)
        if c.scheme == "two_sided":
            # One scale for each row of the first product, for each column of the second.
            of_rows, of_columns = (two_sided(g.float(), c.bits_g, c.groups, chance, dim) for dim in (1, 0))
            power = 2.0 ** (1 - c.groups)
            for_dx, scale_g = gemm.to_bytes(of_rows.shifted()), of_rows.scale * power
            for_dw, scale_dw = gemm.to_bytes(of_columns.shifted()), of_columns.scale.t() * power
        else:
            made = gemm.shift_quantize(g, c.bits_g, c.groups, chance)
            for_dx, for_dw, scale_g, scale_dw = made.bytes, made.bytes, made.scale, made.scale
        dx = dw = None
        if ctx.needs_input_grad[0]:
            # Rows are shifted along the output channels, over which this product sums.
            sums = gemm.multiply(for_dx, gemm.pack(w.t().contiguous()))
            if scale_g.numel() == 1:
                dx = gemm.scaled(sums, scale_g * scale_w, dy.dtype)
            else:
                dx = (sums * (scale_g * scale_w)).to(dy.dtype)
            dx = dx.view(*dy.shape[:-1], inputs)
        if ctx.needs_input_grad[1]:
            x = gemm.unpack_codes(saved, c.bits_a, ctx.lowest, len(g))
            dw = gemm.interleaved(for_dw, x)[:outputs, :inputs] * (scale_dw * scale_x)
        return dx, dw, None


class Linear(nn.Linear):
    """nn.Linear in integers. Draws a new seed from torch's generator at every forward pass; the bias is float32."""

    def __init__(self, *args: Any, config: ShiftQuantConfig, **options: Any):
        super().__init__(*args, **options)
        self.config = config

    def check(self) -> None:
        """All of them can be done."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu:
            y = _Linear.apply(x, self.weight, self.config)
        else:  # as a convolution of pictures of one position
            rows, w = x.reshape(-1, self.in_features, 1, 1), self.weight[:, :, None, None]
            y = Convolution.apply(rows, w, Geometry(1, 0, 1), self.config).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(y.dtype)
