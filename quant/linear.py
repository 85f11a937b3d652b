"""A linear layer whose three products are of integers: a 1x1 convolution of rows, which become pictures of one line.

So kernels quantize, multiply and write a few hundred rows at a time (quant.conv). With "two_sided" rows and outputs
have exact scales of their own (quant.product).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant import gemm
from quant.config import ShiftQuantConfig
from quant.conv import Geometry, convolution
from quant.product import Product, columns


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
        if not x.numel() or not self.weight.numel():
            return nn.functional.linear(x, self.weight.to(x.dtype), self.bias)  # of nothing
        rows = x.reshape(x.shape[:-1].numel(), self.in_features)
        if self.config.scheme == "two_sided":
            y = Product.apply(gemm.autocast(rows), self.weight, self.config)
        else:
            lines = rows.view(-1, 1, columns(len(rows)), self.in_features).permute(0, 3, 1, 2)
            y = convolution(lines, self.weight[:, :, None, None], Geometry(1, 0, 1), self.config)
            y = y.permute(0, 2, 3, 1)
        y = y.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)
