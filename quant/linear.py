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
from quant.shift import per_tensor


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, config: ShiftQuantConfig, seed: int) -> Tensor:
        rows = gemm.shift_quantize(x.flatten(0, -2), config.bits_a, 1)
        weights = per_tensor(w.detach(), config.bits_w)
        scale = rows.scale * weights.scale
        ctx.save_for_backward(rows.bytes, rows.scale, weights.codes, weights.scale)
        ctx.config, ctx.seed = config, seed
        return (gemm.multiply(rows.bytes, gemm.pack(weights.codes)) * scale).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, scale_x, w, scale_w = ctx.saved_tensors
        outputs, inputs = w.shape
        g = gemm.shift_quantize(dy.flatten(0, -2), ctx.config.bits_g, ctx.config.groups, ctx.seed)
        dx = dw = None
        if ctx.needs_input_grad[0]:
            # Rows of g are shifted along the output channels, over which this product sums.
            dx = gemm.multiply(g.bytes, gemm.pack(w.t().contiguous())) * (g.scale * scale_w)
            dx = dx.view(*dy.shape[:-1], inputs)
        if ctx.needs_input_grad[1]:
            dw = gemm.interleaved(g.bytes, x)[:outputs, :inputs] * (g.scale * scale_x)
        return dx, dw, None, None


class Linear(nn.Linear):
    """nn.Linear in integers. Draws a new seed from torch's generator at every forward pass; the bias is float32."""

    def __init__(self, *args: Any, config: ShiftQuantConfig, **options: Any):
        super().__init__(*args, **options)
        self.config = config

    def check(self) -> None:
        """All of them can be done."""

    def forward(self, x: Tensor) -> Tensor:
        seed = int(torch.randint(1 << 31, ()).item()) if torch.is_grad_enabled() else 0
        y = _Linear.apply(x, self.weight, self.config, seed)
        return y if self.bias is None else y + self.bias
